"""What TRAIN holds out, and what it names of it."""

import dataclasses

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from small_model import BATCHES, scratch

from cellscribe.errors import InputError
from cellscribe.model.calibration import softmax
from cellscribe.model.likelihood import Likelihood
from cellscribe.training import held_out, members
from cellscribe.training.reference import read_reference


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


def test_copies_are_thinner_and_cells_that_lack_genes_have_none_on_the_others(ready, monkeypatch):
    """What each member is asked: of every fold the cells, their copies, and both on fewer and fewer genes."""
    asked: list[tuple[float, int | None, bool]] = []
    probabilities = members.Members.probabilities

    def spy(own, counts, found=None):
        outside = found is not None and counts[:, ~found].sum() > 0
        asked.append((float(counts.sum()), None if found is None else int(found.sum()), bool(outside)))
        return probabilities(own, counts, found)

    monkeypatch.setattr(members.Members, "probabilities", spy)
    cells = read_reference(ready.reference, "cell_type", batch_key="donor", scratch=scratch())
    held_out.hold_out(cells, dataclasses.replace(ready, kind="logistic"))
    each = 2 * (1 + len(held_out.GENE_SHARES))
    assert len(asked) == 3 * each
    for fold in range(3):
        counts, genes, outside = zip(*asked[fold * each : (fold + 1) * each], strict=True)
        assert all(copy < cells for cells, copy in zip(counts[::2], counts[1::2], strict=True))
        assert genes[:2] == (None, None) and genes[2::2] == genes[3::2]
        assert list(genes[2::2]) == sorted(genes[2::2], reverse=True)
        assert not any(outside)


def test_the_likelihood_of_cells_that_lack_genes_is_that_of_the_genes_they_have():
    rng = np.random.default_rng(0)
    counts = sp.csr_matrix(rng.poisson(1.0, (20, 6)).astype(np.float32))
    likelihood = Likelihood(rng.dirichlet(np.ones(6), 3).T.astype(np.float32))
    alone = members.Members(None, None, None, None, np.arange(0), np.arange(0), 0, 3, likelihood=likelihood)
    kept = np.array([True, False, True, True, False, True])
    (found,) = held_out.without_genes(alone, None, [held_out.Copy(False, counts)], np.arange(6), kept)
    expected = softmax(likelihood.on(kept).scores(held_out.only(counts, kept)))
    np.testing.assert_array_equal(found["likelihood"], expected)
    assert not np.allclose(expected, softmax(likelihood.scores(held_out.only(counts, kept))))


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


def test_the_rows_of_some_cells_are_those_of_every_copy_and_share_of_genes(ready):
    cells = read_reference(ready.reference, "cell_type", batch_key="donor")
    held = held_out.hold_out(cells, ready)
    wanted = np.arange(120) % 3 == 0
    some = held.of_cells(wanted)
    assert some.unexpected.tolist() == held.unexpected[wanted[held.rows[~held.altered]]].tolist()
    for whole, part in [
        (held, some),
        *((held.fewer_genes[s], some.fewer_genes[s]) for s in held.fewer_genes),
    ]:
        inside = wanted[whole.rows]
        assert 0 < inside.sum() < len(inside)
        assert part.rows.tolist() == whole.rows[inside].tolist()
        assert part.altered.tolist() == whole.altered[inside].tolist()
        for name, values in whole.members.items():
            assert (part.members[name] == values[inside]).all()


def test_a_label_is_taught_only_by_cells_that_teach():
    codes, folds = np.array([0, 0, 1, 1, 2]), np.array([0, 1, 0, 1, 0])
    assert held_out.seen_elsewhere(codes, folds).tolist() == [True, True, True, True, False]
    teaching = np.array([True, True, True, False, True])
    assert held_out.seen_elsewhere(codes, folds, teaching).tolist() == [True, True, False, True, False]
