#!/usr/bin/env python3
"""PREDICT: name a sample's cells with a model that others made to CELLxGENE Annotate's contract."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from cellscribe.cli import (
    ENV_MANAGERS,
    SETTINGS,
    common_options,
    exit_codes,
    file_in,
    folder_in,
    path_out,
    sample_option,
)


@click.command(context_settings=SETTINGS)
@sample_option
@click.option(
    "--counts", type=file_in, required=True, help="The sample's filtered counts, as QC writes them."
)
@click.option("--model", type=folder_in, required=True, help="The MLflow folder, as fetch_model.py keeps it.")
@click.option(
    "--trust-model-code", type=bool, default=False, help="Run the model's code; without it nothing is run."
)
@click.option(
    "--mlflow-env-manager",
    type=click.Choice(ENV_MANAGERS),
    default="local",
    help="Where its code runs: in this environment, or in one that MLflow makes for it.",
)
@click.option("--classifier", default="default", help="Which of the model's classifiers.")
@click.option(
    "--organism",
    type=click.Choice(["auto", "human", "mouse", "Homo sapiens", "Mus musculus"]),
    default="auto",
    help="The sample's organism; auto takes what CONVERT found.",
)
@click.option("--gene-column-name", help="The var column that names the genes; by default the symbols do.")
@click.option("--use-gpu", type=bool, default=False, help="Let the model use a GPU.")
@click.option("--seed", type=int, default=0, help="Seed of an embedding that the model does not give.")
@click.option("--output", type=path_out, required=True, help="Where to write the mapping (h5ad without X).")
@common_options
@exit_codes
def main(
    sample: str,
    counts: Path,
    model: Path,
    output: Path,
    cpus: int,
    pipeline_version: str,
    **options: Any,
) -> None:
    """Run the model's code on a copy of the cells, and hold what it writes to the contract."""
    from cellscribe.foreign import PredictOptions, run_predict

    run_predict(counts, model, output, PredictOptions(**options))


if __name__ == "__main__":
    main()
