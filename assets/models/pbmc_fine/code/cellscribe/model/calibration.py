"""Probabilities that mean what they say: pooling of members, and how well it holds."""

from __future__ import annotations

import numpy as np

FLOOR = 1e-3
# A label learned from fewer cells is given too little chance on new studies.
FEW_CELLS = 50
# The method, in a manifest, of a classifier of one member whose probabilities are given as the source gives them.
UNCALIBRATED = "none"


def softmax(scores: np.ndarray) -> np.ndarray:
    """Row-wise softmax of (n_cells, n_labels), in float64."""
    shifted = np.asarray(scores, dtype=np.float64)
    shifted = np.exp(shifted - shifted.max(axis=1, keepdims=True))
    return shifted / shifted.sum(axis=1, keepdims=True)


def few_cells_offsets(n_cells: np.ndarray) -> np.ndarray:
    """What `pool` adds to the log probability of labels learned from few cells: float64 (n_labels,), >= 0.

    n_cells: (n_labels,), each label's training cells. Three quarters of the log of 50 over that number; 0 for labels of
    50 or more, and for those without cells. Members rank the cells of such a label well, but score them lower than the
    cells that they were trained on, the more so the fewer these were; held-out batches seldom hold enough to fit it.
    """
    n_cells = np.asarray(n_cells)
    few = (n_cells > 0) & (n_cells < FEW_CELLS)
    return np.where(few, 0.75 * np.log(FEW_CELLS / np.maximum(n_cells, 1)), 0.0)


def pool(members: list[np.ndarray], weights: np.ndarray, offsets: np.ndarray | None = None) -> np.ndarray:
    """Log-linear pool: softmax of the weighted sum of the members' log probabilities.

    members: each (n_cells, n_labels), rows summing to one. weights: (n_members,), >= 0; their sum acts as an
    inverse temperature. A member alone with one weight is temperature scaling (Guo et al. 2017, ICML).
    offsets: (n_labels,), added to the sum, of `few_cells_offsets`. Probabilities are floored at 1e-3, so that no member
    alone can rule a label out.
    """
    logs = [np.log(np.maximum(member, FLOOR)) for member in members]
    pooled = sum(weight * log for weight, log in zip(weights, logs, strict=True))
    return softmax(pooled if offsets is None else pooled + offsets)


def fit_pool(
    members: list[np.ndarray],
    codes: np.ndarray,
    cell_weights: np.ndarray | None = None,
    taught: np.ndarray | None = None,
) -> np.ndarray:
    """Weights of `pool`, fitted on held-out cells in two steps.

    Their proportions minimise the log loss with each label weighed by the square root of its rarity, so that rare
    types have a say in which member is believed; their sum minimises the plain log loss, so that probabilities mean
    what they say. codes: (n_cells,) true labels. cell_weights: (n_cells,). taught: bool (n_cells,), cells of labels
    that the members were taught, by default all: the others count for the sum alone, as no member can know them, and
    the one that says least would be believed. Returns (n_members,) float64, each >= 0.
    """
    logs = np.stack([np.log(np.maximum(member, FLOOR)) for member in members])
    weights = np.ones(len(codes)) if cell_weights is None else np.asarray(cell_weights, dtype=np.float64)
    judges = weights if taught is None or not taught.any() else weights * taught
    sizes = np.bincount(codes, weights=judges, minlength=members[0].shape[1])
    rarity = np.sqrt(judges.sum() / np.maximum(sizes, 1e-12))
    proportions = _least_loss(logs, codes, judges * rarity[codes])
    temperature = _least_loss(np.tensordot(proportions, logs, axes=1)[None], codes, weights)
    return proportions * temperature


def _least_loss(logs: np.ndarray, codes: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Factors of log probabilities (n_members, n_cells, n_labels) that minimise the weighted log loss: (n_members,)."""
    from scipy.optimize import minimize

    share, rows = weights / weights.sum(), np.arange(len(codes))

    def loss(factors: np.ndarray) -> tuple[float, np.ndarray]:
        probabilities = softmax(np.tensordot(factors, logs, axes=1))
        value = -float(share @ np.log(np.maximum(probabilities[rows, codes], 1e-12)))
        residual = probabilities
        residual[rows, codes] -= 1
        gradient = np.einsum("n,nk,mnk->m", share, residual, logs)
        return value, gradient

    start = np.full(len(logs), 1.0 / len(logs))
    found = minimize(loss, start, jac=True, method="L-BFGS-B", bounds=[(0.0, 5.0)] * len(logs))
    factors = np.asarray(found.x, dtype=np.float64)
    return factors if factors.sum() > 0 else start


def expected_calibration_error(confidence: np.ndarray, right: np.ndarray, n_bins: int = 15) -> float:
    """Mean gap between confidence and accuracy over equal-width bins (Guo et al. 2017, ICML).

    confidence: (n_cells,) in [0, 1]; right: bool (n_cells,).
    """
    _, shares, means, accuracies = reliability(confidence, right, n_bins)
    return float(np.sum(shares * np.abs(means - accuracies)))


def reliability(
    confidence: np.ndarray, right: np.ndarray, n_bins: int = 15
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Upper edges, shares of cells, mean confidence and accuracy of the bins that hold cells."""
    bins = np.minimum((np.asarray(confidence) * n_bins).astype(int), n_bins - 1)
    used = np.unique(bins)
    shares = np.array([(bins == b).mean() for b in used])
    means = np.array([np.mean(confidence[bins == b]) for b in used])
    accuracies = np.array([np.mean(right[bins == b]) for b in used])
    return (used + 1) / n_bins, shares, means, accuracies
