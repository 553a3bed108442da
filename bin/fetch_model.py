#!/usr/bin/env python3
"""Verify a model and put it into the store."""

from __future__ import annotations

from pathlib import Path

import click

from cellscribe.cli import SETTINGS, common_options, exit_codes, log, path_out, trust_option


@click.command(context_settings=SETTINGS)
@click.option(
    "--model",
    required=True,
    help="A model's folder, a zip, tar.gz or tar of one, or models:/name/version of an MLflow registry.",
)
@click.option("--tracking-uri", default="", help="The server of a models:/ name.")
@click.option(
    "--output-folder", type=path_out, default="models", help="The model is put below it, named by its sha256."
)
@click.option(
    "--archives-folder", type=path_out, help="Note here which archive, by its sha256, holds which model."
)
@click.option(
    "--sha256", default="", help="What the archive, or the model's manifest.json, must have; empty for any."
)
@trust_option
@common_options
@exit_codes
def main(
    model: str,
    tracking_uri: str,
    output_folder: Path,
    archives_folder: Path | None,
    sha256: str,
    trust_model_code: bool,
    cpus: int,
    pipeline_version: str,
) -> None:
    """Check that a model is whole and holds no code that is not trusted, and keep it by its sha256."""
    from cellscribe.obtain import put_into_store

    kept = put_into_store(
        model,
        output_folder,
        sha256=sha256,
        archives=archives_folder,
        trust_model_code=trust_model_code,
        tracking_uri=tracking_uri,
    )
    log(f"the model is whole: {kept}")


if __name__ == "__main__":
    main()
