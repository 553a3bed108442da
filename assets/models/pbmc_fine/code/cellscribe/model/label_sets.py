"""Sets of labels that hold the right one for nine cells of ten, in each cell type.

Conformal prediction with a threshold of its own for each class (Sadinle, Lei & Wasserman 2019, Journal of the American
Statistical Association 114:223). What holds for cells like the held-out ones holds for a query as far as it resembles
them.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

COVERAGE = 0.9
# With fewer held-out cells a class's own quantile says nothing: it takes that of all classes together.
FEWEST_CELLS = 20


def fit_limits(
    probabilities: np.ndarray,
    codes: np.ndarray,
    cell_weights: np.ndarray | None = None,
    coverage: float = COVERAGE,
) -> np.ndarray:
    """The least probability with which each label belongs to a cell's set: float (n_labels,).

    probabilities: (n_cells, n_labels), of cells that the members have not seen; codes: (n_cells,), their true labels.
    cell_weights: (n_cells,), e.g. so that each batch counts the same.
    """
    own = probabilities[np.arange(len(codes)), codes]
    weights = np.ones(len(codes)) if cell_weights is None else np.asarray(cell_weights, dtype=np.float64)
    limits = np.full(probabilities.shape[1], _low_quantile(own, weights, 1 - coverage))
    for code in range(probabilities.shape[1]):
        cells = codes == code
        if cells.sum() >= FEWEST_CELLS:
            limits[code] = _low_quantile(own[cells], weights[cells], 1 - coverage)
    return limits


def _low_quantile(values: np.ndarray, weights: np.ndarray, share: float) -> float:
    """The largest value below which at most `share` of the weight lies, the new cell counted as the lowest."""
    order = np.argsort(values, kind="stable")
    below = np.cumsum(weights[order]) - weights[order] + weights.mean()
    allowed = np.flatnonzero(below <= share * (weights.sum() + weights.mean()))
    return float(values[order[allowed[-1]]]) if len(allowed) else 0.0


def label_sets(probabilities: np.ndarray, limits: np.ndarray) -> np.ndarray:
    """Which labels are in each cell's set: bool (n_cells, n_labels), those that reach their limit.

    A label is never left out that is more probable than one that is in. Where the most probable label misses its own
    limit, the cell is like few of that type: its set holds the most probable labels until they sum to 0.9. Both only
    add labels, so that sets hold the right one at least as often.
    """
    inside = probabilities >= limits
    least = np.where(inside, probabilities, np.inf).min(axis=1)
    inside |= probabilities >= least[:, None]
    best = probabilities.argmax(axis=1)
    untypical = np.flatnonzero(probabilities[np.arange(len(best)), best] < limits[best])
    order = np.argsort(-probabilities[untypical], axis=1, kind="stable")
    ordered = np.take_along_axis(probabilities[untypical], order, axis=1)
    before = np.cumsum(ordered, axis=1) - ordered
    rows, places = np.nonzero(before < COVERAGE)
    inside[untypical[rows], order[rows, places]] = True
    return inside


def named(inside: np.ndarray, probabilities: np.ndarray, labels: Sequence[str]) -> np.ndarray:
    """The labels of each set as text, the most probable first, separated by `; `: object (n_cells,)."""
    names = np.array(labels, dtype=object)
    result = names[probabilities.argmax(axis=1)]
    for row in np.flatnonzero(inside.sum(axis=1) > 1):
        order = np.argsort(-probabilities[row], kind="stable")
        result[row] = "; ".join(names[order[inside[row, order]]])
    return np.asarray(result)


def coverage_of(inside: np.ndarray, codes: np.ndarray) -> dict[str, float]:
    """Share of cells whose set holds the true label, and the mean number of labels in a set."""
    held = inside[np.arange(len(codes)), codes]
    return {"coverage": round(float(held.mean()), 4), "size": round(float(inside.sum(axis=1).mean()), 3)}
