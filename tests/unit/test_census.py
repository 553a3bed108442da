"""Which cells of CELLxGENE Census become the reference. The Census itself: tests/interop/test_census.py."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from cellscribe.census import Query, choose_cells, donors_of, fair_shares, hold_out

TYPES = np.array(["B cell"] * 100 + ["T cell"] * 30 + ["mast cell"] * 4, dtype=object)
DONORS = np.array(["a"] * 80 + ["b"] * 20 + ["a"] * 10 + ["b"] * 10 + ["c"] * 10 + ["c"] * 4, dtype=object)


@pytest.mark.parametrize(
    ("available", "total", "taken"),
    [
        ([80, 20], 20, [10, 10]),
        ([80, 5], 20, [15, 5]),
        ([3, 2], 20, [3, 2]),
        ([5, 5, 5], 7, [3, 2, 2]),
        ([1, 100, 100], 11, [1, 5, 5]),
        ([], 5, []),
    ],
)
def test_a_types_cells_are_spread_over_its_donors(available: list[int], total: int, taken: list[int]) -> None:
    assert fair_shares(np.array(available, dtype=np.int64), total).tolist() == taken


def test_no_type_has_more_cells_than_asked_and_rare_ones_have_all() -> None:
    chosen = choose_cells(TYPES, DONORS, Query("x", cells_per_type=12)).reference
    names, numbers = np.unique(TYPES[chosen].astype(str), return_counts=True)
    assert dict(zip(names, numbers, strict=True)) == {"B cell": 12, "T cell": 12, "mast cell": 4}
    b_cells = chosen[TYPES[chosen] == "B cell"]
    assert (DONORS[b_cells] == "a").sum() == 6
    assert (np.diff(chosen) > 0).all()


def test_the_same_seed_takes_the_same_cells_and_another_takes_others() -> None:
    one, again, other = (
        choose_cells(TYPES, DONORS, Query("x", cells_per_type=12, seed=seed)).reference.tolist()
        for seed in (1, 1, 2)
    )
    assert one == again != other


def test_a_donor_held_out_is_in_no_cell_of_the_reference() -> None:
    chosen = choose_cells(TYPES, DONORS, Query("x", cells_per_type=12, holdout_donors=1))
    (apart,) = chosen.held_out_donors
    assert set(DONORS[chosen.held_out]) == {apart}
    assert apart not in set(DONORS[chosen.reference])


def test_a_donor_in_two_datasets_of_one_collection_is_one_donor() -> None:
    obs = pd.DataFrame({"dataset_id": ["lung", "liver", "other", "new"], "donor_id": "d1"})
    donors = donors_of(obs, {"lung": "atlas", "liver": "atlas", "other": "another"})
    assert donors.tolist() == ["atlas/d1", "atlas/d1", "another/d1", "new/d1"]


def test_no_donor_is_held_out_whom_a_type_cannot_spare() -> None:
    # Only c has mast cells.
    for seed in range(10):
        apart = hold_out(TYPES, DONORS, 3, np.random.default_rng(seed))
        assert len(apart) == 1 and apart != ["c"]
