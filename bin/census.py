#!/usr/bin/env python3
"""CENSUS: write labelled cells from CELLxGENE Census as a reference for TRAIN."""

from __future__ import annotations

from pathlib import Path

import click

from cellscribe.cli import SETTINGS, common_options, exit_codes, file_in, path_out


@click.command(context_settings=SETTINGS)
@click.option(
    "--query", type=file_in, required=True, help="Which cells: a JSON object, see docs/architecture.md."
)
@click.option("--output", type=path_out, required=True, help="The reference (h5ad).")
@click.option("--held-out", type=path_out, required=True, help="The cells of the donors kept apart (h5ad).")
@click.option("--summary", type=path_out, required=True, help="What was taken (JSON).")
@common_options
@exit_codes
def main(query: Path, output: Path, held_out: Path, summary: Path, cpus: int, pipeline_version: str) -> None:
    """Write labelled cells from CELLxGENE Census as a reference for TRAIN."""
    from cellscribe.census import Query, run_census
    from cellscribe.io import read_json

    run_census(
        Query(**read_json(query)),
        output=output,
        held_out=held_out,
        summary=summary,
        pipeline_version=pipeline_version,
    )


if __name__ == "__main__":
    main()
