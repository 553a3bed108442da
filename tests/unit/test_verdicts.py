import re
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from report_factory import TYPES, expected_markers, simulated

from cellscribe import markers, verdicts
from cellscribe.contract import UNASSIGNED
from cellscribe.model.logistic import log_normalise
from cellscribe.verdicts import CONTRADICTED, NOT_JUDGED, SUPPORTED, WEAK


@pytest.fixture(scope="module")
def cells():
    return simulated()


@pytest.fixture(scope="module")
def expected(cells):
    return markers.read_markers(expected_markers(cells))


def labels_of(cells):
    return cells.obs["cell_type"].to_numpy(dtype=object)


def judge_of(cells, expected, predicted, other, kin=None):
    """A judge over groups of cells of one predicted label and one other value, and that value of each group."""
    pairs = sorted(set(zip(predicted, other, strict=True)))
    groups = np.array([pairs.index(pair) for pair in zip(predicted, other, strict=True)])
    statistics = markers.group_statistics([(groups, log_normalise(cells.X))], len(pairs), cells.n_vars)
    first, second = (np.array(part, dtype=object) for part in zip(*pairs, strict=True))
    located = markers.locate_markers(expected, cells.var)
    return verdicts.Judge(statistics, first, second, located, expected, kin or {}), second


def judged(cells, expected, predicted=None, final=None, kin=None):
    predicted = labels_of(cells) if predicted is None else np.asarray(predicted, dtype=object)
    judge, groups = judge_of(cells, expected, predicted, predicted if final is None else final, kin)
    return verdicts.judge_labels(judge, groups)


def by_cluster(cells, expected, cluster, predicted=None, final=None, kin=None):
    cluster = np.asarray(cluster, dtype=object)
    predicted = labels_of(cells) if predicted is None else np.asarray(predicted, dtype=object)
    judge, _ = judge_of(cells, expected, predicted, cluster, kin)
    return verdicts.judge_clusters(judge, cluster, predicted, predicted if final is None else final)


def silence(cells, genes):
    """The same cells, in which some genes are not expressed."""
    keep = np.ones(cells.n_vars, dtype=np.float32)
    keep[[cells.var_names.get_loc(gene) for gene in genes]] = 0
    changed = cells.copy()
    changed.X = (cells.X @ sp.diags(keep)).tocsr().astype(np.float32)
    return changed


def thin(cells, share, seed=0):
    """The same cells with a share of their counts."""
    changed = cells.copy()
    changed.X = cells.X.copy()
    changed.X.data = np.random.default_rng(seed).binomial(cells.X.data.astype(int), share).astype(np.float32)
    changed.X.eliminate_zeros()
    return changed


# One name -----------------------------------------------------------------------------------------


def test_right_names_are_supported_by_their_genes_and_by_what_is_absent(cells, expected):
    named, left = judged(cells, expected)
    assert {one.label: one.verdict for one in named} == dict.fromkeys(TYPES, SUPPORTED)
    assert left == []
    assert all(one.n_up == 10 and one.rise > 0.9 and one.compared_with == "other cells" for one in named)
    why = {one.label: one.why for one in named}["B cell"]
    assert "up (10 of 10 markers go up)" in why and why.startswith("B")


def test_genes_that_a_cell_does_not_express_are_named_with_the_type_that_they_mark():
    cells = simulated()
    expected = markers.read_markers(expected_markers(cells))
    monocytes = np.flatnonzero(labels_of(cells) == "Monocyte")
    counts = cells.X.tolil()
    columns = [i for i, name in enumerate(cells.var_names) if name[0] in "BT"]
    counts[np.ix_(monocytes, columns)] = 0
    cells.X = counts.tocsr()
    why = {one.label: one.why for one in judged(cells, expected)[0]}["Monocyte"]
    assert "; no B" in why and " (B cell), no T" in why and why.endswith("(T cell)")


def test_a_wrong_name_is_contradicted_and_the_right_one_is_pointed_to(cells, expected):
    labels = labels_of(cells)
    swapped = np.where(labels == "B cell", "Monocyte", np.where(labels == "Monocyte", "B cell", labels))
    named = {one.label: one for one in judged(cells, expected, swapped)[0]}
    assert named["Monocyte"].verdict == named["B cell"].verdict == CONTRADICTED
    assert (named["Monocyte"].rival, named["B cell"].rival) == ("B cell", "Monocyte")
    assert named["T cell"].verdict == SUPPORTED and named["T cell"].rival == ""
    assert {call.symbol: call.higher_in for call in named["B cell"].calls}["B0"] == "Monocyte"
    assert set(named["Monocyte"].rival_genes) <= {f"B{i}" for i in range(10)}
    assert "up, which mark B cell" in named["Monocyte"].why and "not up (0 of 10" in named["Monocyte"].why


def test_a_name_given_to_cells_of_a_type_that_the_model_does_not_know_points_nowhere(cells, expected):
    labels = np.where(labels_of(cells) == "B cell", "T cell", labels_of(cells))
    known = {label: genes for label, genes in expected.items() if label != "B cell"}
    final = np.where(labels_of(cells) == "B cell", "T cell", UNASSIGNED)
    named = judged(cells, known, np.where(final == "T cell", labels, "Monocyte"), final)[0]
    assert [(one.label, one.verdict, one.rival) for one in named] == [("T cell", CONTRADICTED, "")]
    assert "no other type's markers clearly go up" in named[0].why


def test_a_name_whose_markers_go_up_by_half_is_weak(expected, cells):
    half = silence(cells, [gene.symbol for gene in expected["B cell"][:5]])
    (one,) = (one for one in judged(half, expected)[0] if one.label == "B cell")
    assert (one.verdict, one.n_up, one.n_not_up) == (WEAK, 5, 5)
    assert one.why.startswith("only 5 of 10 markers go up: B")


def test_a_name_whose_defining_gene_goes_up_is_not_contradicted_for_want_of_the_others(cells, expected):
    lacking = silence(cells, [gene.symbol for gene in expected["B cell"][2:10]])
    (one,) = (one for one in judged(lacking, expected)[0] if one.label == "B cell")
    assert (one.verdict, one.n_not_up) == (CONTRADICTED, 8)
    first, *others = expected["B cell"]
    known = {**expected, "B cell": [replace(first, symbol="CD8B"), *others]}
    (one,) = (one for one in judged(lacking, known)[0] if one.label == "B cell")
    assert one.verdict == WEAK and one.why.endswith("; but CD8B, by which the type is defined, goes up")
    without = silence(lacking, [first.symbol])
    assert {one.label: one.verdict for one in judged(without, known)[0]}["B cell"] == CONTRADICTED


def test_few_counts_make_a_right_name_weak_and_not_contradicted(cells, expected):
    named = judged(thin(cells, 0.05), expected)[0]
    assert {one.verdict for one in named} == {WEAK}
    assert named[0].why.startswith("9 of 10 markers go up, by 31 % of what the reference has: B")
    # Two counts a cell: the few that there are stay far below what the reference expects.
    named = judged(thin(cells, 0.02), expected)[0]
    assert {one.verdict for one in named} == {WEAK} and min(one.n_up for one in named) == 1


def test_few_cells_leave_it_open_which_markers_go_up(cells, expected):
    few = thin(cells[np.r_[0:6, 40:60, 80:100]].copy(), 0.1)
    (one,) = (one for one in judged(few, expected)[0] if one.label == "B cell")
    assert (one.n_cells, one.verdict) == (6, WEAK)
    assert "too few cells or counts to tell of B" in one.why


def test_markers_that_two_types_share_speak_against_neither(cells, expected):
    both = {**expected, "T cell": expected["B cell"][:8] + expected["T cell"][:2]}
    named = {one.label: one for one in judged(cells, both)[0]}
    assert named["B cell"].verdict == SUPPORTED


def test_a_broader_or_finer_type_never_speaks_against_a_name(cells, expected):
    labels = labels_of(cells)
    fine = {**expected, "fine B": expected["B cell"], "B cell": expected["T cell"]}
    against = {one.label: one for one in judged(cells, fine, labels)[0]}["B cell"]
    assert (against.verdict, against.rival) == (CONTRADICTED, "fine B")
    kin = {"B cell": frozenset({"B cell", "fine B"}), "fine B": frozenset({"B cell", "fine B"})}
    named = {one.label: one for one in judged(cells, fine, labels, kin=kin)[0]}
    assert named["B cell"].rival != "fine B"


def test_cells_of_a_relative_are_not_what_a_name_is_compared_with(cells, expected):
    labels = labels_of(cells)
    half = labels.copy()
    half[:20] = "fine B"
    kin = {"B cell": frozenset({"B cell", "fine B"}), "fine B": frozenset({"B cell", "fine B"})}
    own = {**expected, "fine B": expected["B cell"]}
    alone = {one.label: one for one in judged(cells, own, half)[0]}["B cell"]
    related = {one.label: one for one in judged(cells, own, half, kin=kin)[0]}["B cell"]
    assert related.rise > alone.rise and related.verdict == SUPPORTED


def test_unassigned_cells_are_judged_by_the_type_they_came_closest_to(cells, expected):
    final = labels_of(cells).copy()
    final[:20] = UNASSIGNED
    named, left = judged(cells, expected, final=final)
    assert UNASSIGNED not in {one.label for one in named}
    assert [(one.label, one.n_cells, one.verdict) for one in left] == [("B cell", 20, SUPPORTED)]


def test_too_few_cells_or_markers_are_weak_and_a_name_without_markers_is_not_judged(cells, expected):
    labels = labels_of(cells)
    final = labels.copy()
    final[labels == "B cell"] = "lymphocyte"
    final[:4] = "B cell"
    absent = markers.Marker("ENSG9", "ABSENT", 0.5, 1.0, 0.1)
    few = {**expected, "T cell": [*expected["T cell"][:2], absent]}
    named, _ = judged(cells, few, labels, final)
    reasons = {one.label: (one.verdict, one.why) for one in named}
    assert reasons["B cell"] == (WEAK, "fewer than 5 cells")
    assert reasons["lymphocyte"] == (NOT_JUDGED, "the model has no markers for this name")
    assert reasons["T cell"] == (WEAK, "only 2 of its 3 markers are measured here")


def test_a_sample_of_one_type_is_compared_with_the_reference(cells, expected):
    pure = cells[cells.obs["cell_type"] == "T cell"].copy()
    (one,) = judged(pure, expected)[0]
    assert (one.label, one.verdict, one.compared_with) == ("T cell", SUPPORTED, "reference")
    assert one.why.endswith("compared with the reference")
    (wrong,) = judged(pure, expected, np.full(pure.n_obs, "B cell"))[0]
    assert (wrong.verdict, wrong.rival) == (CONTRADICTED, "T cell")


def test_a_sample_of_one_type_is_not_contradicted_by_its_own_genes_alone(cells, expected):
    # All of its markers may be low for how it was measured, while nothing speaks for another type.
    pure = silence(cells[cells.obs["cell_type"] == "T cell"].copy(), [f"T{i}" for i in range(10)])
    (one,) = judged(pure, expected)[0]
    assert one.n_not_up == 10 and one.verdict == WEAK


# Clusters -----------------------------------------------------------------------------------------


def test_each_cluster_is_judged_by_the_name_that_most_of_its_cells_got(cells, expected):
    labels = labels_of(cells)
    cluster = np.where(labels == "T cell", "0", np.where(labels == "B cell", "1", "2"))
    cluster[np.flatnonzero(labels == "T cell")[:5]] = "1"
    final = labels.copy()
    final[np.flatnonzero(cluster == "1")[:3]] = UNASSIGNED
    found = by_cluster(cells, expected, cluster, final=final)
    assert [(one.cluster, one.n_cells, one.label) for one in found] == [
        ("1", 45, "B cell"),
        ("2", 40, "Monocyte"),
        ("0", 35, "T cell"),
    ]
    assert found[0].share == pytest.approx(37 / 45) and found[1].share == 1
    assert {one.support.verdict for one in found} == {SUPPORTED}


def test_one_wrongly_named_cluster_among_right_ones_is_found_and_the_others_stay_supported(cells, expected):
    labels = labels_of(cells)
    cluster = labels.copy()
    cluster[:20] = "half of B"
    wrong = labels.copy()
    wrong[:20] = "Monocyte"
    found = {one.cluster: one for one in by_cluster(cells, expected, cluster, wrong)}
    assert (found["half of B"].label, found["half of B"].support.verdict) == ("Monocyte", CONTRADICTED)
    assert found["half of B"].support.rival == "B cell"
    assert {found[name].support.verdict for name in TYPES} == {SUPPORTED}


def test_a_broad_name_without_markers_is_judged_by_the_finer_type_that_its_cells_resemble(cells, expected):
    final = np.where(labels_of(cells) == "B cell", "lymphocyte", labels_of(cells))
    kin = {"lymphocyte": frozenset({"lymphocyte", "B cell", "T cell"})}
    found = {one.label: one for one in by_cluster(cells, expected, labels_of(cells), final=final, kin=kin)}
    support = found["lymphocyte"].support
    assert (support.verdict, support.judged_as) == (SUPPORTED, "B cell")
    assert support.why.endswith("by the markers of B cell")


def test_a_broad_name_of_few_cells_is_judged_by_what_the_cluster_is_and_not_by_what_these_few_resemble(
    cells, expected
):
    of_t = np.flatnonzero(labels_of(cells) == "T cell")
    predicted, final = labels_of(cells).copy(), labels_of(cells).copy()
    final[of_t[:14]], predicted[of_t[:8]] = "lymphocyte", "B cell"
    final[of_t[14:24]] = UNASSIGNED
    kin = {"lymphocyte": frozenset({"lymphocyte", "B cell", "T cell"})}
    final[of_t[24:32]] = "helper"
    (one,) = (
        one
        for one in by_cluster(cells, expected, labels_of(cells), predicted, final, kin)
        if one.cluster == "T cell"
    )
    assert (one.label, one.predicted, one.mixed) == ("lymphocyte", "T cell", True)
    assert (one.support.judged_as, one.support.verdict) == ("T cell", WEAK)


def test_a_cluster_without_a_name_is_judged_by_its_closest_type_and_counts_for_no_verdict(cells, expected):
    labels = labels_of(cells)
    final = np.where(labels == "B cell", UNASSIGNED, labels)
    wrong = np.where(labels == "B cell", "T cell", np.where(labels == "T cell", "B cell", labels))
    found = by_cluster(cells, expected, labels, wrong, np.where(final == UNASSIGNED, final, wrong))
    held_back = next(one for one in found if not one.named)
    assert (held_back.label, held_back.predicted, held_back.support.judged_as) == (
        UNASSIGNED,
        "T cell",
        "T cell",
    )
    assert held_back.support.verdict == CONTRADICTED
    counts = verdicts.count_verdicts(found)
    assert (counts["n_clusters"], counts["n_clusters_named"], counts["n_clusters_contradicted"]) == (3, 2, 1)
    assert len(verdicts.verdict_warnings(found)) == 1


def test_a_model_without_markers_judges_no_cluster_and_says_so(cells):
    found = by_cluster(cells, {}, labels_of(cells))
    assert {one.support.verdict for one in found} == {NOT_JUDGED}
    assert {one.support.why for one in found} == {"the model has no markers for this name"}
    assert verdicts.count_verdicts(found)["n_clusters_not_judged"] == 3


def test_the_table_has_its_columns_and_says_which_genes(cells, expected):
    labels = labels_of(cells)
    swapped = np.where(labels == "B cell", "T cell", np.where(labels == "T cell", "B cell", labels))
    table = verdicts.verdict_table(by_cluster(cells, expected, labels, swapped), {"0": ["LYZ", "CD14"]})
    assert list(table) == list(verdicts.VERDICT_COLUMNS)
    row = table.set_index("label").loc["T cell"]
    assert (row["verdict"], row["points_to"], row["n_markers"]) == (CONTRADICTED, "B cell", 10)
    assert set(row["genes_not_up"].split(",")) <= {f"T{i}" for i in range(10)}
    assert len(row["genes_not_up"].split(",")) == row["n_not_up"]
    assert float(row["points_to_rise"]) > float(row["rise"]) + verdicts.CLEARLY_MORE
    empty = verdicts.verdict_table([], {})
    assert list(empty) == list(verdicts.VERDICT_COLUMNS) and isinstance(empty, pd.DataFrame)


def test_each_contradicted_cluster_is_a_warning_and_many_are_summed_up(cells, expected):
    labels = labels_of(cells)
    names = list(TYPES)
    turned = np.array([names[(names.index(label) + 1) % 3] for label in labels], dtype=object)
    cluster = np.array([f"{label[0]}{i % 4}" for i, label in enumerate(labels)], dtype=object)
    found = by_cluster(cells, expected, cluster, turned)
    assert {one.support.verdict for one in found} == {CONTRADICTED}
    warnings = verdicts.verdict_warnings(found)
    assert len(warnings) == 7
    assert warnings[0].startswith(
        "The genes contradict the name of cluster B0 (10 cells, all of them called T cell) and point to B"
    )
    assert warnings[-1] == (
        "The genes contradict the commonest name of 6 more clusters: M2, M3, T0, T1, T2, T3."
    )


def test_a_cluster_whose_commonest_name_has_less_than_half_of_it_holds_several_types(cells, expected):
    cluster, final = labels_of(cells).copy(), labels_of(cells).copy()
    cluster[np.r_[0:10, 40:60]] = "7"
    final[47:54], final[54:60] = "helper", UNASSIGNED
    found = by_cluster(cells, expected, cluster, final=final)
    (one,) = (one for one in found if one.cluster == "7")
    assert (one.label, one.support.verdict, one.support.rival) == ("B cell", CONTRADICTED, "T cell")
    assert one.mixed and not any(other.mixed for other in found if other is not one)
    assert re.fullmatch(
        r"holds several types: the markers of T cell rise to 6\d % of what the reference has, those of B cell to "
        r"3\d %; T\d, .* up, which mark T cell; B\d, .* up, but less \(\d+ of 10 markers go up\)",
        one.why,
    )
    assert verdicts.verdict_warnings(found) == [
        f"Cluster 7 (30 cells, 33 % of them called B cell) {one.why}."
    ]
    assert verdicts.verdict_table(found, {}).set_index("cluster").loc["7", "reason"] == one.why
    assert not replace(one, share=0.5).mixed and not replace(one, label=UNASSIGNED).mixed
    assert replace(one, share=0.5).why == one.support.why


def test_a_cluster_of_several_types_is_weak_though_the_genes_of_its_commonest_name_go_up(cells, expected):
    cluster, final = labels_of(cells).copy(), labels_of(cells).copy()
    of_b = np.flatnonzero(final == "B cell")
    final[of_b[:16]], final[of_b[16:]] = "B cell", UNASSIGNED
    final[of_b[16:31]] = "helper"
    (one,) = (one for one in by_cluster(cells, expected, cluster, final=final) if one.cluster == "B cell")
    assert one.label == "B cell" and one.mixed and one.support.verdict == WEAK
    assert one.why.startswith("holds several types: ")
    assert verdicts.count_verdicts([one])["n_clusters_weak"] == 1
