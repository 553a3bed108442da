"""Thinned and gene-poor copies."""

import numpy as np
import pytest
import scipy.sparse as sp
from small_model import simulate

from cellscribe.model.robust import thinned_copy, with_copies


@pytest.fixture(scope="module")
def counts():
    return sp.csr_matrix(simulate(200).X)


def test_a_thinned_copy_has_whole_counts_never_more_than_before(counts):
    copy = thinned_copy(counts, np.random.default_rng(0))
    assert (copy.data == np.round(copy.data)).all() and copy.data.min() > 0
    assert (counts - copy).min() >= 0
    share = np.asarray(copy.sum(axis=1)).ravel() / np.asarray(counts.sum(axis=1)).ravel()
    assert 0.06 < share.min() < 0.2 and 0.85 < share.max() <= 1


def test_thinning_keeps_the_original(counts):
    before = counts.copy()
    thinned_copy(counts, np.random.default_rng(0), drop_genes=True)
    assert abs(before - counts).max() == 0


def test_dropped_genes_are_gone_from_whole_groups_of_cells(counts):
    rng = np.random.default_rng(0)
    plain = thinned_copy(counts, np.random.default_rng(0))
    poor = thinned_copy(counts, rng, drop_genes=True)
    assert poor.nnz < 0.9 * plain.nnz
    seen = (poor > 0).sum(axis=0)
    assert np.asarray(seen).ravel().astype(bool).mean() > 0.95


def test_copies_are_stacked_under_the_cells_and_know_where_they_come_from(counts):
    matrix, source = with_copies(counts, 2, np.random.default_rng(0))
    assert matrix.shape == (600, 400)
    assert abs(matrix[:200] - counts).max() == 0
    assert source.tolist() == [*range(200)] * 3
    assert (counts[source] - matrix).min() >= 0


def test_no_copies_are_the_cells_alone(counts):
    matrix, source = with_copies(counts, 0, np.random.default_rng(0))
    assert abs(matrix - counts).max() == 0 and len(source) == 200


def test_the_same_seed_gives_the_same_copies(counts):
    one, two = (thinned_copy(counts, np.random.default_rng(5), drop_genes=True) for _ in range(2))
    assert abs(one - two).max() == 0
