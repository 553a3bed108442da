from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp
from tenx_files import whole

from cellscribe.cell_calling import (
    ambient_p_values,
    call_cells,
    droplet_shape,
    good_turing,
    is_unfiltered,
    log_likelihoods,
    order_of_magnitude_cut,
    unlike_ambient,
)
from cellscribe.counts import row_totals
from cellscribe.errors import InputError
from cellscribe.tenx import read_tenx
from cellscribe.tenx_places import find_input

N_GENES = 400


def droplets(rng: np.random.Generator, totals: np.ndarray, profile: np.ndarray) -> sp.csr_matrix:
    return sp.csr_matrix(rng.multinomial(totals, profile), dtype=np.float32)


@pytest.fixture(scope="module")
def profiles() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(1)
    ambient, cell = rng.dirichlet(np.full(N_GENES, 0.5), 2)
    return ambient, cell


def test_multinomial_likelihood_is_that_of_scipy(profiles):
    from scipy.stats import multinomial

    rng = np.random.default_rng(0)
    p = (profiles[0] + 1e-6) / (profiles[0] + 1e-6).sum()
    matrix = droplets(rng, np.array([5, 50, 500]), p)
    assert np.allclose(
        log_likelihoods(matrix, np.log(p)), multinomial.logpmf(matrix.toarray(), [5, 50, 500], p)
    )


def test_good_turing_gives_unseen_genes_a_share_near_that_of_single_counts():
    counts = np.random.default_rng(0).zipf(2.0, 2000).clip(max=5000) - 1
    p = good_turing(counts)
    assert p.sum() == pytest.approx(1)
    assert (p > 0).all()
    assert p[counts == 0].sum() == pytest.approx((counts == 1).sum() / counts.sum())
    by_count = [p[counts == k][0] for k in (0, 1, 2, 10)]
    assert by_count == sorted(by_count)


def test_p_values_of_empty_droplets_are_uniform(profiles):
    rng = np.random.default_rng(2)
    p = (profiles[0] + 1e-6) / (profiles[0] + 1e-6).sum()
    p_values = ambient_p_values(droplets(rng, rng.integers(50, 200, 1000), p), p, seed=3, n_iterations=500)
    for level in (0.05, 0.25, 0.5, 0.75):
        assert abs((p_values <= level).mean() - level) < 0.05


def test_p_values_depend_on_the_seed_alone(profiles):
    rng = np.random.default_rng(2)
    p = (profiles[0] + 1e-6) / (profiles[0] + 1e-6).sum()
    matrix = droplets(rng, rng.integers(50, 200, 20), p)
    first, again, other = (ambient_p_values(matrix, p, seed, 200) for seed in (1, 1, 2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_small_cells_unlike_the_soup_are_found_and_full_empty_droplets_are_not(profiles):
    rng = np.random.default_rng(4)
    ambient, cell = profiles
    kinds = {
        "empty": (rng.poisson(3, 8000), ambient),
        "full but empty": (rng.integers(150, 300, 60), ambient),
        "large cells": (rng.integers(4000, 9000, 300), ambient),
        "small cells": (rng.integers(150, 300, 60), cell),
    }
    matrix = sp.vstack([droplets(rng, *kind) for kind in kinds.values()]).tocsr()
    labels = np.repeat(list(kinds), [len(totals) for totals, _ in kinds.values()])
    keep, called = call_cells(matrix, seed=0)
    share = {kind: keep[labels == kind].mean() for kind in kinds}
    assert share["large cells"] == share["small cells"] == 1
    assert share["empty"] == 0
    assert share["full but empty"] <= 1 / 60
    assert called.method == "emptydrops"
    assert called.n_cells == keep.sum()


def test_thick_soup_is_not_taken_for_cells(profiles):
    rng = np.random.default_rng(5)
    ambient, cell = profiles
    totals = [rng.poisson(2, 6000), rng.poisson(150, 4000), rng.integers(700, 1500, 400)]
    parts = [droplets(rng, t, p) for t, p in zip(totals, (ambient, ambient, cell), strict=True)]
    keep, _ = call_cells(sp.vstack(parts).tocsr(), seed=0)
    assert keep[:10000].sum() <= 4
    assert keep[10000:].all()


def few_cells_among_many_droplets(profiles) -> tuple[sp.csr_matrix, np.ndarray]:
    """1,500 droplets of soup and behind them 10 cells unlike it: 151 draws can give no lower rate than one in 1."""
    rng = np.random.default_rng(8)
    p = (profiles[0] + 1e-6) / (profiles[0] + 1e-6).sum()
    soup = droplets(rng, np.full(1500, 120), p)
    return sp.vstack([soup, droplets(rng, np.full(10, 200), profiles[1])]).tocsr(), p


def test_cells_are_drawn_for_again_where_the_draws_are_too_few_to_tell_them(profiles):
    matrix, p = few_cells_among_many_droplets(profiles)
    found, n_undecided = unlike_ambient(matrix, p, 0, seed=0, fdr=0.01, n_iterations=150)
    assert found[-10:].all()
    assert (found[:-10].sum(), n_undecided) == (0, 0)


def test_cells_that_no_number_of_draws_can_tell_are_counted(profiles, monkeypatch):
    monkeypatch.setattr("cellscribe.cell_calling.MOST_ITERATIONS", 300)
    matrix, p = few_cells_among_many_droplets(profiles)
    found, n_undecided = unlike_ambient(matrix, p, 0, seed=0, fdr=0.01, n_iterations=150)
    assert not found.any()
    assert 10 <= n_undecided < 40


def test_too_few_ambient_counts_leave_the_totals_to_decide(profiles):
    rng = np.random.default_rng(6)
    parts = [
        droplets(rng, np.full(100, 1), profiles[0]),
        droplets(rng, rng.integers(900, 2000, 50), profiles[1]),
    ]
    keep, called = call_cells(sp.vstack(parts).tocsr(), seed=0)
    assert (called.method, called.fdr) == ("counts", None)
    assert keep.sum() == 50


def test_the_cut_is_a_tenth_of_a_full_cell():
    totals = np.concatenate([np.full(1000, 5000), np.full(20000, 3)])
    assert order_of_magnitude_cut(totals) == 500


@pytest.mark.parametrize("totals", [[], [0, 0], [7], [7] * 1000])
def test_droplets_all_alike_are_not_unfiltered(totals):
    assert not is_unfiltered(np.array(totals, dtype=float), named_raw=False)


@pytest.mark.parametrize("median", [12, 100, 5000])
def test_cells_of_any_depth_are_not_taken_for_droplets(median):
    totals = np.round(np.exp(np.random.default_rng(0).normal(np.log(median), 0.6, 4000)))
    assert not is_unfiltered(totals, named_raw=False)


def test_a_raw_name_is_not_believed_against_full_cells():
    totals = np.random.default_rng(0).integers(1000, 9000, 3000).astype(float)
    assert not is_unfiltered(totals, named_raw=True)


def test_nothing_but_soup_is_an_error(profiles):
    rng = np.random.default_rng(0)
    with pytest.raises(InputError, match="no droplet stands out"):
        call_cells(droplets(rng, rng.integers(20, 60, 1000), profiles[0]), seed=0)


def real(shared_data, place: str):
    found = find_input(shared_data / "cellranger" / place)
    return found, read_tenx(found)


@pytest.mark.parametrize(
    ("place", "unfiltered"),
    [
        ("pbmc4k/raw_feature_bc_matrix_SEMISYNTHETIC.h5", True),
        ("pbmc_unfiltered_droplets", True),
        ("soupx_toy_v2_raw_filtered/raw_gene_bc_matrices", True),
        ("soupx_toy_v2_raw_filtered", False),
        ("pbmc4k", False),
        ("pbmc_cellranger_1.3", False),
        ("eccite_adt_hto", False),
        ("scvi_citeseq_10k_protein_v3", False),
        ("scanpy_10x_fixtures/10x_data/3.0.0", False),
        ("r_chromium_cr2_cr3_outs/cellranger_v3", False),
    ],
)
def test_unfiltered_matrices_are_told_from_filtered_ones(shared_data, place, unfiltered):
    found, counts = real(shared_data, place)
    assert is_unfiltered(row_totals(whole(counts.matrix)), found.named_raw) is unfiltered


@pytest.mark.parametrize(
    "place", ["pbmc4k/raw_feature_bc_matrix_SEMISYNTHETIC.h5", "pbmc_unfiltered_droplets"]
)
def test_an_unfiltered_matrix_is_known_without_its_name(shared_data, place):
    _, counts = real(shared_data, place)
    assert droplet_shape(row_totals(whole(counts.matrix))).mostly_empty


def test_the_real_cells_come_back_from_among_empty_droplets(shared_data):
    _, counts = real(shared_data, "pbmc4k/raw_feature_bc_matrix_SEMISYNTHETIC.h5")
    cells = set(real(shared_data, "pbmc4k")[1].obs.index)
    keep, called = call_cells(counts.matrix, seed=1)
    found = set(counts.obs.index[keep])
    assert len(found & cells) >= 0.98 * len(cells)
    assert len(found - cells) < 0.02 * len(found)
    assert called.lower == 100


def test_real_shallow_droplets_are_called_by_a_lower_bound_of_their_own(shared_data):
    _, counts = real(shared_data, "pbmc_unfiltered_droplets")
    keep, called = call_cells(counts.matrix, seed=1)
    assert called.lower < 20
    assert 1000 <= keep.sum() <= 1500
    assert row_totals(whole(counts.matrix))[keep].min() > called.lower
