"""What holds of any matrix, any sheet, any parameters and any manifest, tried on what hypothesis thinks of."""

from __future__ import annotations

import csv
import io
import json
import re
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anndata as ad
import h5py
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import yaml
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from model_maker import make_model
from tenx_files import IDS, SYMBOLS, barcodes, write_folder, write_h5_v2, write_h5_v3

from cellscribe import h5ad_matrix, mtx, stored, tenx
from cellscribe.check_input import run_check
from cellscribe.check_models import Catalogues
from cellscribe.convert import ConvertOptions, run_convert
from cellscribe.errors import InputError, ModelFetchError
from cellscribe.model.manifest import MANIFEST, read_manifest, verify_model
from cellscribe.schema import parameters

ROOT = Path(__file__).parents[2]
SCHEMA = json.loads((ROOT / "nextflow_schema.json").read_text())
DEFAULTS = {name: part.get("default") for name, part in parameters(SCHEMA).items()}
SAFE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


def some(n: int) -> Callable[[Any], Any]:
    """The same examples on every machine, without a clock."""
    return settings(
        max_examples=n,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
    )


# --- matrices ---

Numbers = np.ndarray


def table(x: Any, n_obs: int, n_vars: int, **more: Any) -> ad.AnnData:
    var = pd.DataFrame({"gene_ids": IDS[:n_vars]}, index=SYMBOLS[:n_vars])
    return ad.AnnData(x, obs=pd.DataFrame(index=barcodes(n_obs)), var=var, **more)


def h5ad(make: Callable[[Numbers], Any]) -> Callable[[Path, Numbers], Path]:
    def write(folder: Path, numbers: Numbers) -> Path:
        table(make(numbers), *numbers.shape).write_h5ad(folder / "x.h5ad")
        return folder / "x.h5ad"

    return write


def h5ad_raw(folder: Path, numbers: Numbers) -> Path:
    data = table(sp.csr_matrix(numbers.shape, dtype=np.float32), *numbers.shape)
    data.raw = table(sp.csr_matrix(numbers), *numbers.shape)
    data.write_h5ad(folder / "x.h5ad")
    return folder / "x.h5ad"


def h5ad_layer(folder: Path, numbers: Numbers) -> Path:
    table(None, *numbers.shape, layers={"counts": numbers}).write_h5ad(folder / "x.h5ad")
    return folder / "x.h5ad"


def names(numbers: Numbers) -> dict[str, Any]:
    return {"ids": IDS[: numbers.shape[1]], "symbols": SYMBOLS[: numbers.shape[1]]}


def h5_v2(folder: Path, numbers: Numbers) -> Path:
    path = write_h5_v2(folder / "x.h5", {"GRCh38": numbers}, ids=names(numbers)["ids"])
    with h5py.File(path, "r+") as file:
        del file["GRCh38/gene_names"]
        file["GRCh38/gene_names"] = np.array(names(numbers)["symbols"], dtype="S")
        as_given(file["GRCh38"], numbers)
    return path


def h5_v3(folder: Path, numbers: Numbers) -> Path:
    path = write_h5_v3(folder / "x.h5", numbers, **names(numbers))
    with h5py.File(path, "r+") as file:
        as_given(file["matrix"], numbers)
    return path


def as_given(group: Any, numbers: Numbers) -> None:
    """The numbers in their own type: the writer makes integers of them."""
    del group["data"]
    group["data"] = sp.csr_matrix(numbers).data


def folder_of(**how: Any) -> Callable[[Path, Numbers], Path]:
    return lambda folder, numbers: write_folder(folder / "x", numbers, **names(numbers), **how)


FORMS: dict[str, Callable[[Path, Numbers], Path]] = {
    "matrix.mtx of version 3": folder_of(),
    "matrix.mtx of version 2": folder_of(version=2, compress=False),
    ".h5 of version 3": h5_v3,
    ".h5 of version 2": h5_v2,
    "h5ad, CSR": h5ad(sp.csr_matrix),
    "h5ad, CSC": h5ad(sp.csc_matrix),
    "h5ad, dense": h5ad(np.asarray),
    "h5ad, raw": h5ad_raw,
    "h5ad, a layer": h5ad_layer,
}


def outcome(write: Callable[[Path, Numbers], Path], numbers: Numbers) -> list[list[float]] | None:
    """The counts that CONVERT reads, or None where it refuses."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "in").mkdir()
        (folder / "out").mkdir()
        options = ConvertOptions(
            sample="s1",
            input=write(folder / "in", numbers),
            output=folder / "out" / "counts.h5ad",
            metrics=folder / "out" / "convert.json",
        )
        try:
            run_convert(options)
        except InputError:
            assert not list((folder / "out").iterdir())
            return None
        data = ad.read_h5ad(options.output)
        assert list(data.obs_names) == barcodes(numbers.shape[0])
        assert list(data.var["gene_ids"]) == IDS[: numbers.shape[1]]
        assert {path.name for path in (folder / "out").iterdir()} == {"counts.h5ad", "convert.json"}
        return data.X.toarray().tolist()


def tiny(patch: pytest.MonkeyPatch) -> None:
    """Let nothing be read whole, and no block hold more than a few numbers."""
    patch.setattr(stored, "BLOCK", 5)
    patch.setattr(stored, "BLOCK_ROWS", 2)
    for module in (h5ad_matrix, mtx):
        patch.setattr(module, "IN_MEMORY", 0)
    for module in (h5ad_matrix, mtx, tenx):
        patch.setattr(module, "BLOCK", 3)


shapes = st.tuples(st.integers(1, 6), st.integers(1, 6))
counts = arrays.arrays(
    st.sampled_from([np.int32, np.int64, np.float32, np.float64]),
    shapes,
    elements=st.one_of(st.just(0), st.integers(0, 3), st.sampled_from([255, 70_000, 2**24])),
    fill=st.just(0),
)
# What looks like counts and is none, what is by a hair, and what is.
numbers = arrays.arrays(
    np.float64,
    shapes,
    elements=st.sampled_from(
        [0, 1, 2, 5, 0.5, 1 + 1e-9, -1, -1e-9, 1e-9, 2.0**24 + 2, np.nan, np.inf, -np.inf]
    ),
    fill=st.just(0),
)


@pytest.mark.parametrize("way", ["whole", "by blocks"])
@pytest.mark.parametrize("form", FORMS)
@given(matrix=counts)
@some(5)
def test_any_counts_are_read_to_the_same_counts_from_every_form(form, way, matrix):
    with pytest.MonkeyPatch.context() as patch:
        if way == "by blocks":
            tiny(patch)
        assert outcome(FORMS[form], matrix) == (matrix.astype(float).tolist() if matrix.any() else None)


@given(matrix=numbers)
@some(10)
def test_any_numbers_are_taken_for_counts_in_every_form_or_in_none(matrix):
    found = {form: outcome(write, matrix) for form, write in FORMS.items()}
    first = found["h5ad, dense"]
    assert all(read == first for read in found.values()), found
    if first is not None:
        assert np.allclose(matrix, first, atol=1e-6)


texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=8)


@given(
    cells=st.lists(texts, min_size=3, max_size=3), genes=st.lists(texts, min_size=4, max_size=4), column=texts
)
@example(cells=["", "", ""], genes=["", "", "", ""], column="")
@example(cells=["a", "a", "a-1"], genes=["A", "A", "A-1", "A_ENSG00000198851"], column="gene_symbols")
@some(25)
def test_cells_and_genes_may_have_any_names(cells, genes, column):
    matrix = np.arange(12).reshape(3, 4)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        data = ad.AnnData(sp.csr_matrix(matrix))
        data.write_h5ad(folder / "x.h5ad")
        with h5py.File(folder / "x.h5ad", "r+") as file:
            for place, values in (("obs", cells), ("var", genes)):
                del file[f"{place}/_index"]
                ad.io.write_elem(file[place], "_index", np.array(values, dtype=object))
            if column not in ("", ".") and "/" not in column:
                ad.io.write_elem(file["var"], column, np.array(genes, dtype=object))
                file["var"].attrs["column-order"] = np.array([column], dtype=h5py.string_dtype())
        run_convert(
            ConvertOptions("s1", folder / "x.h5ad", folder / "s1.counts.h5ad", folder / "s1.convert.json")
        )
        read = ad.read_h5ad(folder / "s1.counts.h5ad")
        assert np.array_equal(read.X.toarray(), matrix)
        assert read.obs_names.is_unique and read.var_names.is_unique


# --- sheets and parameters ---


def checked(folder: Path, sheet: Path | None, params: dict[str, Any]) -> list[dict[str, Any]]:
    """The samples, or InputError."""
    for name in ("a.h5ad", "b.h5ad", "model.zip"):
        (folder / name).touch()
    launch = {
        "params": {**DEFAULTS, "model": "./model.zip", **params},
        "launch_dir": str(folder),
        "project_dir": str(ROOT),
        "sees_paths": True,
    }
    (folder / "launch.json").write_text(json.dumps(launch))
    samples, _ = run_check(
        folder / "launch.json",
        sheet,
        ROOT / "nextflow_schema.json",
        ROOT / "assets" / "schema_input.json",
        Catalogues(ROOT / "assets" / "models.csv"),
    )
    assert all(SAFE_NAME.fullmatch(sample["id"]) for sample in samples)
    return samples


def sheet_outcome(name: str, content: bytes) -> tuple[str, Any]:
    """The samples of a sheet, or its problems without the lines that they are in."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, name)
        path.write_bytes(content)
        try:
            return "samples", without_place(checked(Path(folder), path, {"input": name}), folder)
        except InputError as error:
            assert error.exit_code == 3 and "\n  - " in str(error)
            return "problems", without_place(str(error), folder)


def without_place(value: Any, folder: str) -> Any:
    text = json.dumps(value).replace(folder, "")
    return json.loads(re.sub(r"(line|entry) \d+|sheet\.(csv|tsv|yaml)", "", text))


COLUMNS = ("sample", "path", "batch", "organism", "max_pct_mt", "is_primary_data", "title")
cell = st.one_of(
    st.just(""),
    st.sampled_from(
        [
            "a",
            "b",
            "A",
            "007",
            "1.10",
            "no",
            "null",
            "~",
            "2024-01-05",
            "a.h5ad",
            "s3://x/y",
            "human",
            "5",
            "TRUE",
        ]
    ),
    st.text(max_size=12),
    st.text("ab,;\t\"'\n\r |#:{}[]&*!%@`-?", max_size=8),
)
RIGHT = (
    ["a", "b", "007", "1.10", "no", "1e3", "null.1", "2024-01-05", "0x1F", "1_000", " on "],
    ["a.h5ad", "./b.h5ad", " a.h5ad", "s3://x/y", "https://host.org/a.h5?x=1"],
    ["", "b 1", "12:30", "1.0"],
    ["", "auto", "human", "Mus musculus"],
    ["", "5", "1e1", " 7 ", "+8"],
    ["", "TRUE", "false", " True"],
    ["", "Lung, of one donor", "no", "Title: #1 & more?"],
)
right = st.lists(
    st.tuples(*map(st.sampled_from, RIGHT)), min_size=1, max_size=4, unique_by=lambda row: row[0]
)
rows = st.lists(
    st.tuples(*([cell] * len(COLUMNS))).filter(lambda row: any(value.strip() for value in row)),
    min_size=1,
    max_size=4,
)


def delimited(rows: list[tuple[str, ...]], delimiter: str) -> bytes:
    text = io.StringIO(newline="")
    writer = csv.writer(text, delimiter=delimiter)
    writer.writerows([COLUMNS, *rows])
    return text.getvalue().encode(errors="surrogatepass")


def in_every_form(rows: list[tuple[str, ...]]) -> tuple[str, Any]:
    """What comes of the same rows as CSV, TSV and YAML."""
    as_csv = sheet_outcome("sheet.csv", delimited(rows, ","))
    assert sheet_outcome("sheet.tsv", delimited(rows, "\t")) == as_csv
    entries = [dict(zip(COLUMNS, row, strict=True)) for row in rows]
    assert sheet_outcome("sheet.yaml", yaml.safe_dump(entries).encode()) == as_csv
    return as_csv


@given(rows=right)
@some(40)
def test_right_rows_come_to_the_same_samples_as_csv_tsv_and_yaml(rows):
    what, samples = in_every_form(rows)
    assert what == "samples" and [sample["id"] for sample in samples] == [row[0].strip() for row in rows]
    plain = "".join(f"- sample: {row[0]}\n  path: {row[1]}\n  batch: {row[2]}\n" for row in rows)
    ids = [sample["id"] for sample in sheet_outcome("sheet.yaml", plain.encode())[1]]
    assert ids == [row[0].strip() for row in rows]


@given(rows=rows)
@some(60)
def test_any_rows_come_to_the_same_as_csv_tsv_and_yaml(rows):
    in_every_form(
        [tuple(value.replace("\0", "").encode(errors="replace").decode() for value in row) for row in rows]
    )


piece = st.one_of(
    st.sampled_from(["sample", "path", "sample,path\n", "a,a.h5ad\n", "\n", "\r\n", ",", ";", "\t", '"', "'", "- ",
    ": ", "? ",
                     "{", "}", "[", "]", "&a ", "*a", "<<: ", "!!", "!!int ", "!!set ", "~", "|", ">", "#", "---\n",
                     "  ", "a.h5ad",
                     "- sample: a\n  path: a.h5ad\n", "samples:\n", "\ufeff", "\u2028", "\x85"]),
    st.text(max_size=4),
)  # fmt: skip


@pytest.mark.parametrize("name", ["sheet.csv", "sheet.tsv", "sheet.yaml"])
@given(
    content=st.one_of(
        st.binary(max_size=40),
        st.lists(piece, max_size=12).map(lambda parts: "".join(parts).encode(errors="replace")),
    )
)
@some(150)
def test_any_content_of_a_sheet_gives_samples_or_problems(content, name):
    sheet_outcome(name, content)


scalars = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False, allow_infinity=False), st.text(max_size=12),
    st.sampled_from(["pbmc", "pbmc==1.3", ",", "models:/x/1", "models:/", "train", "reference", "a: b vs c", "vs",
    "5", "-1", "1e400",
                     "true", "a.h5ad,b.h5ad", "s3://x/y", "../..", "/", "list", "ab" * 32]),
)  # fmt: skip
values = st.one_of(
    scalars, st.lists(scalars, max_size=2), st.dictionaries(st.text(max_size=3), scalars, max_size=2)
)


@given(
    params=st.dictionaries(
        st.one_of(st.sampled_from(sorted(DEFAULTS)), st.text(max_size=5)), values, max_size=5
    )
)
@some(200)
def test_any_parameters_give_settings_or_problems(params):
    with tempfile.TemporaryDirectory() as folder:
        try:
            checked(Path(folder), None, {"input": "a.h5ad", **params})
        except InputError as error:
            assert "\n  - " in str(error)


# --- manifests ---

tree = st.recursive(
    st.one_of(scalars, st.sampled_from(["T cell", "CL:0000084", "logistic", "../x", "genes.tsv", 2**70])),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)


def places(value: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Where anything stands in a JSON value."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [at, *(place for key, part in inner for place in places(part, (*at, key)))]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    folder = make_model(tmp_path_factory.mktemp("model") / "tiny")
    return folder, json.loads((folder / MANIFEST).read_text())


@given(data=st.data())
@some(150)
def test_any_change_of_a_manifest_gives_a_manifest_or_an_error_of_ours(model, data):
    folder, manifest = model
    changed = json.loads(json.dumps(manifest))
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.sampled_from(places(changed)))
        what = data.draw(st.sampled_from(["replace", "remove", "add"]))
        new = data.draw(tree)
        if not place:
            changed = new if what == "replace" else changed
            continue
        holder = changed
        for key in place[:-1]:
            holder = holder[key]
        if what == "remove":
            del holder[place[-1]]
        elif what == "add" and isinstance(holder[place[-1]], dict):
            holder[place[-1]][data.draw(st.text(max_size=5))] = new
        else:
            holder[place[-1]] = new
    text = json.dumps(changed, ensure_ascii=data.draw(st.booleans())).encode(errors="replace")
    (folder / MANIFEST).write_bytes(text)
    read_or_refused(folder)


@given(content=st.one_of(st.binary(max_size=60), st.text('{}[]":,0-eE.\\u', max_size=30).map(str.encode)))
@some(100)
def test_any_content_of_a_manifest_is_an_error_of_ours(model, content):
    folder, _ = model
    (folder / MANIFEST).write_bytes(content)
    assert not read_or_refused(folder)


def read_or_refused(folder: Path) -> bool:
    """Whether a manifest was read; ModelFetchError is the only other end."""
    try:
        assert isinstance(read_manifest(folder), dict)
        verify_model(folder)
    except ModelFetchError as error:
        assert error.seen and error.todo
        return False
    return True
