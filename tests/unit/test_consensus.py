"""What several models say together, on small ontologies whose answers can be reckoned by hand."""

from __future__ import annotations

import numpy as np
import pytest

from cellscribe.answer import Answer, Decision
from cellscribe.consensus import agreement, consensus, unite
from cellscribe.contract import REASONS, UNASSIGNED
from cellscribe.foreign import KIND
from cellscribe.model.ontology import LINEAGE, Ontology, Term

# leukocyte > lymphocyte > T > (CD4 > naive CD4, CD8), B, NK; leukocyte > myeloid > monocyte, macrophage
PARENTS = {
    "leukocyte": "",
    "lymphocyte": "leukocyte",
    "T cell": "lymphocyte",
    "CD4": "T cell",
    "naive CD4": "CD4",
    "CD8": "T cell",
    "B cell": "lymphocyte",
    "NK": "lymphocyte",
    "myeloid": "leukocyte",
    "monocyte": "myeloid",
    "macrophage": "myeloid",
}
ID = {name: f"CL:{i:07d}" for i, name in enumerate(PARENTS, start=1)}


def lineage(name):
    return [] if not name else [ID[name], *lineage(PARENTS[name])]


ONTOLOGY = Ontology(
    {ID[name]: Term(ID[name], name, tuple(lineage(name)[1:])) for name in PARENTS},
    frozenset((ID["T cell"], ID["myeloid"])),
)


def answer(labels, rows, *, ids=None, reasons=None, finals=None, name="m", alone=False, **changes):
    """A model that gives these probabilities to a cell a row, and accepts what has at least half.

    finals: by row, the ancestor that a doubtful cell steps up to. alone: labels and uncertainty, no probabilities.
    """
    ids = [ID.get(label, "") for label in labels] if ids is None else ids
    rows = np.array(rows, dtype=float)
    best = rows.argmax(axis=1)
    final, final_id = np.array(labels, dtype=object)[best], np.array(ids, dtype=object)[best]
    reason = np.full(len(rows), "", dtype=object)
    for row in np.flatnonzero(rows.max(axis=1) < 0.5):
        step = (finals or {}).get(int(row), "")
        final[row], final_id[row], reason[row] = step or UNASSIGNED, ID.get(step, ""), "ambiguous"
    for row, why in (reasons or {}).items():
        final[row], final_id[row], reason[row] = UNASSIGNED, "", why
    return Answer(
        **{
            "labels": list(labels),
            "cl_ids": ids,
            "ontology": ONTOLOGY,
            "predicted": best,
            "uncertainty": 1 - rows.max(axis=1),
            "decision": Decision(final, final_id, reason),
            "embedding": np.zeros((len(rows), 2)),
            "model": {"name": name, "version": "1", "sha256": name, "url": name, "organism": "human"},
            "parameters": {},
            "mapping": {"gene_overlap": 1.0, "warnings": []},
            "probabilities": None if alone else rows,
            **changes,
        }
    )


def first(joint):
    """Label, its probability, final label and reason of the first cell."""
    decision = joint.decision
    label = joint.labels[joint.predicted[0]]
    return label, round(1 - float(joint.uncertainty[0]), 3), decision.final[0], decision.reason[0]


# which labels are the same -----------------------------------------------------------------------


def test_labels_of_one_id_are_one_whatever_their_names():
    joint = consensus(
        [
            answer(["B cell", "NK"], [[0.9, 0.1]]),
            answer(["B", "NK"], [[0.8, 0.2]], ids=[ID["B cell"], ID["NK"]]),
        ]
    )
    assert joint.labels == ["B cell", "NK"]
    assert first(joint) == ("B cell", 0.85, "B cell", "")
    assert joint.agreeing.tolist() == [2]


def test_a_label_without_an_id_is_the_label_or_term_of_exactly_its_name():
    known = answer(["B", "NK"], [[0.9, 0.1]], ids=[ID["B cell"], ID["NK"]])
    for name in ("B", "B cell"):
        joint = consensus([known, answer([name, "Odd"], [[0.7, 0.3]], ids=["", ""])])
        assert joint.labels == ["B", "NK", "Odd"]
        assert joint.cl_ids == [ID["B cell"], ID["NK"], ""]
    joint = consensus([known, answer(["b", "Odd"], [[0.7, 0.3]], ids=["", ""])])
    assert joint.labels == ["B", "NK", "b", "Odd"]


def test_several_labels_of_one_id_stay_apart_below_it():
    fine = answer(["young", "old", "NK"], [[0.3, 0.6, 0.1]], ids=[ID["B cell"], ID["B cell"], ID["NK"]])
    alone = consensus([fine, fine])
    assert first(alone) == ("old", 0.6, "old", "")
    joint = consensus([fine, answer(["B cell", "NK"], [[0.9, 0.1]])])
    assert first(joint) == ("old", 0.6, "old", "")
    assert joint.cl_ids[joint.labels.index("old")] == ID["B cell"]
    torn = answer(["young", "old", "NK"], [[0.48, 0.49, 0.03]], ids=[ID["B cell"], ID["B cell"], ID["NK"]])
    other = answer(["NK", "monocyte", "macrophage", "CD8"], [[0.03, 0.9, 0.03, 0.04]], reasons={0: "novel"})
    assert first(consensus([torn, other])) == ("old", 0.49, "B cell", "ambiguous")


def test_two_meanings_of_one_name_get_two_names():
    one = answer(["Mono", "NK"], [[0.9, 0.1]], ids=[ID["monocyte"], ID["NK"]])
    other = answer(["Mono", "NK"], [[0.9, 0.1]], ids=[ID["macrophage"], ID["NK"]])
    assert consensus([one, other]).labels == ["Mono", "NK", "macrophage"]


# depth -------------------------------------------------------------------------------------------


def test_a_coarse_answer_supports_the_finer_one_below_it():
    coarse = answer(["T cell", "B cell"], [[0.9, 0.1]])
    fine = answer(["CD4", "CD8", "B cell"], [[0.5, 0.4, 0.1]])
    for answers in ([coarse, fine], [fine, coarse]):
        joint = consensus(answers)
        assert first(joint) == ("CD4", 0.5, "CD4", "")
        assert joint.agreeing.tolist() == [2]


def test_two_coarse_answers_above_one_finer_label_are_added_up():
    """The Cell Ontology is no tree: a CD4 regulatory cell is a CD4 cell and a regulatory one."""
    terms = {
        "CL:1": Term("CL:1", "CD4", ()),
        "CL:2": Term("CL:2", "regulatory", ()),
        "CL:3": Term("CL:3", "CD4 regulatory", ("CL:1", "CL:2")),
    }
    ontology = Ontology(terms, frozenset())
    coarse = answer(
        ["CD4", "regulatory", "x"], [[0.5, 0.45, 0.05]], ids=["CL:1", "CL:2", ""], ontology=ontology
    )
    fine = answer(["CD4 regulatory", "x"], [[0.98, 0.02]], ids=["CL:3", ""], ontology=ontology)
    for order in ([coarse, fine], [fine, coarse]):
        assert first(consensus(order))[:2] == ("CD4 regulatory", 0.965)


def test_a_label_with_its_classs_own_name_has_the_lineage_of_all_of_the_class():
    labels = ["T cell", "CD4", "CD8", "B cell", "NK", "monocyte"]
    rows = [[0.52, 0.40, 0.03, 0.05, 0, 0], [0.40, 0.52, 0.03, 0.05, 0, 0]]
    one = answer(labels, rows, levels={LINEAGE: (np.array([]), np.array([]))})
    names, uncertainty = consensus([one, one]).levels[LINEAGE]
    assert list(names) == ["T cell", "T cell"]
    assert uncertainty == pytest.approx([0.05, 0.05])


def test_the_coarse_model_decides_the_coarse_question_with_the_fine_one():
    coarse = answer(["T cell", "B cell"], [[0.2, 0.8]])
    fine = answer(["CD4", "CD8", "B cell"], [[0.35, 0.25, 0.4]])
    label, probability, final, reason = first(consensus([coarse, fine]))
    assert (label, probability) == ("B cell", 0.6) and (final, reason) == ("B cell", "")


def test_a_model_that_finds_no_such_cell_does_not_say_of_which_kind_it_is():
    coarse = answer(["T cell", "B cell", "monocyte"], [[0.96, 0.02, 0.02]])
    fine = answer(["CD4", "CD8", "B cell", "monocyte"], [[0.02, 0.01, 0.5, 0.47]])
    joint = consensus([coarse, fine])
    assert first(joint)[0] == "T cell"
    assert 1 - joint.uncertainty[0] == pytest.approx((0.96 + 0.03) / 2)


def test_a_broad_label_beside_finer_ones_of_the_same_model_means_the_others():
    labels = ["T cell", "CD8", "B cell"]
    both = [answer(labels, [[0.8, 0.1, 0.1]]), answer(labels, [[0.1, 0.8, 0.1]])]
    joint = consensus(both)
    assert joint.agreeing.tolist() == [1]
    assert (joint.decision.final[0], joint.decision.reason[0]) != ("CD8", "")
    finer = answer(["CD4", "CD8", "B cell"], [[0.7, 0.2, 0.1]])
    joint = consensus([both[0], finer])
    assert first(joint)[0] == "CD4" and joint.agreeing.tolist() == [2]
    np.testing.assert_allclose(joint.probabilities[0, joint.labels.index("CD4")], (0.8 + 0.7) / 2)


# label sets --------------------------------------------------------------------------------------


def test_a_type_that_one_model_has_never_seen_steps_up_to_what_they_share():
    knows = answer(["macrophage", "monocyte", "B cell", "NK"], [[0.9, 0.05, 0.03, 0.02]])
    does_not = answer(["monocyte", "B cell", "NK"], [[0.95, 0.03, 0.02]])
    assert first(consensus([knows, does_not])) == ("monocyte", 0.5, "myeloid", "disagreement")


def test_a_type_that_one_model_alone_knows_is_named_where_the_other_does_not_vote():
    knows = answer(["macrophage", "monocyte", "B cell"], [[0.9, 0.05, 0.05]])
    does_not = answer(["monocyte", "B cell"], [[0.95, 0.05]], reasons={0: "novel"})
    assert first(consensus([knows, does_not])) == ("macrophage", 0.9, "macrophage", "")


def test_a_rare_guess_of_one_model_does_not_outweigh_the_other():
    guesses = answer(["macrophage", "monocyte", "B cell"], [[0.4, 0.3, 0.3]])
    sure = answer(["monocyte", "B cell"], [[0.97, 0.03]])
    assert first(consensus([guesses, sure]))[0] == "monocyte"


# disagreement ------------------------------------------------------------------------------------


def test_models_that_disagree_step_up_to_what_they_share():
    one = answer(["CD4", "CD8", "B cell", "monocyte"], [[0.98, 0.01, 0.005, 0.005]])
    other = answer(["CD4", "CD8", "B cell", "monocyte"], [[0.02, 0.96, 0.01, 0.01]])
    assert first(consensus([one, other])) == ("CD4", 0.5, "T cell", "disagreement")
    assert consensus([one, other]).decision.final_cl_id[0] == ID["T cell"]


def test_models_that_share_nothing_leave_the_cell_unassigned():
    labels = ["CD4", "CD8", "B cell", "monocyte"]
    one, other = answer(labels, [[0.01, 0.01, 0.97, 0.01]]), answer(labels, [[0.01, 0.01, 0.01, 0.97]])
    _, probability, final, reason = first(consensus([one, other]))
    assert (final, reason) == (UNASSIGNED, "disagreement") and probability == 0.49


def test_two_of_three_are_enough():
    labels = ["CD4", "CD8", "B cell", "monocyte"]
    two = [answer(labels, [[0.9, 0.05, 0.03, 0.02]]), answer(labels, [[0.8, 0.15, 0.03, 0.02]])]
    joint = consensus([*two, answer(labels, [[0.1, 0.85, 0.03, 0.02]])])
    assert first(joint) == ("CD4", 0.6, "CD4", "") and joint.agreeing.tolist() == [2]


def test_models_that_are_both_unsure_are_ambiguous_not_in_disagreement():
    labels = ["CD4", "CD8", "B cell", "monocyte"]
    one = answer(labels, [[0.45, 0.42, 0.08, 0.05]], finals={0: "T cell"})
    assert first(consensus([one, one])) == ("CD4", 0.45, "T cell", "ambiguous")
    assert consensus([one, one]).agreeing.tolist() == [2]


# rejection ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("why", ["novel", "low_information"])
def test_a_model_that_rejected_the_cell_does_not_vote(why):
    labels = ["CD4", "CD8", "B cell", "monocyte"]
    sure = answer(labels, [[0.9, 0.05, 0.03, 0.02]])
    joint = consensus([sure, answer(labels, [[0.01, 0.01, 0.97, 0.01]], reasons={0: why})])
    assert first(joint) == ("CD4", 0.9, "CD4", "") and joint.agreeing.tolist() == [1]


def test_where_all_rejected_the_cell_it_has_a_prediction_and_no_name():
    rows = [[0.9, 0.1]] * 3
    whys = (
        {0: "novel", 1: "low_information", 2: "low_information"},
        {0: "novel", 1: "low_information", 2: "novel"},
    )
    joint = consensus([answer(["B cell", "NK"], rows, reasons=why) for why in whys])
    assert joint.decision.final.tolist() == [UNASSIGNED] * 3
    assert joint.decision.reason.tolist() == ["novel", "low_information", "novel"]
    assert set(joint.decision.final_cl_id) == {""}
    assert [joint.labels[i] for i in joint.predicted] == ["B cell"] * 3
    np.testing.assert_allclose(joint.uncertainty, 0.1)
    assert joint.agreeing.tolist() == [0, 0, 0]


def test_a_label_called_unassigned_is_no_vote():
    labels = ["CD4", "CD8", "B cell", "monocyte"]
    whole = answer(labels, [[0.85, 0.05, 0.05, 0.05]])
    unsure = answer([UNASSIGNED, "B cell"], [[0.95, 0.0]], alone=True, reasons={0: "ambiguous"})
    joint = consensus([whole, unsure])
    assert first(joint) == ("CD4", 0.85, "CD4", "") and joint.agreeing.tolist() == [1]
    joint = consensus([unsure, unsure])
    assert (joint.decision.final.tolist(), joint.decision.reason.tolist()) == ([UNASSIGNED], ["ambiguous"])


def test_the_strictest_thresholds_of_the_models_count():
    strict = answer(
        ["B cell", "NK", "CD4", "CD8"],
        [[0.6, 0.2, 0.1, 0.1]],
        parameters={"rejection": {"least_probability": 0.7}},
    )
    lax = answer(["B cell", "NK", "CD4", "CD8"], [[0.6, 0.2, 0.1, 0.1]])
    assert first(consensus([lax, lax]))[3] == ""
    assert first(consensus([lax, strict]))[3] == "ambiguous"


def test_a_least_probability_that_the_user_asks_for_holds_for_models_of_uncertainties_too():
    """One that tells 0.3 and one that is no more uncertain than 0.7 ask for 0.3, and not for the usual half."""
    row = [[0.4, 0.35, 0.15, 0.1]]
    labels = ["B cell", "NK", "CD4", "CD8"]
    given = {"min_probability": 0.3}
    one = answer(labels, row, parameters={"rejection": {"least_probability": 0.3}, **given})
    other = answer(labels, row, parameters={"rejection": {"most_uncertainty": 0.7}, **given})
    joint = consensus([one, other])
    assert first(joint)[3] == "" and joint.parameters["min_probability"] == 0.3
    assert joint.parameters["consensus"]["least_probability"] == 0.3
    unasked = answer(labels, row, parameters={"rejection": {"most_uncertainty": 0.5}})
    assert first(consensus([one, unasked]))[3] == "ambiguous"


def test_a_broader_name_needs_what_the_user_asks_for_from_models_that_tell_no_limit_for_it():
    """All made by others: each of CD4 and CD8 T cells has half of what they have together."""
    given = {"rejection": {"most_uncertainty": 0.1}, "min_probability": 0.9}
    one = answer(["B cell", "NK", "CD4", "CD8"], [[0.1, 0.05, 0.43, 0.42]], parameters=given)
    joint = consensus([one, one])
    limits = joint.parameters["consensus"]
    assert (limits["least_probability"], limits["ancestor_probability"]) == (0.9, 0.9)
    assert first(joint)[3] == "ambiguous"


# models that give labels alone ---------------------------------------------------------------------


def test_a_model_of_labels_and_uncertainties_alone_takes_part():
    alone = answer(["CD4", "B cell"], [[0.6, 0.0]], alone=True, ontology=Ontology({}, frozenset()))
    whole = answer(["CD4", "CD8", "B cell"], [[0.9, 0.05, 0.05]])
    joint = consensus([alone, whole])
    label, probability, final, _ = first(joint)
    assert (label, probability, final) == ("CD4", 0.75, "CD4")
    assert joint.probabilities.sum() <= 1 + 1e-9


def test_what_such_a_model_is_unsure_of_stays_unsure_where_it_alone_votes():
    alone = answer(["CD4", "B cell"], [[0.6, 0.0]], alone=True)
    silent = answer(["CD4", "B cell"], [[0.1, 0.9]], reasons={0: "novel"})
    assert first(consensus([alone, silent])) == ("CD4", 0.6, "CD4", "")


def test_labels_without_any_ontology_are_matched_by_text():
    nothing = Ontology({}, frozenset())
    answers = [
        answer(["alpha", "beta"], [[0.9, 0.0]], ids=["", ""], alone=True, ontology=nothing),
        answer(["beta", "alpha"], [[0.0, 0.7]], ids=["", ""], alone=True, ontology=nothing),
    ]
    assert first(consensus(answers)) == ("alpha", 0.8, "alpha", "")


# properties --------------------------------------------------------------------------------------


def random_answers(seed, n_cells=200):
    rng = np.random.default_rng(seed)
    sets = (
        ["T cell", "B cell", "NK", "myeloid"],
        ["naive CD4", "CD8", "B cell", "monocyte"],
        ["CD4", "CD8", "T cell", "macrophage", "odd"],
    )
    return [
        answer(
            labels,
            rng.dirichlet(np.full(len(labels), 0.3), n_cells),
            reasons={int(row): "novel" for row in rng.choice(n_cells, 20, replace=False)},
            name=str(i),
            levels={LINEAGE: (np.array([]), np.array([]))},
        )
        for i, labels in enumerate(sets)
    ]


def test_probabilities_stay_probabilities_and_no_label_contradicts_a_level():
    joint = consensus(random_answers(0))
    np.testing.assert_allclose(joint.probabilities.sum(axis=1), 1)
    assert (joint.probabilities >= 0).all()
    assert ((joint.uncertainty >= 0) & (joint.uncertainty <= 1)).all()
    second, probability = joint.second
    assert (probability <= 1 - joint.uncertainty + 1e-9).all() and (second != joint.predicted).all()
    coarse, uncertainty = joint.levels[LINEAGE]
    assert (uncertainty <= joint.uncertainty + 1e-9).all()
    by_label = dict(zip(np.array(joint.labels)[joint.predicted], coarse, strict=True))
    assert by_label["naive CD4"] == by_label["CD8"] == "T cell"
    assert set(joint.decision.reason) <= set(REASONS)
    assert ((joint.decision.final == UNASSIGNED) <= (joint.decision.reason != "")).all()


@pytest.mark.parametrize("labels", [0, 1, 2])
def test_models_that_say_the_same_say_it_together(labels):
    one = random_answers(1)[labels]
    joint = consensus([one, one, one])
    np.testing.assert_allclose(joint.probabilities, one.probabilities)
    np.testing.assert_array_equal(joint.predicted, one.predicted)
    kept = one.decision.reason == ""
    np.testing.assert_array_equal(joint.decision.final[kept], one.decision.final[kept])
    assert set(joint.agreeing[kept]) == {3}


def test_the_order_of_the_models_changes_no_probability():
    answers = random_answers(2)
    one, other = consensus(answers), consensus(answers[::-1])
    order = [other.labels.index(label) for label in one.labels]
    np.testing.assert_allclose(one.probabilities, other.probabilities[:, order])
    np.testing.assert_array_equal(one.agreeing, other.agreeing)


def test_a_cell_is_judged_alone():
    answers = random_answers(3)
    joint = consensus(answers)
    one = consensus(
        [
            answer(own.labels, own.probabilities[:1], reasons={0: "novel"} if own.decision.reason[0] else {})
            for own in answers
        ]
    )
    np.testing.assert_allclose(one.probabilities[0], joint.probabilities[0])


def test_place_and_distance_are_the_first_models_and_the_nearest():
    near = answer(["B cell"], [[1.0]], embedding=np.ones((1, 3)), distance_quantile=np.array([0.2]))
    far = answer(["B cell"], [[1.0]], distance_quantile=np.array([0.9]), unexpected=np.array([0.1]))
    far.mapping["gene_overlap"] = 0.6
    joint = consensus([near, far])
    assert joint.embedding.shape == (1, 3) and joint.distance_quantile.tolist() == [0.2]
    assert joint.unexpected.tolist() == [0.1] and joint.mapping["gene_overlap"] == 0.6
    assert joint.model["name"] == "m 1 + m 1" and joint.model["organism"] == "human"


def test_the_genes_of_a_model_that_tells_none_are_passed_over():
    ours, others = answer(["B cell"], [[1.0]]), answer(["B cell"], [[1.0]])
    others.mapping["gene_overlap"] = None
    assert consensus([others, ours]).mapping["gene_overlap"] == 1.0
    assert consensus([others, others]).mapping["gene_overlap"] is None


def test_labels_without_an_id_that_one_model_alone_has_are_a_warning():
    ours = answer(["B cell", "NK", "odd"], [[0.9, 0.05, 0.05]] * 4, name="ours")
    rows = [[0.9, 0.1, 0, 0], [0.1, 0.9, 0, 0], [0.4, 0.3, 0.2, 0.1], [0, 0, 1, 0]]
    # The third cell has none of them finally.
    fine = answer(["B immature", "B mem", "NK", "odd"], rows, name="fine", warnings=["Told before."])
    (warning, other) = consensus([ours, fine]).warnings
    assert warning == (
        "2 of 4 labels of fine 1 have no Cell Ontology id (B immature, B mem), and no other model has them by name, so "
        "that they contradict all labels of the others: 50% of the cells have one of them by that model. Train or "
        "import it with --cl_map, which gives ids."
    )
    assert other == "fine 1: Told before."
    # With an id, or where no cell got them, they are nothing to warn of.
    assert consensus([ours, answer(["CD4", "mine"], [[0.9, 0.1]] * 4)]).warnings == []
    given = answer(["B immature", "B mem"], [[0.9, 0.1]] * 4, ids=[ID["B cell"], ID["B cell"]])
    assert consensus([ours, given]).warnings == []


def test_what_a_model_made_by_others_calls_its_cells_cannot_be_given_ids():
    theirs = answer(["blob", UNASSIGNED], [[1, 0], [0, 1]], alone=True)
    theirs.model["kind"] = KIND
    (warning,) = consensus([answer(["B cell"], [[1], [1]]), theirs]).warnings
    assert warning.startswith(
        "1 of 2 labels of m 1 has no Cell Ontology id (blob), and no other model has it by"
    )
    assert warning.endswith(
        "so that it contradicts all labels of the others: 50% of the cells have it by that model."
    )


def test_pairs_of_models_are_the_same_broader_or_in_contradiction():
    coarse = answer(["T cell", "B cell"], [[1, 0], [1, 0], [0, 1], [1, 0]])
    fine = answer(["CD4", "B cell", "NK"], [[1, 0, 0], [0, 1, 0], [0, 1, 0], [0, 0, 1]])
    (pair,) = agreement([coarse, fine], unite([coarse, fine]))
    assert pair == {"models": [0, 1], "same": 0.25, "broader": 0.25, "contradict": 0.5}
