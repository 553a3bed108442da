"""A model as one zip: the same bytes each time, and a model again when it is unpacked."""

import os
import shutil
import zipfile

import pytest
from small_model import small_model

from cellscribe.errors import ModelFetchError
from cellscribe.model.archive import archive_name, pack_model
from cellscribe.model.manifest import MANIFEST, model_sha256
from cellscribe.model.store import fetch_model


@pytest.fixture
def archive(tmp_path):
    return pack_model(small_model("logistic"), tmp_path / "small.zip")


def test_the_same_model_gives_the_same_bytes_whatever_its_dates_and_modes(archive, tmp_path):
    copy = shutil.copytree(small_model("logistic"), tmp_path / "copy", copy_function=shutil.copyfile)
    for path in copy.rglob("*"):
        os.utime(path, (1e9, 1e9))
    (copy / "MLmodel").chmod(0o600)
    assert pack_model(copy, tmp_path / "again.zip").read_bytes() == archive.read_bytes()


def test_mlmodel_lies_at_its_top_and_nothing_tells_of_the_machine(archive):
    with zipfile.ZipFile(archive) as opened:
        names = opened.namelist()
        assert names == sorted(names) and {"MLmodel", MANIFEST, "model_code.py"} <= set(names)
        assert {member.date_time for member in opened.infolist()} == {(1980, 1, 1, 0, 0, 0)}
        assert {member.external_attr >> 16 for member in opened.infolist()} == {0o100644}


def test_it_is_fetched_as_the_model_it_was_made_of(archive, tmp_path):
    assert fetch_model(archive, tmp_path / "store").name == model_sha256(small_model("logistic"))


def test_it_is_named_after_the_model_and_its_version():
    assert archive_name(small_model("logistic")) == "small-1.0.zip"


def test_a_damaged_folder_is_not_packed(tmp_path):
    copy = shutil.copytree(small_model("logistic"), tmp_path / "copy")
    (copy / "genes.tsv").write_text("")
    with pytest.raises(ModelFetchError, match=r"genes\.tsv"):
        pack_model(copy, tmp_path / "no.zip")
    assert not (tmp_path / "no.zip").exists()
