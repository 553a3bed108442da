"""Clusters and layouts of a sample."""

import numpy as np
import pytest

from cellscribe import clusters as clusters_module
from cellscribe.clusters import (
    Clusters,
    clusters_and_map,
    draw_sketch,
    flat_layout,
    join_clusters,
    leiden,
    majority,
    neighbour_graph,
    sample_graph,
    umap_layout,
)


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


@pytest.fixture
def sketched(monkeypatch) -> None:
    """As if 300 cells were many."""
    monkeypatch.setattr(clusters_module, "EXACT_UP_TO", 300)
    monkeypatch.setattr(clusters_module, "SKETCH", 200)


@pytest.fixture(scope="module")
def large() -> tuple[np.ndarray, np.ndarray]:
    """600 cells of three types, the last with 12: cells, types."""
    rng = np.random.default_rng(3)
    types = np.repeat([0, 1, 2], (388, 200, 12))
    centres = np.array([[0.0] * 5, [12.0] * 5, [-12.0] * 5])
    order = rng.permutation(600)
    return (centres[types] + rng.normal(size=(600, 5)))[order].astype(np.float32), types[order]


def test_the_graph_of_a_small_sample_is_that_of_all_its_cells(embedding):
    graph, (indices, distances) = sample_graph(embedding), neighbour_graph(embedding)
    assert graph.is_whole
    np.testing.assert_array_equal(graph.near, indices)
    np.testing.assert_array_equal(graph.distances, distances)


@pytest.mark.usefixtures("sketched")
def test_the_graph_of_a_large_sample_is_that_of_a_sketch(large):
    cells, types = large
    graph = sample_graph(cells, types, cpus=2)
    assert len(graph.sketch) == 200 and not graph.is_whole and (np.diff(graph.sketch) > 0).all()
    near = graph.near
    assert near.shape == (600, 15) and near.dtype == np.int32
    np.testing.assert_array_equal(near[:, 0], np.arange(600))
    assert all(len(set(row)) == 15 for row in near.tolist())
    assert np.isin(near[:, 1:], graph.sketch).all()
    # the nearest of the sketch, found by hand
    for row in (0, 5, 599):
        apart = np.linalg.norm(cells[graph.sketch] - cells[row], axis=1)
        expected = graph.sketch[np.argsort(apart, kind="stable")[:15]]
        others = set(expected.tolist()) - {row}
        assert set(near[row, 1:].tolist()) <= others


def test_rare_labels_are_drawn_more_often_than_their_share(large):
    codes = np.repeat([0, 1], (99_900, 100))
    drawn = codes[draw_sketch(100_000, codes, size=2000)]
    assert 40 < (drawn == 1).sum() < 90  # 2 by their share; the square root of it gives 60
    plain = draw_sketch(100_000, size=2000)
    assert (codes[plain] == 1).sum() < 10 and len(set(plain.tolist())) == 2000
    np.testing.assert_array_equal(plain, draw_sketch(100_000, size=2000))


@pytest.mark.usefixtures("sketched")
def test_a_large_sample_is_clustered_and_laid_out_by_its_sketch(large):
    cells, types = large
    graph = sample_graph(cells, types)
    found, layout = clusters_and_map(cells, codes=types)
    clusters = found.codes
    assert layout.shape == (600, 2) and layout.dtype == np.float32 and np.isfinite(layout).all()
    assert (np.diff(np.bincount(clusters)) <= 0).all()
    for cluster in range(clusters.max() + 1):
        assert len(set(types[clusters == cluster].tolist())) == 1
    np.testing.assert_array_equal(
        layout[graph.sketch], umap_layout(cells[graph.sketch], graph.indices, graph.distances)
    )
    outside = np.setdiff1d(np.arange(600), graph.sketch)
    centres = np.stack([layout[types == kind].mean(axis=0) for kind in range(3)])
    nearest = np.linalg.norm(layout[outside][:, None] - centres, axis=2).argmin(axis=1)
    assert (nearest == types[outside]).mean() > 0.97


@pytest.mark.usefixtures("sketched")
def test_cells_outside_the_sketch_join_the_most_frequent_cluster_around_them(large):
    cells, types = large
    graph = sample_graph(cells, types)
    joined = join_clusters(types[graph.sketch].astype(np.int64), graph)
    np.testing.assert_array_equal(joined, types)


# the user's own ----------------------------------------------------------------------------------


@pytest.mark.usefixtures("sketched")
def test_clusters_that_are_there_stay_as_they_are_in_a_large_sample_too(large):
    cells, types = large
    own = Clusters(types[::-1].copy(), ["a", "b", "c"], "mine")
    clusters, layout = clusters_and_map(cells, codes=types, clusters=own)
    assert clusters is own and layout.shape == (600, 2)
    few, _ = clusters_and_map(cells[:4], clusters=Clusters(np.array([1, 0, -1, 1]), ["a", "b"], "mine"))
    assert few.codes.tolist() == [1, 0, -1, 1]


def test_more_resolution_gives_more_clusters(embedding, monkeypatch):
    monkeypatch.setattr(clusters_module, "umap_layout", lambda cells, *_, **__: flat_layout(cells))
    found = [clusters_and_map(embedding, resolution=resolution)[0] for resolution in (0.2, 1.0, 5.0)]
    n_clusters = [len(one.names) for one in found]
    assert n_clusters[0] == 3 and n_clusters == sorted(set(n_clusters))
    np.testing.assert_array_equal(found[1].codes, clusters_and_map(embedding)[0].codes)
    assert found[2].origin == {"cluster_resolution": 5.0}


def test_a_cell_in_no_cluster_has_what_it_has_alone():
    own = Clusters(np.array([1, -1, 0, 1]), ["b", "no cluster"], "mine")
    assert own.column().astype(str).tolist() == ["no cluster", "no cluster_2", "b", "no cluster"]
    assert own.of_each_cell(np.array(["x", "y"]), np.array(["p", "q", "r", "s"])).tolist() == [
        "y",
        "q",
        "x",
        "y",
    ]
    assert own.sizes.tolist() == [1, 2] and own.origin == {"cluster_key": "mine"}
    whole = Clusters.numbered(np.array([0, 1, 0]))
    assert list(whole.column().categories) == ["0", "1"] and list(whole.names) == ["0", "1"]
