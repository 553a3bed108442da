"""The page of a run: what MultiQC needs to draw it, a section for each subject (custom content)."""

from __future__ import annotations

import html
import itertools
import re
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from cellscribe.colours import PALETTE, UNASSIGNED_COLOUR, label_colours
from cellscribe.contract import REASONS, UNASSIGNED
from cellscribe.report_limits import limits_changed
from cellscribe.run_samples import COLUMNS, ORDER, Sample, percent_novel
from cellscribe.words import first_names

MAX_LABELS_DRAWN = 25
MERGED_PAGE = 'All samples on one map: <a href="../merged/merged.report.html">merged.report.html</a>'
OTHER_LABELS, OTHER_COLOUR = "other labels", "#6f6f6f"


def sections(samples: list[Sample], *, merged: bool = False) -> list[dict[str, Any]]:
    """MultiQC's custom content, one object a file; a section without data is left out.

    merged: whether MERGE was asked for, whose page lies beside this one's folder.
    """
    made = (
        _failures(samples),
        _pages(samples, merged=merged),
        _general(samples),
        _cells(samples),
        _removed(samples),
        _composition(samples),
        _reasons(samples),
        _fit(samples),
        _truth(samples),
        _warnings(samples),
    )
    return [section for section in made if section["data"]]


def _failures(samples: list[Sample]) -> dict[str, Any]:
    rows = [
        (sample.id, one.step, f"{one.exit_code} {one.meaning}".strip(), one.message, sample.path)
        for sample in samples
        for one in sample.failures
    ]
    cells = [tuple(map(escape, row)) for row in rows]
    return {
        "id": "cellscribe_failures",
        "section_name": "Failed samples",
        "description": f"{len({row[0] for row in rows}):,} of {len(samples):,} samples were not finished; the others "
        "are complete.",
        "plot_type": "html",
        "data": _html_table(("Sample", "Failed in", "Exit code", "Message", "Input"), cells),
    }


def _pages(samples: list[Sample], *, merged: bool) -> dict[str, Any]:
    """Links to the samples' own pages, which lie beside this one's folder, and to that of all samples together."""
    done = [_name(sample) for sample in samples if sample.has_page]
    # MERGE takes what ANNOTATE made, if that is anything.
    together = merged and any(sample.annotation is not None for sample in samples)
    return {
        "id": "cellscribe_pages",
        "section_name": "Pages of the samples",
        "description": "Each tells what was done, what its cells are called, and how far to trust it.",
        "plot_type": "html",
        "data": (f"<p>{MERGED_PAGE}</p>" if together else "")
        + (f'<p style="max-height: 15em; overflow: auto">{" · ".join(done)}</p>' if done else ""),
    }


def _name(sample: Sample) -> str:
    """A sample's name as HTML, which leads to its page where it has one."""
    name = escape(sample.id)
    return f'<a href="../samples/{name}/{name}.report.html">{name}</a>' if sample.has_page else name


def _general(samples: list[Sample]) -> dict[str, Any]:
    columns = {
        **{name: COLUMNS[name] for name in ("n_cells_read", "n_cells_kept", "median_counts", "median_genes")},
        "median_pct_mt": COLUMNS["median_pct_mt"],
        "top_label": COLUMNS["top_label"],
        "top_label_share": _times_100("top_label_share"),
        "unassigned_share": _times_100("unassigned_share"),
        "median_uncertainty": COLUMNS["median_uncertainty"],
        "n_clusters_contradicted": COLUMNS["n_clusters_contradicted"],
        "n_warnings": COLUMNS["n_warnings"],
    }
    return {
        "id": "cellscribe_general",
        "plot_type": "generalstats",
        "namespace": "cellscribe",
        "headers": {
            "n_cells_read": _number(
                "Cells found",
                "Cells in the input: of a matrix of all droplets, those called cells",
                hidden=True,
            ),
            "n_cells_kept": _number("Cells", "Cells left after quality control"),
            "median_counts": _number("Counts", "Median counts of a cell", "Greens", hidden=True),
            "median_genes": _number("Genes", "Median number of genes of a cell", "Greens", hidden=True),
            "median_pct_mt": _percent(
                "Mito", "Median share of mitochondrial counts in a cell", "Oranges", max=None, minrange=20
            ),
            "top_label": {
                "title": "Commonest label",
                "description": "The label with the most cells, which may be few of all",
                "scale": False,
            },
            "top_label_share": _percent(
                "Its share", "Share of the cells with the commonest label", "Purples"
            ),
            "unassigned_share": _small_share(
                "Unassigned", "Share of the cells that the model should not name"
            ),
            "median_uncertainty": _number(
                "Uncertainty",
                "Median uncertainty of the predicted label: 0 sure, 1 not at all",
                "OrRd",
                "{:,.2f}",
                minrange=0.5,
                hidden=True,
            ),
            "n_clusters_contradicted": _number(
                "Contradicted", "Clusters whose genes contradict their name", "OrRd", minrange=5
            ),
            "n_warnings": _number("Warnings", "How many warnings the steps gave", "OrRd", minrange=20),
        },
        "data": _rows(samples, columns),
    }


def _cells(samples: list[Sample]) -> dict[str, Any]:
    data = {}
    for sample in samples:
        before, after = sample.get("qc", "n_cells_before"), sample.get("qc", "n_cells_after")
        if before is not None and after is not None:
            passed = sample.get("qc", "n_cells_pass")
            passed = after if passed is None else passed
            data[escape(sample.id)] = {
                "passed": passed,
                "marked": after - passed,
                "removed": before - after,
            }
    return {
        "id": "cellscribe_cells",
        "section_name": "Cells kept",
        "description": "Cells that passed quality control, and those that it removed, or with "
        "<code>--qc flag</code> only marked.",
        "plot_type": "bargraph",
        "pconfig": _bars("Cells in quality control", "cells", tt_decimals=0),
        "categories": {
            "passed": {"name": "passed", "color": "#4c9f70"},
            "marked": {"name": "marked", "color": "#e3b800"},
            "removed": {"name": "removed", "color": UNASSIGNED_COLOUR},
        },
        "data": data,
    }


def _removed(samples: list[Sample]) -> dict[str, Any]:
    data = {escape(s.id): _escaped(s.get("qc", "removed_by") or {}) for s in samples if s.qc is not None}
    totals = {escape(s.id): s.get("qc", "n_cells_before") or 0 for s in samples}
    shares = {
        name: {reason: 100 * n / max(totals[name], 1) for reason, n in row.items()}
        for name, row in data.items()
    }
    reasons = sorted({reason for row in data.values() for reason, n in row.items() if n})
    return {
        "id": "cellscribe_removed",
        "section_name": "Why cells were removed",
        "description": "Cells that failed each check, of all that the sample had. A cell may fail several, so the bars "
        "may add up to more than the cells removed. With <code>--qc flag</code> these cells are marked, not removed.",
        "plot_type": "bargraph",
        "pconfig": _bars(
            "Cells by failed check",
            "% of the cells",
            cpswitch=False,
            stacking="group",
            data_labels=[
                {"name": "Percent", "ylab": "% of the cells", "tt_decimals": 1, "tt_suffix": "%"},
                {"name": "Cells", "ylab": "cells", "tt_decimals": 0, "tt_suffix": ""},
            ],
        ),
        "categories": {
            name: {"name": name.replace("_", " "), "color": colour}
            for name, colour in zip(reasons, itertools.cycle(PALETTE), strict=False)
        },
        "data": [shares, data] if reasons else {},
    }


def _composition(samples: list[Sample]) -> dict[str, Any]:
    total: Counter[str] = sum((sample.labels for sample in samples), Counter())
    drawn = [
        label for label, _ in sorted(total.items(), key=lambda item: (-item[1], item[0]))[:MAX_LABELS_DRAWN]
    ]
    data = {}
    for sample in samples:
        if sample.annotation is not None:
            row = {label: n for label, n in sample.labels.items() if label in drawn}
            row[OTHER_LABELS] = sample.labels.total() - sum(row.values())
            row[UNASSIGNED] = sample.get("annotation", "unassigned") or 0
            data[escape(sample.id)] = _escaped({label: n for label, n in row.items() if n})
    labels = [str(label) for sample in samples for label in sample.get("annotation", "labels") or ()]
    colours = label_colours(drawn, labels)
    categories = {escape(label): {"name": escape(label), "color": colours[label]} for label in drawn}
    if len(total) > len(drawn):
        categories[OTHER_LABELS] = {"name": OTHER_LABELS, "color": OTHER_COLOUR}
    categories[UNASSIGNED] = {"name": UNASSIGNED, "color": UNASSIGNED_COLOUR}
    return {
        "id": "cellscribe_composition",
        "section_name": "Composition",
        "description": "Cells by final label: a cell type, a broader type where only that is sure, or "
        f"<code>{UNASSIGNED}</code>. The {MAX_LABELS_DRAWN} most frequent labels of the run are drawn.",
        "plot_type": "bargraph",
        "pconfig": _bars("Cells by final label", "cells", cpswitch_c_active=False, tt_decimals=0),
        "categories": categories,
        "data": data,
    }


def _reasons(samples: list[Sample]) -> dict[str, Any]:
    data = {}
    changed = {limits_changed(sample.get("annotation", "parameters") or {}): None for sample in samples}
    for sample in samples:
        reasons, n_cells = sample.get("annotation", "reasons"), sample.get("annotation", "n_cells")
        unassigned = sample.get("annotation", "unassigned_by")
        if reasons is not None and unassigned is not None and n_cells:
            # A cell that has a reason and is not unassigned got the name of a common ancestor.
            n_reasons, row = (
                sum(reasons.values()),
                {reason: unassigned.get(reason, 0) for reason in REASONS if reason},
            )
            broader = n_reasons - sum(row.values())
            data[escape(sample.id)] = {"named": n_cells - n_reasons, "broader": broader, **row}
    return {
        "id": "cellscribe_reasons",
        "section_name": "Why cells are not named",
        "description": "<code>ambiguous</code>: several labels are likely, and no broader type covers them; "
        "<code>disagreement</code>: several models contradict each other; "
        f"<code>novel</code>: {REASONS['novel']}; "
        f"<code>low information</code>: {REASONS['low_information']}. {escape(' '.join(changed))}".strip(),
        "plot_type": "bargraph",
        "pconfig": _bars("Cells by how they are named", "cells", cpswitch_c_active=False, tt_decimals=0),
        "categories": {
            "named": {"name": "named", "color": "#4c9f70"},
            "broader": {"name": "a broader type", "color": "#a8d5b5"},
            "ambiguous": {"name": "unassigned: ambiguous", "color": "#e3b800"},
            "disagreement": {"name": "unassigned: disagreement", "color": "#8f5fa8"},
            "novel": {"name": "unassigned: novel", "color": "#be0032"},
            "low_information": {"name": "unassigned: low information", "color": "#5ba3d9"},
        },
        "data": data,
    }


def _fit(samples: list[Sample]) -> dict[str, Any]:
    columns: dict[str, Callable[[Sample], Any]] = {
        "model": COLUMNS["model"],
        "gene_overlap": _times_100("gene_overlap"),
        "n_genes_found": lambda s: s.get("annotation", "n_genes_found"),
        "n_model_genes": lambda s: s.get("annotation", "n_model_genes"),
        "genes_matched_by": lambda s: s.get("annotation", "genes_matched_by"),
        "far": _times_100("share_far_from_reference"),
        "novel": percent_novel,
        "unassigned_share": _times_100("unassigned_share"),
        "median_uncertainty": COLUMNS["median_uncertainty"],
        **{name: column for name, column in COLUMNS.items() if name.startswith("n_clusters")},
    }
    # One scale for all, so that a bar shows how many of the clusters these are.
    clusters = {"shared_key": "cellscribe_clusters"}
    return {
        "id": "cellscribe_fit",
        "section_name": "How well model and sample fit",
        "description": "Few shared genes leave the model less to go by. Many novel or far cells mean types or states "
        "that it was not trained on. In either case read the labels with care.",
        "plot_type": "table",
        "pconfig": {"id": "cellscribe_fit_table", "title": "Model and sample", "namespace": "cellscribe"},
        "headers": {
            "model": {"title": "Model", "description": "Name and version", "scale": False},
            "gene_overlap": _percent(
                "Genes shared", "Share of the model's genes that the sample has", "RdYlGn"
            ),
            "n_genes_found": _number(
                "Genes found", "Genes of the model that the sample has", "Greens", hidden=True
            ),
            "n_model_genes": _number("Model's genes", "Genes that the model uses", "Greens", hidden=True),
            "genes_matched_by": {
                "title": "Matched by",
                "description": "The column of gene names that fits the model best",
                "scale": False,
                "hidden": True,
            },
            "far": _small_share(
                "Far cells", "Cells farther from the reference than 99 % of its own cells are"
            ),
            "novel": _small_share("Novel", f"Cells left unassigned as novel: {REASONS['novel']}"),
            "unassigned_share": _small_share(
                "Unassigned", "Share of the cells that the model should not name"
            ),
            "median_uncertainty": _number(
                "Uncertainty", "Median: 0 sure, 1 not at all", "OrRd", "{:,.2f}", minrange=0.5, hidden=True
            ),
            "n_clusters": _number("Clusters", "Clusters, those that got no name among them", **clusters),
            "n_clusters_named": _number(
                "Named",
                "Clusters that got a name: the next three are of these",
                "Greens",
                hidden=True,
                **clusters,
            ),
            "n_clusters_supported": _number(
                "Supported", "Clusters in which the markers of their name go up", "Greens", **clusters
            ),
            "n_clusters_weak": _number(
                "Weak", "Clusters whose genes are too few or too faint to tell", **clusters
            ),
            "n_clusters_contradicted": _number(
                "Contradicted", "Clusters whose genes contradict their name", "OrRd", minrange=5
            ),
        },
        "data": _rows([s for s in samples if s.annotation is not None], columns),
    }


def _truth(samples: list[Sample]) -> dict[str, Any]:
    compared = [sample for sample in samples if sample.get("truth", "n_cells")]
    # MultiQC colours a column, not a cell: scores of a few cells must not look good.
    good = "RdYlGn" if all(_percent_scored(sample) >= 50 for sample in compared) else "Blues"
    shares = (
        *("truth_accuracy", "truth_accuracy_assigned"),
        *("truth_share_same", "truth_share_compatible", "truth_share_not_understood"),
    )
    columns: dict[str, Callable[[Sample], Any]] = {
        name: _times_100(name) if name in shares else column
        for name, column in COLUMNS.items()
        if name.startswith("truth_")
    }
    return {
        "id": "cellscribe_truth",
        "section_name": "Compared with known labels",
        "description": "Accuracy, F1 and calibration are of the predicted labels, over the cells whose known label the "
        "model can give, or one label that covers it (Scored); same, compatible and not understood are of the final "
        "labels, over all cells with a known label.",
        "plot_type": "table",
        "pconfig": {"id": "cellscribe_truth_table", "title": "Known labels", "namespace": "cellscribe"},
        "headers": {
            "truth_n_cells": _number("Cells", "Cells with a known label"),
            "truth_n_known": _number(
                "Scored cells", "Those of a label that the model has, or one that covers it"
            ),
            "scored": _percent(
                "Scored", "Share of the cells with a known label that the scores are of", "Blues"
            ),
            "truth_accuracy": _percent("Accuracy", "Predicted labels that are right", good),
            "truth_macro_f1": _number("Macro-F1", "Mean F1 of what is scored", good, "{:,.3f}", max=1),
            "truth_accuracy_assigned": _percent(
                "Assigned", "Predicted labels that are right, of cells that were not left unassigned", good
            ),
            "truth_calibration_error": _number(
                "Calibration error", "Expected calibration error", "OrRd", "{:,.3f}", minrange=0.3
            ),
            "truth_share_same": _percent("Same", "Final label is the known one", good),
            "truth_share_compatible": _percent(
                "Compatible", "Final and known label are one the other's ancestor", "Blues"
            ),
            "truth_share_not_understood": _percent(
                "Not understood", "Known label that no label of the model and no type matches", "Blues"
            ),
        },
        "data": _rows(compared, columns | {"scored": _percent_scored}),
    }


def _percent_scored(sample: Sample) -> float:
    """Of the cells with a known label."""
    return 100 * (sample.get("truth", "n_known") or 0) / sample.get("truth", "n_cells")


def _warnings(samples: list[Sample]) -> dict[str, Any]:
    """Each warning once, with its samples: those of the names first, then what happened before them."""
    of: dict[tuple[str, str], list[str]] = {}
    for sample in samples:
        for step, text in sample.warnings:
            of.setdefault((step, text), []).append(_name(sample))
    gravest_first = sorted(of.items(), key=lambda item: -ORDER.index(item[0][0]))
    warned = {name for names in of.values() for name in names}
    return {
        "id": "cellscribe_warnings",
        "section_name": "Warnings",
        "description": f"{sum(map(len, of.values())):,} in {len(warned):,} of {len(samples):,} samples.",
        "plot_type": "html",
        "data": _html_table(
            ("Warning", "Step", "Samples"),
            [(escape(text), escape(step), first_names(names)) for (step, text), names in gravest_first],
        ),
    }


# Where a bar is full and its colour deepest, MultiQC takes from the run's own highest sample. What is good or bad has
# a `max` that no value exceeds, or a `minrange`: a scale that is no shorter, and longer only for a sample beyond it.
# `ceiling`, and a `max` that is exceeded, would leave that sample out of the violins, which stand for long tables.
def _percent(title: str, description: str, scale: str, **more: Any) -> dict[str, Any]:
    return {
        "title": title,
        "description": description,
        "suffix": "%",
        "min": 0,
        "max": 100,
        "format": "{:,.1f}",
        "scale": scale,
        **more,
    }


def _small_share(title: str, description: str) -> dict[str, Any]:
    """Of a share that should be small: half of the cells fill the bar."""
    return _percent(title, description, "OrRd", max=None, minrange=50)


def _number(
    title: str, description: str, scale: str = "Blues", form: str = "{:,.0f}", **more: Any
) -> dict[str, Any]:
    return {"title": title, "description": description, "min": 0, "format": form, "scale": scale, **more}


def _rows(samples: list[Sample], columns: dict[str, Callable[[Sample], Any]]) -> dict[str, dict[str, Any]]:
    """The values of every sample that has any; numbers as they are, text escaped."""
    rows = {}
    for sample in samples:
        values = {name: column(sample) for name, column in columns.items()}
        row = {
            name: escape(value) if isinstance(value, str) else value
            for name, value in values.items()
            if value is not None
        }
        if row:
            rows[escape(sample.id)] = row
    return rows


def _times_100(name: str) -> Callable[[Sample], float | None]:
    def percent(sample: Sample) -> float | None:
        value = COLUMNS[name](sample)
        return None if value is None else 100 * value

    return percent


def _bars(title: str, unit: str, **more: Any) -> dict[str, Any]:
    return {
        "id": f"cellscribe_{re.sub('[^a-z]+', '_', title.lower())}",
        "title": f"cellscribe: {title}",
        "ylab": unit,
        "hide_zero_cats": True,
        # Of one category alone MultiQC draws none, and nothing else names it.
        "use_legend": True,
        "sort_samples": False,
        **more,
    }


def _html_table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    """rows: of HTML."""
    if not rows:
        return ""
    lines = ["".join(f"<td>{value}</td>" for value in row) for row in rows]
    return (
        '<div style="max-height: 30em; overflow: auto"><table class="table table-sm table-hover"><thead><tr>'
        + "".join(f"<th>{escape(name)}</th>" for name in head)
        + "</tr></thead><tbody>"
        + "".join(f"<tr>{line}</tr>" for line in lines)
        + "</tbody></table></div>"
    )


def escape(text: str) -> str:
    """Text for HTML, and for the figures of MultiQC, which know no `&quot;`."""
    return html.escape(text).replace("&quot;", "&#34;")


def _escaped(row: dict[str, Any]) -> dict[str, Any]:
    return {escape(name): value for name, value in row.items()}
