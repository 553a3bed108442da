"""What TRAIN holds out, and what it names of it."""

import dataclasses

import numpy as np
import pandas as pd
import pytest
from small_model import BATCHES, ready_options

from cellscribe.errors import InputError
from cellscribe.training import held_out, members
from cellscribe.training.reference import read_reference


@pytest.fixture
def ready(tmp_path):
    """A folder with a reference and ids, and the options of a training that takes seconds."""
    return ready_options(tmp_path)


@pytest.mark.parametrize("n_batches", [2, 3, 7])
def test_folds_never_split_a_batch_and_every_cell_is_held_out_once(n_batches):
    rng = np.random.default_rng(n_batches)
    batches = rng.integers(0, n_batches, 500).astype(str).astype(object)
    folds = held_out.folds_of(batches, rng.integers(0, 4, 500))
    assert pd.Series(folds).groupby(batches.astype(str)).nunique().max() == 1
    assert sorted(set(folds)) == list(range(min(3, n_batches)))


def test_folds_are_of_about_the_same_size():
    batches = np.repeat(list("abcdef"), [60, 50, 40, 30, 20, 10]).astype(object)
    assert np.bincount(held_out.folds_of(batches, np.zeros(210, int))).max() <= 80


def test_one_batch_is_split_within_labels():
    codes = np.tile([0, 1, 1], 33)
    folds = held_out.folds_of(np.full(99, "one", dtype=object), codes)
    for code in (0, 1):
        assert len(set(np.bincount(folds[codes == code]))) == 1
    np.testing.assert_array_equal(folds, held_out.folds_of(np.full(99, "one", dtype=object), codes))


def test_no_cell_of_a_held_out_batch_is_seen_in_training_not_even_for_its_genes(ready, monkeypatch):
    cells = read_reference(ready.reference, "cell_type", batch_key="donor")
    seen: dict[str, list] = {"genes": [], "members": []}
    choose, trained = held_out.choose_genes, held_out.train_members

    def spy_genes(cells_, rows, options_):
        seen["genes"].append(set(cells_.batches[rows]))
        return choose(cells_, rows, options_)

    def spy_members(counts, codes, batches, n_labels, options_):
        seen["members"].append(set(batches))
        return trained(counts, codes, batches, n_labels, options_)

    for module in (held_out, members):
        monkeypatch.setattr(module, "choose_genes", spy_genes)
    monkeypatch.setattr(held_out, "train_members", spy_members)
    held = held_out.hold_out(cells, ready)
    # genes are chosen twice: for the members, and for the counts to fit the regression anew from
    assert seen["genes"][::2] == seen["genes"][1::2] == seen["members"]
    assert [set(BATCHES) - used for used in seen["members"]] == [{name} for name in BATCHES]
    for part in (held, *held.fewer_genes.values()):
        for altered in (False, True):
            assert sorted(part.rows[part.altered == altered].tolist()) == list(range(120))


def test_cells_are_drawn_for_the_test_as_frequent_as_they_are(monkeypatch):
    monkeypatch.setattr(held_out, "MOST_TESTED", 1000)
    codes = np.repeat([0, 1], [99_000, 1_000])
    drawn = held_out.tested_cells(np.arange(100_000), 0)
    assert len(set(drawn.tolist())) == 1000 and (np.diff(drawn) > 0).all()
    assert codes[drawn].mean() < 0.025
    assert held_out.tested_cells(np.arange(5), 0).tolist() == [0, 1, 2, 3, 4]


def test_labels_that_are_batches_are_refused(ready):
    cells = read_reference(ready.reference, "cell_type", batch_key="donor")
    cells = dataclasses.replace(cells, batches=np.where(cells.labels == "B cell", "x", "y").astype(object))
    cells = dataclasses.replace(
        cells, labels=np.where(cells.batches == "x", "B cell", "T cell").astype(object)
    )
    with pytest.raises(InputError, match="is the only label left"):
        held_out.hold_out(cells, ready)
