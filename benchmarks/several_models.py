#!/usr/bin/env python3
"""Accuracy and calibration of several models and of their consensus on labelled cells.

Models for it, of one donor and of six samples, each with broad and with fine labels (D is ../shared/data/labelled):

    .venv/bin/python bin/train.py --name donor --output donor --kind logistic --reference D/pbmc3k_labelled.h5ad \\
      --label-key cell_type_harmonized --cl-map assets/models/pbmc_labels.csv
    .venv/bin/python bin/train.py --name multi --output multi --reference D/multistudy_pbmc_6samples.h5ad \\
      --label-key cell_type_harmonized --batch-key batch --cl-map assets/models/pbmc_labels.csv

and `donor_fine`, `multi_fine` with `--kind logistic --label-key cell_type` and `--cl-map
benchmarks/several_models_labels.csv`. Then, for each pair:

    .venv/bin/python benchmarks/several_models.py --data D --model donor --model multi \\
      --output benchmarks/results/several_models.csv

Labels of any depth are held against `cell_type_harmonized`: one is right if by its Cell Ontology id it is the true type
or lies below it. What is broader than the truth is wrong as a prediction; as a final label it is counted apart. One of
the six samples is of pbmc4k's donor.
"""

from __future__ import annotations

import csv
import sys
from pathlib import Path

import click

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "bin"))

SETS = ("kang_ctrl_labelled", "pbmc4k_labelled")
TRUTH = {
    "B cell": "CL:0000236",
    "CD4 T cell": "CL:0000624",
    "CD8 T cell": "CL:0000625",
    "Dendritic cell": "CL:0000451",
    "Monocyte": "CL:0000576",
    "NK cell": "CL:0000623",
    "Platelet": "CL:0000233",
}


def measure(path: Path, folders: tuple[Path, ...]) -> list[dict[str, object]]:
    """A row for each model and one for the consensus, on one labelled file."""
    import numpy as np

    from cellscribe.answer import Answer, answer_cells
    from cellscribe.consensus import consensus
    from cellscribe.contract import UNASSIGNED
    from cellscribe.h5ad_input import read_h5ad
    from cellscribe.mapping import map_cells
    from cellscribe.model.calibration import expected_calibration_error
    from cellscribe.model.model import Model
    from cellscribe.model.ontology import build_ontology
    from cellscribe.one_file import CountsInMemory

    read = read_h5ad(path)
    truth = read.obs["cell_type_harmonized"].astype(str).to_numpy()
    known = np.isin(truth, list(TRUTH))
    cells = CountsInMemory(read.matrix[np.flatnonzero(known)], read.var)
    true_ids = np.array([TRUTH[label] for label in truth[known]], dtype=object)
    answers = []
    for folder in folders:
        model = Model(folder)
        answers.append(answer_cells(map_cells(cells, model), model))
    ontology = build_ontology(sorted({*TRUTH.values(), *(i for one in answers for i in one.cl_ids if i)}))

    def row(name: str, answer: Answer) -> dict[str, object]:
        ids = np.array(answer.cl_ids, dtype=object)[answer.predicted]
        right = np.array([true in ontology.lineage(cl_id) for true, cl_id in zip(true_ids, ids, strict=True)])
        final = answer.decision
        named = final.final != UNASSIGNED
        exact = np.array(
            [true in ontology.lineage(cl_id) for true, cl_id in zip(true_ids, final.final_cl_id, strict=True)]
        )
        broad = ~exact & np.array(
            [cl_id in ontology.lineage(true) for true, cl_id in zip(true_ids, final.final_cl_id, strict=True)]
        )
        return {
            "cells": path.stem,
            "n_cells": len(right),
            "answer": name,
            "n_labels": len(answer.labels),
            "accuracy": round(float(right.mean()), 4),
            "ece": round(expected_calibration_error(1 - answer.uncertainty, right), 4),
            "unassigned": round(float((~named).mean()), 4),
            "final_right": round(float((named & exact).mean()), 4),
            "final_broader": round(float((named & broad).mean()), 4),
            "final_wrong": round(float((named & ~exact & ~broad).mean()), 4),
        }

    names = [str(one.model["name"]) for one in answers]
    rows = [row(name, answer) for name, answer in zip(names, answers, strict=True)]
    return [*rows, row(f"consensus of {' + '.join(names)}", consensus(answers))]


@click.command()
@click.option("--data", type=click.Path(exists=True, file_okay=False, path_type=Path), required=True)
@click.option("--model", "models", type=click.Path(exists=True, path_type=Path), multiple=True, required=True)
@click.option("--output", type=click.Path(path_type=Path), help="A table to write, or to add to.")
def main(data: Path, models: tuple[Path, ...], output: Path | None) -> None:
    """Print the table of scores, and add it to a file."""
    rows = [row for name in SETS for row in measure(data / f"{name}.h5ad", models)]
    for row in rows:
        click.echo("\t".join(str(value) for value in row.values()))
    if output is not None:
        new = not output.exists()
        with output.open("a", newline="") as handle:
            writer = csv.DictWriter(handle, fieldnames=list(rows[0]), lineterminator="\n")
            if new:
                writer.writeheader()
            writer.writerows(rows)


if __name__ == "__main__":
    main()
