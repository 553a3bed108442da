"""A model of scvi-tools in the real Nextflow, fine-tuned on a sample."""

from __future__ import annotations

import json

import anndata
import numpy as np
import pytest
import scvi_models
from nextflow_runner import Launch
from small_model import TYPES, simulate

from cellscribe.importing.calibrate import TestCells
from cellscribe.importing.scvi import run_import_scvi
from cellscribe.importing.scvi_reference import ScviOptions

pytest.importorskip("scvi")


def test_an_imported_model_names_cells_after_it_was_fine_tuned_on_them(launch: Launch) -> None:
    trained = scvi_models.trained()
    run_import_scvi(
        ScviOptions(
            trained / "scanvi_linear" / "model",
            launch.folder / "blood",
            (trained / "cells.h5ad",),
            organism="human",
            test=TestCells(label_key="cell_type"),
            trust_model_code=True,
        )
    )
    simulate(120, seed=1).write_h5ad(launch.folder / "query.h5ad")
    options = "--model ./blood --surgery --surgery_epochs 3 --classifier scvi --doublets off"
    run = launch.run("--input", "query.h5ad", *options.split())
    assert run.returncode == 0, run.output
    adata = anndata.read_h5ad(run.results / "samples/query/query.annotated.h5ad")
    assert adata.obsm["cxg_cell_type"].shape == (adata.n_obs, 8)
    assert np.isin(adata.obs["cxg_cell_type_predicted"].astype(str), TYPES).all()
    said = adata.uns["cxg_cell_type_predictions"]
    assert json.loads(said["parameters"])["surgery_epochs"] == 3
    page = (run.results / "samples/query/query.report.html").read_text()
    assert "encoder may have been trained on" in page
