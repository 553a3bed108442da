#!/usr/bin/env python3
"""ANNOTATE: name the cells of a mapped sample."""

from __future__ import annotations

from pathlib import Path

import click

from cellscribe.cli import (
    SETTINGS,
    cluster_options,
    common_options,
    exit_codes,
    file_in,
    folder_in,
    path_out,
    sample_option,
    strictness_options,
)


@click.command(context_settings=SETTINGS)
@sample_option
@click.option(
    "--counts", type=file_in, required=True, help="The sample's filtered counts, as QC writes them."
)
@click.option(
    "--mapping",
    "mappings",
    type=file_in,
    required=True,
    multiple=True,
    help="The sample's mapping, as map.py writes it; give it again for each further model.",
)
@click.option(
    "--model",
    "models",
    type=folder_in,
    required=True,
    multiple=True,
    help="The model folder that the sample was mapped with; with several, in the order of their mappings.",
)
@click.option("--annotation-prefix", default="cxg", help="First part of the names of all new columns.")
@click.option("--annotation-type", default="cell_type", help="Second part of these names.")
@click.option("--run-name", default="", help="Last part of these names: several runs can live in one file.")
@click.option(
    "--classifier",
    default="default",
    help="default (all members of the model), scvi, neighbours, trees or logistic.",
)
@strictness_options
@cluster_options
@click.option(
    "--model-url",
    "model_urls",
    multiple=True,
    help="Where the model came from, for each model in the same order; recorded in the output.",
)
@click.option(
    "--listed-as",
    multiple=True,
    help="The name==version of the catalogue's row, for each model in the same order; empty for none.",
)
@click.option("--seed", type=int, default=0, help="Seed of clusters and UMAP.")
@click.option("--output", type=path_out, required=True, help="Where to write the annotated h5ad.")
@click.option("--zarr", type=bool, default=False, help="Write the same as S.annotated.zarr.zip beside it.")
@click.option("--probabilities", type=bool, default=False, help="Add the probability of every label (obsm).")
@click.option("--predictions", type=path_out, required=True, help="Where to write the table of predictions.")
@click.option("--summary", type=path_out, required=True, help="Where to write the JSON summary.")
@common_options
@exit_codes
def main(
    sample: str,
    counts: Path,
    mappings: tuple[Path, ...],
    models: tuple[Path, ...],
    annotation_prefix: str,
    annotation_type: str,
    run_name: str,
    classifier: str,
    min_probability: float | None,
    reject_novel: bool,
    novelty_limit: float | None,
    cluster_key: str | None,
    cluster_resolution: float,
    model_urls: tuple[str, ...],
    listed_as: tuple[str, ...],
    seed: int,
    output: Path,
    zarr: bool,
    probabilities: bool,
    predictions: Path,
    summary: Path,
    cpus: int,
    pipeline_version: str,
) -> None:
    """Give each cell a label and its uncertainty, reject what the model does not know, cluster, lay out.

    With several models: each by itself, and what they say together.
    """
    if any(len(given) != len(models) for given in (mappings, model_urls or models, listed_as or models)):
        raise click.UsageError(
            f"{len(models)} --model, {len(mappings)} --mapping, {len(model_urls)} --model-url and {len(listed_as)} "
            "--listed-as do not go together."
        )
    from cellscribe.annotate import run_annotate
    from cellscribe.answer import Strictness
    from cellscribe.contract import OutputNames

    run_annotate(
        counts,
        mappings,
        models,
        sample=sample,
        output=output,
        zarr=zarr,
        probabilities=probabilities,
        predictions=predictions,
        summary=summary,
        names=OutputNames.of(annotation_prefix, annotation_type, run_name),
        classifier=classifier,
        strictness=Strictness(min_probability, reject_novel, novelty_limit),
        cluster_key=cluster_key,
        cluster_resolution=cluster_resolution,
        model_urls=model_urls,
        listed_as=listed_as,
        seed=seed,
        cpus=cpus,
        pipeline_version=pipeline_version,
    )


if __name__ == "__main__":
    main()
