#!/usr/bin/env python3
"""Make a model of another program into one of cellscribe's."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from cellscribe.cli import SETTINGS, common_options, exit_codes, file_in, path_in, path_out


def import_options(function: Callable[..., None]) -> Callable[..., None]:
    """Options that every import takes."""
    for option in reversed(
        (
            click.option("--output", type=path_out, required=True, help="The model folder to write."),
            click.option("--name", help="The model's name; by default that of the file or folder."),
            click.option("--version", "version", default="1.0", help="The model's version."),
            click.option(
                "--organism",
                type=click.Choice(["auto", "human", "mouse", "Homo sapiens", "Mus musculus"]),
                default="auto",
                help="The model's organism; auto finds it by the genes' names.",
            ),
            click.option("--cl-map", type=file_in, help="A table (label, cl_id) of Cell Ontology ids."),
            click.option("--description", default="", help="A sentence for the model card."),
            click.option("--licence", default="", help="The licence of the model."),
            click.option("--citation", default="", help="What to cite."),
            click.option(
                "--lacks",
                default="",
                help="Types of the tissue that the model does not know, comma-separated.",
            ),
            click.option(
                "--test",
                type=file_in,
                multiple=True,
                help="Labelled cells that the model has not seen (h5ad): it is calibrated and scored on them.",
            ),
            click.option("--label-key", help="The obs column of labels."),
            click.option("--batch-key", help="The obs column of donors or batches."),
            click.option(
                "--min-gene-overlap",
                type=click.FloatRange(0, 1),
                default=0.5,
                help="Stop where less of the model's genes are in the test cells.",
            ),
            click.option(
                "--trust-model-code",
                is_flag=True,
                help="Read a pickle: only where you trust its source.",
            ),
        )
    ):
        function = option(function)
    return function


def test_cells(options: dict[str, Any]) -> Any:
    """The options of `--test`, taken out of the others."""
    from cellscribe.importing.calibrate import TestCells

    return TestCells(
        files=options.pop("test"),
        label_key=options.pop("label_key"),
        batch_key=options.pop("batch_key"),
        min_gene_overlap=options.pop("min_gene_overlap"),
    )


@click.group(context_settings=SETTINGS)
def main() -> None:
    """Make a model of another program into one of cellscribe's."""


@main.command(context_settings=SETTINGS)
@click.argument("model", type=file_in)
@import_options
@common_options
@exit_codes
def celltypist(model: Path, cpus: int, **options: Any) -> None:
    """Import a CellTypist model: the .pkl that its train() or its download wrote."""
    from cellscribe.importing.celltypist import CellTypistOptions, run_import_celltypist

    test = test_cells(options)
    run_import_celltypist(CellTypistOptions(model=model, test=test, **options))


@main.command(context_settings=SETTINGS)
@click.argument("model", type=path_in)
@click.option(
    "--reference",
    type=file_in,
    multiple=True,
    help="Labelled cells with raw counts (h5ad); by default those that the model was saved with.",
)
@click.option("--counts-layer", help="The layer of raw counts; by default the first that holds counts.")
@click.option(
    "--gene-column-name",
    help="The var column that names the genes as the model does; by default it is found.",
)
@click.option("--seed", type=int, default=0, help="Seed of all that is random.")
@import_options
@common_options
@exit_codes
def scvi(model: Path, **options: Any) -> None:
    """Import a SCVI or SCANVI model: the folder that its save() wrote, and labelled cells."""
    from cellscribe.importing.scvi import run_import_scvi
    from cellscribe.importing.scvi_reference import ScviOptions

    test = test_cells(options)
    run_import_scvi(ScviOptions(model=model, test=test, **options))


if __name__ == "__main__":
    main()
