"""Reading UBJSON (draft 12, as xgboost writes it) of files that may say anything, into plain Python and numpy."""

from __future__ import annotations

from typing import Any

import numpy as np

NUMBERS = {
    b"i": ">i1",
    b"U": ">u1",
    b"I": ">i2",
    b"u": ">u2",
    b"l": ">i4",
    b"L": ">i8",
    b"d": ">f4",
    b"D": ">f8",
}
CONSTANTS = {b"Z": None, b"T": True, b"F": False}
DEEPEST = 20


def parse_ubjson(data: bytes) -> Any:
    """The one value of `data`; a list of numbers of one kind is an array. Raises ValueError for anything else."""
    reader = _Reader(data)
    value = reader.value(reader.take(1), DEEPEST)
    if reader.place != len(data):
        raise ValueError(f"{len(data) - reader.place:,} bytes are left over")
    return value


class _Reader:
    def __init__(self, data: bytes) -> None:
        self.data, self.place = data, 0

    def take(self, n: int) -> bytes:
        if n < 0 or n > len(self.data) - self.place:
            raise ValueError(f"{n:,} bytes are wanted, and {len(self.data) - self.place:,} are left")
        self.place += n
        return self.data[self.place - n : self.place]

    def number(self, marker: bytes) -> Any:
        kind = np.dtype(NUMBERS[marker])
        return np.frombuffer(self.take(kind.itemsize), kind)[0].item()

    def length(self) -> int:
        marker = self.take(1)
        if marker not in NUMBERS or marker in b"dD":
            raise ValueError(f"a length cannot be of kind {marker!r}")
        return int(self.number(marker))

    def value(self, marker: bytes, depth: int) -> Any:
        if not depth:
            raise ValueError("it is nested too deeply")
        if marker in NUMBERS:
            return self.number(marker)
        if marker in CONSTANTS:
            return CONSTANTS[marker]
        if marker in (b"S", b"H"):
            return self.take(self.length()).decode()
        if marker == b"C":
            return self.take(1).decode()
        if marker in (b"[", b"{"):
            return self._list(depth - 1) if marker == b"[" else self._object(depth - 1)
        raise ValueError(f"{marker!r} is no kind of value")

    def _counted(self) -> tuple[bytes, int | None]:
        """The kind of every value ("" where each tells its own) and how many there are, None for up to a bracket."""
        kind, n = b"", None
        if self.data[self.place : self.place + 1] == b"$":
            self.take(1)
            kind = self.take(1)
            if kind in CONSTANTS:
                raise ValueError(
                    f"a list of nothing but {CONSTANTS[kind]} takes no bytes, whatever its length"
                )
        if self.data[self.place : self.place + 1] == b"#":
            self.take(1)
            n = self.length()
            if not 0 <= n <= len(self.data) - self.place:
                raise ValueError(f"{n:,} values are said to be in {len(self.data) - self.place:,} bytes")
        elif kind:
            raise ValueError("values of one kind are not counted")
        return kind, n

    def _list(self, depth: int) -> Any:
        kind, n = self._counted()
        if kind in NUMBERS and n is not None:
            of = np.dtype(NUMBERS[kind])
            return np.frombuffer(self.take(n * of.itemsize), of).astype(of.newbyteorder("="))
        values: list[Any] = []
        while n is None or len(values) < n:
            marker = kind or self.take(1)
            if n is None and marker == b"]":
                break
            values.append(self.value(marker, depth))
        return values

    def _object(self, depth: int) -> dict[str, Any]:
        kind, n = self._counted()
        values: dict[str, Any] = {}
        n_read = 0
        while n is None or n_read < n:
            if n is None and self.data[self.place : self.place + 1] == b"}":
                self.take(1)
                break
            name = self.take(self.length()).decode()
            if name in values:
                raise ValueError(f"'{name}' stands in it twice")
            values[name] = self.value(kind or self.take(1), depth)
            n_read += 1
        return values
