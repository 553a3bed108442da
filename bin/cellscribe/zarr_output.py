"""An annotated h5ad once more as zarr, for viewers in a browser and for clouds: one file, S.annotated.zarr.zip.

Zarr of format 2, which readers of both formats know. Matrices go through block by block; all else is small beside them.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cellscribe.errors import OutputError
from cellscribe.io import atomic_path
from cellscribe.model.archive import zip_files
from cellscribe.model.neighbours import row_blocks
from cellscribe.verify import WRITE_AGAIN

if TYPE_CHECKING:
    import h5py
    import zarr

SUFFIX = ".zarr.zip"
BLOCK = 1_000_000
"""Stored numbers of a matrix in one chunk of zarr, and held at once."""

SPARSE = ("csr_matrix", "csc_matrix")
GROUPS = ("dict", "raw")


def zarr_path(h5ad: Path) -> Path:
    """Where the zarr of an h5ad goes: beside it."""
    return h5ad.with_name(h5ad.name.removesuffix(".h5ad") + SUFFIX)


def write_zarr(h5ad: Path, output: Path) -> None:
    """Write what an h5ad holds as a zipped zarr store, which `anndata.read_zarr(zarr.storage.ZipStore(output))` reads.

    Raises OutputError where the matrices, read again, are not those of the h5ad.
    """
    import h5py
    import zarr

    # Chunks are files first, as a zip keeps every version of one that is written twice.
    with (
        atomic_path(output) as temporary,
        tempfile.TemporaryDirectory(dir=output.parent, prefix=".zarr-") as folder,
        h5py.File(h5ad, "r") as source,
    ):
        root = zarr.open_group(folder, mode="w", zarr_format=2)
        root.attrs.update(_attributes(source))
        _copy(source, root)
        zarr.consolidate_metadata(root.store, zarr_format=2)
        files = [path for path in Path(folder).rglob("*") if path.is_file()]
        zip_files(Path(folder), [path.relative_to(folder).as_posix() for path in files], temporary)
        with zarr.storage.ZipStore(temporary, mode="r") as store:
            _check(source, zarr.open_group(store, mode="r", zarr_format=2), output)


def _elements(group: h5py.Group) -> list[tuple[str, Any]]:
    """What a group holds. Not by `items()`, which holds h5py's lock as long as it is walked: zarr's threads would wait
    for it for ever, where one of them frees an object of h5py.
    """
    return [(key, group[key]) for key in group]


def _copy(source: h5py.Group, target: zarr.Group) -> None:
    from anndata.io import read_elem, write_elem

    for key, element in _elements(source):
        kind = element.attrs.get("encoding-type")
        if kind in (*SPARSE, *GROUPS):
            group = target.create_group(key, attributes=_attributes(element))
            _copy_matrix(element, group) if kind in SPARSE else _copy(element, group)
        else:
            write_elem(target, key, read_elem(element))


def _copy_matrix(source: h5py.Group, target: zarr.Group) -> None:
    for name, numbers in _elements(source):
        copied = target.create_array(
            name,
            shape=numbers.shape,
            dtype=numbers.dtype,
            chunks=(min(BLOCK, max(1, len(numbers))),),
        )
        for block in row_blocks(len(numbers), BLOCK):
            copied[block] = numbers[block]


def _attributes(element: h5py.Group) -> dict[str, Any]:
    """As JSON can hold them."""
    return {
        name: value.tolist() if isinstance(value, np.ndarray | np.generic) else value
        for name, value in element.attrs.items()
    }


def _check(source: h5py.Group, copied: Any, output: Path) -> None:
    for key, element in _elements(source):
        kind = element.attrs.get("encoding-type")
        if kind in GROUPS:
            _check(element, copied[key], output)
        for name, numbers in _elements(element) if kind in SPARSE else ():
            there = copied[key][name]
            if not all(
                np.array_equal(there[block], numbers[block]) for block in row_blocks(len(numbers), BLOCK)
            ):
                raise OutputError(
                    f"{element.name}/{name} of the zarr is not that of the h5ad, so it was not kept",
                    WRITE_AGAIN,
                    file=output.name,
                )
