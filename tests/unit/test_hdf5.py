"""HDF5 files that lead elsewhere, hold themselves, or say that they hold what they do not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import anndata as ad
import h5py
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from tenx_files import barcodes, small_counts, write_h5_v3

from cellscribe.convert import ConvertOptions, run_convert
from cellscribe.errors import InputError
from cellscribe.h5ad_input import read_h5ad
from cellscribe.hdf5 import offsets

COUNTS = small_counts(5)


@pytest.fixture
def h5ad(tmp_path: Path) -> Path:
    cells = ad.AnnData(
        sp.csc_matrix(COUNTS, dtype=np.float32), obs=pd.DataFrame({"a": ["x"] * 5}, index=barcodes(5))
    )
    cells.write_h5ad(tmp_path / "in.h5ad")
    return tmp_path / "in.h5ad"


@pytest.fixture
def h5(tmp_path: Path) -> Path:
    return write_h5_v3(tmp_path / "in.h5", COUNTS)


def converted(path: Path) -> dict[str, object]:
    out = path.parent / "out"
    return run_convert(ConvertOptions("s", path, out / "s.h5ad", out / "s.json"))


def refused(path: Path, change: Callable[[h5py.File], None], pattern: str) -> None:
    with h5py.File(path, "r+") as file:
        change(file)
    with pytest.raises(InputError, match=pattern) as caught:
        converted(path)
    assert caught.value.file == path and caught.value.todo
    assert not (path.parent / "out").exists()


def instead(place: str, make: Callable[[h5py.File], None]) -> Callable[[h5py.File], None]:
    def change(file: h5py.File) -> None:
        del file[place]
        make(file)

    return change


def virtual(place: str, source: str) -> Callable[[h5py.File], None]:
    layout = h5py.VirtualLayout((5,), "i8")
    layout[:] = h5py.VirtualSource(source, "/secret", (5,))
    return instead(place, lambda file: file.create_virtual_dataset(place, layout))


def test_no_other_file_of_the_machine_comes_into_the_cells(h5: Path, h5ad: Path, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(b"password" * 10)
    with h5py.File(tmp_path / "other.h5", "w") as other:
        other["secret"] = np.arange(5)
    for path, place in ((h5, "matrix/barcodes"), (h5ad, "obs/a")):
        whole = path.read_bytes()
        changes = {
            "link to another file": instead(
                place,
                lambda f, p=place: f.__setitem__(p, h5py.ExternalLink(tmp_path / "other.h5", "/secret")),
            ),
            "keeps its data in another file": instead(
                place, lambda f, p=place: f.create_dataset(p, (5,), "S16", external=[(str(secret), 0, 80)])
            ),
        }
        for pattern, change in changes.items():
            refused(path, change, pattern)
            path.write_bytes(whole)
        refused(path, virtual(place, str(tmp_path / "other.h5")), "keeps its data in another file")


@pytest.mark.parametrize("shape", [(2**40,), (2**62,), (10**9,), (5, 2**40)])
def test_what_a_file_only_says_that_it_holds_is_never_made_room_for(
    h5: Path, h5ad: Path, shape: tuple[int, ...]
) -> None:
    for path, place in ((h5, "matrix/indptr"), (h5ad, "X/indptr"), (h5ad.with_name("b.h5ad"), "obs/_index")):
        if not path.exists():
            ad.AnnData(sp.csr_matrix(COUNTS, dtype=np.float32)).write_h5ad(path)
        chunks = tuple(min(size, 1000) for size in shape)
        change = instead(place, lambda f, p=place, c=chunks: f.create_dataset(p, shape, "i8", chunks=c))
        refused(path, change, "is said to hold .* bytes, and 0 are there")


def test_a_part_of_a_gigabyte_is_not_unpacked(h5: Path) -> None:
    huge = instead("matrix/data", lambda f: f.create_dataset("matrix/data", (2**31,), "i8", chunks=(2**28,)))
    refused(h5, huge, "bytes")


def test_a_matrix_of_a_dimension_that_the_tables_have_not_is_not_turned(h5ad: Path) -> None:
    for shape in ((2**40, 6), (5, 2**40), (-1, 6), (5, 6, 7)):
        refused(
            h5ad, lambda f, s=shape: f["X"].attrs.__setitem__("shape", np.array(s)), r"numbers, but|cannot"
        )


@pytest.mark.parametrize("index", [-1, 5, 10**6, 2**31 - 1])
def test_an_index_out_of_the_matrix_never_reaches_compiled_code(h5ad: Path, index: int) -> None:
    def change(file: h5py.File) -> None:
        file["X/indices"][3] = index

    refused(h5ad, change, "index")
    with pytest.raises(InputError, match="index"):
        read_h5ad(h5ad)


@pytest.mark.parametrize(
    "values", [[0, 3, 2], [1, 2], [0.0, 1.5], [np.nan, 1.0], [], [[0, 1]], ["0", "1"], [2**63, 1]]
)
def test_offsets_that_do_not_ascend_from_0_are_refused(values: list[object]) -> None:
    with pytest.raises(ValueError, match="offsets must"):
        offsets(np.array(values))


def test_offsets_without_sign_that_go_back_are_seen() -> None:
    with pytest.raises(ValueError, match="ascend"):
        offsets(np.array([0, 5, 3], dtype=np.uint64))
    assert offsets(np.array([0, 2, 2], dtype=np.uint8)).dtype == np.int64


def doubling(file: h5py.File) -> None:
    """Forty groups, each twice in the one above it: a trillion ways down."""
    below = file.create_group("bottom")
    for level in range(40):
        above = file.create_group(f"level{level}")
        above["a"] = above["b"] = below
        below = above
    del file["obs/a"]
    file["obs/a"] = below
    below.attrs["encoding-type"] = "dict"


def test_a_table_that_holds_itself_or_doubles_is_refused_at_once(h5ad: Path) -> None:
    whole = h5ad.read_bytes()
    refused(h5ad, doubling, "no column of a table|no list of values")
    h5ad.write_bytes(whole)
    refused(
        h5ad,
        instead("obs/a", lambda f: f["obs"].__setitem__("a", f["obs"])),
        "no column of a table|no list of values",
    )
    h5ad.write_bytes(whole)
    refused(h5ad, lambda f: f["obs"].attrs.__setitem__("encoding-type", "dict"), "is no table")


def test_a_long_list_in_the_place_of_a_group_is_not_searched_one_by_one(h5: Path, h5ad: Path) -> None:
    import time

    def long_list(place: str) -> Callable[[h5py.File], None]:
        def change(file: h5py.File) -> None:
            if place in file:
                del file[place]
            packed = file.create_dataset(place, (10_000_000,), "u1", chunks=(5_000_000,), compression="gzip")
            packed[:] = np.zeros(10_000_000, dtype="u1")

        return change

    started = time.process_time()
    refused(h5, long_list("matrix"), "no Cell Ranger matrix")
    with h5py.File(h5ad, "r+") as file:
        long_list("layers")(file)
    assert read_h5ad(h5ad).matrix.shape == (5, 6)
    refused(h5ad, long_list("obs"), "cannot be read")
    assert time.process_time() - started < 20


def test_a_file_in_which_the_library_dies_or_never_ends_is_an_error_and_ends_no_process(
    h5: Path, h5ad: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import os
    import signal
    import time

    from cellscribe import hdf5

    monkeypatch.setattr(hdf5, "SECONDS", 0.5)
    monkeypatch.setattr(hdf5, "_read_all_but_numbers", lambda _: os.kill(os.getpid(), signal.SIGKILL))
    refused(h5, lambda _: None, "ends with signal 9")
    monkeypatch.setattr(hdf5, "_read_all_but_numbers", lambda _: time.sleep(60))
    refused(h5ad, lambda _: None, "does not come to an end")


def test_names_that_hdf5_cannot_hold_are_written_without_what_it_cannot(tmp_path: Path) -> None:
    path = write_h5_v3(tmp_path / "in.h5", COUNTS)
    with h5py.File(path, "r+") as file:
        del file["matrix/barcodes"], file["matrix/features/name"]
        file["matrix/barcodes"] = np.array([f"a\0b{i}".encode() for i in range(5)], dtype="S8")
        file["matrix/features/name"] = np.array([f"G\0{i}".encode() for i in range(6)], dtype="S8")
    converted(path)
    written = ad.read_h5ad(tmp_path / "out" / "s.h5ad")
    assert list(written.obs_names) == [f"ab{i}" for i in range(5)]
    assert list(written.var["gene_symbols"]) == [f"G{i}" for i in range(6)]


def test_columns_of_any_name_and_kind_are_written_or_told(tmp_path: Path) -> None:
    cells = ad.AnnData(sp.csr_matrix(COUNTS, dtype=np.float32))
    cells.obs_names = barcodes(5)
    cells.write_h5ad(tmp_path / "in.h5ad")
    with h5py.File(tmp_path / "in.h5ad", "r+") as file:
        obs, names = file["obs"], ["..", ".", "x\\y", "complex"]
        for name in ("x\\y",):
            obs[name] = np.arange(5)
        obs["complex"] = np.arange(5) + 1j
        for name in ("x\\y", "complex"):
            obs[name].attrs.update({"encoding-type": "array", "encoding-version": "0.2.0"})
        obs.attrs["column-order"] = names[2:]
    report = converted(tmp_path / "in.h5ad")
    assert any("left out: complex" in warning for warning in report["warnings"])  # type: ignore[attr-defined]
    assert "x\\y" in ad.read_h5ad(tmp_path / "out" / "s.h5ad").obs
