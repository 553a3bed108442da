"""A model folder is an MLflow model too, without pickle and without traces of the machine."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import anndata
import pytest
import yaml
from small_model import simulate, small_model

from cellscribe.model.manifest import verify_model, write_manifest
from cellscribe.training.mlflow_folder import renew_model


@pytest.fixture(scope="module")
def model() -> Path:
    return small_model("consensus")


def test_the_folder_is_exactly_what_its_manifest_says(model):
    manifest = verify_model(model)
    for name in ("MLmodel", "card.md", "card.html", "evaluation.json", "genes.tsv", "trees.ubj"):
        assert name in manifest["files"]


def test_nothing_in_it_is_pickled_or_compiled(model):
    names = [path.name for path in model.rglob("*")]
    assert not [
        name for name in names if name.endswith((".pkl", ".pickle", ".pyc", ".joblib", ".npy", ".pt"))
    ]
    assert "__pycache__" not in names
    described = yaml.safe_load((model / "MLmodel").read_text())["flavors"]["python_function"]
    assert described["loader_module"] == "mlflow.pyfunc.loaders.code_model"
    assert "python_model" not in described
    for path in model.rglob("*"):
        if path.is_file():
            # the opcodes with which every pickle of protocol 2 and later begins
            assert not (path.read_bytes()[:1] == b"\x80" and path.read_bytes()[1:2] in b"\x02\x03\x04\x05")


def test_no_path_of_the_machine_is_left_in_what_describes_it(model):
    places = {tempfile.gettempdir(), str(Path.home()), str(Path(__file__).parents[2]), sys.prefix}
    for name in ("MLmodel", "manifest.json", "conda.yaml", "python_env.yaml", "requirements.txt", "card.md"):
        text = (model / name).read_text()
        assert not [place for place in places if len(place) > 1 and place in text], name
    assert yaml.safe_load((model / "MLmodel").read_text())["flavors"]["python_function"][
        "model_code_path"
    ] == ("model_code.py")


def test_the_code_that_travels_is_the_library_without_training_and_report(model):
    package = model / "code" / "cellscribe"
    assert (package / "one_file.py").is_file() and (package / "model" / "encoder.py").is_file()
    assert not (package / "training").exists() and not (package / "report.py").exists()


def test_the_travelling_code_annotates_by_itself_without_torch_scvi_or_mlflow(model, tmp_path):
    query = simulate(9, seed=1)
    # By symbols alone the organism is told from sets of genes, which the model must carry.
    query.var = query.var[["gene_symbols"]]
    query.write_h5ad(tmp_path / "q.h5ad")
    asked = json.dumps(
        {"query_dataset_h5ad_path": str(tmp_path / "q.h5ad"), "output_h5ad_path": str(tmp_path / "o.h5ad")}
    )
    code = (
        "import sys; from pathlib import Path\n"
        f"sys.path.insert(0, {str(model / 'code')!r})\n"
        "import cellscribe; from cellscribe.one_file import answer_request\n"
        f"assert cellscribe.__file__.startswith({str(model)!r})\n"
        f"answer_request({asked!r}, Path({str(model)!r}))\n"
        "heavy = {'torch', 'scvi', 'lightning', 'mlflow', 'scanpy'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    run(code, tmp_path)
    assert "cxg_cell_type_predicted" in anndata.read_h5ad(tmp_path / "o.h5ad").obs
    verify_model(model)


@pytest.mark.train
def test_the_mlflow_part_is_renewed_and_the_rest_is_kept(model, tmp_path):
    pytest.importorskip("mlflow")
    copy = shutil.copytree(model, tmp_path / "model")
    before = verify_model(copy)
    (copy / "code" / "cellscribe" / "old.py").write_text("")
    (copy / "requirements.txt").write_text("torch")
    write_manifest(copy, before)
    renew_model(copy)
    after = verify_model(copy)
    assert after == before


@pytest.mark.train
def test_neither_training_nor_loading_logs_mlflows_advice_on_type_hints(model, tmp_path, recwarn):
    mlflow = pytest.importorskip("mlflow")
    copy = shutil.copytree(model, tmp_path / "model")
    renew_model(copy)
    mlflow.pyfunc.load_model(str(copy))
    assert [str(warning.message) for warning in recwarn if "type hints" in str(warning.message)] == []


@pytest.mark.train
def test_mlflow_loads_it_and_its_predict_annotates_without_torch_or_scvi(model, tmp_path):
    pytest.importorskip("mlflow")
    model = shutil.copytree(model, tmp_path / "model")
    simulate(9, seed=1).write_h5ad(tmp_path / "q.h5ad")
    asked = json.dumps(
        {
            "query_dataset_h5ad_path": str(tmp_path / "q.h5ad"),
            "output_h5ad_path": str(tmp_path / "o.h5ad"),
            "annotation_prefix": "abc_tissue",
        }
    )
    code = (
        "import sys, mlflow, pandas as pd\n"
        f"answer = mlflow.pyfunc.load_model({str(model)!r}).predict(pd.DataFrame([{asked!r}]))\n"
        f"assert list(answer) == [{str(tmp_path / 'o.h5ad')!r}], answer\n"
        "heavy = {'torch', 'scvi', 'lightning'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    run(code, tmp_path, PYTHONDONTWRITEBYTECODE="")
    verify_model(model)
    adata = anndata.read_h5ad(tmp_path / "o.h5ad")
    assert {"abc_tissue_predicted", "abc_tissue_predicted_uncertainty", "abc_tissue_final"} <= set(adata.obs)
    assert {"abc_tissue", "abc_tissue_umap"} <= set(adata.obsm)
    assert "model_url" in adata.uns["abc_tissue_predictions"]


def run(code: str, folder: Path, **environment: str) -> None:
    """Run Python that knows nothing of this repository."""
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=folder,
        env={
            **{key: value for key, value in os.environ.items() if key != "PYTHONPATH"},
            "PYTHONDONTWRITEBYTECODE": "1",
            "OMP_NUM_THREADS": "1",
            **environment,
        },
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
