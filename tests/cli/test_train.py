"""train.py."""

import json
import runpy
from urllib.parse import quote

import pytest
from click.testing import CliRunner
from small_model import simulate, write_cl_map, write_reference

from cellscribe.model.manifest import verify_model


@pytest.fixture(autouse=True)
def keep_threads(monkeypatch):
    monkeypatch.setattr("cellscribe.cli.set_threads", lambda cpus: None)


@pytest.fixture(scope="module")
def command(root):
    return runpy.run_path(str(root / "bin" / "train.py"))["main"]


@pytest.fixture
def arguments(tmp_path):
    return {
        "--reference": str(write_reference(simulate(120), tmp_path / "one.h5ad")),
        "--label-key": "cell_type",
        "--batch-key": "donor",
        "--name": "tiny",
        "--kind": "logistic",
        "--cl-map": str(write_cl_map(tmp_path / "cl.csv")),
        "--n-top-genes": "60",
        "--output": str(tmp_path / "model"),
    }


def run(command, arguments, *more):
    return CliRunner().invoke(command, [item for pair in arguments.items() for item in pair] + list(more))


def test_two_references_make_one_verified_model(command, arguments, tmp_path):
    second = write_reference(simulate(60, seed=4), tmp_path / "two.h5ad")
    result = run(command, arguments, "--reference", str(second), "--levels", "broad", "--licence", "CC0")
    assert result.exit_code == 0, result.output
    manifest = verify_model(tmp_path / "model")
    assert manifest["training"]["n_cells"] == 180
    assert manifest["training"]["sources"] == ["one.h5ad", "two.h5ad"]
    assert [level["name"] for level in manifest["levels"]] == ["broad"]
    assert manifest["licence"] == "CC0" and manifest["genes"]["has_ids"]
    assert str(tmp_path) not in (tmp_path / "model" / "manifest.json").read_text()


def test_free_text_comes_escaped_or_as_it_is(command, arguments, tmp_path):
    text = 'O\'Neill & "others" 2024; 100 % – $(touch x)'
    about = quote(
        json.dumps({"citation": text, "licence": "CC BY 4.0", "lacks": "neutrophils, <i>"}), safe=""
    )
    result = run(command, arguments, "--about", about, "--description", "Simulated cells.")
    assert result.exit_code == 0, result.output
    manifest = verify_model(tmp_path / "model")
    assert [manifest[key] for key in ("citation", "licence", "description")] == [
        text,
        "CC BY 4.0",
        "Simulated cells.",
    ]
    assert manifest["does_not_know"] == ["neutrophils", "<i>"]
    assert "<li>&lt;i&gt;</li>" in (tmp_path / "model" / "card.html").read_text()


def test_a_missing_label_column_ends_with_code_3_and_lists_the_columns(command, arguments):
    result = run(command, {**arguments, "--label-key": "nowhere"})
    assert result.exit_code == 3
    assert "no obs column 'nowhere'; there are: cell_type, broad, donor" in result.stderr


def test_an_id_that_is_none_ends_with_code_3(command, arguments, tmp_path):
    (tmp_path / "cl.csv").write_text("label,cl_id\nB cell,CL:9999999\n")
    result = run(command, arguments)
    assert result.exit_code == 3 and "CL:9999999" in result.stderr
    assert not (tmp_path / "model").exists()


def test_wrong_usage_ends_with_code_2(command, arguments):
    assert run(command, {**arguments, "--kind": "magic"}).exit_code == 2
    assert run(command, {**arguments, "--n-top-genes": "1"}).exit_code == 2
    del arguments["--name"]
    assert run(command, arguments).exit_code == 2
