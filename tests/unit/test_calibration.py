"""Probabilities that mean what they say."""

import numpy as np
import pytest
import scipy.optimize

from cellscribe.model import calibration
from cellscribe.model.calibration import (
    FEW_CELLS,
    expected_calibration_error,
    few_cells_offsets,
    fit_pool,
    pool,
    reliability,
    softmax,
)


def drawn(n: int = 20_000, n_labels: int = 4, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """True logits, and labels drawn from their softmax."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 1.2, (n, n_labels))
    codes = (softmax(logits).cumsum(axis=1) > rng.random((n, 1))).argmax(axis=1)
    return logits, codes


def test_softmax_is_right_and_survives_large_scores():
    values = softmax(np.array([[1000.0, 1000.0], [0.0, np.log(3)], [-1e5, 0.0]]))
    np.testing.assert_allclose(values, [[0.5, 0.5], [0.25, 0.75], [0, 1]])


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.5])
def test_the_temperature_of_overconfident_scores_is_recovered(temperature):
    logits, codes = drawn()
    member = softmax(logits * temperature)
    (weight,) = fit_pool([member], codes)
    assert weight == pytest.approx(1 / temperature, rel=0.08)
    right = pool([member], np.array([weight]))
    error = expected_calibration_error(right.max(axis=1), right.argmax(axis=1) == codes)
    assert error < 0.02


def test_a_member_that_knows_nothing_gets_no_say():
    logits, codes = drawn(5_000)
    noise = softmax(np.random.default_rng(9).normal(0, 1, logits.shape))
    weights = fit_pool([softmax(logits), noise], codes)
    assert weights[0] > 0.8
    assert weights[1] < 0.1


def test_cells_that_no_member_can_know_say_how_sure_the_pool_is_and_not_which_member_is_believed():
    logits, codes = drawn(6_000)
    known = codes != 3
    noise = np.random.default_rng(9).normal(0, 1, logits.shape)
    members = [softmax(np.where(np.arange(4) == 3, -9, one)) for one in (logits, logits + noise)]
    alone = fit_pool([member[known] for member in members], codes[known])
    told, untold = fit_pool(members, codes, taught=known), fit_pool(members, codes)
    np.testing.assert_allclose(told / told.sum(), alone / alone.sum(), rtol=1e-3)
    assert told.sum() < 0.5 * alone.sum()
    assert not np.allclose(untold / untold.sum(), told / told.sum())
    np.testing.assert_array_equal(fit_pool(members, codes, taught=np.zeros(len(codes), bool)), untold)


def test_weights_are_never_negative_even_where_a_member_is_wrong_on_purpose():
    logits, codes = drawn(3_000)
    weights = fit_pool([softmax(logits), softmax(-logits)], codes)
    assert (weights >= 0).all() and weights.sum() > 0


def test_the_gradient_of_the_loss_is_that_of_finite_differences(monkeypatch):
    seen = {}
    real = scipy.optimize.minimize

    def spy(loss, start, **options):
        seen.setdefault("loss", loss)
        return real(loss, start, **options)

    monkeypatch.setattr(scipy.optimize, "minimize", spy)
    logits, codes = drawn(400)
    members = [softmax(logits), softmax(logits + np.random.default_rng(1).normal(0, 1, logits.shape))]
    share = np.random.default_rng(2).uniform(0.1, 1, len(codes))
    fit_pool(members, codes, share)
    for point in ([0.3, 0.4], [1.5, 0.0], [0.1, 2.0]):
        expected = scipy.optimize.approx_fprime(point, lambda w: seen["loss"](np.asarray(w))[0], 1e-6)
        np.testing.assert_allclose(seen["loss"](np.array(point))[1], expected, atol=1e-5)


def test_no_weights_near_the_fitted_ones_have_a_lower_loss():
    logits, codes = drawn(2_000)
    members = [softmax(logits * 1.7), softmax(logits * 0.4)]
    found = fit_pool(members, codes)

    def loss(weights):
        return -np.log(pool(members, weights)[np.arange(len(codes)), codes]).mean()

    for step in ((0.05, 0), (-0.05, 0), (0, 0.05), (0, -0.05)):
        assert loss(found) <= loss(np.maximum(found + step, 0)) + 1e-9


def test_a_rare_label_has_a_say_in_which_member_is_believed_and_probabilities_stay_honest():
    rng = np.random.default_rng(3)
    codes = rng.choice(3, 20_000, p=[0.49, 0.49, 0.02])
    logits = np.eye(3)[codes]
    common = softmax(logits * [4, 4, 0.5] + rng.normal(0, 1.5, logits.shape))  # hardly sees the rare label
    rare = softmax(logits * [1.5, 1.5, 6] + rng.normal(0, 1.5, logits.shape))
    weights = fit_pool([common, rare], codes)
    as_is = calibration._least_loss(
        np.log(np.maximum([common, rare], calibration.FLOOR)), codes, np.ones(len(codes))
    )
    assert weights[1] / weights.sum() > as_is[1] / as_is.sum() + 0.02
    pooled, plain = pool([common, rare], weights), pool([common, rare], as_is)
    found = [(p.argmax(axis=1) == 2)[codes == 2].mean() for p in (pooled, plain)]
    assert found[0] > found[1] + 0.02
    assert expected_calibration_error(pooled.max(axis=1), pooled.argmax(axis=1) == codes) < 0.03


def test_cell_weights_count_as_copies_do():
    logits, codes = drawn(600)
    member, twice = softmax(logits * 2), np.r_[np.arange(600), np.arange(100)]
    weight = np.ones(600)
    weight[:100] = 2
    np.testing.assert_allclose(
        fit_pool([member], codes, weight), fit_pool([member[twice]], codes[twice]), rtol=1e-3
    )


def test_a_pool_of_one_member_with_weight_one_is_that_member():
    member = softmax(np.random.default_rng(0).normal(size=(10, 3)))
    np.testing.assert_allclose(pool([member], np.array([1.0])), member, rtol=1e-9)


def test_no_member_alone_rules_a_label_out():
    sure, other = np.array([[1.0, 0.0]]), np.array([[0.2, 0.8]])
    pooled = pool([sure, other], np.array([0.5, 0.5]))
    assert 0 < pooled[0, 1] < 0.5
    np.testing.assert_allclose(pooled.sum(), 1)


def test_a_label_of_few_cells_gets_more_chance_the_fewer_they_are():
    offsets = few_cells_offsets(np.array([5000, FEW_CELLS, FEW_CELLS - 1, 14, 5, 1, 0]))
    np.testing.assert_array_equal(offsets[[0, 1, 6]], 0)
    assert (np.diff(offsets[1:6]) > 0).all()
    np.testing.assert_allclose(np.exp(offsets[3]), (FEW_CELLS / 14) ** 0.75)


def test_offsets_multiply_the_odds_after_the_members_are_weighed():
    member = np.array([[0.6, 0.4]])
    pooled = pool([member], np.array([2.0]), np.array([0.0, np.log(3)]))
    np.testing.assert_allclose(pooled[0, 1] / pooled[0, 0], 3 * (0.4 / 0.6) ** 2)
    np.testing.assert_allclose(pooled.sum(), 1)
    as_is = pool([member], np.array([2.0]))
    np.testing.assert_allclose(pool([member], np.array([2.0]), np.full(2, 0.7)), as_is)


def test_the_calibration_error_of_a_known_case():
    confidence = np.array([0.95] * 10 + [0.55] * 10)
    right = np.array([True] * 8 + [False] * 2 + [True] * 5 + [False] * 5)
    assert expected_calibration_error(confidence, right, 10) == pytest.approx(0.5 * 0.15 + 0.5 * 0.05)
    assert expected_calibration_error(np.ones(4), np.ones(4, bool)) == 0
    assert expected_calibration_error(np.ones(4), np.zeros(4, bool)) == 1


def test_reliability_lists_only_bins_that_hold_cells_and_all_cells():
    edges, shares, means, accuracies = reliability(
        np.array([0.0, 0.05, 1.0]), np.array([False, True, True]), 10
    )
    np.testing.assert_allclose(edges, [0.1, 1.0])
    np.testing.assert_allclose(shares, [2 / 3, 1 / 3])
    np.testing.assert_allclose(means, [0.025, 1.0])
    np.testing.assert_allclose(accuracies, [0.5, 1.0])
