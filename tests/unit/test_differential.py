"""Which cells a comparison takes, what its syntax lets pass, and that its numbers are those of other libraries."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from pathlib import Path

import numba
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import scipy.stats
from conftest import ROOT
from report_factory import simulated

from cellscribe import differential
from cellscribe.compiled import import_scanpy
from cellscribe.contract import UNASSIGNED
from cellscribe.differential import Comparison, find_contrasts, parse_comparisons
from cellscribe.model.logistic import log_normalise

FINAL = "cxg_cell_type_final"


@pytest.fixture
def obs() -> pd.DataFrame:
    labels = ["B cell"] * 40 + ["T cell"] * 40 + ["NK cell"] * 12 + [UNASSIGNED] * 8
    return pd.DataFrame(
        {
            FINAL: pd.Categorical(labels),
            "condition": pd.Categorical(["stim", "ctrl"] * 50),
            "dose": np.arange(100) % 3,
        }
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("B cell vs NK cell", Comparison("", ("B cell",), ("NK cell",))),
        ("B cell + NK cell vs rest", Comparison("", ("B cell", "NK cell"), ())),
        ("condition: stim vs ctrl", Comparison("condition", ("stim",), ("ctrl",))),
        (
            "my column:  a vs b  within CD8-positive, alpha-beta T cell",
            Comparison("my column", ("a",), ("b",), "CD8-positive, alpha-beta T cell"),
        ),
        ("CL:0000236 vs CD4+ T cell", Comparison("", ("CL:0000236",), ("CD4+ T cell",))),
    ],
)
def test_a_comparison_is_read_as_it_is_meant(text: str, expected: Comparison) -> None:
    assert parse_comparisons(text) == [expected]
    assert parse_comparisons(f"x vs y | {text}")[1] == expected


@pytest.mark.parametrize(
    "text", ["B cell", "B cell versus T cell", "a vs ", "a vs b |", "a vs a", "a + b vs b"]
)
def test_what_is_no_comparison_is_refused_with_the_syntax(text: str) -> None:
    with pytest.raises(ValueError, match="write it as 'B cell vs NK cell'"):
        parse_comparisons(text)


def sizes(text: str, obs: pd.DataFrame) -> tuple[dict[str, tuple[int, int]], list[str]]:
    contrasts, notes = find_contrasts(parse_comparisons(text), obs, FINAL)
    return {one.name: (len(one.rows_in), len(one.rows_out)) for one in contrasts}, notes


def test_a_comparison_takes_the_cells_that_it_names(obs: pd.DataFrame) -> None:
    assert sizes("B cell vs T cell", obs) == ({"B cell vs T cell": (40, 40)}, [])
    assert sizes("B cell vs rest", obs) == ({"B cell vs rest": (40, 60)}, [])
    assert sizes("dose: 1 vs 0 + 2", obs) == ({"dose: 1 vs 0 + 2": (33, 67)}, [])
    obs["measured"] = np.where(np.arange(100) < 10, np.nan, np.where(np.arange(100) < 40, 0, 1.5))
    assert sizes("measured: 0 vs 1.5", obs) == ({"measured: 0 vs 1.5": (30, 60)}, [])
    within = sizes("condition: stim vs ctrl within each", obs)
    assert within[0] == {
        f"condition: stim vs ctrl within {label}": (20, 20) for label in ("B cell", "T cell")
    }


def test_labels_with_too_few_cells_to_compare_within_are_named(obs: pd.DataFrame) -> None:
    text = "condition: stim vs ctrl within each"
    told = f"'{text}' was not compared in NK cell: fewer than 10 cells on a side."
    assert sizes(text, obs)[1] == [told]
    assert sizes(f"{text} | {text}", obs)[1] == [told]
    assert sizes(text, obs[obs[FINAL] != "NK cell"])[1] == []
    (none,) = sizes(text, obs[obs[FINAL] == "NK cell"])[1]
    assert none.endswith("no label has 10 cells on each side.")


def test_what_is_asked_for_twice_is_compared_once(obs: pd.DataFrame) -> None:
    contrasts, notes = find_contrasts(parse_comparisons("B cell vs T cell | B cell vs T cell"), obs, FINAL)
    assert ([one.name for one in contrasts], notes) == (["B cell vs T cell"], [])
    text = f"B cell vs rest | {FINAL}: B cell vs rest | condition: stim vs ctrl within each"
    contrasts, notes = find_contrasts(parse_comparisons(f"{text} | {text}"), obs, FINAL)
    assert (len(contrasts), len(notes)) == (3, 1)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("conditon: stim vs ctrl", "did you mean 'condition'"),
        ("B cells vs T cell", "did you mean 'B cell'"),
        ("condition: stim vs ctrl within B-cell", "did you mean 'B cell'"),
        ("unassigned vs B cell", "8 against 40 cells; each side needs 10"),
        ("dose: 7 vs 1", "no cell has '7' in dose. In dose there are '0', '1', '2'."),
        (
            "empty: 7 vs 1",
            "no cell has '7' in empty, and no cell has '1' in empty. In empty there are no values.",
        ),
        ("condition: stimm vs ctrl", "did you mean 'stim'? In condition there are 'ctrl', 'stim'."),
        (
            "condition: drug vs ctrl within Z cell",
            f"no cell has 'drug' in condition, and no cell has 'Z cell' in {FINAL}. In condition there are 'ctrl', "
            f"'stim'. In {FINAL} there are 'B cell', 'T cell', 'NK cell', 'unassigned'.",
        ),
        ("number: x vs y", "In number there are '0', '1', '2', '3', '4', '5', '6', '7' and 84 more."),
        (
            "CD8 cell + B ceII vs T cell",
            f"no cell has 'CD8 cell' in {FINAL}, and no cell has 'B ceII' in {FINAL}.",
        ),
    ],
)
def test_a_comparison_that_cannot_be_made_is_told(obs: pd.DataFrame, text: str, words: str) -> None:
    made, notes = sizes(text, obs.assign(empty=None, number=np.arange(100) % 92))
    assert made == {} and words in " ".join(notes)


@pytest.mark.parametrize(
    ("asked", "there"), [("上皮 cell", "间质 cell"), ("CD4+ T cell", "CD4- T cell"), ("β cell", "α cell")]
)
def test_no_label_that_means_another_type_is_advised(obs: pd.DataFrame, asked: str, there: str) -> None:
    (note,) = sizes(f"{asked} vs rest", obs.assign(**{FINAL: there}))[1]
    assert note.endswith(f"no cell has '{asked}' in {FINAL}. In {FINAL} there is '{there}'.")
    (note,) = sizes(f"{there.upper()}s vs rest", obs.assign(**{FINAL: there}))[1]
    assert f"did you mean '{there}'?" in note


def test_a_column_that_was_renamed_as_ours_is_of_that_name_is_compared_all_the_same(
    obs: pd.DataFrame,
) -> None:
    obs = obs.assign(batch="s1", input_batch=obs["condition"])
    (contrast,), notes = find_contrasts(parse_comparisons("batch: stim vs ctrl"), obs, FINAL)
    assert (contrast.n_in, contrast.n_out, notes) == (50, 50, [])


def test_cells_are_drawn_where_there_are_many_and_the_whole_number_is_kept() -> None:
    obs = pd.DataFrame({FINAL: ["a"] * 30_000 + ["b"] * 100})
    (one,), _ = find_contrasts(parse_comparisons("a vs b"), obs, FINAL)
    assert (len(one.rows_in), one.n_in, len(one.rows_out)) == (differential.CELLS_A_SIDE, 30_000, 100)
    assert (np.diff(one.rows_in) > 0).all()
    columns = obs.assign(**{f"c{i}": obs[FINAL] for i in range(30)})
    text = " | ".join(f"c{i}: a vs rest" for i in range(30))
    many, _ = find_contrasts(parse_comparisons(text), columns, FINAL)
    assert len(many) == 30
    assert sum(len(one.rows_in) for one in many) <= differential.CELLS_OF_ALL_COMPARISONS


def test_labels_are_tested_on_a_seeded_draw_of_a_large_sample_and_rare_ones_on_more_of_their_cells() -> None:
    codes = np.random.default_rng(1).permutation(np.repeat([0, 1, 2, 3, 4], [60_000, 39_491, 450, 50, 9]))
    first, *apart = differential.draw_cells(codes)
    for one, again in zip((first, *apart), differential.draw_cells(codes), strict=True):
        np.testing.assert_array_equal(one.rows, again.rows)
        assert (np.diff(one.rows) > 0).all()
    assert first.tested.tolist() == [0, 1]
    assert len(first.rows) == differential.CELLS_TESTED
    assert np.bincount(codes[first.rows]) == pytest.approx(np.bincount(codes) / 5, rel=0.3, abs=5)
    for one, n_own in zip(apart, (200, 50), strict=True):
        (code,) = one.tested
        others = codes[one.rows][codes[one.rows] != code]
        assert len(one.rows) - len(others) == n_own
        assert (others == 0).mean() == pytest.approx(0.6, abs=0.03)
        assert (others == 1).mean() == pytest.approx(0.4, abs=0.03)
    # No more cells are read for it than so many of each rare label.
    read = np.unique(np.concatenate([one.rows for one in (first, *apart)]))
    assert len(read) < differential.CELLS_TESTED + 250


def test_a_label_of_nearly_all_cells_is_tested_against_enough_of_the_few_others() -> None:
    codes = np.repeat([0, 1, 2], [99_700, 200, 100])
    _, *apart = differential.draw_cells(codes)
    sides = {int(one.tested[0]): np.bincount(codes[one.rows]).tolist() for one in apart}
    assert sides[0][0] == 2_000 and sum(sides[0][1:]) == 200
    assert 2 * sides[0][2] == pytest.approx(sides[0][1], rel=0.3)
    assert (sides[1][1], sides[2][2]) == (200, 100)


def test_all_cells_are_tested_where_they_are_few_and_no_label_without_enough_on_both_sides() -> None:
    codes = np.repeat([0, 1, 2], [19_980, 11, 9])
    (draw,) = differential.draw_cells(codes)
    np.testing.assert_array_equal(draw.rows, np.arange(20_000))
    assert draw.tested.tolist() == [0, 1]
    (draw,) = differential.draw_cells(np.repeat([0, 1], [100_000, 9]))
    assert not len(draw.tested)


def test_many_rare_labels_share_what_is_tested() -> None:
    codes = np.repeat(np.arange(302), [50_000, 50_000, *[150] * 300])
    _, *apart = differential.draw_cells(codes)
    assert len(apart) == 300
    assert {len(one.rows) for one in apart} == {150 + 400}


def test_the_score_and_p_value_are_those_of_the_rank_sum_test() -> None:
    cells = simulated()
    expression = log_normalise(cells.X)
    (contrast,), _ = find_contrasts(
        parse_comparisons("B cell vs T cell"), cells.obs.rename(columns={"cell_type": FINAL}), FINAL
    )
    rows = np.concatenate([contrast.rows_in, contrast.rows_out])
    table = differential.contrast_genes(expression[rows], contrast.n_in, contrast, cells.var)
    for row in table.iloc[[0, 5, len(table) // 2, -1]].itertuples():
        values = expression[:, cells.var_names.get_loc(row.gene)].toarray().ravel()
        a, b = values[contrast.rows_in], values[contrast.rows_out]
        expected = scipy.stats.mannwhitneyu(a, b, method="asymptotic", use_continuity=False)
        assert row.p == pytest.approx(expected.pvalue, rel=1e-5)
        assert np.sign(row.score) == np.sign(a.mean() - b.mean())
        fold = np.log2((np.expm1(a.mean()) + 1e-9) / (np.expm1(b.mean()) + 1e-9))
        assert row.log2_fold_change == pytest.approx(fold, abs=1e-3)
        assert row.share_in == pytest.approx((a > 0).mean(), abs=1e-4)
        assert row.share_out == pytest.approx((b > 0).mean(), abs=1e-4)
    assert table["score"].is_monotonic_decreasing


KEEPS = """
import sys
import numba, scipy.sparse as sp
from numba.core import serialize
from cellscribe.compiled import import_scanpy

import_scanpy()
sys.stdout.buffer.write(serialize.dumps(numba.typeof(sp.csr_matrix((2, 2), dtype="float32"))))
"""


TRAINS = """
import numpy as np, scipy.sparse as sp
from cellscribe.training.genes import select_genes

counts = sp.random(60, 50, 0.5, format="csr", dtype="float32", random_state=0)
counts.data = np.ceil(9 * counts.data)
select_genes(counts, np.arange(60) % 2, np.full(60, "one"), 2, n_top_genes=10)
"""
TESTS = """
import numpy as np, pandas as pd, scipy.sparse as sp
from cellscribe.differential import each_against_rest

counts = sp.random(60, 50, 0.5, format="csr", dtype="float32", random_state=0)
each_against_rest(counts, np.array(["a", "b"] * 30), pd.DataFrame(index=[f"g{i}" for i in range(50)]))
"""


def test_steps_can_use_what_others_compiled(tmp_path: Path) -> None:
    known = os.environ | {"PYTHONPATH": str(ROOT / "bin"), "NUMBA_CACHE_DIR": str(tmp_path)}
    for program in (TRAINS, TESTS, TRAINS):
        subprocess.run([sys.executable, "-c", program], env=known, check=True, capture_output=True)


def test_numba_knows_the_type_of_a_matrix_that_another_process_kept() -> None:
    known = os.environ | {"PYTHONPATH": str(ROOT / "bin")}
    kept = subprocess.run([sys.executable, "-c", KEEPS], env=known, check=True, capture_output=True).stdout
    import_scanpy()
    assert pickle.loads(kept) == numba.typeof(sp.csr_matrix((2, 2), dtype="float32"))
