#!/usr/bin/env python3
"""GATHER: join the parts of a sample that were mapped by themselves."""

from __future__ import annotations

from pathlib import Path

import click

from cellscribe.cli import SETTINGS, common_options, exit_codes, file_in, path_out, sample_option


@click.command(context_settings=SETTINGS)
@sample_option
@click.option(
    "--part",
    "parts",
    type=file_in,
    required=True,
    multiple=True,
    help="What map.py --rows wrote of some of the sample's cells; give each part, in any order.",
)
@click.option("--output", type=path_out, required=True, help="Where to write the mapping (h5ad without X).")
@common_options
@exit_codes
def main(sample: str, parts: tuple[Path, ...], output: Path, cpus: int, pipeline_version: str) -> None:
    """Join the parts of a sample's mapping, as one MAP of all its cells would have written it."""
    from cellscribe.shards import run_gather

    run_gather(parts, output)


if __name__ == "__main__":
    main()
