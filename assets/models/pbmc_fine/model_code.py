"""This model for MLflow: `mlflow models predict` with one JSON request a row annotates an h5ad.

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
