"""Files that are whole, the same each time, and readable by old programs."""

import errno
import gzip
import json
import os
from pathlib import Path

import anndata
import h5py
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from old_anndata import ANNDATA_0_8

from cellscribe.errors import InputError
from cellscribe.io import atomic_path, plain_columns, read_json, write_h5ad, write_json, write_table


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    target = tmp_path / "a.txt"
    target.write_text("old")
    with pytest.raises(RuntimeError), atomic_path(target) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]
    assert target.read_text() == "old"


def test_a_good_write_replaces_makes_folders_and_obeys_the_umask(tmp_path):
    target = tmp_path / "new" / "a.txt"
    before = os.umask(0o027)
    try:
        with atomic_path(target) as temporary:
            assert temporary.suffix == ".txt"
            temporary.write_text("new")
    finally:
        os.umask(before)
    assert target.read_text() == "new"
    assert target.stat().st_mode & 0o777 == 0o640


def test_json_is_sorted_and_takes_numpy_and_paths(tmp_path):
    write_json({"b": np.float32(0.5), "a": np.arange(2), "p": tmp_path}, tmp_path / "a.json")
    assert read_json(tmp_path / "a.json") == {"a": [0, 1], "b": 0.5, "p": str(tmp_path)}
    assert list(json.loads((tmp_path / "a.json").read_text())) == ["a", "b", "p"]


@pytest.mark.parametrize("value", [float("nan"), np.float32("inf"), object()])
def test_json_refuses_what_json_does_not_have(tmp_path, value):
    with pytest.raises((ValueError, TypeError)):
        write_json({"a": value}, tmp_path / "a.json")
    assert list(tmp_path.iterdir()) == []


def test_the_same_table_gives_the_same_bytes_gzipped_or_not(tmp_path):
    table = pd.DataFrame({"a": range(100), "b": ["x\ty", "z"] * 50})
    for name in ("t.tsv.gz", "t.tsv"):
        write_table(table, tmp_path / name)
        first = (tmp_path / name).read_bytes()
        write_table(table, tmp_path / name)
        assert (tmp_path / name).read_bytes() == first
    assert gzip.decompress((tmp_path / "t.tsv.gz").read_bytes()) == (tmp_path / "t.tsv").read_bytes()
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "t.tsv.gz", sep="\t"), table)


@pytest.fixture
def frame():
    return pd.DataFrame(
        {
            "text": pd.array(["a", None, "b"], dtype="string"),
            "category": pd.Categorical(["x", None, "y"]),
            "numbered": pd.Categorical([1, 2, 1]),
            "integer": pd.array([1, 2, 3], dtype="Int64"),
            "missing": pd.array([1, None, 3], dtype="Int64"),
            "boolean": pd.array([True, False, True], dtype="boolean"),
            "plain": np.array([0.1, 0.2, 0.3], dtype=np.float32),
            "mixed": [1, "a", None],
        },
        index=["c1", "c2", "c3"],
    )


def test_columns_become_types_that_every_reader_knows(frame):
    plain_columns(frame)
    assert frame["text"].tolist() == ["a", "", "b"]
    assert frame["mixed"].tolist() == ["1", "a", ""]
    assert frame["integer"].dtype == np.int64
    assert frame["boolean"].dtype == bool
    assert np.isnan(frame["missing"].to_numpy()[1]) and frame["missing"].dtype == np.float64
    assert frame["category"].isna().tolist() == [False, True, False]
    assert frame["numbered"].cat.categories.tolist() == [1, 2]
    assert frame["plain"].dtype == np.float32


def test_a_written_h5ad_has_only_encodings_of_anndata_0_8(frame, tmp_path):
    adata = anndata.AnnData(sp.csr_matrix(np.eye(3, dtype=np.float32)), obs=frame)
    write_h5ad(adata, tmp_path / "a.h5ad")
    with h5py.File(tmp_path / "a.h5ad") as file:
        seen = set()
        file.visititems(lambda _, node: seen.add(node.attrs.get("encoding-type", "array")))
        assert file["obs/text"].attrs["encoding-type"] == "string-array"
        assert file["obs/_index"].attrs["encoding-type"] == "string-array"
    assert seen <= ANNDATA_0_8
    back = anndata.read_h5ad(tmp_path / "a.h5ad")
    assert back.obs["text"].tolist() == ["a", "", "b"]
    assert (back.X != adata.X).nnz == 0


def test_text_that_a_spreadsheet_would_run_gets_a_quote_and_nothing_else_changes(tmp_path):
    hostile = ["=1+1", "+1", "-2+3", "@SUM(A1)", "\t=1", "\r=1", " =1", "＝1", "\n@x"]
    table = pd.DataFrame(
        {
            "text": [*hostile, "a=b", "CD4+ T cell", "", "'x"],
            "kind": pd.Categorical(["=x", "y"] * 6 + ["=x"]),
            "number": np.arange(13) - 6.5,
            "whole": np.arange(13) - 6,
            "=head": ["a"] * 13,
        }
    )
    before = table.copy()
    write_table(table, tmp_path / "t.tsv")
    pd.testing.assert_frame_equal(table, before)
    back = pd.read_csv(tmp_path / "t.tsv", sep="\t", keep_default_na=False)
    assert back["text"].tolist()[:9] == [f"'{text}" for text in hostile]
    assert back["text"].tolist()[9:] == ["a=b", "CD4+ T cell", "", "'x"]
    assert back["kind"].tolist()[:2] == ["'=x", "y"]
    assert back["number"].tolist() == before["number"].tolist()
    assert back["whole"].tolist() == before["whole"].tolist()
    assert list(back)[-1] == "'=head"


def test_text_with_nul_is_written_without_it(tmp_path):
    obs = pd.DataFrame({"a": ["x\0", "y"], "b": pd.Categorical(["p\0", "p"])}, index=["c\0", "d"])
    write_h5ad(anndata.AnnData(obs=obs), tmp_path / "a.h5ad")
    back = anndata.read_h5ad(tmp_path / "a.h5ad").obs
    assert (list(back.index), list(back["a"]), list(back["b"])) == (["c", "d"], ["x", "y"], ["p", "p"])


def test_a_device_a_pipe_or_a_folder_is_never_written_over(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    (tmp_path / "null").symlink_to(os.devnull)
    for target in (tmp_path / "pipe", tmp_path / "folder", tmp_path / "null", Path("/dev/full")):
        before = target.lstat().st_mode
        with pytest.raises(InputError, match="no plain file"):
            write_json({}, target)
        assert target.lstat().st_mode == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folder", "null", "pipe"]


def test_what_is_open_as_standard_output_is_not_replaced(tmp_path):
    with (tmp_path / "out.txt").open("w") as file:
        link = tmp_path / "stdout"
        link.symlink_to(f"/proc/self/fd/{file.fileno()}")
        with pytest.raises(InputError):
            write_json({}, link)
        assert link.is_symlink()


def test_a_link_to_a_plain_file_is_replaced_and_the_file_stays(tmp_path):
    (tmp_path / "theirs.json").write_text("theirs")
    (tmp_path / "mine.json").symlink_to("theirs.json")
    write_json(1, tmp_path / "mine.json")
    assert (tmp_path / "theirs.json").read_text() == "theirs"
    assert (tmp_path / "mine.json").read_text() == "1\n"


def test_a_full_disk_names_the_file_that_was_written_and_leaves_nothing(tmp_path):
    with (
        pytest.raises(OSError, match="No space left") as caught,
        atomic_path(tmp_path / "a.h5ad") as temporary,
    ):
        temporary.write_text("half")
        raise OSError(errno.ENOSPC, "No space left on device")
    assert caught.value.filename == str(tmp_path / "a.h5ad")
    assert list(tmp_path.iterdir()) == []
