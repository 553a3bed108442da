#!/usr/bin/env python3
"""How well the embedded model names cells of studies that it has never seen.

    .venv/bin/python benchmarks/embedded_model.py --data ../shared/data/labelled

Writes benchmarks/results/embedded_model.csv. All labelled cells are used, without quality control; nothing is
tuned here.
"""

from __future__ import annotations

import sys
from pathlib import Path

import click

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "bin"))

SETS = ("kang_ctrl_labelled", "pbmc4k_labelled")


def measure(path: Path, model_folder: Path) -> list[dict[str, object]]:
    """Scores of every classifier of the model on one labelled file."""
    import numpy as np

    from cellscribe.answer import answer_cells
    from cellscribe.contract import UNASSIGNED
    from cellscribe.h5ad_input import read_h5ad
    from cellscribe.mapping import map_cells
    from cellscribe.model.label_sets import coverage_of, label_sets
    from cellscribe.model.model import Model
    from cellscribe.one_file import CountsInMemory
    from cellscribe.training.evaluate import scores

    model, read = Model(model_folder), read_h5ad(path)
    truth = read.obs["cell_type_harmonized"].astype(str).to_numpy()
    known = np.isin(truth, model.labels)
    mapping = map_cells(CountsInMemory(read.matrix[np.flatnonzero(known)], read.var), model)
    codes = np.array([model.labels.index(label) for label in truth[known]])
    rows: list[dict[str, object]] = []
    for classifier in model.classifiers:
        answer = answer_cells(mapping, model, classifier=classifier)
        limits = model.set_limits(classifier, mapping.info["expression_overlap"])
        assert answer.probabilities is not None and limits is not None
        sets = coverage_of(label_sets(answer.probabilities, limits), codes)
        rows.append(
            {
                "cells": path.stem,
                "n_cells": len(codes),
                "gene_overlap": round(mapping.info["gene_overlap"], 3),
                "classifier": classifier,
                **scores(answer.probabilities, codes),
                "unassigned": round(float((answer.decision.final == UNASSIGNED).mean()), 4),
                **{f"set_{key}": value for key, value in sets.items()},
            }
        )
    return rows


@click.command()
@click.option("--data", type=click.Path(exists=True, file_okay=False, path_type=Path), required=True)
@click.option(
    "--model", type=click.Path(exists=True, path_type=Path), default=ROOT / "assets" / "models" / "pbmc"
)
def main(data: Path, model: Path) -> None:
    """Write the table of scores."""
    import pandas as pd

    table = pd.DataFrame([row for name in SETS for row in measure(data / f"{name}.h5ad", model)])
    table.to_csv(ROOT / "benchmarks" / "results" / "embedded_model.csv", index=False, lineterminator="\n")
    click.echo(table.to_string(index=False))


if __name__ == "__main__":
    main()
