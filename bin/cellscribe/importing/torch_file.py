"""Reading a file of torch.save without torch, and without running what is in it.

Such a file is a zip of one pickle, in which each tensor names the entry of the zip that holds its numbers.
"""

from __future__ import annotations

import hashlib
import io
import pickle
import zipfile
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from cellscribe.errors import ModelFetchError
from cellscribe.importing.pickles import INERT, PlainUnpickler, check_trusted

STORAGES = {
    "DoubleStorage": "f8",
    "FloatStorage": "f4",
    "HalfStorage": "f2",
    "BFloat16Storage": "u2",
    "LongStorage": "i8",
    "IntStorage": "i4",
    "ShortStorage": "i2",
    "CharStorage": "i1",
    "ByteStorage": "u1",
    "BoolStorage": "?",
}


class Storage(NamedTuple):
    """The kind of numbers that a tensor is stored as."""

    name: str


class TorchUnpickler(PlainUnpickler):
    """Unpickles tensors as arrays, and containers of them; other classes become stand-ins."""

    inert = (*INERT, "pyarrow", "torch", "scvi", "anndata", "lightning", "pyro", "attrdict")

    def __init__(self, file: zipfile.ZipFile, root: str) -> None:
        super().__init__(io.BytesIO(file.read(f"{root}data.pkl")))
        self.file, self.root = file, root
        names = set(file.namelist())
        big = f"{root}byteorder" in names and file.read(f"{root}byteorder").strip() == b"big"
        self.order: Literal["<", ">"] = ">" if big else "<"

    def find_class(self, module: str, name: str) -> Any:
        """What the pickle means by a name."""
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return rebuild_tensor
        if (module, name) == ("torch._utils", "_rebuild_parameter"):
            return rebuild_parameter
        if module == "torch" and name in STORAGES:
            return Storage(name)
        return super().find_class(module, name)

    def persistent_load(self, pid: Any) -> np.ndarray:
        """The numbers of a tensor: one dimension."""
        _, storage, key, _, n = pid
        if not isinstance(storage, Storage):
            raise pickle.UnpicklingError(f"it holds numbers of an unknown kind ({storage})")
        kind = np.dtype(STORAGES[storage.name]).newbyteorder(self.order)
        values = np.frombuffer(self.file.read(f"{self.root}data/{key}"), dtype=kind, count=int(n))
        values = values.astype(kind.newbyteorder("="))
        if storage.name == "BFloat16Storage":
            return (values.astype(np.uint32) << 16).view(np.float32)
        return values


def rebuild_tensor(
    storage: np.ndarray, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *_: Any
) -> np.ndarray:
    """An array of a tensor's shape. Raises ValueError where it would reach beyond its numbers."""
    size, stride = tuple(map(int, size)), tuple(map(int, stride))
    last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
    if 0 in size:
        return np.zeros(size, dtype=storage.dtype)
    if min((offset, *size, *stride)) < 0 or last >= len(storage):
        raise ValueError("a tensor reaches beyond its numbers")
    steps = tuple(step * storage.itemsize for step in stride)
    return np.lib.stride_tricks.as_strided(storage[offset:], size, steps).copy()


def rebuild_parameter(data: np.ndarray, *_: Any) -> np.ndarray:
    """A parameter is its numbers."""
    return data


def read_torch(path: Path, *, program: str, trusted: bool) -> tuple[Any, str]:
    """What a file of torch.save holds, tensors as arrays, and the file's sha256.

    trusted: the user said so. Raises ModelFetchError where not, and for what is no such file.
    """
    check_trusted(path, program, trusted=trusted)
    try:
        with zipfile.ZipFile(path) as file:
            pickles = [name for name in file.namelist() if name == "data.pkl" or name.endswith("/data.pkl")]
            if len(pickles) != 1:
                raise ValueError("it holds no data.pkl")
            value = TorchUnpickler(file, pickles[0].removesuffix("data.pkl")).load()
    except Exception as error:
        raise ModelFetchError(
            f"this is no model of {program} that can be read: {error}",
            f"Give what {program} 1.0 or later saved, whole; a model of an older one is converted by its "
            "convert_legacy_save, or loaded and saved again.",
            file=path,
        ) from None
    with path.open("rb") as handle:
        return value, hashlib.file_digest(handle, "sha256").hexdigest()
