"""Training of members."""

import numpy as np
import pytest
import scipy.sparse as sp
from small_model import TYPES, simulate

from cellscribe.model.calibration import softmax
from cellscribe.model.logistic import LEAST_DEVIATION, log_normalise, train_logistic
from cellscribe.model.model import tree_probabilities
from cellscribe.training.members import train_encoder, train_trees


@pytest.fixture(scope="module")
def cells():
    adata = simulate(150)
    return sp.csr_matrix(adata.X), np.array([TYPES.index(label) for label in adata.obs["cell_type"]])


def test_the_logistic_regression_equals_scikit_learns_on_scaled_genes(cells):
    from sklearn.linear_model import LogisticRegression

    counts, codes = cells
    logged = log_normalise(counts).toarray()
    scaled = logged / np.maximum(logged.std(axis=0), LEAST_DEVIATION)
    fitted = LogisticRegression(C=0.001, class_weight="balanced", max_iter=500, tol=1e-6).fit(scaled, codes)
    own = softmax(train_logistic(counts, codes, 5).scores(counts))
    np.testing.assert_allclose(own, fitted.predict_proba(scaled), atol=0.02)
    assert (own.argmax(axis=1) == codes).mean() > 0.95


def test_two_labels_give_the_probabilities_of_a_binary_regression(cells):
    from sklearn.linear_model import LogisticRegression

    counts, codes = cells
    rows = np.flatnonzero(codes < 2)
    logged = log_normalise(counts[rows]).toarray()
    scaled = logged / np.maximum(logged.std(axis=0), LEAST_DEVIATION)
    fitted = LogisticRegression(C=0.001, class_weight="balanced", max_iter=500, tol=1e-6)
    expected = fitted.fit(scaled, codes[rows]).predict_proba(scaled)
    own = softmax(train_logistic(counts[rows], codes[rows], 2).scores(counts[rows]))
    np.testing.assert_allclose(own, expected, atol=0.02)
    assert own.argmax(axis=1).tolist() == codes[rows].tolist()


def test_a_label_without_cells_is_never_predicted(cells):
    counts, codes = cells
    probabilities = softmax(train_logistic(counts, codes, 7).scores(counts))
    assert probabilities.shape == (150, 7)
    assert probabilities[:, 5:].max() < 1e-6


def test_the_logistic_regression_never_makes_the_matrix_dense(cells, monkeypatch):
    counts, codes = cells
    monkeypatch.setattr(sp.csr_matrix, "toarray", lambda *_: pytest.fail("densified"))
    train_logistic(counts, codes, 5)


def test_trees_give_probabilities_for_every_label_even_one_without_cells(cells, tmp_path):
    rng = np.random.default_rng(0)
    _, codes = cells
    latent = (np.eye(5)[codes] * 4 + rng.normal(0, 1, (150, 5))).astype(np.float32)
    trees = train_trees(latent, codes, 6, n_rounds=15)
    probabilities = tree_probabilities(trees, latent)
    assert probabilities.shape == (150, 6)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, atol=1e-5)
    assert (probabilities.argmax(axis=1) == codes).mean() > 0.95
    trees.save_model(tmp_path / "trees.ubj")
    import xgboost

    again = xgboost.Booster()
    again.load_model(tmp_path / "trees.ubj")
    np.testing.assert_array_equal(tree_probabilities(again, latent), probabilities)


def test_trees_are_the_same_for_the_same_seed(cells):
    _, codes = cells
    latent = np.random.default_rng(0).normal(size=(150, 4)).astype(np.float32)
    one, two = (tree_probabilities(train_trees(latent, codes, 5, n_rounds=5), latent) for _ in range(2))
    np.testing.assert_array_equal(one, two)


@pytest.mark.train
def test_an_scvi_encoder_is_the_same_for_the_same_seed(cells):
    pytest.importorskip("scvi")
    counts, _ = cells
    batches = simulate(150).obs["donor"].to_numpy(dtype=object)
    one, two = (
        train_encoder(counts, batches, n_latent=4, n_hidden=8, max_epochs=1, seed=1) for _ in range(2)
    )
    assert one.n_latent == 4
    np.testing.assert_allclose(one.encode(counts), two.encode(counts), atol=1e-5)
    assert np.abs(one.encode(counts)).max() > 1e-2
