"""Make a model folder an MLflow model too, by models-from-code: nothing is pickled."""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path

import yaml

from cellscribe.model.manifest import verify_model, write_manifest

PACKAGE = Path(__file__).resolve().parent.parent

# What annotation imports; a range, since other people's environments are older than ours.
REQUIREMENTS = (
    "anndata>=0.11",
    "click",
    "h5py",
    "igraph",
    "jsonschema",
    "mlflow>=2.16",
    "numpy",
    "pandas",
    "pyyaml",
    "safetensors",
    "scikit-learn",
    "scipy",
    "umap-learn",
    "xgboost",
)

CODE = '''"""This model for MLflow: `mlflow models predict` with one JSON request a row annotates an h5ad.

cellscribe itself never runs this file.
"""

import shutil
import sys
from pathlib import Path

import mlflow
import pandas as pd
from mlflow.pyfunc import PythonModel

# Compiled files beside the code would be files that manifest.json does not list: no longer the same model.
sys.dont_write_bytecode = True
shutil.rmtree(Path(__file__).with_name("__pycache__"), ignore_errors=True)


class CellscribeModel(PythonModel):
    """One request a row: query_dataset_h5ad_path, output_h5ad_path, annotation_prefix, ..."""

    # MLflow fills each log of a model without a type here with advice to add one.
    def predict(self, context, model_input: pd.DataFrame, params=None):
        from cellscribe.one_file import answer_requests

        return answer_requests(model_input, Path(__file__).resolve().parent)


mlflow.models.set_model(CellscribeModel())
'''

# What naming the cells of a file needs of the library; the rest stays behind.
FOR_INFERENCE = (
    "__init__.py",
    "align.py",
    "annotated_file.py",
    "annotation.py",
    "annotation_info.py",
    "answer.py",
    "cli.py",
    "clusters.py",
    "contract.py",
    "counts.py",
    "counts_file.py",
    "errors.py",
    "explorer.py",
    "feature_kinds.py",
    "genes.py",
    "gpu.py",
    "h5ad_counts.py",
    "h5ad_input.py",
    "h5ad_matrix.py",
    "h5ad_tables.py",
    "hdf5.py",
    "io.py",
    "mapping.py",
    "one_file.py",
    "parallel.py",
    "progress.py",
    "recovered.py",
    "stored.py",
    "surgery.py",
    "verify.py",
    "words.py",
    "model/__init__.py",
    "model/calibration.py",
    "model/encoder.py",
    "model/label_sets.py",
    "model/likelihood.py",
    "model/logistic.py",
    "model/manifest.py",
    "model/model.py",
    "model/neighbours.py",
    "model/novelty.py",
    "model/ontology.py",
    "model/profiles.py",
    "model/reference_counts.py",
    "model/robust.py",
    "model/scvi_model.py",
    "model/trees.py",
    "model/ubjson.py",
    "model/schema_model.json",
    # By which the organism of symbols is told.
    "gene_sets/human_qc_genes.tsv",
    "gene_sets/mouse_qc_genes.tsv",
)

# MLflow's own lock file of the environment: no model may hold a .toml, and the requirements are all in conda.yaml.
NOT_FOR_A_MODEL = ("pyproject.toml", "uv.lock", "__pycache__")


def write_mlflow(folder: Path) -> None:
    """Add MLmodel, the code and the environment files to a model folder."""
    import logging

    from mlflow.pyfunc import save_model

    logging.getLogger("mlflow").setLevel(logging.ERROR)
    with tempfile.TemporaryDirectory() as scratch:
        code = Path(scratch) / "model_code.py"
        code.write_text(CODE)
        package = Path(scratch) / "package" / "cellscribe"
        for name in FOR_INFERENCE:
            (package / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(PACKAGE / name, package / name)
        made = Path(scratch) / "mlflow"
        save_model(
            made, python_model=str(code), code_paths=[str(package)], pip_requirements=list(REQUIREMENTS)
        )
        for item in made.iterdir():
            if item.name in NOT_FOR_A_MODEL:
                continue
            if item.is_dir():
                shutil.copytree(item, folder / item.name, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(item, folder / item.name)
    without_traces(folder / "MLmodel")


def renew_model(folder: Path) -> str:
    """Replace the code and the card that a model carries by what the library would write now; return its new sha256.

    What the model knows stays as it is. The folder must be whole: raises ModelFetchError as `verify_model` does.
    """
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        made = Path(shutil.copytree(folder, Path(scratch) / folder.name))
        sha256 = _renew(made)
        shutil.rmtree(folder)
        shutil.move(made, folder)
    return sha256


def _renew(folder: Path) -> str:
    from cellscribe.training.card import write_card
    from cellscribe.training.evaluate import Evaluation

    fields = verify_model(folder)
    test = folder / "evaluation.json"
    write_card(folder, fields, Evaluation.from_dict(json.loads(test.read_text())) if test.is_file() else None)
    for name in ("MLmodel", "conda.yaml", "model_code.py", "python_env.yaml", "requirements.txt"):
        (folder / name).unlink(missing_ok=True)
    shutil.rmtree(folder / "code", ignore_errors=True)
    write_mlflow(folder)
    return write_manifest(folder, fields)


def without_traces(mlmodel: Path) -> None:
    """Take out of MLmodel what only says where and when it was made (MLflow looks for the code by its name alone)."""
    described = yaml.safe_load(mlmodel.read_text())
    code = described["flavors"]["python_function"]
    code["model_code_path"] = Path(code["model_code_path"]).name
    for key in ("model_uuid", "model_id", "run_id", "utc_time_created", "artifact_path", "prompts"):
        described.pop(key, None)
    mlmodel.write_text(yaml.safe_dump(described, sort_keys=True))
