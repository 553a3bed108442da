"""Naive Bayes on the counts themselves: what cells of few counts are named by."""

import numpy as np
import pytest
import scipy.sparse as sp
from safetensors.numpy import save_file
from scipy.stats import multinomial
from small_model import simulate, small_model

from cellscribe.mapping import map_cells
from cellscribe.model.calibration import softmax
from cellscribe.model.likelihood import HALF_AT, STRENGTH, Likelihood
from cellscribe.model.model import LIKELIHOOD, Model
from cellscribe.one_file import CountsInMemory
from cellscribe.training.members import likelihood_of

SHARES = np.array([[0.7, 0.1, 0.2], [0.2, 0.6, 0.2], [0.1, 0.3, 0.6]], dtype=np.float32)


def counts(*rows: list[float]) -> sp.csr_matrix:
    return sp.csr_matrix(np.array(rows, dtype=np.float32))


def test_differences_between_labels_are_those_of_the_multinomial_likelihood():
    cell = [6, 3, 1]
    scores = Likelihood(SHARES).scores(counts(cell))[0] / (STRENGTH / (1 + (10 / HALF_AT) ** 3))
    smooth = SHARES + 0.05 * SHARES.mean(axis=1, keepdims=True)
    smooth = smooth.astype(np.float64) / smooth.sum(axis=0)
    expected = [multinomial.logpmf(cell, 10, shares / shares.sum()) for shares in smooth.T]
    np.testing.assert_allclose(scores - scores[0], np.array(expected) - expected[0], atol=1e-4)


def test_its_say_fades_with_the_counts():
    """More counts of the same gene: more evidence at first, hardly any in the end."""
    sure = softmax(Likelihood(SHARES).scores(counts([10, 0, 0], [50, 0, 0], [1_000, 0, 0], [9_000, 0, 0])))
    assert sure[0, 0] < sure[1, 0] > sure[2, 0] > sure[3, 0]
    np.testing.assert_allclose(sure[3], 1 / 3, atol=0.01)


def test_genes_that_were_not_measured_say_nothing():
    """Without the gene that marks it, a label is not less likely: its other genes share what it had."""
    on = Likelihood(SHARES).on(np.array([False, True, True]))
    scores = on.scores(counts([0, 2, 1]))[0]
    np.testing.assert_allclose(scores[0], scores[1], atol=1e-6)
    assert scores[0] > scores[2]
    np.testing.assert_allclose(on.scores(counts([0, 0, 0])), 0)


def test_with_few_of_the_genes_few_counts_are_deep():
    """Its say is that of the depth of the cell, not of the counts that are left."""
    likelihood, counted = Likelihood(SHARES), counts([0, 30, 10])
    on = likelihood.on(np.array([False, True, True]))
    left = SHARES[1:].sum() / SHARES.sum()
    assert on.measured == pytest.approx(left)
    plain = Likelihood(np.where(np.array([[False], [True], [True]]), SHARES, 0))
    ratio = on.scores(counted)[0, 0] / plain.scores(counted)[0, 0]
    assert ratio == pytest.approx((1 + (40 / HALF_AT) ** 3) / (1 + (40 / left / HALF_AT) ** 3), rel=1e-4)
    assert ratio < 0.9


def test_a_label_without_cells_is_the_least_likely_and_changes_no_other():
    with_absent = np.column_stack([SHARES, np.zeros(3)]).astype(np.float32)
    scores = Likelihood(with_absent).scores(counts([5, 5, 2]))
    assert scores[0, 3] == scores[0, :3].min()
    np.testing.assert_array_equal(scores[:, :3], Likelihood(SHARES).scores(counts([5, 5, 2])))


@pytest.mark.parametrize("cell", [[0, 0, 0], [1e9, 0, 0], [0.5, 0.25, 0]])
def test_cells_of_no_counts_of_many_and_of_fractions_get_numbers(cell):
    scores = Likelihood(SHARES).scores(counts(cell))
    assert scores.dtype == np.float32 and np.isfinite(scores).all()
    assert np.isfinite(Likelihood(SHARES).on(np.zeros(3, bool)).scores(counts([0, 0, 0]))).all()


def test_shares_are_means_over_cells_whatever_their_depth():
    cells = counts([1, 1, 2], [30, 0, 10], [0, 4, 0], [0, 0, 0])
    found = likelihood_of(cells, np.array([0, 0, 1, 1]), np.ones(4), 3).shares
    np.testing.assert_allclose(found.T, [[0.5, 0.125, 0.375], [0, 1, 0], [0, 0, 0]], atol=1e-6)
    weighed = likelihood_of(cells, np.array([0, 0, 1, 1]), np.array([3, 1, 1, 1]), 3).shares
    np.testing.assert_allclose(weighed[:, 0], [0.375, 0.1875, 0.4375], atol=1e-6)


def test_what_is_saved_is_read_again_and_what_is_no_share_is_refused(tmp_path):
    path = tmp_path / "likelihood.safetensors"
    Likelihood(SHARES).save(path)
    np.testing.assert_array_equal(Likelihood.load(path).shares, SHARES)
    for wrong in (-SHARES, SHARES[0], SHARES * 0, SHARES * np.nan):
        save_file({"shares": np.ascontiguousarray(wrong)}, path)
        with pytest.raises(ValueError, match=r"shares|finite"):
            Likelihood.load(path)


def test_of_hardly_any_counts_it_names_more_cells_right_than_any_other_member():
    cells, rng = simulate(500, seed=4), np.random.default_rng(0)
    cells.X.data = rng.binomial(cells.X.data.astype(int), 0.05).astype(np.float32)
    model = Model(small_model("consensus"))
    mapping = map_cells(CountsInMemory(cells.X, cells.var), model)
    assert np.median(mapping.n_model_counts) < 10
    truth, labels = cells.obs["cell_type"].to_numpy(), np.array(model.labels)
    members = model.member_probabilities(**mapping.arrays())
    right = {name: (labels[found.argmax(axis=1)] == truth).mean() for name, found in members.items()}
    assert right.pop(LIKELIHOOD) > max(0.95, *right.values())
