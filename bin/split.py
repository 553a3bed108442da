#!/usr/bin/env python3
"""SPLIT: one file for each sample of an h5ad that holds several."""

from __future__ import annotations

from pathlib import Path

import click

from cellscribe.cli import SETTINGS, common_options, exit_codes, file_in, path_out, sample_option


@click.command(context_settings=SETTINGS)
@sample_option
@click.option("--input", "input_path", type=file_in, required=True, help="An .h5ad with raw counts.")
@click.option("--sample-key", required=True, help="The obs column that tells its samples apart.")
@click.option("--counts-layer", default=None, help="Where it keeps its raw counts: a layer, X or raw.X.")
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
    output: Path,
    cpus: int,
    pipeline_version: str,
) -> None:
    """Part the cells of one h5ad by sample, so that each is judged by itself."""
    from cellscribe.split import run_split

    run_split(input_path, sample, sample_key, output, counts_layer)


if __name__ == "__main__":
    main()
