#!/usr/bin/env python3
"""TRAIN: make a model from labelled cells."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import click

from cellscribe.cli import SETTINGS, common_options, exit_codes, file_in, path_out


def _names(context: click.Context, parameter: click.Parameter, value: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in value.split(",") if name.strip())


def _about(context: click.Context, parameter: click.Parameter, value: str) -> dict[str, str]:
    return json.loads(unquote(value)) if value else {}


@click.command(context_settings=SETTINGS)
@click.option(
    "--reference",
    type=file_in,
    required=True,
    multiple=True,
    help="Labelled cells with raw counts (h5ad); give it again for each further file.",
)
@click.option("--label-key", required=True, help="The obs column of labels, or the column of --label-csv.")
@click.option(
    "--label-csv",
    type=file_in,
    multiple=True,
    help="Labels in a table of their own, as CELLxGENE Explorer saves them: one for all references, or one for each.",
)
@click.option(
    "--label-map",
    type=file_in,
    help="A table (label, name) of what labels shall be called; cells of a label without a name are left out.",
)
@click.option("--batch-key", help="The obs column of donors or batches, held out whole in the test.")
@click.option("--levels", default="", callback=_names, help="obs columns of coarser labels, comma-separated.")
@click.option("--name", required=True, help="The model's name.")
@click.option("--version", "version", default="1.0", help="The model's version.")
@click.option(
    "--kind", type=click.Choice(["consensus", "scvi", "logistic"]), default="consensus", help="Which members."
)
@click.option(
    "--organism",
    type=click.Choice(["auto", "human", "mouse", "Homo sapiens", "Mus musculus"]),
    default="auto",
    help="The reference's organism; auto finds it by the genes' names.",
)
@click.option("--counts-layer", help="The layer of raw counts; by default it is found.")
@click.option(
    "--gene-column",
    "--gene-column-name",
    "gene_column",
    help="The var column that names the genes; by default it is found.",
)
@click.option("--cl-map", type=file_in, help="A table (label, cl_id) of Cell Ontology ids.")
@click.option("--description", default="", help="A sentence for the model card.")
@click.option("--licence", default="", help="The licence of the model.")
@click.option("--citation", default="", help="What to cite.")
@click.option(
    "--lacks", default="", help="Types of the tissue that the reference does not have, comma-separated."
)
@click.option(
    "--about",
    default="",
    callback=_about,
    help="The four above as JSON with %-escapes, as the pipeline passes free text.",
)
@click.option("--n-top-genes", type=click.IntRange(min=50), default=1500, help="Most variable genes to use.")
@click.option("--n-latent", type=click.IntRange(min=2), default=30, help="Dimensions of the embedding.")
@click.option(
    "--max-epochs", type=click.IntRange(min=1), help="Epochs of scVI; by default from the number of cells."
)
@click.option(
    "--encode-covariates",
    type=bool,
    default=False,
    help="Let the encoder see the batch too, so that it can be fine-tuned on a sample (--surgery).",
)
@click.option(
    "--keep-counts",
    type=bool,
    default=True,
    help="Keep raw counts of some reference cells in the model, for samples that lack genes.",
)
@click.option(
    "--correct-labels",
    type=bool,
    default=True,
    help="Rename or leave out T cells whose label their coreceptor (CD4, CD8) contradicts.",
)
@click.option("--seed", type=int, default=0, help="Seed of everything random.")
@click.option("--use-gpu", type=bool, default=False, help="Train scVI on a GPU.")
@click.option("--output", type=path_out, required=True, help="The model folder to write.")
@common_options
@exit_codes
def main(
    reference: tuple[Path, ...], label_csv: tuple[Path, ...], about: dict[str, str], **options: Any
) -> None:
    """Train a model on labelled cells, test it on donors it has not seen, and write it with its card."""
    from cellscribe.training.options import TrainOptions
    from cellscribe.training.train import run_train

    run_train(TrainOptions(reference=reference, label_csv=label_csv, **(options | about)))


if __name__ == "__main__":
    main()
