"""Counts as every reader hands them on, and the check that numbers are raw counts at all."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Generic, TypeVar

import numpy as np
import pandas as pd

from cellscribe.errors import InputError

if TYPE_CHECKING:
    import scipy.sparse as sp

    from cellscribe.stored import StoredInput

GENE_EXPRESSION = "Gene Expression"
# float32 keeps integers apart only up to here.
LARGEST_EXACT = 2**24
# log1p of the largest plausible count stays below this.
LARGEST_LOG = 20.0
# Stored numbers that are looked at in one go: 32 MB of float64.
BLOCK = 4_000_000


Matrix = TypeVar("Matrix", bound="StoredInput")


@dataclass
class Counts(Generic[Matrix]):
    """One sample as read, before genes are identified.

    matrix: float32, (n_obs, n_features), features of every type: CSR, or one that is
    walked over (stored.py).
    obs, var: one row a barcode, a feature. feature_types, genomes: object arrays of shape (n_features,);
    a genome is "" where the file gives none. feature_names: by key of obsm, what its columns count: text, (n_columns,).
    recovered_from: what stood there in place of counts, in words; "" where the counts themselves did.
    """

    matrix: Matrix
    obs: pd.DataFrame
    var: pd.DataFrame
    feature_types: np.ndarray
    genomes: np.ndarray
    source: str
    counts_from: str
    recovered_from: str = ""
    named_raw: bool = False
    obsm: dict[str, np.ndarray] = field(default_factory=dict)
    feature_names: dict[str, np.ndarray] = field(default_factory=dict)
    metrics: dict[str, float | str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def gene_features(feature_types: np.ndarray, listed: Iterable[str], file: Path) -> np.ndarray:
    """Which features are genes, bool (n_features,). listed: which kinds there are, in words. Raises InputError where
    none is one.
    """
    is_gene = np.asarray(feature_types == GENE_EXPRESSION)
    if is_gene.any():
        return is_gene
    raise InputError(
        f"there are no {GENE_EXPRESSION} features; there are {', '.join(listed)}",
        "cellscribe names cells by their gene expression: give the matrix that holds it.",
        file=file,
    )


@dataclass
class NumbersSeen:
    """A running summary of the stored (non-zero) numbers of a matrix."""

    n: int = 0
    n_integer: int = 0
    n_not_finite: int = 0
    minimum: float = np.inf
    maximum: float = -np.inf

    def add(self, values: np.ndarray) -> None:
        """Take one chunk of stored numbers into account. values: any shape, any type of real numbers."""
        if values.dtype.kind not in "iubf":
            raise TypeError(f"values of type {values.dtype} are no real numbers")
        if values.size == 0:
            return
        self.n += values.size
        if values.dtype.kind in "iub":
            self.n_integer += values.size
            finite = values
        else:
            keep = np.isfinite(values)
            finite = values if keep.all() else values[keep]
            self.n_not_finite += values.size - finite.size
            self.n_integer += int(np.count_nonzero(np.abs(finite - np.rint(finite)) < 1e-6))
        if finite.size:
            self.minimum = min(self.minimum, float(finite.min()))
            self.maximum = max(self.maximum, float(finite.max()))

    @property
    def are_counts(self) -> bool:
        """Whether the numbers can be raw counts: finite, not negative, all integers, and more than none."""
        return self.n > 0 and self.maximum > 0 and not self.fault

    @property
    def may_be_scaled(self) -> bool:
        """Whether the numbers can be counts that were scaled in each cell: finite, not negative, hardly any whole."""
        return not self.n_not_finite and self.minimum >= 0 and self.n > 0 and self.n_integer <= 0.9 * self.n

    @property
    def fault(self) -> str:
        """What speaks against raw counts, and what the numbers look like instead; "" for counts."""
        if self.n == 0 or (self.n_not_finite == 0 and self.minimum == self.maximum == 0):
            return "it holds nothing but zeros"
        if self.n_not_finite:
            return f"{self.n_not_finite:,} of its numbers are missing or infinite"
        if self.minimum < 0:
            return "negative numbers: scaled or regressed, not counts"
        if self.n_integer == self.n:
            too_large = f"numbers above {LARGEST_EXACT:,} are no counts of molecules"
            return too_large if self.maximum > LARGEST_EXACT else ""
        if self.n_integer > 0.9 * self.n:
            return "a few fractions among integers: corrected for ambient RNA or multi-mapping reads"
        if self.maximum < LARGEST_LOG:
            return "small fractions: log1p-normalised"
        return "fractions: normalised to a common total, or corrected for ambient RNA"

    def __str__(self) -> str:
        if self.n == 0:
            return "no number other than 0"
        integers = 100 * self.n_integer / self.n
        # 99.999 % must not read as all.
        percent = f"{integers:.0f}" if integers in (0.0, 100.0) else f"{min(max(integers, 0.1), 99.9):.1f}"
        return f"min {self.minimum:.4g}, max {self.maximum:.4g}, {percent} % integers"


def see(chunks: Iterable[np.ndarray]) -> NumbersSeen:
    """Summarise a matrix from chunks of its stored numbers."""
    seen = NumbersSeen()
    for chunk in chunks:
        seen.add(chunk)
    return seen


def as_float32_counts(values: np.ndarray) -> np.ndarray:
    """Integer-valued numbers as float32, with the rounding noise of floats removed. Same shape."""
    if values.dtype.kind in "iub":
        return values.astype(np.float32)
    return np.rint(values).astype(np.float32)


def column_totals(matrix: sp.csr_matrix) -> np.ndarray:
    """Sum of each column, float64, shape (n_vars,)."""
    totals = np.zeros(matrix.shape[1])
    for start in range(0, matrix.nnz, BLOCK):
        part = slice(start, start + BLOCK)
        totals += np.bincount(matrix.indices[part], weights=matrix.data[part], minlength=len(totals))
    return totals


def row_totals(matrix: sp.csr_matrix) -> np.ndarray:
    """Sum of each row, float64, shape (n_obs,)."""
    # float32 is exact for integers below 2**24, and needs no float64 copy of the whole matrix.
    return np.asarray(matrix @ np.ones(matrix.shape[1], dtype=np.float32), dtype=np.float64)
