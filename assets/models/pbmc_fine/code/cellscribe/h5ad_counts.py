"""Which matrix of an .h5ad holds the raw counts, and what speaks against each of the others."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd

from cellscribe.counts import NumbersSeen
from cellscribe.errors import InputError
from cellscribe.h5ad_matrix import attribute, first_rows, is_large_by_columns, rows_to_compare, stored_matrix
from cellscribe.recovered import RecoveredCounts, how_made, recover
from cellscribe.recovered import recovered as recovered_counts

if TYPE_CHECKING:
    import h5py
    import scipy.sparse as sp

FIRST_LAYERS = ("counts", "raw_counts", "count", "raw", "umi", "UMIs", "spliced_unspliced_counts", "matrix")
# Of RNA velocity's tools: counts of some molecules of each cell, never all of them.
PARTIAL_LAYERS = ("spliced", "unspliced", "ambiguous", "spanning", "mature", "nascent")
# Genes that hardly any cell expresses may be missing: filters of these leave 0.93 and more of the numbers, 6,000
# variable genes 0.1 to 0.89 (pbmc4k).
NEARLY_ALL = 0.9
NO_COUNTS_TODO = (
    "Give the file with the counts as the sequencer's pipeline wrote them: integers, none negative."
)


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


def matrices(file: h5py.File) -> dict[str, Any]:
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
    return attribute(node, "encoding-type") == "null" or getattr(node, "shape", ()) is None


def asked_for(
    places: Iterable[str],
    look: Callable[[str], Candidate],
    name: str,
    path: Path,
    scratch: Path | None,
) -> Found:
    """The counts in the place that the user named, recovered from its numbers where it holds none.

    places: by name; look: what one holds. Raises InputError where there is no such place, or it gives no counts.
    """
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


def first_with_counts(
    places: Iterable[str], look: Callable[[str], Candidate], path: Path, scratch: Path | None
) -> Found:
    """The first place with raw counts of whole cells, else what comes nearest to them.

    places: in the order to look at them; look: what one holds. Raises InputError where no place gives counts.
    """
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
        f"{seen}; {wide.name} has {len(wide.genes):,} genes, but no counts that agree with these can be recovered from "
        f"its numbers ({numbers}). Few genes give other labels than all, and seem surer: give a file with the "
        "counts of all genes, as they were before variable genes were chosen."
    )
    return found._replace(warnings=[*found.warnings, narrow])


def _agree(few: Candidate, wide: Candidate, way: str) -> bool:
    """Whether counts that were recovered are those of a place with fewer genes on the genes of both, by the first rows.

    way: how the counts of `wide` are recovered.
    """
    if not (few.genes.is_unique and wide.genes.is_unique):
        return False
    columns = wide.genes.get_indexer(few.genes)
    shared = columns >= 0
    n_rows = rows_to_compare(len(wide.genes))
    had_back = recovered_counts(first_rows(wide.node, n_rows), way)[:, columns[shared]]
    return bool(shared.any()) and _is_same(had_back, first_rows(few.node, n_rows)[:, shared])


def _how_recovered(why: str, candidate: Candidate, counts: RecoveredCounts) -> str:
    """The warning of counts that were recovered. why: ends in what was recovered."""
    return (
        f"{why} were recovered from {candidate.name}, which holds {counts.way}. "
        "Each cell's least number was taken as one count: the others are whole multiples of it."
    )


def copied_part(candidate: Candidate, places: Mapping[str, Any], layer_genes: pd.Index) -> str:
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
    n_rows = rows_to_compare(len(candidate.genes))
    first = first_rows(candidate.node, n_rows)[:, columns]
    return next((part for part in parts if _is_same(first, first_rows(places[part], n_rows))), "")


def _is_same(one: sp.csr_matrix, other: sp.csr_matrix) -> bool:
    return one.shape == other.shape and one.nnz > 0 and (one != other).nnz == 0


def _copy_warning(candidate: Candidate) -> str:
    return (
        f"{candidate.name} holds the same as {candidate.copy_of}: counts of some of each cell's molecules, which were "
        "read, as no place holds those of all. Give the counts as the sequencer's pipeline wrote them, where there are "
        f"any; --counts_layer {candidate.layer} reads these without this warning."
    )


def _recovered(candidate: Candidate, path: Path, scratch: Path | None) -> RecoveredCounts | None:
    """The counts that a matrix was made of, where these can be recovered from it."""
    if not candidate.seen.may_be_scaled:
        return None
    # To sort all of a large one is dear, and in vain where the first cells are no counts.
    if is_large_by_columns(candidate.node) and not how_made([first_rows(candidate.node)]):
        return None
    return recover(stored_matrix(candidate.node, candidate.seen.n, path, scratch, whole=False))
