"""Read what Cell Ranger 1 to 9 writes: the .h5 files and matrix folders of every layout that tenx_places.py finds."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from cellscribe.counts import BLOCK, GENE_EXPRESSION, Counts, NumbersSeen
from cellscribe.errors import InputError
from cellscribe.hdf5 import holds, offsets, whole
from cellscribe.mtx import mtx_blocks, mtx_head, read_mtx
from cellscribe.other_programs import BY_CONTENT
from cellscribe.stored import StoredCsr, StoredInput
from cellscribe.tenx_files import open_h5, reading
from cellscribe.tenx_metrics import read_metrics
from cellscribe.tenx_places import Found, pick
from cellscribe.words import first_names

if TYPE_CHECKING:
    import h5py
    import scipy.sparse as sp

AnyCounts = Counts["sp.csr_matrix | StoredInput"]
# Whose genes an assembly's name says they are.
ASSEMBLIES = {"human": re.compile(r"(GRCh|hg)\d"), "mouse": re.compile(r"(GRCm|mm)\d")}


def read_tenx(found: Found, genome: str | None = None, scratch: Path | None = None) -> AnyCounts:
    """Read a Cell Ranger matrix: its names, and its counts as they can be walked over (stored.py).

    genome: which of several genomes to read, where each has a matrix of its own (version 2). scratch: a folder with
    room for a large matrix.mtx, twelve bytes a number, which is sorted by cells there.
    Raises InputError for files that are cut short or do not fit together.
    """
    if found.kind == "h5":
        counts, seen = _read_h5(found.paths[0], genome)
    else:
        folder = found.paths[0]
        if len(found.paths) > 1:
            folders = {path.name: path for path in found.paths}
            summaries = {name: _folder_summary(path) for name, path in folders.items()}
            folder = folders[choose_genome(summaries, genome, folder.parent)]
        counts, seen = _read_folder(folder, scratch)
    counts.named_raw = found.named_raw
    counts.notes = [*found.notes, *counts.notes]
    if found.metrics:
        counts.metrics = read_metrics(found.metrics)
    if not seen.are_counts and counts.matrix.shape[0] and counts.matrix.nnz:
        raise InputError(
            f"the matrix does not hold raw counts ({seen}): {seen.fault}",
            "Give the matrix as Cell Ranger wrote it.",
            file=found.paths[0],
        )
    return counts


def genome_called(asked: str, genomes: Iterable[str]) -> str:
    """The genome's own name where an organism is asked for and one genome is of it; else what was asked."""
    names = list(genomes)
    assemblies = ASSEMBLIES.get(asked.lower())
    own = [name for name in names if assemblies and assemblies.match(name)]
    return own[0] if asked not in names and len(own) == 1 else asked


def choose_genome(genomes: dict[str, str], asked: str | None, path: Path) -> str:
    """The genome to read: by its name, or by its organism.

    genomes: name to a summary of its cells. Raises InputError where none is chosen.
    """
    asked = genome_called(asked, genomes) if asked else None
    listed = "\n".join(f"  {name}: {summary}" for name, summary in genomes.items())
    if not asked:
        raise InputError(
            f"the matrix holds the genes of {len(genomes)} genomes:\n{listed}",
            f"Choose one with genome (--genome {next(iter(genomes))}): its genes are read, and the cells that have "
            "most of their counts on them.",
            file=path,
        )
    if asked not in genomes:
        raise InputError(
            f"there is no genome '{asked}'; there are:\n{listed}", "Choose one of these.", file=path
        )
    return asked


def _text(node: h5py.Dataset) -> np.ndarray:
    """Names, as an array of str. Raises TypeError where the file holds something else."""
    if node.dtype.kind not in "SO":
        raise TypeError(f"'{node.name}' holds no names")
    return np.array([v.decode() if isinstance(v, bytes) else str(v) for v in whole(node)], dtype=object)


def _read_h5(path: Path, genome: str | None) -> tuple[AnyCounts, NumbersSeen]:
    with open_h5(path) as file:
        groups = {name: group for name, group in file.items() if holds(group, "barcodes")}
        if group := groups.get("matrix"):
            features = group["features"]
            names = {"ids": "id", "symbols": "name", "types": "feature_type", "genomes": "genome"}
            nodes = {
                name: features[key] for name, key in names.items() if name != "genomes" or key in features
            }
            return _h5_counts(group, path, "10x_h5_v3", nodes)
        if not groups:
            raise InputError(
                f"this .h5 is no Cell Ranger matrix; it holds {first_names(list(file)) or 'nothing'}",
                next(
                    (todo for name, todo in BY_CONTENT.items() if name in file),
                    "Give filtered_feature_bc_matrix.h5 (molecule_info.h5 holds molecules, not cells).",
                ),
                file=path,
            )
        chosen = next(iter(groups))
        if len(groups) > 1:
            summaries = {
                name: f"{len(g['barcodes']):,} cells, {sum(int(part.sum()) for part in _parts_of(g['data'])):,} counts"
                for name, g in groups.items()
            }
            chosen = choose_genome(summaries, genome, path)
        group = groups[chosen]
        return _h5_counts(
            group, path, "10x_h5_v2", {"ids": group["genes"], "symbols": group["gene_names"]}, chosen
        )


def _parts_of(values: h5py.Dataset) -> Iterator[np.ndarray]:
    for start in range(0, len(values), BLOCK):
        yield values[start : start + BLOCK]


def _h5_counts(
    group: h5py.Group, path: Path, source: str, nodes: dict[str, h5py.Dataset], genome: str = ""
) -> tuple[AnyCounts, NumbersSeen]:
    """nodes: what the file says of its features, by the names that `_counts` has. genome: of all of them, where no node
    tells. Names are read only once there are as many as the matrix has features and cells.
    """
    n_features, n_cells = (int(size) for size in whole(group["shape"]))
    n_barcodes, n_ids = len(group["barcodes"]), len(nodes["ids"])
    _must_agree(path, n_cells=n_cells, n_features=n_features, barcodes=n_barcodes, features=n_ids)
    if any(len(node) != n_features for node in nodes.values()):
        raise ValueError("features differ in number from their names, types or genomes")
    barcodes = _text(group["barcodes"])
    features = {
        "types": np.full(n_features, GENE_EXPRESSION, dtype=object),
        "genomes": np.full(n_features, genome, dtype=object),
    } | {name: _text(node) for name, node in nodes.items()}
    indptr, n_numbers, n_indices = offsets(whole(group["indptr"])), len(group["data"]), len(group["indices"])
    if len(indptr) != n_cells + 1 or indptr[-1] != n_numbers or n_numbers != n_indices:
        raise InputError(
            f"the parts of the matrix do not agree: {n_cells:,} cells, {len(indptr):,} offsets, "
            f"{n_indices:,} indices, {n_numbers:,} numbers",
            "Copy the file again, or make it again.",
            file=path,
        )
    seen, least, most = NumbersSeen(), 0, -1
    for data, indices in zip(_parts_of(group["data"]), _parts_of(group["indices"]), strict=True):
        seen.add(data)
        least, most = min(least, int(indices.min())), max(most, int(indices.max()))
    if least < 0 or most >= n_features:
        raise InputError(
            f"the matrix names feature {least if least < 0 else most:,}, but there are {n_features:,}",
            "Copy the file again, or make it again.",
            file=path,
        )
    # Features by barcodes in columns is barcodes by features in rows: nothing is to be turned.
    matrix = StoredCsr(path, group.name, (n_cells, n_features), indptr, open_h5)
    return _counts(matrix, barcodes, source=source, **features), seen


def _counts(
    matrix: sp.csr_matrix | StoredInput,
    barcodes: np.ndarray,
    ids: np.ndarray,
    symbols: np.ndarray,
    types: np.ndarray,
    genomes: np.ndarray | None,
    source: str,
) -> AnyCounts:
    return Counts(
        matrix=matrix,
        obs=pd.DataFrame(index=pd.Index(barcodes, dtype=object)),
        var=pd.DataFrame({"gene_ids": ids}, index=pd.Index(symbols, dtype=object)),
        feature_types=types,
        genomes=np.full(len(ids), "", dtype=object) if genomes is None else genomes,
        source=source,
        counts_from="matrix",
    )


def _must_agree(
    path: Path, *, n_cells: int, n_features: int, barcodes: int, features: int, most: int | None = None
) -> None:
    """Raise InputError unless there are as many names as the matrix has. most: beyond it, names were not counted."""
    if (n_cells, n_features) == (barcodes, features):
        return
    turned = (
        " The matrix seems to be turned (cells by features)."
        if (n_features, n_cells) == (barcodes, features)
        else ""
    )
    of_features, of_barcodes = (
        f"{n:,}" if most is None or n <= most else f"more than {most:,}" for n in (features, barcodes)
    )
    raise InputError(
        f"the matrix has {n_features:,} features and {n_cells:,} cells, but there are {of_features} feature "
        f"names and {of_barcodes} barcodes.{turned}",
        "Give matrix, barcodes and features of the same run.",
        file=path,
    )


def _read_table(path: Path, n_rows: int) -> pd.DataFrame:
    """The lines of a table, n_rows and one more at most: a table of more does not fit anyway."""
    with reading(path):
        try:
            return pd.read_csv(
                path,
                sep="\t",
                header=None,
                dtype=str,
                keep_default_na=False,
                na_filter=False,
                skip_blank_lines=True,
                quotechar='"',
                compression="gzip" if path.suffix == ".gz" else None,
                nrows=n_rows + 1,
            )
        except pd.errors.EmptyDataError:
            return pd.DataFrame({0: []}, dtype=object)


def _parts(folder: Path) -> tuple[Path, Path, Path]:
    matrix, barcodes = pick(folder, "matrix.mtx"), pick(folder, "barcodes.tsv")
    features = pick(folder, "features.tsv", "genes.tsv")
    missing = [
        name
        for name, part in (
            ("matrix.mtx", matrix),
            ("barcodes.tsv", barcodes),
            ("features.tsv or genes.tsv", features),
        )
        if part is None
    ]
    if matrix is None or barcodes is None or features is None:
        seen = sorted(child.name for child in folder.iterdir() if not child.name.startswith("."))
        raise InputError(
            f"{' and '.join(missing)} (plain or .gz) is missing; the folder holds {first_names(seen) or 'nothing'}",
            "Put matrix, barcodes and features of the same run into one folder.",
            file=folder,
        )
    return matrix, barcodes, features


def _folder_summary(folder: Path) -> str:
    path = _parts(folder)[0]
    total = sum(int(numbers.sum()) for _, _, numbers in mtx_blocks(path))
    return f"{mtx_head(path).n_columns:,} cells, {total:,} counts"


def _read_folder(folder: Path, scratch: Path | None) -> tuple[AnyCounts, NumbersSeen]:
    matrix_path, barcodes_path, features_path = _parts(folder)
    head = mtx_head(matrix_path)
    # As many as either has: a matrix that is turned is told apart.
    most = max(head.n_rows, head.n_columns)
    barcodes = _read_table(barcodes_path, most)[0].to_numpy(dtype=object)
    features = _read_table(features_path, most)
    if not head.coordinate:
        raise InputError(
            "the matrix is no sparse (coordinate) matrix",
            "Give it as Cell Ranger wrote it.",
            file=matrix_path,
        )
    n_features, n_cells = head.n_rows, head.n_columns
    _must_agree(
        folder,
        n_cells=n_cells,
        n_features=n_features,
        barcodes=len(barcodes),
        features=len(features),
        most=most,
    )
    matrix, seen = read_mtx(matrix_path, head, scratch)
    ids = features[0].to_numpy(dtype=object)
    symbols = features[1].to_numpy(dtype=object) if features.shape[1] > 1 else ids
    version = "10x_mtx_v3" if features.shape[1] > 2 else "10x_mtx_v2"
    if features.shape[1] > 2:
        types, genomes = features[2].to_numpy(dtype=object), None
    else:
        types = np.full(n_features, GENE_EXPRESSION, dtype=object)
        # A v2 matrix lies in a folder named after its genome.
        named = folder.name if folder.parent.name.endswith("_gene_bc_matrices") else ""
        genomes = np.full(n_features, named, dtype=object)
    return _counts(matrix, barcodes, ids, symbols, types, genomes, version), seen
