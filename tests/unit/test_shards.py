"""A sample mapped in parts is as one that was mapped at once."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import h5py
import numpy as np
import pytest
from small_model import simulate, small_counts, small_mapping, small_model, write_counts

from cellscribe.counts_file import CHUNK_ROWS, open_counts
from cellscribe.errors import InputError
from cellscribe.mapping import run_map
from cellscribe.shards import run_gather, shard_rows


def parts_of(folder: Path, *bounds: int, kind: str = "consensus", counts: Path | None = None) -> list[Path]:
    """The mappings of the rows between each two bounds."""
    made = []
    for start, stop in itertools.pairwise(bounds):
        made.append(folder / f"s1.{start}-{stop}.mapping.h5ad")
        run_map(counts or small_counts(), small_model(kind), made[-1], rows=(start, stop))
    return made


def content(path: Path) -> dict[str, object]:
    """Every array of a file with its type, and every attribute."""
    found: dict[str, object] = {}

    def look(name: str, item: h5py.Group | h5py.Dataset) -> None:
        found[f"{name} attributes"] = {key: np.asarray(value).tolist() for key, value in item.attrs.items()}
        if isinstance(item, h5py.Dataset):
            found[name] = (
                item.dtype.str,
                item.shape,
                item.compression,
                item.chunks,
                np.asarray(item[()]).tolist(),
            )

    with h5py.File(path) as file:
        look("/", file)
        file.visititems(look)
    return found


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return parts_of(tmp_path_factory.mktemp("parts"), 0, 40, 80, 90)


def test_some_rows_of_a_counts_file_are_those_rows() -> None:
    whole, some = open_counts(small_counts()), open_counts(small_counts(), (31, 58))
    ((_, matrix),) = whole.chunks()
    read = list(some.chunks(10))
    assert [rows for rows, _ in read] == [slice(0, 10), slice(10, 20), slice(20, 27)]
    assert some.n_obs == 27 and list(some.obs.index) == list(whole.obs.index[31:58])
    for rows, chunk in read:
        assert (chunk != matrix[31 + rows.start : 31 + rows.stop]).nnz == 0


@pytest.mark.parametrize("rows", [(0, 91), (-1, 5), (5, 5), (90, 91)])
def test_rows_that_are_not_there_are_refused(rows: tuple[int, int]) -> None:
    with pytest.raises(InputError, match="file of 90 cells"):
        open_counts(small_counts(), rows)


@pytest.mark.parametrize("kind", ["consensus", "logistic"])
def test_parts_in_any_order_become_the_mapping_of_the_whole_sample(kind: str, tmp_path: Path) -> None:
    first, second, third = parts_of(tmp_path, 0, 40, 80, 90, kind=kind)
    run_gather([third, first, second], tmp_path / "s1.mapping.h5ad")
    assert content(tmp_path / "s1.mapping.h5ad") == content(small_mapping(kind))


@pytest.mark.parametrize(
    ("kept", "seen"),
    [((1, 2), "rows 0:40 .* missing"), ((0, 2), "rows 40:80 .* missing"), ((0, 1), "rows 80:90 .* missing")],
)
def test_a_missing_part_is_told(parts: list[Path], kept: tuple[int, ...], seen: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=seen):
        run_gather([parts[i] for i in kept], tmp_path / "m.h5ad")
    assert list(tmp_path.iterdir()) == []


def test_a_part_that_is_there_twice_is_told(parts: list[Path], tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"rows 0:40 .* twice"):
        run_gather([*parts, parts[0]], tmp_path / "m.h5ad")
    (overlapping,) = parts_of(tmp_path, 70, 90)
    with pytest.raises(InputError, match=r"rows 70:80 .* twice"):
        run_gather([*parts[:2], overlapping], tmp_path / "m.h5ad")


def test_parts_of_two_models_of_other_genes_or_of_two_samples_are_not_joined(
    parts: list[Path], tmp_path: Path
) -> None:
    (other,) = parts_of(tmp_path, 80, 90, kind="logistic")
    with pytest.raises(InputError, match="another model"):
        run_gather([*parts[:2], other], tmp_path / "m.h5ad")
    fewer = write_counts(simulate(90, seed=1)[:, 3:].copy(), tmp_path / "fewer.h5ad")
    with pytest.raises(InputError, match="other genes"):
        run_gather([*parts[:2], *parts_of(tmp_path, 80, 90, counts=fewer)], tmp_path / "m.h5ad")
    with pytest.raises(InputError, match="of 95 cells"):
        run_gather([*parts[:2], *parts_of(tmp_path, 80, 95, counts=small_counts(95))], tmp_path / "m.h5ad")


def test_what_is_no_part_is_refused(parts: list[Path], tmp_path: Path) -> None:
    for path in (small_mapping("consensus"), small_counts()):
        with pytest.raises(InputError, match="no part of a mapping"):
            run_gather([path], tmp_path / "m.h5ad")
    broken = tmp_path / "broken.h5ad"
    broken.write_bytes(parts[0].read_bytes())
    with h5py.File(broken, "r+") as file:
        file["uns/shard"][()] = json.dumps({"start": 0, "stop": 50, "n_cells": 90})
    with pytest.raises(InputError, match="said to hold"):
        run_gather([broken, *parts[1:]], tmp_path / "m.h5ad")
    with pytest.raises(InputError, match="no part to join"):
        run_gather([], tmp_path / "m.h5ad")


def test_a_shard_is_of_whole_chunks_where_it_is_of_more_than_one() -> None:
    asked = (None, 1, CHUNK_ROWS, CHUNK_ROWS + 1, 1_000_000)
    assert [shard_rows(cells) for cells in asked] == [None, 1, CHUNK_ROWS, 2 * CHUNK_ROWS, 489 * CHUNK_ROWS]
