"""A model's manifest: what is written can be read, and what was changed is noticed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from model_maker import FIELDS, make_model

from cellscribe.errors import ModelFetchError
from cellscribe.model.manifest import MANIFEST, model_sha256, read_manifest, verify_model, write_manifest


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return make_model(tmp_path / "model")


def change_manifest(model: Path, **changes: Any) -> None:
    manifest = json.loads((model / MANIFEST).read_text())
    (model / MANIFEST).write_text(json.dumps({**manifest, **changes}))


def test_a_written_manifest_lists_every_file_and_gives_back_the_fields(model: Path) -> None:
    manifest = verify_model(model)
    names = ["MLmodel", "code/model.py", "genes.tsv", "logistic.safetensors", "silent_genes.tsv"]
    assert sorted(manifest["files"]) == names
    assert manifest["files"]["genes.tsv"]["size"] == len("genes.tsv")
    assert {name: manifest[name] for name in FIELDS} == FIELDS
    assert (manifest["format"], manifest["format_version"]) == ("cellscribe-model", 1)


def test_the_same_model_has_the_same_sha256_and_another_has_another(tmp_path: Path, model: Path) -> None:
    again = make_model(tmp_path / "again")
    assert model_sha256(again) == model_sha256(model)
    (again / "genes.tsv").write_text("other")
    assert write_manifest(again, FIELDS) != model_sha256(model)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"kind": "forest"}, "kind"),
        ({"name": "../pbmc"}, "name"),
        ({"name": "pbmc\n"}, "name"),
        ({"organism": "cat"}, "organism"),
        ({"surprise": 1}, "surprise"),
        ({"members": [{"name": "magic", "parameters": {}}]}, "members.0.name"),
        ({"members": [{"name": "logistic", "parameters": {}}] * 2}, "named twice: logistic"),
        ({"labels": FIELDS["labels"][:1] * 2}, "named twice: T cell"),
        ({"levels": [{"name": "broad", "labels": {"T cell": "lymphocyte"}}]}, "B cell"),
        ({"training": {}}, "training"),
    ],
)
def test_a_field_that_does_not_fit_is_named_and_nothing_is_left(
    model: Path, change: dict[str, Any], named: str
) -> None:
    with pytest.raises(ValueError, match="does not fit") as caught:
        write_manifest(model, {**FIELDS, **change})
    assert named in str(caught.value)
    assert not (model / MANIFEST).exists()


def test_values_that_are_not_json_are_refused(model: Path) -> None:
    with pytest.raises(ValueError, match="JSON compliant"):
        write_manifest(model, {**FIELDS, "evaluation": {"accuracy": float("nan")}})


def test_a_newer_format_asks_for_a_newer_cellscribe(model: Path) -> None:
    change_manifest(model, format_version=2, unheard_of="yes")
    with pytest.raises(ModelFetchError, match="format version 2, newer than") as caught:
        read_manifest(model)
    assert "newer release" in caught.value.todo


@pytest.mark.parametrize(
    ("text", "seen"),
    [
        ("", "not valid JSON"),
        ('{"format": "cellscribe-model"', "not valid JSON"),
        ("[" * 200_000, "not valid JSON"),
        ('{"a": NaN}', "NaN is not JSON"),
        ('{"format": 1, "format": 2}', "a key stands in it twice"),
        ("[]", "expected 'cellscribe-model'"),
        ('{"format": "other"}', "format 'other'"),
        ('{"format": "cellscribe-model"}', "'name' is a required property"),
    ],
)
def test_a_broken_manifest_is_one_clear_error(model: Path, text: str, seen: str) -> None:
    (model / MANIFEST).write_text(text)
    with pytest.raises(ModelFetchError) as caught:
        read_manifest(model)
    assert seen in str(caught.value)
    assert str(model / MANIFEST) in str(caught.value)


def test_a_version_that_is_no_number_does_not_fit(model: Path) -> None:
    change_manifest(model, format_version="1")
    with pytest.raises(ModelFetchError, match="format_version: 1 was expected"):
        read_manifest(model)


@pytest.mark.parametrize(
    "name", ["../genes.tsv", "/etc/passwd", "a//b.json", "a\\b.json", "a\nb.json", MANIFEST]
)
def test_a_path_that_leads_out_of_the_model_is_refused(model: Path, name: str) -> None:
    files = json.loads((model / MANIFEST).read_text())["files"]
    change_manifest(model, files={**files, name: files["genes.tsv"]})
    with pytest.raises(ModelFetchError, match="not a relative path inside the model"):
        verify_model(model)


def test_a_changed_file_is_named_with_both_sha256(model: Path) -> None:
    expected = read_manifest(model)["files"]["genes.tsv"]["sha256"]
    (model / "genes.tsv").write_text("seneg.tsv")
    with pytest.raises(ModelFetchError, match=expected) as caught:
        verify_model(model)
    assert "genes.tsv" in str(caught.value.file)
    assert caught.value.todo


def test_a_truncated_file_is_named_with_both_sizes(model: Path) -> None:
    (model / "genes.tsv").write_text("gen")
    with pytest.raises(ModelFetchError, match="says 9 bytes, the file has 3"):
        verify_model(model)


def test_a_missing_file_is_named(model: Path) -> None:
    (model / "genes.tsv").unlink()
    with pytest.raises(ModelFetchError, match="but it is missing") as caught:
        verify_model(model)
    assert "genes.tsv" in str(caught.value.file)


def test_a_file_that_a_member_needs_must_be_in_the_model(model: Path) -> None:
    (model / "logistic.safetensors").unlink()
    write_manifest(model, FIELDS)
    with pytest.raises(ModelFetchError, match=r"logistic needs 'logistic\.safetensors'"):
        verify_model(model)


def test_a_file_that_is_not_listed_is_named(model: Path) -> None:
    (model / "extra.json").write_text("{}")
    with pytest.raises(ModelFetchError, match="does not list") as caught:
        verify_model(model)
    assert "extra.json" in str(caught.value.file)


@pytest.mark.parametrize(
    "name", ["m.pkl", "m.PKL", "m.joblib", "m.pt", "m.npy", "m.npz", "a.so", ".DS_Store", "run"]
)
def test_no_file_that_could_hold_code_may_be_in_a_model_even_if_listed(model: Path, name: str) -> None:
    (model / name).write_bytes(b"x")
    with pytest.raises(ModelFetchError, match="could run code"):
        verify_model(model)
    with pytest.raises(ModelFetchError, match="could run code"):
        write_manifest(model, FIELDS)


def test_a_link_out_of_the_model_is_refused(tmp_path: Path, model: Path) -> None:
    (tmp_path / "secret.txt").write_text("genes.tsv")
    (model / "genes.tsv").unlink()
    (model / "genes.tsv").symlink_to(tmp_path / "secret.txt")
    with pytest.raises(ModelFetchError, match="link to") as caught:
        verify_model(model)
    assert "cp -rL" in caught.value.todo


@pytest.mark.parametrize("target", [".", "..", "nowhere", "loop.json"])
def test_a_link_to_a_folder_or_to_nothing_is_refused(model: Path, target: str) -> None:
    (model / "loop.json").symlink_to(target)
    with pytest.raises(ModelFetchError, match="is a link to"):
        verify_model(model)


def test_a_link_to_a_file_of_the_model_is_read_as_that_file(model: Path) -> None:
    (model / "copy.tsv").symlink_to("genes.tsv")
    write_manifest(model, FIELDS)
    files = verify_model(model)["files"]
    assert files["copy.tsv"] == files["genes.tsv"]


def test_a_pipe_in_a_model_does_not_hang(model: Path) -> None:
    import os

    os.mkfifo(model / "pipe.json")
    with pytest.raises(ModelFetchError, match="not a plain file"):
        verify_model(model)
