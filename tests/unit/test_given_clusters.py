"""Clusters that the user has already."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from cellscribe.given_clusters import MOST_CLUSTERS, MOST_NUMBERS, read_clusters


def read(values, key="mine"):
    return read_clusters(pd.DataFrame({"mine": values}), key)


def names_of(values):
    """The names of the clusters and each cell's, "" for none."""
    clusters, _ = read(values)
    return list(clusters.names), [clusters.names[code] if code >= 0 else "" for code in clusters.codes]


def test_clusters_are_in_the_order_of_the_categories_that_have_cells():
    values = pd.Categorical(["b", "a", "b", "a"], categories=["c", "b", "a"])
    assert names_of(values) == (["b", "a"], ["b", "a", "b", "a"])


@pytest.mark.parametrize("kind", [str, int, float, "category"])
def test_numbers_are_in_their_own_order_whatever_they_are_written_as(kind):
    values = pd.Series([10, 2, 2, 10, -1, -1]).astype(kind)
    assert names_of(values) == (["-1", "2", "10"], ["10", "2", "2", "10", "-1", "-1"])


def test_text_is_in_the_order_of_the_alphabet_and_true_and_false_are_two_clusters():
    assert names_of(["T", "B", "T", "B"])[0] == ["B", "T"]
    assert names_of([True, False, True, False])[0] == ["False", "True"]


@pytest.mark.parametrize(
    "values", [["3", "", "3", "nan"], [3.0, np.nan, 3.0, np.nan], pd.Categorical(["3", None, "3", None])]
)
def test_a_cell_without_a_value_is_in_no_cluster_and_that_is_said(values):
    clusters, (said,) = read(values)
    assert (list(clusters.names), clusters.codes.tolist()) == (["3"], [0, -1, 0, -1])
    assert said == (
        "2 of 4 cells have no cluster in the column 'mine' of obs. Each keeps its own label as that of its cluster, "
        "and is in no verdict on clusters."
    )
    assert read(["a", "a", None])[1][0].startswith("1 of 3 cells has no cluster")


def test_a_cluster_that_is_called_as_cells_without_one_are_is_told_apart_from_them():
    clusters, (without, renamed) = read(["no cluster", "b", None, "no cluster", "b"])
    assert clusters.column()[:3].tolist() == ["no cluster (given)", "b", "no cluster"]
    assert without.startswith("1 of 5 cells has no cluster")
    assert renamed == (
        "A cluster in the column 'mine' of obs is called 'no cluster', which stands for cells that are in none: it is "
        "called 'no cluster (given)' here. If its cells are in no cluster, leave their values in the column empty."
    )
    taken, (said,) = read(["no cluster", "no cluster (given)"] * 2)
    assert taken.names == ["no cluster (given)_2", "no cluster (given)"] and "(given)_2' here" in said


def test_a_column_that_is_not_there_is_told_with_the_nearest():
    clusters, (said,) = read(["a", "a"], "mines")
    assert clusters is None
    assert said.startswith(
        "Clusters were found anew and not taken from the column 'mines' of obs: there is no such"
    )
    assert "'mine'" in said


def test_a_column_is_found_by_the_name_that_convert_gave_it():
    clusters, said = read_clusters(pd.DataFrame({"leiden_1.0": ["a", "a", "b", "b"]}), "leiden/1.0")
    assert clusters.key == "leiden/1.0" and not said


def test_the_inputs_own_sample_and_batch_are_meant_and_not_the_pipelines():
    obs = pd.DataFrame({"batch": "s1", "input_batch": list("aabb"), "sample": "s1"})
    assert read_clusters(obs, "batch")[0].names == ["a", "b"]
    assert read_clusters(obs, "sample")[0].names == ["s1"]


@pytest.mark.parametrize(
    ("values", "why"),
    [
        ([None, "", "nan", "NA"], "no cell has a value in it"),
        ([0.5, 0.5, 1.5, 1.5], "it holds fractions"),
        ([1.0, np.inf, 1.0, 1.0], "it holds fractions"),
        (np.arange(4 * MOST_NUMBERS) // 3, f"it holds {-(-4 * MOST_NUMBERS // 3):,} different numbers"),
        (["a", "b", "c", "a"], "it has 3 values for 4 cells"),
        ([f"c{i}" for i in np.arange(3 * MOST_CLUSTERS) // 2], "clusters are 2,000 at most"),
    ],
)
def test_what_are_no_clusters_is_told(values, why):
    clusters, (said,) = read(values)
    assert clusters is None and why in said


def test_one_cluster_of_one_cell_and_many_small_ones_are_clusters():
    assert names_of(["a"]) == (["a"], ["a"])
    assert len(names_of(np.arange(2 * MOST_NUMBERS) // 2)[0]) == MOST_NUMBERS
