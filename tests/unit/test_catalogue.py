"""The catalogue of models: ours says what the models' folders say, and a user's own is read with care."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from cellscribe.catalogue import COLUMNS, NotInCatalogueError, find_entry, read_catalogue
from cellscribe.model.manifest import model_sha256
from cellscribe.schema import parameters

ROOT = Path(__file__).parents[2]
OURS = ROOT / "assets" / "models.csv"
SHA = "ab" * 32


def rows() -> list[dict[str, str]]:
    with OURS.open(newline="") as handle:
        return list(csv.DictReader(handle))


def read(folder: Path, text: str, **options: str) -> tuple[list, list[str]]:
    path = folder / "mine.csv"
    path.write_text(text)
    problems: list[str] = []
    return read_catalogue(path, str(folder), problem=problems.append, **options), problems


# --- ours ---


def test_our_catalogue_has_every_column_filled_and_each_model_once() -> None:
    found = rows()
    assert tuple(found[0]) == COLUMNS
    assert all(value.strip() for row in found for value in row.values())
    assert len({(row["name"], row["version"]) for row in found}) == len(found)
    default = parameters(json.loads((ROOT / "nextflow_schema.json").read_text()))["model"]["default"]
    assert default in {row["name"] for row in found}


def test_our_catalogue_says_what_the_models_say_of_themselves() -> None:
    checked = 0
    for row in rows():
        folder = OURS.parent / row["url"]
        if not (folder / "manifest.json").is_file():
            assert "://" in row["url"]
            continue
        held = json.loads((folder / "manifest.json").read_text())
        assert [row[key] for key in ("name", "version", "organism", "licence")] == [
            held[key] for key in ("name", "version", "organism", "licence")
        ]
        assert row["sha256"] == model_sha256(folder)
        assert row["types"].split("; ") == [label["label"] for label in held["labels"]]
        assert float(row["held_out_accuracy"]) == held["evaluation"]["accuracy"]
        assert float(row["held_out_macro_f1"]) == held["evaluation"]["macro_f1"]
        checked += 1
    assert checked


# --- a user's own ---


def test_a_relative_url_is_relative_to_the_catalogue(tmp_path: Path) -> None:
    text = f"name,version,url,sha256\nlung,1.0,models/lung.zip,{SHA}\nfar,2,https://host.org/m.zip,\n"
    (lung, far), problems = read(tmp_path, text)
    assert problems == []
    assert lung.source == lung.url == f"{tmp_path}/models/lung.zip" and lung.sha256 == SHA
    assert far.source == "https://host.org/m.zip"
    (lung, _), _ = read(tmp_path, text, shown_folder="assets")
    assert (lung.source, lung.url) == (f"{tmp_path}/models/lung.zip", "assets/models/lung.zip")


def test_the_first_of_several_versions_is_meant_by_the_name_alone(tmp_path: Path) -> None:
    entries, _ = read(tmp_path, "name,version,url\nlung,2.0,b\nlung,1.0,a\n")
    assert find_entry("lung", entries).version == "2.0"
    assert find_entry("lung==1.0", entries).version == "1.0"


@pytest.mark.parametrize(
    ("named", "words"),
    [
        ("lnug", "did you mean 'lung'?"),
        ("zzz", "there are: lung"),
        ("lung==3.0", "in version '3.0'; there are: 2.0, 1.0"),
    ],
)
def test_what_is_not_there_is_told_with_what_is(tmp_path: Path, named: str, words: str) -> None:
    entries, _ = read(tmp_path, "name,version,url\nlung,2.0,b\nlung,1.0,a\n")
    with pytest.raises(NotInCatalogueError) as caught:
        find_entry(named, entries)
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("name,version,uri\nlung,1,a\n", "the column 'url' is missing; did you mean 'uri'?"),
        ("", "the column 'name' is missing"),
        ("name,version,url\nlu ng,1,a\n", "line 2, name: 'lu ng' may hold only"),
        ("name,version,url\nlung,1,a;b\n", "line 2, url: 'a;b' has a character"),
        ("name,version,url\nlung,1,\n", "line 2, url: ''"),
        ("name,version,url,sha256\nlung,1,a,123\n", "line 2, sha256: '123' must be 64"),
        ("name,version,url\nlist,1,a\n", "'list' means something else"),
        ("name,version,url\nlung,1,a\nlung,1,b\n", "line 3: 'lung==1' stands in it twice"),
        ('name,version,url\nlung,1,"a\n', "cannot be read as CSV"),
    ],
)
def test_what_is_wrong_with_a_row_is_told_with_its_line(tmp_path: Path, text: str, words: str) -> None:
    _, problems = read(tmp_path, text)
    assert any(words in problem for problem in problems), problems


@pytest.mark.parametrize("value", ["$(touch x)", "`touch x`", "a'b", "a\\b", "-rf", "a|b"])
def test_no_hostile_url_or_name_passes(tmp_path: Path, value: str) -> None:
    for text in (f"name,version,url\nlung,1,{value}\n", f"name,version,url\n{value},1,a\n"):
        entries, problems = read(tmp_path, text)
        assert entries == [] and problems
