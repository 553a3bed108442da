"""Nearest reference cells in the latent space: labels by weighted votes, and distance to the reference."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from cellscribe.parallel import in_order

N_NEIGHBOURS = 30
FARTHEST = 1e30
# Distances of a block of cells, 4 bytes each.
IN_CACHE = 1_000_000


def nearest(
    query: np.ndarray,
    reference: np.ndarray,
    k: int = N_NEIGHBOURS,
    *,
    block: int | None = None,
    cpus: int = 1,
) -> tuple[np.ndarray, np.ndarray]:
    """Exact nearest reference cells by blocked matrix products.

    query: (n_query, n_latent); reference: (n_reference, n_latent). k is clamped to n_reference. block: cells at a time,
    by default so few that their distances stay in the processor's cache.
    Returns distances float32 and indices int32, both (n_query, k), nearest first, of equal ones that of lower index.
    """
    k = min(k, len(reference))
    search = _Search.of(reference, k)
    distances = np.empty((len(query), k), dtype=np.float32)
    indices = np.empty((len(query), k), dtype=np.int32)

    def find(rows: slice) -> None:
        distances[rows], indices[rows] = search.nearest(np.asarray(query[rows], dtype=np.float32))

    blocks = row_blocks(len(query), block or int(np.clip(IN_CACHE // len(reference), 32, 256)))
    if cpus == 1:
        for rows in blocks:
            find(rows)
    else:
        for _ in in_order(find, blocks, cpus):
            pass
    return distances, indices


@dataclass(frozen=True)
class _Search:
    """Reference cells, laid out so that all but the nearest of a query's distances are read once and never sorted.

    centre: (n_latent,), the mean of the reference cells, taken off all cells: squares of numbers far from 0 would leave
    no digits for their differences. product: (n_latent + 1, width * n_groups); a query with a one at its end, times
    this, is the squared distance less the query's own square, which is the same for all. Cell i is in group i modulo
    n_groups.
    """

    centre: np.ndarray
    product: np.ndarray
    n_groups: int
    k: int

    @classmethod
    def of(cls, reference: np.ndarray, k: int) -> _Search:
        reference = np.asarray(reference, dtype=np.float32)
        centre = reference.mean(axis=0, dtype=np.float64).astype(np.float32)
        reference = reference - centre
        n_cells, n_latent = reference.shape
        n_groups = min(n_cells, 8 * k)
        product = np.zeros((n_latent + 1, -(-n_cells // n_groups) * n_groups), dtype=np.float32)
        product[:n_latent, :n_cells] = -2 * reference.T
        product[n_latent] = FARTHEST  # columns that only fill the last group up
        product[n_latent, :n_cells] = np.einsum("ij,ij->i", reference, reference)
        return cls(centre, product, n_groups, k)

    def nearest(self, cells: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        cells = cells - self.centre
        n_cells, n_columns = len(cells), self.product.shape[1]
        ranked = np.hstack([cells, np.ones((n_cells, 1), dtype=np.float32)]) @ self.product
        # k groups have a member that is as near as the k-th nearest group: no farther cell is among the k nearest
        of_groups = ranked.reshape(n_cells, -1, self.n_groups).min(axis=1)
        bound = np.partition(of_groups, self.k - 1, axis=1)[:, self.k - 1 : self.k]
        near = np.flatnonzero(ranked <= bound)
        rows = near // n_columns
        n_near = np.bincount(rows, minlength=n_cells)
        found = np.full((n_cells, max(int(n_near.max()), self.k)), np.inf, dtype=np.float32)
        columns = np.zeros(found.shape, dtype=np.int32)
        place = np.arange(len(near)) - np.repeat(np.cumsum(n_near) - n_near, n_near)
        found[rows, place], columns[rows, place] = ranked.ravel()[near], near % n_columns
        order = np.argsort(found, axis=1, kind="stable")[:, : self.k]
        squares = np.take_along_axis(found, order, axis=1) + np.einsum("ij,ij->i", cells, cells)[:, None]
        return np.sqrt(np.maximum(squares, 0)), np.take_along_axis(columns, order, axis=1)


def row_blocks(n: int, size: int) -> Iterator[slice]:
    """Consecutive rows of `n`, `size` at a time."""
    for start in range(0, n, size):
        yield slice(start, min(start + size, n))


def kernel_weights(distances: np.ndarray) -> np.ndarray:
    """Gaussian weights of each cell's neighbours, rows summing to one.

    distances: (n_cells, k). The width is the cell's own mean distance, so that cells in sparse regions
    are not named by one neighbour alone.
    """
    width = np.maximum(distances.mean(axis=1, keepdims=True), 1e-6)
    weights = np.exp(-0.5 * np.square(distances / width))
    return weights / weights.sum(axis=1, keepdims=True)


def count_votes(codes: np.ndarray, n_codes: int, weights: np.ndarray | None = None) -> np.ndarray:
    """How often each code is among a cell's neighbours, (n_cells, n_codes), or the sum of their weights.

    codes: int (n_cells, k), of the neighbours, in [0, n_codes). weights: (n_cells, k).
    """
    places = np.arange(len(codes))[:, None] * n_codes + codes
    counted = np.bincount(
        places.ravel(), None if weights is None else weights.ravel(), minlength=len(codes) * n_codes
    )
    return np.asarray(counted.reshape(len(codes), n_codes))


def vote(
    distances: np.ndarray,
    indices: np.ndarray,
    codes: np.ndarray,
    n_labels: int,
    label_weights: np.ndarray | None = None,
) -> np.ndarray:
    """Label probabilities by weighted votes of the neighbours.

    distances, indices: (n_cells, k). codes: (n_reference,) label codes in [0, n_labels).
    label_weights: (n_labels,), raises the votes of rare labels. Returns (n_cells, n_labels) float64, rows
    summing to one, smoothed by one tenth of a vote.
    """
    weights = kernel_weights(distances).astype(np.float64)
    votes = count_votes(codes[indices], n_labels, weights)
    if label_weights is not None:
        votes *= label_weights
    votes /= votes.sum(axis=1, keepdims=True)
    smoothing = 0.1 / indices.shape[1]
    return (votes + smoothing / n_labels) / (1 + smoothing)


def place_on(
    distances: np.ndarray, indices: np.ndarray, coordinates: np.ndarray, *, use: int = 10
) -> np.ndarray:
    """Weighted mean of the nearest cells' coordinates: each cell's place on the reference's own map.

    coordinates: (n_reference, n_dims). Returns float32 (n_cells, n_dims).
    """
    use = min(use, indices.shape[1])
    weights = kernel_weights(distances[:, :use])
    return np.einsum("ij,ijd->id", weights, coordinates[indices[:, :use]]).astype(np.float32)
