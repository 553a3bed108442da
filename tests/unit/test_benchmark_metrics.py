"""benchmarks/accuracy: the numbers of its tables, against cases worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from accuracy.metrics import (
    Kinship,
    Prediction,
    area_under_curve,
    credited_f1,
    macro_f1,
    proper_scores,
    rare_recall,
    score,
)
from accuracy.table import against_best_peer, means, over_seeds, paired_tests

CL_IDS = {
    "CD4 T cell": "CL:0000624",
    "CD8 T cell": "CL:0000625",
    "T cell": "CL:0000084",
    "Monocyte": "CL:0000576",
}


def text(*values: str) -> np.ndarray:
    return np.array(values)


@pytest.fixture(scope="module")
def kinship() -> Kinship:
    return Kinship.of(set(CL_IDS) | {"unassigned", "A549"}, CL_IDS)


def test_macro_f1_is_the_mean_over_the_types_that_occur() -> None:
    # A: 1 hit, 1 miss, 1 false alarm; B: 2 hits, 1 false alarm; C: none
    truth, said = text("A", "A", "B", "B", "C"), text("A", "B", "B", "B", "A")
    assert macro_f1(truth, said) == pytest.approx((1 / 2 + 4 / 5 + 0) / 3)


def test_an_ancestor_is_half_a_hit_and_nothing_else_is(kinship: Kinship) -> None:
    assert kinship.credit("CD4 T cell", "CD4 T cell") == 1
    assert kinship.credit("T cell", "CD4 T cell") == 0.5
    assert kinship.credit("CD4 T cell", "T cell") == 0, "a finer type than the true one is no ancestor of it"
    assert kinship.credit("CD8 T cell", "CD4 T cell") == 0
    assert kinship.credit("T cell", "Monocyte") == 0
    assert kinship.credit("unassigned", "Monocyte") == 0
    assert kinship.credit("T cell", "A549") == 0, "a type outside the ontology has no ancestors"


def test_a_label_beside_the_true_one_is_no_ancestor_of_it() -> None:
    labels = {"CD4 T cell", "Other T cell"}
    kinship = Kinship.of(labels | {"T cell"}, CL_IDS, labels)
    assert kinship.credit("Other T cell", "CD4 T cell") == 0
    assert kinship.credit("T cell", "CD4 T cell") == 0.5


def test_ontology_aware_f1_counts_half_hits() -> None:
    truth, said = text("CD4", "CD4", "Mono", "Mono"), text("T", "CD4", "Mono", "CD4")
    credit = np.array([0.5, 1, 1, 0])
    # CD4: 1.5 hits, 0.5 misses, 1 false alarm; Mono: 1 hit, 1 miss
    assert credited_f1(truth, said, credit) == pytest.approx((3 / 4.5 + 2 / 3) / 2)


def test_area_under_the_curve_counts_ties_as_a_half() -> None:
    assert area_under_curve(np.array([1, 2, 2, 3]), np.array([False, False, True, True])) == 3.5 / 4


def test_brier_and_log_loss_are_of_probabilities() -> None:
    labels = text("A", "B", "C")
    brier, log_loss = proper_scores(np.array([[0.7, 0.2, 0.1]]), labels, text("A"))
    assert brier == pytest.approx(0.3**2 + 0.2**2 + 0.1**2)
    assert log_loss == pytest.approx(-math.log(0.7))
    brier, log_loss = proper_scores(np.array([[0.7, 0.2, 0.1]]), labels, text("D"))
    assert brier == pytest.approx(0.49 + 0.04 + 0.01 + 1), "a label that the method lacks has probability 0"
    assert log_loss == pytest.approx(-math.log(1e-4))
    assert proper_scores(np.array([[1.0, 1.0, 1.0]]), labels, text("A")) == (None, None)


def test_rare_types_are_those_below_two_percent() -> None:
    truth = np.array(["A"] * 197 + ["B"] * 3)
    said = truth.copy()
    said[-1] = "A"
    assert rare_recall(truth, said) == pytest.approx(2 / 3)
    assert rare_recall(truth[:180], said[:180]) is None


def test_cells_of_unknown_types_count_for_novelty_alone(kinship: Kinship) -> None:
    truth = np.array(["CD4 T cell"] * 4 + ["Monocyte"] * 4 + ["CD8 T cell"] * 5)
    predicted = np.array(["CD4 T cell"] * 4 + ["Monocyte"] * 3 + ["CD4 T cell"] * 6)
    final = predicted.copy()
    final[0], final[8], final[9] = "unassigned", "unassigned", "T cell"
    labels = text("CD4 T cell", "Monocyte")
    confidence = np.array([0.9] * 8 + [0.5] * 5)
    held = np.ones((13, 2), dtype=bool)
    held[:7, 1] = False  # the label CD4 T cell alone
    prediction = Prediction(labels, predicted, confidence=confidence, final=final, sets=held)
    result = score(prediction, truth, set(labels), kinship)
    assert (result["n_cells"], result["n_unknown"]) == (8, 5)
    assert result["accuracy"] == 7 / 8
    assert result["ece"] == pytest.approx(0.9 - 7 / 8), "all known cells fall into one bin"
    assert result["unassigned"] == 1 / 8
    assert result["novelty_auroc"] == 1, "every unknown cell is less sure than every known one"
    assert result["novel_caught"] == 2 / 5, "one unassigned, one named by an ancestor"
    assert result["set_coverage"] == 5 / 8, "the sets miss three of the four monocytes"
    assert result["set_size"] == pytest.approx((7 * 1 + 2) / 8)
    assert result["brier"] is None


def test_a_method_that_rejects_nothing_has_no_share_of_unassigned(kinship: Kinship) -> None:
    truth = text("Monocyte", "CD4 T cell")
    result = score(Prediction(text("Monocyte"), truth), truth, {"Monocyte", "CD4 T cell"}, kinship)
    assert result["macro_f1"] == result["ontology_f1"] == 1
    assert result["unassigned"] is result["ece"] is result["novelty_auroc"] is result["set_size"] is None


def table(ours: list[float], peer: list[float]) -> pd.DataFrame:
    from accuracy.table import NUMBERS

    rows = [
        {"family": "f", "pair": f"pair_{pair}", "seed": seed, "method": method, "n_cells": 10, "n_unknown": 0}
        | dict.fromkeys(NUMBERS, float("nan"))
        | {"macro_f1": values[pair], "accuracy": values[pair]}
        for method, values in (("cellscribe_consensus", ours), ("peer", peer))
        for pair in range(len(values))
        for seed in (0, 1)
    ]
    return pd.DataFrame(rows)


def test_ours_is_tested_against_a_peer_on_the_pairs_that_both_have() -> None:
    scores = table([0.9, 0.8, 0.7, 0.95, 0.85, 0.75, 0.5], [0.8, 0.75, 0.68, 0.9, 0.84, 0.7])
    row = paired_tests(scores).set_index(["measure", "other"]).loc[("macro_f1", "peer")]
    assert (row["pairs"], row["runs"], row["pairs_won"], row["pairs_lost"]) == (6, 12, 6, 0)
    assert row["p_pairs"] == pytest.approx(2 / 2**6, rel=0.01), "six wins of six, both sides"
    assert row["p_pairs_and_seeds"] < row["p_pairs"]
    assert row["worst_pair"] == "pair_4"
    assert row["mean_gap"] == pytest.approx(np.mean([0.1, 0.05, 0.02, 0.05, 0.01, 0.05]), abs=1e-4)


def test_a_peer_without_a_pair_in_common_is_not_tested() -> None:
    scores = table([0.9], [0.8])
    apart = scores.replace({"pair": {"pair_0": "pair_1"}}).query("method == 'peer'")
    assert paired_tests(pd.concat([scores.query("method != 'peer'"), apart])).empty


def test_the_best_peer_of_each_pair_stands_beside_ours() -> None:
    by_pair = over_seeds(table([0.9, 0.5], [0.8, 0.6]))
    best = against_best_peer(by_pair)
    assert best["gap"].tolist() == [0.1, -0.1]
    whole = means(by_pair).set_index(["family", "method"])
    assert whole.loc[("all", "peer"), "macro_f1"] == pytest.approx(0.7)
    assert whole.loc[("f", "peer"), "pairs"] == 2
