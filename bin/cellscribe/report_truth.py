"""The part of a sample's page that compares its names with known labels, where the user gave some."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from cellscribe import figures, truth
from cellscribe.cli import warn
from cellscribe.drawing import data_uri
from cellscribe.io import write_json, write_table
from cellscribe.label_map import check_meanings, read_label_map
from cellscribe.model.manifest import MANIFEST
from cellscribe.report_inputs import Cells, ReportInputs
from cellscribe.report_models import own_labels, read_optional
from cellscribe.report_words import count, percent
from cellscribe.words import first_names, some

if TYPE_CHECKING:
    import pandas as pd

KNOWN_LABELS_SHOWN = 40
# What becomes of a cell with a known label: its share in truth.json, and how the page says it.
BECAME = {
    "same": "same",
    "compatible": "compatible",
    "unassigned": "unassigned",
    "different": "different",
    "not_understood": "label not understood",
}


def hold_against_truth(
    obs: pd.DataFrame, cells: Cells, manifest: dict[str, Any], inputs: ReportInputs
) -> tuple[truth.Agreement | None, list[str]]:
    """Compare with the labels that were asked for, if any, and write what came of it; None where there are none.

    manifest: `joint_manifest`. Known labels may be in the words of one of several models, even where the consensus has
    another word for that type. The second value says in sentences what a reader must know.
    """
    if not inputs.truth_key:
        return None, []
    meanings = read_label_map(inputs.truth_map, "meaning") if inputs.truth_map else {}
    labels, notes = truth.read_truth(obs, inputs.sample, inputs.truth_key, inputs.truth_csv, list(meanings))
    agreement = None
    if labels is not None:
        manifests = [read_optional(model / MANIFEST) for model in inputs.models]
        trained, own = own_labels([manifest]), own_labels(manifests)
        predicted = dict.fromkeys(cells.predicted.tolist(), "")
        known = list({**trained, **predicted})
        # Of a model that lists no labels those are known alone that this sample's cells got: another's may have more.
        if inputs.truth_map and all(one.get("labels") for one in manifests):
            check_meanings(meanings, list(dict.fromkeys([*known, *own])), inputs.truth_map, inputs.sample)
        agreement = truth.compare(
            labels,
            cells.predicted,
            cells.final,
            cells.uncertainty,
            {**dict.fromkeys(cells.final.tolist(), ""), **predicted, **own, **trained, **cells.cl_ids},
            known,
            key=inputs.truth_key,
            source=inputs.truth_csv.name if inputs.truth_csv else "obs",
            meanings=meanings,
        )
        if inputs.truth_map:
            agreement.headline["map"] = inputs.truth_map.name
            notes += unused_map(meanings, agreement.headline)
        notes += warnings_of(agreement.headline)
        write_table(agreement.table, inputs.truth)
    for note in notes:
        warn(f"sample '{inputs.sample}': {note}")
    headline = {} if agreement is None else agreement.headline
    write_json({"sample": inputs.sample, **headline, "warnings": notes}, inputs.truth_summary)
    return agreement, notes


def unused_map(meanings: Mapping[str, str], headline: dict[str, Any]) -> list[str]:
    """What to say of a map that names none of the sample's labels."""
    if headline["mapped"]:
        return []
    if not meanings:
        return [f"{headline['map']} gives no label a meaning."]
    return [
        f"None of the labels that {headline['map']} names is in column '{headline['column']}': it names "
        f"{some(list(meanings), quoted=True)}."
    ]


def warnings_of(headline: dict[str, Any]) -> list[str]:
    """What to say where scores are of few of the cells: of those that the model is good at, as like as not."""
    n_cells, n_known = headline["n_cells"], headline["n_known"]
    if n_known >= n_cells / 2:
        return []
    cannot, unclear = (sum(headline[name].values()) for name in ("unknown_labels", "not_understood"))
    why = [
        *([f"{cannot:,} have labels that the model cannot give"] if cannot else []),
        *(
            [
                f"{unclear:,} {'' if cannot else 'have '}labels that nothing matches (--truth_map says what these mean)"
            ]
            if unclear
            else []
        ),
    ]
    scored = (
        f"Accuracy, F1 and calibration are of {n_known:,} of the {n_cells:,} cells with a known label "
        f"({n_known / n_cells:.0%}), and tell little of the sample"
        if n_known
        else f"None of the {n_cells:,} cells with a known label could be scored"
    )
    return [f"{scored}: {', and '.join(why)}."]


def truth_part(agreement: truth.Agreement) -> dict[str, Any]:
    """What the page shows of the comparison with known labels."""
    head, shown = agreement.headline, agreement.table.head(KNOWN_LABELS_SHOWN)
    counts = agreement.confusion.to_numpy()[: len(shown), :KNOWN_LABELS_SHOWN]
    left = agreement.left[: len(shown)]
    sizes = shown["n_cells"].to_numpy()[:, np.newaxis]
    return {
        **{key: head[key] for key in ("column", "source")},
        "n_cells": count(head["n_cells"]),
        "n_unlabelled": count(head["n_unlabelled"]),
        "n_known": count(head["n_known"]),
        "any_known": head["n_known"] > 0,
        "map": head.get("map", ""),
        "mapped": list(head["mapped"])[:KNOWN_LABELS_SHOWN],
        "scored_share": percent(head["n_known"] / head["n_cells"], 0),
        "finer": list(head["scored_as"].items())[:KNOWN_LABELS_SHOWN],
        "types": [
            (label, first_names(types))
            for label, types in list(head["types_of"].items())[:KNOWN_LABELS_SHOWN]
        ],
        "key_figures": [
            (percent(head[name]) if head[name] is not None else "–", words)
            for name, words in (
                ("accuracy", "of the predicted labels are right"),
                ("accuracy_assigned", "of those that were not left unassigned"),
            )
        ]
        + [
            (f"{head[name]:.3f}" if head[name] is not None else "–", words)
            for name, words in (("macro_f1", "macro-F1"), ("calibration_error", "expected calibration error"))
        ],
        "became": [
            (words, percent(head[f"share_{name}"]), 100 * head[f"share_{name}"])
            for name, words in BECAME.items()
        ],
        **{
            name: {
                "n": count(sum(head[key].values())),
                "labels": [(label, count(n)) for label, n in list(head[key].items())[:KNOWN_LABELS_SHOWN]],
            }
            for name, key in (("unknown", "unknown_labels"), ("unclear", "not_understood"))
        },
        "rows": [
            {
                "label": row.truth,
                "cl_id": row.cl_id,
                "n": count(row.n_cells),
                "scored_as": row.scored_as,
                **{
                    name: "–" if np.isnan(getattr(row, name)) else f"{getattr(row, name):.3f}"
                    for name in ("recall", "recall_final", "precision", "f1")
                },
                **{
                    name: "–" if np.isnan(share) else percent(share)
                    for name, share in (
                        ("agree_predicted", row.predicted_same_or_compatible),
                        ("agree", row.share_same_or_compatible),
                    )
                },
                "unassigned": percent(row.share_unassigned),
                "most": row.most_common,
                "most_share": percent(row.most_common_share, 0),
            }
            for row in shown.itertuples()
        ],
        "hidden": len(agreement.table) - len(shown),
        "columns_drawn": counts.shape[1] if counts.shape[1] < agreement.confusion.shape[1] else 0,
        "figure": data_uri(
            figures.confusion_plot(
                np.column_stack([counts, left]) / sizes,
                [f"{row.truth} ({row.n_cells:,})" for row in shown.itertuples()],
                [str(name) for name in agreement.confusion.columns[:KNOWN_LABELS_SHOWN]],
            )
        ),
    }
