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
    import shutil

    from cellscribe.errors import CellscribeError
    from cellscribe.model.foreign import is_foreign
    from cellscribe.model.model import Model
    from cellscribe.model.store import fetch_model, note_archive
    from cellscribe.places import is_registered
    from cellscribe.registry import downloaded, parse_name, resolve

    if is_registered(model):
        with downloaded(resolve(parse_name(model), tracking_uri)) as folder:
            kept = fetch_model(folder, output_folder, sha256, trust_model_code=trust_model_code)
    else:
        kept = fetch_model(Path(model), output_folder, sha256, trust_model_code=trust_model_code)
    if not is_foreign(kept):
        try:
            Model(kept).check()
        except CellscribeError as error:
            # Nothing is left of it, and the name of the copy would tell a user nothing.
            if isinstance(error.file, Path) and error.file.is_relative_to(kept):
                error.file = Path(model) / error.file.relative_to(kept)
            shutil.rmtree(kept)
            raise
    if archives_folder is not None and not is_registered(model):
        note_archive(Path(model), kept, archives_folder)
    log(f"the model is whole: {kept}")


if __name__ == "__main__":
    main()
