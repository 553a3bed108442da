"""Counts out of numbers that were made of them: scaled to a common total in each cell, and mostly logged.

Each cell's numbers are then whole multiples of one, which is that of a single count: undone, they are the counts again,
to the digit. Numbers that were corrected, imputed or scaled by gene are no such multiples, and stay refused.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from cellscribe.counts import LARGEST_EXACT
from cellscribe.stored import Blocks, blocks

if TYPE_CHECKING:
    import scipy.sparse as sp

    from cellscribe.stored import StoredInput

# What was done to the scaled counts last, in words, and how it is undone.
UNDO: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "log1p of counts scaled to a common total": np.expm1,
    "log2(x + 1) of counts scaled to a common total": lambda values: np.exp2(values) - 1,
    "counts scaled to a common total": np.asarray,
}
# float32 keeps seven digits, of which an exponential costs one; what is whole by chance is so to a half.
TOLERANCE, RELATIVE, MOST_TOLERANCE = 1e-3, 1e-5, 0.1
LEAST_WHOLE = 0.999
# Of counts a quarter are ones and more, in deep cells too; of numbers that were rounded to a decimal hardly any are the
# least of their cell.
LEAST_ONES = 0.03
# Where every number of a cell is the same, all are whole multiples of it, whatever they are.
LEAST_ABOVE_ONE = 0.01


@dataclass
class Tried:
    """How one way of `UNDO` fits: numbers, and how many of them are whole, one, and more than one."""

    n: int = 0
    whole: int = 0
    ones: int = 0
    above: int = 0

    def add(self, found: np.ndarray) -> bool:
        """Take the multiples of some cells into account; false where this way is out. found: (n_stored,)."""
        found = found[found != 0]
        near = np.rint(found)
        with np.errstate(invalid="ignore"):
            allowed = np.minimum(TOLERANCE + RELATIVE * found, MOST_TOLERANCE)
            self.whole += int((np.abs(found - near) <= allowed).sum())
        self.n += len(found)
        self.ones += int((near == 1).sum())
        self.above += int((near > 1).sum())
        too_large = len(found) and not found.max() <= LARGEST_EXACT
        return not too_large and self.whole >= LEAST_WHOLE * self.n

    @property
    def are_counts(self) -> bool:
        """Whether multiples that are whole can be counts of molecules."""
        return self.ones >= LEAST_ONES * self.n > 0 and self.above >= LEAST_ABOVE_ONE * self.n


def multiples(block: sp.csr_matrix, undo: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """The stored numbers, undone, as multiples of the least of their row: float64 (n_stored,).

    block: CSR, numbers above 0 or 0 (which stay 0). What is too large when it is undone is no number.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        values = undo(block.data.astype(np.float64))
        lengths = np.diff(block.indptr)
        rows = np.repeat(np.arange(len(lengths)), lengths)
        least = np.full(len(lengths), np.inf)
        positive = values > 0
        np.minimum.at(least, rows[positive], values[positive])
        return np.where(positive, values / least[rows], 0.0)


def how_made(parts: Iterable[sp.csr_matrix]) -> str:
    """Which of `UNDO` gives whole counts for all cells, the best of them; "" for none. parts: CSR, some rows each."""
    tried = {way: Tried() for way in UNDO}
    for block in parts:
        tried = {way: one for way, one in tried.items() if one.add(multiples(block, UNDO[way]))}
        if not tried:
            return ""
    fitting = {way: one.whole / one.n for way, one in tried.items() if one.are_counts}
    return max(fitting, key=lambda way: fitting[way], default="")


def recovered(block: sp.csr_matrix, way: str) -> sp.csr_matrix:
    """Counts of some cells. block: CSR; way: of `UNDO`. Returns CSR float32 of the same shape."""
    counts = block.astype(np.float32, copy=True)
    counts.data = np.rint(multiples(block, UNDO[way])).astype(np.float32)
    return counts


@dataclass(frozen=True)
class RecoveredCounts:
    """Counts that are recovered as they are read. scaled: what was made of them; way: of `UNDO`."""

    scaled: sp.csr_matrix | StoredInput
    way: str

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return self.scaled.shape

    @property
    def nnz(self) -> int:
        """How many numbers are stored."""
        return int(self.scaled.nnz)

    def blocks(self) -> Blocks:
        """Consecutive rows and their counts."""
        for rows, block in blocks(self.scaled):
            yield rows, recovered(block, self.way)


def recover(scaled: sp.csr_matrix | StoredInput) -> RecoveredCounts | None:
    """The counts that a matrix was made of; None where it was made of none."""
    way = how_made(block for _, block in blocks(scaled))
    return RecoveredCounts(scaled, way) if way else None
