"""Which genes a model looks at."""

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from small_model import MARKERS_EACH, TYPES, simulate

from cellscribe.training.genes import marker_scores, select_genes, silent_genes
from cellscribe.training.reference import LabelledCells


@pytest.fixture(scope="module")
def cells():
    adata = simulate()
    codes = np.array([TYPES.index(label) for label in adata.obs["cell_type"]])
    return sp.csr_matrix(adata.X), codes, adata.obs["donor"].to_numpy(dtype=object).astype(str)


def test_the_genes_that_mark_a_type_score_highest_for_it(cells):
    counts, codes, batches = cells
    scores = marker_scores(counts, codes, batches, 5)
    assert scores.shape == (5, 400)
    for label, own in ((0, range(25)), (3, range(75, 100)), (4, range(100, 125))):
        top = set(np.argsort(-scores[label])[:MARKERS_EACH].tolist())
        assert len(top & set(own)) >= 20


def test_markers_are_found_whatever_batch_effect_there_is(cells):
    counts, codes, batches = cells
    shift = np.where(batches == "donor_1", 5.0, 1.0).astype(np.float32)
    deeper = (sp.diags(shift) @ counts).tocsr()
    scores = marker_scores(deeper, codes, batches, 5)
    assert len(set(np.argsort(-scores[0])[:25].tolist()) & set(range(25))) >= 20


@pytest.mark.parametrize("how", ["two cells a batch", "a batch each"])
def test_a_label_that_no_batch_can_tell_is_told_by_all_cells_together(cells, how):
    counts, codes, _ = cells
    if how == "a batch each":
        batches = codes.astype(str)
    else:
        batches = np.array([str(i % (len(codes) // 2)) for i in range(len(codes))])
    scores = marker_scores(counts, codes, batches, 5)
    assert len(set(np.argsort(-scores[0])[:MARKERS_EACH].tolist()) & set(range(25))) >= 20


def test_a_label_without_cells_scores_nothing(cells):
    counts, codes, batches = cells
    scores = marker_scores(counts, codes, batches, 6)
    assert (scores[5] == 0).all()


def test_selected_genes_are_ascending_hold_the_markers_and_leave_out_unseen_ones(cells):
    counts, codes, batches = cells
    silent = counts.copy().tolil()
    silent[:, [0, 399]] = 0
    chosen = select_genes(silent.tocsr(), codes, batches, 5, n_top_genes=60, n_markers=15)
    assert (np.diff(chosen) > 0).all()
    assert not {0, 399} & set(chosen.tolist())
    assert len(set(range(1, 125)) & set(chosen.tolist())) >= 5 * 12
    assert 60 <= len(chosen) <= 60 + 5 * 15


@pytest.mark.parametrize("n_alone", [1, 3])
def test_a_donor_of_a_few_cells_has_no_say_in_which_genes_vary(cells, n_alone):
    """One cell has no variance, and scanpy ends on it as often as not."""
    counts, codes, batches = cells
    alone = sp.csr_matrix(
        (np.full(n_alone, 3.0, dtype=np.float32), ([*range(n_alone)], [7] * n_alone)), (n_alone, 400)
    )
    more = sp.vstack([counts, alone]).tocsr()
    names = np.append(batches, [f"alone_{i}" for i in range(n_alone)])
    chosen = select_genes(more, np.append(codes, [0] * n_alone), names, 5, n_top_genes=60)
    assert len(chosen) >= 60
    tiny = np.array([f"d{i}" for i in range(len(codes))])
    assert len(select_genes(counts, codes, tiny, 5, n_top_genes=60)) >= 60


def test_a_donor_of_twenty_cells_does_not_choose_for_many_smaller_ones(cells):
    """Together the small ones are a batch: what varies among them is found, whatever one donor's cells say."""
    counts, codes, _ = cells
    n_alone = 20
    rng = np.random.default_rng(0)
    # noise of its own on genes that vary nowhere else
    alone = np.zeros((n_alone, 400), dtype=np.float32)
    alone[:, 200:300] = rng.choice([0, 30], size=(n_alone, 100))
    more = sp.vstack([counts, sp.csr_matrix(alone)]).tocsr()
    small = [f"small_{i // 15}" for i in range(len(codes))]
    chosen = select_genes(
        more,
        np.append(codes, [0] * n_alone),
        np.array([*small, *["alone"] * n_alone]),
        5,
        n_top_genes=100,
        n_markers=0,
    )
    assert len(set(range(125)) & set(chosen.tolist())) > 30


def test_one_batch_and_more_genes_than_there_are_work(cells):
    counts, codes, _ = cells
    chosen = select_genes(counts, codes, np.full(300, "one"), 5, n_top_genes=5000)
    assert len(chosen) <= 400


def test_selection_is_the_same_each_time(cells):
    counts, codes, batches = cells
    one, two = (select_genes(counts, codes, batches, 5, n_top_genes=50) for _ in range(2))
    np.testing.assert_array_equal(one, two)


def test_genes_that_any_label_expresses_are_not_silent_however_rare_the_label():
    counts = np.zeros((2000, 4), dtype=np.float32)
    counts[:, 0] = 1000
    counts[1999, 1] = 1
    counts[0, 2] = 1
    labels = np.array(["common"] * 1999 + ["rare"], dtype=object)
    cells = LabelledCells(
        counts=sp.csr_matrix(counts),
        genes=pd.DataFrame({"gene_id": "", "symbol": list("abcd")}),
        labels=labels,
        batches=labels,
        organism="human",
        sources=[],
    )
    assert silent_genes(cells).tolist() == [False, False, True, True]
    assert silent_genes(cells, most=1e-9).tolist() == [False, False, False, True]
    assert silent_genes(cells, rows=np.arange(1999)).tolist() == [False, True, True, True]
    # What a file has by a symbol alone it may not have counted.
    cells.named_alone = np.array([True, False, True, False])
    assert silent_genes(cells).tolist() == [False, False, False, True]
