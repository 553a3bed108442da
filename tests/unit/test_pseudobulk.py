"""Counts summed by sample and label."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

from cellscribe.pseudobulk import SumsByLabel, of_samples


def cells(seed: int = 0) -> tuple[pd.DataFrame, sp.csr_matrix]:
    """Cells of three samples, the last by name first, with their counts."""
    rng = np.random.default_rng(seed)
    samples = np.repeat(["s2", "s1", "s10"], (50, 7, 30))
    obs = pd.DataFrame(
        {
            "sample": pd.Categorical(samples),
            "final": rng.choice(["B cell", "unassigned", "T cell"], len(samples)),
            "condition": pd.Categorical(np.where(samples == "s1", "ill", "well")),
            "donor": rng.choice(["one", "two"], len(samples)),
            "score": rng.random(len(samples)),
            "treated": samples == "s10",
            "age": np.where(samples == "s2", 31.5, 40),
            "label": "kept",
        }
    )
    obs.loc[obs["sample"] == "s1", "final"] = "B cell"
    counts = sp.random(len(obs), 40, 0.3, "csr", np.float32, rng, data_rvs=lambda n: rng.integers(1, 99, n))
    return obs, counts


@pytest.mark.parametrize("rows", [3, 7, 1000])
def test_sums_are_those_of_each_samples_cells_of_each_label(rows: int) -> None:
    obs, counts = cells()
    sums = SumsByLabel(obs, "final", 40)
    for name in obs["sample"].unique():
        own = counts[(obs["sample"] == name).to_numpy()]
        for start in range(0, own.shape[0], rows):
            sums.add(own[start : start + rows])
    table = sums.table(pd.DataFrame(index=[f"G{i}" for i in range(40)]))
    groups = obs.groupby(["sample", "final"], observed=True, sort=False).indices
    assert len(table) == len(groups) == 7
    for (sample, label), of in groups.items():
        row = table[f"{sample}:{label}"]
        np.testing.assert_array_equal(row.X.toarray().ravel(), counts[of].toarray().astype(float).sum(axis=0))
        assert row.obs["n_cells"].tolist() == [len(of)]
        assert row.obs[["sample", "label"]].iloc[0].tolist() == [sample, label]
        assert row.obs["condition"].tolist() == ["ill" if sample == "s1" else "well"]
    # In the order of the samples, as in the file of all cells.
    assert list(dict.fromkeys(table.obs["sample"])) == ["s2", "s1", "s10"]
    assert table.X.dtype == np.float64 and "donor" not in table.obs and "score" not in table.obs
    by_sample = table.obs.groupby("sample")[["treated", "age"]].first()
    assert by_sample["treated"].to_dict() == {"s2": False, "s1": False, "s10": True}
    assert by_sample["age"].to_dict() == {"s2": 31.5, "s1": 40.0, "s10": 40.0}
    assert set(table.obs["input_label"]) == {"kept"}


def test_large_sums_stay_whole() -> None:
    obs = pd.DataFrame({"sample": ["a"] * 3, "final": ["x"] * 3})
    sums = SumsByLabel(obs, "final", 1)
    sums.add(sp.csr_matrix(np.array([[2**24], [1], [1]], dtype=np.float32)))
    assert sums.table(pd.DataFrame(index=["G"])).X.toarray().tolist() == [[2.0**24 + 2]]


def test_columns_tell_of_a_sample_where_they_have_one_value_in_each() -> None:
    obs, _ = cells()
    assert of_samples(obs) == ["condition", "treated", "age", "label"]
    assert of_samples(obs, without=["condition", "age"]) == ["treated", "label"]
