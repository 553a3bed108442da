import json

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from report_factory import MARKERS_EACH, TYPES, simulated

from cellscribe import differential, markers
from cellscribe.contract import UNASSIGNED
from cellscribe.model.logistic import log_normalise
from cellscribe.orthologs import named_as
from cellscribe.symbols import known_symbols
from cellscribe.tenx import read_tenx
from cellscribe.tenx_places import find_input


@pytest.fixture(scope="module")
def cells():
    return simulated()


def test_log_normalising_scales_each_cell_to_ten_thousand_and_leaves_the_counts_alone():
    counts = sp.csr_matrix(np.array([[1, 3], [0, 0], [0, 5]], dtype=np.float32))
    normal = log_normalise(counts)
    np.testing.assert_allclose(np.expm1(normal.toarray()), [[2500, 7500], [0, 0], [0, 1e4]], rtol=1e-5)
    assert counts.data.tolist() == [1, 3, 5]


def test_group_statistics_are_the_same_whatever_the_blocks(cells):
    normal = log_normalise(cells.X)
    codes = np.arange(cells.n_obs) % 3
    whole = markers.group_statistics([(codes, normal)], 3, cells.n_vars)
    parts = markers.group_statistics(
        ((codes[i : i + 7], normal[i : i + 7]) for i in range(0, cells.n_obs, 7)), 3, cells.n_vars
    )
    np.testing.assert_allclose(whole.sums, parts.sums, rtol=1e-5)
    codes_chosen = np.array([False, True, True])
    n, mean, share = whole.of(codes_chosen)
    chosen = normal[codes > 0]
    assert n == chosen.shape[0]
    np.testing.assert_allclose(mean, np.asarray(chosen.mean(axis=0)).ravel(), rtol=1e-5)
    np.testing.assert_allclose(share, np.asarray((chosen > 0).mean(axis=0)).ravel(), rtol=1e-5)
    some = [5, 2, 90]
    _, mean_of_some, _ = whole.of(codes_chosen, some)
    np.testing.assert_allclose(mean_of_some, mean[some])
    variance = chosen.toarray().astype(np.float64).var(axis=0)
    np.testing.assert_allclose(whole.variance(codes_chosen, some), variance[some], rtol=1e-4)
    joined = whole.joined(np.array([1, 0, 0]))
    assert joined.n_cells.tolist() == [n, (codes == 0).sum()]
    for of_two, of_three in zip(joined.of(np.array([True, False])), (n, mean, share), strict=True):
        np.testing.assert_array_equal(of_two, of_three)


def test_markers_are_found_by_id_first_and_by_symbol_where_there_is_no_id(cells):
    wanted = {
        "x": [
            markers.Marker(cells.var["gene_ids"].iloc[3], "another symbol", 0.5, 1.0, 0.0),
            markers.Marker("", cells.var_names[7], 0.5, 1.0, 0.0),
            markers.Marker("ENSG_NONE", "NONE", 0.5, 1.0, 0.0),
        ]
    }
    found = markers.locate_markers(wanted, cells.var)
    assert [column for _, column in found["x"]] == [3, 7]
    # As MAP does, where it looked among orthologues: there alone.
    others = cells.var.assign(gene_ids=["ENSG_NONE", *cells.var["gene_ids"][:-1]], gene_symbols="").set_axis(
        [""] * cells.n_vars
    )
    located = markers.locate_markers(wanted, cells.var, "gene_ids", others)
    assert [column for _, column in located["x"]] == [4, 0]
    no_ids = cells.var.assign(gene_ids="")
    assert [column for _, column in markers.locate_markers(wanted, no_ids)["x"]] == [7]


@pytest.mark.parametrize(
    "spelled",
    [
        ["HLA.DRA", "JCHAIN", "CXCL8", "AMICA1", "CD3E"],
        ["HLA-DRA", "IGJ", "IL8", "JAML", "CD3E"],
    ],
)
@pytest.mark.parametrize("has_ids", [True, False])
def test_markers_are_found_by_dots_and_by_symbols_of_other_years(spelled, has_ids):
    names = [("ENSG00000204287", "HLA-DRA"), ("ENSG00000132465", "IGJ"), ("ENSG00000169429", "CXCL8")]
    names += [("ENSG00000160593", "JAML"), ("ENSG00000198851", "CD3E")]
    wanted = {
        "x": [markers.Marker(gene_id if has_ids else "", symbol, 0.5, 1.0, 0.0) for gene_id, symbol in names]
    }
    var = pd.DataFrame({"gene_ids": "", "gene_symbols": spelled}, index=spelled)
    found = markers.locate_markers(wanted, var, "gene_symbols")["x"]
    assert [column for _, column in found] == list(range(5))


@pytest.mark.parametrize("spelled", ["plain", "dots", "newer", "older", "older with dots"])
def test_the_embedded_models_markers_are_the_same_genes_of_the_demo_whatever_it_calls_them(root, spelled):
    features = read_tenx(find_input(root / "assets" / "demo" / "filtered_feature_bc_matrix.h5"), None, None)
    expected = markers.read_markers(json.loads((root / "assets/models/pbmc/markers.json").read_text()))
    ids, symbols = features.var["gene_ids"], features.var.index
    by_id, _ = known_symbols()
    today = [by_id.get(gene_id, (name, ()))[0] for gene_id, name in zip(ids, symbols, strict=True)]
    before = [by_id.get(gene_id, ("", (name,)))[1][0] for gene_id, name in zip(ids, symbols, strict=True)]
    names = pd.Series({"plain": symbols, "newer": today, "dots": symbols}.get(spelled, before))
    if "dots" in spelled:
        names = names.str.replace("-", ".")
    var = pd.DataFrame({"gene_ids": "", "gene_symbols": names.to_numpy()}, index=names)
    assert (names.to_numpy() != symbols).any() == (spelled != "plain")
    assert markers.locate_markers(expected, var) == markers.locate_markers(expected, features.var)


def test_markers_of_mouse_cells_are_found_by_symbols_of_other_years():
    wanted = {
        "x": [
            markers.Marker("ENSMUSG00000004730", "Adgre1", 0.5, 1.0, 0.0),
            markers.Marker("", "H2-Aa", 0.5, 1.0, 0.0),
            markers.Marker("", "2810417H13Rik", 0.5, 1.0, 0.0),
            markers.Marker("", "Cd3e", 0.5, 1.0, 0.0),
        ]
    }
    names = ["Pclaf", "H2.Aa", "Emr1", "Cd3e"]
    var = pd.DataFrame({"gene_ids": "", "gene_symbols": names}, index=names)
    assert [column for _, column in markers.locate_markers(wanted, var)["x"]] == [2, 1, 0, 3]
    # And by the human names that MAP gave them.
    others, _ = named_as(var, "mouse", "human")
    human = {"x": [markers.Marker("", name, 0.5, 1.0, 0.0) for name in ("PCLAF", "CD3E", "Cd3e")]}
    assert [column for _, column in markers.locate_markers(human, var, "index", others)["x"]] == [0, 3]


def test_a_column_that_the_user_named_is_the_only_one_to_find_markers_by(cells):
    wanted = {"x": [markers.Marker("", name, 0.5, 1.0, 0.0) for name in cells.var_names[:3]]}
    var = cells.var.assign(mine=[*cells.var_names[1:], ""])
    assert [column for _, column in markers.locate_markers(wanted, var, "mine")["x"]] == [0, 1]


def test_housekeeping_genes_are_known_by_id_and_by_symbol_with_dots_too():
    symbols = ["MT-ND1", "MT.ND1", "RPL13", "RPS6KA1", "CD3E", "MT1X", "", "mt.Nd1"]
    ids = [""] * 6 + ["ENSG00000198888", ""]
    told = markers.housekeeping(pd.Series(symbols), pd.Series(ids))
    assert told.tolist() == [True, True, True, True, False, False, True, True]


def test_ranked_markers_are_each_types_own_genes_and_say_which_were_expected(cells):
    labels = cells.obs["cell_type"].to_numpy(dtype=object)
    tested = differential.each_against_rest(log_normalise(cells.X), labels, cells.var)
    table = markers.rank_markers(tested, cells.var, {"B cell": {0, 1}})
    for label in TYPES:
        first = table[(table["label"] == label) & (table["rank"] <= MARKERS_EACH)]
        assert {gene[0] for gene in first["gene"]} == {label[0]}
        assert (first["adjusted_p"] < 1e-3).all()
        assert (first["share_in"] > first["share_out"]).all()
    assert set(table.loc[table["expected_marker"] == "yes", "gene"]) == {"B0", "B1"}
    assert (table["score"] > 0).all()


def test_cells_without_a_name_are_tested_as_those_of_a_label_are(cells):
    labels = cells.obs["cell_type"].to_numpy(dtype=object).copy()
    labels[labels == "Monocyte"] = UNASSIGNED
    tested = differential.each_against_rest(log_normalise(cells.X), labels, cells.var)
    table = markers.rank_markers(tested, cells.var, {})
    first = table[(table["label"] == UNASSIGNED) & (table["rank"] <= MARKERS_EACH)]
    assert {gene[0] for gene in first["gene"]} == {"M"} and set(first["expected_marker"]) == {"no"}


def test_nothing_is_tested_against_fewer_than_ten_cells(cells):
    labels = cells.obs["cell_type"].to_numpy(dtype=object).copy()
    labels[:] = "T cell"
    labels[:9] = UNASSIGNED
    tested = differential.each_against_rest(log_normalise(cells.X), labels, cells.var)
    table = markers.rank_markers(tested, cells.var, {})
    assert len(table) == 0
    assert list(table.columns)[:4] == ["label", "gene", "gene_id", "rank"]


def test_the_genes_that_mark_a_group_are_found_by_its_sums():
    """Gene 3 is higher in each cell of group 1, gene 4 in half of them; gene 5, which all of these lack, marks none."""
    generator = np.random.default_rng(0)
    groups = np.repeat([0, 1, 2], [60, 40, 5])
    values = generator.normal(1, 0.1, (105, 8))
    values[:, 5] = np.where(groups == 1, 0, 1)
    values[groups == 1, 3] += 2
    values[np.flatnonzero(groups == 1)[::2], 4] += 1
    statistics = markers.group_statistics([(groups, sp.csr_matrix(values))], 3, 8)
    names = pd.Index([f"g{i}" for i in range(8)])
    found = markers.marking_genes(statistics, np.array([False, True, False]), names, [])
    assert found[:2] == ["g3", "g4"] and "g5" not in found
    assert markers.marking_genes(statistics, np.array([False, True, False]), names, ["g3"])[0] == "g4"
    assert markers.marking_genes(statistics, np.array([False, False, True]), names, []) == []
