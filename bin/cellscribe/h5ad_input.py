"""Read an .h5ad: find the raw counts in it, and nothing else that is large.

The file is read part by part with h5py: a candidate that holds no counts is looked at, never loaded, and a
dense matrix is made sparse by blocks of rows. `open_h5ad` leaves the counts in the file too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from cellscribe.counts import BLOCK, GENE_EXPRESSION, Counts, Matrix, NumbersSeen, see
from cellscribe.errors import InputError
from cellscribe.hdf5 import check_table, check_whole, offsets, opened, whole
from cellscribe.recovered import RecoveredCounts, how_made, recover
from cellscribe.stored import (
    IN_MEMORY,
    RowBuckets,
    StoredCsr,
    StoredDense,
    StoredInput,
    numbers_of,
    row_slices,
)

if TYPE_CHECKING:
    import h5py
    import scipy.sparse as sp

FIRST_LAYERS = ("counts", "raw_counts", "count", "raw", "umi", "UMIs", "spliced_unspliced_counts", "matrix")
# Of RNA velocity's tools: counts of some molecules of each cell, never all of them.
PARTIAL_LAYERS = ("spliced", "unspliced", "ambiguous", "spanning", "mature", "nascent")
TYPE_COLUMNS = ("feature_types", "feature_type")
# An embedding, not a second matrix.
MAX_OBSM_COLUMNS = 50
# Counts of antibodies, which are held in memory: 200 MB.
MOST_OF_FEATURES = 50_000_000
FIRST_ROWS = 2_000


@dataclass(frozen=True)
class Candidate:
    """One matrix of the file and what its numbers look like."""

    name: str
    node: Any
    seen: NumbersSeen
    # What it was made of, where no other place has counts.
    recovered: RecoveredCounts | None = None

    def __str__(self) -> str:
        looks = self.seen.fault or "raw counts"
        return f"{self.name} ({self.seen}): {looks}"

    @property
    def is_partial(self) -> bool:
        """Whether it counts some of each cell's molecules alone."""
        return self.name.removeprefix("layers/") in PARTIAL_LAYERS

    @property
    def passed_over(self) -> str:
        """Why the counts were not read here, as a sentence."""
        return f"{self.name} was passed over ({self.seen}): {self.seen.fault}."


def read_h5ad(path: Path, counts_layer: str | None = None) -> Counts[sp.csr_matrix]:
    """Read counts, obs, var and small embeddings of an .h5ad of any age.

    counts_layer: a layer's name, `X` or `raw.X`; None looks into raw.X, X, then the layers, in that order. Counts that
    were only scaled in each cell, and logged, are recovered where there are no others.
    Raises InputError where there are no raw counts, saying for each matrix what was seen.
    """
    with _open(path) as file:
        return _read(file, path, counts_layer, _matrix_in_memory, None)


def open_h5ad(
    path: Path, counts_layer: str | None = None, scratch: Path | None = None
) -> Counts[sp.csr_matrix | StoredInput]:
    """As `read_h5ad`, but the counts stay where they are and are read by blocks of rows.

    scratch: a folder with room for a large CSC matrix, twelve bytes a number, which is sorted by rows there.
    """
    with _open(path) as file:
        return _read(
            file,
            path,
            counts_layer,
            lambda candidate: candidate.recovered or _stored_matrix(candidate, path, scratch),
            scratch,
        )


def cell_names(path: Path) -> pd.Index:
    """The names of an .h5ad's cells: text, (n_obs,). Raises InputError where it cannot be read."""
    with _open(path) as file:
        return _frame(file["obs"], file).index


def _open(path: Path) -> AbstractContextManager[h5py.File]:
    return opened(
        path,
        lambda error: InputError(
            f"this .h5ad cannot be read ({type(error).__name__}: {error})",
            "Write it again with a recent anndata, or copy it again.",
            file=path,
        ),
    )


def _read(
    file: h5py.File,
    path: Path,
    counts_layer: str | None,
    matrix_of: Callable[[Candidate], Matrix],
    scratch: Path | None,
) -> Counts[Matrix]:
    places = _places(file)
    if not places:
        todo = "Give one with raw counts."
        if "mod" in file:
            kinds = ", ".join(file["mod"])
            todo = f"This seems to be MuData, which holds {kinds}: write the one with the genes as an .h5ad."
        raise InputError("the file has no X, no raw and no layers", todo, file=path)
    obs = _frame(file["obs"], file)
    var = _frame(file["var"], file)
    raw_var = _raw_var(file, var) if "raw.X" in places else var

    def look(name: str) -> Candidate:
        genes = raw_var if name == "raw.X" else var
        _check_shape(name, places[name], (len(obs), len(genes)), path)
        return Candidate(name, places[name], see(_chunks(places[name])))

    notes: list[str] = []
    if counts_layer:
        chosen = _asked_for(places, look, counts_layer, path, scratch)
    else:
        chosen, notes = _first_with_counts(places, look, path, scratch)
    if chosen.name == "raw.X":
        var = raw_var
    matrix = matrix_of(chosen)
    types = next(
        (
            values
            for name in TYPE_COLUMNS
            if name in var and GENE_EXPRESSION in set(values := var[name].astype(str))
        ),
        pd.Series(GENE_EXPRESSION, index=var.index),
    )
    genomes = var["genome"].astype(str) if "genome" in var else pd.Series("", index=var.index)
    warnings = []
    if chosen.recovered:
        warnings.append(
            f"The file has no raw counts: they were recovered from {chosen.name}, which holds {chosen.recovered.way}. "
            "Each cell's least number was taken as one count: the others are whole multiples of it."
        )
    if chosen.seen.maximum == 1 and chosen.seen.n > 1000 and not chosen.recovered:
        warnings.append(f"Every number in {chosen.name} is 0 or 1: these may be no counts of molecules.")
    feature_names = _feature_names(file)
    obsm = _embeddings(file, len(obs), feature_names)
    left = [name for name in file["obsm"] if name not in obsm] if hasattr(file.get("obsm"), "keys") else []
    if left:
        notes.append(
            f"Of obsm {', '.join(left)} was left out: tables do not come along, and of arrays of more than "
            f"{MAX_OBSM_COLUMNS} columns only counts whose names uns['feature_names'] holds, and that are not too many."
        )
    return Counts(
        matrix=matrix,
        obs=obs,
        var=var,
        feature_types=types.to_numpy(dtype=object),
        genomes=genomes.where(genomes != "nan", "").to_numpy(dtype=object),
        source="h5ad",
        counts_from=chosen.name,
        obsm=obsm,
        feature_names={key: names for key, names in feature_names.items() if key in obsm},
        notes=notes,
        warnings=warnings,
    )


# Finding the counts ----------------------------------------------------------------------------------


def _places(file: h5py.File) -> dict[str, Any]:
    """Every matrix of the file in the order it is looked at: raw.X, X, layers."""
    import h5py

    places: dict[str, Any] = {}
    # Before 0.7, raw was written as two keys with a dot.
    for key in ("raw/X", "raw.X"):
        if key in file:
            places["raw.X"] = file[key]
    if "X" in file and not _is_null(file["X"]):
        places["X"] = file["X"]
    layers = list(file["layers"]) if isinstance(file.get("layers"), h5py.Group) else []
    for name in sorted(
        layers,
        key=lambda name: (
            name in PARTIAL_LAYERS,
            name not in FIRST_LAYERS,
            "count" not in name.lower(),
            name,
        ),
    ):
        places[f"layers/{name}"] = file["layers"][name]
    return places


def _is_null(node: Any) -> bool:
    return _attribute(node, "encoding-type") == "null" or getattr(node, "shape", ()) is None


def _asked_for(
    places: Iterable[str],
    look: Callable[[str], Candidate],
    name: str,
    path: Path,
    scratch: Path | None,
) -> Candidate:
    aliases = {"raw": "raw.X", "raw/X": "raw.X", "X": "X", "raw.X": "raw.X"}
    key = f"layers/{name}" if f"layers/{name}" in places else aliases.get(name, name)
    if key not in places:
        raise InputError(
            f"there is no counts layer '{name}'; there are: {', '.join(places)}",
            "Give one of these as counts_layer, or none to have the counts found.",
            file=path,
        )
    candidate = look(key)
    if candidate.seen.are_counts:
        return candidate
    if found := _recovered(candidate, path, scratch):
        return replace(candidate, recovered=found)
    others = [look(other) for other in places if other != key]
    with_counts = [other.name for other in others if other.seen.are_counts and not other.is_partial]
    listed = "\n".join(f"  {other}" for other in (candidate, *others))
    raise InputError(
        f"the counts layer '{name}' does not hold raw counts:\n{listed}",
        f"Use counts_layer {with_counts[0]}." if with_counts else NO_COUNTS_TODO,
        file=path,
    )


NO_COUNTS_TODO = (
    "Give the file with the counts as the sequencer's pipeline wrote them: integers, none negative."
)


def _first_with_counts(
    places: Iterable[str], look: Callable[[str], Candidate], path: Path, scratch: Path | None
) -> tuple[Candidate, list[str]]:
    passed: list[Candidate] = []
    for name in places:
        candidate = look(name)
        if candidate.seen.are_counts and not candidate.is_partial:
            notes = [f"Raw counts were found in {name} ({candidate.seen})."]
            return candidate, [*notes, *(other.passed_over for other in passed)]
        passed.append(candidate)
    listed = "\n".join(f"  {candidate}" for candidate in passed)
    if parts := [candidate.name for candidate in passed if candidate.seen.are_counts]:
        raise InputError(
            f"raw counts were found of some of each cell's molecules alone ({', '.join(parts)}):\n{listed}",
            f"{NO_COUNTS_TODO} To go on with one of these, give it as counts_layer.",
            file=path,
        )
    for candidate in passed:
        if not candidate.is_partial and (found := _recovered(candidate, path, scratch)):
            others = [other.passed_over for other in passed if other is not candidate]
            return replace(candidate, recovered=found), others
    raise InputError(f"no raw counts were found:\n{listed}", NO_COUNTS_TODO, file=path)


def _recovered(candidate: Candidate, path: Path, scratch: Path | None) -> RecoveredCounts | None:
    """The counts that a matrix was made of, where these can be had back from it."""
    if not candidate.seen.may_be_scaled:
        return None
    # To sort all of a large one is dear, and in vain where the first cells are no counts.
    if _is_large_by_columns(candidate.node) and not how_made([_first_rows(candidate.node)]):
        return None
    return recover(_stored_matrix(candidate, path, scratch, whole=False))


# Matrices --------------------------------------------------------------------------------------------


def _check_shape(name: str, node: Any, wanted: tuple[int, int], path: Path) -> None:
    """Raise InputError unless a matrix is of the tables' cells and genes: before any of its numbers is read."""
    shape = tuple(node.shape) if hasattr(node, "shape") else _layout(node)[0]
    if shape != wanted:
        raise InputError(
            f"{name} has {' x '.join(f'{size:,}' for size in shape)} numbers, but there are "
            f"{wanted[0]:,} cells and {wanted[1]:,} genes",
            "Write the file again.",
            file=path,
        )


def _attribute(node: Any, name: str) -> str:
    value = node.attrs.get(name, "")
    return value.decode() if isinstance(value, bytes) else str(value)


def _chunks(node: Any) -> Iterator[np.ndarray]:
    """The numbers of a matrix that are not 0, dense or sparse, block by block."""
    if hasattr(node, "shape"):
        for block in _row_blocks(node):
            yield block[block != 0]
        return
    for start in range(0, node["data"].shape[0], BLOCK):
        yield node["data"][start : start + BLOCK]


def _row_blocks(dense: Any) -> Iterator[np.ndarray]:
    step = max(1, BLOCK // max(1, dense.shape[1]))
    for start in range(0, dense.shape[0], step):
        yield dense[start : start + step]


def _matrix_in_memory(candidate: Candidate) -> sp.csr_matrix:
    import scipy.sparse as sp

    if candidate.recovered:
        return sp.vstack([block for _, block in candidate.recovered.blocks()], format="csr")
    return _read_matrix(candidate.node)


def _read_matrix(node: Any, *, whole: bool = True) -> sp.csr_matrix:
    """A matrix as CSR float32. whole: whether its numbers are counts, and not what was made of these."""
    import scipy.sparse as sp

    if hasattr(node, "shape"):
        blocks = [sp.csr_matrix(numbers_of(block, whole=whole)) for block in _row_blocks(node)]
        if not blocks:
            return sp.csr_matrix(node.shape, dtype=np.float32)
        return sp.vstack(blocks, format="csr")
    shape, by_column = _layout(node)
    pointers = _pointers(node, shape[by_column])
    length = node["data"].shape[0]
    data = np.empty(length, dtype=np.float32)
    for start in range(0, length, BLOCK):
        data[start : start + BLOCK] = numbers_of(node["data"][start : start + BLOCK], whole=whole)
    parts = (data, node["indices"][:], pointers)
    matrix = sp.csc_matrix(parts, shape=shape) if by_column else sp.csr_matrix(parts, shape=shape)
    # Before it is turned: compiled code writes wherever an index says.
    matrix.check_format(full_check=True)
    return matrix.tocsr()


def _stored_matrix(
    candidate: Candidate, path: Path, scratch: Path | None, *, whole: bool = True
) -> sp.csr_matrix | StoredInput:
    """A matrix as it can be read by blocks of rows. whole: whether its numbers are counts, and not made of these."""
    node = candidate.node
    if hasattr(node, "shape"):
        n_obs, n_vars = node.shape
        return StoredDense(path, node.name, (int(n_obs), int(n_vars)), candidate.seen.n, _open, whole)
    shape, by_column = _layout(node)
    if not by_column:
        return StoredCsr(path, node.name, shape, _pointers(node, shape[0]), _open, whole)
    return (
        _by_rows(node, scratch, whole=whole)
        if _is_large_by_columns(node)
        else _read_matrix(node, whole=whole)
    )


def _is_large_by_columns(node: Any) -> bool:
    """Whether a matrix must be sorted on disk to be read by rows."""
    return not hasattr(node, "shape") and _layout(node)[1] and node["data"].shape[0] > IN_MEMORY


def _columns_of(node: Any) -> Iterator[tuple[slice, np.ndarray, np.ndarray, np.ndarray]]:
    """Some columns at a time of a matrix by columns, with their numbers, rows and pointers."""
    pointers = _pointers(node, _layout(node)[0][1])
    for columns in row_slices(pointers):
        first, last = int(pointers[columns.start]), int(pointers[columns.stop])
        own = pointers[columns.start : columns.stop + 1] - first
        yield columns, node["data"][first:last], node["indices"][first:last], own


def _first_rows(node: Any) -> sp.csr_matrix:
    """The first rows of a matrix by columns, CSR."""
    import scipy.sparse as sp

    n_obs, parts = _layout(node)[0][0], []
    for columns, data, rows, pointers in _columns_of(node):
        part = sp.csc_matrix((data, rows, pointers), shape=(n_obs, columns.stop - columns.start))
        part.check_format(full_check=True)
        parts.append(part[:FIRST_ROWS])
    return sp.hstack(parts, format="csr")


def _by_rows(node: Any, scratch: Path | None, *, whole: bool = True) -> RowBuckets:
    """A matrix by columns, sorted by rows."""
    buckets = RowBuckets(_layout(node)[0], int(node["data"].shape[0]), scratch, whole=whole)
    for columns, data, rows, pointers in _columns_of(node):
        column_of = np.repeat(np.arange(columns.start, columns.stop), np.diff(pointers))
        buckets.add(rows, column_of, data)
    return buckets


def _layout(node: Any) -> tuple[tuple[int, int], bool]:
    """Rows and columns of a sparse matrix, and whether it is kept by columns (CSC)."""
    n_obs, n_vars = node.attrs.get("shape", node.attrs.get("h5sparse_shape"))
    kind = _attribute(node, "encoding-type") or _attribute(node, "h5sparse_format")
    return (int(n_obs), int(n_vars)), kind.startswith("csc")


def _pointers(node: Any, n_major: int) -> np.ndarray:
    """The row (CSC: column) pointers of a sparse matrix. Raises ValueError where its parts do not fit together."""
    length, n_indices, pointers = (
        node["data"].shape[0],
        node["indices"].shape[0],
        offsets(whole(node["indptr"])),
    )
    if len(pointers) != n_major + 1 or pointers[-1] != length or n_indices != length:
        raise ValueError(f"{length:,} numbers do not fit {n_indices:,} indices and {len(pointers):,} offsets")
    return pointers


# Tables ----------------------------------------------------------------------------------------------


def _frame(node: Any, file: h5py.File) -> pd.DataFrame:
    """obs or var, also of files from before anndata 0.7 (one structured array, categories in uns)."""
    if not hasattr(node, "dtype"):
        check_table(node)
        read = _read_elem(node)
        if not isinstance(read, pd.DataFrame):
            raise TypeError(f"{node.name} is a {type(read).__name__}, not a table")
        frame = read
    else:
        records = whole(node)
        frame = pd.DataFrame({name: _decoded(records[name]) for name in records.dtype.names or ()})
        frame = frame.set_index(next(name for name in ("index", "_index", frame.columns[0]) if name in frame))
        for name in frame.columns:
            categories = file.get(f"uns/{name}_categories")
            if categories is not None and frame[name].dtype.kind in "iu":
                check_whole(categories)
                values = _decoded(categories[:])
                frame[name] = pd.Categorical.from_codes(frame[name].to_numpy(), pd.Index(values))
    frame.index = pd.Index([str(name) for name in frame.index], dtype=object)
    frame.columns = [str(name) for name in frame.columns]
    return frame


def _read_elem(node: Any) -> Any:
    from anndata.io import read_elem

    try:
        return read_elem(node)
    except Exception as error:
        # Which of the columns it was, anndata says in a note.
        said = " ".join(" ".join([str(error), *getattr(error, "__notes__", [])]).split())
        raise ValueError(f"{node.name}: {said}") from error


def _decoded(values: np.ndarray) -> np.ndarray:
    if values.dtype.kind not in "SO":
        return values
    return np.array([v.decode() if isinstance(v, bytes) else v for v in values], dtype=object)


def _raw_var(file: h5py.File, var: pd.DataFrame) -> pd.DataFrame:
    """raw's own genes, with the columns of `var` that raw lacks where `var` names every one of them."""
    raw = _frame(file["raw/var"] if "raw/var" in file else file["raw.var"], file)
    if raw.index.is_unique and var.index.is_unique and raw.index.isin(var.index).all():
        for name in var.columns.difference(raw.columns, sort=False):
            raw[name] = var.loc[raw.index, name].to_numpy()
    return raw


def _feature_names(file: h5py.File) -> dict[str, np.ndarray]:
    """What the columns of some arrays of obsm count (antibodies, guides), as CONVERT writes it: text, (n_columns,)."""
    import h5py

    nodes = file.get("uns/feature_names")
    if not isinstance(nodes, h5py.Group):
        return {}
    return {
        name: _decoded(whole(node))
        for name, node in nodes.items()
        if isinstance(node, h5py.Dataset) and node.ndim == 1 and node.dtype.kind in "SO"
    }


def _embeddings(
    file: h5py.File, n_obs: int, feature_names: Mapping[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """Two-dimensional numeric arrays of obsm: small ones (X_umap, X_pca, ...), and counts of named features."""
    import h5py

    nodes = file.get("obsm")
    # Before 0.7, obsm was one structured array too; no embedding is worth reading that.
    if not isinstance(nodes, h5py.Group):
        return {}
    return {
        name: node[:]
        for name, node in nodes.items()
        if isinstance(node, h5py.Dataset)
        and node.ndim == 2
        and node.dtype.kind in "fiu"
        and node.shape[0] == n_obs
        and (
            node.shape[1] <= MAX_OBSM_COLUMNS
            or (node.shape[1] == len(feature_names.get(name, ())) and node.size <= MOST_OF_FEATURES)
        )
    }
