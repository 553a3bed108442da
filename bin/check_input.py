#!/usr/bin/env python3
"""CHECK_INPUT: hold every parameter and every sample to the schemas."""

from __future__ import annotations

from pathlib import Path

import click

from cellscribe.cli import SETTINGS, common_options, exit_codes, file_in, log, path_out


@click.command(context_settings=SETTINGS)
@click.option(
    "--launch", type=file_in, required=True, help="Parameters and folders, as main.nf writes them (JSON)."
)
@click.option("--sheet", type=file_in, help="The sample sheet; left out where --input is data itself.")
@click.option("--schema", type=file_in, required=True, help="nextflow_schema.json.")
@click.option("--input-schema", type=file_in, required=True, help="The sample sheet's schema.")
@click.option("--catalogue", type=file_in, required=True, help="The catalogue of models (CSV).")
@click.option("--own-catalogue", type=file_in, help="The user's catalogue, as Nextflow staged it.")
@click.option("--output", type=path_out, required=True, help="Where to write the samples (JSON).")
@click.option("--settings", type=path_out, required=True, help="Where to write the run's settings (JSON).")
@common_options
@exit_codes
def main(
    launch: Path,
    sheet: Path | None,
    schema: Path,
    input_schema: Path,
    catalogue: Path,
    own_catalogue: Path | None,
    output: Path,
    settings: Path,
    cpus: int,
    pipeline_version: str,
) -> None:
    """Check all parameters and the sample sheet, and report every problem at once."""
    from cellscribe.check_input import run_check, write_check
    from cellscribe.check_models import Catalogues

    samples, run = run_check(launch, sheet, schema, input_schema, Catalogues(catalogue, own_catalogue))
    write_check(samples, run, output, settings)
    log(f"{len(samples)} samples" if samples else f"mode {run['mode']}")


if __name__ == "__main__":
    main()
