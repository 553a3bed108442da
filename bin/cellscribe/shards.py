"""GATHER: the parts of a sample that were mapped by themselves, as the one mapping that MAP would have written."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cellscribe.cli import log
from cellscribe.counts_file import CHUNK_ROWS, Shard
from cellscribe.errors import InputError
from cellscribe.io import atomic_path

if TYPE_CHECKING:
    import h5py

ROWWISE = ("obs", "obsm")
_AGAIN = "Map the sample again, without -resume."


@dataclass(frozen=True)
class Part:
    """A part's file, the rows in it, and what it says of the model and the genes, as it is written."""

    path: Path
    shard: Shard
    info: str


def shard_rows(cells: int | None) -> int | None:
    """How many cells a shard has where the user asked for `cells`: whole chunks, where it has more than one.

    A chunk then holds the same cells with and without shards, so that both give the same numbers to the last bit, on
    every machine.
    """
    if cells is None or cells <= CHUNK_ROWS:
        return cells
    return -(-cells // CHUNK_ROWS) * CHUNK_ROWS


def run_gather(parts: Iterable[Path], output: Path) -> None:
    """Join the parts of a sample's mapping, in any order. Memory holds one array of one part at a time.

    Raises InputError where one is no such part, where they are not of one model and the same genes, or where they
    are not each row once.
    """
    found = sorted((read_part(path) for path in parts), key=lambda part: part.shard.start)
    check_parts(found)
    with atomic_path(output) as temporary:
        _join(found, temporary)
    log(f"{found[0].shard.n_cells:,} cells joined from {len(found)} parts")


def read_part(path: Path) -> Part:
    """What a part says of itself. Raises InputError for any other file."""
    import h5py

    try:
        with h5py.File(path, "r") as file:
            shard = Shard(**json.loads(file["uns/shard"].asstr()[()]))
            if len(file["obs"][file["obs"].attrs["_index"]]) != shard.stop - shard.start:
                raise InputError("it does not hold the rows that it is said to hold", _AGAIN, file=path)
            return Part(path, shard, file["uns/mapping"].asstr()[()])
    except (OSError, KeyError) as error:
        raise InputError(
            f"this is no part of a mapping, as map.py --rows writes it ({error})", _AGAIN, file=path
        ) from error


def check_parts(parts: list[Part]) -> None:
    """Whether these parts, sorted, are one sample's whole mapping by one model. Raises InputError."""
    if not parts:
        raise InputError("there is no part to join", "Give each with --part.")
    first, row = parts[0], 0
    for part in parts:
        if json.loads(part.info)["model_sha256"] != json.loads(first.info)["model_sha256"]:
            raise InputError(f"it was mapped by another model than {first.path.name}", _AGAIN, file=part.path)
        if part.info != first.info:
            raise InputError(
                f"it was mapped on other genes or with other options than {first.path.name}",
                _AGAIN,
                file=part.path,
            )
        if part.shard.n_cells != first.shard.n_cells:
            raise InputError(
                f"it is a part of {part.shard.n_cells} cells, and {first.path.name} of {first.shard.n_cells}",
                _AGAIN,
                file=part.path,
            )
        if part.shard.start != row:
            seen = "missing" if part.shard.start > row else "there twice"
            low, high = sorted((row, part.shard.start))
            raise InputError(f"rows {low}:{high} of the sample are {seen}", _AGAIN, file=part.path)
        row = part.shard.stop
    if row != first.shard.n_cells:
        raise InputError(f"rows {row}:{first.shard.n_cells} of the sample are missing", _AGAIN)


def _join(parts: list[Part], target: Path) -> None:
    import h5py

    with h5py.File(target, "w") as joined:
        for part in parts:
            with h5py.File(part.path, "r") as file:
                if part is parts[0]:
                    _prepare(file, joined, part.shard.n_cells)
                for place in ROWWISE:
                    for name in joined[place]:
                        joined[place][name][part.shard.start : part.shard.stop] = file[place][name][:]


def _prepare(part: h5py.File, joined: h5py.File, n_cells: int) -> None:
    """All that is not of cells as it is in a part, and the arrays of all cells, still empty."""
    joined.attrs.update(part.attrs)
    for key in part:
        if key not in ROWWISE:
            part.copy(key, joined)
            continue
        joined.create_group(key).attrs.update(part[key].attrs)
        for name, rows in part[key].items():
            made = joined[key].create_dataset(
                name,
                (n_cells, *rows.shape[1:]),
                rows.dtype,
                compression=rows.compression,
                compression_opts=rows.compression_opts,
                shuffle=rows.shuffle,
            )
            made.attrs.update(rows.attrs)
    del joined["uns/shard"]
