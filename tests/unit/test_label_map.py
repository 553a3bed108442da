"""Tables of labels: what they mean, and what they shall be called."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from cellscribe.errors import InputError
from cellscribe.label_map import check_meanings, read_label_map, renamed, tell_unknown
from cellscribe.truth_match import relate

MODEL = {"Monocyte": "CL:0000576", "B cell": "CL:0000236"}


def written(folder: Path, text: str) -> Path:
    path = folder / "map.csv"
    path.write_bytes(text.encode())
    return path


@pytest.mark.parametrize("parted", [",", "\t", ";"])
def test_a_map_is_read_whatever_parts_its_columns(tmp_path: Path, parted: str) -> None:
    rows = ("\ufefflabel,meaning,note", " MNP , Monocyte,", "B1,CL:0000236,x", "later,,")
    path = written(tmp_path, "\n".join(rows).replace(",", parted) + "\n")
    # A row that says nothing yet is no row.
    assert read_label_map(path, "meaning") == {"MNP": "Monocyte", "B1": "CL:0000236"}


def test_a_separator_at_the_end_of_each_row_and_a_map_without_rows_are_read(tmp_path: Path) -> None:
    assert read_label_map(written(tmp_path, "label,meaning\nMNP,Monocyte,\n"), "meaning") == {
        "MNP": "Monocyte"
    }
    assert read_label_map(written(tmp_path, "label,meaning\n"), "meaning") == {}


def test_a_label_with_a_comma_is_quoted(tmp_path: Path) -> None:
    path = written(tmp_path, 'label,meaning\n"CD4, naive",B cell\n')
    assert read_label_map(path, "meaning") == {"CD4, naive": "B cell"}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "the columns are none; label and meaning are needed"),
        ('label,meaning\n"MNP,Monocyte\n', "no table"),
        ("label,meaning\nT cells, CD4,CL:0000624\n", "row 2 has more values than the 2 columns"),
        ("label,cl_id\nMNP,CL:0000576\n", "the columns are label, cl_id; label and meaning are needed"),
        ("MNP,Monocyte\n", "the columns are MNP, Monocyte; label and meaning are needed"),
        ("label,meaning\nMNP,Monocyte\nMNP,B cell\n", "1 of its labels is named more than once: 'MNP'"),
        ("label,meaning\nB,C\nD,E,F,G\n", "row 3 has more values than the 2 columns"),
        ("label,meaning\n,Monocyte\n", "a row without a label has the meaning 'Monocyte'"),
    ],
)
def test_what_is_no_such_map_is_told(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(InputError) as caught:
        read_label_map(written(tmp_path, text), "meaning")
    assert words in str(caught.value) and "map.csv" in str(caught.value)


def test_a_meaning_is_a_label_of_the_model_or_a_term(tmp_path: Path) -> None:
    check_meanings(
        {"a": "monocytes", "b": "CL:0000576", "c": "hepatocyte"}, list(MODEL), tmp_path / "map.csv"
    )
    with pytest.raises(InputError) as caught:
        check_meanings({"a": "B cell", "b": "Monocite", "c": "CL:9999999"}, list(MODEL), tmp_path / "map.csv")
    said = str(caught.value)
    assert "'Monocite' (of 'b'; did you mean 'Monocyte'?)" in said and "'CL:9999999' (of 'c')" in said
    assert "map.csv" in said and "'B cell'" not in said.split("Write", maxsplit=1)[0]


def test_words_count_by_what_they_mean_and_by_themselves_where_nothing_is_said() -> None:
    found = relate(
        ["MNP", "mature B", "B cell"], MODEL, meanings={"MNP": "CL:0000860", "mature B": "b cells"}
    )
    assert found.cl_ids == ["CL:0000860", "CL:0000236", "CL:0000236"]
    assert found.same.tolist() == [[False, False], [False, True], [False, True]]
    assert found.broader.tolist() == [[True, False], [False, False], [False, False]]


def test_a_label_of_which_nothing_is_said_is_kept_where_that_says_something(tmp_path: Path) -> None:
    path = written(tmp_path, "label,name\nDC,Dendritic cell\n\ndebris,\n,\n")
    assert read_label_map(path, "name", keep_blank=True) == {"DC": "Dendritic cell", "debris": ""}
    assert read_label_map(path, "name") == {"DC": "Dendritic cell"}
    with pytest.raises(InputError, match="a row without a label has the name 'Dendritic cell'"):
        read_label_map(written(tmp_path, "label,name\n,Dendritic cell\n"), "name", keep_blank=True)


def test_labels_are_called_by_their_new_names(capsys: pytest.CaptureFixture[str]) -> None:
    labels = np.array(["DC", " pDC", "debris", "NK", "unknown", "DC"], dtype=object)
    names = {"DC": "Dendritic cell", "pDC": "Dendritic cell", "debris": ""}
    found = renamed(labels, names, "one.h5ad")
    assert found.tolist() == ["Dendritic cell", "Dendritic cell", "", "NK", "unknown", "Dendritic cell"]
    said = capsys.readouterr().err
    assert "one.h5ad: 1 cell left out, as --label_map has no name for 'debris'" in said
    assert "one.h5ad: --label_map does not list 'NK': kept as they are" in said


def test_labels_that_no_cell_has_are_told_of(capsys: pytest.CaptureFixture[str]) -> None:
    tell_unknown("--label_map", ["NK cells", "DC"], ["DC", "NK cell"])
    said = capsys.readouterr().err
    assert (
        said.count("\n") == 1
        and "--label_map: no cell has the label 'NK cells'" in said
        and "'NK cell'" in said
    )
