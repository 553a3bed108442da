from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import anndata as ad
import h5py
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from tenx_files import IDS, SYMBOLS, barcodes, small_counts, write_folder, write_h5_v3

from cellscribe import split
from cellscribe.convert import ConvertOptions, run_convert
from cellscribe.errors import InputError
from cellscribe.several import looks_like_several, origin_of
from cellscribe.split import Part, run_split, sample_names

COUNTS = small_counts(11)
FILTERED = "filtered_feature_bc_matrix"
DONORS = ["b", "a", "b", None, "a", "c/1", "b", "C 1", "a", "b", "a"]


def several(path: Path, x: Any = COUNTS, donors: Any = DONORS, **more: Any) -> Path:
    obs = pd.DataFrame(
        {"donor": pd.Categorical(donors), "age": range(len(donors))}, index=barcodes(len(donors))
    )
    ad.AnnData(x, obs=obs, var=pd.DataFrame({"gene_ids": IDS}, index=SYMBOLS), **more).write_h5ad(path)
    return path


def test_each_sample_gets_its_own_cells_in_their_order(tmp_path: Path) -> None:
    umap = np.arange(22, dtype=np.float32).reshape(11, 2)
    path = several(tmp_path / "in.h5ad", sp.csr_matrix(COUNTS), obsm={"X_umap": umap})
    (tmp_path / "parts").mkdir()
    parts = run_split(path, "s", "donor", tmp_path / "parts" / "split.json")
    assert [(part.sample, part.value, part.n_cells) for part in parts] == [
        ("s_b", "b", 4),
        ("s_a", "a", 4),
        ("s_unnamed", "", 1),
        ("s_c_1", "c/1", 1),
        ("s_C_1_2", "C 1", 1),
    ]
    assert [Part(**one) for one in json.loads((tmp_path / "parts" / "split.json").read_text())] == parts
    assert {file.name for file in (tmp_path / "parts").iterdir()} == {"split.json"} | {
        part.file for part in parts
    }
    rows = [0, 2, 6, 9]
    one = ad.read_h5ad(tmp_path / "parts" / "s_b.h5ad")
    np.testing.assert_array_equal(one.X.toarray(), COUNTS[rows])
    np.testing.assert_array_equal(one.obsm["X_umap"], umap[rows])
    assert list(one.obs_names) == [barcodes(11)[row] for row in rows]
    assert list(one.obs["donor"].cat.categories) == ["b"] and list(one.obs["age"]) == rows
    assert list(one.var_names) == SYMBOLS and list(one.var["gene_ids"]) == IDS


def test_samples_that_are_numbers_with_gaps_are_named_by_whole_ones(tmp_path: Path) -> None:
    path = several(tmp_path / "in.h5ad", donors=[2.0, 1.0] * 5 + [np.nan])
    parts = run_split(path, "s", "donor", tmp_path / "split.json")
    assert [(part.sample, part.value) for part in parts] == [("s_2", "2"), ("s_1", "1"), ("s_unnamed", "")]


@pytest.mark.parametrize("many", [1, 2])
def test_more_samples_than_files_may_be_open_take_more_passes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, many: int
) -> None:
    monkeypatch.setattr(split, "MOST_FILES", many)
    path = several(tmp_path / "in.h5ad", donors=list("abcabcabcab"))
    run_split(path, "s", "donor", tmp_path / "split.json")
    for first, value in enumerate("abc"):
        one = ad.read_h5ad(tmp_path / f"s_{value}.h5ad")
        np.testing.assert_array_equal(one.X.toarray(), COUNTS[first::3])


def test_counts_of_a_layer_are_converted_and_the_page_says_where_the_cells_are_from(tmp_path: Path) -> None:
    path = several(tmp_path / "in.h5ad", np.log1p(COUNTS), layers={"umis": sp.csc_matrix(COUNTS)})
    run_split(path, "s", "donor", tmp_path / "split.json", counts_layer="umis")
    part = tmp_path / "s_a.h5ad"
    origin = origin_of(part)
    assert origin is not None and origin_of(path) is None
    made = tmp_path / "out" / "c.h5ad"
    made.parent.mkdir()
    report = run_convert(ConvertOptions(sample="s_a", input=part, output=made, metrics=tmp_path / "c.json"))
    assert report["notes"][0] == "These are the 4 of the 11 cells of in.h5ad whose 'donor' is 'a'."
    assert report["notes"][: len(origin.notes)] == origin.notes and report["n_cells"] == 4
    np.testing.assert_array_equal(ad.read_h5ad(made).X.toarray(), COUNTS[[1, 4, 8, 10]])
    assert (report["counts_from"], report["counts_recovered_from"]) == ("layers/umis", "")


def test_a_part_tells_that_its_counts_were_recovered_in_the_whole_file(tmp_path: Path) -> None:
    """In a part they are counts in X, and its page must not say that they were found there."""
    scaled = np.log1p(COUNTS / COUNTS.sum(axis=1, keepdims=True) * 10_000)
    run_split(several(tmp_path / "in.h5ad", scaled), "s", "donor", tmp_path / "split.json")
    made = tmp_path / "c.h5ad"
    report = run_convert(
        ConvertOptions(sample="s_a", input=tmp_path / "s_a.h5ad", output=made, metrics=tmp_path / "c.json")
    )
    assert report["counts_from"] == "X" and "log1p" in report["counts_recovered_from"]


def test_what_is_odd_in_the_whole_file_is_odd_in_each_sample_and_said_there(tmp_path: Path) -> None:
    """Genes and barcodes of one name: CONVERT reads them, and so does SPLIT."""
    path = several(tmp_path / "in.h5ad", sp.csr_matrix(COUNTS), ["a", "b", "a"] * 3 + ["a", "a"])
    with h5py.File(path, "r+") as file:
        names = [*SYMBOLS[:4], SYMBOLS[0], SYMBOLS[5]]
        for place, index in (("var", names), ("obs", ["x"] * 11)):
            del file[place]["_index"]
            file[place]["_index"] = index
            file[place]["_index"].attrs.update({"encoding-type": "string-array", "encoding-version": "0.2.0"})
    run_split(path, "s", "donor", tmp_path / "split.json")
    made = [
        run_convert(
            ConvertOptions(
                sample=name,
                input=source,
                output=tmp_path / f"{name}.c.h5ad",
                metrics=tmp_path / f"{name}.json",
            )
        )
        for name, source in (("whole", path), ("s_a", tmp_path / "s_a.h5ad"))
    ]
    whole, part = (ad.read_h5ad(tmp_path / f"{name}.c.h5ad") for name in ("whole", "s_a"))
    np.testing.assert_array_equal(part.X.toarray(), COUNTS[whole.obs["donor"].to_numpy() == "a"])
    assert list(part.var_names) == list(whole.var_names) and list(part.obs.columns) == list(whole.obs.columns)
    alike = [[one for one in report["warnings"] if "barcodes" not in one] for report in made]
    assert alike[0] == alike[1]


def test_names_of_samples_may_hold_what_no_text_of_ours_can(tmp_path: Path) -> None:
    path = several(tmp_path / "in.h5ad")
    with h5py.File(path, "r+") as file:
        file["obs/code"] = np.array([b"a\0b"] * 6 + [b"c"] * 5, dtype="S3")
        file["obs/code"].attrs.update({"encoding-type": "array", "encoding-version": "0.2.0"})
        file["obs"].attrs["column-order"] = ["donor", "age", "code"]
    parts = run_split(path, "s", "code", tmp_path / "split.json")
    assert [(part.value, part.n_cells) for part in parts] == [("ab", 6), ("c", 5)]


@pytest.mark.parametrize("said", [7, b"\xff", "no JSON", "[1]", '{"notes": []}'])
def test_what_only_looks_like_a_part_is_none(tmp_path: Path, said: object) -> None:
    path = several(tmp_path / "in.h5ad")
    with h5py.File(path, "r+") as file:
        file["uns/cellscribe_split"] = said
    assert origin_of(path) is None


@pytest.mark.parametrize(
    ("key", "seen"),
    [
        ("donr", r"there is no obs column 'donr'; there are: donor, age; did you mean 'donor'\?"),
        ("age", "the obs column 'age' has 11 values for 11 cells"),
    ],
)
def test_a_column_that_tells_no_samples_apart_is_refused(tmp_path: Path, key: str, seen: str) -> None:
    path = several(tmp_path / "in.h5ad")
    (tmp_path / "parts").mkdir()
    with pytest.raises(InputError, match=f"{seen}.*") as caught:
        run_split(path, "s", key, tmp_path / "parts" / "split.json")
    assert caught.value.file == path and "as sample_key" in caught.value.todo
    assert not list((tmp_path / "parts").iterdir())


def test_a_file_without_counts_is_refused_as_convert_does(tmp_path: Path) -> None:
    path = several(tmp_path / "in.h5ad", COUNTS - COUNTS.mean())
    with pytest.raises(InputError, match="no raw counts were found"):
        run_split(path, "s", "donor", tmp_path / "split.json")


def test_a_column_without_a_value_parts_nothing(tmp_path: Path) -> None:
    path = several(tmp_path / "in.h5ad", donors=[None] * 11)
    with pytest.raises(InputError, match="no cell has a value in the obs column 'donor'"):
        run_split(path, "s", "donor", tmp_path / "s.split.json")


def test_names_of_samples_differ_whatever_the_values_are() -> None:
    names = sample_names("s" * 60, ["a b", "a_b", "A/B", "", "é", "x" * 200, "x" * 201])
    assert len({name.casefold() for name in names}) == 7 and max(map(len, names)) <= 100
    assert names[:3] == [f"{'s' * 60}_{end}" for end in ("a_b_2", "a_b", "A_B_3")]
    assert sample_names("s", ["A", "a", "a_2"]) == ["s_A", "s_a_3", "s_a_2"]
    assert all(name.startswith(f"{'s' * 60}_") for name in names)


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ({"donor": ["a"] * 60 + ["b"] * 60}, "--sample_key donor"),
        ({"donor": ["a"] * 60 + ["b"] * 60, "Batch": ["1"] * 50 + ["2"] * 70}, "--sample_key Batch"),
        ({"donor": ["a"] * 119 + ["b"]}, ""),
        ({"donor": ["a"] * 120}, ""),
        ({"donor": pd.Categorical(["a"] * 120, categories=["a", *"bcdef"])}, ""),
        ({"donor": ["a"] * 60 + ["NA"] * 60}, ""),
        ({"batch": [None] * 120, "cell_type": ["x", "y"] * 60}, ""),
        ({"sample": np.linspace(0, 1, 120)}, ""),
    ],
)
def test_a_file_of_several_samples_is_noticed_by_its_columns(columns: dict[str, Any], said: str) -> None:
    warning = looks_like_several(pd.DataFrame(columns))
    assert warning.endswith(said) if said else warning == ""


def cells_called(*names: str, n: int = 60) -> pd.DataFrame:
    """Cells by names with `@` where each has its barcode."""
    return pd.DataFrame(
        index=[name.replace("@", code.removesuffix("-1")) for name in names for code in barcodes(n)]
    )


@pytest.mark.parametrize(
    ("obs", "said"),
    [
        (cells_called("@-1", "@-2", "@-3"), "(…-1, …-2, …-3) these are cells of 3 libraries"),
        (
            cells_called("S0_@-1", "S1_@-1"),
            "(S0_…-1, S1_…-1). If these are 2 samples, they were taken for one",
        ),
        (
            cells_called(*(f"@-{i}" for i in range(1, 6))),
            "(…-1, …-2, …-3, ...) these are cells of 5 libraries",
        ),
        (cells_called("@-1", n=300), ""),
        (cells_called("@", n=300), ""),
        # Ends that are each cell's own, and names without barcodes.
        (cells_called(*(f"@-{i}" for i in range(200)), n=1), ""),
        (cells_called("cell_1", "cell_2"), ""),
        (pd.DataFrame(index=[]), ""),
    ],
)
def test_a_matrix_of_several_libraries_is_noticed_by_what_stands_around_its_barcodes(
    obs: pd.DataFrame, said: str
) -> None:
    warning = looks_like_several(obs)
    assert said in warning and ("--sample_key" in warning) == bool(said)
    assert warning.endswith("--sample_key barcode_suffix") == ("libraries" in said)


def test_small_libraries_are_noticed_where_the_table_of_aggr_lies_beside_them() -> None:
    obs = cells_called("@-1", "@-2", n=5)
    assert looks_like_several(obs) == ""
    assert "2 libraries" in looks_like_several(obs, aggregated=True)
    assert looks_like_several(cells_called("@-1"), aggregated=True) == ""


@pytest.mark.parametrize("place", [f"{FILTERED}.h5", f"count/{FILTERED}.h5", FILTERED])
def test_convert_warns_of_what_cellranger_aggr_joined(tmp_path: Path, place: str) -> None:
    names = [*barcodes(5), *(name[:-1] + "2" for name in barcodes(5))]
    if place.endswith(".h5"):
        write_h5_v3(tmp_path / "outs" / place, small_counts(10), names=names)
    else:
        folder = write_folder(tmp_path / "outs" / place, small_counts(10), compress=False)
        (folder / "barcodes.tsv").write_text("".join(f"{name}\n" for name in names))
    options = ConvertOptions("s", tmp_path / "outs", tmp_path / "c.h5ad", tmp_path / "c.json")
    assert not [one for one in run_convert(options)["warnings"] if "libraries" in one]
    (tmp_path / "outs" / "aggregation.csv").write_text("sample_id,molecule_h5\na,a.h5\nb,b.h5\n")
    assert [
        one for one in run_convert(options)["warnings"] if "(…-1, …-2) these are cells of 2 libraries" in one
    ]


def aggregated(outs: Path, table: str | None, place: str = f"count/{FILTERED}.h5") -> np.ndarray:
    """What `cellranger aggr` writes of three libraries, cells of the second first. Returns the library of each cell."""
    library = np.array([2, 1, 1, 3, 2, 1, 1, 3, 2, 1])
    names = [f"{name[:-1]}{i}" for name, i in zip(barcodes(10), library, strict=True)]
    types = ["Gene Expression"] * 5 + ["Antibody Capture"]
    if place.endswith(".h5"):
        write_h5_v3(outs / place, small_counts(10), names=names, types=types)
    else:
        folder = write_folder(outs / place, small_counts(10), compress=False)
        (folder / "barcodes.tsv").write_text("".join(f"{name}\n" for name in names))
    if table is not None:
        (outs / "aggregation.csv").write_text(table)
    return library


@pytest.mark.parametrize(
    ("table", "names", "said"),
    [
        ("sample_id,molecule_h5\nlung 1,a.h5\nblood,b.h5\nskin,c.h5\n", ["lung_1", "blood", "skin"], ""),
        ("\ufefflibrary_id,molecule_h5,batch\r\na,a.h5,x\r\nb,b.h5,y\r\n\r\nc,c.h5,y\r\n", list("abc"), ""),
        (None, list("123"), ""),
        ("sample_id,molecule_h5\na,a.h5\nb,b.h5\n", list("123"), "up to -3 (it has 2 names"),
        ("sample_id,molecule_h5\na,a.h5\nb,b.h5\na,c.h5\n", list("123"), "it has 0 names"),
        ("sample_id\na\n,\nc\n", list("123"), "it has"),
        ("name\na\nb\nc\n", list("123"), "it has 0 names"),
        ("", list("123"), "it has 0 names"),
    ],
)
def test_what_aggr_joined_is_parted_by_barcodes_and_named_by_its_table(
    tmp_path: Path, table: str | None, names: list[str], said: str
) -> None:
    library = aggregated(tmp_path / "outs", table)
    parts = run_split(tmp_path / "outs", "s", "barcode_suffix", tmp_path / "split.json")
    assert [part.sample for part in parts] == [f"s_{name}" for name in names]
    assert [part.n_cells for part in parts] == [5, 3, 2]
    for number, part in enumerate(parts, start=1):
        one = ad.read_h5ad(tmp_path / part.file)
        np.testing.assert_array_equal(one.X.toarray(), small_counts(10)[library == number])
        options = ConvertOptions(part.sample, tmp_path / part.file, tmp_path / "c.h5ad", tmp_path / "c.json")
        report = run_convert(options)
        given = "" if said or table is None else f", '{part.value}' of aggregation.csv"
        whose = (
            f"These are the {part.n_cells} of the 10 cells of outs whose barcodes end in -{number}{given}."
        )
        assert report["notes"][0] == whose
        # Antibodies are none of its genes.
        assert (report["n_genes"], report["genomes"]) == (5, ["GRCh38"])
        assert [one for one in report["warnings"] if "aggregation.csv" in one and said in one] or not said
        assert not [one for one in report["warnings"] if "libraries" in one or (not said and "aggreg" in one)]


def test_a_matrix_folder_that_aggr_joined_is_parted_too(tmp_path: Path) -> None:
    library = aggregated(tmp_path / "outs", "sample_id\na\nb\nc\n", FILTERED)
    run_split(tmp_path / "outs", "s", "barcode_suffix", tmp_path / "split.json")
    one = ad.read_h5ad(tmp_path / "s_b.h5ad")
    np.testing.assert_array_equal(one.X.toarray(), small_counts(10)[library == 2])


def test_parts_of_a_raw_matrix_are_known_as_such(tmp_path: Path) -> None:
    aggregated(tmp_path / "outs", None, "raw_feature_bc_matrix.h5")
    run_split(tmp_path / "outs", "s", "barcode_suffix", tmp_path / "split.json")
    origin = origin_of(tmp_path / "s_1.h5ad")
    assert origin is not None and origin.named_raw


def test_an_h5ad_is_parted_by_barcodes_unless_it_has_a_column_of_that_name(tmp_path: Path) -> None:
    path = several(tmp_path / "in.h5ad")
    names = [f"{name[:-1]}{1 + i % 2}" if i else "other" for i, name in enumerate(barcodes(11))]
    cells = ad.read_h5ad(path)
    cells.obs_names = names
    cells.write_h5ad(path)
    parts = run_split(path, "s", "barcode_suffix", tmp_path / "split.json")
    assert [(part.sample, part.n_cells) for part in parts] == [("s_1", 5), ("s_2", 5), ("s_unnamed", 1)]
    cells.obs["barcode_suffix"] = ["x"] * 5 + ["y"] * 6
    cells.write_h5ad(path)
    parts = run_split(path, "s", "barcode_suffix", tmp_path / "split.json")
    assert [(part.sample, part.n_cells) for part in parts] == [("s_x", 5), ("s_y", 6)]


def test_barcodes_that_aggr_did_not_number_are_told_so(tmp_path: Path) -> None:
    path = write_h5_v3(tmp_path / "m.h5", small_counts(6), names=[name[:-2] for name in barcodes(6)])
    with pytest.raises(InputError, match="no cell's barcode ends in a number") as caught:
        run_split(path, "s", "barcode_suffix", tmp_path / "split.json")
    assert "called as AAAAAAAAAAAAAAAA, CAAAAAAAAAAAAAAA" in str(caught.value)
    names = [f"{name[:-1]}{i}" for i, name in enumerate(barcodes(6))]
    with pytest.raises(InputError, match="the barcodes end in 6 numbers for 6 cells"):
        path = write_h5_v3(tmp_path / "m.h5", small_counts(6), names=names)
        run_split(path, "s", "barcode_suffix", tmp_path / "split.json")
    with pytest.raises(InputError, match="there is no obs column 'donor'; there are: none"):
        run_split(path, "s", "donor", tmp_path / "split.json")
    assert not list(tmp_path.glob("*.h5ad"))


def test_convert_warns_of_several_samples_taken_for_one(tmp_path: Path) -> None:
    path = several(tmp_path / "in.h5ad", small_counts(120), ["a", "b"] * 60)
    options = ConvertOptions(sample="s", input=path, output=tmp_path / "c.h5ad", metrics=tmp_path / "c.json")
    warnings = run_convert(options)["warnings"]
    assert [one for one in warnings if "By the obs column 'donor' these are cells of 2 donors" in one]
    run_split(path, "s", "donor", tmp_path / "split.json")
    part = ConvertOptions(**(vars(options) | {"input": tmp_path / "s_a.h5ad"}))
    assert not [one for one in run_convert(part)["warnings"] if "--sample_key" in one]
