"""HDF5 files from anywhere: opened so that nothing that they say of themselves is believed before it is checked.

A file of some kilobytes can declare terabytes, lead to other files of this machine, or hold itself.
"""

from __future__ import annotations

import contextlib
import functools
import os
import signal
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cellscribe.errors import CellscribeError

if TYPE_CHECKING:
    import h5py

# No filter that HDF5 brings packs better than 1,032 to one (deflate, of zeros).
MOST_PACKED = 2000
MAY_BE_UNWRITTEN = 64 * 2**20
LARGEST_CHUNK = 2**30
# What is read whole: names, tables, offsets. The raw matrix of 7 million droplets has 180 MB of them in 60 MB.
READ_WHOLE, READ_WHOLE_BY_SIZE = 256 * 2**20, 20
# How long all but the matrices of a file may take to be read, far more than any takes.
SECONDS, BYTES_A_SECOND, TEXTS = 30.0, 5e6, 100_000
# A column of a table in parts: codes and categories, which may have values and a mask each.
DEEPEST_COLUMN = 3


@contextmanager
def opened(path: Path, unreadable: Callable[[BaseException], CellscribeError]) -> Iterator[h5py.File]:
    """A file open for reading, all of whose data lie in it and are as large as it says.

    unreadable: what to raise in the place of whatever h5py, numpy or anndata raise of what they read in the block. Our
    own errors pass, and so does MemoryError, which says nothing of the file.
    """
    import h5py

    try:
        size = path.stat()
        if fault := fault_of(path, size.st_size, size.st_mtime_ns):
            raise OSError(fault)
        with h5py.File(path, "r") as file:
            check_claims(file)
            yield file
    except (CellscribeError, MemoryError):
        raise
    except Exception as error:
        raise unreadable(error) from error


@functools.lru_cache(maxsize=64)
def fault_of(path: Path, size: int, _changed: int) -> str:
    """What the HDF5 library does on a damaged file that no error tells of: it never ends, or ends the process; else "".

    A process of its own reads all that is no matrix: names, attributes and text, where damage leads in circles. Not on
    Windows, where a model's own code may run, but no step does.
    """
    if not hasattr(os, "fork"):
        return ""
    with warnings.catch_warnings():
        # Of threads: there are none that hold a lock of HDF5 here.
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if not child:
        try:
            _read_all_but_numbers(path)
        finally:
            os._exit(0)
    deadline = time.monotonic() + SECONDS + size / BYTES_A_SECOND
    wait = 0.001
    while True:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            if os.WIFSIGNALED(status):
                return f"the HDF5 library ends with signal {os.WTERMSIG(status)} in it"
            return ""
        if time.monotonic() > deadline:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return "the HDF5 library does not come to an end in it"
        time.sleep(wait)
        wait = min(2 * wait, 0.1)


def _read_all_but_numbers(path: Path) -> None:
    import h5py

    def read(_name: str, node: Any) -> None:
        for attribute in node.attrs:
            with contextlib.suppress(Exception):
                _ = node.attrs[attribute]
        if isinstance(node, h5py.Dataset) and node.dtype.kind in "OSV" and node.ndim == 1:
            for start in range(0, len(node), TEXTS):
                with contextlib.suppress(Exception):
                    _ = node[start : start + TEXTS]

    with contextlib.suppress(Exception), h5py.File(path, "r") as file:
        check_claims(file)
        read("", file)
        file.visititems(read)


def check_claims(file: h5py.File) -> None:
    """Raise ValueError for a link out of the file, or a data set that is much larger than what it stores."""
    import h5py

    links: list[str] = []
    file.visititems_links(
        lambda name, link: links.append(name) if isinstance(link, h5py.ExternalLink) else None
    )
    if links:
        raise ValueError(f"'{links[0]}' is a link to another file")

    def check(name: str, node: Any) -> None:
        if isinstance(node, h5py.Dataset):
            _check_data_set(name, node)

    file.visititems(check)


def _check_data_set(name: str, node: h5py.Dataset) -> None:
    if node.is_virtual or node.external:
        raise ValueError(f"'{name}' keeps its data in another file")
    claimed, stored = size_of(node), node.id.get_storage_size()
    if claimed > MAY_BE_UNWRITTEN and claimed > MOST_PACKED * stored:
        raise ValueError(f"'{name}' is said to hold {claimed:,} bytes, and {stored:,} are there")
    if node.chunks and _product(node.chunks) * node.dtype.itemsize > LARGEST_CHUNK:
        raise ValueError(f"'{name}' has parts of more than {LARGEST_CHUNK:,} bytes")


def size_of(node: h5py.Dataset) -> int:
    """Bytes of all numbers of a data set; of text of any length, those that say where it is."""
    return 0 if node.shape is None else _product(node.shape) * node.dtype.itemsize


def _product(sizes: tuple[int, ...]) -> int:
    # numpy's would overflow
    product = 1
    for size in sizes:
        product *= int(size)
    return product


def holds(node: Any, name: str) -> bool:
    """Whether `node` is a group that has a member of this name."""
    import h5py

    # Python would read a data set one by one to find a name in it, for hours.
    return isinstance(node, h5py.Group) and name in node


def whole(node: Any) -> np.ndarray:
    """All of a data set of one dimension. Raises TypeError for anything else, ValueError for one that is too large."""
    check_whole(node)
    return np.asarray(node[:])


def check_whole(node: Any) -> None:
    """Raise TypeError for what is no data set of one dimension, ValueError for one too large to be read whole."""
    import h5py

    if not isinstance(node, h5py.Dataset) or node.ndim != 1:
        raise TypeError(f"'{node.name}' is no list of values")
    size = Path(node.file.filename).stat().st_size
    if size_of(node) > max(READ_WHOLE, READ_WHOLE_BY_SIZE * size):
        raise ValueError(f"'{node.name}' holds {len(node):,} values in a file of {size:,} bytes")


def check_table(node: Any) -> None:
    """Raise TypeError or ValueError unless a group is a table as anndata writes them, of columns that can be read."""
    encoding = node.attrs.get("encoding-type", "")
    if encoding != "dataframe":
        raise TypeError(f"'{node.name}' is no table")
    index = node.attrs["_index"]
    for name in (index, *node.attrs["column-order"]):
        _check_column(node[name], DEEPEST_COLUMN)


def _check_column(node: Any, depth: int) -> None:
    import h5py

    if not isinstance(node, h5py.Group):
        if node.ndim:
            check_whole(node)
        return
    if not depth or len(node) > DEEPEST_COLUMN:
        raise TypeError(f"'{node.name}' is no column of a table")
    for name in node:
        _check_column(node[name], depth - 1)


def offsets(values: np.ndarray) -> np.ndarray:
    """Row or column pointers as int64. Raises ValueError where they do not ascend from 0."""
    if values.ndim != 1 or not len(values) or values.dtype.kind not in "iuf":
        raise ValueError(f"offsets must be a list of whole numbers, not {values.dtype} {values.shape}")
    with np.errstate(invalid="ignore"):
        pointers = values.astype(np.int64)
    if (pointers != values).any():
        raise ValueError("offsets must be whole numbers")
    if pointers[0] != 0 or (pointers[1:] < pointers[:-1]).any():
        raise ValueError("offsets must ascend from 0")
    return pointers
