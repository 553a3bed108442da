from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp

from cellscribe.counts import as_float32_counts, column_totals, row_totals, see

COUNTS = np.array([1, 2, 3, 40])


@pytest.mark.parametrize("dtype", ["int64", "uint8", "float32", "float64"])
def test_integers_of_any_type_are_counts(dtype):
    assert see([COUNTS.astype(dtype)]).are_counts


@pytest.mark.parametrize(
    ("values", "looks_like"),
    [
        (np.log1p(COUNTS), "log1p-normalised"),
        (COUNTS * 37.3, "normalised to a common total"),
        (np.array([-1.2, 0.4]), "scaled"),
        (np.array([-1, 4]), "scaled"),
        (np.array([1.0, np.nan]), "missing or infinite"),
        (np.array([1.0, np.inf]), "missing or infinite"),
        (np.append(np.arange(1.0, 100), 2.5), "corrected for ambient RNA"),
        (np.array([2.0**25]), "no counts of molecules"),
        (np.array([]), "nothing but zeros"),
        (np.array([0.0, 0.0]), "nothing but zeros"),
    ],
)
def test_other_numbers_are_refused_with_what_they_look_like(values, looks_like):
    seen = see([values])
    assert not seen.are_counts
    assert looks_like in seen.fault


def test_a_summary_is_the_same_in_one_chunk_or_in_many():
    values = np.random.default_rng(0).gamma(2, 2, 1000)
    assert see([values]) == see(np.array_split(values, 7))


def test_almost_all_integers_is_not_said_to_be_all():
    values = np.append(np.ones(99_999), 0.5)
    assert "99.9 % integers" in str(see([values]))


def test_rounding_noise_of_floats_is_removed():
    noisy = np.array([1.0000001, 2.9999999])
    assert as_float32_counts(noisy).tolist() == [1.0, 3.0]


def test_totals_add_up_by_row_and_by_column():
    dense = np.array([[1, 0, 2], [0, 0, 0], [3, 0, 1]])
    matrix = sp.csr_matrix(dense, dtype=np.float32)
    assert row_totals(matrix).tolist() == dense.sum(axis=1).tolist()
    assert column_totals(matrix).tolist() == dense.sum(axis=0).tolist()
