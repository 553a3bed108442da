from __future__ import annotations

from pathlib import Path

import anndata
import numpy as np
import pytest
from scipy import sparse

from cellscribe import doublets
from cellscribe.doublets import MIN_CELLS, call_doublets, default_rate


def droplets(n_cells: int, n_doublets: int, seed: int = 0) -> sparse.csr_matrix:
    """Cells of 20 types with 40 genes of their own each, then doublets of two cells of different types."""
    rng = np.random.default_rng(seed)
    profile = np.full((20, 1000), 0.5)
    for kind in range(20):
        profile[kind, 40 * kind : 40 * (kind + 1)] = 15.0
    first = rng.integers(0, 20, n_doublets)
    second = (first + rng.integers(1, 20, n_doublets)) % 20
    cells = rng.poisson(profile[rng.integers(0, 20, n_cells)])
    return sparse.csr_matrix(
        np.vstack([cells, rng.poisson(profile[first] + profile[second])]).astype(np.float32)
    )


def test_doublets_of_different_types_are_found_and_no_other_cell() -> None:
    found = call_doublets(droplets(600, 30), expected_rate=0.05)
    assert found.status == "called"
    assert np.quantile(found.scores[600:], 0.1) > np.quantile(found.scores[:600], 0.99)
    assert found.calls[600:].mean() > 0.5
    assert found.calls[:600].mean() < 0.01


def test_real_cells_added_in_pairs_score_higher(shared_data: Path) -> None:
    from sklearn.metrics import roc_auc_score

    adata = anndata.read_h5ad(shared_data / "labelled" / "pbmc4k_labelled.h5ad")
    counts, types = adata.X.tocsr(), adata.obs["cell_type"].astype(str).to_numpy()
    rng = np.random.default_rng(1)
    first, second = rng.integers(0, adata.n_obs, (2, 150))
    differ = types[first] != types[second]
    pairs = counts[first[differ]] + counts[second[differ]]
    found = call_doublets(sparse.vstack([counts, pairs]).tocsr(), expected_rate=0.05)
    truth = np.r_[np.zeros(adata.n_obs), np.ones(pairs.shape[0])]
    assert roc_auc_score(truth, found.scores) > 0.88


def test_the_same_seed_gives_the_same_calls_and_another_other_scores() -> None:
    counts = droplets(400, 10)
    first, same, other = (call_doublets(counts, expected_rate=0.03, seed=seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first.scores, same.scores)
    assert first.summary() == same.summary()
    assert (first.scores != other.scores).any()


def test_scores_are_chances() -> None:
    scores = call_doublets(droplets(400, 10), expected_rate=0.03).scores
    assert scores.shape == (410,)
    assert scores.min() >= 0
    assert scores.max() <= 1


def test_few_cells_are_not_searched_and_said() -> None:
    found = call_doublets(droplets(MIN_CELLS - 1, 0), expected_rate=0.01)
    assert (found.status, found.calls.any(), found.threshold) == ("skipped", False, None)
    assert "99 cells are fewer than 100" in found.message


def test_cells_without_varying_genes_are_not_searched() -> None:
    found = call_doublets(sparse.csr_matrix(np.ones((200, 2), dtype=np.float32)), expected_rate=0.01)
    assert found.status == "skipped"
    assert "few genes" in found.message


@pytest.mark.parametrize("seed", range(5))
def test_cells_that_are_all_alike_are_not_searched(seed: int) -> None:
    cell = np.random.default_rng(seed).poisson(0.1, size=(1, 40)).astype(np.float32)
    found = call_doublets(sparse.csr_matrix(np.repeat(cell, 150, axis=0)), expected_rate=0.01)
    assert found.status == "skipped"
    assert "few genes" in found.message


def test_a_missing_threshold_falls_back_to_the_expected_number_and_says_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(doublets, "_minimum", lambda scores: None)
    found = call_doublets(droplets(500, 25), expected_rate=0.05)
    assert found.status == "fallback"
    assert 0 < found.calls.sum() <= 27
    assert "no threshold" in found.message


def test_an_absurd_threshold_falls_back_to_the_expected_number_and_says_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(doublets, "_minimum", lambda scores: 0.0)
    found = call_doublets(droplets(500, 25), expected_rate=0.05)
    assert found.status == "fallback"
    assert 0 < found.calls.sum() <= 27
    assert "would call 100.0% of the cells" in found.message


def test_scores_without_two_modes_have_no_threshold() -> None:
    assert doublets._minimum(np.full(100, 0.1)) is None


def test_more_cells_than_the_reference_are_scored_like_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doublets, "MAX_REFERENCE", 300)
    found = call_doublets(droplets(900, 45), expected_rate=0.05)
    assert found.scores.shape == (945,)
    assert np.median(found.scores[900:]) > 5 * np.median(found.scores[:900])


def test_the_expected_rate_grows_with_the_cells_and_is_capped_with_a_note() -> None:
    assert default_rate(5_000) == (pytest.approx(0.04), "")
    rate, note = default_rate(100_000)
    assert rate == 0.10
    assert "100,000 cells" in note
