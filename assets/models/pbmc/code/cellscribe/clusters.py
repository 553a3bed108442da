"""Clusters and UMAP of a sample in the reference embedding."""

from __future__ import annotations

import numpy as np

from cellscribe.model.neighbours import nearest

FEWEST_CELLS = 10
N_NEIGHBOURS = 15
EXACT_UP_TO = 30_000


def neighbour_graph(
    embedding: np.ndarray, n_neighbours: int = N_NEIGHBOURS, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Each cell's nearest cells in the sample, itself first: indices int32 and distances float32, (n_cells, k).

    Exact up to 30,000 cells; beyond, by nearest-neighbour descent (Dong et al. 2011, WWW).
    """
    k = min(n_neighbours, len(embedding))
    if len(embedding) > EXACT_UP_TO:
        from pynndescent import NNDescent

        indices, distances = NNDescent(embedding, n_neighbors=k, random_state=seed).neighbor_graph
        return indices.astype(np.int32), distances.astype(np.float32)
    distances, indices = nearest(embedding, embedding, k)
    # a twin of the cell may come before the cell itself: UMAP wants the cell first
    own = np.arange(len(embedding), dtype=np.int32)
    for row in np.flatnonzero(indices[:, 0] != own):
        at = np.flatnonzero(indices[row] == row)
        indices[row, at[0] if len(at) else -1] = indices[row, 0]
        indices[row, 0] = row
    distances[:, 0] = 0
    return indices, distances


def clusters_and_map(
    embedding: np.ndarray,
    *,
    start: np.ndarray | None = None,
    umap: np.ndarray | None = None,
    graph: tuple[np.ndarray, np.ndarray] | None = None,
    seed: int = 0,
) -> tuple[np.ndarray, np.ndarray]:
    """Clusters int (n_cells,) and a map float32 (n_cells, 2) of cells (n_cells, n_dimensions): Leiden and UMAP.

    start: (n_cells, 2), where the UMAP begins. umap, graph: a map and a `neighbour_graph` that are there already.
    Fewer than ten cells are one cluster, mapped by principal components.
    """
    if len(embedding) < FEWEST_CELLS:
        return np.zeros(len(embedding), dtype=int), flat_layout(embedding)
    near, far = graph or neighbour_graph(embedding, seed=seed)
    if umap is None:
        umap = umap_layout(embedding, near, far, start=start, seed=seed)
    return leiden(near, seed=seed), umap


def leiden(indices: np.ndarray, *, resolution: float = 1.0, seed: int = 0) -> np.ndarray:
    """Leiden clusters of a neighbour graph, the largest first, int (n_cells,).

    Edges weigh by the neighbours that two cells share (Jaccard). Traag et al. 2019, Scientific Reports 9:5233, by
    igraph.
    """
    import random

    import igraph
    import scipy.sparse as sp

    n_cells, k = indices.shape
    adjacency = sp.csr_matrix(
        (np.ones(n_cells * k, dtype=np.float32), indices.ravel(), np.arange(0, n_cells * k + 1, k)),
        shape=(n_cells, n_cells),
    )
    shared = adjacency @ adjacency.T
    linked = (adjacency + adjacency.T).astype(bool)
    shared = sp.triu(shared.multiply(linked), k=1).tocoo()
    weights = shared.data / (2 * k - shared.data)
    graph = igraph.Graph(
        n=n_cells,
        edges=np.column_stack([shared.row, shared.col]).tolist(),
        edge_attrs={"weight": weights.tolist()},
    )
    igraph.set_random_number_generator(random.Random(seed))
    found = graph.community_leiden(
        objective_function="modularity", weights="weight", resolution=resolution, n_iterations=4
    )
    membership = np.asarray(found.membership)
    order = np.argsort(-np.bincount(membership), kind="stable")
    rank = np.empty_like(order)
    rank[order] = np.arange(len(order))
    return rank[membership]


def umap_layout(
    embedding: np.ndarray,
    indices: np.ndarray,
    distances: np.ndarray,
    *,
    start: np.ndarray | None = None,
    seed: int = 0,
) -> np.ndarray:
    """UMAP of a sample: float32 (n_cells, 2), finite. McInnes et al. 2018, arXiv:1802.03426.

    start: (n_cells, 2), each cell's place on the reference's own UMAP, so that both maps lie alike.
    """
    import warnings

    rng = np.random.default_rng(seed)
    init: np.ndarray | str = "random"
    if start is not None:
        spread = np.maximum(start.std(axis=0), 1e-3)
        init = ((start - start.mean(axis=0)) / spread * 5 + rng.normal(0, 0.05, start.shape)).astype(
            np.float32
        )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import umap

        layout = umap.UMAP(
            n_neighbors=indices.shape[1],
            min_dist=0.3,
            init=init,
            random_state=seed,
            precomputed_knn=(indices, distances),
            n_jobs=1,
            force_approximation_algorithm=True,
        ).fit_transform(embedding)
    return np.nan_to_num(np.asarray(layout, dtype=np.float32))


def flat_layout(embedding: np.ndarray) -> np.ndarray:
    """The first two principal components, for samples too small for a UMAP: float32 (n_cells, 2)."""
    centred = embedding - embedding.mean(axis=0)
    _, _, axes = np.linalg.svd(centred, full_matrices=False)
    layout = centred @ axes[:2].T
    if layout.shape[1] < 2:
        layout = np.column_stack([layout, np.zeros((len(layout), 2 - layout.shape[1]))])
    return layout.astype(np.float32)


def majority(clusters: np.ndarray, codes: np.ndarray, n_labels: int) -> tuple[np.ndarray, np.ndarray]:
    """Each cluster's most frequent label code and its share of the cluster's cells.

    clusters, codes: int (n_cells,). Returns (n_clusters,) int and float.
    """
    votes = np.zeros((clusters.max() + 1, n_labels))
    np.add.at(votes, (clusters, codes), 1)
    winners = votes.argmax(axis=1)
    return winners, votes[np.arange(len(votes)), winners] / votes.sum(axis=1)
