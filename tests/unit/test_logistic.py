"""The logistic regression of a model."""

import numpy as np
import pytest
import scipy.sparse as sp

from cellscribe.model.logistic import Logistic, log_normalise

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
