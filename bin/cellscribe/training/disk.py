"""Counts of a reference on disk, so that one larger than memory can be trained on: memory holds a block at a time."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO

import numpy as np
import scipy.sparse as sp

from cellscribe.stored import row_slices

LARGEST_INT32 = np.iinfo(np.int32).max
_PIECE = 16_000_000


def on_disk(blocks: Iterable[sp.csr_matrix], n_columns: int, folder: Path | None = None) -> sp.csr_matrix:
    """Blocks of rows as one CSR float32 matrix (n_rows, n_columns), whose numbers are read from disk when used.

    folder: room for eight bytes a number, by default the system's own for temporary files. The files there have no
    name, and are gone with the matrix or the process. The matrix can be read, not written.
    """
    lengths = [np.zeros(1, dtype=np.int64)]
    with tempfile.TemporaryFile(dir=folder) as data, tempfile.TemporaryFile(dir=folder) as indices:
        for block in blocks:
            lengths.append(np.diff(block.indptr))
            # numpy's tofile does not say why it failed.
            data.write(block.data.astype(np.float32, copy=False).data)
            indices.write(block.indices.astype(np.int32, copy=False).data)
        indptr = np.cumsum(np.concatenate(lengths), dtype=np.int64)
        n_stored = int(indptr[-1])
        numbers, columns = _mapped(data, np.float32, n_stored), _mapped(indices, np.int32, n_stored)
        if n_stored > LARGEST_INT32:
            # scipy wants both of one type, and would make a copy in memory.
            with tempfile.TemporaryFile(dir=folder) as wider:
                for start in range(0, n_stored, _PIECE):
                    wider.write(columns[start : start + _PIECE].astype(np.int64).data)
                columns = _mapped(wider, np.int64, n_stored)
    return sp.csr_matrix((numbers, columns, indptr), shape=(len(indptr) - 1, n_columns))


def _mapped(file: IO[bytes], dtype: type, size: int) -> np.ndarray:
    file.flush()
    return np.memmap(file, dtype, mode="r", shape=(size,)) if size else np.empty(0, dtype)


def blocks_of(
    counts: sp.csr_matrix, rows: np.ndarray | None = None
) -> Iterator[tuple[np.ndarray, sp.csr_matrix]]:
    """Some rows of a matrix, block by block: which they are, and their numbers in memory.

    rows: int (n,), in the order wanted; by default all.
    """
    rows = np.arange(counts.shape[0]) if rows is None else rows
    for block in row_slices(np.append(0, np.cumsum(np.diff(counts.indptr)[rows], dtype=np.int64))):
        yield rows[block], counts[rows[block]]


def some_columns(
    counts: sp.csr_matrix, columns: np.ndarray, folder: Path, rows: np.ndarray | None = None
) -> sp.csr_matrix:
    """Some columns of all or some rows, on disk too: CSR (n_rows, n_columns)."""
    return on_disk((block[:, columns] for _, block in blocks_of(counts, rows)), len(columns), folder)


def draw_cells(codes: np.ndarray, most: int, *, seed: int = 0) -> np.ndarray:
    """Rows of at most `most` cells, ascending: all of them where there are no more.

    Labels are as frequent as they were, but for rare ones, of which each keeps its cells up to half of an equal share.
    codes: int (n_cells,), the cells' labels.
    """
    n_cells = len(codes)
    if n_cells <= most:
        return np.arange(n_cells)
    order = np.random.default_rng(seed).permutation(n_cells)
    labels, of = np.unique(codes[order], return_inverse=True)
    by_label = np.argsort(of, kind="stable")
    sizes = np.bincount(of)
    rank = np.empty(n_cells, dtype=np.int64)
    rank[by_label] = np.arange(n_cells) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    # Those that a label keeps for being rare come first, then the others in the order drawn.
    later = rank >= max(1, most // (2 * len(labels)))
    return np.sort(order[np.argsort(later, kind="stable")[:most]])
