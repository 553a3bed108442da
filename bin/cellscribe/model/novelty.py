"""How strange a cell is to a model: far from every type it knows, and of no clear label.

Two signs catch different strangers. A type unlike all others lies far from every known type (Mahalanobis distance in
the latent space: Lee et al. 2018, NeurIPS); one that resembles several lies between them, so that its label is unclear
(entropy). The doubt must be that of a regression on genes: classifiers in a latent space that was never shown a type
are often sure of another one. Both signs are noisy in one cell, so each cell takes the mean over its nearest cells of
the sample; and both shift as a whole from study to study, so each is read from the sample's own median. A sample of
which most cells are strange is therefore judged by the absolute distance to the reference (`Reference.quantile`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

# As strict as on the held-out studies that it was chosen on, where 2 % lay beyond it: cells of labels that were never
# taught, and another space of types, were then part of the null.
FALSE_ALARMS = 0.013
# Below that the sample's own median says too little.
FEWEST_CELLS = 50
# Entropies of sure cells differ by nothing that matters.
ENTROPY_FLOOR = 0.02
N_QUANTILES = 1001


@dataclass(frozen=True)
class TypeSpace:
    """Where the known types lie. centres: (n_types, n_latent); whitening: (n_latent, n_latent), by which their common
    spread becomes one in every direction.
    """

    centres: np.ndarray
    whitening: np.ndarray

    @classmethod
    def of(cls, latent: np.ndarray, codes: np.ndarray) -> TypeSpace:
        """From reference cells (n_cells, n_latent) and their labels (n_cells,)."""
        types, of = np.unique(codes, return_inverse=True)
        latent = np.asarray(latent, dtype=np.float64)
        centres = np.stack([latent[of == i].mean(axis=0) for i in range(len(types))])
        inside = latent - centres[of]
        spread = inside.T @ inside / max(len(inside) - len(types), 1)
        spread += np.eye(len(spread)) * (1e-3 * np.trace(spread) / len(spread) + 1e-12)
        return cls(centres, np.linalg.inv(np.linalg.cholesky(spread)).T)

    def distances(self, latent: np.ndarray) -> np.ndarray:
        """Mahalanobis distance of cells (n_cells, n_latent) to the nearest type: (n_cells,)."""
        cells, centres = np.asarray(latent, dtype=np.float64) @ self.whitening, self.centres @ self.whitening
        squares = (
            np.square(cells).sum(axis=1)[:, None] - 2 * cells @ centres.T + np.square(centres).sum(axis=1)
        )
        return np.sqrt(np.maximum(squares.min(axis=1), 0))


def entropy_of(probabilities: np.ndarray) -> np.ndarray:
    """How unclear a cell's label is: (n_cells,), in nats. probabilities: (n_cells, n_labels)."""
    return np.asarray(-(probabilities * np.log(np.maximum(probabilities, 1e-12))).sum(axis=1))


def strangeness(distances: np.ndarray, entropy: np.ndarray | None, near: np.ndarray) -> np.ndarray:
    """The signs of each cell, as the mean over its nearest cells, from the sample's median.

    distances: (n_cells,), of `TypeSpace`. entropy: (n_cells,), of the logistic regression's probabilities, or None.
    near: int (n_cells, k), each cell's nearest cells of the sample, itself among them. Returns (n_cells, 2), or
    (n_cells, 1) without entropy.
    """
    signs = [np.log(np.maximum(distances, 1e-6))[near].mean(axis=1)]
    if entropy is not None:
        signs.append(np.log(entropy[near].mean(axis=1) + ENTROPY_FLOOR))
    both = np.stack(signs, axis=1)
    return np.asarray(both - np.median(both, axis=0))


def scores_of(signs: np.ndarray, deviations: np.ndarray) -> np.ndarray:
    """The sum of a sample's signs (n_cells, n_signs), each over its deviation: (n_cells,).

    deviations: (n_signs,), of known cells. Where the sample's own cells differ more (1.4826 times their median absolute
    deviation), that counts: a study of more contrast would else be full of strangers.
    """
    own = 1.4826 * np.median(np.abs(signs), axis=0)
    return np.asarray((signs / np.maximum(deviations, own)).sum(axis=1))


def fit_null(parts: list[np.ndarray]) -> dict[str, Any]:
    """What `strangeness` is for known cells. parts: (n_cells, n_signs), one a held-out batch; each batch counts the
    same.

    Returns `deviations` (n_signs) of the signs, and `quantiles` (1001, ascending) of `scores_of` among known cells.
    """
    signs = np.concatenate(parts)
    weights = np.concatenate([np.full(len(part), 1 / len(part)) for part in parts])
    deviations = np.maximum(np.sqrt(np.average(np.square(signs), axis=0, weights=weights)), 1e-6)
    scores = np.concatenate([scores_of(part, deviations) for part in parts])
    order = np.argsort(scores, kind="stable")
    position = (np.cumsum(weights[order]) - weights[order] / 2) / weights.sum()
    quantiles = np.interp(np.linspace(0, 1, N_QUANTILES), position, scores[order])
    return {
        "false_alarms": FALSE_ALARMS,
        "deviations": [round(float(value), 6) for value in deviations],
        "quantiles": [round(float(value), 4) for value in quantiles],
    }


def novelty(signs: np.ndarray, null: dict[str, Any]) -> np.ndarray:
    """The share of known cells that are less strange than each cell of a sample: float32 (n_cells,), 0 to 1."""
    quantiles = np.array(null["quantiles"])
    found = np.searchsorted(quantiles, scores_of(signs, np.array(null["deviations"])), side="left")
    return (found / len(quantiles)).astype(np.float32)
