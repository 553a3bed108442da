"""Which parameter, or column of the sheet, each option of a step takes its value from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# A sample's own column goes before the parameter.
CONVERT = {
    "organism": "organism",
    "counts_layer": "counts_layer",
    "gene_column": "gene_column_name",
    "genome": "genome",
    "call_cells": "call_cells",
    "seed": "seed",
}
# A file of several samples is split before it is converted.
SPLIT = {"sample_key": "sample_key", "counts_layer": "counts_layer", "genome": "genome"}
QC = {
    "mode": "qc",
    **{
        name: name
        for name in (
            "min_counts",
            "max_counts",
            "min_genes",
            "max_genes",
            "max_pct_mt",
            "max_pct_ribo",
            "max_pct_hb",
            "n_mads",
            "n_mads_mt",
            "min_cells",
            "min_cells_per_gene",
            "doublets",
            "expected_doublet_rate",
            "seed",
        )
    },
}
MAP = {
    "organism": "organism",
    "gene_column_name": "gene_column_name",
    "min_gene_overlap": "min_gene_overlap",
    "warn_gene_overlap": "warn_gene_overlap",
    "orthologs": "orthologs",
    "use_gpu": "use_gpu",
    "surgery": "surgery",
    "surgery_epochs": "surgery_epochs",
    "seed": "seed",
}
PREDICT = {
    name: name
    for name in (
        "organism",
        "gene_column_name",
        "classifier",
        "use_gpu",
        "mlflow_env_manager",
        "trust_model_code",
        "seed",
    )
}
CLUSTERS = {"cluster_resolution": "cluster_resolution"}
ANNOTATE = {
    "annotation_prefix": "annotation_prefix",
    "annotation_type": "annotation_type",
    "run_name": "run_name",
    "classifier": "classifier",
    "min_probability": "min_probability",
    "reject_novel": "reject_novel",
    "novelty_limit": "novelty_limit",
    **CLUSTERS,
    "probabilities": "probabilities",
    "zarr": "zarr",
    "seed": "seed",
}
# A sample's own, beside those of the run.
ANNOTATE_SAMPLE = {"cluster_key": "cluster_key"}
# The fields of the CELLxGENE schema that only the sheet can tell, by the schema's own names.
CURATE = {
    name: name
    for name in (
        "title",
        "is_primary_data",
        "assay_ontology_term_id",
        "tissue_type",
        "tissue_ontology_term_id",
        "disease_ontology_term_id",
        "suspension_type",
        "donor_id",
        "sex_ontology_term_id",
        "development_stage_ontology_term_id",
        "self_reported_ethnicity_ontology_term_id",
    )
}
REPORT = {
    "compare": "compare",
    "truth_key": "truth_key",
}
MERGE = {**CLUSTERS, "seed": "seed"}
# Which parameter each part of the query for CELLxGENE Census takes its value from.
CENSUS = {
    "filter": "census",
    "version": "census_version",
    "cells_per_type": "census_cells_per_type",
    "holdout_donors": "census_holdout_donors",
    "seed": "seed",
}
TRAIN = {
    "label_key": "label_key",
    "batch_key": "batch_key",
    "levels": "levels",
    "version": "model_version",
    "kind": "model_kind",
    "organism": "organism",
    "counts_layer": "counts_layer",
    "gene_column": "gene_column_name",
    "n_top_genes": "n_top_genes",
    "n_latent": "n_latent",
    "max_epochs": "max_epochs",
    "encode_covariates": "encode_covariates",
    "keep_counts": "keep_counts",
    "correct_labels": "correct_labels",
    "seed": "seed",
    "use_gpu": "use_gpu",
}
# Free text, which no command line may carry as it is: `about` holds it.
ABOUT = {
    "description": "model_description",
    "licence": "model_licence",
    "citation": "model_citation",
    "lacks": "model_lacks",
}


def options_of(names: Mapping[str, str], values: Mapping[str, Any]) -> dict[str, Any]:
    """The options of a step that have a value; booleans as the words that commands read."""
    chosen = {option: values.get(name) for option, name in names.items()}
    return {
        option: str(value).lower() if isinstance(value, bool) else value
        for option, value in chosen.items()
        if value is not None
    }
