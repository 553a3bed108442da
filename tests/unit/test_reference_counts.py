"""Counts of reference cells, and the regression that is fitted anew on the genes that a sample has."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from small_model import TYPES, options, simulate, small_model, write_cl_map, write_reference

from cellscribe.align import match_genes
from cellscribe.mapping import map_cells
from cellscribe.model.calibration import FLOOR, softmax
from cellscribe.model.model import Model
from cellscribe.model.reference_counts import FILE, REFIT_BELOW, ReferenceCounts, some_cells
from cellscribe.one_file import CountsInMemory
from cellscribe.training.train import run_train


@pytest.fixture
def reference() -> ReferenceCounts:
    cells = simulate(150)
    genes = pd.DataFrame({"gene_id": cells.var_names, "symbol": cells.var_names})
    codes = np.array([TYPES.index(name) for name in cells.obs["cell_type"]])
    _, batches = np.unique(cells.obs["donor"].astype(str), return_inverse=True)
    return ReferenceCounts(sp.csr_matrix(cells.X), codes, batches, genes)


def test_a_kind_of_cell_keeps_what_it_is_allowed_and_at_least_one():
    codes, batches = np.repeat([0, 1, 2], [50, 9, 1]), np.array(["a"] * 50 + ["b"] * 10)
    rows = some_cells(codes, batches, of_a_kind=20)
    assert np.bincount(codes[rows]).tolist() == [20, 9, 1] and (np.diff(rows) > 0).all()
    fewer = some_cells(codes, batches, of_a_kind=20, most=7)
    assert np.bincount(codes[fewer]).tolist() == [3, 3, 1]
    assert some_cells(codes, batches, of_a_kind=20, seed=1).tolist() != rows.tolist()


def test_counts_come_back_as_they_were_saved(reference, tmp_path):
    reference.save(tmp_path)
    again = ReferenceCounts.load(tmp_path)
    assert (again.counts != reference.counts).nnz == 0
    np.testing.assert_array_equal(again.codes, reference.codes)
    np.testing.assert_array_equal(again.batches, reference.batches)
    assert again.genes.equals(reference.genes)


def test_a_gene_that_was_not_found_has_no_say(reference):
    found = np.random.default_rng(0).random(reference.counts.shape[1]) < 0.3
    fitted = reference.regression(found, len(TYPES))
    assert not fitted.coefficients[~found].any() and fitted.coefficients[found].any()
    query = simulate(60, seed=2)
    measured = sp.csr_matrix(query.X) @ sp.diags(found.astype(np.float32))
    named = np.array(TYPES)[softmax(fitted.scores(measured.tocsr())).argmax(axis=1)]
    assert (named == query.obs["cell_type"].to_numpy()).mean() > 0.8


def with_share(share: float):
    """A query that has this share of the genes, and its labels."""
    cells = simulate(300, seed=5)
    kept = np.random.default_rng(1).random(cells.n_vars) < share
    return cells[:, kept].copy()


def test_a_sample_that_lacks_genes_is_named_better_by_a_regression_fitted_on_those_that_it_has(monkeypatch):
    cells, accuracy = with_share(0.15), {}
    for refit in (True, False):
        model = Model(small_model("logistic"))
        if not refit:
            monkeypatch.setattr(model, "reference_counts", None)
        mapping = map_cells(CountsInMemory(cells.X, cells.var), model, min_gene_overlap=0)
        assert (mapping.info["n_refit_genes"] > 0) == refit
        if refit:
            # a cell is as deep as the genes that name it
            on_these = match_genes(cells.var, model.reference_counts.genes).selector
            deep = np.asarray((sp.csr_matrix(cells.X) @ on_these).sum(axis=1)).ravel()
            assert (mapping.n_model_counts >= deep).all() and (mapping.n_model_counts == deep).any()
        named = np.array(model.labels)[mapping.logistic_scores.argmax(axis=1)]
        accuracy[refit] = (named == cells.obs["cell_type"].to_numpy()).mean()
    assert accuracy[True] > accuracy[False] + 0.02, accuracy


def test_with_nearly_all_genes_the_models_own_regression_is_used():
    model, cells = Model(small_model("logistic")), simulate(30, seed=5)
    mapping = map_cells(CountsInMemory(cells.X, cells.var), model)
    assert mapping.info["gene_overlap"] > REFIT_BELOW and mapping.info["n_refit_genes"] == 0
    on_model = match_genes(cells.var, model.genes).on_model(sp.csr_matrix(cells.X))
    np.testing.assert_array_equal(mapping.logistic_scores, model.logistic.scores(on_model))


def test_the_fewer_genes_the_less_certain_and_by_what_was_fitted_on_cells_that_lack_as_many():
    model = Model(small_model("logistic"))
    calibration = model.manifest["calibration"]["logistic"]
    shares = [1.0, *(entry["gene_overlap"] for entry in calibration["fewer_genes"])]
    weights = [calibration["weights"], *(entry["weights"] for entry in calibration["fewer_genes"])]
    probabilities = np.random.default_rng(0).dirichlet(np.ones(5), 20)
    for share, fitted in zip(shares, weights, strict=True):
        scaled = softmax(fitted["logistic"] * np.log(np.maximum(probabilities, FLOOR)))
        np.testing.assert_allclose(model.pooled({"logistic": probabilities}, "logistic", share), scaled)
    between = model.pooled({"logistic": probabilities}, "logistic", (shares[0] + shares[1]) / 2)
    middle = (weights[0]["logistic"] + weights[1]["logistic"]) / 2
    np.testing.assert_allclose(between, softmax(middle * np.log(np.maximum(probabilities, FLOOR))))
    lowest = model.set_limits("logistic", 0.0)
    np.testing.assert_allclose(lowest, list(calibration["fewer_genes"][-1]["set_limits"].values()))


def test_a_model_may_be_made_without_counts_and_is_calibrated_for_missing_genes_all_the_same(tmp_path):
    write_reference(simulate(), tmp_path / "reference.h5ad")
    write_cl_map(tmp_path / "cl.csv")
    model = Model(run_train(options(tmp_path, kind="logistic", keep_counts=False)))
    assert model.reference_counts is None and not (model.folder / FILE).exists()
    cells = with_share(0.3)
    mapping = map_cells(CountsInMemory(cells.X, cells.var), model, min_gene_overlap=0)
    assert mapping.info["n_refit_genes"] == 0
    fewer = model.manifest["calibration"]["logistic"]["fewer_genes"]
    assert fewer[-1]["weights"]["logistic"] < model.manifest["calibration"]["logistic"]["weights"]["logistic"]
