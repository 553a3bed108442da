"""Models that the real CellTypist trains say here what they say there."""

from __future__ import annotations

import subprocess
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit
from small_model import simulate

from cellscribe.h5ad_input import read_h5ad
from cellscribe.importing.celltypist import CellTypistOptions, run_import_celltypist
from cellscribe.mapping import map_cells
from cellscribe.model.model import Model
from cellscribe.one_file import CountsInMemory

THERE = """
import sys, anndata, celltypist, scanpy
reference, query, model, table, sgd = sys.argv[1:]
cells, asked = anndata.read_h5ad(reference), anndata.read_h5ad(query)
for adata in (cells, asked):
    scanpy.pp.normalize_total(adata, target_sum=1e4)
    scanpy.pp.log1p(adata)
options = {"use_SGD": True} if sgd == "sgd" else {"feature_selection": True, "top_genes": 100}
celltypist.train(cells, labels="label", n_jobs=1, **options).write(model)
result = celltypist.annotate(asked, model=model)
result.probability_matrix.assign(label=result.predicted_labels["predicted_labels"].astype(str)).to_csv(table)
"""


def compare(celltypist: Path, reference: Path, query: Path, folder: Path, solver: str, *more: str) -> None:
    """Train and annotate there, import and map here."""
    pickle, table = folder / "there.pkl", folder / "there.csv"
    command = [celltypist, "-W", "ignore", "-c", THERE, reference, query, pickle, table, solver]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    run_import_celltypist(
        CellTypistOptions(pickle, folder / "model", organism="human", trust_model_code=True)
    )
    there, model, read = pd.read_csv(table, index_col=0), Model(folder / "model"), read_h5ad(query)
    mapping = map_cells(CountsInMemory(read.matrix, read.var), model)
    assert mapping.logistic_scores is not None
    np.testing.assert_allclose(expit(mapping.logistic_scores), there[model.labels], atol=1e-4)
    members = model.member_probabilities(
        latent=None, distances=None, indices=None, logistic_scores=mapping.logistic_scores
    )
    best = model.pooled(members, "logistic").argmax(axis=1)
    assert np.array(model.labels)[best].tolist() == there["label"].tolist()


@pytest.mark.parametrize("solver", ["sgd", "lbfgs"])
def test_simulated_cells_get_the_same_labels_and_probabilities(celltypist: Path, tmp_path: Path, solver: str):
    reference, query = simulate(200), simulate(100, seed=1)
    reference.obs["label"] = reference.obs["cell_type"]
    reference.write_h5ad(tmp_path / "reference.h5ad")
    query.write_h5ad(tmp_path / "query.h5ad")
    compare(celltypist, tmp_path / "reference.h5ad", tmp_path / "query.h5ad", tmp_path, solver)


@pytest.mark.parametrize(("solver", "query"), [("sgd", "pbmc4k"), ("lbfgs", "kang_ctrl")])
def test_real_cells_get_the_same_labels_and_probabilities(
    celltypist: Path, shared_data: Path, tmp_path: Path, solver: str, query: str
):
    import anndata

    folder = shared_data / "labelled"
    cells = anndata.read_h5ad(folder / "pbmc3k_labelled.h5ad")
    cells = cells[cells.obs["cell_type_harmonized"] != "unlabelled"].copy()
    cells.obs["label"] = cells.obs["cell_type_harmonized"].astype(str)
    cells.write_h5ad(tmp_path / "reference.h5ad")
    compare(celltypist, tmp_path / "reference.h5ad", folder / f"{query}_labelled.h5ad", tmp_path, solver)
