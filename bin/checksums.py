#!/usr/bin/env python3
"""List the sha256 of what a step publishes."""

from __future__ import annotations

from pathlib import Path

import click

from cellscribe.cli import SETTINGS, exit_codes, file_in, path_out


@click.command(context_settings=SETTINGS)
@click.argument("files", type=file_in, nargs=-1)
@click.option("--listed", type=file_in, multiple=True, help="A list that was made before, to be joined.")
@click.option("--output", type=path_out, required=True, help="Where to write the list.")
@exit_codes
def main(files: tuple[Path, ...], listed: tuple[Path, ...], output: Path) -> None:
    """Write the checksums of FILES, by their names alone, as `sha256sum --check` reads them."""
    from cellscribe.checksums import write_list

    write_list(files, output, listed)


if __name__ == "__main__":
    main()
