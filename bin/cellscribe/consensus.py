"""What several models say of the same cells, as one answer over the Cell Ontology.

The rule, in plain words, stands in docs/models.md. Averaging probabilities is the linear opinion pool (Stone 1961,
Annals of Mathematical Statistics 32:1339); sharing out a coarse answer by those who know finer ones is the chain rule.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from cellscribe.answer import Answer, Decision, Strictness, stepped_up
from cellscribe.contract import UNASSIGNED
from cellscribe.foreign import KIND
from cellscribe.model.ontology import (
    LINEAGE,
    Ontology,
    Term,
    descendants,
    lineage_level,
)
from cellscribe.words import plural, some

NOT_VOTING = ("novel", "low_information")
# Of models that tell no thresholds; of several, the strictest counts.
REJECTION = {"least_probability": 0.5, "ancestor_probability": 0.8}
MAJORITY = 0.5
ASKED_FOR = tuple(field.name for field in fields(Strictness))


@dataclass(frozen=True)
class Union:
    """The labels of several models, each meaning once.

    keys: (n_labels,) ids in `ontology`, which has terms of our own for labels that no Cell Ontology id tells apart.
    below: bool (n_labels, n_labels), whether the column's label lies below the row's. columns: for each model, int (its
    n_labels,), where its labels stand. scopes: for each model, bool (n_labels, n_labels), which labels one of its own
    speaks for: itself and all below it but those under a nearer label of the model. ("T cell" of a model that has "CD8"
    too means the others.)
    """

    labels: list[str]
    keys: list[str]
    cl_ids: list[str]
    ontology: Ontology
    below: np.ndarray
    columns: list[np.ndarray]
    scopes: list[np.ndarray]

    @property
    def meaning(self) -> np.ndarray:
        """bool (n_labels, n_labels): which labels a label speaks for in any of the models."""
        return np.any(self.scopes, axis=0)


def unite(answers: Sequence[Answer]) -> Union:
    """Find which labels of several models mean the same, and which lie below which.

    Labels are the same where their Cell Ontology id is; a label without one is that of the label or term of exactly its
    name. Where one model has several labels of one id, these are told apart by name, below the id.
    """
    terms: dict[str, Term] = {}
    for answer in answers:
        terms = {**answer.ontology.terms, **terms}
    by_name = {term.name: cl_id for cl_id, term in reversed(terms.items())}
    for answer in reversed(answers):
        by_name |= {label: cl_id for label, cl_id in zip(answer.labels, answer.cl_ids, strict=True) if cl_id}
    named = [
        [
            (label, cl_id or by_name.get(label, ""))
            for label, cl_id in zip(one.labels, one.cl_ids, strict=True)
        ]
        for one in answers
    ]
    shared_ids = {
        (label, cl_id)
        for own in named
        for label, cl_id in own
        if cl_id and len({other for other, other_id in own if other_id == cl_id}) > 1
    }
    keys: dict[str, tuple[str, str]] = {}
    places = []
    for own in named:
        place = []
        for label, cl_id in own:
            if cl_id:
                terms.setdefault(cl_id, Term(cl_id, label, ()))
            if (label, cl_id) in shared_ids:
                key = f"{cl_id} {label}"
                terms[key] = Term(key, label, (cl_id, *terms[cl_id].ancestors))
            elif not cl_id:
                key = label
                terms[key] = Term(key, label, ())
            else:
                key = cl_id
            keys.setdefault(key, (_unused(label, cl_id, keys, terms), cl_id))
            place.append(list(keys).index(key))
        places.append(np.array(place, dtype=int))
    curated = frozenset[str]().union(*(answer.ontology.curated for answer in answers))
    ontology = Ontology(terms, curated)
    order = list(keys)
    below = np.array([[upper in terms[key].ancestors for key in order] for upper in order], dtype=bool)
    return Union(
        labels=[label for label, _ in keys.values()],
        keys=order,
        cl_ids=[cl_id for _, cl_id in keys.values()],
        ontology=ontology,
        below=below,
        columns=places,
        scopes=[scope(np.unique(place), below) for place in places],
    )


def _unused(label: str, cl_id: str, keys: dict[str, tuple[str, str]], terms: dict[str, Term]) -> str:
    """The label, or where another meaning has that name already, the term's name, or both."""
    taken = {name for name, _ in keys.values()}
    choices = [label, *([terms[cl_id].name, f"{label} ({cl_id})"] if cl_id else [])]
    return next((name for name in choices if name not in taken), label)


def scope(own: np.ndarray, below: np.ndarray) -> np.ndarray:
    """Which labels each of a model's own speaks for, bool (n_labels, n_labels); empty rows for others'."""
    reach = below | np.eye(len(below), dtype=bool)
    result = np.zeros_like(reach)
    for label in own.tolist():
        nearer = [other for other in own.tolist() if below[label, other]]
        result[label] = reach[label] & ~reach[nearer].any(axis=0)
    return result


def placed(answer: Answer, columns: np.ndarray, n_labels: int) -> np.ndarray:
    """A model's probabilities on the united labels, (n_cells, n_labels); rows sum to one, or to less where the model
    says nothing of the rest.
    """
    n_cells = len(answer.predicted)
    if answer.probabilities is None:
        result = np.zeros((n_cells, n_labels))
        result[np.arange(n_cells), columns[answer.predicted]] = 1 - answer.uncertainty
        return result
    onto = np.zeros((len(columns), n_labels))
    onto[np.arange(len(columns)), columns] = 1
    result = np.asarray(answer.probabilities, dtype=np.float64) @ onto
    # A one-against-rest classifier's do not sum to one.
    return result / np.maximum(result.sum(axis=1, keepdims=True), 1)


def refined(probabilities: Sequence[np.ndarray], votes: np.ndarray, union: Union) -> list[np.ndarray]:
    """Share out each model's coarse answers among finer labels that it does not know, as those who know them do.

    votes: bool (n_cells, n_models). A model counts that gives at least half of its own probability to what the coarse
    label speaks for; where none does, the coarse answer stays what it is.
    """
    results = [array.copy() for array in probabilities]
    for model, (array, scopes) in enumerate(zip(probabilities, union.scopes, strict=True)):
        for label in np.unique(union.columns[model]).tolist():
            inside = np.flatnonzero(scopes[label])
            split = np.zeros((len(array), len(inside)))
            for other, columns in enumerate(union.columns):
                if other == model or not (set(columns.tolist()) & set(inside.tolist()) - {label}):
                    continue
                given = probabilities[other][:, inside]
                counts = votes[:, other] & (given.sum(axis=1) >= MAJORITY)
                split += given * counts[:, None]
            total = split.sum(axis=1)
            rows = np.flatnonzero(total > 0)
            # Taken off and added, as a finer label may lie below two of this model's own.
            results[model][rows, label] -= array[rows, label]
            results[model][np.ix_(rows, inside)] += (
                array[rows, label][:, None] * split[rows] / total[rows][:, None]
            )
    return results


def pooled(probabilities: Sequence[np.ndarray], votes: np.ndarray) -> np.ndarray:
    """The mean of the voting models' probabilities: (n_cells, n_labels); rows sum to one, or to less where models said
    nothing of the rest. votes: bool (n_cells, n_models), at least one a cell.
    """
    given = sum(votes[:, [i]] * array for i, array in enumerate(probabilities))
    return np.asarray(given / votes.sum(axis=1, keepdims=True))


def chosen_labels(probabilities: np.ndarray, meaning: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Each label's support, the probability of all that it speaks for, and the support of labels to choose from.

    probabilities: (n_cells, n_labels). A label can be chosen where no finer one that it speaks for has more support
    than what is given to it alone; elsewhere the second array has -1.
    """
    support = probabilities @ meaning.T.astype(np.float64)
    choice = support.copy()
    finer = meaning & ~np.eye(len(meaning), dtype=bool)
    for label in np.flatnonzero(finer.any(axis=1)).tolist():
        choice[probabilities[:, label] < support[:, finer[label]].max(axis=1), label] = -1
    return support, choice


def agrees(answer: Answer, model: int, union: Union, chosen: np.ndarray) -> np.ndarray:
    """Whether a model's own final label is the chosen one, or a broader or finer name for it: bool (n_cells,)."""
    own = union.columns[model][answer.predicted]
    result = union.scopes[model][own, chosen] | union.meaning[chosen, own]
    decision = answer.decision
    stepped = (decision.final != UNASSIGNED) & (decision.reason != "")
    for cl_id in np.unique(decision.final_cl_id[stepped].astype(str)).tolist():
        lineage = union.ontology.lineage(cl_id)
        fits = np.array([key in lineage or cl_id in union.ontology.lineage(key) for key in union.keys])
        rows = stepped & (decision.final_cl_id == cl_id)
        result[rows] = fits[chosen[rows]]
    return np.asarray(result & (decision.final != UNASSIGNED))


def consensus(answers: Sequence[Answer]) -> Answer:
    """One answer of several models' to the same cells, in the same order.

    Its embedding and place on a reference are those of the first model, so that several samples stay comparable.
    """
    union = unite(answers)
    n_models = len(answers)
    votes = np.stack([~np.isin(answer.decision.reason, NOT_VOTING) for answer in answers], axis=1)
    # A model made by others may have a label of that name.
    votes &= np.stack(
        [np.array(answer.labels, dtype=object)[answer.predicted] != UNASSIGNED for answer in answers], axis=1
    )
    nobody = ~votes.any(axis=1)
    # Labelled all the same, by all of them, but not finally.
    votes[nobody] = True
    given = [
        placed(answer, columns, len(union.keys))
        for answer, columns in zip(answers, union.columns, strict=True)
    ]
    probabilities = pooled(refined(given, votes, union), votes)
    support, choice = chosen_labels(probabilities, union.meaning)
    chosen = choice.argmax(axis=1)
    rows = np.arange(len(chosen))
    related = union.below | union.below.T | np.eye(len(union.keys), dtype=bool)
    others = np.where(related[chosen], -1, choice)
    second = others.argmax(axis=1)
    second = np.where(others[rows, second] < 0, chosen, second)

    speak = np.stack([answer.decision.final != UNASSIGNED for answer in answers], axis=1)
    agree = np.stack([agrees(answer, i, union, chosen) for i, answer in enumerate(answers)], axis=1)
    # What the user asks for holds for broader names too, of which a model made by others has none by itself.
    asked = max(answer.parameters.get("min_probability", 0.0) for answer in answers)
    rejection = {
        name: max(asked, *(_limit(answer, name, least) for answer in answers))
        for name, least in REJECTION.items()
    }
    decision = decide(union, probabilities, support, chosen, agree.sum(axis=1), speak.sum(axis=1), rejection)
    rejected = np.stack([answer.decision.reason for answer in answers], axis=1)[nobody]
    decision.final[nobody], decision.final_cl_id[nobody] = UNASSIGNED, ""
    decision.reason[nobody] = np.select(
        [(rejected == reason).any(axis=1) for reason in NOT_VOTING], NOT_VOTING, "ambiguous"
    )

    first = answers[0]
    # Which genes a model made by others looks at, nobody knows.
    least = min(
        answers,
        key=lambda answer: 2.0 if answer.mapping["gene_overlap"] is None else answer.mapping["gene_overlap"],
    )
    return Answer(
        labels=union.labels,
        cl_ids=union.cl_ids,
        ontology=union.ontology,
        predicted=chosen,
        uncertainty=np.clip(1 - support[rows, chosen], 0, 1),
        decision=decision,
        embedding=first.embedding,
        model=joint_model(answers),
        parameters={
            "classifier": ", ".join(
                dict.fromkeys(str(answer.parameters.get("classifier", "")) for answer in answers)
            ),
            "consensus": {"models": n_models, **rejection},
            **{name: first.parameters[name] for name in ASKED_FOR if name in first.parameters},
        },
        mapping={
            **least.mapping,
            "orthologs": next(
                (used for answer in answers if (used := answer.mapping.get("orthologs"))), None
            ),
            "warnings": [
                f"{model_title(answer)}: {warning}"
                for answer in answers
                for warning in answer.mapping["warnings"]
            ],
        },
        levels=lineages(union, probabilities, support, chosen)
        if any(LINEAGE in answer.levels for answer in answers)
        else {},
        probabilities=probabilities,
        second=(second, support[rows, second]),
        umap=first.umap,
        reference_umap=first.reference_umap,
        distance_quantile=_least([answer.distance_quantile for answer in answers]),
        unexpected=_least([answer.unexpected for answer in answers]),
        novelty=_least([answer.novelty for answer in answers]),
        near=first.near,
        agreeing=agree.sum(axis=1),
        calibrated=all(answer.calibrated for answer in answers),
        warnings=[
            *labels_without_ids(answers, union),
            *(f"{model_title(answer)}: {warning}" for answer in answers for warning in answer.warnings),
        ],
    )


def labels_without_ids(answers: Sequence[Answer], union: Union) -> list[str]:
    """A sentence for each model that names cells by labels of which nobody can tell how they stand to the others'."""
    told = []
    for model, (answer, columns) in enumerate(zip(answers, union.columns, strict=True)):
        shared = {
            place for other, places in enumerate(union.columns) if other != model for place in places.tolist()
        }
        labels = np.array(answer.labels, dtype=object)
        alone = np.array([not union.cl_ids[place] and place not in shared for place in columns], dtype=bool)
        alone &= labels != UNASSIGNED
        named = alone[answer.predicted] & (answer.decision.final == labels[answer.predicted])
        if not named.any():
            continue
        n = int(alone.sum())
        have, them, contradict = ("has", "it", "contradicts") if n == 1 else ("have", "them", "contradict")
        # Its ids are found by the words alone.
        advice = (
            "" if answer.model.get("kind") == KIND else " Train or import it with --cl_map, which gives ids."
        )
        told.append(
            f"{n:,} of {plural(len(labels), 'label')} of {model_title(answer)} {have} no Cell Ontology id "
            f"({some(labels[alone].tolist())}), and no other model has {them} by name, so that "
            f"{'it' if n == 1 else 'they'} {contradict} all labels of the others: {named.mean():.0%} of the cells have "
            f"{'it' if n == 1 else 'one of them'} by that model.{advice}"
        )
    return told


def _limit(answer: Answer, name: str, least: float) -> float:
    """A model's threshold of that name; `least` where it tells none."""
    limits = answer.parameters.get("rejection", {})
    if name == "least_probability" and "most_uncertainty" in limits:
        return round(1 - limits["most_uncertainty"], 9)
    return float(limits.get(name, least))


def decide(
    union: Union,
    probabilities: np.ndarray,
    support: np.ndarray,
    chosen: np.ndarray,
    n_agree: np.ndarray,
    n_speak: np.ndarray,
    rejection: dict[str, float],
) -> Decision:
    """Accept the chosen label, step up to an ancestor that the models share, or leave the cell unassigned.

    n_agree, n_speak: (n_cells,), how many models' own final labels agree with the chosen one, and how many have a final
    label at all. Accepted is a label that is probable enough and that more than half of these agree with.
    """
    rows = np.arange(len(chosen))
    labels, cl_ids = np.array(union.labels, dtype=object), np.array(union.cl_ids, dtype=object)
    final, final_cl_id = labels[chosen], cl_ids[chosen]
    reason = np.full(len(chosen), "", dtype=object)
    contested = n_agree <= (n_speak - n_agree)
    contested &= n_speak > n_agree
    doubtful = contested | (support[rows, chosen] < rejection["least_probability"])
    final[doubtful], final_cl_id[doubtful] = stepped_up(
        union.ontology,
        union.labels,
        union.keys,
        chosen[doubtful],
        probabilities[doubtful],
        rejection["ancestor_probability"],
    )
    other = doubtful & (final != labels[chosen])
    reason[other] = "ambiguous"
    reason[other & (n_speak > n_agree)] = "disagreement"
    return Decision(final, final_cl_id, reason)


def lineages(
    union: Union, probabilities: np.ndarray, support: np.ndarray, chosen: np.ndarray
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """The coarser level that the Cell Ontology gives the united labels, and its uncertainty."""
    coarse = lineage_level(union.ontology, union.labels, union.keys)
    covers = descendants(union.ontology, union.keys)
    by_name = {union.ontology.name(term): term for term in sorted(union.ontology.curated)}
    classes = np.array([coarse[label] for label in union.labels], dtype=object)

    def is_joined(i: int, name: str) -> bool:
        """Whether a label stands for a class: for one of another name, or for its namesake with other labels."""
        shared = (classes == name).sum() > 1 and name in by_name
        return bool(name != union.labels[i] or (shared and covers[by_name[name]][i]))

    sums = np.stack(
        [
            probabilities[:, covers[by_name[name]]].sum(axis=1) if is_joined(i, name) else support[:, i]
            for i, name in enumerate(classes)
        ],
        axis=1,
    )
    return {LINEAGE: (classes[chosen], np.clip(1 - sums[np.arange(len(chosen)), chosen], 0, 1))}


def model_title(answer: Answer) -> str:
    """A model's name and version."""
    return f"{answer.model['name']} {answer.model['version']}".strip()


def joint_model(answers: Sequence[Answer]) -> dict[str, Any]:
    """What is said of several models as if they were one."""
    return {
        "name": " + ".join(model_title(answer) for answer in answers),
        "version": "",
        "kind": "consensus of models",
        **{
            key: ", ".join(dict.fromkeys(str(answer.model[key]) for answer in answers))
            for key in ("sha256", "url", "organism")
        },
    }


def agreement(answers: Sequence[Answer], union: Union) -> list[dict[str, Any]]:
    """How often each two models' predicted labels fit: `same`, or one `broader` than the other; the rest contradict."""
    own = [columns[answer.predicted] for answer, columns in zip(answers, union.columns, strict=True)]
    pairs = []
    for a in range(len(answers)):
        for b in range(a + 1, len(answers)):
            same = own[a] == own[b]
            fits = union.scopes[a][own[a], own[b]] | union.scopes[b][own[b], own[a]]
            pairs.append(
                {
                    "models": [a, b],
                    "same": float(same.mean()),
                    "broader": float((fits & ~same).mean()),
                    "contradict": float((~fits & ~same).mean()),
                }
            )
    return pairs


def agreement_by_label(answers: Sequence[Answer], union: Union, chosen: np.ndarray) -> list[dict[str, Any]]:
    """For each label that was chosen, the largest first: how many cells, and for each model the share of them whose own
    final label agrees, is missing (`unassigned`), and the most frequent one that does not agree.
    """
    agree = [agrees(answer, i, union, chosen) for i, answer in enumerate(answers)]
    rows = []
    for label in np.argsort(-np.bincount(chosen, minlength=len(union.labels)), kind="stable").tolist():
        cells = chosen == label
        if not cells.any():
            break
        models = []
        for answer, own in zip(answers, agree, strict=True):
            final = answer.decision.final[cells]
            names, counts = np.unique(
                final[~own[cells] & (final != UNASSIGNED)].astype(str), return_counts=True
            )
            models.append(
                {
                    "agree": float(own[cells].mean()),
                    "unassigned": float((final == UNASSIGNED).mean()),
                    "other": str(names[counts.argmax()]) if len(names) else "",
                }
            )
        rows.append({"label": union.labels[label], "n_cells": int(cells.sum()), "models": models})
    return rows


def _least(arrays: Sequence[np.ndarray | None]) -> np.ndarray | None:
    known = [array for array in arrays if array is not None]
    return np.min(np.stack(known), axis=0) if known else None
