#!/usr/bin/env python3
"""SPLIT: one file for each sample of a file that holds several."""

from __future__ import annotations

from pathlib import Path

import click

from cellscribe.cli import SETTINGS, common_options, exit_codes, path_in, path_out, sample_option


@click.command(context_settings=SETTINGS)
@sample_option
@click.option(
    "--input",
    "input_path",
    type=path_in,
    required=True,
    help="An .h5ad with raw counts, or Cell Ranger output.",
)
@click.option(
    "--sample-key",
    required=True,
    help="The obs column that tells its samples apart, or barcode_suffix, for what `cellranger aggr` joined.",
)
@click.option("--counts-layer", default=None, help="Where it keeps its raw counts: a layer, X or raw.X.")
@click.option("--genome", default=None, help="Which genome to read, where an .h5 holds several matrices.")
@click.option(
    "--output", type=path_out, required=True, help="The list of the samples (JSON); their files go beside it."
)
@common_options
@exit_codes
def main(
    sample: str,
    input_path: Path,
    sample_key: str,
    counts_layer: str | None,
    genome: str | None,
    output: Path,
    cpus: int,
    pipeline_version: str,
) -> None:
    """Part the cells of one file by sample, so that each is judged by itself."""
    from cellscribe.split import run_split

    run_split(input_path, sample, sample_key, output, counts_layer, genome)


if __name__ == "__main__":
    main()
