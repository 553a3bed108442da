"""ANNOTATE: name the cells, say how sure that is, and write the output contract."""

from __future__ import annotations

import datetime
import json
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

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
from cellscribe.io import atomic_path, plain_columns, write_json, write_table
from cellscribe.mapping import Mapping, read_mapping
from cellscribe.model.model import Model
from cellscribe.model.neighbours import place_on
from cellscribe.model.ontology import descendants, nearest_safe_ancestor

FAR = 0.99


@dataclass(frozen=True)
class Decision:
    """The label after rejection; arrays of text (n_cells,)."""

    final: np.ndarray
    final_cl_id: np.ndarray
    reason: np.ndarray


@dataclass
class Annotation:
    """Everything that annotation adds. obs: columns by key, in order; obsm: arrays; info: for annotation.json."""

    names: OutputNames
    obs: pd.DataFrame
    obsm: dict[str, np.ndarray]
    predictions: pd.DataFrame
    info: dict[str, Any]
    uns: dict[str, Any] = field(default_factory=dict)


def unexpected_share(mapping: Mapping) -> np.ndarray:
    """Share of each cell's counts on genes that no reference type expresses: float (n_cells,), 0 to 1."""
    return mapping.n_silent_counts / np.maximum(mapping.n_counts, 1)


def decide(
    model: Model, probabilities: np.ndarray, distance_quantile: np.ndarray | None, mapping: Mapping
) -> Decision:
    """Accept the most probable label, step up to an ancestor, or leave the cell unassigned.

    probabilities: (n_cells, n_labels), calibrated. distance_quantile: (n_cells,) or None. In this order: too few counts
    on the model's genes (`low_information`); farther than nearly all reference cells, or more counts on genes that no
    reference type expresses than nearly all held-out cells have (`novel`); a label that is probable enough; the nearest
    ancestor whose labels together are (reason `ambiguous`); else unassigned (`ambiguous`). Thresholds stand in the
    model's manifest.
    """
    limits = model.manifest["rejection"]
    labels, cl_ids = np.array(model.labels, dtype=object), np.array(model.cl_ids, dtype=object)
    best = probabilities.argmax(axis=1)
    final, final_cl_id = labels[best], cl_ids[best]
    reason = np.full(len(best), "", dtype=object)

    covers = descendants(model.ontology, model.cl_ids)
    doubtful = probabilities.max(axis=1) < limits["least_probability"]
    for row in np.flatnonzero(doubtful):
        ancestor = nearest_safe_ancestor(
            model.ontology, covers, cl_ids[best[row]], probabilities[row], limits["ancestor_probability"]
        )
        final[row] = model.ontology.name(ancestor) if ancestor else UNASSIGNED
        final_cl_id[row] = ancestor
    reason[doubtful] = "ambiguous"
    novel = (mapping.n_silent_counts >= limits["least_unexpected_counts"]) & (
        unexpected_share(mapping) > limits["unexpected_share"]
    )
    if distance_quantile is not None:
        novel |= distance_quantile >= limits["distance_quantile"]
    final[novel], final_cl_id[novel], reason[novel] = UNASSIGNED, "", "novel"
    shallow = mapping.n_model_counts < limits["least_counts"]
    final[shallow], final_cl_id[shallow], reason[shallow] = UNASSIGNED, "", "low_information"
    return Decision(final, final_cl_id, reason)


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


def annotate_cells(
    mapping: Mapping,
    model: Model,
    barcodes: pd.Index,
    names: OutputNames,
    *,
    classifier: str = "default",
    model_url: str = "",
    seed: int = 0,
    pipeline_version: str = "unknown",
) -> Annotation:
    """Name mapped cells. Raises InputError where the model has no such classifier."""
    chosen = model.classifier(classifier)
    members = model.member_probabilities(
        latent=mapping.latent,
        distances=mapping.distances,
        indices=mapping.indices,
        logistic_scores=mapping.logistic_scores,
        members=model.classifiers[chosen],
    )
    probabilities = model.pooled(members, chosen)
    order = np.argsort(-probabilities, axis=1, kind="stable")
    best = order[:, 0]
    labels = np.array(model.labels, dtype=object)
    cl_ids = np.array(model.cl_ids, dtype=object)
    n_cells = len(barcodes)
    rows = np.arange(n_cells)

    quantile = None
    if mapping.distances is not None:
        quantile = model.reference.quantile(mapping.distances.mean(axis=1))
    decision = decide(model, probabilities, quantile, mapping)

    embedding = mapping.latent
    if embedding is None:
        assert mapping.logistic_scores is not None
        embedding = mapping.logistic_scores - mapping.logistic_scores.mean(axis=1, keepdims=True)
    on_reference = None
    if mapping.distances is not None and mapping.indices is not None and len(model.reference.umap):
        on_reference = place_on(mapping.distances, mapping.indices, model.reference.umap)
    warnings = list(mapping.info["warnings"])
    if n_cells >= FEWEST_CELLS:
        near, far = neighbour_graph(embedding, seed=seed)
        clusters = leiden(near, seed=seed)
        layout = umap_layout(embedding, near, far, start=on_reference, seed=seed)
    else:
        warnings.append(
            f"With {n_cells} cells there are no clusters and no UMAP: one cluster is given, and principal components."
        )
        clusters = np.zeros(n_cells, dtype=int)
        layout = flat_layout(embedding)
    winners, shares = majority(clusters, best, len(labels))

    obs: dict[str, Any] = {
        names.predicted: pd.Categorical(labels[best], categories=_used(labels, best)),
        names.uncertainty: (1 - probabilities[rows, best]).astype(np.float32),
        names.final: pd.Categorical(decision.final),
        names.reason: pd.Categorical(decision.reason),
        names.cl_id: pd.Categorical(cl_ids[best]),
        names.final_cl_id: pd.Categorical(decision.final_cl_id),
    }
    for level, (coarse, uncertainty) in coarser(model, probabilities).items():
        obs[names.level(level)] = pd.Categorical(coarse)
        obs[names.level_uncertainty(level)] = uncertainty.astype(np.float32)
    obs[names.cluster] = pd.Categorical(
        clusters.astype(str), categories=[str(c) for c in range(clusters.max() + 1)]
    )
    obs[names.cluster_label] = pd.Categorical(labels[winners][clusters])
    obs[names.cluster_vote] = shares[clusters].astype(np.float32)
    if quantile is not None:
        obs[names.reference_distance] = quantile
    obs[names.unexpected] = unexpected_share(mapping).astype(np.float32)
    table = pd.DataFrame(obs, index=barcodes)
    obsm = {names.embedding: embedding.astype(np.float32), names.umap: layout, names.umap_explorer: layout}
    if on_reference is not None:
        obsm[names.reference_umap] = on_reference

    second = order[:, 1] if len(labels) > 1 else best
    predictions = table.copy()
    predictions.columns = [str(c).removeprefix(f"{names.key}_") for c in table.columns]
    predictions = predictions.rename(columns={"predicted_uncertainty": "uncertainty"})
    predictions["second_label"] = labels[second]
    predictions["second_probability"] = probabilities[rows, second]
    predictions.insert(0, "barcode", np.asarray(barcodes, dtype=object))

    limits = model.manifest["rejection"]
    info = {
        "model": {
            "name": model.manifest["name"],
            "version": model.manifest["version"],
            "sha256": model.sha256,
            "kind": model.manifest["kind"],
            "url": model_url,
            "organism": model.manifest["organism"],
        },
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
        "parameters": {"classifier": chosen, "seed": seed, "rejection": limits},
        "pipeline_version": pipeline_version,
        "n_cells": n_cells,
        "composition": _counts(decision.final),
        "predicted_composition": _counts(labels[best]),
        "unassigned": int((decision.final == UNASSIGNED).sum()),
        "reasons": {key: number for key, number in _counts(decision.reason).items() if key},
        "median_uncertainty": float(np.median(table[names.uncertainty])),
        **{
            key: mapping.info[key]
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
        "levels": [level["name"] for level in model.manifest["levels"]],
        "warnings": warnings + calibration_warnings(model, chosen) + annotation_warnings(decision, quantile),
    }
    uns = {
        "model_url": model_url,
        "model_name": model.manifest["name"],
        "model_version": model.manifest["version"],
        "model_sha256": model.sha256,
        "pipeline_version": pipeline_version,
        "parameters": json.dumps(info["parameters"], sort_keys=True),
        "gene_overlap": mapping.info["gene_overlap"],
        "genes_matched_by": mapping.info["genes_matched_by"],
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "obs_keys": list(table.columns),
        "obsm_keys": list(obsm),
    }
    return Annotation(names, table, obsm, predictions, info, uns)


def calibration_warnings(model: Model, classifier: str) -> list[str]:
    """What a reader must know of probabilities that were never held against the truth."""
    if model.is_calibrated(classifier):
        return []
    program = model.manifest.get("source", {}).get("program", "another program")
    return [
        f"The uncertainty is {program}'s own and was not calibrated: read it as an order of the cells, not as the "
        "chance of being wrong."
    ]


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


def write_annotated(counts: Path, annotation: Annotation, output: Path) -> None:
    """Copy the filtered counts file and add the annotation to the copy; the matrix is never read.

    What an earlier annotation of the same name added goes, so that nothing of another model stays beside it.
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
    cells, mapping, model = open_counts(counts), read_mapping(mapping_path), Model(model_folder)
    check_same(cells, mapping, model, mapping_path)
    annotation = annotate_cells(
        mapping,
        model,
        cells.obs.index,
        names,
        classifier=classifier,
        model_url=model_url,
        seed=seed,
        pipeline_version=pipeline_version,
    )
    for warning in annotation.info["warnings"]:
        warn(warning)
    write_annotated(counts, annotation, output)
    write_table(annotation.predictions.round(6), predictions)
    write_json({"sample": sample, **annotation.info}, summary)
    log(
        f"{cells.n_obs:,} cells named; {annotation.info['unassigned']:,} of them left unassigned; "
        f"median uncertainty {annotation.info['median_uncertainty']:.2f}"
    )


def check_same(cells: CountsFile, mapping: Mapping, model: Model, path: Path) -> None:
    """Raises InputError where the mapping is of other cells or of another model."""
    if len(mapping.n_model_counts) != cells.n_obs:
        raise InputError(
            f"the mapping has {len(mapping.n_model_counts):,} cells, the counts have {cells.n_obs:,}",
            "Run map.py again on these counts.",
            file=path,
        )
    if mapping.barcodes is not None and list(mapping.barcodes) != list(cells.obs.index):
        raise InputError(
            "the mapping is of other cells than the counts, or in another order",
            "Run map.py again on these counts.",
            file=path,
        )
    if mapping.info["model_sha256"] != model.sha256:
        raise InputError(
            f"the mapping was made with another model than '{model.name}'", "Run map.py again.", file=path
        )
