"""annotate.py."""

import json
import runpy

import anndata
import pandas as pd
import pytest
from click.testing import CliRunner
from small_model import simulate, small_counts, small_mapping, small_model, write_counts

from cellscribe import clusters


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(clusters, "umap_layout", lambda embedding, *_, **__: clusters.flat_layout(embedding))
    monkeypatch.setattr("cellscribe.cli.set_threads", lambda cpus: None)


@pytest.fixture(scope="module")
def command(root):
    return runpy.run_path(str(root / "bin" / "annotate.py"))["main"]


def run(command, folder, *more, counts=None, mapping=None, kind="logistic"):
    arguments = {
        "--sample": "s1",
        "--counts": counts or small_counts(),
        "--mapping": mapping or small_mapping(kind),
        "--model": small_model(kind),
        "--output": folder / "s1.annotated.h5ad",
        "--predictions": folder / "s1.predictions.tsv.gz",
        "--summary": folder / "s1.annotation.json",
    }
    flat = [str(item) for pair in arguments.items() for item in pair]
    return CliRunner().invoke(command, [*flat, *more])


def test_three_files_are_written_and_agree(command, tmp_path):
    result = run(command, tmp_path, "--model-url", "https://example.org/m")
    assert result.exit_code == 0, result.output
    assert "of 90 cells named" in result.stderr
    adata = anndata.read_h5ad(tmp_path / "s1.annotated.h5ad")
    table = pd.read_csv(tmp_path / "s1.predictions.tsv.gz", sep="\t", keep_default_na=False)
    said = json.loads((tmp_path / "s1.annotation.json").read_text())
    assert table["final"].tolist() == adata.obs["cxg_cell_type_final"].astype(str).tolist()
    assert said["sample"] == "s1" and said["n_cells"] == len(table) == adata.n_obs
    assert said["model"]["url"] == "https://example.org/m"


def test_another_model_than_the_catalogues_row_names_is_a_warning(command, tmp_path):
    result = run(command, tmp_path, "--listed-as", "mouse==2.0")
    assert result.exit_code == 0, result.output
    assert "The catalogue calls this model 'mouse==2.0'" in result.stderr
    twice = run(command, tmp_path, "--listed-as", "mouse==2.0", "--listed-as", "")
    assert twice.exit_code == 2 and "2 --listed-as do not go together" in twice.stderr


def test_names_of_the_columns_are_the_users(command, tmp_path):
    named = ("--annotation-prefix", "abc", "--annotation-type", "tissue", "--run-name", "r2")
    assert run(command, tmp_path, *named).exit_code == 0
    assert "abc_tissue_r2_predicted" in anndata.read_h5ad(tmp_path / "s1.annotated.h5ad").obs


def test_clusters_and_strictness_are_the_users(command, tmp_path):
    more = ("--cluster-key", "published", "--min-probability", "1", "--reject-novel", "false")
    assert run(command, tmp_path, *more).exit_code == 0
    adata = anndata.read_h5ad(tmp_path / "s1.annotated.h5ad")
    assert (adata.obs["cxg_cell_type_cluster"].astype(str) == adata.obs["published"].astype(str)).all()
    doubtful = adata.obs["cxg_cell_type_predicted_uncertainty"] > 0
    assert doubtful.any() and set(adata.obs["cxg_cell_type_reason"][doubtful]) == {"ambiguous"}
    parameters = json.loads(adata.uns["cxg_cell_type_predictions"]["parameters"])
    assert parameters["reject_novel"] is False and parameters["cluster_key"] == "published"
    assert run(command, tmp_path, "--novelty-limit", "0.02").exit_code == 2


def test_what_cannot_be_done_ends_with_code_3_and_writes_nothing(command, tmp_path):
    other = write_counts(simulate(20, seed=1), tmp_path / "other.h5ad")
    for more, files in (
        (("--classifier", "trees"), {}),
        (("--run-name", "a/b"), {}),
        ((), {"counts": other}),
        ((), {"mapping": small_mapping("consensus")}),
    ):
        result = run(command, tmp_path, *more, **files)
        assert result.exit_code == 3, result.output
        assert result.stderr.startswith("error: sample 's1'")
    assert [path.name for path in tmp_path.iterdir()] == ["other.h5ad"]


def test_several_models_are_given_in_the_order_of_their_mappings(command, tmp_path):
    other = ("--model", str(small_model("consensus")), "--mapping", str(small_mapping("consensus")))
    result = run(command, tmp_path, *other, "--model-url", "one", "--model-url", "two")
    assert result.exit_code == 0, result.output
    said = json.loads((tmp_path / "s1.annotation.json").read_text())
    assert [part["model"]["url"] for part in said["models"]] == ["one", "two"]
    assert said["model"]["kind"] == "consensus of models"
    assert run(command, tmp_path, *other, "--model-url", "one").exit_code == 2
    assert run(command, tmp_path, *other[:2]).exit_code == 2
    crossed = run(command, tmp_path, *other[:2], "--mapping", str(small_mapping("logistic")))
    assert crossed.exit_code == 3 and "was made with another model" in crossed.stderr
