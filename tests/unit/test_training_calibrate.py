"""What TRAIN fits on held-out cells, and how it is scored."""

import dataclasses

import numpy as np
import pytest
from small_model import BATCHES, TYPES, scratch, simulate, write_reference

from cellscribe.training import calibrate, held_out
from cellscribe.training.reference import read_reference


def test_scores_come_from_weights_that_were_fitted_on_other_batches():
    """A member that is right in one batch alone: the other batch's cells are scored as if it were always right."""
    truth, folds = np.tile([0, 1], 50), np.repeat([0, 1], 50)
    sure = np.where(np.arange(2) == truth[:, None], 0.99, 0.01)
    members = {"logistic": np.where((folds == 0)[:, None], sure, sure[:, ::-1])}
    scored = calibrate.pooled_across(
        members, ["logistic"], truth, np.ones(100), folds, np.zeros(2), np.ones(100, bool)
    )
    alone = [
        calibrate.fit_pool([members["logistic"][folds == fold]], truth[folds == fold]) for fold in (0, 1)
    ]
    for fold in (0, 1):
        expected = calibrate.pool([members["logistic"][folds == fold]], alone[1 - fold], np.zeros(2))
        np.testing.assert_allclose(scored[folds == fold], expected)


def test_a_label_of_one_batch_spoils_no_limits(ready):
    """Held out, its cells look like nothing that was trained on: they say nothing of cells of known labels."""
    adata = simulate(240)
    alone = (adata.obs["donor"] == BATCHES[0]) | (adata.obs["cell_type"] != TYPES[0])
    write_reference(adata[alone.to_numpy()].copy(), ready.reference[0])
    cells = read_reference(ready.reference, "cell_type", batch_key="donor", scratch=scratch())
    held = held_out.hold_out(cells, ready)
    label = cells.names.index(TYPES[0])
    assert (held.taught == (cells.codes != label)).all()
    fitted = calibrate.fit_calibration(held, cells.codes, cells.batches, cells.names)["logistic"]
    assert min(fitted["set_limits"].values()) > 0.1
    own = cells.codes[held.rows[~held.altered]] == label
    assert calibrate.unexpected_limit(dataclasses.replace(held, unexpected=np.where(own, 0.5, 0.01))) == 0.01


def test_sets_are_scored_by_limits_of_other_folds_with_one_batch_too():
    """Two folds that differ: by its own limits each would be covered to nine tenths."""
    rng = np.random.default_rng(0)
    own = np.concatenate([rng.uniform(0.9, 1.0, 200), rng.uniform(0.01, 0.05, 200)])
    probabilities = np.stack([own, 1 - own], axis=1)
    folds = np.repeat([0, 1], 200)
    found = calibrate.held_out_sets(
        probabilities, np.zeros(400, int), folds, np.ones(400), np.ones(400, bool)
    )
    assert found["coverage"] == 0.5


def test_thinned_copies_have_a_part_in_weights_and_none_in_limits_and_scores():
    """Cells that are named right, and copies that are named wrong with the same certainty."""
    rng, n = np.random.default_rng(0), 300
    truth = rng.integers(0, 2, n)
    right = np.where(np.arange(2) == truth[:, None], 0.9, 0.1)

    def held_of(*copies):
        rows, altered = np.tile(np.arange(n), len(copies)), np.repeat(np.arange(len(copies)) > 0, n)
        part = held_out.HeldOutNames({"logistic": np.concatenate(copies)}, rows, altered)
        return held_out.HeldOut(part.members, rows, altered, np.zeros(n), [], {0.5: part}, np.ones(n, bool))

    batches = np.repeat(list("abc"), n // 3).astype(object)
    names = ["x", "y"]
    found = []
    for held in (held_of(right), held_of(right, right[:, ::-1])):
        fitted = calibrate.fit_calibration(held, truth, batches, names)
        scored = calibrate.score_classifiers(held, fitted, truth, batches, names, 0)
        found.append((fitted["logistic"]["fewer_genes"][0], scored.fewer_genes[0]))
    (alone, alone_scored), (both, both_scored) = found
    assert both["weights"]["logistic"] < alone["weights"]["logistic"]
    assert alone_scored["accuracy"] == both_scored["accuracy"] == 1
    for label in names:
        p = 0.9 ** both["weights"]["logistic"]
        expected = p / (p + 0.1 ** both["weights"]["logistic"])
        assert both["set_limits"][label] == pytest.approx(expected, abs=1e-4)
