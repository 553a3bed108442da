#!/usr/bin/env python3
"""Name the cells of one file, without Nextflow; the options are those of `cellxgene annotate`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from cellscribe.cli import (
    ENV_MANAGERS,
    SETTINGS,
    cluster_options,
    common_options,
    exit_codes,
    own_version,
    path_in,
    path_out,
    strictness_options,
    trust_option,
)

share = click.FloatRange(0, 1)


@click.command(context_settings=SETTINGS)
@click.argument("query", type=path_in, metavar="INPUT")
@click.option(
    "-m",
    "--model-url",
    required=True,
    help="A model's name in the catalogue (pbmc) or an MLflow registry (models:/lung/1), its folder, its archive, or "
    "an https address of one.",
)
@click.option(
    "-o",
    "--output-h5ad-file",
    type=path_out,
    help="Where to write the annotated h5ad; without it, and with --overwrite, INPUT itself.",
)
@click.option("--overwrite", is_flag=True, help="Write over a file that is there.")
@click.option("-l", "--counts-layer", help="Where raw counts are: a layer, X or raw.X; found without it.")
@click.option("-g", "--gene-column-name", help="The var column that names the genes; found where not given.")
@click.option("-a", "--annotation-type", default="cell_type", help="Second part of the new columns' names.")
@click.option("-c", "--annotation-prefix", default="cxg", help="First part of the new columns' names.")
@click.option("-n", "--run-name", help="Last part of these names: several runs can live in one file.")
@click.option(
    "--use-model-cache/--no-use-model-cache",
    default=True,
    help="Keep what an archive or address gives in --model-cache-dir, and use what is kept.",
)
@click.option("--use-gpu/--no-use-gpu", default=True, help="Use a GPU where the model has a use for one.")
@click.option(
    "--classifier", default="default", help="Which of the model's classifiers; its card lists them."
)
@click.option(
    "--organism",
    type=click.Choice(["Homo sapiens", "Mus musculus", "human", "mouse", "auto"]),
    default="Homo sapiens",
    show_default="Homo sapiens, unless the genes are of another",
    help="The organism of the cells; auto tells it by the genes.",
)
@click.option(
    "--model-cache-dir",
    type=path_out,
    default=".models_cache",
    help="Where models are kept, by the sha256 of what they hold.",
)
@click.option(
    "--model-sha256",
    default="",
    help="What the model must have; with it, one that is kept is not downloaded.",
)
@trust_option
@click.option(
    "--mlflow-env-manager",
    type=click.Choice(ENV_MANAGERS),
    default="virtualenv",
    help="Where the code of a model made by others runs: in an environment that MLflow makes for it, or in this one.",
)
@click.option(
    "--mlflow-tracking-uri",
    envvar="MLFLOW_TRACKING_URI",
    default="",
    help="The server of models:/ names; else the variable MLFLOW_TRACKING_URI.",
)
@click.option("--min-gene-overlap", type=share, default=0.5, help="Stop where fewer of its genes are there.")
@click.option("--warn-gene-overlap", type=share, default=0.8, help="Warn where fewer of its genes are there.")
@click.option(
    "--orthologs",
    is_flag=True,
    help="Map the genes of the other organism, human or mouse, to the model's by one-to-one orthologues.",
)
@click.option(
    "--qc",
    type=click.Choice(["off", "filter", "flag"]),
    default="off",
    help="Quality control as the pipeline does it: remove bad cells and doublets, or mark them.",
)
@strictness_options
@cluster_options
@click.option("--genome", help="Which genome to read, where a matrix holds several.")
@click.option("--seed", type=click.IntRange(min=0), default=0, help="Seed of everything random.")
@common_options
@click.version_option(own_version(), prog_name="cellscribe", message="%(prog)s %(version)s")
@exit_codes
def main(query: Path, output_h5ad_file: Path | None, overwrite: bool, **options: Any) -> None:
    """Name the cells of INPUT: an h5ad, a Cell Ranger folder, a matrix folder or an .h5."""
    output = output_h5ad_file or query
    if output_h5ad_file is None and (not overwrite or query.suffix != ".h5ad"):
        raise click.UsageError("Give --output-h5ad-file, or --overwrite to add the names to an h5ad itself.")
    if output.exists() and not overwrite:
        raise click.UsageError(f"'{output}' is there already; --overwrite writes over it.")
    if output.is_dir():
        raise click.UsageError(f"'{output}' is a folder; give a file's name with --output-h5ad-file.")
    named = str(options["model_url"])
    if "," in named and "://" not in named and not Path(named).exists():
        raise click.UsageError(
            f"'{named}': one model at a time; several, with their consensus, are for `nextflow run . --model {named}`."
        )
    if click.get_current_context().get_parameter_source("organism") is ParameterSource.DEFAULT:
        # Their default is no word of the user's, which the genes could be held against.
        options["organism"] = "auto"
    from cellscribe.annotate_one import OneOptions, annotate_one

    # Who gave no such option need not hear why no GPU is used.
    if click.get_current_context().get_parameter_source("use_gpu") is ParameterSource.DEFAULT:
        options["use_gpu"] = None
    annotate_one(OneOptions(query=query, output=output, **options))


if __name__ == "__main__":
    main()
