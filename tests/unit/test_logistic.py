"""The logistic regression of a model."""

import numpy as np
import pytest
import scipy.sparse as sp

from cellscribe.model.logistic import Logistic, link, log_normalise

COUNTS = sp.csr_matrix(np.array([[1, 0, 3], [0, 0, 0], [10, 10, 0]], dtype=np.float32))


def test_cells_are_scaled_to_ten_thousand_and_logged():
    expected = np.log1p(np.array([[2500, 0, 7500], [0, 0, 0], [5000, 5000, 0]]))
    np.testing.assert_allclose(log_normalise(COUNTS).toarray(), expected, rtol=1e-6)


def test_depth_does_not_change_normalised_values_and_the_input_is_kept():
    before = COUNTS.copy()
    np.testing.assert_allclose(
        log_normalise(COUNTS * 7).toarray(), log_normalise(COUNTS).toarray(), rtol=1e-6
    )
    assert abs(COUNTS - before).max() == 0


def test_scores_are_a_matrix_product_and_an_empty_cell_gets_the_intercepts(tmp_path):
    rng = np.random.default_rng(0)
    model = Logistic(rng.normal(size=(3, 4)).astype(np.float32), rng.normal(size=4).astype(np.float32))
    expected = np.log1p(np.array([[2500, 0, 7500]])) @ model.coefficients + model.intercepts
    np.testing.assert_allclose(model.scores(COUNTS)[0], expected[0], rtol=1e-5)
    np.testing.assert_array_equal(model.scores(COUNTS)[1], model.intercepts)
    model.save(tmp_path / "l.safetensors")
    again = Logistic.load(tmp_path / "l.safetensors")
    np.testing.assert_array_equal(again.scores(COUNTS), model.scores(COUNTS))
    assert model.scores(COUNTS).dtype == np.float32


def test_the_matrix_is_never_made_dense(monkeypatch):
    monkeypatch.setattr(sp.csr_matrix, "toarray", lambda *_: pytest.fail("densified"))
    monkeypatch.setattr(sp.csr_matrix, "todense", lambda *_: pytest.fail("densified"))
    log_normalise(COUNTS)


@pytest.fixture
def other():
    """A regression as CellTypist makes them, and cells whose highest values it clips."""
    rng = np.random.default_rng(3)
    counts = sp.csr_matrix(rng.poisson(0.6, (30, 12)).astype(np.float32))
    means, deviations = rng.uniform(0.1, 3, 12), rng.uniform(0.05, 0.5, 12)
    weights = rng.normal(size=(12, 4))
    model = Logistic(
        weights / deviations[:, None], rng.normal(size=4), means + 10 * deviations, means, all_genes=True
    )
    return model, counts, (means, deviations, weights)


def test_clipping_scaling_and_missing_genes_stay_exact_on_sparse_counts(other):
    model, counts, (means, deviations, weights) = other
    totals = np.asarray(counts.sum(axis=1)).ravel() + 50
    found = np.arange(12) % 3 > 0
    here = sp.csr_matrix(counts.toarray() * found)
    scaled = (np.log1p(here.toarray() * 1e4 / totals[:, None]) - means) / deviations
    assert (scaled > 10).any()
    expected = np.minimum(scaled, 10)[:, found] @ weights[found] + model.intercepts
    np.testing.assert_allclose(model.scores(here, totals=totals, found=found), expected, atol=1e-3, rtol=1e-6)


def test_what_another_regression_has_is_saved_too(other, tmp_path):
    model, counts, _ = other
    model.save(tmp_path / "l.safetensors")
    again = Logistic.load(tmp_path / "l.safetensors")
    assert again.coefficients.dtype == np.float64
    totals = np.full(30, 100.0)
    np.testing.assert_array_equal(again.scores(counts, totals=totals), model.scores(counts, totals=totals))


def test_one_vs_rest_keeps_what_is_left_for_none_of_the_labels_and_the_order_of_certain_ones():
    scores = np.array(
        [[0.0, -9, -9], [2, 2.5, -9], [50, 80, -900], [-20, -30, -40], [-900, -1000, -800], [-99, -91, -95]]
    )
    probabilities = link(scores, "one_vs_rest")
    assert probabilities[0, 0] == 0.5 and probabilities[0].sum() < 1
    np.testing.assert_allclose(probabilities[1:3].sum(axis=1), 1, atol=1e-6)
    assert probabilities[3:].max() < 1e-8
    shares = link(scores, "one_vs_rest_share")
    np.testing.assert_allclose(shares.sum(axis=1), 1, atol=1e-6)
    for of in (probabilities, shares):
        assert of.argmax(axis=1).tolist() == scores.argmax(axis=1).tolist()
    # Nor where what no single precision can write is taken to be zero.
    lost = np.where(probabilities < np.finfo(np.float32).tiny, 0, probabilities)
    assert lost.argmax(axis=1).tolist() == scores.argmax(axis=1).tolist()
