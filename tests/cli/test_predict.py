"""predict.py as Nextflow calls it, with models whose code MLflow really runs."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import anndata
import pytest
from foreign_model import make_foreign_model
from small_model import small_counts


def predict(root: Path, folder: Path, model: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [
            *(sys.executable, str(root / "bin" / "predict.py"), "--sample", "s1"),
            *("--counts", str(small_counts(90)), "--model", str(model), "--output", "s1.mapping.h5ad"),
            *("--cpus", "1", "--pipeline-version", "0.1.0", *arguments),
        ],
        cwd=folder,
        capture_output=True,
        text=True,
    )


def test_a_trusted_model_names_the_cells(root: Path, tmp_path: Path) -> None:
    model = make_foreign_model(tmp_path / "m", behaviour="shuffles cells", trace=tmp_path / "trace")
    result = predict(
        *(root, tmp_path, model, "--trust-model-code", "true", "--classifier", "fine"),
        *("--organism", "human", "--gene-column-name", "gene_symbols", "--use-gpu", "false"),
    )
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "trace").exists()
    asked = {"annotation_prefix": "cxg_cell_type", "classifier": "fine", "gene_column_name": "gene_symbols"}
    asked |= {"organism": "Homo sapiens", "use_gpu": False}
    assert f"  | asked: {json.dumps(asked)}" in result.stderr
    adata = anndata.read_h5ad(tmp_path / "s1.mapping.h5ad")
    assert list(adata.obs_names) == list(anndata.read_h5ad(small_counts(90)).obs_names)


def test_without_trust_it_ends_with_6_and_none_of_its_code_is_run(root: Path, tmp_path: Path) -> None:
    model = make_foreign_model(tmp_path / "m", trace=tmp_path / "trace")
    for trust in ([], ["--trust-model-code", "false"]):
        result = predict(root, tmp_path, model, *trust)
        assert result.returncode == 6
        assert "--trust_model_code" in result.stderr
    assert not (tmp_path / "trace").exists()
    assert not (tmp_path / "s1.mapping.h5ad").exists()


@pytest.mark.parametrize(
    ("behaviour", "code", "said"),
    [
        ("raises", 4, "ended with exit code 1. Its last lines:"),
        ("raises", 4, "  | ValueError: no such tissue"),
        ("writes nothing and says 0", 4, "ended with exit code 0, but wrote no output"),
        ("drops cells", 4, "5 of 90 cells are missing"),
    ],
)
def test_a_failure_of_its_code_is_an_error(root, tmp_path, results, behaviour, code, said) -> None:
    result = results(behaviour)
    assert result.returncode == code, result.stderr
    message = result.stderr[result.stderr.rindex("\nerror: ") :]
    assert said in message and "sample 's1'" in message
    assert "Traceback" not in result.stderr.replace("  | Traceback", "")


@pytest.fixture(scope="module")
def results(root: Path, tmp_path_factory):
    """Each behaviour run once."""
    known: dict[str, subprocess.CompletedProcess[str]] = {}

    def result(behaviour: str) -> subprocess.CompletedProcess[str]:
        if behaviour not in known:
            folder = tmp_path_factory.mktemp("predict")
            model = make_foreign_model(folder / "m", behaviour=behaviour)
            known[behaviour] = predict(root, folder, model, "--trust-model-code", "true")
            assert not (folder / "s1.mapping.h5ad").exists()
        return known[behaviour]

    return result


def test_the_help_needs_no_heavy_import(root: Path, tmp_path: Path) -> None:
    result = subprocess.run(
        [sys.executable, "-X", "importtime", str(root / "bin" / "predict.py"), "--help"],
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0 and "--mlflow-env-manager" in result.stdout
    assert "numpy" not in result.stderr and "mlflow" not in result.stderr
