"""What is fitted on held-out cells: weights and limits of the classifiers, thresholds, scores."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from cellscribe.model.calibration import few_cells_offsets, fit_pool, pool
from cellscribe.model.label_sets import coverage_of, fit_limits, label_sets
from cellscribe.model.logistic import batch_weights
from cellscribe.model.model import CLASSIFIERS, LOGISTIC
from cellscribe.model.novelty import entropy_of, fit_null, strangeness
from cellscribe.training.evaluate import Evaluation, evaluate, scores
from cellscribe.training.held_out import FEWEST_HELD_OUT, HeldOut, HeldOutNames, folds_of, or_all

LOG_LINEAR_POOL = "log-linear pool"
# Of a thinned copy of a cell, beside the cell itself.
ALTERED_WEIGHT = 0.25
KNOWN_ACCEPTED = 0.995


def fit_calibration(
    held: HeldOut,
    codes: np.ndarray,
    batches: np.ndarray,
    names: Sequence[str],
    *,
    teaching: np.ndarray | None = None,
) -> dict[str, Any]:
    """Pool weights of each classifier and the limits of its sets of labels, fitted on held-out cells, altered copies
    weighing a quarter; and the same for cells that lack genes. codes, batches: (n_cells,), of all cells. teaching: bool
    (n_cells,), those that a model learns from, by default all: their numbers say which labels have few
    (`label_offsets`).

    Cells of a label that a fold's training part lacked have a part in how sure the pool is: being wrong there is what
    uncertainty is for. They have none in which member is believed (`fit_pool`), nor in the limits, which are for labels
    that a model knows.
    """
    result: dict[str, Any] = {}
    weights = batch_weights(batches)
    offsets = label_offsets(codes, teaching, len(names))

    def fitted(part: HeldOutNames, members: Sequence[str]) -> dict[str, Any]:
        return fit_classifier(part, members, codes, weights, names, offsets=offsets, taught=held.taught)

    for name, members in CLASSIFIERS.items():
        if set(members) <= set(held.members):
            result[name] = {
                "method": LOG_LINEAR_POOL,
                **fitted(held, members),
                "label_offsets": {n: round(float(o), 6) for n, o in zip(names, offsets, strict=True)},
                "fewer_genes": [
                    {"gene_overlap": share} | fitted(part, members)
                    for share, part in held.fewer_genes.items()
                ],
            }
    return result


def label_offsets(codes: np.ndarray, teaching: np.ndarray | None, n_labels: int) -> np.ndarray:
    """`few_cells_offsets` of the cells that a model learns from: (n_labels,). codes: (n_cells,); teaching: bool
    (n_cells,), by default all.
    """
    return few_cells_offsets(np.bincount(codes if teaching is None else codes[teaching], minlength=n_labels))


def fit_classifier(
    part: HeldOutNames,
    members: Sequence[str],
    codes: np.ndarray,
    cell_weights: np.ndarray,
    names: Sequence[str],
    *,
    offsets: np.ndarray,
    taught: np.ndarray,
) -> dict[str, Any]:
    """Weights of the members, and the limits of the sets of labels, by held-out cells.

    codes, cell_weights: (n_cells,), of all cells. offsets: (n_labels,), of `pool`, for the limits; weights are fitted
    without, so that held-out cells of other labels do not undo them. taught: bool (n_cells,), the cells that say which
    member is believed (`fit_pool`), and on which, as they are, the limits are fitted.
    """
    own = [part.members[m] for m in members]
    truth, own_weights = codes[part.rows], cell_weights[part.rows]
    weights = fit_pool(own, truth, own_weights * shares_of(part), taught[part.rows])
    some = or_all(~part.altered & taught[part.rows])
    limits = fit_limits(pool([p[some] for p in own], weights, offsets), truth[some], own_weights[some])
    return {
        "weights": {m: round(float(w), 6) for m, w in zip(members, weights, strict=True)},
        "set_limits": {n: round(float(limit), 6) for n, limit in zip(names, limits, strict=True)},
    }


def shares_of(part: HeldOutNames) -> np.ndarray:
    """How much each row counts beside the others, for being a copy or not: (n_rows,)."""
    return np.where(part.altered, ALTERED_WEIGHT, 1.0)


def pooled_across(
    probabilities: Mapping[str, np.ndarray],
    members: Sequence[str],
    truth: np.ndarray,
    cell_weights: np.ndarray,
    folds: np.ndarray,
    offsets: np.ndarray,
    taught: np.ndarray | None = None,
) -> np.ndarray:
    """A classifier's probabilities for held-out cells, each fold's by weights that were fitted on the other folds.

    probabilities: of each member, (n_cells, n_labels). truth, cell_weights, folds: (n_cells,). offsets: (n_labels,).
    taught: bool (n_cells,), of `fit_pool`.
    """
    own = [probabilities[member] for member in members]
    result = np.empty(own[0].shape)
    for fold in np.unique(folds):
        held, others = folds == fold, folds != fold
        weights = fit_pool(
            [p[others] for p in own],
            truth[others],
            cell_weights[others],
            None if taught is None else taught[others],
        )
        result[held] = pool([p[held] for p in own], weights, offsets)
    return result


def score_classifiers(
    held: HeldOut,
    classifiers: Iterable[str],
    codes: np.ndarray,
    batches: np.ndarray,
    names: Sequence[str],
    seed: int,
    *,
    teaching: np.ndarray | None = None,
    held_from: str = "from the weights of the pool too",
) -> Evaluation:
    """Score each of the classifiers on held-out cells, by weights that were fitted without the cell's own fold.

    codes, batches: (n_cells,), of all cells. teaching: as for `fit_calibration`. held_from: what had not seen them, as
    the card says.
    """
    folds = folds_of(batches, codes, seed=seed)
    weights = batch_weights(batches)
    offsets = label_offsets(codes, teaching, len(names))

    def across(classifier: str, part: HeldOutNames) -> np.ndarray:
        rows = part.rows
        return pooled_across(
            part.members,
            CLASSIFIERS[classifier],
            codes[rows],
            weights[rows] * shares_of(part),
            folds[rows],
            offsets,
            held.taught[rows],
        )

    found = {name: across(name, held) for name in classifiers}
    best = next(name for name in CLASSIFIERS if name in found)
    fewer = [
        {"gene_overlap": share} | scores(across(best, part)[~part.altered], codes[part.rows[~part.altered]])
        for share, part in held.fewer_genes.items()
    ]
    of = batches[held.rows]
    evaluation = evaluate(
        found, codes[held.rows], of, held.altered, list(names), best, fewer, held.taught[held.rows]
    )
    evaluation.headline["split"] += f", {held_from}"
    plain = np.flatnonzero(~held.altered)
    rows = held.rows[plain]
    sets = held_out_sets(found[best][plain], codes[rows], folds[rows], weights[rows], held.taught[rows])
    evaluation.headline.update({f"set_{key}": value for key, value in sets.items()})
    return evaluation


def unexpected_limit(held: HeldOut) -> float:
    """The share of counts on unexpected genes that nearly all held-out cells of known labels stay below."""
    known = or_all(held.taught[held.rows[~held.altered]])
    return float(np.quantile(held.unexpected[known], KNOWN_ACCEPTED))


def novelty_null(held: HeldOut, calibration: dict[str, Any], names: Sequence[str]) -> dict[str, Any]:
    """How strange held-out cells look: `novelty` of a manifest. calibration: of `fit_calibration`."""
    doubt = held.members.get(LOGISTIC)
    members, fitted = next(
        (CLASSIFIERS[name], calibration[name]) for name in CLASSIFIERS if name in calibration
    )
    weights = np.array([fitted["weights"][member] for member in members])
    offsets = np.array([fitted["label_offsets"][name] for name in names])
    parts = []
    for one in held.neighbourhoods:
        signs = strangeness(
            one.sketches,
            one.label_sketches,
            pool([held.members[member][one.positions] for member in members], weights, offsets),
            None if doubt is None else entropy_of(doubt[one.positions]),
            one.near,
        )
        known = held.taught[held.rows[one.positions]]
        parts.append((signs, known if known.sum() >= FEWEST_HELD_OUT else np.ones(len(known), dtype=bool)))
    return fit_null(parts, names)


def held_out_sets(
    probabilities: np.ndarray,
    codes: np.ndarray,
    folds: np.ndarray,
    cell_weights: np.ndarray,
    taught: np.ndarray,
) -> dict[str, float]:
    """Coverage and size of the sets of labels, each fold with limits fitted on the others.

    probabilities: (n_cells, n_labels), calibrated; codes, folds, cell_weights: (n_cells,). taught: bool (n_cells,),
    cells that limits may be fitted on.
    """
    inside = np.zeros(probabilities.shape, dtype=bool)
    for fold in np.unique(folds):
        own = folds == fold
        others = ~own & taught if (~own & taught).any() else ~own
        limits = fit_limits(probabilities[others], codes[others], cell_weights[others])
        inside[own] = label_sets(probabilities[own], limits)
    return coverage_of(inside, codes)
