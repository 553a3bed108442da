#!/usr/bin/env python3
"""What fine-tuning an encoder on a query (--surgery) changes on studies that the model has never seen.

    .venv/bin/python benchmarks/surgery.py --data ../shared/data/labelled

Trains an scvi model with `--encode-covariates` on the cells of the embedded model, and writes
benchmarks/results/surgery.csv: its trees and neighbours with and without fine-tuning, beside those of the embedded
model, whose encoder takes genes alone. All labelled cells are used, without quality control; nothing is tuned here.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "bin"))

REFERENCES = ("pbmc3k_labelled", "multistudy_pbmc_6samples")
QUERIES = ("kang_ctrl_labelled", "pbmc4k_labelled")
LABEL_KEY = "cell_type_harmonized"


def scored(
    query: str, way: str, members: dict[str, np.ndarray], codes: np.ndarray, seconds: float
) -> list[dict[str, object]]:
    """A row for each member, and for the mean of their log probabilities."""
    import numpy as np

    from cellscribe.model.calibration import pool
    from cellscribe.model.model import NEIGHBOURS, TREES
    from cellscribe.training.evaluate import scores

    both = [members[name] for name in (NEIGHBOURS, TREES)]
    answers = {"neighbours": both[0], "trees": both[1], "both": pool(both, np.array([0.5, 0.5]))}
    return [
        {
            "cells": query,
            "n_cells": len(codes),
            "encoder": way,
            "classifier": name,
            **{key: scores(values, codes)[key] for key in ("accuracy", "macro_f1")},
            "seconds": round(seconds, 1),
        }
        for name, values in answers.items()
    ]


def measure(data: Path, epochs: int, cpus: int) -> list[dict[str, object]]:
    """Scores of every query in every way. epochs: of fine-tuning."""
    import numpy as np
    import pandas as pd

    from cellscribe.align import match_genes
    from cellscribe.h5ad_input import read_h5ad
    from cellscribe.mapping import map_cells
    from cellscribe.model.model import Model
    from cellscribe.one_file import CountsInMemory
    from cellscribe.surgery import fine_tune
    from cellscribe.training.genes import choose_genes
    from cellscribe.training.members import train_members
    from cellscribe.training.options import TrainOptions
    from cellscribe.training.reference import read_reference

    files = tuple(data / f"{name}.h5ad" for name in REFERENCES)
    cells = read_reference(files, LABEL_KEY, batch_key="donor")
    options = TrainOptions(
        files, LABEL_KEY, Path(), "covariates", kind="scvi", encode_covariates=True, cpus=cpus
    )
    chosen = choose_genes(cells, np.ones(len(cells.labels), dtype=bool), options)
    genes = cells.genes.iloc[chosen].reset_index(drop=True)
    trained = train_members(
        cells.counts[:, chosen].tocsr(), cells.codes, cells.batches, len(cells.names), options
    )
    assert trained.scvi is not None and trained.encoder is not None
    embedded = Model(ROOT / "assets" / "models" / "pbmc")
    assert embedded.labels == cells.names
    rows: list[dict[str, object]] = []
    for query in QUERIES:
        read = read_h5ad(data / f"{query}.h5ad")
        truth = read.obs[LABEL_KEY].astype(str).to_numpy()
        known = np.flatnonzero(np.isin(truth, cells.names))
        codes = np.array([cells.names.index(label) for label in truth[known]])
        counts = (read.matrix[known] @ match_genes(pd.DataFrame(read.var), genes).selector).tocsr()

        start = time.perf_counter()
        found = map_cells(CountsInMemory(read.matrix[known], read.var), embedded)
        members = embedded.member_probabilities(
            latent=found.latent, distances=found.distances, indices=found.indices, logistic_scores=None
        )
        rows += scored(query, "genes alone", members, codes, time.perf_counter() - start)

        start = time.perf_counter()
        members = trained.latent_probabilities(trained.encoder.encode(counts))
        rows += scored(query, "batch, average", members, codes, time.perf_counter() - start)

        start = time.perf_counter()
        tuned = fine_tune(trained.scvi, counts, trained.encoder.default, epochs)
        members = trained.latent_probabilities(tuned.encode(counts))
        rows += scored(query, f"batch, {epochs} epochs", members, codes, time.perf_counter() - start)
    return rows


@click.command()
@click.option("--data", type=click.Path(exists=True, file_okay=False, path_type=Path), required=True)
@click.option("--epochs", type=int, default=100, show_default=True)
@click.option("--cpus", type=int, default=2, show_default=True)
@click.option("--output", type=click.Path(path_type=Path), default=ROOT / "benchmarks/results/surgery.csv")
def main(data: Path, epochs: int, cpus: int, output: Path) -> None:
    """Measure with and without fine-tuning."""
    from cellscribe.cli import set_threads

    set_threads(cpus)
    import pandas as pd

    output.parent.mkdir(parents=True, exist_ok=True)
    table = pd.DataFrame(measure(data, epochs, cpus)).round(4)
    table.to_csv(output, index=False)
    print(table.to_string(index=False))


if __name__ == "__main__":
    main()
