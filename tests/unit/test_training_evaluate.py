"""Scores on held-out cells."""

import json

import numpy as np
import pytest

from cellscribe.training.evaluate import evaluate, scores

PROBABILITIES = np.array([[0.8, 0.1, 0.1], [0.3, 0.6, 0.1], [0.6, 0.3, 0.1], [0.1, 0.9, 0.0]])
CODES = np.array([0, 1, 1, 1])


def test_scores_of_a_known_case():
    values = scores(PROBABILITIES, CODES)
    assert values["accuracy"] == 0.75
    assert values["macro_f1"] == pytest.approx((2 / 3 + 0.8) / 2, abs=1e-4)
    assert values["log_loss"] == pytest.approx(-np.log([0.8, 0.6, 0.3, 0.9]).mean(), abs=1e-4)
    brier = [0.04 + 0.01 + 0.01, 0.09 + 0.16 + 0.01, 0.36 + 0.49 + 0.01, 0.01 + 0.01]
    assert values["brier"] == pytest.approx(np.mean(brier), abs=1e-4)
    assert values["ece"] == pytest.approx((0.2 + abs(1.2 - 1) + 0.1) / 4, abs=1e-4)


@pytest.fixture
def evaluation():
    altered = np.array([False] * 4 + [True] * 4)
    twice = np.r_[PROBABILITIES, PROBABILITIES[:, [1, 0, 2]]]
    return evaluate(
        {"one": twice, "two": twice[:, [1, 0, 2]]},
        np.r_[CODES, CODES],
        np.array(list("aabbaabb")),
        altered,
        ["A", "B", "C"],
        "one",
        [{"gene_overlap": 0.5, "accuracy": 0.5}],
    )


def test_the_headline_is_of_unaltered_cells_and_the_default_classifier(evaluation):
    assert evaluation.headline["accuracy"] == 0.75
    assert evaluation.headline["classifier"] == "one"
    assert evaluation.headline["n_cells"] == 4
    assert evaluation.headline["n_batches"] == 2
    assert evaluation.headline["split"] == "whole batches held out"
    assert evaluation.classifiers["two"]["accuracy"] == 0.25
    assert evaluation.altered["accuracy"] == 0.25


def test_each_label_has_its_row_even_where_no_cell_has_it(evaluation):
    rows = evaluation.per_label.set_index("label")
    assert rows.loc["A", ["n_cells", "precision", "recall"]].tolist() == [1, 0.5, 1]
    assert rows.loc["B", "recall"] == pytest.approx(2 / 3, abs=1e-4)
    assert rows.loc["C", ["n_cells", "f1"]].tolist() == [0, 0]


def test_the_confusion_matrix_counts_true_labels_in_rows(evaluation):
    assert evaluation.confusion.loc["B"].tolist() == [1, 2, 0]
    assert evaluation.confusion.loc["A"].tolist() == [1, 0, 0]


def test_one_batch_is_said_to_be_held_out_at_random():
    evaluation = evaluate(
        {"one": PROBABILITIES}, CODES, np.array(list("aaaa")), np.zeros(4, bool), ["A", "B", "C"], "one", []
    )
    assert "one batch only" in evaluation.headline["split"]
    assert evaluation.altered == {}


def test_it_fits_into_json_and_calibration_covers_all_cells(evaluation):
    said = json.loads(json.dumps(evaluation.as_dict(), allow_nan=False))
    assert said["confusion"] == {"labels": ["A", "B", "C"], "cells": [[1, 0, 0], [1, 2, 0], [0, 0, 0]]}
    assert sum(row["share_of_cells"] for row in said["calibration"]) == pytest.approx(1)
