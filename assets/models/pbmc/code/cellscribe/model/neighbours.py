"""Nearest reference cells in the latent space: labels by weighted votes, and distance to the reference."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

N_NEIGHBOURS = 30


def nearest(
    query: np.ndarray, reference: np.ndarray, k: int = N_NEIGHBOURS, *, block: int = 2048
) -> tuple[np.ndarray, np.ndarray]:
    """Exact nearest reference cells by blocked matrix products.

    query: (n_query, n_latent); reference: (n_reference, n_latent). k is clamped to n_reference.
    Returns distances float32 and indices int32, both (n_query, k), nearest first.
    """
    k = min(k, len(reference))
    reference = np.ascontiguousarray(reference, dtype=np.float32)
    squares = np.einsum("ij,ij->i", reference, reference)
    distances = np.empty((len(query), k), dtype=np.float32)
    indices = np.empty((len(query), k), dtype=np.int32)
    for rows in _blocks(len(query), block):
        cells = np.asarray(query[rows], dtype=np.float32)
        # |q|^2 is the same for a cell's every distance: left out of the ranking, added for the nearest k
        ranked = squares - 2.0 * (cells @ reference.T)
        part = np.argpartition(ranked, k - 1, axis=1)[:, :k]
        near = np.take_along_axis(ranked, part, axis=1)
        order = np.lexsort((part, near), axis=1)
        indices[rows] = np.take_along_axis(part, order, axis=1)
        near = np.take_along_axis(near, order, axis=1) + np.einsum("ij,ij->i", cells, cells)[:, None]
        distances[rows] = np.sqrt(np.maximum(near, 0))
    return distances, indices


def _blocks(n: int, size: int) -> Iterator[slice]:
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
    votes = np.zeros((len(distances), n_labels))
    rows = np.arange(len(distances))
    neighbour_codes = codes[indices]
    for column in range(indices.shape[1]):
        np.add.at(votes, (rows, neighbour_codes[:, column]), weights[:, column])
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
