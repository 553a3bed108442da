#!/usr/bin/env python3
"""Write a model folder as one zip."""

from __future__ import annotations

from pathlib import Path

import click

from cellscribe.cli import SETTINGS, exit_codes, folder_in, log, path_out


@click.command(context_settings=SETTINGS)
@click.option("--model", type=folder_in, required=True, help="A model folder.")
@click.option("--output-folder", type=path_out, default="dist", help="Gets <name>-<version>.zip.")
@exit_codes
def main(model: Path, output_folder: Path) -> None:
    """Write a model folder as one zip: the same model gives the same bytes."""
    from cellscribe.model.archive import archive_name, pack_model
    from cellscribe.model.manifest import file_sha256

    target = pack_model(model, output_folder / archive_name(model))
    log(f"sha256 {file_sha256(target)}")
    click.echo(target)


if __name__ == "__main__":
    main()
