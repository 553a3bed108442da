"""Read an .h5ad: find the raw counts in it, and nothing else that is large.

The file is read part by part with h5py: a candidate that holds no counts is looked at, never loaded, and a
dense matrix is made sparse by blocks of rows. `open_h5ad` leaves the counts in the file too.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd

from cellscribe.counts import BLOCK, GENE_EXPRESSION, Counts, Matrix, NumbersSeen, see
from cellscribe.errors import InputError
from cellscribe.genes import ID_COLUMNS, SYMBOL_COLUMNS, as_text
from cellscribe.hdf5 import check_table, check_whole, offsets, opened, whole
from cellscribe.recovered import RecoveredCounts, how_made, recover
from cellscribe.recovered import recovered as recovered_counts
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
TYPE_COLUMNS = ("feature_types", "feature_type", "feature_class", "modality")
ANTIBODIES = "Antibody Capture"
# How other programs than Cell Ranger spell its kinds of features: in small letters, words apart by one blank.
SPELLINGS = {
    GENE_EXPRESSION: (
        *("gene expression", "gene", "genes", "rna", "scrna", "gex", "expression", "transcriptome"),
        *("mrna", "ncrna", "lncrna", "pseudogene"),
    ),
    ANTIBODIES: (
        *("antibody capture", "antibody", "antibodies", "adt", "adts", "ab", "cite", "cite seq", "protein"),
        *("proteins", "prot", "surface protein", "cell surface protein", "antibody derived tags"),
    ),
}
KIND_OF = {spelling: kind for kind, spellings in SPELLINGS.items() for spelling in spellings}
# Kinds that keep their own word, and are no genes.
OTHER_KINDS = (
    *(
        "crispr guide capture",
        "crispr",
        "guide",
        "guides",
        "grna",
        "sgrna",
        "multiplexing capture",
        "hto",
        "htos",
    ),
    *("hashtag", "hashtags", "antigen capture", "peaks", "peak", "atac", "chromatin accessibility"),
)
# Its column holds what genes are for, and not what was measured.
BIOTYPE = "protein coding"
NO_WORD = ("", "nan", "none", "na")
# No gene of human or mouse is called so.
ANTIBODY_NAME = re.compile(
    r"totalseq|^(?:ab|adt|prot|hto)[_-]|^anti[-_]|^hashtag|"
    r"[_.-](?:adt|prot|protein|hto)(?:[_.-]?\d+)?$",
    re.IGNORECASE,
)
# An embedding, not a second matrix.
MAX_OBSM_COLUMNS = 50
# Counts of antibodies, which are held in memory: 200 MB.
MOST_OF_FEATURES = 50_000_000
FIRST_ROWS = 2_000
# Genes that hardly any cell expresses may be missing: filters of these leave 0.93 and more of the numbers, 6,000
# variable genes 0.1 to 0.89 (pbmc4k).
NEARLY_ALL = 0.9


@dataclass(frozen=True)
class Candidate:
    """One matrix of the file and what its numbers look like."""

    name: str
    node: Any
    genes: pd.Index
    seen: NumbersSeen
    # The layer of RNA velocity's tools that it holds again.
    copy_of: str = ""
    # What it was made of, where no other place has counts of as many genes.
    recovered: RecoveredCounts | None = None

    def __str__(self) -> str:
        return f"{self.name} ({self.seen}): {self.fault or 'raw counts'}"

    @property
    def layer(self) -> str:
        """What `counts_layer` calls it."""
        return self.name.removeprefix("layers/")

    @property
    def is_partial(self) -> bool:
        """Whether it counts some of each cell's molecules alone."""
        return self.layer in PARTIAL_LAYERS or bool(self.copy_of)

    @property
    def fault(self) -> str:
        """What speaks against raw counts of whole cells; "" for nothing."""
        same = f"the same as {self.copy_of}: counts of some of each cell's molecules alone"
        return same if self.copy_of else self.seen.fault

    @property
    def passed_over(self) -> str:
        """Why the counts were not read here, as a sentence."""
        return f"{self.name} was passed over ({self.seen}): {self.fault}."

    def is_far_wider_than(self, other: Candidate) -> bool:
        """Whether it has many more genes, and these hold a good part of all numbers."""
        return len(other.genes) < NEARLY_ALL * len(self.genes) and other.seen.n < NEARLY_ALL * self.seen.n


class Found(NamedTuple):
    """Where the counts are, and what a reader may and must know of that."""

    candidate: Candidate
    notes: Sequence[str] = ()
    warnings: Sequence[str] = ()


def read_h5ad(path: Path, counts_layer: str | None = None) -> Counts[sp.csr_matrix]:
    """Read counts, obs, var and small embeddings of an .h5ad of any age.

    counts_layer: a layer's name, `X` or `raw.X`; None looks into raw.X, X, then the layers, in that order. Counts that
    were only scaled in each cell, and logged, are recovered where there are no others, or only such of far fewer genes.
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
        node = places[name]
        _check_shape(name, node, (len(obs), len(genes)), path)
        candidate = Candidate(name, node, genes.index, see(_chunks(node)))
        return replace(candidate, copy_of=_copied_part(candidate, places, var.index))

    if counts_layer:
        found = _asked_for(places, look, counts_layer, path, scratch)
    else:
        found = _first_with_counts(places, look, path, scratch)
    chosen, notes, warnings = found.candidate, [*found.notes], [*found.warnings]
    if chosen.name == "raw.X":
        var = raw_var
    matrix = matrix_of(chosen)
    types, of_types = _feature_types(var)
    warnings += of_types
    genomes = var["genome"].astype(str) if "genome" in var else pd.Series("", index=var.index)
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
        feature_types=types,
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
) -> Found:
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
        return Found(candidate)
    if found := _recovered(candidate, path, scratch):
        why = f"The counts layer '{name}' holds no raw counts: they"
        return Found(replace(candidate, recovered=found), warnings=[_how_recovered(why, candidate, found)])
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
) -> Found:
    passed: list[Candidate] = []
    for name in places:
        candidate = look(name)
        if candidate.seen.are_counts and not candidate.is_partial:
            notes = [_where(candidate)]
            return _weighed(
                Found(candidate, [*notes, *(other.passed_over for other in passed)]), passed, path, scratch
            )
        passed.append(candidate)
    if copy := next((candidate for candidate in passed if candidate.copy_of), None):
        return _weighed(Found(copy, [_where(copy)], [_copy_warning(copy)]), passed, path, scratch)
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
            why = "The file has no raw counts: they"
            return Found(replace(candidate, recovered=found), others, [_how_recovered(why, candidate, found)])
    raise InputError(f"no raw counts were found:\n{listed}", NO_COUNTS_TODO, file=path)


def _where(candidate: Candidate) -> str:
    return f"Raw counts were found in {candidate.name} ({candidate.seen})."


def _weighed(found: Found, passed: Sequence[Candidate], path: Path, scratch: Path | None) -> Found:
    """What was found, or else the counts of many more genes that one of the places passed over was made of.

    Variable genes alone, as scanpy leaves them beside the logarithms of all in raw, give other labels, and surer ones.
    """
    few = found.candidate
    wide = next((other for other in passed if other.is_far_wider_than(few)), None)
    if wide is None:
        return found
    seen = f"{few.name} holds raw counts of {len(few.genes):,} genes alone"
    recovered = _recovered(wide, path, scratch)
    if recovered and _agree(few, wide, recovered.way):
        why = f"{seen}: those of {len(wide.genes):,} genes"
        instead = f"counts_layer {few.layer} reads {few.name} all the same."
        note = (
            f"{few.name} was passed over ({few.seen}): on its {len(few.genes):,} genes lie {few.seen.n:,} numbers, "
            f"and {wide.seen.n:,} on the {len(wide.genes):,} of {wide.name}."
        )
        others = [other.passed_over for other in passed if other is not wide and other is not few]
        return Found(
            replace(wide, recovered=recovered),
            [note, *others],
            [f"{_how_recovered(why, wide, recovered)} {instead}"],
        )
    numbers = f"{wide.seen}" if recovered else f"{wide.seen}: {wide.fault}"
    narrow = (
        f"{seen}; {wide.name} has {len(wide.genes):,} genes, but no counts that agree with these can be had back from "
        f"its numbers ({numbers}). Few genes give other labels than all, and seem surer: give a file with the "
        "counts of all genes, as they were before variable genes were chosen."
    )
    return found._replace(warnings=[*found.warnings, narrow])


def _agree(few: Candidate, wide: Candidate, way: str) -> bool:
    """Whether counts that were had back are those of a place with fewer genes on the genes of both, by the first rows.

    way: how the counts of `wide` are had back.
    """
    if not (few.genes.is_unique and wide.genes.is_unique):
        return False
    columns = wide.genes.get_indexer(few.genes)
    shared = columns >= 0
    n_rows = min(FIRST_ROWS, max(1, BLOCK // len(wide.genes)))
    had_back = recovered_counts(_first_rows(wide.node, n_rows), way)[:, columns[shared]]
    return bool(shared.any()) and _is_same(had_back, _first_rows(few.node, n_rows)[:, shared])


def _how_recovered(why: str, candidate: Candidate, counts: RecoveredCounts) -> str:
    """The warning of counts that were had back. why: ends in what was recovered."""
    return (
        f"{why} were recovered from {candidate.name}, which holds {counts.way}. "
        "Each cell's least number was taken as one count: the others are whole multiples of it."
    )


def _copied_part(candidate: Candidate, places: Mapping[str, Any], layer_genes: pd.Index) -> str:
    """The layer of some of each cell's molecules that a matrix of counts holds again, by its first rows; "" for none.

    velocyto's files have the spliced counts as X too. layer_genes: those of the layers.
    """
    parts = [f"layers/{name}" for name in PARTIAL_LAYERS if f"layers/{name}" in places]
    if len(parts) < 2 or candidate.is_partial or not candidate.seen.are_counts:
        return ""
    if candidate.genes.equals(layer_genes):
        columns = np.arange(len(layer_genes))
    elif candidate.genes.is_unique:
        columns = candidate.genes.get_indexer(layer_genes)
    else:
        return ""
    if (columns < 0).any():
        return ""
    n_rows = min(FIRST_ROWS, max(1, BLOCK // len(candidate.genes)))
    first = _first_rows(candidate.node, n_rows)[:, columns]
    return next((part for part in parts if _is_same(first, _first_rows(places[part], n_rows))), "")


def _is_same(one: sp.csr_matrix, other: sp.csr_matrix) -> bool:
    return one.shape == other.shape and one.nnz > 0 and (one != other).nnz == 0


def _copy_warning(candidate: Candidate) -> str:
    return (
        f"{candidate.name} holds the same as {candidate.copy_of}: counts of some of each cell's molecules, which were "
        "read, as no place holds those of all. Give the counts as the sequencer's pipeline wrote them, where there are "
        f"any; --counts_layer {candidate.layer} reads these without this warning."
    )


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


def _first_rows(node: Any, n_rows: int = FIRST_ROWS) -> sp.csr_matrix:
    """The first rows of a matrix as they are, CSR. Of one by columns all is read, some columns at a time."""
    import scipy.sparse as sp

    if hasattr(node, "shape"):
        return sp.csr_matrix(node[:n_rows])
    (n_obs, n_vars), by_column = _layout(node)
    if not by_column:
        pointers = _pointers(node, n_obs)[: n_rows + 1]
        last = int(pointers[-1])
        rows = (node["data"][:last], node["indices"][:last], pointers)
        first = sp.csr_matrix(rows, shape=(len(pointers) - 1, n_vars))
        first.check_format(full_check=True)
        return first
    parts = []
    for columns, data, rows_of, pointers in _columns_of(node):
        part = sp.csc_matrix((data, rows_of, pointers), shape=(n_obs, columns.stop - columns.start))
        part.check_format(full_check=True)
        parts.append(part[:n_rows])
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


# Kinds of features -----------------------------------------------------------------------------------


def _feature_types(var: pd.DataFrame) -> tuple[np.ndarray, list[str]]:
    """The kind of each row in Cell Ranger's words, object (n_features,), and warnings of what may be none of genes."""
    types, warnings = np.full(len(var), GENE_EXPRESSION, dtype=object), []
    columns = [TypeColumn.of(var, name) for name in TYPE_COLUMNS if name in var]
    # A column may say of all rows that they are genes, and another one which are not.
    useful = sorted((column for column in columns if column.tells), key=lambda column: column.rank)
    if useful:
        types = useful[0].types
        if left := useful[0].taken_for_genes:
            warnings.append(_unknown_kinds(useful[0].name, left))
    elif strange := [column for column in columns if len(column.taken_for_genes) > 1]:
        warnings.append(_unknown_kinds(strange[0].name, strange[0].taken_for_genes))
    named = _named_like_antibodies(var, types == GENE_EXPRESSION)
    if named:
        warnings.append(
            f"{len(named):,} of {len(var):,} features are named like antibodies or hashtags ({_listed(named)}), and "
            f"were counted as genes, which spoils quality control: {TYPES_TODO}"
        )
    return types, warnings


TYPES_TODO = f"give var a column feature_types that says '{GENE_EXPRESSION}' of genes and '{ANTIBODIES}' of antibodies."


def _unknown_kinds(name: str, values: Sequence[str]) -> str:
    return (
        f"The genes' column '{name}' does not say in known words what some features are ({_listed(values)}): they "
        f"were counted as genes. Where some are none, {TYPES_TODO}"
    )


def _listed(names: Sequence[str], most: int = 5) -> str:
    return ", ".join(name or "no word" for name in names[:most]) + (", ..." if len(names) > most else "")


@dataclass(frozen=True)
class TypeColumn:
    """A column of var that says what features are. types: in Cell Ranger's words, object (n_features,).

    tells: whether its words are known; taken_for_genes: those that are not, and were taken for genes'.
    """

    name: str
    types: np.ndarray
    tells: bool
    taken_for_genes: list[str]

    @classmethod
    def of(cls, var: pd.DataFrame, name: str) -> TypeColumn:
        """Read one."""
        values = as_text(var[name])
        words = {value: " ".join(re.split(r"[\W_]+", value.lower())).strip() for value in pd.unique(values)}
        kinds = {value: KIND_OF.get(word, value) for value, word in words.items()}
        known = [value for value, word in words.items() if word in KIND_OF or word in OTHER_KINDS]
        if GENE_EXPRESSION in words:
            # Beside genes in Cell Ranger's own words, every other word is of something else.
            taken = [value for value, word in words.items() if word in NO_WORD]
        else:
            taken = [value for value in words if value not in known]
        kinds |= dict.fromkeys(taken, GENE_EXPRESSION)
        return cls(
            name,
            np.array([kinds[value] for value in values], dtype=object),
            tells=bool(known),
            taken_for_genes=[] if BIOTYPE in words.values() else taken,
        )

    @property
    def rank(self) -> int:
        """Less for columns that tell more kinds apart."""
        return -len(set(self.types))


def _named_like_antibodies(var: pd.DataFrame, among: np.ndarray) -> list[str]:
    """Names that no gene has. among: which rows to look at, bool (n_features,)."""
    rows = var[among]
    columns = [rows.index, *(rows[name] for name in (*SYMBOL_COLUMNS, *ID_COLUMNS) if name in rows)]
    for values in columns:
        names = [name for name in as_text(values) if ANTIBODY_NAME.search(name)]
        # What most rows share is the name of something else.
        if 0 < len(names) <= len(rows) / 2:
            return names
    return []


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
