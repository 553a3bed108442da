"""What annotation adds to the cells: columns, clusters with their votes, UMAPs, a table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from cellscribe.annotation_info import information, provenance
from cellscribe.answer import Answer
from cellscribe.clusters import FEWEST_CELLS, RESOLUTION, Clusters, clusters_and_map, commonest, majority
from cellscribe.contract import OutputNames


@dataclass
class Annotation:
    """Everything that annotation adds. obs: columns in order; obsm, uns: by key; info: for annotation.json."""

    names: OutputNames
    obs: pd.DataFrame
    obsm: dict[str, np.ndarray]
    predictions: pd.DataFrame
    info: dict[str, Any]
    uns: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Layout:
    """How cells lie to each other: clusters, umap float32 (n_cells, 2), warnings to the reader."""

    clusters: Clusters
    umap: np.ndarray
    warnings: Sequence[str] = ()


@dataclass(frozen=True)
class Votes:
    """What a cluster's cells are, (n_clusters,): its label's position, the share of its cells that have it, and the
    commonest label after rejection.
    """

    winners: np.ndarray
    shares: np.ndarray
    finals: np.ndarray


@dataclass(frozen=True)
class Grouping:
    """How cells are to be clustered: as they are already (`given`), else at a resolution. warnings: to the reader."""

    given: Clusters | None = None
    resolution: float = RESOLUTION
    warnings: Sequence[str] = ()


BY_LEIDEN = Grouping()


def grouping_of(obs: pd.DataFrame, cluster_key: str | None, resolution: float = RESOLUTION) -> Grouping:
    """The clusters of a column of obs, where it is asked for and there, else a resolution to find clusters at."""
    if not cluster_key:
        return Grouping(resolution=resolution)
    # Here, as models carry this file into environments that have no use for it.
    from cellscribe.given_clusters import read_clusters

    given, warnings = read_clusters(obs, cluster_key)
    return Grouping(given, resolution, warnings)


def lay_out(answer: Answer, grouping: Grouping = BY_LEIDEN, seed: int = 0, cpus: int = 1) -> Layout:
    """Cluster the cells in a model's embedding unless they are clustered, and lay them out unless the model did."""
    clusters, umap = clusters_and_map(
        answer.embedding,
        codes=answer.predicted,
        start=answer.reference_umap,
        umap=answer.umap,
        graph=answer.near,
        clusters=grouping.given,
        resolution=grouping.resolution,
        seed=seed,
        cpus=cpus,
    )
    n_cells = len(umap)
    if n_cells >= FEWEST_CELLS:
        return Layout(clusters, umap, grouping.warnings)
    few = (
        f"With {n_cells} cells there is no UMAP: principal components are given."
        if grouping.given
        else f"With {n_cells} cells there are no clusters and no UMAP: one cluster is given, and principal components."
    )
    return Layout(clusters, umap, (*grouping.warnings, few))


def annotate_cells(
    answer: Answer,
    barcodes: pd.Index,
    names: OutputNames,
    *,
    layout: Layout | None = None,
    grouping: Grouping = BY_LEIDEN,
    probabilities: bool = False,
    seed: int = 0,
    cpus: int = 1,
    pipeline_version: str = "unknown",
) -> Annotation:
    """Everything that the output contract asks for, from what a model says of the cells.

    layout: of these cells, where there is one already; else grouping says how to cluster them. probabilities: whether
    to add those of every label.
    """
    layout = layout or lay_out(answer, grouping, seed, cpus)
    inside, codes = layout.clusters.inside, layout.clusters.codes
    votes = Votes(
        *majority(codes[inside], answer.predicted[inside], len(answer.labels)),
        commonest(codes[inside], answer.decision.final[inside])[0],
    )
    table = _columns(answer, barcodes, names, layout, votes)
    obsm = {
        names.embedding: answer.embedding.astype(np.float32),
        names.umap: layout.umap,
        names.umap_explorer: layout.umap,
    }
    if answer.reference_umap is not None:
        obsm[names.reference_umap] = answer.reference_umap
    if probabilities and answer.probabilities is not None:
        obsm[names.probabilities] = answer.probabilities.astype(np.float32)
    info = information(answer, table, names, layout, votes) | {
        "parameters": answer.parameters | layout.clusters.origin | {"seed": seed},
        "pipeline_version": pipeline_version,
    }
    uns = provenance(answer, info) | {"obs_keys": list(table.columns), "obsm_keys": list(obsm)}
    return Annotation(names, table, obsm, _predictions(answer, table, names), info, {names.predictions: uns})


def _columns(
    answer: Answer,
    barcodes: pd.Index,
    names: OutputNames,
    layout: Layout,
    votes: Votes,
) -> pd.DataFrame:
    """The columns of obs."""
    predicted, decision, clusters = answer.predicted, answer.decision, layout.clusters
    labels, cl_ids = np.array(answer.labels, dtype=object), np.array(answer.cl_ids, dtype=object)
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
    obs[names.cluster] = clusters.column()
    # A cell that is in no cluster is alone in voting, for its own label.
    obs[names.cluster_label] = pd.Categorical(clusters.of_each_cell(labels[votes.winners], labels[predicted]))
    obs[names.cluster_final] = pd.Categorical(clusters.of_each_cell(votes.finals, decision.final))
    alone = np.ones(len(predicted))
    obs[names.cluster_vote] = clusters.of_each_cell(votes.shares, alone).astype(np.float32)
    if answer.distance_quantile is not None:
        obs[names.reference_distance] = answer.distance_quantile
    if answer.unexpected is not None:
        obs[names.unexpected] = answer.unexpected.astype(np.float32)
    if answer.novelty is not None:
        obs[names.novelty] = answer.novelty
    if answer.set_sizes is not None:
        obs[names.set_size] = answer.set_sizes.astype(np.int32)
    if answer.agreeing is not None:
        obs[names.agreeing] = answer.agreeing
    return pd.DataFrame(obs, index=barcodes)


def _predictions(answer: Answer, table: pd.DataFrame, names: OutputNames) -> pd.DataFrame:
    """The columns of obs as a table of their own, with the next label and each cell's set."""
    predictions = table.copy()
    predictions.columns = [str(c).removeprefix(f"{names.key}_") for c in table.columns]
    predictions = predictions.rename(columns={"predicted_uncertainty": "uncertainty"})
    if answer.second is not None:
        second, probability = answer.second
        predictions["second_label"] = np.array(answer.labels, dtype=object)[second]
        predictions["second_probability"] = probability
    if answer.label_sets is not None:
        predictions["label_set"] = answer.label_sets
    predictions.insert(0, "barcode", np.asarray(table.index, dtype=object))
    return predictions


def _used(labels: np.ndarray, codes: np.ndarray) -> list[str]:
    return [str(label) for i, label in enumerate(labels) if (codes == i).any()]
