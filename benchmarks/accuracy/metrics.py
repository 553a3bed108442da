"""How good names of cells are: accuracy, calibration, rejection, novelty."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cellscribe.contract import UNASSIGNED
from cellscribe.model.calibration import expected_calibration_error
from cellscribe.model.ontology import Ontology, build_ontology, find_cl_ids

N_BINS = 15
RARE = 0.02
FEWEST_UNKNOWN = 5
LEAST_PROBABILITY = 1e-4
PARTIAL_HIT = 0.5
SUM_TOLERANCE = 1e-3
ROOTS = frozenset(("CL:0000000", "CL:0000003"))


@dataclass(frozen=True)
class Prediction:
    """What one method said of n cells, with k labels.

    labels: (k,). predicted: text (n,), the best label. probabilities: (n, k) as the method gives them, or None;
    confidence: (n,) in [0, 1], that of the label predicted, or None. novelty: (n,), higher for cells unlike the
    reference, or None. final: text (n,), the label after rejection, an ancestor's name or `unassigned`, or None where
    the method rejects nothing. sets: bool (n, k), labels that hold the true one with 90 %, or None.
    """

    labels: np.ndarray
    predicted: np.ndarray
    probabilities: np.ndarray | None = None
    confidence: np.ndarray | None = None
    novelty: np.ndarray | None = None
    final: np.ndarray | None = None
    sets: np.ndarray | None = None

    @classmethod
    def load(cls, path: Path) -> Prediction:
        """Read what methods/exchange.py wrote."""
        with np.load(path, allow_pickle=False) as file:
            return cls(**{name: file[name] for name in file.files})


@dataclass(frozen=True)
class Kinship:
    """Which names are ancestors of which. cl_ids: name -> Cell Ontology id, "" where unknown. labels: the names that
    cells are labelled by, each of which means that a cell is of no other.
    """

    cl_ids: dict[str, str]
    ontology: Ontology
    labels: frozenset[str] = frozenset()

    @classmethod
    def of(cls, names: set[str], given: dict[str, str], labels: Iterable[str] = ()) -> Kinship:
        """Around these names; `given` ids go before those that the Cell Ontology's own names give."""
        cl_ids = find_cl_ids(sorted(names - {UNASSIGNED}), given)
        return cls(cl_ids, build_ontology(list(cl_ids.values())), frozenset(labels))

    def credit(self, said: str, truth: str) -> float:
        """1 for the true type, a half for an ancestor of it that says something, 0 for all else.

        Another label is no ancestor, though its id may be that of one: `Other T cell` says that a cell is not CD4.
        """
        if said == truth:
            return 1.0
        if said in self.labels:
            return 0.0
        cl_id = self.cl_ids.get(said, "")
        ancestors = self.ontology.lineage(self.cl_ids.get(truth, ""))[1:]
        return PARTIAL_HIT if cl_id and cl_id not in ROOTS and cl_id in ancestors else 0.0


def macro_f1(truth: np.ndarray, said: np.ndarray) -> float:
    """Mean over the types that occur in `truth` of their F1."""
    return credited_f1(truth, said, (truth == said).astype(float))


def credited_f1(truth: np.ndarray, said: np.ndarray, credit: np.ndarray) -> float:
    """Macro-F1 in which cell i is a hit of `credit[i]`.

    For each type: hits are the credits of its cells, misses the rest of them, false alarms what is left of the cells of
    other types that were called by its name. truth, said: text (n,); credit: (n,) in [0, 1].
    """
    f1 = []
    for name in np.unique(truth):
        own = truth == name
        hits = credit[own].sum()
        misses = own.sum() - hits
        alarms = (1 - credit[(said == name) & ~own]).sum()
        f1.append(2 * hits / (2 * hits + misses + alarms))
    return float(np.mean(f1))


def area_under_curve(score: np.ndarray, positive: np.ndarray) -> float:
    """Chance that a positive cell has a higher score than a negative one, ties counting a half (AUROC)."""
    from scipy.stats import rankdata

    ranks, n = rankdata(score), positive.sum()
    return float((ranks[positive].sum() - n * (n + 1) / 2) / (n * (len(score) - n)))


def score(
    prediction: Prediction, truth: np.ndarray, reference_labels: set[str], kinship: Kinship
) -> dict[str, float | None]:
    """Every number of the table for one prediction; None where a method gives nothing to measure it by.

    truth: text (n,). Accuracy and calibration are those of the cells whose type the reference holds; the others count
    for novelty alone: AUROC against the known cells, and the share that was left unassigned or named by an ancestor.
    """
    known = np.isin(truth, sorted(reference_labels))
    true, said = truth[known], prediction.predicted[known].astype(str)
    right = true == said
    final = prediction.predicted if prediction.final is None else prediction.final
    final = final.astype(str)
    credit = np.array([kinship.credit(f, t) for f, t in zip(final, truth, strict=True)])
    result: dict[str, float | None] = {
        "n_cells": int(known.sum()),
        "n_unknown": int((~known).sum()),
        "accuracy": float(right.mean()),
        "macro_f1": macro_f1(true, said),
        "ontology_f1": credited_f1(true, final[known], credit[known]),
        "ece": None,
        "brier": None,
        "log_loss": None,
        "unassigned": None,
        "novelty_auroc": None,
        "novel_caught": None,
        "rare_recall": rare_recall(true, said),
        "set_coverage": None,
        "set_size": None,
    }
    confidence = prediction.confidence
    if confidence is not None:
        result["ece"] = expected_calibration_error(confidence[known], right, N_BINS)
    if prediction.probabilities is not None:
        result["brier"], result["log_loss"] = proper_scores(
            prediction.probabilities[known], prediction.labels, true
        )
    if prediction.final is not None:
        result["unassigned"] = float((final[known] == UNASSIGNED).mean())
    if (~known).sum() >= FEWEST_UNKNOWN:
        novelty = prediction.novelty if confidence is None else _or(prediction.novelty, 1 - confidence)
        if novelty is not None:
            result["novelty_auroc"] = area_under_curve(novelty, ~known)
        if prediction.final is not None:
            caught = (final[~known] == UNASSIGNED) | (credit[~known] > 0)
            result["novel_caught"] = float(caught.mean())
    if prediction.sets is not None:
        inside = _column_of(prediction.labels, true)
        held = prediction.sets[known]
        covered = np.where(inside >= 0, held[np.arange(len(true)), inside], False)
        result["set_coverage"] = float(covered.mean())
        result["set_size"] = float(held.sum(axis=1).mean())
    return result


def proper_scores(
    probabilities: np.ndarray, labels: np.ndarray, truth: np.ndarray
) -> tuple[float | None, float | None]:
    """Brier score summed over labels, and log loss with probabilities floored at 1e-4.

    probabilities: (n, k). A true label that is no column has probability 0. None where a row sums to more than one: who
    calls every label certain would have no loss at all.
    """
    if (probabilities.sum(axis=1) > 1 + SUM_TOLERANCE).any():
        return None, None
    column = _column_of(labels, truth)
    rows = np.flatnonzero(column >= 0)
    own = np.zeros(len(truth))
    own[rows] = probabilities[rows, column[rows]]
    squares = np.square(probabilities).sum(axis=1) - np.square(own) + np.square(1 - own)
    return float(squares.mean()), float(-np.log(np.clip(own, LEAST_PROBABILITY, 1)).mean())


def rare_recall(truth: np.ndarray, said: np.ndarray) -> float | None:
    """Mean recall of the types that make up less than 2 % of the cells; None where there are none."""
    names, counts = np.unique(truth, return_counts=True)
    rare = names[counts < RARE * len(truth)]
    return float(np.mean([(said[truth == name] == name).mean() for name in rare])) if len(rare) else None


def _column_of(labels: np.ndarray, truth: np.ndarray) -> np.ndarray:
    position = {str(label): i for i, label in enumerate(labels)}
    return np.array([position.get(str(name), -1) for name in truth])


def _or(value: np.ndarray | None, other: np.ndarray) -> np.ndarray:
    return other if value is None else value
