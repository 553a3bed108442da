"""A matrix.mtx of features by cells, plain or gzipped, read block by block."""

from __future__ import annotations

import gzip
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from cellscribe.counts import BLOCK, NumbersSeen, as_float32_counts
from cellscribe.errors import InputError
from cellscribe.stored import IN_MEMORY, RowBuckets, StoredInput
from cellscribe.tenx_files import reading

if TYPE_CHECKING:
    import scipy.sparse as sp

# No line of a matrix.mtx is shorter, and gzip packs at most 1,032 to one.
SHORTEST_LINE, MOST_PACKED = 2, 1100
LONGEST_LINE = 100_000
NUMBERS: dict[str, type] = {"integer": np.int64, "unsigned-integer": np.int64, "real": np.float64}


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


def mtx_head(path: Path) -> MtxHead:
    """What a matrix.mtx says of itself. Raises InputError for one that is damaged, or holds no counts."""
    with reading(path), _opened_mtx(path) as (head, _):
        return head


def mtx_blocks(path: Path) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Rows, columns, both counted from 0, and numbers of a coordinate matrix.mtx, block by block."""
    n_read = 0
    with reading(path), _opened_mtx(path) as (head, text), warnings.catch_warnings():
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


def read_mtx(
    path: Path, head: MtxHead, scratch: Path | None
) -> tuple[sp.csr_matrix | StoredInput, NumbersSeen]:
    """A matrix of features by cells as cells by features, and what its numbers look like."""
    import scipy.sparse as sp

    shape, seen = (head.n_columns, head.n_rows), NumbersSeen()
    if head.n_numbers <= IN_MEMORY:
        parts = [sp.csr_matrix(shape, dtype=np.float32)]
        for features, cells, numbers in mtx_blocks(path):
            seen.add(numbers)
            parts.append(sp.csr_matrix((as_float32_counts(numbers), (cells, features)), shape=shape))
        return parts[-1] if len(parts) <= 2 else sum(parts[2:], parts[1]), seen
    buckets = RowBuckets(shape, head.n_numbers, scratch)
    for features, cells, numbers in mtx_blocks(path):
        seen.add(numbers)
        with reading(path):
            buckets.add(cells, features, numbers)
    return buckets, seen
