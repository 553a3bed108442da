"""Annotate one h5ad as it is, without Nextflow: the contract of CZ CELLxGENE Annotate's models."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import scipy.sparse as sp

from cellscribe import genes as gene_names
from cellscribe.annotated_file import write_annotated
from cellscribe.annotation import annotate_cells, grouping_of
from cellscribe.annotation_info import named_words
from cellscribe.answer import AS_THE_MODEL, Strictness, answer_cells
from cellscribe.cli import log, warn
from cellscribe.clusters import RESOLUTION
from cellscribe.contract import OutputNames
from cellscribe.counts import gene_features
from cellscribe.counts_file import CHUNK_ROWS
from cellscribe.errors import InputError
from cellscribe.h5ad_input import read_h5ad
from cellscribe.mapping import check_organism, map_cells
from cellscribe.model.model import Model

REQUEST_DEFAULTS: dict[str, Any] = {
    "annotation_prefix": "cxg_cell_type",
    "counts_layer": None,
    "gene_column_name": None,
    "classifier": "default",
    "organism": "auto",
    "use_gpu": False,
}


@dataclass(frozen=True)
class CountsInMemory:
    """Counts already read: matrix CSR (n_obs, n_genes), var one row a gene."""

    matrix: sp.csr_matrix
    var: pd.DataFrame

    @property
    def n_obs(self) -> int:
        """Cells."""
        return int(self.matrix.shape[0])

    def chunks(self, rows: int = CHUNK_ROWS) -> Iterator[tuple[slice, sp.csr_matrix]]:
        """Consecutive rows and their counts, which are not copied."""
        matrix = self.matrix
        for start in range(0, self.n_obs, rows):
            stop = min(start + rows, self.n_obs)
            first, last = matrix.indptr[start], matrix.indptr[stop]
            parts = (
                matrix.data[first:last],
                matrix.indices[first:last],
                matrix.indptr[start : stop + 1] - first,
            )
            yield slice(start, stop), sp.csr_matrix(parts, shape=(stop - start, matrix.shape[1]))


def annotate_file(
    query: Path,
    output: Path,
    model: Model,
    *,
    key: str = "cxg_cell_type",
    counts_layer: str | None = None,
    gene_column: str | None = None,
    classifier: str = "default",
    strictness: Strictness = AS_THE_MODEL,
    cluster_key: str | None = None,
    cluster_resolution: float = RESOLUTION,
    organism: str = "auto",
    use_gpu: bool | None = False,
    model_url: str = "",
    min_gene_overlap: float = 0.5,
    warn_gene_overlap: float = 0.8,
    orthologs: bool = False,
    told: bool = False,
    seed: int = 0,
    cpus: int = 1,
    pipeline_version: str = "unknown",
) -> dict[str, Any]:
    """Write a copy of `query` with the annotation added; returns what annotation.json holds.

    No cell is removed and no quality control done. key: prefix, type and run name, joined. told: whether CONVERT made
    `query`, and has said what a reader must know of the reading. use_gpu: as in `map_cells`. cluster_key: a column of
    obs whose clusters take the place of those found here, at `cluster_resolution`. Raises InputError and
    ModelMismatchError as CONVERT, MAP and ANNOTATE do.
    """
    counts = read_h5ad(query, counts_layer)
    types = counts.feature_types
    is_gene = np.flatnonzero(gene_features(types, pd.unique(types), query))
    var = counts.var.iloc[is_gene]
    identity, _ = gene_names.identify_genes(var, gene_column, [])
    for warning in () if told else (*counts.warnings, *identity.warnings):
        warn(warning)
    seen, sentence = gene_names.check_organism(
        gene_names.read_organism(organism), identity.gene_ids, identity.gene_symbols
    )
    if seen == "unknown" and not told:
        warn(sentence)
    orthologs_of = check_organism(model, organism, seen, orthologs=orthologs)
    if not gene_column:
        var = var.assign(gene_ids=identity.gene_ids, gene_symbols=identity.gene_symbols)
    cells = CountsInMemory(counts.matrix[:, is_gene].tocsr(), var)
    mapping = map_cells(
        cells,
        model,
        gene_column=gene_column,
        min_gene_overlap=min_gene_overlap,
        warn_gene_overlap=warn_gene_overlap,
        use_gpu=use_gpu,
        orthologs_of=orthologs_of,
        cpus=cpus,
    )
    annotation = annotate_cells(
        answer_cells(
            mapping,
            model,
            classifier=classifier,
            strictness=strictness,
            model_url=model_url,
            seed=seed,
            cpus=cpus,
        ),
        counts.obs.index,
        OutputNames(key),
        grouping=grouping_of(counts.obs, cluster_key, cluster_resolution),
        seed=seed,
        cpus=cpus,
        pipeline_version=pipeline_version,
    )
    for warning in annotation.info["warnings"]:
        if warning not in mapping.info["warnings"]:
            warn(warning)
    for warning in write_annotated(query, annotation, output):
        warn(warning)
    log(f"{named_words(annotation.info)}: {output}")
    return annotation.info


def answer_request(request: str, model_folder: Path) -> str:
    """Do what one JSON request of CELLxGENE Annotate's contract asks; returns the output's path.

    Absent keys take their defaults. Raises InputError for a request that is no JSON object or lacks a path.
    """
    try:
        asked = json.loads(request)
        query, output = Path(asked["query_dataset_h5ad_path"]), Path(asked["output_h5ad_path"])
    except (ValueError, TypeError, KeyError) as error:
        raise InputError(
            f"the request is not a JSON object with query_dataset_h5ad_path and output_h5ad_path ({error})"
        ) from error
    options = REQUEST_DEFAULTS | {key: value for key, value in asked.items() if value is not None}
    annotate_file(
        query,
        output,
        Model(model_folder),
        key=options["annotation_prefix"],
        counts_layer=options["counts_layer"],
        gene_column=options["gene_column_name"],
        classifier=options["classifier"],
        organism=options["organism"],
        use_gpu=bool(options["use_gpu"]),
        model_url=str(options.get("model_url", "")),
    )
    return str(output)


def answer_requests(requests: Any, model_folder: Path) -> np.ndarray:
    """MLflow's `predict`: a data frame (or list) whose first column holds one request a row."""
    rows = requests.iloc[:, 0].tolist() if isinstance(requests, pd.DataFrame) else list(requests)
    return np.array([answer_request(str(row), model_folder) for row in rows], dtype=object)
