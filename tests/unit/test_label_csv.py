"""Labels of cells in a table of their own."""

from __future__ import annotations

import gzip
from pathlib import Path

import pandas as pd
import pytest
from small_model import simulate

from cellscribe.errors import InputError
from cellscribe.label_csv import read_label_csv, with_labels
from cellscribe.training.reference import read_reference

# As the server of cellxgene 1.3.0 writes it.
EXPLORER = """# Annotations generated on 2026-11-24T09:00:00 using cellxgene version 1.3.0
# Input data file was /data/s1.annotated.h5ad, which was last modified on 2026-11-24T08:00:00
index,mine,other
CELL0000-1,T cell #2,unassigned
CELL0001-1,"B cell, naive",3
CELL0002-1,unassigned,NA
"""


@pytest.fixture
def write(tmp_path: Path):
    def _write(text: str | bytes, name: str = "labels.csv") -> Path:
        path = tmp_path / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return _write


def test_what_explorer_writes_is_read_as_text_by_cell(write) -> None:
    table = read_label_csv(write(EXPLORER))
    assert list(table.columns) == ["mine", "other"]
    assert table["mine"].to_dict() == {
        "CELL0000-1": "T cell #2",
        "CELL0001-1": "B cell, naive",
        "CELL0002-1": "unassigned",
    }
    assert table["other"].tolist() == ["unassigned", "3", "NA"]


@pytest.mark.parametrize(
    "text",
    [
        "\ufeffbarcode;mine\r\nA;T cell\r\nB;B cell\r\n",
        "barcode\tmine\nA\tT cell\nB\tB cell\n",
        gzip.compress(b"# a comment\nbarcode,mine\nA,T cell\nB,B cell\n", mtime=0),
    ],
)
def test_what_a_spreadsheet_makes_of_it_is_read_too(write, text: str | bytes) -> None:
    assert read_label_csv(write(text))["mine"].to_dict() == {"A": "T cell", "B": "B cell"}


@pytest.mark.parametrize(
    ("text", "seen"),
    [
        ("", "it is empty: CELLxGENE Explorer writes it when"),
        ("# only\n# comments\n", "it is empty"),
        ("barcode\nA\nB\n", "there is one column only"),
        ("barcode,mine\nA,x\nB,y\nA,z\n", "1 cells are named more than once: 'A'"),
        ('barcode,mine\nA,"x\n', "this is no table of labels"),
        (b"\x89HDF\r\n\x1a\n", "this is no table of labels"),
        (b"\x1f\x8bnothing", "this is no table of labels"),
    ],
)
def test_what_is_no_such_table_is_an_error_that_names_it(write, text: str | bytes, seen: str) -> None:
    with pytest.raises(InputError, match=seen) as caught:
        read_label_csv(write(text))
    assert "labels.csv" in str(caught.value)


def test_the_tables_columns_stand_in_obs_and_cells_that_it_lacks_have_none() -> None:
    obs = pd.DataFrame({"mine": ["a", "b", "c"], "n": [1, 2, 3]}, index=["x", "y", "z"])
    table = pd.DataFrame({"mine": ["B", "A"]}, index=["y", "x"])
    assert with_labels(obs, table).to_dict("list") == {"n": [1, 2, 3], "mine": ["A", "B", ""]}


# --- as the labels of a reference ---


@pytest.fixture
def references(tmp_path: Path) -> list[Path]:
    paths = []
    for i, name in enumerate(("one", "two")):
        cells = simulate(60, seed=i)
        cells.obs_names = [f"{name}_{barcode}" for barcode in cells.obs_names]
        paths.append(tmp_path / f"{name}.h5ad")
        cells.write_h5ad(paths[-1])
    return paths


def labels_csv(*names: str, n: int = 60) -> str:
    """Every cell is 'odd' or 'even', the first two have no label and the last is not named."""
    rows = [f"{name}_CELL{i:04d}-1,{('even', 'odd')[i % 2]}" for name in names for i in range(2, n - 1)]
    first = [f"{name}_CELL{i:04d}-1,{label}" for name in names for i, label in enumerate(("unassigned", ""))]
    return "# a comment\nindex,mine\n" + "\n".join(first + rows) + "\n"


def test_one_table_labels_several_references(references: list[Path], write) -> None:
    read = read_reference(references, "mine", label_csv=[write(labels_csv("one", "two"))], batch_key="donor")
    assert read.names == ["even", "odd"]
    assert len(read.labels) == 2 * 57 and read.n_unlabelled == 2 * 3
    assert read.labels[:3].tolist() == ["even", "odd", "even"]
    assert read.sources == ["one.h5ad", "two.h5ad", "labels.csv"]
    cells = simulate(60, seed=0)
    assert abs(read.counts[:57] - cells.X[2:59]).max() == 0


def test_each_reference_may_have_a_table_of_its_own(references: list[Path], write) -> None:
    tables = [write(labels_csv("one"), "1.csv"), write(labels_csv("two"), "2.csv")]
    assert len(read_reference(references, "mine", label_csv=tables).labels) == 2 * 57
    with pytest.raises(InputError, match=r"59 of its 59 cells are not in one\.h5ad: 'two_CELL0000-1'"):
        read_reference(references, "mine", label_csv=tables[::-1])


def test_cells_that_the_reference_does_not_have_are_an_error_that_names_some(references, write) -> None:
    table = write(labels_csv("one") + "one_CELL9999-1,odd\nx,odd\n")
    with pytest.raises(InputError, match=r"2 of its 61 cells are not in one\.h5ad: 'one_CELL9999-1', 'x'"):
        read_reference(references[:1], "mine", label_csv=[table])


def test_one_table_for_references_that_share_a_cells_name_is_an_error(references, write) -> None:
    twin = references[0].with_name("twin.h5ad")
    twin.write_bytes(references[0].read_bytes())
    with pytest.raises(
        InputError, match=r"59 of its 59 cells are more than one cell of .*one\.h5ad.*twin\.h5ad"
    ):
        read_reference([references[0], twin], "mine", label_csv=[write(labels_csv("one"))])


@pytest.mark.parametrize("column", ["yours", "cell_type"])
def test_labels_of_a_table_are_of_one_of_its_columns_and_never_those_of_obs(
    references, write, column
) -> None:
    with pytest.raises(InputError, match=rf"labels\.csv': this table has no column '{column}'; it has: mine"):
        read_reference(references[:1], column, label_csv=[write(labels_csv("one"))])


def test_tables_that_fit_no_number_of_references_are_an_error(references, write) -> None:
    tables = [write(labels_csv("one"), f"{i}.csv") for i in range(3)]
    with pytest.raises(InputError, match="3 tables of labels were given for 2 reference"):
        read_reference(references, "mine", label_csv=tables)


def test_levels_may_stand_in_the_table_too(references, write) -> None:
    text = (
        labels_csv("one")
        .replace("mine", "mine,wide")
        .replace("odd\n", "odd,all\n")
        .replace("even\n", "even,all\n")
    )
    read = read_reference(references[:1], "mine", label_csv=[write(text)], levels=["wide"])
    assert read.levels == {"wide": {"even": "all", "odd": "all"}}
