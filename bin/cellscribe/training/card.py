"""The model card: what a model knows, how well, and what it does not know."""

from __future__ import annotations

import base64
import io
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from cellscribe.training.evaluate import Evaluation
from cellscribe.training.reference import Contested
from cellscribe.words import first_names, plural

CARD = Path(__file__).resolve().parent / "card.html.j2"
THINNED = "thinned to 10-100 % of counts"


NOT_TESTED = (
    "Not tested: no labelled cells that it has not seen were given. Its probabilities are the source's own; hold its "
    "labels against what you know."
)


def write_card(folder: Path, fields: dict[str, Any], evaluation: Evaluation | None) -> None:
    """Write card.md and card.html. fields: manifest.json's, without the files. evaluation: None for a model that was
    not tested.
    """
    labels = [dict(label) for label in fields["labels"]]
    if evaluation is not None:
        scored = evaluation.per_label.set_index("label")
        for label in labels:
            if scored.loc[label["label"], "n_cells"] and scored.loc[label["label"], "tested"]:
                label |= scored.loc[label["label"], ["precision", "recall", "f1"]].to_dict()
    (folder / "card.md").write_text(card_markdown(fields, labels, evaluation))
    (folder / "card.html").write_text(card_html(fields, labels, evaluation))


def card_markdown(fields: dict[str, Any], labels: list[dict[str, Any]], evaluation: Evaluation | None) -> str:
    """The card as Markdown."""
    lines = [
        f"# {fields['name']} {fields['version']}",
        "",
        _cell(fields["description"]) or f"A {fields['kind']} model of {fields['organism']} cells.",
        "",
        "## How good it is",
        "",
    ]
    lines += [NOT_TESTED] if evaluation is None else _how_good(evaluation, fields)
    said = [f"- {_cell(note)}" for note in fields.get("source", {}).get("notes", ())]
    said += [f"- Warning: {_cell(warning)}" for warning in fields["training"].get("warnings", ())]
    # Without a line between them a list behind a table is rows of it.
    lines += [
        *(["", *said] if said else []),
        "",
        "## What it knows",
        "",
        "| label | Cell Ontology | cells | batches | precision | recall | F1 |",
        "|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {_cell(label['label'])} | {label['cl_id']} {_cell(label['cl_name'])} "
        f"| {_number(label['n_cells'])} | {_number(label['n_batches'])} | "
        + " | ".join(
            f"{label[score]:.2f}" if score in label else "–" for score in ("precision", "recall", "f1")
        )
        + " |"
        for label in labels
    ]
    single = [label["label"] for label in labels if label["n_batches"] == 1]
    lines += ["", "## What it does not know", ""]
    lines += [f"- {_cell(unknown)}" for unknown in fields["does_not_know"]]
    if single:
        these = "this label comes" if len(single) == 1 else "these labels come"
        lines.append(
            f"- How well it knows {', '.join(map(_cell, single))} on new donors: {these} from one batch only."
        )
    lines += [f"- {other_types(fields)}", "", "## How it was made", ""]
    lines += [f"- {_cell(line)}" for line in how_made(fields)]
    return "\n".join([*lines, ""])


def _how_good(evaluation: Evaluation, fields: dict[str, Any]) -> list[str]:
    head, altered = evaluation.headline, evaluation.altered
    lines = [
        _cell(measured_on(evaluation, fields)),
        "",
        "| cells | accuracy | macro-F1 | calibration error | log loss |",
        "|---|---|---|---|---|",
        _row("as they are", head),
    ]
    if altered:
        lines.append(_row(THINNED, altered))
    lines += [
        _row(f"with {100 * row['gene_overlap']:.0f} % of the genes", row) for row in evaluation.fewer_genes
    ]
    lines += [
        "",
        "| classifier | accuracy | macro-F1 | calibration error | log loss |",
        "|---|---|---|---|---|",
    ]
    lines += [_row(name, value) for name, value in sorted(evaluation.classifiers.items())]
    lines += ["", "| certainty (1 - uncertainty) | share of the cells | of these right |", "|---|---|---|"]
    return lines + [f"| {' | '.join(row)} |" for row in certainty_rows(evaluation)]


def certainty_rows(evaluation: Evaluation) -> list[tuple[str, str, str]]:
    """How many of the tested cells have how much certainty or more, and how many of these are right, in words."""
    return [
        (f"{row['least']:.2f} or more", f"{100 * row['share']:.0f} %", f"{100 * row['accuracy']:.1f} %")
        for row in evaluation.certain()
    ]


def measured_on(evaluation: Evaluation, fields: dict[str, Any]) -> str:
    """Which cells the scores are of, what of the model had seen them, and which it could not get right."""
    head, labels = evaluation.headline, evaluation.per_label
    cells, batches = plural(head["n_cells"], "cell"), plural(head["n_batches"], "batch")
    measured = f"Measured on {cells} of {batches}, {head['split']}."
    unknown = labels[~labels["tested"] & (labels["n_cells"] > 0)]
    if fields["training"]["n_batches"] == 1:
        return f"{measured} Other donors are named less well than these: the scores flatter."
    if unknown.empty:
        return measured
    return (
        f"{measured} {plural(int(unknown['n_cells'].sum()), 'cell')} of labels that were held out whole "
        f"({first_names(unknown['label'].tolist())}) count as wrong in all of these scores: the model that was tested "
        "on them had learned no cell of theirs."
    )


def other_types(fields: dict[str, Any]) -> str:
    """What becomes of cells of other types than the model's."""
    if fields["kind"] == "logistic":
        return (
            "Every cell type that is not in the table above: such cells get the most similar label, where that is "
            "probable enough."
        )
    return (
        "Every cell type that is not in the table above. Such cells are left `unassigned` where they lie far "
        "from the reference, and are given the most similar label, often with a low uncertainty, where they do not."
    )


def how_made(fields: dict[str, Any]) -> list[str]:
    """Where the model comes from, a sentence a line, in plain text."""
    training, source = fields["training"], fields.get("source")
    lines = []
    if source:
        lines.append(
            f"Trained with {source['program']} {source['version']} and imported from {source['file']} "
            f"(sha256 {source['sha256']})."
        )
        lines += [f"{key}: {value}." for key, value in sorted(source.get("details", {}).items()) if value]
    if training["n_cells"]:
        lines.append(
            f"Cells: {training['n_cells']:,} of {plural(training['n_batches'], 'batch')} "
            f"({training['batch_key'] or 'one a file'}), from {', '.join(training['sources'])}; "
            f"labels from {fields['label_key']}"
            + (
                f" ({plural(n, 'further cell')} {'has' if n == 1 else 'have'} none that is learned)."
                if (n := training.get("n_unlabelled"))
                else "."
            )
        )
    contested = [Contested(**entry) for entry in training.get("contested", ())]
    lines += [f"Labels: {one.sentence()}" for one in contested if one.is_corrected]
    return [
        *lines,
        f"Genes: {training['n_genes']:,}. Organism: {fields['organism']}. Kind: {fields['kind']}. "
        f"Seed: {training['seed']}.",
        f"Licence: {fields['licence'] or 'not stated'}. Cite: {fields['citation'] or 'not stated'}.",
        f"Made on {fields['created']} by cellscribe {fields['pipeline_version']} with "
        + ", ".join(f"{name} {version}" for name, version in sorted(fields["libraries"].items()))
        + ".",
    ]


def _number(value: int) -> str:
    return f"{value:,}" if value else "–"


def _row(name: str, value: dict[str, Any]) -> str:
    shown = " | ".join(f"{value[key]:.3f}" for key in ("accuracy", "macro_f1", "ece", "log_loss"))
    return f"| {name} | {shown} |"


def _cell(text: str) -> str:
    """Text that a person gave, so that Markdown shows it as it is."""
    plain = " ".join(str(text).split()).replace("&", "&amp;").replace("<", "&lt;")
    return re.sub(r"([\\`*_\[\]|])", r"\\\1", plain)


def card_html(fields: dict[str, Any], labels: list[dict[str, Any]], evaluation: Evaluation | None) -> str:
    """The card as one self-contained page."""
    import jinja2

    template = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True).from_string(
        CARD.read_text()
    )
    figures = {}
    if evaluation is not None:
        figures = {
            "calibration": base64.b64encode(calibration_figure(evaluation.calibration)).decode(),
            "confusion": base64.b64encode(confusion_figure(evaluation.confusion)).decode(),
        }
    return template.render(
        model=fields,
        labels=labels,
        evaluation=evaluation,
        measured=measured_on(evaluation, fields) if evaluation else "",
        certain=certainty_rows(evaluation) if evaluation else (),
        thinned=THINNED,
        not_tested=NOT_TESTED,
        notes=fields.get("source", {}).get("notes", ()),
        other_types=other_types(fields).replace("`", ""),
        made=how_made(fields),
        **figures,
    )


def calibration_figure(table: pd.DataFrame) -> bytes:
    """A reliability plot as PNG: confidence against accuracy, dots as large as their share of cells."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.6, 4.2), layout="constrained")
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], color="#999999", linewidth=1, linestyle="--", label="perfect")
    axes.scatter(
        table["confidence"],
        table["accuracy"],
        s=20 + 600 * table["share_of_cells"],
        color="#0072B2",
        alpha=0.8,
    )
    axes.set(
        xlabel="confidence (1 - uncertainty)",
        ylabel="share of cells that are right",
        xlim=(0, 1.06),
        ylim=(0, 1.06),
    )
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_title("Held-out calibration", loc="left", fontsize=10)
    return _png(figure)


def confusion_figure(confusion: pd.DataFrame) -> bytes:
    """The confusion matrix as PNG, rows scaled to the true label's cells."""
    from matplotlib.figure import Figure

    values = confusion.to_numpy(dtype=float)
    shares = values / np.maximum(values.sum(axis=1, keepdims=True), 1)
    n = len(confusion)
    figure = Figure(figsize=(max(4.6, 0.5 * n + 2), max(4.2, 0.42 * n + 1.6)), layout="constrained")
    axes = figure.subplots()
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    axes.set_xticks(range(n), confusion.columns, rotation=45, ha="right", fontsize=8, parse_math=False)
    axes.set_yticks(range(n), confusion.index, fontsize=8, parse_math=False)
    axes.set(xlabel="predicted", ylabel="true label")
    if n <= 20:
        for row, column in np.ndindex(n, n):
            if shares[row, column] >= 0.005:
                axes.text(
                    column,
                    row,
                    f"{100 * shares[row, column]:.0f}",
                    ha="center",
                    va="center",
                    fontsize=7,
                    color="white" if shares[row, column] > 0.6 else "#333333",
                )
    axes.set_title("Held-out cells, % of the true label", loc="left", fontsize=10)
    return _png(figure)


def _png(figure: Any) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110, metadata={"Software": None})
    return buffer.getvalue()
