"""The page of all samples together: one map, and who has which cells."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cellscribe import figures
from cellscribe.colours import PALETTE, cluster_colours, label_colours, labels_said
from cellscribe.contract import UNASSIGNED, OutputNames
from cellscribe.drawing import data_uri
from cellscribe.io import atomic_path
from cellscribe.report import render
from cellscribe.report_limits import limits_changed
from cellscribe.report_words import count, percent
from cellscribe.words import plural

if TYPE_CHECKING:
    import pandas as pd

    from cellscribe.merge import Merged

LABELS_SHOWN = 18
CLUSTERS_SHOWN = 60
ALONE = 0.9


def write_page(
    merged: Merged,
    composition: pd.DataFrame,
    info: dict[str, Any],
    output: Path,
    files: dict[str, str],
    pipeline_version: str,
) -> None:
    """Draw and write the page. info: annotation.json of one of the samples, for the model. files: names of what lies
    beside it, the `cells`, the `composition` and the `sums`.
    """
    samples = merged.obs["sample"].astype(str).to_numpy(dtype=object)
    labels = merged.obs[merged.label_key].astype(str).to_numpy(dtype=object)
    names = list(dict.fromkeys(composition["label"]))
    said = merged.uns.get(OutputNames(merged.label_key.removesuffix("_final")).predictions, {})
    # In the model's order, as on each sample's page.
    colours = label_colours(names, labels_said(said))
    sample_colours = label_colours(sorted(set(samples)), [])
    model = info.get("model") or {}
    page = {
        "n_samples": plural(len(sample_colours) - 1, "sample"),
        "n_cells": plural(len(labels), "cell"),
        "n_genes": plural(len(merged.var), "gene"),
        "n_labels": plural(len(set(labels) - {UNASSIGNED}), "label"),
        "unassigned": percent(float((labels == UNASSIGNED).mean())),
        "limits_changed": limits_changed(info.get("parameters") or {}),
        "model": {key: str(model.get(key) or "") for key in ("name", "version")},
        "date": datetime.datetime.now(tz=datetime.UTC).date().isoformat(),
        "warnings": merged.warnings,
        "figures": _figures(merged, samples, labels, colours, sample_colours),
        "legend": [(name, colours[name], count((labels == name).sum())) for name in names],
        "sample_legend": [
            (name, sample_colours[name], count((samples == name).sum())) for name in sorted(set(samples))
        ],
        "composition": _grid(samples, labels, names[:LABELS_SHOWN], len(names)),
        "clusters": _clusters(merged, samples),
        "clusters_from": merged.clusters_from,
        "no_cluster": merged.no_cluster,
        "label_key": merged.label_key,
        "colours": colours,
        "most_panels": figures.MOST_PANELS,
        "n_colours": len(PALETTE),
        "files": files,
        "pipeline_version": pipeline_version,
    }
    with atomic_path(output) as temporary:
        temporary.write_text(render(page, "merged.html.j2"), encoding="utf-8")


def _figures(
    merged: Merged,
    samples: np.ndarray,
    labels: np.ndarray,
    colours: dict[str, str],
    sample_colours: dict[str, str],
) -> dict[str, str]:
    if not merged.layout_key:
        return {}
    layout = merged.obsm[merged.layout_key].astype(np.float64)
    names = OutputNames(merged.layout_key.removesuffix("_umap"))
    drawn = {
        "labels": figures.umap_by_category(layout, labels, colours, least_share=figures.LEAST_SHARE_WRITTEN),
        "samples": figures.umap_by_category(layout, samples, sample_colours, named=False),
        "each": figures.small_multiples(layout, samples, sample_colours),
    }
    if names.uncertainty in merged.obs:
        uncertainty = merged.obs[names.uncertainty].to_numpy(dtype=np.float64)
        drawn["uncertainty"] = figures.umap_by_number(layout, np.nan_to_num(uncertainty, nan=1.0))
    cluster = merged.obs[merged.cluster_key].astype(str).to_numpy(dtype=object)
    of_clusters = cluster_colours(cluster, colours, merged.no_cluster)
    drawn["clusters"] = figures.umap_by_category(layout, cluster, of_clusters, **figures.SMALL)
    return {"uncertainty": "", **{name: data_uri(png) for name, png in drawn.items()}}


def _grid(rows: np.ndarray, columns: np.ndarray, shown: list[str], n_columns: int) -> dict[str, Any]:
    """Cells by row and column, as counts with their share of the row; columns beyond `shown` together in the last."""
    parts = []
    for row in sorted(set(rows)):
        own = columns[rows == row]
        numbers = [int((own == name).sum()) for name in shown]
        if n_columns > len(shown):
            numbers.append(len(own) - sum(numbers))
        parts.append(
            {"name": row, "n": count(len(own)), "cells": [(count(n), n / len(own)) for n in numbers]}
        )
    return {"columns": shown, "others": n_columns - len(shown), "rows": parts}


def _clusters(merged: Merged, samples: np.ndarray) -> dict[str, Any]:
    """Each cluster's samples: how evenly they are mixed, and in which clusters one sample is nearly alone.

    Cells that are in no cluster have no row: they are nothing together.
    """
    if not merged.cluster_key:
        return {}
    keys = OutputNames(merged.cluster_key.removesuffix("_cluster"))
    label = merged.obs[keys.cluster_final if keys.cluster_final in merged.obs else keys.cluster_label]
    unassigned = merged.obs[merged.label_key].astype(str).to_numpy() == UNASSIGNED
    # Numbers, as texts of a million cells compared with each of a thousand names take minutes.
    names, codes = np.unique(merged.obs[merged.cluster_key].astype(str), return_inverse=True)
    sample_names, sample_codes = np.unique(samples.astype(str), return_inverse=True)
    sizes = np.bincount(codes)
    rows = []
    alone = 0
    for code in np.argsort(-sizes, kind="stable"):
        if merged.no_cluster and names[code] == merged.no_cluster:
            continue
        members = np.flatnonzero(codes == code)
        numbers = np.bincount(sample_codes[members], minlength=len(sample_names))
        most = int(numbers.argmax())
        share = numbers[most] / len(members)
        alone += share >= ALONE
        rows.append(
            {
                "cluster": str(names[code]),
                "n": count(len(members)),
                "label": str(label.iloc[members[0]]),
                "unassigned": percent(float(unassigned[members].mean()), 0),
                "n_samples": count(np.count_nonzero(numbers)),
                "most": str(sample_names[most]),
                "share": percent(float(share), 0),
                "alone": bool(share >= ALONE),
            }
        )
    return {
        "rows": rows[:CLUSTERS_SHOWN],
        "hidden": max(len(rows) - CLUSTERS_SHOWN, 0),
        "n_alone": int(alone),
        "n": len(rows),
        "many_samples": len(set(samples)) > 1,
    }
