"""Sample sheets and parameters, as CHECK_INPUT meets them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from bad_input.case import ROOT, Case, Holds, Maker

HOSTILE = (
    "$(touch x)",
    "`touch x`",
    "a'b",
    "a;b",
    "-rf",
    "a\\b",
    "<b>",
    "a|b",
    "a&b",
    "~;",
    "a*",
    "{a}",
    "$HOME",
)


def launch(folder: Path, params: dict[str, Any]) -> list[object]:
    """The parameters as main.nf hands them over, and two samples and a model to be named by them."""
    for name in ("a.h5ad", "b.h5ad", "model.zip"):
        (folder / name).touch()
    whole = {
        "params": {"model": "./model.zip", **params},
        "launch_dir": str(folder),
        "project_dir": str(ROOT),
        "sees_paths": True,
    }
    (folder / "launch.json").write_text(json.dumps(whole))
    return ["--launch", folder / "launch.json"]


def sheet(content: str | bytes, name: str = "sheet.csv", **params: Any) -> Maker:
    """A sheet with this content beside the samples `a.h5ad` and `b.h5ad`."""

    def make(folder: Path) -> list[object]:
        (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
        return [*launch(folder, {"input": name, **params}), "--sheet", folder / name]

    return make


def given(**params: Any) -> Maker:
    """Parameters alone; the input is one sample's data."""
    return lambda folder: launch(folder, {"input": "a.h5ad", **params})


def with_files(make: Maker, *names: str) -> Maker:
    """The same, and some empty files beside it; a name that ends in / is a folder."""

    def made(folder: Path) -> list[object]:
        for name in names:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).mkdir() if name.endswith("/") else (folder / name).touch()
        return list(make(folder))

    return made


def samples(out: Path) -> list[dict[str, Any]]:
    return json.loads((out / "samples.json").read_text())


def named(*pairs: tuple[str, str]) -> Holds:
    """The samples, by their names and the paths that the sheet gives."""

    def check(out: Path) -> None:
        assert [(sample["id"], sample["path"]) for sample in samples(out)] == list(pairs)

    listed = ", ".join(f"`{name}` of `{path}`" for name, path in pairs[:3])
    return Holds(listed if len(pairs) <= 3 else f"{len(pairs):,} samples, in order", check)


def option(step: str, name: str, value: object) -> Holds:
    """What the first sample's step is given."""

    def check(out: Path) -> None:
        assert samples(out)[0][step].get(name) == value

    return Holds(f"{step} is given {name} `{value}`", check)


A, BOTH = named(("a", "a.h5ad")), named(("a", "a.h5ad"), ("b", "b.h5ad"))
PLAIN = "sample,path\na,a.h5ad\nb,b.h5ad\n"


def bad(what: str, make: Maker, *says: str) -> Case:
    return Case(what, "CHECK_INPUT", make, 3, says)


def good(what: str, make: Maker, holds: Holds, *says: str) -> Case:
    return Case(what, "CHECK_INPUT", make, 0, says, holds)


def many(place: str, n: int = 5000) -> str:
    return "sample,path\n" + "".join(f"s{i},{place}/{i}\n" for i in range(n))


def yaml_bomb() -> str:
    """Nine lists, each of nine of the one before: a billion words once it is written out."""
    lines = ["- sample: a", "  path: a.h5ad", "  batch: &l0 [x, x, x, x, x, x, x, x, x]"]
    for i in range(1, 10):
        lines += [f"- sample: s{i}", "  path: a.h5ad", f"  batch: &l{i} [{', '.join([f'*l{i - 1}'] * 9)}]"]
    return "\n".join(lines)


SHEETS = [
    bad("a folder of Cell Ranger to be split by a column of cells",
        sheet("sample,path,sample_key\na,a.h5ad,donor\nb,.,donor\n"), "line 3, sample_key: '.' is no .h5ad"),
    bad("a name that a sample of a split file may get too",
        sheet("sample,path,sample_key\na,a.h5ad,donor\na_b,b.h5ad,\n"),
        "line 3, sample: 'a_b' may be one of the samples of 'a' too"),
    bad("a sheet without the column `path`", sheet("sample,file\na,a.h5ad\n"),
        "no column 'file'", "the column 'path' is missing; seen: sample, file"),
    bad("a sheet without the column `sample`", sheet("path\na.h5ad\n"), "the column 'sample' is missing; seen: path"),
    bad("a misspelt column", sheet("sampel,path\na,a.h5ad\n"), "no column 'sampel'; did you mean 'sample'?"),
    bad("a column that no sheet has", sheet("sample,path,colour\na,a.h5ad,red\n"), "no column 'colour'; take it out"),
    bad("a sheet without a header", sheet("a,a.h5ad\nb,b.h5ad\n"), "the column 'sample' is missing; seen: a, a.h5ad"),
    bad("columns separated by spaces", sheet("sample path\na a.h5ad\n"),
        "the column 'sample' is missing; seen: sample_path"),
    bad("a column twice", sheet("sample,path,path\na,a.h5ad,b.h5ad\n"), "has 2 columns named 'path'; keep one"),
    bad("a name twice", sheet("sample,path\na,a.h5ad\na,b.h5ad\n"),
        "line 3, sample: 'a' was already given in line 2; give each sample its own name"),
    bad("names that differ in capitals alone", sheet("sample,path\nLung,a.h5ad\nlung,b.h5ad\n"),
        "line 3, sample: 'lung' and 'Lung' (line 2) differ in capitals alone"),
    bad("a name with a space", sheet("sample,path\nlung 1,a.h5ad\n"),
        "line 2, sample: 'lung 1' must start with a letter or digit and hold only"),
    good("spaces around names and values", sheet(" sample , Path\n a , a.h5ad \n"), A),
    good("a path with spaces", with_files(sheet("sample,path\na,my run/a 1.h5ad\n"), "my run/a 1.h5ad"),
         named(("a", "my run/a 1.h5ad"))),
    bad("a name with an accent, and one in Chinese", sheet("sample,path\nmoelle_épinière,a.h5ad\n肺,b.h5ad\n"),
        "line 2, sample: 'moelle_épinière' must start", "line 3, sample: '肺' must start"),
    good("a path with accents", with_files(sheet("sample,path\na,données/é.h5ad\n"), "données/é.h5ad"),
         named(("a", "données/é.h5ad"))),
    bad("shell metacharacters in names", sheet("sample,path\n" + "".join(f"{text},a.h5ad\n" for text in HOSTILE)),
        *(f"line {i}, sample: '{text}' must start" for i, text in enumerate(HOSTILE, start=2))),
    bad("shell metacharacters in paths",
        sheet("sample,path\n" + "".join(f"s{i},{text}\n" for i, text in enumerate(HOSTILE))),
        *(f"line {i}, path: '{text}' is a path with a character that shells give a meaning"
          for i, text in enumerate(HOSTILE, start=2))),
    bad("shell metacharacters in another column",
        sheet("sample,path,batch\n" + "".join(f"s{i},a.h5ad,{text}\n" for i, text in enumerate(HOSTILE))),
        *(f"line {i}, batch: '{text}' must start" for i, text in enumerate(HOSTILE, start=2))),
    bad("a formula, as spreadsheets run them", sheet('sample,path\n"=cmd|\'/C calc\'!A1",a.h5ad\n'),
        "line 2, sample: '=cmd|'/C calc'!A1' must start"),
    bad("`../` in a name", sheet("sample,path\n../../etc/a,a.h5ad\n..,b.h5ad\n"),
        "line 2, sample: '../../etc/a' must start", "line 3, sample: '..' must start"),
    good("`../` in a path", sheet("sample,path\na,../given/a.h5ad\n"), named(("a", "../given/a.h5ad"))),
    bad("an empty file", sheet(""), "sheet sheet.csv: is empty; its first line must be: sample,path"),
    bad("blank lines alone", sheet("\n \n,,\n"), "sheet sheet.csv: is empty"),
    bad("a header alone", sheet("sample,path\n"), "has a header but no samples; add one line a sample"),
    good("a byte order mark", sheet("\ufeff" + PLAIN), BOTH),
    good("Windows line ends", sheet(PLAIN.replace("\n", "\r\n")), BOTH),
    good("old Mac line ends", sheet(PLAIN.replace("\n", "\r")), BOTH),
    good("tabs in a .csv", sheet(PLAIN.replace(",", "\t")), BOTH),
    good("semicolons", sheet(PLAIN.replace(",", ";")), BOTH),
    good("UTF-16, as spreadsheets save Unicode text", sheet(PLAIN.replace(",", "\t").encode("utf-16"), "s.tsv"), BOTH),
    good("blank rows, and rows of commas", sheet("\n\nsample,path,\n\na,a.h5ad,\n,,\nb,b.h5ad,\n\n"), BOTH),
    good("a row that is cut short", sheet("sample,path,batch\na,a.h5ad\n"), A),
    good("quoted commas", with_files(sheet('sample,path\na,"a, b.h5ad"\n'), "a, b.h5ad"), named(("a", "a, b.h5ad"))),
    bad("a comma in a path that is not quoted", sheet("sample,path\na,a, b.h5ad\n"),
        "line 2: has 3 fields, the header 2; put double quotes around"),
    bad("a quote that is never closed", sheet('sample,path\na,"a.h5ad\nb,b.h5ad\n'),
        "look for an unclosed double quote"),
    bad("a line break within a name", sheet('sample,path\n"a\nb",a.h5ad\n'), "line 3, sample: 'a?b' must start"),
    good("5,000 rows", sheet(many("s3://runs")), named(*((f"s{i}", f"s3://runs/{i}") for i in range(5000)))),
    bad("5,000 rows whose paths are all wrong", sheet(many("nowhere")),
        "5,000 problems", "line 2, path: 'nowhere/0' does not exist", "and 4,500 more"),
    bad("a file that is not there", sheet("sample,path\na,none.h5ad\n"), "line 2, path: 'none.h5ad' does not exist"),
    bad("a folder where the sheet should be", with_files(given(input="s.csv"), "s.csv/"),
        "--input: the sample sheet 's.csv' does not exist, or is no file"),
    bad("a folder where a table of known labels should be",
        with_files(sheet("sample,path,truth_csv,truth_key\na,a.h5ad,t.csv,type\n"), "t.csv/"),
        "line 2, truth_csv: 't.csv' is a folder; give a file"),
    bad("an Excel file", sheet(b"PK\x03\x04rest"), "sheet sheet.csv: is an Excel file; save it as CSV (UTF-8)"),
    bad("a sheet by a name that no sheet has", with_files(given(input="samples.xlsx"), "samples.xlsx"),
        "--input: 'samples.xlsx' is no sample sheet", "save it as .csv, .tsv or .yaml"),
    bad("an h5ad called .csv", sheet(b"\x89HDF\r\n\x1a\n" + bytes(100)), "byte 1 is no UTF-8 text"),
    bad("a Latin-1 letter", sheet("sample,path\ncafé,a.h5ad\n".encode("latin-1")),
        "byte 16 is no UTF-8 text; save it as CSV (UTF-8)"),
    bad("bytes of no text", sheet(b"sample,path\na\0,a.h5ad\n"), "holds bytes that are no text"),
    bad("a value of 200,000 letters", sheet(f"sample,path\n{'a' * 200_000},a.h5ad\n"),
        "line 2: cannot be read as a table (field larger than field limit"),
    bad("a name of 101 letters", sheet(f"sample,path\n{'a' * 101},a.h5ad\n"), "line 2, sample:", "100 at most"),
    bad("an empty name, an empty path", sheet("sample,path\n,a.h5ad\nb,\n"),
        "line 2, sample: is empty; every sample needs one", "line 3, path: is empty"),
    good("one path for two samples", sheet("sample,path\na,a.h5ad\nb,a.h5ad\n"),
         named(("a", "a.h5ad"), ("b", "a.h5ad")), "warning: line 3: sample 'b' is read from the same path"),
    bad("numbers that are none, or out of range",
        sheet('sample,path,max_pct_mt,min_genes\na,a.h5ad,"12,5",\nb,b.h5ad,101,-1\n'),
        "line 2, max_pct_mt: '12,5' is not a number from 0 to 100",
        "line 3, min_genes: '-1' is not a number of 0 or more",
        "line 3, max_pct_mt: '101' is not"),
    bad("bounds in the wrong order", sheet("sample,path,min_genes,max_genes\na,a.h5ad,20,10\n"),
        "line 2: min_genes (20) is above max_genes (10)"),
    bad("a word for true", sheet("sample,path,is_primary_data\na,a.h5ad,yes\n"), "'yes' is neither true nor false"),
    good("a name that is a number", sheet("sample,path\n007,a.h5ad\n"), named(("007", "a.h5ad"))),
    good("a YAML sheet whose names are numbers, dates and words for yes and no",
         sheet("".join(f"- {{sample: {name}, path: a.h5ad}}\n" for name in ("007", "2024-01-05", "no", "1.10")),
         "s.yaml"),
         named(*((name, "a.h5ad") for name in ("007", "2024-01-05", "no", "1.10")))),
    bad("a YAML sheet with an impossible date", sheet("- {sample: !!timestamp 2024-13-45, path: a.h5ad}", "s.yml"),
        "sheet s.yml: is no YAML: month must be in 1..12"),
    bad("a YAML sheet that is no list", sheet("a: 1", "s.yaml"),
        "must be a list of entries, each with 'sample' and 'path'"),
    bad("a YAML sheet with a tab before a name", sheet("- sample: a\n\tpath: a.h5ad\n", "s.yaml"),
        "s.yaml: is no YAML"),
    bad("a YAML sheet that would run code", sheet("- !!python/object/apply:os.system ['touch x']", "s.yaml"),
        "s.yaml: is no YAML: could not determine a constructor"),
    bad("a YAML sheet of 500 brackets", sheet("[" * 500, "s.yaml"), "s.yaml: is no YAML"),
    bad("a YAML sheet that unfolds to a billion words", sheet(yaml_bomb(), "s.yaml"),
        "entry 1, batch: is a list of values; give one", "entry 10, batch: is a list of values; give one"),
    bad("a YAML sheet with two paths in one entry", sheet("- {sample: a, path: [a.h5ad, b.h5ad]}", "s.yaml"),
        "entry 1, path: is a list of values; give one"),
]  # fmt: skip

PARAMETERS = [
    bad("misspelt parameters", given(doublts="off", **{"min-genes": 5, "minGenes": 5}),
        "--doublts: there is no such parameter; did you mean 'doublets'?", "--min-genes: there is no such parameter"),
    bad("values of the wrong type", given(seed="x", n_latent=1.5, use_gpu="maybe", run_name=True, n_mads="nan"),
        "--n_mads: 'nan' is not a number", "--run_name: 'true' stands where", "--n_latent: '1.5' is not a whole number",
        "--use_gpu: 'maybe' is neither true nor false", "--seed: 'x' is not a whole number"),
    bad("values out of range", given(max_pct_mt=101, min_gene_overlap=2, min_cells=0, seed=-1),
        "--min_gene_overlap: '2' is not a number from 0 to 1", "--max_pct_mt: '101' is not a number from 0 to 100",
        "--min_cells: '0' is not"),
    bad("words that a parameter does not take", given(organism="rat", qc="remove", doublets="no"),
        "--organism: 'rat' is not one of auto, human, mouse", "--qc: 'remove' is not one of filter, flag"),
    bad("a parameter without its value", given(run_name=True), "--run_name: 'true' stands where a value should"),
    bad("parameters that exclude each other", given(shard_cells=50, surgery=True),
        "--shard_cells: --surgery fine-tunes"),
    bad("bounds of parameters in the wrong order", given(min_counts=500, max_counts=100, min_gene_overlap=0.9),
        "min_counts (500) is above max_counts (100)", "min_gene_overlap (0.9) is above warn_gene_overlap (0.8)"),
    bad("known labels, and what they mean, without their column",
        with_files(given(truth_csv="t.csv", truth_map="m.csv"), "t.csv", "m.csv"),
        "--truth_csv: needs truth_key", "--truth_map: needs truth_key"),
    bad("a comparison that is none", given(compare="stim, ctrl"),
        "--compare: 'stim, ctrl' is no comparison; write it as"),
    bad("shell characters in parameters",
        given(run_name="$(touch x)", annotation_prefix="a/b", gene_column_name="`x`", outdir="a;b"),
        "--outdir: 'a;b' is a path with a character", "--gene_column_name: '`x`' must start",
        "--annotation_prefix: 'a/b'", "--run_name: '$(touch x)'"),
    bad("no input at all", given(input=None), "--input: needed: a sample sheet (.csv, .tsv, .yaml), or a Cell Ranger"),
    bad("an input that is nowhere", given(input="none/outs"), "--input, path: 'none/outs' does not exist"),
    bad("a model that no catalogue has", given(model="pmbc"), "'pmbc' is not in the catalogue; did you mean 'pbmc'?"),
    bad("a version that the model does not have", given(model="pbmc==99"),
        "'pbmc' is not in the catalogue in version '99'; there are:"),
    bad("a model that is nowhere", given(model="./none"), "--model:", "does not exist"),
    bad("a model twice", given(model="./model.zip,model.zip"), "are the same model; give each model once"),
    bad("a sha256 that is none", given(model_sha256="abc"), "--model_sha256: 'abc' must be 64 hexadecimal digits"),
    bad("one sha256 for two models", given(model="pbmc,./model.zip", model_sha256="ab" * 32),
        "--model_sha256: which of the models has it?"),
    bad("a registry's name that is none, without a server", given(model="models:/lung/Production"),
        "--model: 'models:/lung/Production'", "--mlflow_tracking_uri: needed"),
    bad("a password in an address", given(model="models:/lung/3", mlflow_tracking_uri="https://me:secret@example.org"),
        "--mlflow_tracking_uri: 'https://***@example.org'", "MLFLOW_TRACKING_PASSWORD"),
    bad("a catalogue that is nowhere", given(model="lung", catalogue="none.csv"),
        "--catalogue: 'none.csv' does not exist, or is no file"),
    bad("training without a reference or labels", given(mode="train"),
        "--reference: needed with --mode train", "--label_key: needed with --mode train"),
    bad("training on a folder", with_files(given(mode="train", reference="cells/", label_key="type"), "cells/"),
        "--reference:", "is a folder; give a file"),
    bad("a reference from the Census without a filter", given(mode="reference"),
        "--census: needed with --mode reference"),
    bad("a mode that there is not", given(mode="anotate"),
        "--mode: 'anotate' is not one of annotate, train, reference; "
        "did you mean 'annotate'?"),
    good("true, false and numbers as text", given(use_gpu="false", n_mads="4", seed="7"), option("qc", "n_mads", 4)),
    good("empty text for a parameter", given(run_name="", min_genes=" "), option("qc", "min_genes", None)),
]  # fmt: skip
