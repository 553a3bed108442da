"""CHECK_INPUT: what it lets pass, what it refuses, and that it says everything at once."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest

from cellscribe.census import Query
from cellscribe.check_input import run_check
from cellscribe.check_models import Catalogues
from cellscribe.counts_file import CHUNK_ROWS
from cellscribe.errors import InputError
from cellscribe.sample_names import clean_name
from cellscribe.schema import coerce, nearest, parameters, shown

ROOT = Path(__file__).parents[2]
SCHEMA = ROOT / "nextflow_schema.json"
DEFAULTS = {name: part.get("default") for name, part in parameters(json.loads(SCHEMA.read_text())).items()}


class Folder:
    """A launch folder with two samples in it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        for name in ("a.h5ad", "b.h5ad"):
            (path / name).touch()

    def sheet(self, content: str | bytes, name: str = "sheet.csv") -> Path:
        path = self.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    def check(
        self, sheet: Path | None = None, *, sees_paths: bool = True, **params: Any
    ) -> tuple[list[dict[str, Any]], dict[str, Any]]:
        if sheet is not None:
            params.setdefault("input", str(sheet))
        launch = {
            "params": {**DEFAULTS, "model": "./model", **params},
            "launch_dir": str(self.path),
            "project_dir": str(ROOT),
            "sees_paths": sees_paths,
        }
        (self.path / "model").mkdir(exist_ok=True)
        (self.path / "launch.json").write_text(json.dumps(launch))
        return run_check(
            self.path / "launch.json",
            sheet,
            SCHEMA,
            ROOT / "assets" / "schema_input.json",
            Catalogues(ROOT / "assets" / "models.csv", self.own_catalogue(params)),
        )

    def own_catalogue(self, params: dict[str, Any]) -> Path | None:
        """As Nextflow stages it."""
        given = self.path / str(params.get("catalogue"))
        return given if given.is_file() else None

    def problems(self, sheet: Path | None = None, **params: Any) -> list[str]:
        with pytest.raises(InputError) as caught:
            self.check(sheet, **params)
        return [line[4:] for line in str(caught.value).splitlines() if line.startswith("  - ")]


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path)


# --- files of several samples ---


def test_a_file_of_several_samples_is_split_by_its_own_column(folder: Folder) -> None:
    text = "sample,path,sample_key,counts_layer\na,a.h5ad,donor,umis\nb,b.h5ad,,\n"
    first, second = folder.check(folder.sheet(text))[0]
    assert first["split"] == {"sample_key": "donor", "counts_layer": "umis"} and second["split"] is None
    assert "batch" not in first["convert"] and second["convert"]["batch"] == "b"
    both, _ = folder.check(folder.sheet(text), sample_key="batch")
    assert [sample["split"]["sample_key"] for sample in both] == ["donor", "batch"]


@pytest.mark.parametrize(
    ("sheet", "said"),
    [
        ("a,outs", "line 2, sample_key: 'outs' is no .h5ad"),
        ("a,a.h5ad\nA_b,b.h5ad", "line 3, sample: 'A_b' may be one of the samples of 'a' too"),
        (f"{'a' * 61},a.h5ad", "has more than 60 letters"),
    ],
)
def test_what_cannot_be_split_is_told_before_anything_runs(folder: Folder, sheet: str, said: str) -> None:
    (folder.path / "outs").mkdir()
    rows = "\n".join(f"{row}," for row in sheet.splitlines()[1:])
    found = folder.problems(folder.sheet(f"sample,path,sample_key\n{sheet.splitlines()[0]},donor\n{rows}\n"))
    assert len(found) == 1 and said in found[0], found


def test_what_aggr_joined_is_split_by_the_ends_of_its_barcodes_whatever_it_lies_in(folder: Folder) -> None:
    (folder.path / "outs").mkdir()
    text = "sample,path,sample_key,genome\na,outs,barcode_suffix,GRCh38\nb,a.h5ad,barcode_suffix,\n"
    first, second = folder.check(folder.sheet(text))[0]
    assert first["split"] == {"sample_key": "barcode_suffix", "genome": "GRCh38"}
    assert second["split"] == {"sample_key": "barcode_suffix"}


def test_the_column_that_a_file_is_split_by_cannot_be_compared_within_its_samples(folder: Folder) -> None:
    asked = {"sample_key": "donor", "compare": "donor: a vs b"}
    found = folder.problems(folder.sheet("sample,path\na,a.h5ad\n"), **asked)
    assert len(found) == 1 and found[0].startswith(
        "--compare: each of the samples that 'a' is split into has one value"
    )
    folder.check(folder.sheet("sample,path\na,a.h5ad\n"), **(asked | {"compare": "condition: a vs b"}))
    folder.check(
        folder.sheet("sample,path\na,a.h5ad\n"), **(asked | {"compare": "donor: a vs b | B vs rest"})
    )
    mixed = folder.sheet("sample,path,sample_key\na,a.h5ad,donor\nb,b.h5ad,\n")
    folder.check(mixed, compare="donor: a vs b")


# --- the sheet's form ---

SHEETS = {
    "plain": "sample,path\na,a.h5ad\nb,b.h5ad\n",
    "byte order mark and Windows line ends": "\ufeffsample,path\r\na,a.h5ad\r\nb,b.h5ad\r\n",
    "old Mac line ends": "sample,path\ra,a.h5ad\rb,b.h5ad\r",
    "semicolons": "sample;path\na;a.h5ad\nb;b.h5ad\n",
    "tabs": "sample\tpath\na\ta.h5ad\nb\tb.h5ad\n",
    "capitals and spaces": " Sample , PATH\n a , a.h5ad \nb,b.h5ad",
    "quotes": '"sample","path"\n"a","a.h5ad"\nb,b.h5ad\n',
    "blank lines and rows of commas": "\n\nsample,path,\n\na,a.h5ad,\n,,\nb,b.h5ad,\n\n",
    "other order": "path,sample\na.h5ad,a\nb.h5ad,b\n",
    "a short row": "sample,path,batch\na,a.h5ad\nb,b.h5ad\n",
}


@pytest.mark.parametrize("form", SHEETS)
def test_every_form_of_the_same_sheet_gives_the_same_samples(folder: Folder, form: str) -> None:
    samples, _ = folder.check(folder.sheet(SHEETS[form]))
    assert [(sample["id"], Path(sample["paths"][0]).name) for sample in samples] == [
        ("a", "a.h5ad"),
        ("b", "b.h5ad"),
    ]


@pytest.mark.parametrize("suffix", ["yaml", "yml"])
@pytest.mark.parametrize("head", ["", "samples:\n"])
def test_yaml_holds_the_same_names(folder: Folder, suffix: str, head: str) -> None:
    text = head + "- {sample: a, path: a.h5ad, min_genes: 10}\n- sample: 7\n  path: b.h5ad\n"
    samples, _ = folder.check(folder.sheet(text, f"sheet.{suffix}"))
    assert [sample["id"] for sample in samples] == ["a", "7"]
    assert [sample["qc"].get("min_genes") for sample in samples] == [10, None]


def test_utf_16_as_excel_saves_it_is_read(folder: Folder) -> None:
    samples, _ = folder.check(folder.sheet("sample\tpath\na\ta.h5ad\n".encode("utf-16"), "sheet.tsv"))
    assert [sample["id"] for sample in samples] == ["a"]


def test_a_quoted_value_may_hold_the_delimiter(folder: Folder) -> None:
    (folder.path / "a, b.h5ad").touch()
    samples, _ = folder.check(folder.sheet('sample,path\na,"a, b.h5ad"\n'))
    assert samples[0]["path"] == "a, b.h5ad"


BROKEN = {
    "empty": ("", "is empty"),
    "blank": ("\n \n", "is empty"),
    "no rows": ("sample,path\n", "has a header but no samples"),
    "an unclosed quote": ('sample,path\na,"a.h5ad\nb,b.h5ad\n', "unclosed double quote"),
    "a Latin letter": (b"sample,path\ncaf\xe9,a.h5ad\n", "byte 16 is no UTF-8 text"),
    "an Excel file": (b"PK\x03\x04rest", "is an Excel file"),
    "bytes": (b"sample,path\na\x00,a.h5ad\n", "no text"),
    "two columns of one name": ("sample,path,sample\na,a.h5ad,b\n", "2 columns named 'sample'"),
    "too many fields": ("sample,path\na,a.h5ad,,x\n", "line 2: has 4 fields, the header 2"),
    "no path column": ("sample,paths\na,a.h5ad\n", "there is no column 'paths'; did you mean 'path'?"),
    "a strange column": ("sample,path,colour\na,a.h5ad,red\n", "there is no column 'colour'; take it out"),
}


@pytest.mark.parametrize("what", BROKEN)
def test_a_broken_sheet_is_refused_and_says_why(folder: Folder, what: str) -> None:
    content, words = BROKEN[what]
    assert any(words in line for line in folder.problems(folder.sheet(content)))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: [", "is no YAML"),
        ("a", "must be a list"),
        ("[]", "must be a list"),
        ("- {sample: a, pth: a.h5ad}", "no column 'pth'; did you mean 'path'?"),
        ("- {sample: a}", "entry 1, path: is empty"),
        ("- {sample: a, path: [1]}", "entry 1, path: is a list of values; give one"),
        ("- !!python/object/apply:os.system ['touch x']", "is no YAML"),
    ],
)
def test_broken_yaml_is_refused_and_says_why(folder: Folder, text: str, words: str) -> None:
    assert any(words in line for line in folder.problems(folder.sheet(text, "s.yaml")))


# --- rows ---


def test_all_problems_of_all_rows_and_parameters_are_told_at_once(folder: Folder) -> None:
    sheet = folder.sheet(
        "sample,path,organism,max_pct_mt,min_genes,max_genes\n"
        "a,a.h5ad,humn,5,,\n"
        "a,nowhere.h5ad,,abc,,\n"
        "b b,b.h5ad,,101,,\n"
        ",b.h5ad,,,,\n"
        "c,,,,,\n"
        "d,b.h5ad,,,20,10\n"
    )
    found = folder.problems(sheet, seed="x", doublts="off")
    assert [line.split(":")[0] for line in found] == [
        "--doublts",
        "--seed",
        "line 2, organism",
        "line 3, max_pct_mt",
        "line 3, sample",
        "line 3, path",
        "line 4, sample",
        "line 4, max_pct_mt",
        "line 5, sample",
        "line 6, path",
        "line 7",
    ]
    text = "\n".join(found)
    assert "did you mean 'doublets'?" in text and "did you mean 'human'?" in text
    assert "'abc' is not a number from 0 to 100" in text
    assert "'a' was already given in line 2" in text
    assert "min_genes (20) is above max_genes (10)" in text


def test_a_path_is_looked_for_though_its_samples_name_is_none(folder: Folder) -> None:
    found = folder.problems(folder.sheet("sample,path\na b,nowhere.h5ad\n"))
    assert [line.split(":")[0] for line in found] == ["line 2, sample", "line 2, path"]


def test_names_that_differ_in_capitals_alone_are_refused(folder: Folder) -> None:
    assert folder.problems(folder.sheet("sample,path\nLung,a.h5ad\nlung,b.h5ad\n"))[0].startswith(
        "line 3, sample: 'lung'"
    )


@pytest.mark.parametrize(
    "column", ["sample", "path", "batch", "counts_layer", "gene_column", "genome", "organism"]
)
@pytest.mark.parametrize(
    "value", ["$(touch x)", "`touch x`", "a'b", "x;rm y", "-rf", "a\\b", "<b>", "a|b", "a&b"]
)
def test_no_hostile_value_passes(folder: Folder, column: str, value: str) -> None:
    row = {"sample": "a", "path": "a.h5ad", column: value}
    sheet = folder.sheet(f"{','.join(row)}\n{','.join(row.values())}\n")
    assert any(f"line 2, {column}: '{value}'" in line for line in folder.problems(sheet))


def test_a_row_goes_before_the_parameters_and_an_empty_cell_does_not(folder: Folder) -> None:
    sheet = folder.sheet(
        "sample,path,organism,batch,gene_column,genome,counts_layer,n_mads,max_pct_mt,expected_doublet_rate\n"
        "a,a.h5ad,Mus musculus,b1,symbol,mm10,raw counts,3,12.5,0.1\nb,b.h5ad,,,,,,,,\n"
    )
    own, other = folder.check(
        sheet, organism="human", gene_column_name="id", n_mads=4, max_pct_mt="8", seed=9
    )[0]
    assert own["convert"] == {
        "organism": "mouse",
        "batch": "b1",
        "gene_column": "symbol",
        "genome": "mm10",
        "counts_layer": "raw counts",
        "call_cells": "auto",
        "seed": 9,
    }
    assert (own["qc"]["n_mads"], own["qc"]["max_pct_mt"], own["qc"]["expected_doublet_rate"]) == (
        3,
        12.5,
        0.1,
    )
    assert own["map"]["organism"] == "mouse" and own["map"]["gene_column_name"] == "symbol"
    assert other["convert"]["organism"] == "human" and other["convert"]["batch"] == "b"
    assert (other["qc"]["n_mads"], other["qc"]["max_pct_mt"]) == (4, 8)
    assert "counts_layer" not in other["convert"] and "expected_doublet_rate" not in other["qc"]


def test_a_row_may_contradict_a_parameter_and_is_told_so(folder: Folder) -> None:
    sheet = folder.sheet("sample,path,min_counts\na,a.h5ad,500\n")
    assert folder.problems(sheet, max_counts=100) == [
        "line 2: min_counts (500) is above max_counts (100); nothing fits between them"
    ]


# --- paths ---


def test_a_relative_path_is_looked_for_beside_the_sheet_first(folder: Folder) -> None:
    sheet = folder.sheet("sample,path\nhere,x.h5ad\nthere,a.h5ad\n", "sheets/s.csv")
    (folder.path / "sheets" / "x.h5ad").touch()
    (folder.path / "x.h5ad").touch()
    here, there = folder.check(sheet, input="sheets/s.csv")[0]
    assert here["paths"][0] == str(folder.path / "sheets" / "x.h5ad")
    assert there["paths"] == [str(folder.path / "sheets" / "a.h5ad"), str(folder.path / "a.h5ad")]


def test_a_missing_path_says_where_it_was_looked_for(folder: Folder) -> None:
    sheet = folder.sheet("sample,path\na,none.h5ad\n", "sheets/s.csv")
    (line,) = folder.problems(sheet)
    assert line == (
        f"line 2, path: 'none.h5ad' does not exist (looked in {folder.path}/sheets and in {folder.path})"
    )


def test_where_a_task_cannot_see_the_paths_they_are_left_to_nextflow(folder: Folder) -> None:
    samples, _ = folder.check(folder.sheet("sample,path\na,none.h5ad\n"), sees_paths=False)
    assert samples[0]["paths"] == [str(folder.path / "none.h5ad")]


@pytest.mark.parametrize(
    "uri", ["https://host.org/x.h5?download=true&v=1", "s3://bucket/run 1/outs".replace(" ", "_")]
)
def test_what_nextflow_fetches_is_not_looked_for(folder: Folder, uri: str) -> None:
    samples, _ = folder.check(folder.sheet(f"sample,path\na,{uri}\n"))
    assert samples[0]["paths"] == [uri]


def test_a_sheet_in_a_bucket_has_its_relative_paths_there(folder: Folder) -> None:
    sheet = folder.sheet("sample,path\na,x/outs\n")
    samples, _ = folder.check(sheet, input="s3://bucket/sheets/s.csv", sees_paths=False)
    assert samples[0]["paths"][0] == "s3://bucket/sheets/x/outs"


def test_input_may_be_data_itself(folder: Folder) -> None:
    (folder.path / "lung_3" / "outs").mkdir(parents=True)
    (sample,) = folder.check(input="lung_3/outs")[0]
    assert (sample["id"], sample["paths"]) == ("lung_3", [str(folder.path / "lung_3" / "outs")])


def test_data_in_the_launch_folder_is_named_after_it(folder: Folder) -> None:
    (folder.path / "outs").mkdir()
    for given in ("outs", "./outs", "../" + folder.path.name + "/outs"):
        assert folder.check(input=given)[0][0]["id"] == clean_name(folder.path.name)


def test_data_that_is_nowhere_is_told(folder: Folder) -> None:
    assert folder.problems(input="none/outs") == ["--input, path: 'none/outs' does not exist"]


def test_a_sheet_that_is_nowhere_is_told(folder: Folder) -> None:
    assert folder.problems(input="none.csv") == [
        "--input: the sample sheet 'none.csv' does not exist, or is no file"
    ]


# --- parameters ---


def test_without_an_input_the_message_says_what_to_give(folder: Folder) -> None:
    (line,) = folder.problems()
    assert line.startswith("--input: needed")


@pytest.mark.parametrize("value", ["false", False, "False", " false "])
def test_a_boolean_may_arrive_as_text(folder: Folder, value: object) -> None:
    samples, settings = folder.check(input="a.h5ad", use_model_cache=value, use_gpu=value)
    assert settings["params"]["use_model_cache"] is False
    assert samples[0]["map"]["use_gpu"] == "false"


@pytest.mark.parametrize(
    ("value", "given"), [(True, "true"), (False, "false"), ("false", "false"), ("auto", "auto")]
)
def test_call_cells_takes_words_and_booleans(folder: Folder, value: object, given: str) -> None:
    assert folder.check(input="a.h5ad", call_cells=value)[0][0]["convert"]["call_cells"] == given


def test_a_number_may_stand_where_text_is_wanted(folder: Folder) -> None:
    assert folder.check(input="a.h5ad", run_name=5)[1]["annotate"]["run_name"] == "5"


def test_a_parameter_without_its_value_is_told(folder: Folder) -> None:
    (line,) = folder.problems(input="a.h5ad", run_name=True)
    assert line == "--run_name: 'true' stands where a value should: write one after the parameter's name"


def test_nextflows_twin_of_a_dashed_name_is_told_once(folder: Folder) -> None:
    found = folder.problems(input="a.h5ad", **{"min-genes": 5, "minGenes": 5})
    assert found == ["--min-genes: there is no such parameter; did you mean 'min_genes'?"]


def test_what_a_sites_file_says_of_itself_and_of_its_machines_passes(folder: Folder) -> None:
    site = {"config_profile_description": "a cluster", "config_profile_url": "https://example.org"}
    limits = {"max_memory": "100 GB", "max_time": "1d 12h", "max_cpus": None, "use_gpu": None}
    _, settings = folder.check(input="a.h5ad", custom_config_version="master", **site, **limits)
    assert {name: settings["params"][name] for name in limits} == limits
    (line,) = folder.problems(input="a.h5ad", config_profil="a cluster")
    assert line.startswith("--config_profil: there is no such parameter")


def test_an_empty_parameter_is_one_not_given(folder: Folder) -> None:
    samples, settings = folder.check(input="a.h5ad", run_name="", organism="", min_genes=" ")
    assert "run_name" not in settings["annotate"] and settings["params"]["organism"] == "auto"
    assert "min_genes" not in samples[0]["qc"]


def test_overlaps_in_the_wrong_order_are_told(folder: Folder) -> None:
    (line,) = folder.problems(input="a.h5ad", min_gene_overlap=0.9)
    assert line.startswith("min_gene_overlap (0.9) is above warn_gene_overlap (0.8)")


@pytest.mark.parametrize("value", ["nan", "inf", "1_000", "0x10", "1,5"])
def test_what_only_looks_like_a_number_is_refused(folder: Folder, value: str) -> None:
    assert folder.problems(input="a.h5ad", n_mads=value) == [
        f"--n_mads: '{value}' is not a number of 0 or more"
    ]


@pytest.mark.parametrize(
    ("value", "rule", "expected"),
    [
        ("5", {"type": "integer"}, 5),
        ("-5", {"type": "integer"}, -5),
        ("1e1", {"type": "integer"}, 10),
        (10.0, {"type": "integer"}, 10),
        (10.5, {"type": "integer"}, 10.5),
        ("5.0", {"type": "number"}, 5.0),
        ("1e3", {"type": "number"}, 1000.0),
        (5, {"type": "string"}, "5"),
        (None, {"type": "string"}, None),
        (" x ", {"type": "string"}, "x"),
        ("maybe", {"type": "boolean"}, "maybe"),
    ],
)
def test_values_get_the_type_of_their_schema(value: object, rule: dict[str, str], expected: object) -> None:
    got = coerce(value, rule)
    assert got == expected and type(got) is type(expected)


def test_a_run_name_that_names_something_else_is_refused(folder: Folder) -> None:
    (line,) = folder.problems(input="a.h5ad", run_name="final")
    assert line.startswith("--run_name: the run name 'final' would give 'cxg_cell_type_final'")


def test_a_suggestion_comes_only_where_a_name_is_near() -> None:
    assert nearest("annotationPrefix", DEFAULTS) == "; did you mean 'annotation_prefix'?"
    assert nearest("zzzz", DEFAULTS) == ""


# --- the model ---


def test_the_embedded_model_is_found_by_its_name(folder: Folder) -> None:
    model = folder.check(input="a.h5ad", model="pbmc")[1]["models"][0]
    assert model["source"] == str(ROOT / "assets" / "models" / "pbmc")
    assert model["url"] == "assets/models/pbmc" and model["remote"] is False


def test_an_unknown_model_is_told_with_the_nearest(folder: Folder) -> None:
    (line,) = folder.problems(input="a.h5ad", model="pmbc")
    assert "'pmbc' is not in the catalogue; did you mean 'pbmc'?" in line


def test_a_model_may_be_an_address(folder: Folder) -> None:
    (model,) = folder.check(input="a.h5ad", model="https://host.org/m.zip", model_sha256="AB" * 32)[1][
        "models"
    ]
    assert model == {
        "place": 1,
        "label": "",
        "source": "https://host.org/m.zip",
        "url": "https://host.org/m.zip",
        "sha256": "ab" * 32,
        "remote": True,
        "tracking_uri": "",
        "listed_as": "",
    }


def test_a_model_goes_on_with_the_row_of_the_catalogue_that_it_came_from(folder: Folder) -> None:
    folder.sheet("name,version,url\nlung,2.0,models:/lung/3\n", "models.csv")
    server = {"mlflow_tracking_uri": "https://mlflow.example.org", "catalogue": "models.csv"}
    _, settings = folder.check(input="a.h5ad", model="lung,https://host.org/m.zip", **server)
    assert settings["annotate"]["listed_as"] == ["lung==2.0", ""]
    _, settings = folder.check(input="a.h5ad", model="https://host.org/m.zip")
    assert "listed_as" not in settings["annotate"]


@pytest.mark.parametrize("name", ["models:/lung/3", "models:/lung@champion", "models:/lung/latest"])
def test_a_model_may_be_a_name_in_an_mlflow_registry(folder: Folder, name: str) -> None:
    server = "https://mlflow.example.org/team"
    model = folder.check(input="a.h5ad", model=name, mlflow_tracking_uri=server)[1]["models"][0]
    assert (model["source"], model["url"], model["sha256"]) == (name, name, "")
    assert model["remote"] is True and model["tracking_uri"] == server


def test_a_name_that_no_registry_knows_is_told_and_so_is_a_missing_server(folder: Folder) -> None:
    form, server = folder.problems(input="a.h5ad", model="models:/lung/Production")
    assert form.startswith("--model: 'models:/lung/Production'") and "models:/name@alias" in form
    assert server.startswith("--mlflow_tracking_uri: needed")


PASSWORD = "https://me:hunter2@host/file"
SIGNED = "https://host/file?X-Amz-Signature=hunter2"


@pytest.mark.parametrize("secret", [PASSWORD, SIGNED])
def test_no_parameter_takes_an_address_with_a_password_or_a_signature(folder: Folder, secret: str) -> None:
    schema = parameters(json.loads(SCHEMA.read_text()))
    paths = [name for name, part in schema.items() if "path" in part.get("format", "")]
    assert {"input", "model", "outdir", "reference", "catalogue"} <= set(paths)
    found = folder.problems(**dict.fromkeys([*paths, "model_description"], secret))
    for name in (*paths, "model_description"):
        (line,) = [line for line in found if line.startswith(f"--{name}: ") and "***" in line]
        assert "download the file" in line
    assert "hunter2" not in "".join(found)


@pytest.mark.parametrize("secret", [PASSWORD, SIGNED])
def test_no_column_and_no_catalogue_takes_one_either(folder: Folder, secret: str) -> None:
    sheet = folder.sheet(f"sample,path,truth_csv\na,{secret},{secret}\n")
    folder.sheet(f"name,version,url\nlung,1,{secret}\n", "models.csv")
    found = folder.problems(sheet, model="lung", catalogue="models.csv", truth_key="x")
    places = [line.split(": ")[0] for line in found if "download the file" in line]
    assert places == ["catalogue models.csv, line 2, url", "line 2, path", "line 2, truth_csv"]
    assert "hunter2" not in "".join(found)


def test_a_password_in_an_address_is_refused_and_not_repeated(folder: Folder) -> None:
    (line,) = folder.problems(
        input="a.h5ad", model="models:/lung/3", mlflow_tracking_uri="https://me:secret@mlflow.example.org"
    )
    assert "MLFLOW_TRACKING_PASSWORD" in line and "secret" not in line


def test_a_model_that_is_nowhere_is_told(folder: Folder) -> None:
    (line,) = folder.problems(input="a.h5ad", model="none/model")
    assert line == f"--model: '{folder.path}/none/model' does not exist"


# --- several models ---


def test_names_paths_and_addresses_can_be_mixed_each_with_its_sha256(folder: Folder) -> None:
    given = {"model": "pbmc, ./model,https://host.org/m.tar.gz?x=1", "model_sha256": f",,{'AB' * 32}"}
    _, settings = folder.check(input="a.h5ad", **given)
    models = settings["models"]
    assert [model["place"] for model in models] == [1, 2, 3]
    assert [model["label"] for model in models] == ["pbmc", "model", "m"]
    assert [model["remote"] for model in models] == [False, False, True]
    assert [model["sha256"] for model in models][1:] == ["", "ab" * 32]
    assert models[0]["sha256"] == folder.check(input="a.h5ad", model="pbmc")[1]["models"][0]["sha256"]
    assert settings["annotate"]["model_url"] == [
        "assets/models/pbmc",
        "./model",
        "https://host.org/m.tar.gz?x=1",
    ]


def test_models_of_one_name_are_called_differently(folder: Folder) -> None:
    for name in ("x", "y"):
        (folder.path / name / "lung").mkdir(parents=True)
    models = folder.check(input="a.h5ad", model="x/lung,y/lung")[1]["models"]
    assert [model["label"] for model in models] == ["lung", "lung_2"]


def test_an_unknown_name_among_several_models_is_told(folder: Folder) -> None:
    (line,) = folder.problems(input="a.h5ad", model="pbmc,lugn")
    assert line.startswith("--model: 'lugn' is not in the catalogue")


@pytest.mark.parametrize("twice", ["./model,model/", "pbmc,pbmc==1.3"])
def test_a_model_given_twice_is_told(folder: Folder, twice: str) -> None:
    (line,) = folder.problems(input="a.h5ad", model=twice)
    assert "are the same model" in line


def test_sha256s_that_do_not_fit_the_models_are_told(folder: Folder) -> None:
    sha256 = "ab" * 32
    (line,) = folder.problems(input="a.h5ad", model="pbmc,./model", model_sha256=sha256)
    assert line.startswith("--model_sha256: which of the models has it?")
    (line,) = folder.problems(input="a.h5ad", model="pbmc,./model", model_sha256=f"{sha256},{sha256[::-1]},")
    assert line.startswith("--model_sha256: 3 for 2 models")
    (line,) = folder.problems(input="a.h5ad", model="pbmc,./model", model_sha256=f"{sha256},abc")
    assert "must be 64 hexadecimal digits" in line
    (line,) = folder.problems(input="a.h5ad", model="pbmc,,./model")
    assert line == "--model: 'pbmc,,./model' has an empty place; give models with commas between them"


# --- training ---


def test_training_needs_a_reference_and_labels_and_no_input(folder: Folder) -> None:
    found = folder.problems(mode="train")
    assert [line.split(":")[0] for line in found] == ["--reference", "--label_key"]


def test_training_takes_several_references_and_names_the_model(folder: Folder) -> None:
    samples, settings = folder.check(
        mode="train",
        reference="a.h5ad, b.h5ad",
        label_key="cell_type",
        levels="broad,fine",
        batch_key="donor",
    )
    train = settings["train"]
    assert samples == [] and train["name"] == "a"
    assert train["references"] == [str(folder.path / "a.h5ad"), str(folder.path / "b.h5ad")]
    assert train["options"]["levels"] == "broad,fine" and "max_epochs" not in train["options"]


def test_training_refuses_at_once_what_the_new_model_could_not_be_called(folder: Folder) -> None:
    """By the models' own schema, which is else met when the training is done."""
    rules = json.loads((ROOT / "bin/cellscribe/model/schema_model.json").read_text())["properties"]
    train = {"mode": "train", "reference": "a.h5ad", "label_key": "cell_type"}
    level = rules["levels"]["items"]["properties"]["name"]
    for name, rule in (("model_name", rules["name"]), ("model_version", rules["version"]), ("levels", level)):
        for given in ("a" * 64, "a" * 65, "a b", "a.b", "a-b", "a(b", "_a"):
            allowed = re.search(rule["pattern"], given)
            assert allowed or folder.problems(**train, **{name: given}), (name, given)
        assert folder.check(**train, **{name: "a" * 64})
    assert folder.check(**train, levels="broad , fine")
    long = folder.check(**train | {"reference": f"https://host/{'x' * 90}.h5ad"})[1]["train"]["name"]
    assert re.search(rules["name"]["pattern"], long)


def test_free_text_reaches_training_with_every_character_escaped(folder: Folder) -> None:
    text = 'O\'Neill & "others" (2024); $(touch x) `touch y` \\ 100 % – see https://doi.org/10.1/x'
    options = folder.check(
        mode="train", reference="https://host/r.h5ad", label_key="type", model_citation=text
    )[1]["train"]["options"]
    assert re.fullmatch(r"[A-Za-z0-9%._~-]+", options["about"])
    assert json.loads(unquote(options["about"])) == {"citation": text}
    assert (
        "about"
        not in folder.check(mode="train", reference="https://host/r.h5ad", label_key="type")[1]["train"][
            "options"
        ]
    )


def test_labels_of_their_own_come_one_for_all_references_or_one_for_each(folder: Folder) -> None:
    for name in ("x.csv", "y.csv", "z.csv"):
        folder.sheet("index,mine\n", name)
    train = {"mode": "train", "reference": "a.h5ad,b.h5ad", "label_key": "mine"}
    for given in ("x.csv", "x.csv, y.csv"):
        found = folder.check(**train, label_csv=given)[1]["train"]["label_csvs"]
        assert found == [str(folder.path / name.strip()) for name in given.split(",")]
    (line,) = folder.problems(**train, label_csv="x.csv,y.csv,z.csv")
    assert line.startswith("--label_csv: 3 tables for 2 references")
    assert folder.problems(**train, label_csv="no.csv") == [
        f"--label_csv: '{folder.path}/no.csv' does not exist"
    ]


def test_a_table_of_new_names_is_found_beside_the_launch_or_missed(folder: Folder) -> None:
    folder.sheet("label,name\n", "names.csv")
    train = {"mode": "train", "reference": "a.h5ad", "label_key": "mine"}
    assert folder.check(**train)[1]["train"]["label_map"] is None
    found = folder.check(**train, label_map="names.csv")[1]["train"]["label_map"]
    assert found == str(folder.path / "names.csv")
    assert folder.problems(**train, label_map="no.csv") == [
        f"--label_map: '{folder.path}/no.csv' does not exist"
    ]


def test_a_reference_that_is_given_twice_is_refused(folder: Folder) -> None:
    (line,) = folder.problems(mode="train", reference="a.h5ad, b.h5ad,a.h5ad", label_key="x")
    assert line == f"--reference: '{folder.path}/a.h5ad' is given 2 times; give each file once"


def test_a_reference_that_is_nowhere_is_told(folder: Folder) -> None:
    (line,) = folder.problems(mode="train", reference="a.h5ad,no.h5ad", label_key="x")
    assert line == f"--reference: '{folder.path}/no.h5ad' does not exist"


def test_a_model_of_a_users_own_catalogue_is_found_and_goes_before_ours(folder: Folder) -> None:
    (folder.path / "mine").mkdir()
    (folder.path / "mine" / "c.csv").write_text(
        f"name,version,url,sha256\nlung,1.0,lung.zip,{'AB' * 32}\npbmc,9,https://host.org/p.zip,\n"
    )
    (line,) = folder.problems(input="a.h5ad", model="lung", catalogue="mine/c.csv")
    assert line.endswith("lung.zip': nothing is there")
    (folder.path / "mine" / "lung.zip").touch()
    model = folder.check(input="a.h5ad", model="lung", catalogue="mine/c.csv")[1]["models"][0]
    assert model["source"] == model["url"] == str(folder.path / "mine" / "lung.zip")
    assert model["sha256"] == "ab" * 32 and model["remote"] is False
    other = folder.check(input="a.h5ad", model="pbmc", catalogue="mine/c.csv")[1]["models"][0]
    assert other["source"] == "https://host.org/p.zip" and other["remote"] is True
    ours = folder.check(input="a.h5ad", model="pbmc==1.3", catalogue="mine/c.csv")[1]["models"][0]
    assert ours["url"] == "assets/models/pbmc"
    (folder.path / "mine" / "c.csv").write_text("name,version,url\nlung,2.0,models:/lung@champion\n")
    server = "http://mlflow.example.org:5000"
    named = folder.check(input="a.h5ad", model="lung", catalogue="mine/c.csv", mlflow_tracking_uri=server)[1][
        "models"
    ][0]
    assert (named["url"], named["tracking_uri"]) == ("models:/lung@champion", server)


def test_a_catalogue_that_is_nowhere_or_broken_is_told(folder: Folder) -> None:
    lines = folder.problems(input="a.h5ad", model="lung", catalogue="none.csv")
    assert lines[0] == "--catalogue: 'none.csv' does not exist, or is no file"
    (folder.path / "c.csv").write_text("name,version,url\nlung,1,\n")
    lines = folder.problems(input="a.h5ad", model="pbmc", catalogue="c.csv")
    assert lines == ["catalogue c.csv, line 2, url: '' has a character that shells give a meaning"]


def test_a_comparison_reaches_the_report_and_a_wrong_one_is_told(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    sheet = folder.sheet("sample,path\na,a.h5ad\n")
    samples, _ = folder.check(sheet, compare="condition: stim vs ctrl within each")
    assert samples[0]["report"] == {"compare": "condition: stim vs ctrl within each"}
    assert folder.check(sheet)[0][0]["report"] == {}
    (problem,) = folder.problems(sheet, compare="stim, ctrl")
    assert problem.startswith("--compare: 'stim, ctrl' is no comparison; write it as")


def test_known_labels_are_those_of_the_row_else_those_of_the_run(folder: Folder) -> None:
    sheet = folder.sheet(
        "sample,path,truth_csv,truth_key\na,../a.h5ad,own.csv,\nb,../b.h5ad,,author\n", "sheets/s.csv"
    )
    for name in ("sheets/own.csv", "all.csv"):
        (folder.path / name).touch()
    (a, b), _ = folder.check(sheet, truth_key="mine", truth_csv="all.csv")
    assert (a["report"], b["report"]) == ({"truth_key": "mine"}, {"truth_key": "author"})
    assert a["truth_csvs"] == [str(folder.path / "sheets" / "own.csv"), str(folder.path / "own.csv")]
    assert b["truth_csvs"] == [str(folder.path / "all.csv")]
    (a, b), _ = folder.check(folder.sheet("sample,path\na,a.h5ad\nb,b.h5ad\n"))
    assert a["truth_csvs"] == [] and a["report"] == {}


def test_known_labels_without_a_column_or_a_file_are_told(folder: Folder) -> None:
    sheet = folder.sheet("sample,path,truth_csv\na,a.h5ad,none.csv\nb,b.h5ad,\n")
    assert folder.problems(sheet, truth_csv="gone.csv") == [
        "line 2, truth_csv: needs truth_key: the column of it that holds the labels",
        "line 2, truth_csv: 'none.csv' does not exist",
        "--truth_csv: needs truth_key: the column of it that holds the labels",
        "--truth_csv: 'gone.csv' does not exist",
    ]


def test_a_map_of_known_labels_goes_with_the_settings_and_needs_labels_to_map(folder: Folder) -> None:
    sheet = folder.sheet("sample,path,truth_key\na,a.h5ad,author\nb,b.h5ad,\n")
    (folder.path / "map.csv").touch()
    assert folder.check(sheet)[1]["truth_map"] is None
    assert folder.check(sheet, truth_map="map.csv")[1]["truth_map"] == str(folder.path / "map.csv")
    assert folder.problems(sheet, truth_map="gone.csv") == [
        f"--truth_map: '{folder.path / 'gone.csv'}' does not exist"
    ]
    sheet = folder.sheet("sample,path\na,a.h5ad\n")
    assert folder.check(sheet, truth_key="author", truth_map="map.csv")[1]["truth_map"]
    (problem,) = folder.problems(sheet, truth_map="map.csv")
    assert problem.startswith("--truth_map: needs truth_key")


def test_samples_are_merged_only_where_that_was_asked_for(folder: Folder) -> None:
    sheet = folder.sheet("sample,path\na,a.h5ad\n")
    assert folder.check(sheet)[1]["merge"] is None
    assert folder.check(sheet, merge="true", seed=7)[1]["merge"] == {"cluster_resolution": 1, "seed": 7}
    assert folder.problems(sheet, merge="maybe")[0].startswith("--merge: 'maybe'")


def test_the_users_clusters_are_each_samples_own_and_of_the_whole_where_there_is_one_file(
    folder: Folder,
) -> None:
    sheet = folder.sheet("sample,path,cluster_key\na,a.h5ad,leiden\nb,b.h5ad,\n")
    (a, b), settings = folder.check(sheet, merge="true", cluster_resolution=2)
    assert (a["annotate"], b["annotate"]) == ({"cluster_key": "leiden"}, {})
    assert settings["merge"] == {"cluster_resolution": 2, "seed": 0}
    assert settings["annotate"]["cluster_resolution"] == 2
    (a, b), _ = folder.check(sheet, cluster_key="mine")
    assert (a["annotate"], b["annotate"]) == ({"cluster_key": "leiden"}, {"cluster_key": "mine"})
    one = folder.sheet("sample,path\na,a.h5ad\n")
    assert folder.check(one, merge="true", cluster_key="mine")[1]["merge"]["cluster_key"] == "mine"
    assert folder.problems(one, cluster_key="a;b")[0].startswith("--cluster_key: 'a;b' must start")
    assert folder.problems(one, cluster_resolution=0) == [
        "--cluster_resolution: '0' is not a number from 0.01 to 100"
    ]


def test_how_strict_a_model_is_asked_to_be_reaches_annotate(folder: Folder) -> None:
    sheet = folder.sheet("sample,path\na,a.h5ad\n")
    plain = folder.check(sheet)[1]["annotate"]
    assert plain["reject_novel"] == "true" and not {"min_probability", "novelty_limit"} & plain.keys()
    asked = folder.check(sheet, min_probability=0.7, novelty_limit=0.95)[1]["annotate"]
    assert (asked["min_probability"], asked["novelty_limit"]) == (0.7, 0.95)
    assert folder.check(sheet, reject_novel="false")[1]["annotate"]["reject_novel"] == "false"
    # The share of false alarms, where the novelty from which on cells are rejected was asked for.
    assert folder.problems(sheet, novelty_limit=0.02) == [
        "--novelty_limit: '0.02' is not a number from 0.5 to 1"
    ]
    assert folder.problems(sheet, min_probability=70) == [
        "--min_probability: '70' is not a number from 0 to 1"
    ]
    assert folder.problems(sheet, reject_novel="false", novelty_limit=0.9)[0].startswith(
        "--novelty_limit: says from"
    )


# --- for CELLxGENE ---


def test_what_the_curator_gives_reaches_its_own_sample_and_no_other_step(folder: Folder) -> None:
    text = "sample,path,donor_id,tissue_type,is_primary_data\na,a.h5ad,d1,tissue,FALSE\nb,b.h5ad,,,\n"
    samples, _ = folder.check(folder.sheet(text))
    assert samples[0]["curate"] == {"donor_id": "d1", "tissue_type": "tissue", "is_primary_data": "false"}
    assert samples[1]["curate"] == {}
    assert "donor_id" not in samples[0]["convert"]


@pytest.mark.parametrize(
    "term", ["EFO:0009922", "MONDO:0005148 || MONDO:0005737", "CVCL_0023", "unknown' --x", "EFO", "a:b;c"]
)
def test_an_ontology_id_is_held_to_its_form(folder: Folder, term: str) -> None:
    sheet = folder.sheet(f"sample,path,disease_ontology_term_id\na,a.h5ad,{term}\n")
    if term[-1].isdigit():
        assert folder.check(sheet)[0][0]["curate"] == {"disease_ontology_term_id": term}
    else:
        (problem_,) = folder.problems(sheet)
        assert "disease_ontology_term_id" in problem_ and "EFO:0009922" in problem_


def test_a_reference_needs_a_filter_and_is_human_where_nothing_else_is_said(folder: Folder) -> None:
    assert any("--census" in line for line in folder.problems(mode="reference", input=None))
    _, settings = folder.check(mode="reference", census="tissue_general == 'lung'", census_uri="census")
    assert settings["census"] == {
        "filter": "tissue_general == 'lung'",
        "version": "stable",
        "cells_per_type": 2000,
        "holdout_donors": 0,
        "seed": 0,
        "organism": "human",
        "uri": str(folder.path / "census"),
    }
    Query(**settings["census"])


# --- shards ---


def test_shards_are_of_whole_chunks_and_off_where_they_are_not_asked_for(folder: Folder) -> None:
    found = [
        folder.check(input="a.h5ad", shard_cells=cells)[1]["shard_cells"] for cells in (None, "50", 9000)
    ]
    assert found == [None, 50, 5 * CHUNK_ROWS]


def test_shards_and_fine_tuning_do_not_go_together(folder: Folder) -> None:
    (line,) = folder.problems(input="a.h5ad", shard_cells=50, surgery=True)
    assert line.startswith("--shard_cells: --surgery fine-tunes")
    (line,) = folder.problems(input="a.h5ad", shard_cells=0)
    assert line.startswith("--shard_cells: ")


# --- sheets made to do harm ---


def chained(line: str, first: str) -> str:
    """Ten anchors, each of nine of the one before."""
    pairs = zip("abcdefghij", "bcdefghijk", strict=True)
    return first + "".join(line.format(new=new, old=",".join([f"*{old}"] * 9)) for old, new in pairs)


@pytest.mark.parametrize(
    "text",
    [
        chained("- &{new} [{old}]\n", "- &a [x,x,x,x,x,x,x,x,x]\n"),
        chained("- sample: &{new} [{old}]\n  path: x\n", "- sample: &a [x]\n  path: x\n"),
        chained("- &{new} {{<<: [{old}]}}\n", "- &a {k0: 1, k1: 2}\n"),
        "- &a {sample: a, path: [*a]}\n",
        "[" * 100_000,
        "- " * 100_000 + "x",
        "- sample: !!timestamp x\n  path: x\n",
        "- sample: 2001-99-99\n  path: x\n",
        "- sample: !!int x\n  path: x\n",
        "- sample: " + "9" * 6000 + "\n  path: x\n",
        "- ? [1, 2]\n  : x\n  sample: a\n",
        '- sample: "\\ud800"\n  path: "\\ud800"\n',
        "x" * 2_000_000,
    ],
)
def test_yaml_that_grows_or_breaks_as_it_is_read_is_refused_in_moments(folder: Folder, text: str) -> None:
    import time

    started = time.process_time()
    problems = folder.problems(folder.sheet(text, "s.yaml"))
    assert time.process_time() - started < 5
    assert problems and all(len(problem) < 1000 for problem in problems)


def test_merged_defaults_of_yaml_are_read(folder: Folder) -> None:
    text = "- &first {sample: a, path: a.h5ad, organism: human}\n- {<<: *first, sample: b, path: b.h5ad}\n"
    samples, _ = folder.check(folder.sheet(text, "s.yaml"))
    assert [sample["convert"]["organism"] for sample in samples] == ["human", "human"]


def test_a_sheet_of_many_problems_or_columns_is_told_in_moments(folder: Folder) -> None:
    import time

    started = time.process_time()
    many = folder.sheet("sample,path\n" + "".join(f"a{i},-\n" for i in range(15_000)))
    assert len(folder.problems(many)) == 500
    wide = folder.sheet("sample,path," + ",".join(f"c{i}" for i in range(100_000)) + "\na,a.h5ad\n")
    assert "100,002 columns; is it another file?" in folder.problems(wide)[0]
    large = folder.sheet("sample,path\n" + "a,a.h5ad\n" * 3_000_000)
    assert "27,000,012 bytes, and a sheet at most" in folder.problems(large)[0]
    assert time.process_time() - started < 30


@pytest.mark.parametrize("name", ["-x.h5ad", "#x.h5ad", "there/-x.h5ad", "there/#x.h5ad", "x\u2028.h5ad"])
def test_no_path_ends_in_what_a_command_takes_for_an_option_or_a_comment(folder: Folder, name: str) -> None:
    assert any("path" in problem for problem in folder.problems(folder.sheet(f"sample,path\na,{name}\n")))


@pytest.mark.parametrize("name", ["a-b#c/x.h5ad", "-", "x" * 300, "x/" * 3000])
def test_a_path_that_no_disk_can_hold_does_not_exist_and_others_may_hold_any_letter(
    folder: Folder, name: str
) -> None:
    problems = folder.problems(folder.sheet(f"sample,path\na,{name}\n"))
    assert ("does not exist" in problems[0]) is (name != "-")


def test_a_long_value_is_shown_by_both_ends() -> None:
    long = f"/data/{'deep/' * 60}sample.h5ad"
    assert shown("/data/sample.h5ad") == "'/data/sample.h5ad'"
    assert len(shown(long)) == 202
    assert shown(long).startswith("'/data/deep/") and shown(long).endswith("/sample.h5ad'")
