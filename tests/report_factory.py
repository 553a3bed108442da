"""A small annotated sample with everything that REPORT reads, with no need of MAP, ANNOTATE or a model."""

from __future__ import annotations

import io
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pandas as pd
import scipy.sparse as sp

from cellscribe.contract import OutputNames
from cellscribe.io import write_h5ad, write_json
from cellscribe.qc import Bounds
from cellscribe.report_inputs import Cells

TYPES = {"B cell": "CL:0000236", "T cell": "CL:0000084", "Monocyte": "CL:0000576"}
MARKERS_EACH = 10


def simulated(n_each: int = 40, n_genes: int = 120, seed: int = 0) -> anndata.AnnData:
    """Counts in which each type of TYPES expresses its own ten genes: B0 ... B9, T0 ..., M0 ...."""
    generator = np.random.default_rng(seed)
    labels = np.repeat(list(TYPES), n_each)
    rates = np.full((len(labels), n_genes), 0.3)
    genes = [f"GENE{i}" for i in range(n_genes)]
    for i, name in enumerate(TYPES):
        columns = range(i * MARKERS_EACH, (i + 1) * MARKERS_EACH)
        for j, column in enumerate(columns):
            genes[column] = f"{name[0]}{j}"
        rates[np.ix_(labels == name, list(columns))] = 4
    adata = anndata.AnnData(
        X=sp.csr_matrix(generator.poisson(rates).astype(np.float32)),
        obs=pd.DataFrame({"cell_type": labels}, index=[f"cell{i}" for i in range(len(labels))]),
        var=pd.DataFrame(
            {"gene_ids": [f"ENSG{i:011d}" for i in range(n_genes)], "gene_symbols": genes}, index=genes
        ),
    )
    return adata


def expected_markers(adata: anndata.AnnData, label_key: str = "cell_type") -> dict[str, list[dict[str, Any]]]:
    """markers.json as TRAIN makes it: the genes whose log-normalised mean differs most, twenty a label."""
    from cellscribe.model.logistic import log_normalise

    normal = log_normalise(sp.csr_matrix(adata.X))
    result = {}
    labels = adata.obs[label_key].astype(str).to_numpy()
    for label in sorted(set(labels)):
        (mean, share), (mean_rest, share_rest) = (
            (
                np.asarray(part.sum(axis=0)).ravel() / max(part.shape[0], 1),
                np.asarray((part > 0).sum(axis=0)).ravel() / max(part.shape[0], 1),
            )
            for part in (normal[labels == label], normal[labels != label])
        )
        score = np.maximum(mean - mean_rest, 0) * np.maximum(share - share_rest, 0)
        result[label] = [
            {
                "gene_id": str(adata.var["gene_ids"].iloc[i]),
                "symbol": str(adata.var_names[i]),
                "mean": float(mean[i]),
                "share": float(share[i]),
                "mean_rest": float(mean_rest[i]),
                "share_rest": float(share_rest[i]),
                "score": float(score[i]),
            }
            for i in np.argsort(-score)[:20]
        ]
    return result


def cells_named(labels: pd.Series) -> Cells:
    """Cells of which nothing but the labels is known."""
    text = labels.astype(str).to_numpy(dtype=object)
    nothing = dict.fromkeys(
        ("distance", "unexpected", "novelty", "cluster", "umap", "reference_umap"),
    )
    return Cells(
        predicted=text,
        final=text,
        reason=np.full(len(text), "", dtype=object),
        uncertainty=np.zeros(len(text)),
        cl_ids={},
        **nothing,
    )


def png(text: str = "figure") -> bytes:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 1.2))
    FigureCanvasAgg(figure)
    figure.text(0.5, 0.5, text, parse_math=False)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


def bounds(
    lower: float | None, upper: float | None, lower_source: str, upper_source: str
) -> dict[str, object]:
    """Bounds of a metric as qc.json has them."""
    return asdict(Bounds(lower, upper, lower_source, upper_source))


def write_sample(
    folder: Path,
    adata: anndata.AnnData,
    *,
    sample: str = "blood",
    final: np.ndarray | None = None,
    reason: np.ndarray | None = None,
    umaps: bool = True,
    model: bool = True,
    note: str = "A note from CONVERT.",
    warning: str = "Gene overlap is low: 74.0 %.",
    seed: int = 0,
) -> dict[str, Path]:
    """Write every file that report.py takes; return its options as names to paths.

    adata: raw counts with obs['cell_type']: that is what is predicted.
    """
    generator = np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    names = OutputNames.of()
    predicted = adata.obs["cell_type"].astype(str).to_numpy(dtype=object)
    n = len(predicted)
    if final is None:
        final = predicted.copy()
        final[:: max(n // 12, 2)] = "unassigned"
    if reason is None:
        reason = np.where(final == "unassigned", "novel", "")
    labels, codes = np.unique(predicted.astype(str), return_inverse=True)
    turn = 2 * np.pi * codes / len(labels)
    place = np.column_stack([np.cos(turn), np.sin(turn)]) * 6 + generator.normal(size=(n, 2))
    cells = anndata.AnnData(
        X=sp.csr_matrix(adata.X, dtype=np.float32), obs=adata.obs.copy(), var=adata.var.copy()
    )
    if "gene_symbols" not in cells.var:
        cells.var["gene_symbols"] = cells.var_names
    unassigned = final == "unassigned"
    cells.obs[names.predicted] = pd.Categorical(predicted)
    cells.obs[names.final] = pd.Categorical(final)
    cells.obs[names.reason] = pd.Categorical(reason)
    cells.obs[names.uncertainty] = np.where(unassigned, generator.beta(4, 3, n), generator.beta(1, 9, n))
    cells.obs[names.reference_distance] = np.where(
        unassigned, generator.beta(30, 1, n), generator.uniform(size=n)
    )
    cells.obs[names.cl_id] = pd.Categorical([TYPES.get(label, "") for label in predicted])
    cells.obs[names.cluster] = pd.Categorical(codes.astype(str))
    properties = ["predicted", "uncertainty", "final", "reason", "cl_id", "cluster", "reference_distance"]
    if umaps:
        cells.obsm[names.umap] = place.astype(np.float32)
        cells.obsm[names.reference_umap] = (place[:, ::-1] * 1.5).astype(np.float32)
        properties += ["umap", "reference_umap"]
    cells.uns[names.predictions] = {"date": "2024-05-06", "model_url": "assets/models/blood"}
    annotated = folder / f"{sample}.annotated.h5ad"
    write_h5ad(cells, annotated)

    spread = {"median": 2197.0, "q25": 1757.25, "q75": 2763.0, "min": 548.0, "max": 15844.0}
    write_json(
        {
            "sample": sample,
            "path": "/data/blood/outs",
            "source": "10x_h5_v3",
            "counts_from": "matrix",
            "n_cells": n + 31,
            "n_genes": 32738,
            "organism": "human",
            "genomes": ["GRCh38"],
            "genome_prefix_removed": "",
            "features": {"Gene Expression": 32738, "Antibody Capture": 17},
            "called_cells": None,
            "cellranger_metrics": {"Fraction Reads in Cells": 0.919},
            "notes": [note],
            "warnings": [warning],
        },
        folder / "convert.json",
    )
    write_json(
        {
            "sample": sample,
            "mode": "filter",
            "n_cells_before": n + 31,
            "n_cells_after": n,
            "n_genes_before": 32738,
            "n_genes_after": 13714,
            "thresholds": {
                "total_counts": bounds(712.0, None, "mad", "off"),
                "n_genes_by_counts": bounds(200.0, 5232.0, "fixed", "mad"),
                "pct_counts_mt": bounds(None, 7.34, "off", "mad"),
                "pct_counts_hb": bounds(None, None, "off", "off"),
            },
            "removed_by": {"low_counts": 12, "high_mt": 17, "doublet": 9, "high_hb": 0},
            "before": {
                "total_counts": spread,
                "pct_counts_mt": {**spread, "median": 2.1, "q25": 1.5, "q75": 2.9},
            },
            "after": {
                "total_counts": spread,
                "pct_counts_mt": {**spread, "median": 2.0, "q25": 1.5, "q75": 2.8},
            },
            "doublets": {
                "status": "called",
                "threshold": 0.31,
                "expected_rate": 0.022,
                "n": 9,
                "message": "9 cells called doublets.",
            },
            "warnings": [f" {warning.lower()} "],
        },
        folder / "qc.json",
    )
    counts = {label: int((final == label).sum()) for label in sorted(set(final))}
    write_json(
        {
            "sample": sample,
            "model": {
                "name": "blood",
                "version": "1.0",
                "sha256": "ab" * 32,
                "kind": "consensus",
                "url": "assets/models/blood",
                "organism": "human",
            },
            "names": {name: getattr(names, name) for name in properties},
            "parameters": {"classifier": "consensus"},
            "n_cells": n,
            "labels": labels.tolist(),
            "composition": counts,
            "predicted_composition": {},
            "unassigned": int(unassigned.sum()),
            "reasons": {"novel": int(unassigned.sum())},
            "median_uncertainty": 0.08,
            "gene_overlap": 0.914,
            "n_model_genes": 2000,
            "n_genes_found": 1828,
            "genes_matched_by": "gene_ids",
            "missing_genes": ["TRBC1", "TRBC2", "TRAC"],
            "n_refit_genes": 1234,
            "set_sizes": {"1": 88, "2": 9, "4": 3},
            "reference_distance": {"median": 0.52, "share_beyond_99": 0.043},
            "clusters": [
                {"cluster": str(i), "n_cells": int((codes == i).sum()), "label": str(label), "vote": 0.93}
                for i, label in enumerate(labels)
            ],
            "levels": [],
            "warnings": [],
        },
        folder / "annotation.json",
    )
    model_folder = folder / "model"
    model_folder.mkdir(exist_ok=True)
    if model:
        write_json(
            {
                "name": "blood",
                "version": "1.0",
                "kind": "consensus",
                "description": "Blood of adults.",
                "licence": "CC-BY-4.0",
                "citation": "Somebody 2024",
                "labels": [
                    {
                        "label": label,
                        "cl_id": TYPES.get(label, ""),
                        "cl_name": label.lower(),
                        "n_cells": 100,
                        "n_batches": 2,
                    }
                    for label in labels
                ],
                "training": {"n_cells": 4200},
                "does_not_know": ["neutrophils", "macrophages"],
            },
            model_folder / "manifest.json",
        )
        (model_folder / "markers.json").write_text(json.dumps(expected_markers(adata)))
    for name in ("violin", "knee", "scatter"):
        (folder / f"qc_{name}.png").write_bytes(png(name))
    return {
        "annotated": annotated,
        "convert": folder / "convert.json",
        "qc": folder / "qc.json",
        "annotation": folder / "annotation.json",
        "qc_violin": folder / "qc_violin.png",
        "qc_knee": folder / "qc_knee.png",
        "qc_scatter": folder / "qc_scatter.png",
        "models": (model_folder,),
        "output": folder / f"{sample}.report.html",
        "markers": folder / f"{sample}.markers.tsv",
        "differential": folder / f"{sample}.de.tsv.gz",
        "clusters": folder / f"{sample}.clusters.tsv",
        "verdicts": folder / f"{sample}.verdicts.tsv",
        "verdict_summary": folder / f"{sample}.verdicts.json",
        "truth": folder / f"{sample}.truth.tsv",
        "truth_summary": folder / f"{sample}.truth.json",
    }
