"""Clusters and layouts of a sample."""

import numpy as np
import pytest

from cellscribe.clusters import flat_layout, leiden, majority, neighbour_graph, umap_layout


@pytest.fixture(scope="module")
def embedding() -> np.ndarray:
    rng = np.random.default_rng(0)
    sizes, centres = (60, 40, 25), rng.normal(0, 8, (3, 5))
    return np.concatenate([rng.normal(c, 1, (n, 5)) for n, c in zip(sizes, centres, strict=True)]).astype(
        np.float32
    )


def test_each_cell_is_its_own_first_neighbour_even_among_twins(embedding):
    twins = np.repeat(embedding[:10], 20, axis=0)
    for cells in (embedding, twins, np.zeros((30, 4), dtype=np.float32)):
        indices, distances = neighbour_graph(cells)
        np.testing.assert_array_equal(indices[:, 0], np.arange(len(cells)))
        assert (distances[:, 0] == 0).all()
        assert all(len(set(row)) == len(row) for row in indices.tolist())


def test_a_graph_has_no_more_neighbours_than_cells(embedding):
    indices, _ = neighbour_graph(embedding[:11])
    assert indices.shape == (11, 11)


def test_clusters_are_the_groups_that_are_there_the_largest_first(embedding):
    clusters = leiden(neighbour_graph(embedding)[0], resolution=0.2)
    truth = np.repeat([0, 1, 2], (60, 40, 25))
    np.testing.assert_array_equal(clusters, truth)


def test_clusters_are_the_same_for_the_same_seed(embedding):
    indices, _ = neighbour_graph(embedding)
    np.testing.assert_array_equal(leiden(indices, seed=3), leiden(indices, seed=3))
    sizes = np.bincount(leiden(indices, resolution=3.0))
    assert len(sizes) > 3 and (np.diff(sizes) <= 0).all()


def test_umap_is_finite_keeps_groups_apart_and_repeats_itself(embedding):
    indices, distances = neighbour_graph(embedding)
    layout = umap_layout(embedding, indices, distances, seed=1)
    assert layout.shape == (125, 2) and layout.dtype == np.float32 and np.isfinite(layout).all()
    truth = np.repeat([0, 1, 2], (60, 40, 25))
    centres = np.stack([layout[truth == group].mean(axis=0) for group in range(3)])
    nearest = np.linalg.norm(layout[:, None] - centres[None], axis=2).argmin(axis=1)
    assert (nearest == truth).mean() > 0.95
    np.testing.assert_array_equal(umap_layout(embedding, indices, distances, seed=1), layout)


@pytest.mark.parametrize("n", [10, 12])
def test_umap_of_a_tiny_sample_of_identical_cells_is_finite(n):
    cells = np.ones((n, 4), dtype=np.float32)
    layout = umap_layout(cells, *neighbour_graph(cells), start=np.zeros((n, 2), dtype=np.float32))
    assert layout.shape == (n, 2) and np.isfinite(layout).all()


@pytest.mark.parametrize(("n", "d"), [(1, 5), (2, 5), (9, 5), (9, 1)])
def test_principal_components_of_very_few_cells_always_have_two_columns(n, d):
    layout = flat_layout(np.random.default_rng(0).normal(size=(n, d)).astype(np.float32))
    assert layout.shape == (n, 2) and layout.dtype == np.float32 and np.isfinite(layout).all()


def test_principal_components_keep_distances_of_flat_data():
    flat = np.random.default_rng(0).normal(size=(8, 2)) @ np.random.default_rng(1).normal(size=(2, 5))
    axes = flat_layout(flat)
    before = np.linalg.norm(flat[:, None] - flat[None], axis=2)
    np.testing.assert_allclose(np.linalg.norm(axes[:, None] - axes[None], axis=2), before, atol=1e-5)


def test_the_most_frequent_label_of_each_cluster_and_its_share():
    winners, shares = majority(np.array([0, 0, 0, 1, 1]), np.array([2, 2, 0, 1, 1]), 4)
    assert winners.tolist() == [2, 1]
    np.testing.assert_allclose(shares, [2 / 3, 1])
