"""Putting a model into the store. Obtaining one without Nextflow: tests/cli/test_annotate_one.py."""

from __future__ import annotations

from pathlib import Path

import pytest
from model_maker import make_model
from small_model import small_model

from cellscribe.errors import ModelFetchError
from cellscribe.model.archive import pack_model
from cellscribe.model.manifest import file_sha256, model_sha256
from cellscribe.obtain import put_into_store


def test_a_model_is_kept_by_its_sha256_and_found_by_its_archives(tmp_path: Path) -> None:
    model = small_model("logistic")
    archive = pack_model(model, tmp_path / "small.zip")
    kept = put_into_store(str(archive), tmp_path / "store", archives=tmp_path / "archives")
    assert kept == tmp_path / "store" / model_sha256(model)
    note = tmp_path / "archives" / f"{file_sha256(archive)}.archive"
    assert note.read_text().strip() == kept.name


def test_nothing_is_left_of_a_model_that_cannot_be_used_and_its_own_file_is_named(tmp_path: Path) -> None:
    model = make_model(tmp_path / "tiny")
    with pytest.raises(ModelFetchError) as caught:
        put_into_store(str(model), tmp_path / "store", archives=tmp_path / "archives")
    assert Path(str(caught.value.file)).is_relative_to(model)
    assert list((tmp_path / "store").iterdir()) == [] and not (tmp_path / "archives").exists()
