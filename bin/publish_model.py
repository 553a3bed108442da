#!/usr/bin/env python3
"""Publish a model folder in an MLflow model registry."""

from __future__ import annotations

from pathlib import Path

import click

from cellscribe.cli import SETTINGS, exit_codes, folder_in


@click.command(context_settings=SETTINGS)
@click.option("--model", type=folder_in, required=True, help="A model folder.")
@click.option(
    "--tracking-uri",
    envvar="MLFLOW_TRACKING_URI",
    default="",
    help="The MLflow server's address; else the variable MLFLOW_TRACKING_URI. Credentials come from MLflow's own "
    "environment variables.",
)
@click.option("--registered-name", default="", help="Its name in the registry; by default the model's own.")
@click.option(
    "--alias", default="", help="A name for this version, such as champion; moved here if it exists."
)
@click.option("--experiment", default="cellscribe", help="The experiment whose run holds the files.")
@exit_codes
def main(model: Path, tracking_uri: str, registered_name: str, alias: str, experiment: str) -> None:
    """Log a model folder as it is, register it as a version, and print its name for --model."""
    from cellscribe.registry import publish

    click.echo(publish(model, tracking_uri, name=registered_name, alias=alias, experiment=experiment))


if __name__ == "__main__":
    main()
