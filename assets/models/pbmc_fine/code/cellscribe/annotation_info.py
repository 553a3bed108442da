"""What annotation.json and the annotated file say of a sample, its model and how it was used."""

from __future__ import annotations

import datetime
import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from cellscribe.answer import Answer, Decision
from cellscribe.contract import UNASSIGNED, OutputNames

if TYPE_CHECKING:
    from cellscribe.annotation import Layout, Votes

# Of the reference's own cells so many lie nearer.
FAR_QUANTILE = 0.99


def information(
    answer: Answer,
    table: pd.DataFrame,
    names: OutputNames,
    layout: Layout,
    votes: Votes,
) -> dict[str, Any]:
    """What annotation.json says of the sample, but for how the step was run."""
    decision, quantile, clusters = answer.decision, answer.distance_quantile, layout.clusters
    labels, sizes = np.array(answer.labels, dtype=object), clusters.sizes
    return {
        "model": answer.model,
        "names": {
            key: getattr(names, key)
            for key in (
                "predicted",
                "uncertainty",
                "embedding",
                "umap",
                "umap_explorer",
                "reference_umap",
                "predictions",
                "final",
                "reason",
                "cl_id",
                "final_cl_id",
                "cluster",
                "cluster_label",
                "cluster_final",
                "cluster_vote",
                "reference_distance",
                "unexpected",
                "novelty",
                "set_size",
                *(() if answer.agreeing is None else ("agreeing",)),
            )
        },
        "n_cells": len(table),
        "labels": [str(label) for label in answer.labels],
        "composition": _counts(decision.final),
        "predicted_composition": _counts(labels[answer.predicted]),
        "unassigned": int((decision.final == UNASSIGNED).sum()),
        "reasons": {key: number for key, number in _counts(decision.reason).items() if key},
        "unassigned_by": _counts(decision.reason[decision.final == UNASSIGNED]),
        # Several models differ in what makes a cell novel, and one made by others gives no reasons.
        **({} if decision.novel_by is None else {"novel_by": decision.novel_by}),
        "median_uncertainty": float(np.median(table[names.uncertainty])),
        **{
            key: answer.mapping[key]
            for key in ("gene_overlap", "n_model_genes", "n_genes_found", "genes_matched_by", "missing_genes")
        },
        "orthologs": answer.mapping.get("orthologs"),
        "set_sizes": None
        if answer.set_sizes is None
        else {
            str(size): int(n)
            for size, n in zip(*np.unique(answer.set_sizes, return_counts=True), strict=True)
        },
        "n_genes_respelled": answer.mapping.get("n_genes_respelled", 0),
        "n_refit_genes": answer.mapping.get("n_refit_genes", 0),
        "reference_distance": None
        if quantile is None
        else {
            "median": float(np.median(quantile)),
            "share_beyond_99": float((quantile >= FAR_QUANTILE).mean()),
        },
        "clusters": [
            {
                "cluster": str(clusters.names[cluster]),
                "n_cells": int(sizes[cluster]),
                "label": str(labels[votes.winners[cluster]]),
                "final": str(votes.finals[cluster]),
                "vote": float(votes.shares[cluster]),
            }
            for cluster in np.argsort(-sizes, kind="stable").tolist()
        ],
        "in_no_cluster": {"n_cells": int((~clusters.inside).sum()), "name": clusters.none},
        "levels": list(answer.levels),
        "calibrated": answer.calibrated,
        "warnings": [
            *annotation_warnings(decision, quantile),
            *answer.mapping["warnings"],
            *layout.warnings,
            *answer.warnings,
        ],
    }


def provenance(answer: Answer, info: dict[str, Any]) -> dict[str, Any]:
    """What the file itself says of the model and of how it was used."""
    orthologs = info["orthologs"]
    return {
        "model_url": answer.model["url"],
        "model_name": answer.model["name"],
        "model_version": answer.model["version"],
        "model_sha256": answer.model["sha256"],
        "pipeline_version": info["pipeline_version"],
        "parameters": json.dumps(info["parameters"], sort_keys=True),
        # Which genes a model made by others looks at, only its code knows; older readers know no null.
        **{
            key: answer.mapping[key]
            for key in ("gene_overlap", "genes_matched_by")
            if answer.mapping[key] is not None
        },
        **({"orthologs": "{from} to {to}".format(**orthologs)} if orthologs else {}),
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "labels": info["labels"],
    }


# What may stand behind each reason; "" for a model that gives none.
WHY_UNASSIGNED = {
    "low_information": "they have too few counts on the model's genes: the sample is shallow, or these are no cells.",
    "novel": "they are unlike all that the model was trained on: other cell types or states, or a strong technical "
    "difference.",
    "ambiguous": "no label is probable enough: types between those of the model, doublets, or lower quality than its "
    "reference.",
    "disagreement": "the models contradict each other.",
    "": "the sample holds cells that the model was not trained on, or is of lower quality than its reference.",
}


def annotation_warnings(decision: Decision, quantile: np.ndarray | None) -> list[str]:
    """What a reader must know before trusting the labels."""
    warnings = []
    left = decision.final == UNASSIGNED
    if left.mean() > 0.2:
        numbers = _counts(decision.reason[left])
        reason = next(iter(numbers))
        most = f" ({reason}: {numbers[reason]:,} of {left.sum():,})" if reason else ""
        warnings.append(f"{left.mean():.0%} of the cells are unassigned{most}: {WHY_UNASSIGNED[reason]}")
    if quantile is not None and (far := float(np.mean(quantile >= FAR_QUANTILE))) > 0.1:
        warnings.append(
            f"{far:.0%} of the cells lie farther from the reference than 99 % of its own cells: cell types or states "
            "that the model does not know, or a strong technical difference."
        )
    return warnings


def _counts(values: np.ndarray) -> dict[str, int]:
    numbers = pd.Series(values, dtype=object).value_counts()
    return {str(name): int(n) for name, n in sorted(numbers.items(), key=lambda one: (-one[1], str(one[0])))}


def named_words(info: dict[str, Any]) -> str:
    """How many of the cells got a name, and why the others got none. info: of `Annotation`."""
    reasons = ", ".join(f"{n:,} {reason}" for reason, n in info["unassigned_by"].items() if reason)
    left = f", {info['unassigned']:,} left unassigned{f' ({reasons})' if reasons else ''}"
    named = f"{info['n_cells'] - info['unassigned']:,} of {info['n_cells']:,} cells named"
    return named + (left if info["unassigned"] else "")
