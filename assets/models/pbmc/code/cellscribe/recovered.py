"""Counts out of numbers that were made of them: scaled to a common total in each cell, and mostly logged.

Each cell's numbers are then whole multiples of one, which is that of a single count: undone, they are the counts again,
to the digit. Numbers that were corrected, imputed or scaled by gene are no such multiples, and stay refused.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import scipy.sparse as sp

# What was done to the scaled counts last, in words, and how it is undone.
UNDO: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "log1p of counts scaled to a common total": np.expm1,
    "log2(x + 1) of counts scaled to a common total": lambda values: np.exp2(values) - 1,
    "counts scaled to a common total": np.asarray,
}
# float32 keeps seven digits, of which an exponential costs one.
TOLERANCE, RELATIVE = 1e-3, 1e-5
LEAST_WHOLE = 0.999
# Where every number of a cell is the same, all are whole multiples of it, whatever they are.
LEAST_ABOVE_ONE = 0.01


def multiples(block: sp.csr_matrix, undo: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """The stored numbers, undone, as multiples of the least of their row: float64 (n_stored,).

    block: CSR, numbers above 0 or 0 (which stay 0).
    """
    # What is too large when it is undone was never a logarithm, and is no multiple either.
    with np.errstate(over="ignore"):
        values = undo(block.data.astype(np.float64))
    lengths = np.diff(block.indptr)
    rows = np.repeat(np.arange(len(lengths)), lengths)
    least = np.full(len(lengths), np.inf)
    positive = values > 0
    np.minimum.at(least, rows[positive], values[positive])
    with np.errstate(invalid="ignore"):
        return np.where(positive, values / least[rows], 0.0)


def how_made(blocks: Iterable[sp.csr_matrix]) -> str:
    """Which of `UNDO` gives whole counts for all cells; "" for none. blocks: CSR, consecutive rows."""
    tried = {way: np.zeros(3, dtype=np.int64) for way in UNDO}
    for block in blocks:
        for way in list(tried):
            found = multiples(block, UNDO[way])
            found = found[found > 0]
            with np.errstate(invalid="ignore"):
                whole = np.abs(found - np.rint(found)) <= TOLERANCE + RELATIVE * found
            tried[way] += (len(found), int(whole.sum()), int((np.rint(found) > 1).sum()))
            if tried[way][1] < LEAST_WHOLE * tried[way][0]:
                del tried[way]
        if not tried:
            return ""
    return next((way for way, (n, _, above) in tried.items() if n and above >= LEAST_ABOVE_ONE * n), "")


def recovered(block: sp.csr_matrix, way: str) -> sp.csr_matrix:
    """Counts of some cells. block: CSR; way: of `UNDO`. Returns CSR float32 of the same shape."""
    counts = block.astype(np.float32, copy=True)
    counts.data = np.rint(multiples(block, UNDO[way])).astype(np.float32)
    return counts
