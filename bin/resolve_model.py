#!/usr/bin/env python3
"""RESOLVE_MODEL: the version that a model's name in an MLflow registry means today."""

from __future__ import annotations

from pathlib import Path

import click

from cellscribe.cli import SETTINGS, common_options, exit_codes, log, path_out


@click.command(context_settings=SETTINGS)
@click.option(
    "--model", required=True, help="models:/name/version, models:/name@alias or models:/name/latest."
)
@click.option("--tracking-uri", required=True, help="The server's address.")
@click.option("--output", type=path_out, required=True, help="Where to write its url and sha256 (JSON).")
@common_options
@exit_codes
def main(model: str, tracking_uri: str, output: Path, cpus: int, pipeline_version: str) -> None:
    """Ask the registry which version a name means, and what that holds as far as it says."""
    from cellscribe.io import write_json
    from cellscribe.registry import parse_name, resolve

    found = resolve(parse_name(model), tracking_uri)
    write_json({"url": found.url, "sha256": found.sha256}, output)
    log(f"{model} is {found.url}")


if __name__ == "__main__":
    main()
