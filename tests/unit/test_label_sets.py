"""Sets of labels hold the right one as often as they promise."""

import numpy as np
import pytest

from cellscribe.model.label_sets import coverage_of, fit_limits, label_sets, named


def simulated(n_cells: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Calibrated probabilities: the true label is drawn by them. The third label is harder than the others."""
    rng = np.random.default_rng(seed)
    probabilities = rng.dirichlet([2.0, 2.0, 0.7], n_cells)
    codes = np.array([rng.choice(3, p=row) for row in probabilities])
    return probabilities, codes


def test_sets_hold_the_true_label_for_nine_cells_of_ten_of_each_type():
    limits = fit_limits(*simulated(20_000, 0))
    probabilities, codes = simulated(20_000, 1)
    inside = label_sets(probabilities, limits)
    for code in range(3):
        cells = codes == code
        assert 0.885 < coverage_of(inside[cells], codes[cells])["coverage"] < 0.93


def test_a_type_with_few_held_out_cells_takes_the_limit_of_all():
    probabilities, codes = simulated(5_000, 0)
    rare = np.flatnonzero(codes == 2)[10:]
    keep = np.setdiff1d(np.arange(len(codes)), rare)
    limits = fit_limits(probabilities[keep], codes[keep])
    own = np.sort(probabilities[keep][np.arange(len(keep)), codes[keep]])
    assert limits[2] == pytest.approx(own[int(0.1 * len(own))], abs=0.01)
    assert limits[0] != limits[2]


def test_weights_let_each_batch_count_the_same():
    probabilities = np.array([[0.9, 0.1]] * 900 + [[0.2, 0.8]] * 100)
    codes = np.zeros(1000, dtype=int)
    even = np.r_[np.full(900, 1 / 900), np.full(100, 1 / 100)]
    # A tenth of the cells are the doubtful ones: with half the weight they decide.
    assert fit_limits(probabilities, codes)[0] == 0.2
    assert fit_limits(np.r_[probabilities[:900], probabilities[900:950]], codes[:950])[0] == 0.9
    assert fit_limits(probabilities, codes, even)[0] == 0.2


def test_no_label_is_left_out_that_is_more_probable_than_one_inside():
    inside = label_sets(np.array([[0.6, 0.34, 0.06]]), np.array([0.5, 0.4, 0.05]))
    assert inside.tolist() == [[True, True, True]]


def test_a_label_that_misses_its_own_limit_is_not_alone_unless_it_is_probable_enough():
    limits = np.array([0.95, 0.9, 0.9])
    rows = np.array([[0.94, 0.05, 0.01], [0.7, 0.25, 0.05], [0.5, 0.3, 0.2]])
    assert label_sets(rows, limits).sum(axis=1).tolist() == [1, 2, 3]
    assert label_sets(np.array([[0.96, 0.03, 0.01]]), limits).tolist() == [[True, False, False]]


def test_labels_of_a_set_come_the_most_probable_first():
    probabilities = np.array([[0.2, 0.5, 0.3], [0.9, 0.06, 0.04]])
    inside = np.array([[True, True, False], [True, False, False]])
    assert named(inside, probabilities, ["B cell", "T cell", "NK cell"]).tolist() == [
        "T cell; B cell",
        "B cell",
    ]


def test_with_hardly_any_cell_every_label_is_possible():
    assert fit_limits(np.array([[0.9, 0.1], [0.8, 0.2]]), np.array([0, 0])).tolist() == [0.0, 0.0]
