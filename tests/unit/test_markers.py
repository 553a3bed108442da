import numpy as np
import pytest
import scipy.sparse as sp
from report_factory import MARKERS_EACH, TYPES, expected_markers, simulated

from cellscribe import differential, markers
from cellscribe.contract import UNASSIGNED


@pytest.fixture(scope="module")
def cells():
    return simulated()


@pytest.fixture(scope="module")
def expected(cells):
    return markers.read_markers(expected_markers(cells))


def judged(cells, expected, predicted=None, final=None):
    labels = cells.obs["cell_type"].to_numpy(dtype=object)
    predicted = labels if predicted is None else np.asarray(predicted, dtype=object)
    final = predicted if final is None else np.asarray(final, dtype=object)
    pairs = sorted(set(zip(predicted, final, strict=True)))
    codes = np.array([pairs.index(pair) for pair in zip(predicted, final, strict=True)])
    statistics = markers.group_statistics([(codes, markers.log_normalise(cells.X))], len(pairs), cells.n_vars)
    located = markers.locate_markers(expected, cells.var)
    return markers.judge(statistics, [p for p, _ in pairs], [f for _, f in pairs], located, expected)


def test_log_normalising_scales_each_cell_to_ten_thousand_and_leaves_the_counts_alone():
    counts = sp.csr_matrix(np.array([[1, 3], [0, 0], [0, 5]], dtype=np.float32))
    normal = markers.log_normalise(counts)
    np.testing.assert_allclose(np.expm1(normal.toarray()), [[2500, 7500], [0, 0], [0, 1e4]], rtol=1e-5)
    assert counts.data.tolist() == [1, 3, 5]


def test_group_statistics_are_the_same_whatever_the_blocks(cells):
    normal = markers.log_normalise(cells.X)
    codes = np.arange(cells.n_obs) % 3
    whole = markers.group_statistics([(codes, normal)], 3, cells.n_vars)
    parts = markers.group_statistics(
        ((codes[i : i + 7], normal[i : i + 7]) for i in range(0, cells.n_obs, 7)), 3, cells.n_vars
    )
    np.testing.assert_allclose(whole.sums, parts.sums, rtol=1e-5)
    n, mean, share = whole.of(np.array([False, True, True]))
    chosen = normal[codes > 0]
    assert n == chosen.shape[0]
    np.testing.assert_allclose(mean, np.asarray(chosen.mean(axis=0)).ravel(), rtol=1e-5)
    np.testing.assert_allclose(share, np.asarray((chosen > 0).mean(axis=0)).ravel(), rtol=1e-5)


def test_right_names_are_supported(cells, expected):
    named, left = judged(cells, expected)
    assert {one.label: one.verdict for one in named} == dict.fromkeys(TYPES, "supported")
    assert left == []


def test_a_wrong_name_is_contradicted_and_the_right_one_is_offered(cells, expected):
    labels = cells.obs["cell_type"].to_numpy(dtype=object)
    swapped = np.where(labels == "B cell", "Monocyte", np.where(labels == "Monocyte", "B cell", labels))
    named, _ = judged(cells, expected, swapped)
    by_label = {one.label: one for one in named}
    assert by_label["Monocyte"].verdict == by_label["B cell"].verdict == "contradicted"
    assert by_label["Monocyte"].rival == "B cell"
    assert by_label["T cell"].verdict == "supported"
    b_markers = {call.symbol: call.higher_in for call in by_label["B cell"].calls}
    assert b_markers["B0"] == "Monocyte"


def test_a_name_given_to_half_right_cells_is_weak():
    cells = simulated()
    expected = markers.read_markers(expected_markers(cells))
    # Half of the B cells' own genes are silenced after the model was made.
    silent = [cells.var_names.get_loc(gene.symbol) for gene in expected["B cell"][:5]]
    keep = np.ones(cells.n_vars, dtype=np.float32)
    keep[silent] = 0
    cells.X = (cells.X @ sp.diags(keep)).tocsr().astype(np.float32)
    named, _ = judged(cells, expected)
    verdicts = {one.label: (one.verdict, one.n_up) for one in named}
    assert verdicts["B cell"] == ("weak", 5)


def test_a_gene_that_few_cells_express_does_not_go_up_even_if_its_mean_is_higher(cells, expected):
    strict = {
        label: [markers.Marker(g.gene_id, g.symbol, 1.0, g.mean_rest) for g in genes]
        for label, genes in expected.items()
    }
    noise = [markers.Marker(f"ENSG{i:011d}", f"GENE{i}", 0.9, 0.0) for i in range(60, 70)]
    named, _ = judged(cells, {**strict, "B cell": noise})
    by_label = {one.label: one for one in named}
    assert by_label["B cell"].n_up == 0
    assert by_label["T cell"].verdict == "supported"


def test_unassigned_cells_are_judged_by_the_type_they_came_closest_to(cells, expected):
    labels = cells.obs["cell_type"].to_numpy(dtype=object)
    final = labels.copy()
    final[:20] = UNASSIGNED
    named, left = judged(cells, expected, labels, final)
    assert UNASSIGNED not in {one.label for one in named}
    assert [(one.label, one.n_cells, one.verdict) for one in left] == [("B cell", 20, "supported")]


def test_what_cannot_be_judged_says_why(cells, expected):
    labels = cells.obs["cell_type"].to_numpy(dtype=object)
    final = labels.copy()
    final[labels == "B cell"] = "lymphocyte"
    final[:4] = "B cell"
    few = {**expected, "T cell": [*expected["T cell"][:2], markers.Marker("ENSG9", "ABSENT", 0.5, 0.1)]}
    named, _ = judged(cells, few, labels, final)
    reasons = {one.label: (one.verdict, one.why) for one in named}
    assert reasons["B cell"] == ("not judged", "fewer than 5 cells")
    assert reasons["lymphocyte"] == ("not judged", "the model has no markers for this name")
    assert reasons["T cell"] == ("not judged", "only 2 of its 3 markers are measured here")


def test_a_sample_of_one_type_is_compared_with_the_reference(cells, expected):
    pure = cells[cells.obs["cell_type"] == "T cell"].copy()
    named, _ = judged(pure, expected)
    assert [(one.label, one.verdict) for one in named] == [("T cell", "supported")]
    wrong, _ = judged(pure, expected, np.full(pure.n_obs, "B cell"))
    assert wrong[0].verdict == "contradicted"


def test_markers_are_found_by_id_first_and_by_symbol_where_there_is_no_id(cells):
    wanted = {
        "x": [
            markers.Marker(cells.var["gene_ids"].iloc[3], "another symbol", 0.5, 0.0),
            markers.Marker("", cells.var_names[7], 0.5, 0.0),
            markers.Marker("ENSG_NONE", "NONE", 0.5, 0.0),
        ]
    }
    found = markers.locate_markers(wanted, cells.var)
    assert [column for _, column in found["x"]] == [3, 7]
    # Genes that another organism names so come last.
    others = cells.var.assign(gene_ids=["ENSG_NONE", *cells.var["gene_ids"][:-1]], gene_symbols="").set_axis(
        [""] * cells.n_vars
    )
    located = markers.locate_markers(wanted, cells.var, "gene_ids", others)
    assert [column for _, column in located["x"]] == [3, 7, 0]
    no_ids = cells.var.assign(gene_ids="")
    assert [column for _, column in markers.locate_markers(wanted, no_ids)["x"]] == [7]


def test_the_sample_is_stratified_seeded_and_small():
    groups = np.repeat([0, 1, 2], [30_000, 9_000, 50])
    rows = markers.stratified_sample(groups, 10_000)
    assert np.array_equal(rows, markers.stratified_sample(groups, 10_000))
    assert len(np.unique(rows)) == len(rows) <= 10_100
    counts = np.bincount(groups[rows])
    assert counts[2] == 50
    assert counts[0] / counts[1] == pytest.approx(30 / 9, rel=0.02)
    assert np.array_equal(markers.stratified_sample(groups, len(groups)), np.arange(len(groups)))


def test_ranked_markers_are_each_types_own_genes_and_say_which_were_expected(cells):
    labels = cells.obs["cell_type"].to_numpy(dtype=object)
    tested = differential.each_against_rest(markers.log_normalise(cells.X), labels, cells.var)
    table = markers.rank_markers(tested, cells.var, {"B cell": {0, 1}})
    for label in TYPES:
        first = table[(table["label"] == label) & (table["rank"] <= MARKERS_EACH)]
        assert {gene[0] for gene in first["gene"]} == {label[0]}
        assert (first["adjusted_p"] < 1e-3).all()
        assert (first["share_in"] > first["share_out"]).all()
    assert set(table.loc[table["expected_marker"] == "yes", "gene"]) == {"B0", "B1"}
    assert (table["score"] > 0).all()


def test_nothing_is_tested_against_fewer_than_ten_cells(cells):
    labels = cells.obs["cell_type"].to_numpy(dtype=object).copy()
    labels[:] = "T cell"
    labels[:9] = UNASSIGNED
    tested = differential.each_against_rest(markers.log_normalise(cells.X), labels, cells.var)
    table = markers.rank_markers(tested, cells.var, {})
    assert len(table) == 0
    assert list(table.columns)[:4] == ["label", "gene", "gene_id", "rank"]
