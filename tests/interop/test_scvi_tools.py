"""Models of an old scvi-tools say here what they say there."""

from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import scipy.sparse as sp
import scvi_models

from cellscribe.importing.calibrate import TestCells
from cellscribe.importing.scvi import run_import_scvi
from cellscribe.importing.scvi_reference import ScviOptions
from cellscribe.importing.scvi_saved import read_scvi
from cellscribe.model.calibration import softmax
from cellscribe.model.manifest import verify_model


def test_models_of_scvi_tools_1_0_have_the_same_latent_and_labels(old_scvi_tools: Path, tmp_path: Path):
    names = [name for name in scvi_models.SETTINGS if name not in scvi_models.NEWER]
    folder = scvi_models.run(old_scvi_tools, tmp_path, names)
    cells = anndata.read_h5ad(folder / "cells.h5ad")
    counts = sp.csr_matrix(cells.X)
    for name in names:
        model, _, _ = read_scvi(folder / name / "model", trusted=True)
        assert model.version == "1.0.4"
        covariates = model.covariates(cells.obs) if model.encodes_covariates else None
        latent = model.encoder().encode(counts, covariates)
        there = np.load(folder / name / "latent.npy")
        np.testing.assert_allclose(latent, there, atol=1e-4, err_msg=name)
        if model.labels:
            said = pd.read_csv(folder / name / "probabilities.csv", index_col=0)
            here = softmax(model.classifier(list(said.columns)).forward(latent))
            np.testing.assert_allclose(here, said, atol=1e-4, err_msg=name)
    for name in ("minified", "scanvi"):
        given = () if name == "minified" else (folder / "cells.h5ad",)
        output = run_import_scvi(
            ScviOptions(
                folder / name / "model",
                tmp_path / f"{name}_here",
                given,
                name=name,
                organism="human",
                test=TestCells(label_key="cell_type"),
                trust_model_code=True,
            )
        )
        assert verify_model(output)["source"]["version"] == "1.0.4"
