"""Other people's programs, each installed once a session."""

from __future__ import annotations

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
