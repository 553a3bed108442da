"""ANNOTATE: name the cells, say how sure that is, and write the output contract."""

from __future__ import annotations

import datetime
import json
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from cellscribe.answer import Answer, Decision, answer_cells
from cellscribe.cli import log, warn
from cellscribe.clusters import (
    FEWEST_CELLS,
    flat_layout,
    leiden,
    majority,
    neighbour_graph,
    umap_layout,
)
from cellscribe.contract import UNASSIGNED, OutputNames
from cellscribe.counts_file import CountsFile, open_counts
from cellscribe.errors import InputError
from cellscribe.explorer import explorer_warnings
from cellscribe.io import atomic_path, plain_columns, write_json, write_table
from cellscribe.mapping import Mapping, read_mapping
from cellscribe.model.manifest import MANIFEST
from cellscribe.model.model import Model

if TYPE_CHECKING:
    from cellscribe.foreign import Prediction
    from cellscribe.model.foreign import ForeignModel

FAR = 0.99


@dataclass
class Annotation:
    """Everything that annotation adds. obs: columns by key, in order; obsm: arrays; info: for annotation.json."""

    names: OutputNames
    obs: pd.DataFrame
    obsm: dict[str, np.ndarray]
    predictions: pd.DataFrame
    info: dict[str, Any]
    uns: dict[str, Any] = field(default_factory=dict)


def annotate_cells(
    answer: Answer,
    barcodes: pd.Index,
    names: OutputNames,
    *,
    seed: int = 0,
    pipeline_version: str = "unknown",
) -> Annotation:
    """Everything that the output contract asks for, from what a model says of the cells."""
    predicted, decision, quantile = answer.predicted, answer.decision, answer.distance_quantile
    labels, cl_ids = np.array(answer.labels, dtype=object), np.array(answer.cl_ids, dtype=object)
    n_cells = len(barcodes)
    warnings = list(answer.mapping["warnings"])
    if n_cells >= FEWEST_CELLS:
        near, far = neighbour_graph(answer.embedding, seed=seed)
        clusters = leiden(near, seed=seed)
        layout = answer.umap
        if layout is None:
            layout = umap_layout(answer.embedding, near, far, start=answer.reference_umap, seed=seed)
    else:
        warnings.append(
            f"With {n_cells} cells there are no clusters and no UMAP: one cluster is given, and principal components."
        )
        clusters = np.zeros(n_cells, dtype=int)
        layout = flat_layout(answer.embedding)
    winners, shares = majority(clusters, predicted, len(labels))

    obs: dict[str, Any] = {
        names.predicted: pd.Categorical(labels[predicted], categories=_used(labels, predicted)),
        names.uncertainty: answer.uncertainty.astype(np.float32),
        names.final: pd.Categorical(decision.final),
        names.reason: pd.Categorical(decision.reason),
        names.cl_id: pd.Categorical(cl_ids[predicted]),
        names.final_cl_id: pd.Categorical(decision.final_cl_id),
    }
    for level, (coarse, uncertainty) in answer.levels.items():
        obs[names.level(level)] = pd.Categorical(coarse)
        obs[names.level_uncertainty(level)] = uncertainty.astype(np.float32)
    obs[names.cluster] = pd.Categorical(
        clusters.astype(str), categories=[str(c) for c in range(clusters.max() + 1)]
    )
    obs[names.cluster_label] = pd.Categorical(labels[winners][clusters])
    obs[names.cluster_vote] = shares[clusters].astype(np.float32)
    if quantile is not None:
        obs[names.reference_distance] = quantile
    if answer.unexpected is not None:
        obs[names.unexpected] = answer.unexpected.astype(np.float32)
    table = pd.DataFrame(obs, index=barcodes)
    obsm = {
        names.embedding: answer.embedding.astype(np.float32),
        names.umap: layout,
        names.umap_explorer: layout,
    }
    if answer.reference_umap is not None:
        obsm[names.reference_umap] = answer.reference_umap

    predictions = table.copy()
    predictions.columns = [str(c).removeprefix(f"{names.key}_") for c in table.columns]
    predictions = predictions.rename(columns={"predicted_uncertainty": "uncertainty"})
    if answer.second is not None:
        second, probability = answer.second
        predictions["second_label"] = labels[second]
        predictions["second_probability"] = probability
    predictions.insert(0, "barcode", np.asarray(barcodes, dtype=object))

    info = {
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
                "cluster_vote",
                "reference_distance",
                "unexpected",
            )
        },
        "parameters": answer.parameters | {"seed": seed},
        "pipeline_version": pipeline_version,
        "n_cells": n_cells,
        "composition": _counts(decision.final),
        "predicted_composition": _counts(labels[predicted]),
        "unassigned": int((decision.final == UNASSIGNED).sum()),
        "reasons": {key: number for key, number in _counts(decision.reason).items() if key},
        "median_uncertainty": float(np.median(table[names.uncertainty])),
        **{
            key: answer.mapping[key]
            for key in ("gene_overlap", "n_model_genes", "n_genes_found", "genes_matched_by", "missing_genes")
        },
        "reference_distance": None
        if quantile is None
        else {"median": float(np.median(quantile)), "share_beyond_99": float((quantile >= FAR).mean())},
        "clusters": [
            {
                "cluster": str(cluster),
                "n_cells": int((clusters == cluster).sum()),
                "label": str(labels[winners[cluster]]),
                "vote": float(shares[cluster]),
            }
            for cluster in range(clusters.max() + 1)
        ],
        "levels": list(answer.levels),
        "warnings": [*warnings, *answer.warnings, *annotation_warnings(decision, quantile)],
    }
    uns = {
        "model_url": answer.model["url"],
        "model_name": answer.model["name"],
        "model_version": answer.model["version"],
        "model_sha256": answer.model["sha256"],
        "pipeline_version": pipeline_version,
        "parameters": json.dumps(info["parameters"], sort_keys=True),
        # Which genes a model made by others looks at, only its code knows; older readers know no null.
        **{
            key: answer.mapping[key]
            for key in ("gene_overlap", "genes_matched_by")
            if answer.mapping[key] is not None
        },
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "obs_keys": list(table.columns),
        "obsm_keys": list(obsm),
    }
    return Annotation(names, table, obsm, predictions, info, uns)


def annotation_warnings(decision: Decision, quantile: np.ndarray | None) -> list[str]:
    """What a reader must know before trusting the labels."""
    warnings = []
    unassigned = float(np.mean(decision.final == UNASSIGNED))
    if unassigned > 0.2:
        warnings.append(
            f"{unassigned:.0%} of the cells are unassigned: the sample holds cells that the model was not trained on, "
            "or is of lower quality than its reference."
        )
    if quantile is not None and (far := float(np.mean(quantile >= FAR))) > 0.1:
        warnings.append(
            f"{far:.0%} of the cells lie farther from the reference than 99 % of its own cells: cell types or states "
            "that the model does not know, or a strong technical difference."
        )
    return warnings


def _counts(values: np.ndarray) -> dict[str, int]:
    names, numbers = np.unique(values.astype(str), return_counts=True)
    order = np.lexsort((names, -numbers))
    return {str(names[i]): int(numbers[i]) for i in order}


def _used(labels: np.ndarray, codes: np.ndarray) -> list[str]:
    return [str(label) for i, label in enumerate(labels) if (codes == i).any()]


def write_annotated(counts: Path, annotation: Annotation, output: Path) -> list[str]:
    """Copy the filtered counts file and add the annotation to the copy; the matrix is never read.

    What an earlier annotation of the same name added goes, so that nothing of another model stays beside it. Returns
    in sentences what CELLxGENE Explorer will not show of the file.
    """
    import anndata
    import h5py
    from anndata.io import read_elem, write_elem

    with (
        atomic_path(output) as temporary,
        anndata.settings.override(allow_write_nullable_strings=False),
    ):
        shutil.copyfile(counts, temporary)
        with h5py.File(temporary, "r+") as file:
            earlier = _earlier(file, annotation.names, read_elem)
            obs = read_elem(file["obs"])
            gone = {*annotation.obs.columns, *earlier.get("obs_keys", ())}
            obs = obs.drop(columns=[c for c in obs.columns if c in gone])
            obs = pd.concat([obs, annotation.obs.set_axis(obs.index, axis=0)], axis=1)
            plain_columns(obs)
            _replace(file, "obs", obs, write_elem)
            for group in ("obsm", "uns"):
                if group not in file:
                    write_elem(file, group, {})
            for key in earlier.get("obsm_keys", ()):
                if key in file["obsm"]:
                    del file["obsm"][key]
            for key, array in annotation.obsm.items():
                _replace(file["obsm"], key, array, write_elem)
            _replace(file["uns"], annotation.names.predictions, annotation.uns, write_elem)
            return explorer_warnings(obs, file["obsm"])


def _earlier(file: Any, names: OutputNames, read_elem: Any) -> dict[str, list[str]]:
    """Which obs and obsm keys an annotation of this name wrote before; empty for another program's."""
    key = f"uns/{names.predictions}"
    found = read_elem(file[key]) if key in file else {}
    if not isinstance(found, dict):
        return {}
    return {
        part: [str(name) for name in found.get(part, ()) if names.key in str(name)]
        for part in ("obs_keys", "obsm_keys")
    }


def _replace(group: Any, key: str, value: Any, write_elem: Any) -> None:
    if key in group:
        del group[key]
    write_elem(group, key, value, dataset_kwargs={} if isinstance(value, dict) else {"compression": "lzf"})


def run_annotate(
    counts: Path,
    mapping_path: Path,
    model_folder: Path,
    *,
    sample: str,
    output: Path,
    predictions: Path,
    summary: Path,
    names: OutputNames,
    classifier: str = "default",
    model_url: str = "",
    seed: int = 0,
    pipeline_version: str = "unknown",
) -> None:
    """Annotate a mapped sample: annotated.h5ad, predictions.tsv.gz and annotation.json (docs/outputs.md)."""
    cells = open_counts(counts)
    annotation = annotate_cells(
        sample_answer(cells, mapping_path, model_folder, classifier=classifier, model_url=model_url),
        cells.obs.index,
        names,
        seed=seed,
        pipeline_version=pipeline_version,
    )
    annotation.info["warnings"] += write_annotated(counts, annotation, output)
    for warning in annotation.info["warnings"]:
        warn(warning)
    write_table(annotation.predictions.round(6), predictions)
    write_json({"sample": sample, **annotation.info}, summary)
    log(
        f"{cells.n_obs:,} cells named; {annotation.info['unassigned']:,} of them left unassigned; "
        f"median uncertainty {annotation.info['median_uncertainty']:.2f}"
    )


def sample_answer(
    cells: CountsFile,
    mapping_path: Path,
    model_folder: Path,
    *,
    classifier: str = "default",
    model_url: str = "",
) -> Answer:
    """What a model says of a sample's cells by their mapping, as MAP wrote it or, for a model made by others, PREDICT.

    Raises InputError where the mapping is of other cells or of another model.
    """
    if (Path(model_folder) / MANIFEST).is_file():
        mapping, model = read_mapping(mapping_path), Model(model_folder)
        check_same(cells, mapping, model, mapping_path)
        return answer_cells(mapping, model, classifier=classifier, model_url=model_url)
    # Here, as models carry this file into environments that have no use for those.
    from cellscribe.foreign import answer_prediction, read_prediction_mapping
    from cellscribe.model.foreign import open_foreign

    prediction = read_prediction_mapping(mapping_path)
    check_same(cells, prediction, open_foreign(model_folder), mapping_path)
    return answer_prediction(prediction, model_url)


def check_same(
    cells: CountsFile, mapping: Mapping | Prediction, model: Model | ForeignModel, path: Path
) -> None:
    """Raises InputError where the mapping is of other cells or of another model."""
    if mapping.n_obs != cells.n_obs:
        raise InputError(
            f"the mapping has {mapping.n_obs:,} cells, the counts have {cells.n_obs:,}",
            "Run map.py, or predict.py for a model made by others, again on these counts.",
            file=path,
        )
    if mapping.barcodes is not None and list(mapping.barcodes) != list(cells.obs.index):
        raise InputError(
            "the mapping is of other cells than the counts, or in another order",
            "Run map.py, or predict.py for a model made by others, again on these counts.",
            file=path,
        )
    if mapping.info["model_sha256"] != model.sha256:
        raise InputError(
            f"the mapping was made with another model than '{model.name}'",
            "Run map.py, or predict.py for a model made by others, again.",
            file=path,
        )
