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

CARD = Path(__file__).resolve().parent / "card.html.j2"


def write_card(folder: Path, fields: dict[str, Any], evaluation: Evaluation, per_label: pd.DataFrame) -> None:
    """Write card.md, card.html and the two figures. fields: manifest.json's, without the files."""
    scored = per_label[["precision", "recall", "f1"]]
    labels = [{**label, **scored.loc[label["label"]].to_dict()} for label in fields["labels"]]
    calibration, confusion = (
        calibration_figure(evaluation.calibration),
        confusion_figure(evaluation.confusion),
    )
    (folder / "card.md").write_text(card_markdown(fields, labels, evaluation))
    (folder / "card.html").write_text(card_html(fields, labels, evaluation, calibration, confusion))


def card_markdown(fields: dict[str, Any], labels: list[dict[str, Any]], evaluation: Evaluation) -> str:
    """The card as Markdown."""
    head, altered, training = evaluation.headline, evaluation.altered, fields["training"]
    lines = [
        f"# {fields['name']} {fields['version']}",
        "",
        _cell(fields["description"]) or f"A {fields['kind']} model of {fields['organism']} cells.",
        "",
        "## How good it is",
        "",
        f"Measured on {head['n_cells']:,} cells of {head['n_batches']} batches, {head['split']}; nothing was tuned on "
        "other data.",
        "",
        "| cells | accuracy | macro-F1 | calibration error | log loss |",
        "|---|---|---|---|---|",
        _row("as they are", head),
    ]
    if altered:
        lines.append(_row("thinned to 10-100 % of counts and 30-100 % of genes", altered))
    lines += [
        "",
        "| classifier | accuracy | macro-F1 | calibration error | log loss |",
        "|---|---|---|---|---|",
    ]
    lines += [_row(name, value) for name, value in evaluation.classifiers.items()]
    lines += [
        "",
        "## What it knows",
        "",
        "| label | Cell Ontology | cells | batches | precision | recall | F1 |",
        "|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {_cell(label['label'])} | {label['cl_id']} {_cell(label['cl_name'])} "
        f"| {label['n_cells']:,} | {label['n_batches']} "
        f"| {label['precision']:.2f} | {label['recall']:.2f} | {label['f1']:.2f} |"
        for label in labels
    ]
    single = [label["label"] for label in labels if label["n_batches"] < 2]
    lines += ["", "## What it does not know", ""]
    lines += [f"- {_cell(unknown)}" for unknown in fields["does_not_know"]]
    if single:
        lines.append(
            f"- How well it knows {', '.join(map(_cell, single))} on new donors: these labels come from one batch only."
        )
    lines += [
        "- Every cell type that is not in the table above. Such cells are left `unassigned` where they lie far "
        "from the reference, and are given the most similar label, with a high uncertainty, where they do not.",
        "",
        "## How it was made",
        "",
        f"- Cells: {training['n_cells']:,} of {training['n_batches']} batches "
        f"({_cell(training['batch_key'] or 'one a file')}), from "
        f"{', '.join(map(_cell, training['sources']))}; labels from {_cell(fields['label_key'])}.",
        f"- Genes: {training['n_genes']:,}. Organism: {fields['organism']}. Kind: {fields['kind']}. "
        f"Seed: {training['seed']}.",
        f"- Licence: {_cell(fields['licence']) or 'not stated'}. Cite: {_cell(fields['citation']) or 'not stated'}.",
        f"- Made on {fields['created']} by cellscribe {fields['pipeline_version']} with "
        + ", ".join(f"{name} {version}" for name, version in fields["libraries"].items())
        + ".",
        "",
    ]
    return "\n".join(lines)


def _row(name: str, value: dict[str, Any]) -> str:
    shown = " | ".join(f"{value[key]:.3f}" for key in ("accuracy", "macro_f1", "ece", "log_loss"))
    return f"| {name} | {shown} |"


def _cell(text: str) -> str:
    """Text that a person gave, so that Markdown shows it as it is."""
    plain = " ".join(str(text).split()).replace("&", "&amp;").replace("<", "&lt;")
    return re.sub(r"([\\`*_\[\]|])", r"\\\1", plain)


def card_html(
    fields: dict[str, Any],
    labels: list[dict[str, Any]],
    evaluation: Evaluation,
    calibration: bytes,
    confusion: bytes,
) -> str:
    """The card as one self-contained page."""
    import jinja2

    template = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True).from_string(
        CARD.read_text()
    )
    return template.render(
        model=fields,
        labels=labels,
        evaluation=evaluation,
        calibration=base64.b64encode(calibration).decode(),
        confusion=base64.b64encode(confusion).decode(),
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
        xlim=(0, 1.02),
        ylim=(0, 1.02),
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
