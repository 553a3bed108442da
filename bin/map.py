#!/usr/bin/env python3
"""MAP: put a sample's cells into a model's reference."""

from __future__ import annotations

from pathlib import Path

import click

from cellscribe.cli import SETTINGS, common_options, exit_codes, file_in, folder_in, path_out, sample_option


def row_range(_context: click.Context, _option: click.Parameter, given: str | None) -> tuple[int, int] | None:
    """`0:1000` as two numbers."""
    if given is None:
        return None
    start, colon, stop = given.partition(":")
    if not (colon and start.isdecimal() and stop.isdecimal()):
        raise click.BadParameter(f"'{given}' is not two row numbers, as 0:1000")
    return int(start), int(stop)


@click.command(context_settings=SETTINGS)
@sample_option
@click.option(
    "--counts", type=file_in, required=True, help="The sample's filtered counts, as QC writes them."
)
@click.option("--model", type=folder_in, required=True, help="A verified model folder.")
@click.option(
    "--organism",
    type=click.Choice(["auto", "human", "mouse", "Homo sapiens", "Mus musculus"]),
    default="auto",
    help="The sample's organism; auto takes what CONVERT found.",
)
@click.option(
    "--gene-column-name", help="The var column that names the genes; by default the best one is found."
)
@click.option(
    "--min-gene-overlap",
    type=click.FloatRange(0, 1),
    default=0.5,
    help="Stop where less of the model's genes are in the data.",
)
@click.option(
    "--warn-gene-overlap",
    type=click.FloatRange(0, 1),
    default=0.8,
    help="Warn where less of the model's genes are in the data.",
)
@click.option(
    "--orthologs",
    type=bool,
    default=False,
    help="Map the genes of the other organism, human or mouse, to the model's by one-to-one orthologues.",
)
@click.option("--use-gpu", type=bool, default=False, help="Use a GPU where a step has a use for one.")
@click.option(
    "--surgery",
    type=bool,
    default=False,
    help="Fine-tune the encoder on the sample first, where it takes covariates.",
)
@click.option(
    "--surgery-epochs",
    type=click.IntRange(min=1),
    help="Epochs of --surgery; by default from the number of cells.",
)
@click.option("--seed", type=int, default=0, help="Seed of --surgery.")
@click.option(
    "--rows",
    callback=row_range,
    help="Map these cells alone, as 0:1000: the first row, counted from 0, and the one behind the last.",
)
@click.option("--output", type=path_out, required=True, help="Where to write the mapping (h5ad without X).")
@common_options
@exit_codes
def main(
    sample: str,
    counts: Path,
    model: Path,
    organism: str,
    gene_column_name: str | None,
    min_gene_overlap: float,
    warn_gene_overlap: float,
    orthologs: bool,
    use_gpu: bool,
    surgery: bool,
    surgery_epochs: int | None,
    seed: int,
    rows: tuple[int, int] | None,
    output: Path,
    cpus: int,
    pipeline_version: str,
) -> None:
    """Align a sample's genes with a model's, encode its cells, and find their nearest reference cells."""
    from cellscribe.mapping import run_map
    from cellscribe.surgery import Surgery

    if surgery and rows:
        raise click.UsageError("--surgery fine-tunes on all cells of a sample: leave out --rows")
    run_map(
        counts,
        model,
        output,
        organism=organism,
        gene_column=gene_column_name,
        min_gene_overlap=min_gene_overlap,
        warn_gene_overlap=warn_gene_overlap,
        use_gpu=use_gpu,
        surgery=Surgery(surgery_epochs, seed) if surgery else None,
        orthologs=orthologs,
        cpus=cpus,
        rows=rows,
    )


if __name__ == "__main__":
    main()
