"""Reading other people's pickles without running what is in them.

A pickle names functions to call. Here only those that rebuild numpy arrays and plain containers are called; objects of
the libraries that such files are known to hold become inert stand-ins, of which only the attributes are read; anything
else ends the reading.
"""

from __future__ import annotations

import hashlib
import io
import pickle
from collections.abc import Collection
from pathlib import Path
from typing import Any

from cellscribe.errors import ModelFetchError

ALLOWED = frozenset(
    {
        *(
            (f"numpy.{core}.multiarray", name)
            for core in ("core", "_core")
            for name in ("_reconstruct", "scalar")
        ),
        *((f"numpy.{core}.numeric", "_frombuffer") for core in ("core", "_core")),
        *(("numpy", name) for name in ("ndarray", "dtype")),
        ("_codecs", "encode"),
        *(("collections", name) for name in ("OrderedDict", "defaultdict")),
        *(
            (builtins, name)
            for builtins in ("builtins", "__builtin__")
            for name in (
                "bytes",
                "bytearray",
                "complex",
                "dict",
                "frozenset",
                "list",
                "set",
                "slice",
                "tuple",
            )
        ),
    }
)
INERT = ("sklearn", "_loss", "numpy.random", "cuml", "pandas", "scipy")


class StandIn:
    """In the place of an object of a class that is not loaded: its attributes, and nothing that could run."""

    def __new__(cls, *_: Any, **__: Any) -> StandIn:
        """Any arguments."""
        return object.__new__(cls)

    def __init__(self, *_: Any, **__: Any) -> None: ...

    def __setstate__(self, state: Any) -> None:
        if isinstance(state, dict):
            self.__dict__.update(state)


class PlainUnpickler(pickle.Unpickler):
    """Unpickles arrays and containers; `pickle.UnpicklingError` for any other class or function."""

    inert: Collection[str] = INERT

    def find_class(self, module: str, name: str) -> Any:
        """What a pickle means by a name."""
        if (module, name) in ALLOWED:
            return super().find_class(module, name)
        if any(module == root or module.startswith(f"{root}.") for root in self.inert):
            return type(name.rpartition(".")[2], (StandIn,), {"__module__": module})
        raise pickle.UnpicklingError(f"it names {module}.{name}, which no such model needs")


def check_trusted(path: Path, program: str, *, trusted: bool) -> None:
    """Raises ModelFetchError unless the user said that the pickle is to be read."""
    if not trusted:
        raise ModelFetchError(
            f"a model of {program} is a pickle, a format that can run code when it is read",
            "If you trust where it comes from, say so with --trust_model_code. Even then only numbers and text are "
            "taken from it; the model written holds no pickle.",
            file=path,
        )


def read_pickle(path: Path, *, program: str, trusted: bool) -> tuple[Any, str]:
    """What a pickle holds, classes as stand-ins, and the file's sha256.

    trusted: the user said so. Raises ModelFetchError where not, and for what is no pickle, needs other classes, or is
    of a newer protocol than this Python reads.
    """
    check_trusted(path, program, trusted=trusted)
    data = path.read_bytes()
    try:
        value = PlainUnpickler(io.BytesIO(data)).load()
    except ValueError as error:
        newer = "protocol" in str(error)
        raise ModelFetchError(
            f"this pickle is newer than this Python reads ({error})"
            if newer
            else f"this is no whole pickle ({error})",
            f"Write it again with {program} and pickle protocol {pickle.HIGHEST_PROTOCOL} or lower."
            if newer
            else "Copy it again.",
            file=path,
        ) from None
    except Exception as error:
        raise ModelFetchError(
            f"this is no model of {program} that can be read: {error}",
            f"Give the file that {program} wrote, whole.",
            file=path,
        ) from None
    return value, hashlib.sha256(data).hexdigest()
