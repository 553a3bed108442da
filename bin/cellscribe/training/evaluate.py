"""How good a model is on donors that it did not see."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from cellscribe.model.calibration import expected_calibration_error, reliability

N_BINS = 15


# Edges of the fifteen bins of the reliability plot.
CERTAINTIES = (0.6, 0.8, 14 / 15)


@dataclass(frozen=True)
class Evaluation:
    """headline: the default classifier's scores. classifiers: each classifier's. per_label: one row a label;
    `tested` is false of one that the tested models had not learned of other cells. confusion: true label x predicted
    label, cells. calibration: rows of a reliability plot. altered: the default's
    scores on the same cells thinned; fewer_genes: without some genes, a row for each share left.
    """

    headline: dict[str, Any]
    classifiers: dict[str, dict[str, float]]
    per_label: pd.DataFrame
    confusion: pd.DataFrame
    calibration: pd.DataFrame
    altered: dict[str, float]
    fewer_genes: list[dict[str, float]]

    @classmethod
    def from_dict(cls, written: dict[str, Any]) -> Evaluation:
        """What `as_dict` gave."""
        confusion, labels = written["confusion"], written["confusion"]["labels"]
        return cls(
            written["headline"],
            written["classifiers"],
            # Models of before do not say it.
            pd.DataFrame([{"tested": True} | row for row in written["per_label"]]),
            pd.DataFrame(confusion["cells"], index=labels, columns=labels),
            pd.DataFrame(written["calibration"]),
            written["altered"],
            written["fewer_genes"],
        )

    def certain(self) -> list[dict[str, float]]:
        """For each of three certainties: the share of cells named with so much or more, and the share of these that is
        right. By the bins of `calibration`, at whose edges the three lie.
        """
        rows = []
        for least in CERTAINTIES:
            bins = self.calibration[self.calibration["upper_edge"] > least + 1e-3]
            share = float(bins["share_of_cells"].sum())
            right = float((bins["share_of_cells"] * bins["accuracy"]).sum() / share) if share else 0.0
            rows.append({"least": least, "share": share, "accuracy": right})
        return rows

    def as_dict(self) -> dict[str, Any]:
        """As it stands in evaluation.json."""
        return {
            "headline": self.headline,
            "classifiers": self.classifiers,
            "altered": self.altered,
            "fewer_genes": self.fewer_genes,
            "per_label": self.per_label.to_dict(orient="records"),
            "confusion": {
                "labels": list(self.confusion.columns),
                "cells": self.confusion.to_numpy().tolist(),
            },
            "calibration": self.calibration.to_dict(orient="records"),
        }


def scores(probabilities: np.ndarray, codes: np.ndarray) -> dict[str, float]:
    """Accuracy, macro-F1 over the labels that occur, log loss, Brier score, expected calibration error.

    probabilities: (n_cells, n_labels); codes: (n_cells,) true labels.
    """
    from sklearn.metrics import f1_score

    rows = np.arange(len(codes))
    best = probabilities.argmax(axis=1)
    one_hot = np.zeros_like(probabilities)
    one_hot[rows, codes] = 1
    values = {
        "accuracy": float((best == codes).mean()),
        "macro_f1": float(f1_score(codes, best, labels=np.unique(codes), average="macro", zero_division=0)),
        "log_loss": float(-np.log(np.maximum(probabilities[rows, codes], 1e-12)).mean()),
        "brier": float(np.square(probabilities - one_hot).sum(axis=1).mean()),
        "ece": expected_calibration_error(probabilities[rows, best], best == codes, N_BINS),
    }
    return {key: round(value, 4) for key, value in values.items()}


def evaluate(
    probabilities: dict[str, np.ndarray],
    codes: np.ndarray,
    batches: np.ndarray,
    altered: np.ndarray,
    names: list[str],
    default: str,
    fewer_genes: list[dict[str, float]],
    taught: np.ndarray | None = None,
) -> Evaluation:
    """Score held-out cells. probabilities: a classifier's name to (n_cells, n_labels); altered: bool (n_cells,).

    fewer_genes: as in `Evaluation`. taught: bool (n_cells,), whether the model that named a cell had learned its label;
    None where it had learned all.
    """
    from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

    plain = np.flatnonzero(~altered)
    truth, own = codes[plain], probabilities[default][plain]
    best = own.argmax(axis=1)
    known = np.ones(len(truth), dtype=bool) if taught is None else taught[plain]
    precision, recall, f1, support = precision_recall_fscore_support(
        truth, best, labels=np.arange(len(names)), zero_division=0
    )
    per_label = pd.DataFrame(
        {
            "label": names,
            "n_cells": support.astype(int),
            "precision": precision.round(4),
            "recall": recall.round(4),
            "f1": f1.round(4),
            "tested": np.bincount(truth[known], minlength=len(names)) > 0,
        }
    )
    edges, shares, confidence, accuracy = reliability(own.max(axis=1), best == truth, N_BINS)
    n_batches = len(np.unique(batches[plain].astype(str)))
    return Evaluation(
        headline={
            **scores(own, truth),
            "classifier": default,
            "n_cells": len(plain),
            "n_batches": n_batches,
            "split": "whole batches held out"
            if n_batches > 1
            else "cells held out at random (one batch only)",
        },
        classifiers={name: scores(value[plain], truth) for name, value in probabilities.items()},
        per_label=per_label,
        confusion=pd.DataFrame(
            confusion_matrix(truth, best, labels=np.arange(len(names))), index=names, columns=names
        ),
        calibration=pd.DataFrame(
            {
                "upper_edge": edges.round(4),
                "share_of_cells": shares.round(4),
                "confidence": confidence.round(4),
                "accuracy": accuracy.round(4),
            }
        ),
        altered=scores(probabilities[default][altered], codes[altered]) if altered.any() else {},
        fewer_genes=fewer_genes,
    )
