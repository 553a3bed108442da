#!/usr/bin/env python3
"""ANNOTATE: name the cells of a mapped sample."""

from __future__ import annotations

from pathlib import Path

import click

from cellscribe.cli import SETTINGS, common_options, exit_codes, file_in, folder_in, path_out, sample_option


@click.command(context_settings=SETTINGS)
@sample_option
@click.option(
    "--counts", type=file_in, required=True, help="The sample's filtered counts, as QC writes them."
)
@click.option("--mapping", type=file_in, required=True, help="The sample's mapping, as map.py writes it.")
@click.option(
    "--model", type=folder_in, required=True, help="The model folder that the sample was mapped with."
)
@click.option("--annotation-prefix", default="cxg", help="First part of the names of all new columns.")
@click.option("--annotation-type", default="cell_type", help="Second part of these names.")
@click.option("--run-name", default="", help="Last part of these names: several runs can live in one file.")
@click.option(
    "--classifier",
    default="default",
    help="default (all members of the model), scvi, neighbours, trees or logistic.",
)
@click.option("--model-url", default="", help="Where the model came from; recorded in the output.")
@click.option("--seed", type=int, default=0, help="Seed of clusters and UMAP.")
@click.option("--output", type=path_out, required=True, help="Where to write the annotated h5ad.")
@click.option("--predictions", type=path_out, required=True, help="Where to write the table of predictions.")
@click.option("--summary", type=path_out, required=True, help="Where to write the JSON summary.")
@common_options
@exit_codes
def main(
    sample: str,
    counts: Path,
    mapping: Path,
    model: Path,
    annotation_prefix: str,
    annotation_type: str,
    run_name: str,
    classifier: str,
    model_url: str,
    seed: int,
    output: Path,
    predictions: Path,
    summary: Path,
    cpus: int,
    pipeline_version: str,
) -> None:
    """Give each cell a label and its uncertainty, reject what the model does not know, cluster, lay out."""
    from cellscribe.annotation import run_annotate
    from cellscribe.contract import OutputNames

    run_annotate(
        counts,
        mapping,
        model,
        sample=sample,
        output=output,
        predictions=predictions,
        summary=summary,
        names=OutputNames.of(annotation_prefix, annotation_type, run_name),
        classifier=classifier,
        model_url=model_url,
        seed=seed,
        pipeline_version=pipeline_version,
    )


if __name__ == "__main__":
    main()
