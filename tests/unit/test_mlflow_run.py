"""Running the code of models made by others: what it gets, and what becomes of its failures."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import pandas as pd
import pytest

from cellscribe import mlflow_run
from cellscribe.errors import ModelFetchError, ModelMismatchError
from cellscribe.mlflow_run import passed_on, predict_by_mlflow

ENVIRON = {
    "PATH": "/bin",
    "LANG": "C",
    "OMP_NUM_THREADS": "2",
    "CUDA_VISIBLE_DEVICES": "0",
    "HOME": "/home/me",
    "PYENV_ROOT": "/home/me/.pyenv",
    "https_proxy": "http://proxy",
    "MLFLOW_ENV_ROOT": "/envs",
    "MLFLOW_TRACKING_TOKEN": "t",
    "AWS_ACCESS_KEY_ID": "a",
    "AWS_SECRET_ACCESS_KEY": "s",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI": "/v2",
    "TOWER_ACCESS_TOKEN": "t",
    "GITHUB_TOKEN": "t",
    "PIP_PASSWORD": "p",
    "OMP_SECRET": "s",
    "PYTHONPATH": "/mine",
    "SSH_AUTH_SOCK": "/tmp/agent",
}


def test_a_model_gets_no_keys_and_little_else():
    assert set(passed_on(ENVIRON, "local")) == {"PATH", "LANG", "OMP_NUM_THREADS", "CUDA_VISIBLE_DEVICES"}


@pytest.mark.parametrize("manager", ["virtualenv", "conda"])
def test_making_an_environment_gets_what_it_needs_and_no_keys(manager):
    running, making = (set(passed_on(ENVIRON, manager, making=making)) for making in (False, True))
    assert running - set(passed_on(ENVIRON, "local")) == {"HOME", "PYENV_ROOT", "MLFLOW_ENV_ROOT"}
    # A proxy's address may hold a password: the model's code never sees it.
    assert making - running == {"https_proxy"}


@pytest.fixture
def mlflow(tmp_path, monkeypatch):
    """A program in the place of MLflow's, that does what a test says."""
    programs = tmp_path / "programs"
    programs.mkdir()
    monkeypatch.setattr(sys, "executable", str(programs / "python"))

    def program(script: str) -> None:
        (programs / "mlflow").write_text(f"#!/bin/sh\n{script}\n")
        (programs / "mlflow").chmod(0o755)

    return program


@pytest.fixture
def folder(tmp_path) -> Path:
    (tmp_path / "folder").mkdir()
    return tmp_path / "folder"


def test_the_request_goes_in_a_csv_as_the_real_program_writes_it(mlflow, folder, tmp_path):
    mlflow(f'echo "$@" > {tmp_path}/asked; pwd')
    request = '{"query_dataset_h5ad_path": "a, \\"b\\".h5ad"}'
    assert predict_by_mlflow(tmp_path / "model", request, folder) == [str(folder)]
    assert (tmp_path / "asked").read_text().rstrip() == (
        f"models predict --model-uri {tmp_path}/model --env-manager local --content-type csv "
        f"--input-path {folder}/request.csv --output-path {folder}/answer.json"
    )
    asked = pd.read_csv(folder / "request.csv")
    assert list(asked.columns) == ["0"] and asked.iloc[0, 0] == request


def test_its_home_and_temporary_folders_are_its_own(mlflow, folder, tmp_path, monkeypatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "s")
    monkeypatch.setenv("NUMBA_CACHE_DIR", "/ours")
    mlflow('echo "$HOME $TMPDIR $NUMBA_CACHE_DIR ${AWS_SECRET_ACCESS_KEY-none}"; test -d $NUMBA_CACHE_DIR')
    assert predict_by_mlflow(tmp_path / "model", "{}", folder) == [f"{folder} {folder} {folder}/numba none"]


def test_a_failure_shows_its_last_lines_and_none_of_them_passes_for_ours(mlflow, folder, tmp_path):
    mlflow(
        r"for i in $(seq 30); do echo line $i; done; printf '\033[31merror: \a it broke\033[0m\n' >&2; exit 3"
    )
    with pytest.raises(ModelMismatchError, match="ended with exit code 3") as caught:
        predict_by_mlflow(tmp_path / "model", "{}", folder)
    lines = str(caught.value).splitlines()
    assert "  | error:   it broke" in lines and "  | line 30" in lines and "  | line 3" not in lines
    assert not [line for line in lines if line.startswith("error:")]
    assert caught.value.exit_code == 4


def test_what_is_killed_ends_as_a_shell_says_it_so_that_it_is_tried_again(mlflow, folder, tmp_path):
    mlflow("kill -9 $$")
    with pytest.raises(ModelMismatchError, match="was killed by signal 9") as caught:
        predict_by_mlflow(tmp_path / "model", "{}", folder)
    assert caught.value.exit_code == 137


def test_missing_packages_are_told_from_other_failures(mlflow, folder, tmp_path):
    mlflow("echo \"ModuleNotFoundError: No module named 'scvi'\"; exit 1")
    with pytest.raises(ModelMismatchError) as caught:
        predict_by_mlflow(tmp_path / "model", "{}", folder)
    assert "--mlflow_env_manager virtualenv or conda" in caught.value.todo


@pytest.mark.parametrize(("manager", "needed"), [("virtualenv", "pyenv"), ("conda", "conda")])
def test_an_environment_that_cannot_be_made_is_no_fault_of_the_sample(
    mlflow, folder, tmp_path, monkeypatch, manager, needed
):
    monkeypatch.setenv("MLFLOW_ENV_ROOT", str(tmp_path / "envs"))
    mlflow(f'test "$2" = prepare-env || exit 9; echo no {needed} here; exit 1')
    with pytest.raises(ModelFetchError, match="could not make the environment") as caught:
        predict_by_mlflow(tmp_path / "model", "{}", folder, env_manager=manager)
    assert f"  | no {needed} here" in str(caught.value) and f"needs {needed}" in caught.value.todo


def test_an_environment_is_made_before_the_model_runs_in_it(mlflow, folder, tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_ENV_ROOT", str(tmp_path / "envs"))
    mlflow(f'echo "$2 $HOME" >> {tmp_path}/asked')
    python = tmp_path / "programs" / "python"
    python.write_text(f'#!/bin/sh\nshift 2; echo "$* $HOME" >> {tmp_path}/asked\n')
    python.chmod(0o755)
    predict_by_mlflow(tmp_path / "model", "{}", folder, env_manager="virtualenv")
    home = os.environ["HOME"]
    assert (tmp_path / "asked").read_text().splitlines() == [
        f"prepare-env {home}",
        f"{tmp_path}/model virtualenv {folder}/request.csv {folder}/answer.json {home}",
    ]


def test_what_a_killed_run_left_half_made_is_made_anew(mlflow, folder, tmp_path, monkeypatch):
    envs = tmp_path / "envs"
    (envs / "mlflow-old").mkdir(parents=True)
    monkeypatch.setenv("MLFLOW_ENV_ROOT", str(envs))
    python = tmp_path / "programs" / "python"
    python.write_text("#!/bin/sh\n")
    python.chmod(0o755)

    def killed(command, *_):
        (envs / "mlflow-new").mkdir()
        raise KeyboardInterrupt

    mlflow("true")
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(mlflow_run, "_run", killed)
        predict_by_mlflow(tmp_path / "model", "{}", folder, env_manager="virtualenv")
    mlflow(f"test ! -e {envs}/mlflow-new && test -e {envs}/mlflow-old && mkdir {envs}/mlflow-new")
    for _ in range(2):  # made anew, and then kept
        predict_by_mlflow(tmp_path / "model", "{}", folder, env_manager="virtualenv")
        mlflow(f"test -e {envs}/mlflow-new")
    assert sorted(path.name for path in envs.glob("mlflow-*")) == ["mlflow-new", "mlflow-old"]


def test_without_mlflow_it_is_said_where_it_comes_from(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    monkeypatch.setattr(shutil, "which", lambda _: None)
    with pytest.raises(ModelFetchError, match="no mlflow") as caught:
        predict_by_mlflow(tmp_path / "model", "{}", folder)
    assert "make setup" in caught.value.todo and "--container_cpu" in caught.value.todo


def test_a_long_line_is_cut():
    assert len(mlflow_run._plain("x" * 10_000)) == 300
