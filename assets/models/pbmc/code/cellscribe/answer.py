"""What a model says of each cell: label, uncertainty, what it will not say, and the cells' place in its reference."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from cellscribe.clusters import Graph, sample_graph
from cellscribe.contract import FAR, STRANGE, UNASSIGNED, UNEXPECTED_GENES
from cellscribe.mapping import Mapping
from cellscribe.model.calibration import softmax
from cellscribe.model.label_sets import label_sets, named
from cellscribe.model.model import Model
from cellscribe.model.neighbours import place_on, row_blocks
from cellscribe.model.novelty import (
    FEWEST_CELLS,
    LEAST_OVERLAP,
    Signs,
    entropy_of,
    in_common,
    novelty,
    of_each_label,
    strangeness,
)
from cellscribe.model.ontology import Ontology, descendants, nearest_safe_ancestor, plain_name
from cellscribe.parallel import in_order
from cellscribe.words import plural

# So few cells that their probabilities by every member fit into memory, for each core.
BLOCK = 4_096
NOT_CALIBRATED = (
    "The uncertainty is {}'s own and was not calibrated: read it as an order of the cells, not as the chance of being "
    "wrong."
)


@dataclass(frozen=True)
class Strictness:
    """How strict the user asks a model to be: the parameters of these names. None is as the model's manifest says.

    min_probability: the least that a label needs, 0 to 1; a broader name needs as much, or the model's own least for
    such names where that is more. reject_novel: whether a `novel` cell is left unassigned. novelty_limit: from which
    novelty on a cell is `novel`, 0 to 1; 1 - novelty_limit is the share of known held-out cells that are.
    """

    min_probability: float | None = None
    reject_novel: bool = True
    novelty_limit: float | None = None

    @property
    def given(self) -> dict[str, Any]:
        """What the user asked for, by the parameters' names; empty where all is as the model says."""
        return {
            **({} if self.min_probability is None else {"min_probability": self.min_probability}),
            **({} if self.reject_novel else {"reject_novel": False}),
            **({} if self.novelty_limit is None else {"novelty_limit": self.novelty_limit}),
        }

    def limits(self, manifest: dict[str, Any], *, with_novelty: bool) -> dict[str, float]:
        """The thresholds that are used: `rejection` of a model's manifest, changed as asked for.

        with_novelty: whether the cells' novelty is known; its limit is then among them, as `novelty`.
        """
        limits = dict(manifest["rejection"])
        if self.min_probability is not None:
            limits["least_probability"] = self.min_probability
            limits["ancestor_probability"] = max(limits["ancestor_probability"], self.min_probability)
        if with_novelty and self.novelty_limit is not None:
            limits["novelty"] = self.novelty_limit
        elif with_novelty:
            limits["novelty"] = 1 - manifest["novelty"]["false_alarms"]
        return limits


AS_THE_MODEL = Strictness()


@dataclass(frozen=True)
class Decision:
    """The label after rejection; arrays of text (n_cells,).

    novel_by: by cause, how many of the `novel` cells it made so, where that is known; one cell may have several.
    spared: how many cells were called by their label all the same, as novel ones were not to be rejected; `novel_by`
    is of these then.
    """

    final: np.ndarray
    final_cl_id: np.ndarray
    reason: np.ndarray
    novel_by: dict[str, int] | None = None
    spared: int = 0


@dataclass(frozen=True)
class Answer:
    """What a model says of a sample's cells; arrays have one row a cell, in the order of the mapping.

    labels, cl_ids: what the model can say, and the Cell Ontology id of each ("" where unknown). predicted: int
    (n_cells,), the most probable label's position in `labels`; uncertainty: (n_cells,), 0 to 1. embedding: (n_cells,
    n_dimensions). model: name, version, sha256, kind, url, organism. mapping: what is said of the genes
    (`mapping_info`). levels: by name, coarser labels and their uncertainty.
    What a kind of model cannot give is None. probabilities: (n_cells, n_labels). second: position and probability of
    the next label. umap: (n_cells, 2), a layout that the model gave itself; reference_umap: the cells on the
    reference's own UMAP. distance_quantile, unexpected, novelty: (n_cells,), 0 to 1. label_sets: text (n_cells,), the
    labels of each cell's set; set_sizes: int (n_cells,). near: the embedding's `sample_graph`, where novelty
    took one. agreeing: int (n_cells,), how many of several models agree. calibrated: whether
    1 - uncertainty was held against the truth.
    """

    labels: Sequence[str]
    cl_ids: Sequence[str]
    ontology: Ontology
    predicted: np.ndarray
    uncertainty: np.ndarray
    decision: Decision
    embedding: np.ndarray
    model: dict[str, Any]
    parameters: dict[str, Any]
    mapping: dict[str, Any]
    levels: dict[str, tuple[np.ndarray, np.ndarray]] = field(default_factory=dict)
    probabilities: np.ndarray | None = None
    second: tuple[np.ndarray, np.ndarray] | None = None
    umap: np.ndarray | None = None
    reference_umap: np.ndarray | None = None
    distance_quantile: np.ndarray | None = None
    unexpected: np.ndarray | None = None
    novelty: np.ndarray | None = None
    label_sets: np.ndarray | None = None
    set_sizes: np.ndarray | None = None
    near: Graph | None = None
    agreeing: np.ndarray | None = None
    calibrated: bool = True
    warnings: Sequence[str] = ()


def unexpected_share(mapping: Mapping) -> np.ndarray:
    """Share of each cell's counts on genes that no reference type expresses: float (n_cells,), 0 to 1."""
    return mapping.n_silent_counts / np.maximum(mapping.n_counts, 1)


def unexpected_in_common(model: Model, shares: np.ndarray, best: np.ndarray) -> float:
    """What all of a sample's labels have of `unexpected_share`, 0 to 1, where the model's limit says nothing of it.

    shares: (n_cells,); best: int (n_cells,), labels. A limit that was fitted on cells of several batches allows for
    what differs from one to the next; one that was fitted within a batch is held against what differs within a sample.
    """
    if model.manifest["training"]["n_batches"] != 1:
        return 0.0
    medians = list(of_each_label(best, shares[:, None]).values())
    return float(in_common(np.array(medians).reshape(-1, 1))[0])


def decide(
    model: Model,
    probabilities: np.ndarray,
    distance_quantile: np.ndarray | None,
    mapping: Mapping,
    strange: np.ndarray | None = None,
    strictness: Strictness = AS_THE_MODEL,
) -> Decision:
    """Accept the most probable label, step up to an ancestor, or leave the cell unassigned.

    probabilities: (n_cells, n_labels), calibrated. distance_quantile: (n_cells,) or None; strange: (n_cells,), the
    novelty, or None. In this order: too few counts on the model's genes (`low_information`); farther than nearly all
    reference cells, stranger than nearly all held-out cells, or more counts on genes that no reference type expresses
    than nearly all of them have, `unexpected_in_common` added (`novel`); a label that is probable enough; the nearest
    ancestor whose labels together are (reason `ambiguous`); else unassigned (`ambiguous`). Thresholds stand in the
    model's manifest, where `strictness` gives none.
    """
    limits = strictness.limits(model.manifest, with_novelty=strange is not None)
    labels, cl_ids = np.array(model.labels, dtype=object), np.array(model.cl_ids, dtype=object)
    best = probabilities.argmax(axis=1)
    final, final_cl_id = labels[best], cl_ids[best]
    reason = np.full(len(best), "", dtype=object)

    doubtful = probabilities.max(axis=1) < limits["least_probability"]
    final[doubtful], final_cl_id[doubtful] = stepped_up(
        model.ontology,
        model.labels,
        model.cl_ids,
        best[doubtful],
        probabilities[doubtful],
        limits["ancestor_probability"],
    )
    reason[final != labels[best]] = "ambiguous"
    unexpected = unexpected_share(mapping)
    limit = limits["unexpected_share"] + unexpected_in_common(model, unexpected, best)
    causes = {
        UNEXPECTED_GENES: (mapping.n_silent_counts >= limits["least_unexpected_counts"])
        & (unexpected > limit)
    }
    if distance_quantile is not None:
        causes[FAR] = distance_quantile >= limits["distance_quantile"]
    if strange is not None:
        causes[STRANGE] = strange >= limits["novelty"]
    novel = np.any(list(causes.values()), axis=0)
    if strictness.reject_novel:
        final[novel], final_cl_id[novel], reason[novel] = UNASSIGNED, "", "novel"
    shallow = mapping.n_model_counts < limits["least_counts"]
    final[shallow], final_cl_id[shallow], reason[shallow] = UNASSIGNED, "", "low_information"
    # As many cells as the reason has: one with too few counts is none of them.
    novel_by = {cause: int((cells & ~shallow).sum()) for cause, cells in causes.items()}
    spared = 0 if strictness.reject_novel else int((novel & ~shallow).sum())
    return Decision(final, final_cl_id, reason, novel_by, spared)


def stepped_up(
    ontology: Ontology,
    labels: Sequence[str],
    cl_ids: Sequence[str],
    best: np.ndarray,
    probabilities: np.ndarray,
    least: float,
) -> tuple[np.ndarray, np.ndarray]:
    """Names and Cell Ontology ids of the nearest terms at or above labels that are probable enough: object (n_cells,).

    labels, cl_ids: one a label. best: int (n_cells,), labels; probabilities: (n_cells, n_labels). `unassigned` and ""
    where no term's labels together reach `least`. A term has the name of the label that has its id and no words beyond
    its own, so that `CD4 T cell` and `CD4-positive, alpha-beta T cell` are not two names of one type.
    """
    covers = descendants(ontology, cl_ids)
    terms = [
        nearest_safe_ancestor(ontology, covers, cl_ids[label], row, least)
        for label, row in zip(best, probabilities, strict=True)
    ]
    spelled: dict[str, str] = {}
    for label, cl_id in zip(labels, cl_ids, strict=True):
        words, of_term = (
            {word.rstrip("+") for word in plain_name(name).split()} for name in (label, ontology.name(cl_id))
        )
        if cl_id and words and words <= of_term:
            spelled.setdefault(cl_id, label)
    names = [spelled.get(term) or ontology.name(term) if term else UNASSIGNED for term in terms]
    return np.array(names, dtype=object), np.array(terms, dtype=object)


def coarser(model: Model, probabilities: np.ndarray) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """For each coarser level, labels and uncertainty by summed probabilities, so that levels never contradict.

    A coarse label is that of the most probable leaf's own branch: its probability is the sum over the branch.
    """
    best = probabilities.argmax(axis=1)
    result = {}
    for level in model.manifest["levels"]:
        parents = np.array([level["labels"][label] for label in model.labels], dtype=object)
        names, branch = np.unique(parents.astype(str), return_inverse=True)
        sums = np.stack([probabilities[:, branch == b].sum(axis=1) for b in range(len(names))], axis=1)
        own = branch[best]
        result[level["name"]] = (
            names[own].astype(object),
            np.clip(1 - sums[np.arange(len(best)), own], 0, 1),
        )
    return result


def classify(mapping: Mapping, model: Model, classifier: str, cpus: int = 1) -> np.ndarray:
    """The probabilities of a classifier: float32 (n_cells, n_labels), found for some cells at a time."""
    overlap = float(mapping.info["expression_overlap"])
    members = model.asked(classifier, overlap)
    model.read(members)
    probabilities = np.empty((mapping.n_obs, len(model.labels)), dtype=np.float32)

    def fill(rows: slice) -> None:
        found = model.member_probabilities(
            **{key: None if array is None else array[rows] for key, array in mapping.arrays().items()},
            members=members,
        )
        probabilities[rows] = model.pooled(found, classifier, overlap)

    for _ in in_order(fill, row_blocks(mapping.n_obs, BLOCK), cpus):
        pass
    return probabilities


def best_two(probabilities: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The positions of each cell's most probable label and of the next: int (n_cells,); of equal ones the first.

    With one label only it is its own next.
    """
    best = probabilities.argmax(axis=1)
    if probabilities.shape[1] == 1:
        return best, best
    second = np.empty_like(best)
    for rows in row_blocks(len(best), BLOCK):
        others = probabilities[rows].copy()
        others[np.arange(len(others)), best[rows]] = -1
        second[rows] = others.argmax(axis=1)
    return best, second


def signs_of(
    sketches: np.ndarray,
    label_sketches: np.ndarray,
    scores: np.ndarray | None,
    probabilities: np.ndarray,
    near: np.ndarray,
) -> Signs:
    """The signs of novelty of a sample's cells: `strangeness`, the doubt being that of the regression's scores."""
    entropy = None
    if scores is not None:
        entropy = np.concatenate(
            [entropy_of(softmax(scores[rows])) for rows in row_blocks(len(scores), BLOCK)]
        )
    return strangeness(sketches, label_sketches, probabilities, entropy, near)


def answer_cells(
    mapping: Mapping,
    model: Model,
    *,
    classifier: str = "default",
    strictness: Strictness = AS_THE_MODEL,
    model_url: str = "",
    seed: int = 0,
    cpus: int = 1,
) -> Answer:
    """What a model of ours says of mapped cells. Raises InputError where it has no such classifier.

    seed: of the sketch of a large sample.
    """
    chosen, overlap = model.classifier(classifier), float(mapping.info["expression_overlap"])
    probabilities = classify(mapping, model, chosen, cpus)
    best, second = best_two(probabilities)
    rows = np.arange(len(best))

    quantile = on_reference = mean_distances = None
    if mapping.distances is not None:
        mean_distances = mapping.distances.mean(axis=1)
        quantile = model.reference.quantile(mean_distances)
        if mapping.indices is not None and len(model.reference.umap):
            on_reference = place_on(mapping.distances, mapping.indices, model.reference.umap)
    embedding = mapping.latent
    if embedding is None:
        assert mapping.logistic_scores is not None
        embedding = mapping.logistic_scores - mapping.logistic_scores.mean(axis=1, keepdims=True)
    near = strange = None
    too_few = False
    null = model.novelty_null if overlap >= LEAST_OVERLAP else None
    sketches, of_labels = mapping.sketches, mapping.label_sketches
    if null and mapping.latent is not None and sketches is not None and of_labels is not None:
        too_few = len(best) < FEWEST_CELLS
        if not too_few:
            near = sample_graph(mapping.latent, best, seed=seed, cpus=cpus)
            signs = signs_of(sketches, of_labels, mapping.logistic_scores, probabilities, near.near)
            strange = novelty(signs, null, model.labels)
    unexpected = unexpected_share(mapping)
    limits = model.set_limits(chosen, overlap)
    inside = None if limits is None else label_sets(probabilities, limits)
    decision = decide(model, probabilities, quantile, mapping, strange, strictness)
    return Answer(
        labels=model.labels,
        cl_ids=model.cl_ids,
        ontology=model.ontology,
        predicted=best,
        uncertainty=1 - probabilities[rows, best].astype(np.float64),
        decision=decision,
        embedding=embedding,
        model={
            "name": model.manifest["name"],
            "version": model.manifest["version"],
            "sha256": model.sha256,
            "kind": model.manifest["kind"],
            "url": model_url,
            "organism": model.manifest["organism"],
        },
        parameters={
            "classifier": chosen,
            "rejection": strictness.limits(model.manifest, with_novelty=strange is not None),
            **strictness.given,
            **({"novelty_from_cells": FEWEST_CELLS} if too_few else {}),
            **({"surgery_epochs": epochs} if (epochs := mapping.info.get("surgery_epochs")) else {}),
        },
        mapping=mapping.info,
        levels=coarser(model, probabilities),
        probabilities=probabilities,
        second=(second, probabilities[rows, second]),
        reference_umap=on_reference,
        distance_quantile=quantile,
        unexpected=unexpected,
        novelty=strange,
        label_sets=None if inside is None else named(inside, probabilities, model.labels),
        set_sizes=None if inside is None else inside.sum(axis=1),
        near=near,
        calibrated=model.is_calibrated(chosen),
        warnings=[
            *calibration_warnings(model, chosen),
            *older_warnings(model),
            *unexpected_warnings(model, unexpected, best),
            *taught_warnings(mapping.distances, mean_distances),
            *([TOO_FEW.format(plural(len(best), "cell"))] if too_few and strictness.reject_novel else []),
            *strictness_warnings(strictness, decision, novelty_known=strange is not None),
        ],
    )


# A cell that is the reference's own lies on it, but for rounding; others are as far from the nearest as from the rest.
SAME_PLACE = 0.02
FEWEST_TAUGHT = 5


def taught_warnings(distances: np.ndarray | None, means: np.ndarray | None) -> list[str]:
    """What to say of a sample that holds cells of the reference itself.

    distances: (n_cells, k), nearest first; means: (n_cells,), their means.
    """
    if distances is None or means is None:
        return []
    n_taught = int((distances[:, 0] < SAME_PLACE * means).sum())
    if n_taught < FEWEST_TAUGHT:
        return []
    return [
        f"{n_taught:,} of the {len(distances):,} cells are among those that the model learned from, of which it keeps "
        "a part: how sure it is of such cells, and how far it agrees with labels that are known, flatters."
    ]


TOO_FEW = (
    f"With {{}} novelty is not judged (from {FEWEST_CELLS} cells on): more cells of types that the model does not know "
    "keep a name. Do not compare the share of unassigned cells with that of larger samples."
)
NO_NOVELTY = (
    "--novelty_limit changed nothing: novelty needs a model trained by cellscribe (kind consensus or scvi), "
    f"{FEWEST_CELLS} cells, and genes that carry half of the reference's expression."
)
SPARED = (
    "{:,} of {:,} cells are novel by the limits, and were called by their label all the same, as --reject_novel false "
    "says. They may be of types that the model does not know: look at them by their novelty, distance and unexpected "
    "genes."
)


def strictness_warnings(strictness: Strictness, decision: Decision, *, novelty_known: bool) -> list[str]:
    """What a reader must know of what was asked for: cells that were not rejected for it, and what had no effect."""
    return [
        *([SPARED.format(decision.spared, len(decision.final))] if decision.spared else []),
        *([NO_NOVELTY] if strictness.novelty_limit is not None and not novelty_known else []),
    ]


SEEN_BY_ENCODER = (
    "The uncertainty was calibrated on reference cells that the model's encoder may have been trained on: cells of new "
    "donors are less certain than it says."
)


OLDER = (
    "The model was trained by an older cellscribe, whose measure of novelty is used no more: train it again to have "
    "cells recognised that are of types that it does not know."
)


UNLIKE = (
    "All types of this sample have counts on genes that no type of the reference expresses ({:.1%} of the counts): it "
    "was made by other means, or is of another tissue, than the one batch that the model was trained on. Only cells "
    "with clearly more are called novel for it."
)


def older_warnings(model: Model) -> list[str]:
    """What a reader must know of a model that an older state of this program made."""
    return [OLDER] if "novelty" in model.manifest and model.novelty_null is None else []


def unexpected_warnings(model: Model, shares: np.ndarray, best: np.ndarray) -> list[str]:
    """What a reader must know of a sample whose labels all express what the model's one batch does not."""
    common = unexpected_in_common(model, shares, best)
    return [UNLIKE.format(common)] if common > model.manifest["rejection"]["unexpected_share"] else []


def calibration_warnings(model: Model, classifier: str) -> list[str]:
    """What a reader must know of probabilities that were never held against the truth."""
    if model.is_calibrated(classifier):
        seen = model.manifest["calibration"][classifier].get("seen_by") == "encoder"
        return [SEEN_BY_ENCODER] if seen else []
    program = model.manifest.get("source", {}).get("program", "another program")
    return [NOT_CALIBRATED.format(program)]
