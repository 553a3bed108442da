"""Read what Cell Ranger 1 to 9 writes: outs folders, matrix folders and .h5 files of every layout."""

from __future__ import annotations

import csv
import gzip
import io
import re
import warnings
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from cellscribe.counts import BLOCK, GENE_EXPRESSION, Counts, NumbersSeen, as_float32_counts
from cellscribe.errors import InputError
from cellscribe.hdf5 import holds, offsets, opened, whole
from cellscribe.stored import IN_MEMORY, RowBuckets, StoredCsr, StoredInput

if TYPE_CHECKING:
    import h5py
    import scipy.sparse as sp

AnyCounts = Counts["sp.csr_matrix | StoredInput"]
# In the order of preference: filtered before raw, h5 (one file, quick to read) before mtx.
PLACES = tuple(
    f"{folder}{kind}{matrix}"
    for kind in ("filtered_", "sample_filtered_", "raw_", "sample_raw_")
    for matrix in ("feature_bc_matrix.h5", "feature_bc_matrix", "gene_bc_matrices_h5.h5", "gene_bc_matrices")
    for folder in ("", "count/", "multi/count/")
)
WRITE_FROM_R = "Write its counts in R as Cell Ranger has them (DropletUtils::write10xCounts), or as an .h5ad."
# What to do with a file that is no HDF5, by its name.
BY_NAME = (
    (
        r"(matrix\.mtx|(barcodes|features|genes)\.tsv)(\.gz)?$",
        "Give the folder that it lies in, with the two others.",
    ),
    (
        r"(cells_x_\w+|quants_mat)(\.\w+)*\.mtx$",
        "This seems to be a matrix of kb or alevin-fry: give an .h5ad of it (`kb count --h5ad`, `pyroe convert`).",
    ),
    (r"\.(rds|rda|rdata|robj)$", f"This seems to be an R object. {WRITE_FROM_R}"),
    (r"\.(zip|tar|tgz|tar\.gz)$", "This seems to be an archive: unpack it, and give what it holds."),
    (r"\.(csv|tsv|txt|xlsx)(\.gz)?$", "This seems to be a table: write its counts as an .h5ad."),
    (r"\.(fastq|fq)(\.gz)?$|\.bam$", "This seems to be reads: give what Cell Ranger makes of them."),
    (r"\.gz$", "This seems to be a packed file: unpack it (gunzip), and give what comes out."),
)
# What to do with an HDF5 file of another program, by what it holds.
BY_CONTENT = {
    "row_attrs": "This seems to be a loom file: write it as an .h5ad (anndata.io.read_loom, then write_h5ad).",
    "assays": f"This seems to be a file of Seurat. {WRITE_FROM_R}",
}
# What a table of `cellranger aggr` calls a sample, of version 6 on and before.
NAMES_OF_AGGR = ("sample_id", "library_id")
# No line of a matrix.mtx is shorter, and gzip packs at most 1,032 to one.
SHORTEST_LINE, MOST_PACKED = 2, 1100
LONGEST_LINE = 100_000
NUMBERS: dict[str, type] = {"integer": np.int64, "unsigned-integer": np.int64, "real": np.float64}
LARGEST_METRICS = 2**20


@dataclass
class Found:
    """Where the counts of a sample lie: an h5, h5ad, or the folders of a matrix (one a genome)."""

    kind: str
    paths: list[Path]
    named_raw: bool = False
    metrics: Path | None = None
    notes: list[str] = field(default_factory=list)


# Finding ---------------------------------------------------------------------------------------------


def find_input(path: Path) -> Found:
    """Find the counts at `path`: a file, a matrix folder, an outs folder, or a folder above one.

    Raises InputError where there is nothing, or several samples, to read.
    """
    if path.is_file():
        return Found(_file_kind(path), [path], _is_raw(path.name), _metrics_near(path.parent))
    if not path.is_dir():
        raise InputError("this is neither a file nor a folder", "Give a file or a folder.", file=path)
    if found := _matrix_folder(path):
        return found
    for folder in (path, path / "outs"):
        if found := _outs(folder):
            return found
    below = [
        found for child in _folders(path) for place in (child, child / "outs") if (found := _outs(place))
    ]
    if len(below) == 1:
        return below[0]
    if below:
        listed = "\n".join(f"  {found.paths[0]}" for found in below)
        raise InputError(
            f"the folder holds {len(below)} samples:\n{listed}",
            "Give each its own row in the sample sheet.",
            file=path,
        )
    seen = sorted(child.name for child in path.iterdir() if not child.name.startswith("."))
    todo = (
        "Give an outs folder, a matrix folder (matrix.mtx, barcodes.tsv, features.tsv), an .h5 or an .h5ad."
    )
    if {".zgroup", "zarr.json"} & {child.name for child in path.iterdir()}:
        todo = "This is a zarr store: write it as an .h5ad (anndata.read_zarr, then write_h5ad)."
    elif deeper := _deeper(path):
        todo = f"Deeper in it there are {_listing(deeper)}: give one of these."
    else:
        todo = _of_another_program(path) or todo
    raise InputError(
        f"no Cell Ranger matrix was found in this folder; it holds {_listing(seen)}", todo, file=path
    )


def _of_another_program(path: Path) -> str:
    """What to do with a folder of STARsolo, kb, alevin-fry or CellBender, or with one above it; "" of others.

    What of theirs can be read (a matrix folder, an .h5, an .h5ad) is named where it is there.
    """
    return next(filter(None, (told(path) for told in (_starsolo, _kb, _alevin_fry, _cellbender))), "")


def _below(path: Path, *patterns: str) -> list[str]:
    """The places of these patterns below a folder, or two folders further down, in the order of the patterns."""
    return [
        str(place.relative_to(path))
        for pattern in patterns
        for above in ("", "*/", "*/*/")
        for place in sorted(path.glob(above + pattern))
    ]


def _starsolo(path: Path) -> str:
    matrices = _below(path, *(f"Gene*/{kind}/matrix.mtx*" for kind in ("filtered", "raw")))
    if path.absolute().name.startswith("Gene"):
        matrices += [str(at.relative_to(path)) for at in sorted(path.glob("*/matrix.mtx*"))]
    if not matrices:
        return ""
    folders = [*dict.fromkeys(str(Path(name).parent) for name in matrices)]
    cells = [name for name in folders if Path(name).name != "raw"] or folders
    return (
        f"This seems to be the output of STARsolo: give the folder of one matrix, {_listing(cells)} "
        "(Gene counts exons, GeneFull introns too, as Cell Ranger does from version 7 on)."
    )


def _kb(path: Path) -> str:
    if not _below(path, "cells_x_*.mtx"):
        return ""
    readable = _below(
        path, "counts_filtered/adata.h5ad", "counts_filtered/cellranger", "adata.h5ad", "cellranger"
    )
    if readable:
        return f"This seems to be the output of kb: give {readable[0]}, which lies in it."
    return "This seems to be the output of kb: run `kb count` with --h5ad, and give the adata.h5ad that it writes."


def _alevin_fry(path: Path) -> str:
    if not _below(path, "quants_mat.mtx", "quants_mat.gz"):
        return ""
    if readable := _below(path, "quants.h5ad"):
        return f"This seems to be the output of alevin-fry: give {readable[0]}, which lies in it."
    return (
        "This seems to be the output of alevin-fry: write it as an .h5ad (`pyroe convert --output-structure snRNA "
        "--output-format h5ad FOLDER counts.h5ad`, FOLDER being the one that holds `alevin`), and give that."
    )


def _cellbender(path: Path) -> str:
    cells = [name for name in _below(path, "*_filtered.h5") if not name.endswith("_matrix.h5")]
    if not cells:
        return ""
    return f"This seems to be the output of CellBender: give the counts of its cells, {_listing(cells)}."


def _deeper(path: Path) -> list[str]:
    """Matrices two and three folders below, as those of Visium HD's bins."""
    names = (f"{kind}filtered_feature_bc_matrix.h5" for kind in ("", "sample_"))
    found = {place for name in names for above in ("*/*", "*/*/*") for place in path.glob(f"{above}/{name}")}
    return sorted(str(place.relative_to(path)) for place in found)


def _listing(names: list[str]) -> str:
    if not names:
        return "nothing"
    return ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")


def _folders(path: Path) -> list[Path]:
    return sorted(child for child in path.iterdir() if child.is_dir() and not child.name.startswith("."))


def _is_raw(name: str) -> bool:
    return any(f"raw_{kind}_bc_matri" in name for kind in ("feature", "gene"))


def _metrics_near(folder: Path) -> Path | None:
    for place in (folder, *list(folder.parents)[:2]):
        if (metrics := place / "metrics_summary.csv").is_file():
            return metrics
    return None


def aggregation_table(matrix: Path) -> Path | None:
    """The table of what `cellranger aggr` joined, beside the matrix or up to two folders above; None without one."""
    names = ("aggregation.csv", "aggregation_csv.csv")
    places = (folder / name for folder in list(matrix.parents)[:3] for name in names)
    return next((place for place in places if place.is_file()), None)


def aggregated_samples(table: Path) -> list[str]:
    """The names in a table of `cellranger aggr`, whose i-th is that of the cells whose barcodes end in -i; [] where it
    has none, or one twice.
    """
    with table.open(encoding="utf-8-sig", errors="replace", newline="") as file:
        rows = list(csv.reader(io.StringIO(file.read(LARGEST_METRICS))))
    rows = [[value.strip() for value in row] for row in rows if any(value.strip() for value in row)]
    head = [name.lower() for name in rows[0]] if rows else []
    column = next((head.index(name) for name in NAMES_OF_AGGR if name in head), None)
    if column is None:
        return []
    names = [row[column] if column < len(row) else "" for row in rows[1:]]
    return names if all(names) and len(set(names)) == len(names) else []


def _file_kind(path: Path) -> str:
    import h5py

    if not h5py.is_hdf5(path):
        by_name = (todo for pattern, todo in BY_NAME if re.search(pattern, path.name, re.I))
        raise InputError(
            f"this is no HDF5 file ({path.stat().st_size:,} bytes): it is cut short, or of another kind",
            next(by_name, "Give a Cell Ranger .h5, an .h5ad, or a folder."),
            file=path,
        )
    with _open_h5(path) as file:
        return "h5ad" if "obs" in file and "var" in file else "h5"


def _outs(folder: Path) -> Found | None:
    """The best matrix of one outs folder, or None. `multi`: the one sample's; several are an error."""
    if not folder.is_dir():
        return None
    samples = [
        found
        for base in ("per_sample_outs", "multi/per_sample_outs")
        if (folder / base).is_dir()
        for child in _folders(folder / base)
        if (found := _outs(child))
    ]
    if len(samples) > 1:
        listed = "\n".join(f"  {_sample_folder(found.paths[0])}" for found in samples)
        raise InputError(
            f"this Cell Ranger multi run holds {len(samples)} samples:\n{listed}",
            "Give each of these folders its own row in the sample sheet.",
            file=folder,
        )
    if samples:
        samples[0].notes.append(
            f"The one sample of this multi run is '{_sample_folder(samples[0].paths[0]).name}'."
        )
        return samples[0]
    for place in PLACES:
        if found := _at_place(folder / place, place):
            found.metrics = next(
                (
                    name
                    for name in (folder / "metrics_summary.csv", folder.parent / "metrics_summary.csv")
                    if name.is_file()
                ),
                None,
            )
            return found
    downloads = [
        child
        for ending in (
            "filtered_feature_bc_matrix.h5",
            "filtered_gene_bc_matrices_h5.h5",
            "raw_feature_bc_matrix.h5",
        )
        for child in sorted(folder.glob(f"*{ending}"))
        if not child.name.startswith(".")
    ]
    filtered = [child for child in downloads if not _is_raw(child.name)] or downloads
    if len(filtered) == 1:
        return Found(
            _file_kind(filtered[0]), filtered, _is_raw(filtered[0].name), notes=[_used(filtered[0].name)]
        )
    if filtered:
        raise InputError(
            f"the folder holds {len(filtered)} matrices: {_listing([child.name for child in filtered])}",
            "Give each its own row in the sample sheet.",
            file=folder,
        )
    return None


def _sample_folder(path: Path) -> Path:
    return next(parent for parent in path.parents if parent.parent.name == "per_sample_outs")


def _used(name: str) -> str:
    return f"The counts were read from {name}."


def _at_place(path: Path, place: str) -> Found | None:
    if path.is_file() and path.suffix == ".h5":
        return Found(_file_kind(path), [path], _is_raw(place), notes=[_used(place)])
    if not path.is_dir():
        return None
    if found := _matrix_folder(path):
        found.named_raw, found.notes = _is_raw(place), [_used(place)]
        return found
    genomes = [child for child in _folders(path) if _matrix_folder(child)]
    if not genomes:
        return None
    return Found("mtx", genomes, _is_raw(place), notes=[_used(place)])


def _matrix_folder(path: Path) -> Found | None:
    """`path` itself as a matrix folder, v2 or v3; also the folder of genomes of v2."""
    if _pick(path, "matrix.mtx"):
        raw = any(_is_raw(name) for name in (path.name, path.parent.name))
        return Found("mtx", [path], raw, _metrics_near(path.parent))
    if _is_raw(path.name) or "filtered_gene_bc_matrices" in path.name:
        genomes = [child for child in _folders(path) if _pick(child, "matrix.mtx")]
        if genomes:
            return Found("mtx", genomes, _is_raw(path.name), _metrics_near(path.parent))
    return None


def _pick(folder: Path, *names: str) -> Path | None:
    """The file of `folder` that ends in one of `names`, plain or gzipped; None where there is none.

    A prefix is allowed (files from GEO have one), but only one prefix a folder. Junk (`._*`) is ignored.
    """
    for name in names:
        for exact in (folder / f"{name}.gz", folder / name):
            if exact.is_file():
                return exact
        prefixed = sorted(
            child
            for child in folder.glob(f"*{name}*")
            if child.name.endswith((name, f"{name}.gz"))
            and not child.name.startswith(".")
            and child.is_file()
        )
        if len(prefixed) > 1:
            raise InputError(
                f"there are {len(prefixed)} files named *{name}: {_listing([f.name for f in prefixed])}",
                "Put each sample's three files into a folder of its own.",
                file=folder,
            )
        if prefixed:
            return prefixed[0]
    return None


# Reading ---------------------------------------------------------------------------------------------


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


# Whose genes an assembly's name says they are.
ASSEMBLIES = {"human": re.compile(r"(GRCh|hg)\d"), "mouse": re.compile(r"(GRCm|mm)\d")}


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


def _cut_short(path: Path, error: BaseException) -> InputError:
    return InputError(
        f"the file cannot be read: it is cut short or damaged ({type(error).__name__}: {error})",
        "Copy it again, or make it again.",
        file=path,
    )


def _text(node: h5py.Dataset) -> np.ndarray:
    """Names, as an array of str. Raises TypeError where the file holds something else."""
    if node.dtype.kind not in "SO":
        raise TypeError(f"'{node.name}' holds no names")
    return np.array([v.decode() if isinstance(v, bytes) else str(v) for v in whole(node)], dtype=object)


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Whatever a library raises of a file that it cannot read, as an error that names the file."""
    try:
        yield
    except (InputError, MemoryError):
        raise
    except Exception as error:
        raise _cut_short(path, error) from error


def _open_h5(path: Path) -> AbstractContextManager[h5py.File]:
    return opened(path, lambda error: _cut_short(path, error))


def _read_h5(path: Path, genome: str | None) -> tuple[AnyCounts, NumbersSeen]:
    with _open_h5(path) as file:
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
                f"this .h5 is no Cell Ranger matrix; it holds {_listing(list(file))}",
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
    matrix = StoredCsr(path, group.name, (n_cells, n_features), indptr, _open_h5)
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
    with _reading(path):
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
    matrix, barcodes = _pick(folder, "matrix.mtx"), _pick(folder, "barcodes.tsv")
    features = _pick(folder, "features.tsv", "genes.tsv")
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
            f"{' and '.join(missing)} (plain or .gz) is missing; the folder holds {_listing(seen)}",
            "Put matrix, barcodes and features of the same run into one folder.",
            file=folder,
        )
    return matrix, barcodes, features


@dataclass(frozen=True)
class MtxHead:
    """What the first lines of a matrix.mtx say. number: the type of its numbers. symmetric: one half is written."""

    n_rows: int
    n_columns: int
    n_numbers: int
    coordinate: bool
    number: type
    symmetric: bool


@contextmanager
def _opened_mtx(path: Path) -> Iterator[tuple[MtxHead, Any]]:
    """The head of a matrix.mtx, and its text from the first number on.

    Read here and not by scipy, whose compiled parser a damaged file can make end the process.
    """
    with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as text:
        words = text.readline(LONGEST_LINE).lower().split()
        if len(words) != 5 or words[:2] != [b"%%matrixmarket", b"matrix"]:
            raise ValueError("its first line is not that of a Matrix Market file")
        layout, kind, symmetry = (word.decode() for word in words[2:])
        if layout not in ("coordinate", "array"):
            raise ValueError(f"a layout '{layout}' is not known")
        if layout == "coordinate" and (kind not in NUMBERS or symmetry not in ("general", "symmetric")):
            raise InputError(
                f"the matrix holds no counts: its header says '{kind} {symmetry}'",
                "Give it as Cell Ranger wrote it.",
                file=path,
            )
        while (line := text.readline(LONGEST_LINE)) and (not line.strip() or line.lstrip().startswith(b"%")):
            pass
        sizes = [int(word) for word in line.split()]
        if len(sizes) != (3 if layout == "coordinate" else 2) or min(sizes) < 0:
            raise ValueError("its sizes are not there")
        if symmetry == "symmetric" and sizes[0] != sizes[1]:
            raise ValueError(f"it is said to be symmetric, and is of {sizes[0]:,} by {sizes[1]:,}")
        n_numbers = sizes[2] if layout == "coordinate" else 0
        most = path.stat().st_size * (MOST_PACKED if path.suffix == ".gz" else 1) // SHORTEST_LINE
        if n_numbers > most:
            raise ValueError(f"its head says that it holds {n_numbers:,} numbers")
        coordinate, number = layout == "coordinate", NUMBERS.get(kind, float)
        yield MtxHead(sizes[0], sizes[1], n_numbers, coordinate, number, symmetry == "symmetric"), text


def _mtx_head(path: Path) -> MtxHead:
    with _reading(path), _opened_mtx(path) as (head, _):
        return head


def _mtx_blocks(path: Path) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Rows, columns, both counted from 0, and numbers of a coordinate matrix.mtx, block by block."""
    n_read = 0
    with _reading(path), _opened_mtx(path) as (head, text), warnings.catch_warnings():
        # A line of more than three numbers.
        warnings.simplefilter("error", pd.errors.ParserWarning)
        if not head.n_numbers:
            return
        types = {"row": np.int64, "column": np.int64, "number": head.number}
        tables = pd.read_csv(
            text,
            sep=r"\s+",
            header=None,
            names=list(types),
            dtype=types,
            index_col=False,
            chunksize=BLOCK,
        )
        for table in tables:
            n_read += len(table)
            rows, columns = table["row"].to_numpy() - 1, table["column"].to_numpy() - 1
            for values, size, what in ((rows, head.n_rows, "row"), (columns, head.n_columns, "column")):
                if values.min() < 0 or values.max() >= size:
                    raise ValueError(f"a {what} is not from 1 to {size:,}")
            numbers = table["number"].to_numpy()
            yield rows, columns, numbers
            if head.symmetric:
                # As scipy writes whatever is, as a matrix of one number.
                other = rows != columns
                yield columns[other], rows[other], numbers[other]
        if n_read != head.n_numbers:
            raise ValueError(f"it holds {n_read:,} of {head.n_numbers:,} numbers")


def _read_mtx(
    path: Path, head: MtxHead, scratch: Path | None
) -> tuple[sp.csr_matrix | StoredInput, NumbersSeen]:
    """A matrix of features by cells as cells by features, and what its numbers look like."""
    import scipy.sparse as sp

    shape, seen = (head.n_columns, head.n_rows), NumbersSeen()
    if head.n_numbers <= IN_MEMORY:
        parts = [sp.csr_matrix(shape, dtype=np.float32)]
        for features, cells, numbers in _mtx_blocks(path):
            seen.add(numbers)
            parts.append(sp.csr_matrix((as_float32_counts(numbers), (cells, features)), shape=shape))
        return parts[-1] if len(parts) <= 2 else sum(parts[2:], parts[1]), seen
    buckets = RowBuckets(shape, head.n_numbers, scratch)
    for features, cells, numbers in _mtx_blocks(path):
        seen.add(numbers)
        with _reading(path):
            buckets.add(cells, features, numbers)
    return buckets, seen


def _folder_summary(folder: Path) -> str:
    path = _parts(folder)[0]
    total = sum(int(numbers.sum()) for _, _, numbers in _mtx_blocks(path))
    return f"{_mtx_head(path).n_columns:,} cells, {total:,} counts"


def _read_folder(folder: Path, scratch: Path | None) -> tuple[AnyCounts, NumbersSeen]:
    matrix_path, barcodes_path, features_path = _parts(folder)
    head = _mtx_head(matrix_path)
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
    matrix, seen = _read_mtx(matrix_path, head, scratch)
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


# metrics_summary.csv ---------------------------------------------------------------------------------


def read_metrics(path: Path) -> dict[str, float | str]:
    """Cell Ranger's own metrics: numbers as numbers, percentages as fractions, anything else as text.

    One row of `count` gives its column names as keys; the long table of `multi` gives
    "Category / Library Type / Metric Name" and, where the metric is of a part, its name.
    """
    try:
        # What lies beside a matrix under that name may be anything, and nothing depends on it.
        if path.stat().st_size > LARGEST_METRICS:
            return {}
        table = pd.read_csv(path, dtype=str, keep_default_na=False)
    except Exception:
        return {}
    if {"Metric Name", "Metric Value"} <= set(table.columns):
        parts = [
            name
            for name in ("Category", "Library Type", "Metric Name", "Group Name")
            if name in table.columns
        ]
        keys = [" / ".join(str(row[part]) for part in parts if row[part]) for _, row in table.iterrows()]
        return {key: _number(str(value)) for key, value in zip(keys, table["Metric Value"], strict=True)}
    if len(table) != 1:
        return {}
    return {str(name): _number(str(table[name].iloc[0])) for name in table.columns}


def _number(text: str) -> float | str:
    plain = text.strip().replace(",", "")
    try:
        number = float(plain.removesuffix("%"))
    except ValueError:
        return text
    if not np.isfinite(number):
        return text
    if plain.endswith("%"):
        return round(number / 100, 10)
    return int(number) if number.is_integer() and "." not in plain else number
