"""How the files that Cell Ranger writes are opened, and what is said of one that is no such file or damaged."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from cellscribe.errors import InputError
from cellscribe.hdf5 import opened
from cellscribe.other_programs import BY_NAME

if TYPE_CHECKING:
    import h5py


def file_kind(path: Path) -> str:
    """`h5` or `h5ad`, by what the file holds. Raises InputError for a file that is no HDF5."""
    import h5py

    if not h5py.is_hdf5(path):
        by_name = (todo for pattern, todo in BY_NAME if re.search(pattern, path.name, re.I))
        raise InputError(
            f"this is no HDF5 file ({path.stat().st_size:,} bytes): it is cut short, or of another kind",
            next(by_name, "Give a Cell Ranger .h5, an .h5ad, or a folder."),
            file=path,
        )
    with open_h5(path) as file:
        return "h5ad" if "obs" in file and "var" in file else "h5"


def open_h5(path: Path) -> AbstractContextManager[h5py.File]:
    """An HDF5 file to read. Whatever is raised of what lies in it is an InputError that names the file."""
    return opened(path, lambda error: _cut_short(path, error))


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Whatever a library raises of a file that it cannot read, as an error that names the file."""
    try:
        yield
    except (InputError, MemoryError):
        raise
    except Exception as error:
        raise _cut_short(path, error) from error


def _cut_short(path: Path, error: BaseException) -> InputError:
    return InputError(
        f"the file cannot be read: it is cut short or damaged ({type(error).__name__}: {error})",
        "Copy it again, or make it again.",
        file=path,
    )
