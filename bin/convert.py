#!/usr/bin/env python3
"""CONVERT: one sample's input as raw counts with known genes."""

from pathlib import Path
from typing import Any

import click

from cellscribe.cli import SETTINGS, common_options, exit_codes, path_in, path_out, sample_option


@click.command(context_settings=SETTINGS)
@sample_option
@click.option(
    "--input",
    "input_path",
    type=path_in,
    required=True,
    help="A Cell Ranger outs folder, a matrix folder, an .h5 or an .h5ad.",
)
@click.option("--organism", default="auto", help="human, mouse, or auto to tell it by the genes.")
@click.option(
    "--counts-layer", default=None, help="Where an .h5ad keeps its raw counts: a layer, X or raw.X."
)
@click.option(
    "--gene-column", default=None, help="The column of the genes to name them by, instead of the index."
)
@click.option("--genome", default=None, help="Which genome to read, where the matrix holds several.")
@click.option(
    "--call-cells",
    type=click.Choice(["auto", "true", "false"], case_sensitive=False),
    default="auto",
    help="Whether to call cells among all droplets; auto does so for an unfiltered matrix.",
)
@click.option("--batch", default=None, help="The sample's batch; its name where none is given.")
@click.option(
    "--seed", type=click.IntRange(min=0), default=0, help="Seed of the random draws of cell calling."
)
@click.option("--output", type=path_out, required=True, help="The counts, .h5ad.")
@click.option("--metrics", type=path_out, required=True, help="What was read and how, .json.")
@common_options
@exit_codes
def main(input_path: Path, cpus: int, pipeline_version: str, **options: Any) -> None:
    """Read Cell Ranger output or an .h5ad, check that it holds raw counts, and tell its genes apart."""
    from cellscribe.convert import ConvertOptions, run_convert

    run_convert(ConvertOptions(input=input_path, **options))


if __name__ == "__main__":
    main()
