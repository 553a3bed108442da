#!/usr/bin/env python3
"""VERSIONS: write down what runs the pipeline, in MultiQC's own form of a versions file."""

from __future__ import annotations

from pathlib import Path

import click

from cellscribe.cli import SETTINGS, common_options, exit_codes, path_out


@click.command(context_settings=SETTINGS)
@click.option("--nextflow-version", required=True, help="The version of Nextflow.")
@click.option("--output", type=path_out, required=True, help="Where to write the versions (YAML).")
@common_options
@exit_codes
def main(nextflow_version: str, output: Path, cpus: int, pipeline_version: str) -> None:
    """List the versions of the pipeline, of Nextflow, of Python and of every package that results depend on."""
    import yaml

    from cellscribe.io import atomic_path
    from cellscribe.versions import versions

    found = versions(nextflow_version, pipeline_version)
    with atomic_path(output) as temporary:
        temporary.write_text(yaml.safe_dump(found, sort_keys=False))


if __name__ == "__main__":
    main()
