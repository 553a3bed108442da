"""A tiny model folder that obeys the manifest, for tests of what happens to models."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cellscribe.model.manifest import write_manifest

FIELDS: dict[str, Any] = {
    "name": "tiny",
    "version": "1.0",
    "kind": "logistic",
    "organism": "human",
    "created": "2025-01-31",
    "description": "",
    "licence": "MIT",
    "citation": "",
    "label_key": "cell_type",
    "labels": [
        {"label": "T cell", "cl_id": "CL:0000084", "cl_name": "T cell", "n_cells": 60, "n_batches": 2},
        {"label": "B cell", "cl_id": "", "cl_name": "", "n_cells": 40, "n_batches": 2},
    ],
    "levels": [{"name": "broad", "labels": {"T cell": "lymphocyte", "B cell": "lymphocyte"}}],
    "genes": {"n": 2, "id_column": "gene_ids", "has_ids": True, "has_symbols": True},
    "members": [{"name": "logistic", "parameters": {"C": 1.0}}],
    "calibration": {},
    "rejection": {},
    "training": {
        "n_cells": 100,
        "n_genes": 2,
        "sources": ["tiny"],
        "batch_key": None,
        "n_batches": 2,
        "parameters": {},
        "seed": 0,
    },
    "evaluation": {},
    "does_not_know": ["everything else"],
    "libraries": {"numpy": "2.3"},
    "pipeline_version": "0.1.0",
}


def make_model(folder: Path) -> Path:
    """Write a model folder whose files hold their own names."""
    for name in ("MLmodel", "genes.tsv", "silent_genes.tsv", "logistic.safetensors", "code/model.py"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(Path(name).name)
    write_manifest(folder, FIELDS)
    return folder
