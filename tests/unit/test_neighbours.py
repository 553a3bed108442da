"""Nearest reference cells and their votes."""

import numpy as np
import pytest

from cellscribe.model.neighbours import kernel_weights, nearest, place_on, vote

RNG = np.random.default_rng(0)
REFERENCE = RNG.normal(size=(200, 6)).astype(np.float32)
QUERY = RNG.normal(size=(50, 6)).astype(np.float32)


@pytest.mark.parametrize("block", [1, 7, 4096])
def test_nearest_equals_scikit_learns_brute_force(block):
    from sklearn.neighbors import NearestNeighbors

    distances, indices = nearest(QUERY, REFERENCE, 12, block=block)
    expected = NearestNeighbors(n_neighbors=12, algorithm="brute").fit(REFERENCE).kneighbors(QUERY)
    np.testing.assert_array_equal(indices, expected[1])
    np.testing.assert_allclose(distances, expected[0], atol=1e-4)
    assert (distances.dtype, indices.dtype) == (np.float32, np.int32)


def test_cells_far_from_zero_have_the_same_neighbours():
    """A model made by others may place its cells anywhere."""
    near = nearest(QUERY, REFERENCE, 12)
    far = nearest(QUERY + 1000, REFERENCE + 1000, 12)
    assert (near[1] == far[1]).mean() > 0.99
    np.testing.assert_allclose(far[0], near[0], atol=1e-2)


def test_there_are_never_more_neighbours_than_reference_cells():
    distances, indices = nearest(QUERY, REFERENCE[:4], 30)
    assert distances.shape == indices.shape == (50, 4)
    assert (np.sort(indices, axis=1) == np.arange(4)).all()


def test_ties_are_broken_the_same_way_every_time_the_first_cell_first():
    twins = np.repeat(REFERENCE[:10], 3, axis=0)
    first = nearest(twins, twins, 6)
    again = nearest(twins.copy(), twins.copy(), 6)
    np.testing.assert_array_equal(first[1], again[1])
    own = np.arange(30) // 3 * 3
    np.testing.assert_array_equal(first[1][:, 0], own)


def test_a_cell_of_the_reference_is_its_own_nearest_at_no_distance():
    distances, indices = nearest(REFERENCE, REFERENCE, 3)
    np.testing.assert_array_equal(indices[:, 0], np.arange(200))
    assert distances[:, 0].max() < 5e-3
    assert (np.diff(distances, axis=1) >= 0).all()


def test_weights_sum_to_one_and_fall_with_distance_even_at_no_distance():
    weights = kernel_weights(np.array([[0.0, 0.0, 0.0], [1.0, 2.0, 4.0]], dtype=np.float32))
    np.testing.assert_allclose(weights.sum(axis=1), 1, rtol=1e-6)
    np.testing.assert_allclose(weights[0], 1 / 3, rtol=1e-6)
    assert (np.diff(weights[1]) < 0).all()


def test_votes_are_probabilities_and_no_label_is_ruled_out():
    distances, indices = nearest(QUERY, REFERENCE, 10)
    codes = np.arange(200) % 3
    probabilities = vote(distances, indices, codes, 5)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1)
    assert probabilities.shape == (50, 5)
    assert (probabilities > 0).all()


def test_a_vote_equals_the_weights_of_the_neighbours_of_each_label():
    distances = np.array([[1.0, 1.0, 2.0]], dtype=np.float32)
    weights = np.exp(-0.5 * (distances[0] / distances.mean()) ** 2)
    weights /= weights.sum()
    got = vote(distances, np.array([[0, 1, 2]]), np.array([0, 1, 1]), 2)[0]
    smooth = 0.1 / 3
    expected = (np.array([weights[0], weights[1] + weights[2]]) + smooth / 2) / (1 + smooth)
    np.testing.assert_allclose(got, expected, rtol=1e-6)


def test_rare_labels_can_be_given_more_weight():
    distances, indices, codes = np.ones((1, 4), np.float32), np.arange(4)[None], np.array([0, 0, 0, 1])
    plain = vote(distances, indices, codes, 2)
    raised = vote(distances, indices, codes, 2, np.array([1.0, 10.0]))
    assert plain[0].argmax() == 0
    assert raised[0].argmax() == 1


def test_a_cell_is_placed_among_its_nearest_cells():
    places = np.array([[0.0, 0.0], [10.0, 0.0], [500.0, 500.0]])
    distances = np.array([[1.0, 1.0, 9.0]], dtype=np.float32)
    placed = place_on(distances, np.array([[0, 1, 2]]), places, use=2)
    np.testing.assert_allclose(placed, [[5.0, 0.0]], atol=1e-5)
    assert placed.dtype == np.float32
    assert place_on(distances, np.array([[0, 1, 2]]), places, use=50).shape == (1, 2)
