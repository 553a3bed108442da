"""A model made by others runs in the environment that it names, made by MLflow."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from foreign_model import make_foreign_model
from small_model import TYPES, small_counts

from cellscribe.foreign import PredictOptions, read_prediction_mapping, run_predict


@pytest.mark.skipif(
    not os.environ.get("CELLSCRIBE_TEST_VIRTUALENV"),
    reason="makes an environment of 450 MB in minutes: set CELLSCRIBE_TEST_VIRTUALENV=1",
)
@pytest.mark.skipif(not shutil.which("pyenv"), reason="MLflow's virtualenv needs pyenv")
def test_the_environment_that_a_model_names_is_made_once(tmp_path: Path, monkeypatch, capfd) -> None:
    import cloudpickle
    import mlflow

    monkeypatch.setenv("MLFLOW_ENV_ROOT", str(tmp_path / "environments"))
    named = [f"mlflow-skinny=={mlflow.__version__}", f"cloudpickle=={cloudpickle.__version__}"]
    model = make_foreign_model(tmp_path / "theirs", pip_requirements=[*named, "anndata", "scipy"])
    options = PredictOptions(trust_model_code=True, mlflow_env_manager="virtualenv")
    for again in (False, True):
        run_predict(small_counts(90), model, tmp_path / "s1.mapping.h5ad", options)
        assert ("Successfully installed" in capfd.readouterr().err) != again
    assert set(read_prediction_mapping(tmp_path / "s1.mapping.h5ad").predicted) == set(TYPES)
    assert len(list((tmp_path / "environments").glob("mlflow-*"))) == 1
