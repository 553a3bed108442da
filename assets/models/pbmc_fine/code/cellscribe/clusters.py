"""Clusters and UMAP of a sample in the reference embedding, and how the cells of a cluster vote.

Both are made of all cells up to EXACT_UP_TO. Of more, a sketch of them is clustered and laid out, and every other cell
takes its place and cluster from its nearest cells in the sketch: time and memory grow with the cells, not with their
square (docs/scaling.md says how alike both ways are).
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from cellscribe.contract import NO_CLUSTER, free_name
from cellscribe.model.neighbours import count_votes, nearest, place_on, row_blocks

FEWEST_CELLS = 10
N_NEIGHBOURS = 15
EXACT_UP_TO = 30_000
SKETCH = 20_000
BLOCK = 8192
RESOLUTION = 1.0

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Clusters:
    """Which cluster each cell is in.

    codes: int (n_cells,), positions in `names`, -1 for a cell that is in none. names: in their order, each with a cell
    or more. key: the column of obs that they come of; "" where they were found here, at `resolution`.
    """

    codes: np.ndarray
    names: Sequence[str]
    key: str = ""
    resolution: float = RESOLUTION

    @classmethod
    def numbered(cls, codes: np.ndarray, resolution: float = RESOLUTION) -> Clusters:
        """Clusters that were found here, named by their numbers: int (n_cells,), none of them -1."""
        return cls(codes, [str(number) for number in range(codes.max() + 1)], resolution=resolution)

    @property
    def inside(self) -> np.ndarray:
        """bool (n_cells,): the cells that are in a cluster."""
        return self.codes >= 0

    @property
    def sizes(self) -> np.ndarray:
        """Cells of each cluster: int (n_clusters,)."""
        return np.bincount(self.codes[self.inside], minlength=len(self.names))

    @property
    def none(self) -> str:
        """What stands in the place of a name for cells that are in no cluster."""
        return free_name(NO_CLUSTER, self.names)

    @property
    def origin(self) -> dict[str, str | float]:
        """Where they come of, by the name of the parameter that says so."""
        return {"cluster_key": self.key} if self.key else {"cluster_resolution": self.resolution}

    def column(self) -> pd.Categorical:
        """The name of each cell's cluster."""
        import pandas as pd

        if self.inside.all():
            return pd.Categorical.from_codes(self.codes, categories=list(self.names))
        codes = np.where(self.inside, self.codes, len(self.names))
        return pd.Categorical.from_codes(codes, categories=[*self.names, self.none])

    def of_each_cell(self, by_cluster: np.ndarray, alone: np.ndarray) -> np.ndarray:
        """What a cluster has, for each of its cells: (n_cells,). A cell that is in none has what it has `alone`.

        by_cluster: (n_clusters,); alone: (n_cells,).
        """
        return np.where(self.inside, by_cluster[self.codes], alone)


@dataclass(frozen=True)
class Graph:
    """Which cells of a sample lie near which. All distances float32, all indices int32.

    sketch: (n_sketch,), the rows of the cells that stand for all, ascending: every row where the sample is not large.
    indices, distances: (n_sketch, k), each sketch cell's nearest ones in the sketch, itself first.
    all_indices, all_distances: (n_cells, k), each cell's nearest ones in the sketch.
    """

    sketch: np.ndarray
    indices: np.ndarray
    distances: np.ndarray
    all_indices: np.ndarray
    all_distances: np.ndarray

    @property
    def is_whole(self) -> bool:
        """Whether the sketch is every cell."""
        return len(self.sketch) == len(self.all_indices)

    @functools.cached_property
    def near(self) -> np.ndarray:
        """The rows of each cell's nearest cells, itself first: int32 (n_cells, k)."""
        if self.is_whole:
            return self.indices
        rows = self.sketch[self.all_indices]
        own = np.arange(len(rows), dtype=np.int32)
        # a cell of the sketch is found among its own nearest: it changes place with the first; another takes the last's
        is_own = rows == own[:, None]
        rows[own, np.where(is_own.any(axis=1), is_own.argmax(axis=1), -1)] = rows[:, 0]
        rows[:, 0] = own
        return rows


def sample_graph(
    embedding: np.ndarray, codes: np.ndarray | None = None, *, seed: int = 0, cpus: int = 1
) -> Graph:
    """The graph of a sample's cells (n_cells, n_dimensions), exact: of a large sample, by a sketch.

    codes: int (n_cells,), the cells' labels. A cell is drawn for the sketch with a chance of one over the square root
    of its label's frequency, so that rare types are there; without labels all have the same.
    """
    n_cells = len(embedding)
    if n_cells <= EXACT_UP_TO:
        indices, distances = neighbour_graph(embedding, cpus=cpus)
        return Graph(np.arange(n_cells, dtype=np.int32), indices, distances, indices, distances)
    sketch = draw_sketch(n_cells, codes, size=SKETCH, seed=seed)
    drawn = np.ascontiguousarray(embedding[sketch])
    indices, distances = neighbour_graph(drawn, cpus=cpus)
    all_distances, all_indices = nearest(embedding, drawn, N_NEIGHBOURS, cpus=cpus)
    return Graph(sketch, indices, distances, all_indices, all_distances)


def draw_sketch(n_cells: int, codes: np.ndarray | None = None, *, size: int, seed: int = 0) -> np.ndarray:
    """`size` rows of `n_cells`, ascending, int32; see `sample_graph`. Drawn without replacement by exponential races
    (Efraimidis and Spirakis 2006, Information Processing Letters 97:181).
    """
    race = np.random.default_rng(seed).exponential(size=n_cells)
    if codes is not None:
        race *= np.sqrt(np.bincount(codes)[codes])
    return np.sort(np.argpartition(race, size - 1)[:size]).astype(np.int32)


def neighbour_graph(embedding: np.ndarray, *, cpus: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Each cell's nearest cells, itself first: indices int32 and distances float32, (n_cells, k). Exact."""
    k = min(N_NEIGHBOURS, len(embedding))
    distances, indices = nearest(embedding, embedding, k, cpus=cpus)
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
    codes: np.ndarray | None = None,
    start: np.ndarray | None = None,
    umap: np.ndarray | None = None,
    graph: Graph | None = None,
    clusters: Clusters | None = None,
    resolution: float = RESOLUTION,
    seed: int = 0,
    cpus: int = 1,
) -> tuple[Clusters, np.ndarray]:
    """Clusters and a map float32 (n_cells, 2) of cells (n_cells, n_dimensions): Leiden and UMAP.

    codes: as `sample_graph` takes them. start: (n_cells, 2), where the UMAP begins. umap, graph, clusters: a map, a
    `sample_graph` and clusters that are there already. resolution: of `leiden`.
    Fewer than ten cells are one cluster, mapped by principal components.
    """
    if len(embedding) < FEWEST_CELLS:
        one = Clusters.numbered(np.zeros(len(embedding), dtype=int), resolution)
        return clusters or one, flat_layout(embedding)
    if umap is None or clusters is None:
        graph = graph or sample_graph(embedding, codes, seed=seed, cpus=cpus)
        if umap is None:
            umap = lay_out(embedding, graph, start=start, seed=seed)
        if clusters is None:
            found = leiden(graph.indices, resolution=resolution, seed=seed)
            found = found if graph.is_whole else join_clusters(found, graph)
            clusters = Clusters.numbered(found, resolution)
    return clusters, umap


def lay_out(
    embedding: np.ndarray, graph: Graph, *, start: np.ndarray | None = None, seed: int = 0
) -> np.ndarray:
    """UMAP of a sample, float32 (n_cells, 2); cells outside the sketch lie among their nearest in it."""
    layout = umap_layout(
        embedding[graph.sketch],
        graph.indices,
        graph.distances,
        start=None if start is None else start[graph.sketch],
        seed=seed,
    )
    if graph.is_whole:
        return layout
    placed = place_on(graph.all_distances, graph.all_indices, layout)
    placed[graph.sketch] = layout
    return placed


def join_clusters(clusters: np.ndarray, graph: Graph) -> np.ndarray:
    """Clusters of the sketch (n_sketch,) handed on: each other cell takes the most frequent among its nearest cells,
    of equally frequent ones the larger. Int (n_cells,), the largest first.
    """
    n_clusters = clusters.max() + 1
    joined = np.empty(len(graph.all_indices), dtype=np.int64)
    for rows in row_blocks(len(joined), BLOCK):
        joined[rows] = count_votes(clusters[graph.all_indices[rows]], n_clusters).argmax(axis=1)
    joined[graph.sketch] = clusters
    return largest_first(joined)


def largest_first(clusters: np.ndarray) -> np.ndarray:
    """The clusters numbered anew, 0 the largest: int (n_cells,)."""
    order = np.argsort(-np.bincount(clusters), kind="stable")
    rank = np.empty_like(order)
    rank[order] = np.arange(len(order))
    return rank[clusters]


def leiden(indices: np.ndarray, *, resolution: float = RESOLUTION, seed: int = 0) -> np.ndarray:
    """Leiden clusters of a neighbour graph, the largest first, int (n_cells,). resolution: more gives more clusters.

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
    return largest_first(np.asarray(found.membership))


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
        from umap import layouts, umap_

        # umap-learn compiles these anew in each process, for ten seconds; kept, they are there at once.
        for compiled in (
            umap_.smooth_knn_dist,
            umap_.compute_membership_strengths,
            layouts._nb_optimize_layout_euclidean_single_epoch,
        ):
            compiled.enable_caching()
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


def commonest(clusters: np.ndarray, labels: Iterable[str]) -> tuple[np.ndarray, np.ndarray]:
    """Each cluster's most frequent label and its share of the cluster's cells: object and float (n_clusters,).

    clusters: int (n_cells,); labels: text (n_cells,).
    """
    names, codes = np.unique(np.asarray(labels, dtype=object).astype(str), return_inverse=True)
    winners, shares = majority(clusters, codes, len(names))
    return names[winners].astype(object), shares


def majority(clusters: np.ndarray, codes: np.ndarray, n_labels: int) -> tuple[np.ndarray, np.ndarray]:
    """Each cluster's most frequent label code and its share of the cluster's cells.

    clusters, codes: int (n_cells,). Returns (n_clusters,) int and float.
    """
    votes = np.zeros((clusters.max() + 1, n_labels))
    np.add.at(votes, (clusters, codes), 1)
    winners = votes.argmax(axis=1)
    return winners, votes[np.arange(len(votes)), winners] / votes.sum(axis=1)
