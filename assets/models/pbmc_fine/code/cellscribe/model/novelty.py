"""How strange a cell is to a model: of a profile that its label does not explain, and of no clear label.

Two signs catch different strangers. A type unlike all others expresses what no known type does: its profile stays far
from the mixture of known types that it is named as (residual). One that resembles several lies between them, so that
its label is unclear (entropy). The doubt must be that of a regression on genes: classifiers in a latent space that was
never shown a type are often sure of another one. Both signs are noisy in one cell, so each cell takes the mean over its
nearest cells of the sample; and both shift as a whole from study to study, so each is read from what the sample's
labels have in common, each label with one voice: a new type takes the place of one or two labels, however large a part
of the sample it is. A sample of which most cells are strange is judged by the absolute distance to the reference
(`Reference.quantile`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from cellscribe.model.neighbours import row_blocks

FALSE_ALARMS = 0.02
# Fewer cells of a sample, or of a label of it, do not say what they have in common.
FEWEST_CELLS = 100
FEWEST_OF_A_LABEL = 10
# Of the reference's expression, on genes that the sample has: on fewer genes labels' profiles are not what they were.
LEAST_OVERLAP = 0.5
# Of fewer labels than that, the reference itself has a voice in what they have in common: that there is nothing.
FEWEST_LABELS = 3
# So far apart, in deviations, lie the labels of a sample that is like the reference in all but what they share: more
# (1.4826 times the median absolute deviation; of known studies held out at most 0.5) is the study's own, as some types
# differ from the reference's more than others where technology or tissue does.
LABELS_APART = 0.7
# Entropies of sure cells differ by nothing that matters.
ENTROPY_FLOOR = 0.02
LEAST_RESIDUAL = 1e-6
N_QUANTILES = 1001
BLOCK = 8192


@dataclass(frozen=True)
class Signs:
    """values: (n_cells, n_signs), the residual and, where the model has a regression, the entropy, both as logarithms.
    labels: int (n_cells,), what each cell and its nearest are named as.
    """

    values: np.ndarray
    labels: np.ndarray


def entropy_of(probabilities: np.ndarray) -> np.ndarray:
    """How unclear a cell's label is: (n_cells,), in nats. probabilities: (n_cells, n_labels)."""
    return np.asarray(-(probabilities * np.log(np.maximum(probabilities, 1e-12))).sum(axis=1))


def strangeness(
    sketches: np.ndarray,
    of_labels: np.ndarray,
    probabilities: np.ndarray,
    entropy: np.ndarray | None,
    near: np.ndarray,
) -> Signs:
    """The signs of each cell of a sample, as the mean over its nearest cells.

    sketches: (n_cells, n_numbers), and of_labels: (n_labels, n_numbers), of `Profiles`. probabilities: (n_cells,
    n_labels). entropy: (n_cells,), of the logistic regression's probabilities, or None. near: int (n_cells, k), each
    cell's nearest cells of the sample, itself among them.
    """
    n_cells, n_labels = probabilities.shape
    labels = np.empty(n_cells, dtype=np.int64)
    sums, numbers = np.zeros((n_labels, sketches.shape[1])), np.zeros(n_labels)

    def unexplained(rows: slice) -> np.ndarray:
        mixture = _mean_over(probabilities, near[rows])
        labels[rows] = mixture.argmax(axis=1)
        return _mean_over(sketches, near[rows]) - mixture @ of_labels

    # Twice over the cells, as the residuals of a million of them would not be small.
    for rows in row_blocks(n_cells, BLOCK):
        residuals = unexplained(rows)
        of = (labels[rows, None] == np.arange(n_labels)).astype(np.float32)
        sums += of.T @ residuals
        numbers += of.sum(axis=0)
    enough = numbers >= FEWEST_OF_A_LABEL
    common = in_common(sums[enough] / numbers[enough, None])
    residual = np.concatenate(
        [np.linalg.norm(unexplained(rows) - common, axis=1) for rows in row_blocks(n_cells, BLOCK)]
    )
    signs = [np.log(np.maximum(residual, LEAST_RESIDUAL))]
    if entropy is not None:
        signs.append(np.log(_mean_over(entropy[:, None], near)[:, 0] + ENTROPY_FLOOR))
    return Signs(np.stack(signs, axis=1), labels)


def _mean_over(values: np.ndarray, near: np.ndarray) -> np.ndarray:
    """The mean of some cells' values over their nearest cells: (n_rows, n_values). near: int (n_rows, k)."""
    total = values[near[:, 0]].astype(np.float32)
    for place in range(1, near.shape[1]):
        total += values[near[:, place]]
    return total / near.shape[1]


def in_common(of_labels: np.ndarray) -> np.ndarray:
    """What a sample's labels have in common, (n_values,): their median. of_labels: (n_found, n_values).

    With one or two labels zero counts as one more, without any it is zero: nothing tells a new study from a new type.
    """
    if len(of_labels) < FEWEST_LABELS:
        of_labels = np.vstack([of_labels, np.zeros((1, of_labels.shape[1]))])
    return np.asarray(np.median(of_labels, axis=0))


def of_each_label(
    labels: np.ndarray, values: np.ndarray, known: np.ndarray | None = None
) -> dict[int, np.ndarray]:
    """The median of each label that has enough cells. labels: int (n_cells,), what cells are named as. values:
    (n_cells, n_values). known: bool (n_cells,), the cells that count, by default all.
    """
    if known is not None:
        labels, values = labels[known], values[known]
    enough = np.flatnonzero(np.bincount(labels) >= FEWEST_OF_A_LABEL)
    return {label: np.median(values[labels == label], axis=0) for label in enough.tolist()}


def scores_of(signs: Signs, null: dict[str, Any], names: Sequence[str]) -> np.ndarray:
    """The sum of a sample's signs as deviations of known cells, from what its labels have in common: (n_cells,). Where
    its labels lie farther apart than those of known studies, deviations count less.

    null: `means`, `deviations` and `levels` of `fit_null`. names: the labels.
    """
    values = (signs.values - np.array(null["means"])) / np.array(null["deviations"])
    levels = null["levels"]
    shifts = np.array(
        [
            found - np.array(levels[names[label]])
            for label, found in of_each_label(signs.labels, values).items()
            if names[label] in levels
        ]
    ).reshape(-1, values.shape[1])
    shift, apart = in_common(shifts), np.zeros(values.shape[1])
    if len(shifts) >= FEWEST_LABELS:
        apart = 1.4826 * np.median(np.abs(shifts - shift), axis=0)
    return np.asarray(((values - shift) / np.maximum(apart / LABELS_APART, 1)).sum(axis=1))


def fit_null(parts: Sequence[tuple[Signs, np.ndarray]], names: Sequence[str]) -> dict[str, Any]:
    """What `strangeness` is for known cells. parts: each held-out batch's signs, and which of its cells are known, bool
    (n_cells,); each batch counts the same. names: the labels.

    Returns `means` and `deviations` (n_signs) of the signs, `levels`: by label, the medians (n_signs) of its cells in
    these deviations, and `quantiles` (1001, ascending) of `scores_of` among known cells.
    """
    values = np.concatenate([signs.values[known] for signs, known in parts])
    weights = np.concatenate([np.full(known.sum(), 1 / known.sum()) for _, known in parts])
    means = np.average(values, axis=0, weights=weights)
    deviations = np.sqrt(np.average(np.square(values - means), axis=0, weights=weights))
    deviations = np.maximum(deviations, 1e-6)
    medians: dict[str, list[np.ndarray]] = {}
    for signs, known in parts:
        for label, found in of_each_label(signs.labels, (signs.values - means) / deviations, known).items():
            medians.setdefault(names[label], []).append(found)
    null: dict[str, Any] = {
        "false_alarms": FALSE_ALARMS,
        "means": _rounded(means, 6),
        "deviations": _rounded(deviations, 6),
        "levels": {name: _rounded(np.mean(found, axis=0), 4) for name, found in sorted(medians.items())},
    }
    scores = np.concatenate([scores_of(signs, null, names)[known] for signs, known in parts])
    order = np.argsort(scores, kind="stable")
    position = (np.cumsum(weights[order]) - weights[order] / 2) / weights.sum()
    null["quantiles"] = _rounded(np.interp(np.linspace(0, 1, N_QUANTILES), position, scores[order]), 4)
    return null


def _rounded(values: np.ndarray, digits: int) -> list[float]:
    return [round(float(value), digits) for value in values]


def novelty(signs: Signs, null: dict[str, Any], names: Sequence[str]) -> np.ndarray:
    """The share of known cells that are less strange than each cell of a sample: float32 (n_cells,), 0 to 1.

    null: of `fit_null`. names: the labels.
    """
    quantiles = np.array(null["quantiles"])
    found = np.searchsorted(quantiles, scores_of(signs, null, names), side="left")
    return (found / len(quantiles)).astype(np.float32)
