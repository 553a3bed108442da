"""Matrices of counts read by blocks of rows from where they lie, so that memory grows with the block.

A matrix here is a CSR matrix in memory or a `Stored` one; `blocks` walks over either. What a file keeps by rows (CSR,
dense, Cell Ranger's .h5) is read in place, as often as asked; what it keeps in another order (CSC, matrix.mtx) and
does not fit `IN_MEMORY` is sorted once into `RowBuckets` on disk.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np

from cellscribe.counts import BLOCK, as_float32_counts

if TYPE_CHECKING:
    import h5py
    import scipy.sparse as sp

# Rows in a block, at most, which holds BLOCK numbers at most, but for a single row that holds more.
BLOCK_ROWS = 65_536

IN_MEMORY = 32_000_000
"""Stored numbers that CSC and matrix.mtx may hold to be read whole: under 1 GB while they are turned."""

MAX_BUCKETS = 256
"""Files open at once, at most."""

Blocks = Iterator["tuple[slice, sp.csr_matrix]"]
Opened = Callable[[Path], "AbstractContextManager[h5py.File]"]


class Stored(Protocol):
    """Counts that can be walked over."""

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        ...

    def blocks(self) -> Blocks:
        """Consecutive rows and their counts, CSR float32 (n_rows, n_columns), till the last row."""
        ...


class StoredInput(Stored, Protocol):
    """Counts as an input holds them."""

    @property
    def nnz(self) -> int:
        """How many numbers are stored."""
        ...


def blocks(matrix: sp.csr_matrix | Stored) -> Blocks:
    """Consecutive rows of a matrix, in memory or stored, and their counts."""
    import scipy.sparse as sp

    if isinstance(matrix, (sp.csr_matrix, sp.csr_array)):
        yield from ((rows, matrix[rows]) for rows in row_slices(matrix.indptr))
    else:
        yield from matrix.blocks()


def row_slices(indptr: np.ndarray) -> Iterator[slice]:
    """Consecutive rows that hold BLOCK numbers at most. indptr: row pointers, shape (n_obs + 1,)."""
    start, n_rows = 0, len(indptr) - 1
    while start < n_rows:
        stop = int(np.searchsorted(indptr, int(indptr[start]) + BLOCK, side="right")) - 1
        stop = min(max(stop, start + 1), start + BLOCK_ROWS, n_rows)
        yield slice(start, stop)
        start = stop


def group_totals(matrix: sp.csr_matrix | Stored, groups: np.ndarray) -> np.ndarray:
    """Sum of each row over each group of columns, float64 (n_obs, n_groups).

    groups: bool (n_features, n_groups). float32 is exact for whole numbers below 2**24.
    """
    weights = groups.astype(np.float32)
    totals = np.zeros((matrix.shape[0], groups.shape[1]))
    for rows, block in blocks(matrix):
        totals[rows] = block @ weights
    return totals


@dataclass(frozen=True)
class SomeColumns:
    """Some columns of a matrix. columns: ascending, shape (n,)."""

    matrix: sp.csr_matrix | Stored
    columns: np.ndarray

    @property
    def shape(self) -> tuple[int, int]:
        """Rows, and chosen columns."""
        return self.matrix.shape[0], len(self.columns)

    def blocks(self) -> Blocks:
        """Consecutive rows with the chosen columns alone."""
        for rows, block in blocks(self.matrix):
            yield rows, block[:, self.columns]


@dataclass(frozen=True)
class SomeRows:
    """Some rows of a matrix. rows: ascending, shape (n,)."""

    matrix: sp.csr_matrix | Stored
    rows: np.ndarray

    @property
    def shape(self) -> tuple[int, int]:
        """Chosen rows, and columns."""
        return len(self.rows), self.matrix.shape[1]

    def blocks(self) -> Blocks:
        """The chosen rows alone, counted anew."""
        for rows, block in blocks(self.matrix):
            first, last = np.searchsorted(self.rows, (rows.start, rows.stop))
            if last > first:
                yield slice(int(first), int(last)), block[self.rows[first:last] - rows.start]


def groups_of_rows(matrix: sp.csr_matrix | Stored, n: int) -> Blocks:
    """As `blocks`, with `n` rows each but for the last."""
    import scipy.sparse as sp

    start, held, parts = 0, 0, []
    for _, block in blocks(matrix):
        while held + block.shape[0] >= n:
            parts.append(block[: n - held])
            block = block[n - held :]
            yield slice(start, start + n), sp.vstack(parts, format="csr")
            start, held, parts = start + n, 0, []
        if block.shape[0]:
            parts.append(block)
            held += block.shape[0]
    if parts:
        yield slice(start, start + held), sp.vstack(parts, format="csr")


def numbers_of(values: np.ndarray, *, whole: bool) -> np.ndarray:
    """Numbers as a file holds them: counts where they are `whole`, else as they are. Same shape."""
    return as_float32_counts(values) if whole else values


@dataclass(frozen=True)
class StoredCsr:
    """A CSR matrix in an open format of HDF5: the group `place` of `path` with `data` and `indices`.

    indptr: its row pointers, ascending from 0, (n_obs + 1,). opened: opens the file, and says what is wrong with it.
    whole: whether its numbers are counts, and not what was made of these.
    """

    path: Path
    place: str
    shape: tuple[int, int]
    indptr: np.ndarray
    opened: Opened
    whole: bool = True

    @property
    def nnz(self) -> int:
        """Numbers stored."""
        return int(self.indptr[-1])

    def blocks(self) -> Blocks:
        """Consecutive rows; a column that does not exist is a ValueError, which `opened` puts into words."""
        import scipy.sparse as sp

        with self.opened(self.path) as file:
            data, indices = file[self.place]["data"], file[self.place]["indices"].astype(np.int32)
            for rows in row_slices(self.indptr):
                first, last = int(self.indptr[rows.start]), int(self.indptr[rows.stop])
                pointers = (self.indptr[rows.start : rows.stop + 1] - first).astype(np.int32)
                parts = (numbers_of(data[first:last], whole=self.whole), indices[first:last], pointers)
                block = sp.csr_matrix(parts, shape=(rows.stop - rows.start, self.shape[1]))
                block.check_format(full_check=True)
                yield rows, block


@dataclass(frozen=True)
class StoredDense:
    """A dense matrix in HDF5: the data set `place` of `path`. nnz: how many of its numbers are not 0.

    whole: as for CSR.
    """

    path: Path
    place: str
    shape: tuple[int, int]
    nnz: int
    opened: Opened
    whole: bool = True

    def blocks(self) -> Blocks:
        """Consecutive rows, made sparse."""
        import scipy.sparse as sp

        with self.opened(self.path) as file:
            dense = file[self.place]
            step = max(1, BLOCK // max(1, self.shape[1]))
            for start in range(0, self.shape[0], step):
                rows = slice(start, min(start + step, self.shape[0]))
                yield rows, sp.csr_matrix(numbers_of(dense[rows], whole=self.whole))


class RowBuckets:
    """Counts that come in any order, laid down by ranges of rows in files that are deleted with this object.

    nnz: how many will come; a bucket holds BLOCK of them where rows are alike. folder: where there is room for
    twelve bytes each. whole: as for CSR. Numbers for the same place are added up.
    """

    RECORD = np.dtype([("row", np.int32), ("column", np.int32), ("count", np.float32)])

    def __init__(
        self, shape: tuple[int, int], nnz: int, folder: Path | None = None, *, whole: bool = True
    ) -> None:
        self.shape, self.nnz, self._whole = shape, nnz, whole
        self._folder = tempfile.TemporaryDirectory(dir=folder, prefix=".cellscribe-")
        n_buckets = min(max(1, -(-nnz // BLOCK)), MAX_BUCKETS, max(1, shape[0]))
        self._rows = max(1, -(-shape[0] // n_buckets))
        n_buckets = -(-shape[0] // self._rows)
        self._files = [Path(self._folder.name) / str(bucket) for bucket in range(n_buckets)]
        for path in self._files:
            path.touch()

    def add(self, rows: np.ndarray, columns: np.ndarray, counts: np.ndarray) -> None:
        """Lay down some counts, each array of shape (n,). Raises ValueError for a place outside of the matrix."""
        for values, size, what in zip((rows, columns), self.shape, ("row", "column"), strict=True):
            if len(values) and (values.min() < 0 or values.max() >= size):
                raise ValueError(f"{what} index values must be >= 0 and < {size}")
        bucket = (rows // self._rows).astype(np.int16)
        order = np.argsort(bucket, kind="stable")
        records = np.empty(len(order), dtype=self.RECORD)
        records["row"], records["column"] = rows[order], columns[order]
        records["count"] = numbers_of(counts, whole=self._whole)[order]
        ends = np.searchsorted(bucket[order], np.arange(len(self._files) + 1))
        for path, first, last in zip(self._files, ends[:-1], ends[1:], strict=True):
            if last > first:
                with path.open("ab") as file:
                    # numpy's tofile does not say why it failed.
                    file.write(records[first:last].data)

    def blocks(self) -> Blocks:
        """Consecutive rows, their columns sorted."""
        import scipy.sparse as sp

        for start, path in zip(range(0, self.shape[0], self._rows), self._files, strict=True):
            records = np.fromfile(path, dtype=self.RECORD)
            rows = slice(start, min(start + self._rows, self.shape[0]))
            place = (records["row"] - start, records["column"])
            yield (
                rows,
                sp.csr_matrix((records["count"], place), shape=(rows.stop - rows.start, self.shape[1])),
            )
