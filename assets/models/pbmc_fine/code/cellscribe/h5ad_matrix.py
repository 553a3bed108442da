"""One matrix of an .h5ad, dense, by rows (CSR) or by columns (CSC): looked at and read part by part."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cellscribe.counts import BLOCK
from cellscribe.errors import InputError
from cellscribe.hdf5 import offsets, opened, whole
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

FIRST_ROWS = 2_000


def open_h5ad_file(path: Path) -> AbstractContextManager[h5py.File]:
    """An .h5ad to read. Whatever is raised of what lies in it is an InputError that names the file."""
    return opened(
        path,
        lambda error: InputError(
            f"this .h5ad cannot be read ({type(error).__name__}: {error})",
            "Write it again with a recent anndata, or copy it again.",
            file=path,
        ),
    )


def check_shape(name: str, node: Any, wanted: tuple[int, int], path: Path) -> None:
    """Raise InputError unless a matrix is of the tables' cells and genes: before any of its numbers is read."""
    shape = tuple(node.shape) if hasattr(node, "shape") else _layout(node)[0]
    if shape != wanted:
        raise InputError(
            f"{name} has {' x '.join(f'{size:,}' for size in shape)} numbers, but there are "
            f"{wanted[0]:,} cells and {wanted[1]:,} genes",
            "Write the file again.",
            file=path,
        )


def attribute(node: Any, name: str) -> str:
    """An attribute of the file's as text, "" where it has none of this name."""
    value = node.attrs.get(name, "")
    return value.decode() if isinstance(value, bytes) else str(value)


def numbers_by_block(node: Any) -> Iterator[np.ndarray]:
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


def read_matrix(node: Any, *, whole: bool = True) -> sp.csr_matrix:
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


def stored_matrix(
    node: Any, n_numbers: int, path: Path, scratch: Path | None, *, whole: bool = True
) -> sp.csr_matrix | StoredInput:
    """A matrix as it can be read by blocks of rows.

    n_numbers: how many of a dense one are not 0. whole: whether its numbers are counts, and not made of these.
    """
    if hasattr(node, "shape"):
        n_obs, n_vars = node.shape
        return StoredDense(path, node.name, (int(n_obs), int(n_vars)), n_numbers, open_h5ad_file, whole)
    shape, by_column = _layout(node)
    if not by_column:
        return StoredCsr(path, node.name, shape, _pointers(node, shape[0]), open_h5ad_file, whole)
    return (
        _by_rows(node, scratch, whole=whole) if is_large_by_columns(node) else read_matrix(node, whole=whole)
    )


def is_large_by_columns(node: Any) -> bool:
    """Whether a matrix must be sorted on disk to be read by rows."""
    return not hasattr(node, "shape") and _layout(node)[1] and node["data"].shape[0] > IN_MEMORY


def _columns_of(node: Any) -> Iterator[tuple[slice, np.ndarray, np.ndarray, np.ndarray]]:
    """Some columns at a time of a matrix by columns, with their numbers, rows and pointers."""
    pointers = _pointers(node, _layout(node)[0][1])
    for columns in row_slices(pointers):
        first, last = int(pointers[columns.start]), int(pointers[columns.stop])
        own = pointers[columns.start : columns.stop + 1] - first
        yield columns, node["data"][first:last], node["indices"][first:last], own


def rows_to_compare(n_genes: int) -> int:
    """How many first rows of a matrix are enough, and not too large, to hold it against another one."""
    return min(FIRST_ROWS, max(1, BLOCK // n_genes))


def first_rows(node: Any, n_rows: int = FIRST_ROWS) -> sp.csr_matrix:
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
    kind = attribute(node, "encoding-type") or attribute(node, "h5sparse_format")
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
