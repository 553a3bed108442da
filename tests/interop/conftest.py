"""Other people's programs, each installed once a session."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest
from environments import environment, python_3_11


@pytest.fixture(scope="session")
def cellxgene(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the programs of `cellxgene[annotate]` 1.3.0, with what our models ask for and nothing more."""
    requirements = (root / "assets" / "models" / "pbmc" / "requirements.txt").read_text().split()
    asked = [line for line in requirements if not line.startswith("mlflow")]
    interpreter = environment(
        tmp_path_factory.mktemp("cellxgene") / "env",
        python_3_11(),
        "cellxgene[annotate]==1.3.0",
        "setuptools<80",
        "virtualenv",
        *asked,
    )
    return interpreter.parent


@pytest.fixture(scope="session")
def celltypist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Python with CellTypist 1.7.1, and a scikit-learn that its ordinary solver still works with."""
    return environment(
        tmp_path_factory.mktemp("celltypist") / "env",
        python_3_11(),
        *("celltypist==1.7.1", "scikit-learn<1.7", "pandas<3", "anndata<0.12"),
    )


@pytest.fixture(scope="session")
def old_scvi_tools(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Python with scvi-tools 1.0.4, and libraries of its time where it asks for no newer than they were."""
    return environment(
        tmp_path_factory.mktemp("scvi_tools") / "env",
        python_3_11(),
        *("scvi-tools==1.0.4", "jax==0.4.23", "jaxlib==0.4.23", "scipy<1.13", "numpy<2"),
        *("anndata<0.11", "pandas<2.2", "setuptools<80"),
    )


@dataclass(frozen=True)
class MlflowServer:
    """A real MLflow server on SQLite, which hands artifacts out itself, from the folder `artifacts`."""

    url: str
    artifacts: Path


@contextmanager
def mlflow_server(folder: Path, *packages: str) -> Iterator[MlflowServer]:
    """Start the server of `packages` on a free port; stop it, and what it started, after the block."""
    interpreter = environment(folder / "env", sys.executable, *packages)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = MlflowServer(f"http://127.0.0.1:{port}", folder / "artifacts")
    command = [
        *(
            interpreter,
            "-m",
            "mlflow",
            "server",
            "--host",
            "127.0.0.1",
            "--port",
            str(port),
            "--workers",
            "1",
        ),
        *(
            "--backend-store-uri",
            f"sqlite:///{folder}/registry.db",
            "--artifacts-destination",
            server.artifacts,
        ),
    ]
    said = folder / "server.log"
    # It starts programs of its own, by their names.
    path = f"{interpreter.parent}:{os.environ['PATH']}"
    quiet = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true", "PATH": path}
    with said.open("w") as log:
        process = subprocess.Popen(
            command, cwd=folder, env=os.environ | quiet, stdout=log, stderr=log, start_new_session=True
        )
    try:
        for _ in range(600):
            assert process.poll() is None, said.read_text()
            with suppress(OSError), urllib.request.urlopen(f"{server.url}/health", timeout=5):
                break
            time.sleep(0.2)
        else:
            pytest.fail(f"the server did not start: {said.read_text()}")
        yield server
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)


@pytest.fixture(scope="session")
def mlflow_now(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MlflowServer]:
    with mlflow_server(tmp_path_factory.mktemp("mlflow3"), "mlflow==3.17.2") as server:
        yield server


@pytest.fixture(scope="session")
def mlflow_2(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MlflowServer]:
    old = ("mlflow==2.22.5", "sqlalchemy<2.1", "setuptools<80")
    with mlflow_server(tmp_path_factory.mktemp("mlflow2"), *old) as server:
        yield server
