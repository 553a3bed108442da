#!/usr/bin/env python3
"""What fine-tuning an encoder on a query (--surgery) changes on studies that the model has never seen.

    .venv/bin/python benchmarks/surgery.py --data ../shared/data/labelled --work /tmp/surgery

Trains a model with `--encode-covariates` and one without in the folder of --work (a model that is there is taken), and
writes benchmarks/results/surgery.csv. All labelled cells are used, without quality control; nothing is tuned here.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import click

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "bin"))

REFERENCES = ("pbmc3k_labelled", "multistudy_pbmc_6samples")
QUERIES = ("kang_ctrl_labelled", "pbmc4k_labelled")


def train(data: Path, output: Path, *, encode_covariates: bool, cpus: int) -> None:
    """Train an scvi model on the references."""
    from cellscribe.training.train import TrainOptions, run_train

    if (output / "manifest.json").is_file():
        return
    run_train(
        TrainOptions(
            reference=tuple(data / f"{name}.h5ad" for name in REFERENCES),
            label_key="cell_type_harmonized",
            batch_key="donor",
            output=output,
            name=output.name,
            kind="scvi",
            encode_covariates=encode_covariates,
            cl_map=ROOT / "assets" / "models" / "pbmc_labels.csv",
            cpus=cpus,
        )
    )


def measure(path: Path, folder: Path, epochs: int | None) -> list[dict[str, object]]:
    """Scores of every classifier on one labelled file. epochs: of fine-tuning; None for a forward pass."""
    import numpy as np

    from cellscribe.h5ad_input import read_h5ad
    from cellscribe.mapping import map_cells
    from cellscribe.model.model import Model
    from cellscribe.one_file import CountsInMemory
    from cellscribe.surgery import Surgery
    from cellscribe.training.evaluate import scores

    model, read = Model(folder), read_h5ad(path)
    truth = read.obs["cell_type_harmonized"].astype(str).to_numpy()
    known = np.isin(truth, model.labels)
    start = time.perf_counter()
    mapping = map_cells(
        CountsInMemory(read.matrix[np.flatnonzero(known)], read.var),
        model,
        surgery=None if epochs is None else Surgery(epochs),
    )
    seconds = time.perf_counter() - start
    codes = np.array([model.labels.index(label) for label in truth[known]])
    members = model.member_probabilities(
        latent=mapping.latent, distances=mapping.distances, indices=mapping.indices, logistic_scores=None
    )
    return [
        {
            "cells": path.stem,
            "n_cells": len(codes),
            "model": folder.name,
            "surgery_epochs": mapping.info["surgery_epochs"],
            "classifier": classifier,
            **scores(model.pooled(members, classifier), codes),
            "seconds": round(seconds, 1),
        }
        for classifier in model.classifiers
    ]


@click.command()
@click.option("--data", type=click.Path(exists=True, file_okay=False, path_type=Path), required=True)
@click.option("--work", type=click.Path(file_okay=False, path_type=Path), required=True)
@click.option("--epochs", type=int, default=100)
@click.option("--cpus", type=int, default=2)
@click.option("--output", type=click.Path(path_type=Path), default=ROOT / "benchmarks/results/surgery.csv")
def main(data: Path, work: Path, epochs: int, cpus: int, output: Path) -> None:
    """Measure with and without fine-tuning."""
    from cellscribe.cli import set_threads

    set_threads(cpus)
    import pandas as pd

    rows: list[dict[str, object]] = []
    for name, encode in (("covariates", True), ("genes_alone", False)):
        train(data, work / name, encode_covariates=encode, cpus=cpus)
        for query in QUERIES:
            for tuned in (None, epochs) if encode else (None,):
                rows += measure(data / f"{query}.h5ad", work / name, tuned)
    output.parent.mkdir(parents=True, exist_ok=True)
    table = pd.DataFrame(rows).round(4)
    table.to_csv(output, index=False)
    print(table.to_string(index=False))


if __name__ == "__main__":
    main()
