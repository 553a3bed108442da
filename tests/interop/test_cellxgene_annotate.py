"""The real CELLxGENE Annotate names cells with our models."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import anndata
import numpy as np
import pytest
from tenx_files import whole

from cellscribe.model.archive import pack_model
from cellscribe.model.model import Model
from cellscribe.one_file import annotate_file
from cellscribe.tenx import read_tenx
from cellscribe.tenx_places import find_input


@pytest.fixture(scope="module")
def query(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """200 cells of the demo sample, as a user of CELLxGENE would have them."""
    counts = read_tenx(find_input(root / "assets" / "demo" / "filtered_feature_bc_matrix.h5"))
    path = tmp_path_factory.mktemp("query") / "query.h5ad"
    adata = anndata.AnnData(X=whole(counts.matrix)[:200], obs=counts.obs.iloc[:200], var=counts.var)
    adata.write_h5ad(path)
    return path


def cellxgene_annotate(programs: Path, folder: Path, *arguments: str, **variables: str) -> str:
    """What the program says. It ends with 0 even where it failed, so look at what it wrote."""
    done = subprocess.run(
        [programs / "cellxgene", "annotate", *arguments],
        cwd=folder,
        env={
            **{key: value for key, value in os.environ.items() if key != "PYTHONPATH"},
            "PATH": f"{programs}:{os.environ['PATH']}",
            "OMP_NUM_THREADS": "1",
            **variables,
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=900,
        check=False,
    )
    return done.stdout


def test_it_gives_what_we_give(cellxgene: Path, query: Path, root: Path, tmp_path: Path) -> None:
    model = root / "assets" / "models" / "pbmc"
    pack_model(model, tmp_path / "pbmc.zip")
    said = cellxgene_annotate(
        cellxgene,
        tmp_path,
        *(str(query), "-m", "pbmc.zip", "-o", "out.h5ad", "--mlflow-env-manager", "local", "-n", "day1"),
    )
    assert (tmp_path / "out.h5ad").is_file(), said
    assert "Annotation failed!" not in said
    site = next(cellxgene.parent.glob("lib/python*/site-packages"))
    assert not [name for name in ("torch", "scvi", "lightning") if (site / name).exists()]

    annotate_file(query, tmp_path / "ours.h5ad", Model(model), key="cxg_cell_type_day1")
    theirs, ours = (anndata.read_h5ad(tmp_path / name) for name in ("out.h5ad", "ours.h5ad"))
    assert list(theirs.obs_names) == list(ours.obs_names)
    new = [name for name in ours.obs if name.startswith("cxg_cell_type_day1")]
    assert len(new) > 10
    for name in new:
        if ours.obs[name].dtype == "category":
            assert list(theirs.obs[name].astype(str)) == list(ours.obs[name].astype(str)), name
        else:
            np.testing.assert_allclose(theirs.obs[name], ours.obs[name], atol=1e-4, err_msg=name)
    np.testing.assert_allclose(theirs.obsm["cxg_cell_type_day1"], ours.obsm["cxg_cell_type_day1"], atol=1e-4)
    assert theirs.obsm["cxg_cell_type_day1_umap"].shape == (theirs.n_obs, 2)
    assert theirs.uns["cxg_cell_type_day1_predictions"]["model_name"] == "pbmc"


@pytest.mark.skipif(
    not os.environ.get("CELLSCRIBE_TEST_VIRTUALENV"),
    reason="makes an environment of 1.5 GB in minutes: set CELLSCRIBE_TEST_VIRTUALENV=1",
)
def test_it_makes_the_environment_that_the_model_names(
    cellxgene: Path, query: Path, root: Path, tmp_path: Path
):
    pack_model(root / "assets" / "models" / "pbmc", tmp_path / "pbmc.zip")
    said = cellxgene_annotate(
        cellxgene,
        tmp_path,
        *(str(query), "-m", "pbmc.zip", "-o", "out.h5ad"),
        MLFLOW_ENV_ROOT=str(tmp_path / "environments"),
    )
    assert (tmp_path / "out.h5ad").is_file(), said
    assert "cxg_cell_type_predicted" in anndata.read_h5ad(tmp_path / "out.h5ad").obs
