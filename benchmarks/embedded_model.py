#!/usr/bin/env python3
"""How well the embedded models name cells of studies that they have never seen.

    .venv/bin/python benchmarks/embedded_model.py --data ../shared/data/labelled

Writes benchmarks/results/embedded_model.csv. All labelled cells are used, without quality control; nothing is
tuned here. Where a set's labels are coarser than a model's, the probabilities of all labels that lie below one count as
its own.
"""

from __future__ import annotations

import sys
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING

import click
import numpy as np

if TYPE_CHECKING:
    import pandas as pd

    from cellscribe.answer import Decision
    from cellscribe.model.model import Model

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "bin"))

SETS = ("kang_ctrl_labelled", "pbmc4k_labelled")
MODELS = ("pbmc", "pbmc_fine")
# What the labels of the sets are in the Cell Ontology: a finer label of a model counts as the one that it lies below.
TERMS = {
    "B cell": "CL:0000236",
    "CD4 T cell": "CL:0000624",
    "CD8 T cell": "CL:0000625",
    "Dendritic cell": "CL:0000451",
    "Monocyte": "CL:0000576",
    "NK cell": "CL:0000623",
    "Platelet": "CL:0000233",
    "Classical monocyte": "CL:0000860",
    "Non-classical monocyte": "CL:0000875",
}
# kang_ctrl's own labels tell its monocytes apart.
MONOCYTES = {"CD14+ Monocytes": "Classical monocyte", "FCGR3A+ Monocytes": "Non-classical monocyte"}


def truths(obs: pd.DataFrame, model: Model) -> dict[str, np.ndarray]:
    """What the cells are, text (n_obs,): by the vocabulary of all sets, and with monocytes apart if both know them."""
    types = obs["cell_type_harmonized"].astype(str)
    finer = obs["cell_type"].astype(str).map(MONOCYTES)
    found = {"types": types.to_numpy()}
    if finer.notna().any() and set(MONOCYTES.values()) <= set(model.labels):
        found["types, monocytes apart"] = finer.fillna(types).to_numpy()
    return found


def classes_of(model: Model, names: Collection[str]) -> list[str]:
    """What each label of the model is among `names`: itself, or what it lies below in the Cell Ontology."""
    below = {name: TERMS[name] for name in sorted(names) if name in TERMS}
    return [
        label
        if label in names
        else next((name for name, term in below.items() if term in model.ontology.lineage(cl_id)), label)
        for label, cl_id in zip(model.labels, model.cl_ids, strict=True)
    ]


def measure(path: Path, model_folder: Path) -> list[dict[str, object]]:
    """Scores of every classifier of the model on one labelled file."""
    from cellscribe.answer import answer_cells
    from cellscribe.contract import UNASSIGNED
    from cellscribe.h5ad_input import read_h5ad
    from cellscribe.mapping import map_cells
    from cellscribe.model.label_sets import coverage_of, label_sets
    from cellscribe.model.model import Model
    from cellscribe.one_file import CountsInMemory
    from cellscribe.training.evaluate import scores

    model, read = Model(model_folder), read_h5ad(path)
    rows: list[dict[str, object]] = []
    for vocabulary, truth in truths(read.obs, model).items():
        classes = classes_of(model, set(truth))
        names = sorted(set(classes))
        known = np.isin(truth, names)
        mapping = map_cells(CountsInMemory(read.matrix[np.flatnonzero(known)], read.var), model)
        codes = np.array([names.index(label) for label in truth[known]])
        onto = np.array([[one == name for name in names] for one in classes])
        for classifier in model.classifiers:
            answer = answer_cells(mapping, model, classifier=classifier)
            limits = model.set_limits(classifier, mapping.info["expression_overlap"])
            assert answer.probabilities is not None and limits is not None
            sets = label_sets(answer.probabilities, limits)
            rows.append(
                {
                    "model": model_folder.name,
                    "cells": path.stem,
                    "labels": vocabulary,
                    "n_cells": len(codes),
                    "gene_overlap": round(mapping.info["gene_overlap"], 3),
                    "classifier": classifier,
                    **scores(answer.probabilities @ onto, codes),
                    "unassigned": round(float((answer.decision.final == UNASSIGNED).mean()), 4),
                    "broader": round(float(np.mean(stepped_up(answer.decision))), 4),
                    **{f"set_{key}": value for key, value in coverage_of(sets @ onto, codes).items()},
                }
            )
    return rows


def stepped_up(decision: Decision) -> np.ndarray:
    """Which cells got a broader name than the model's labels: bool (n_cells,)."""
    from cellscribe.contract import UNASSIGNED

    return (decision.reason != "") & (decision.final != UNASSIGNED)


@click.command()
@click.option("--data", type=click.Path(exists=True, file_okay=False, path_type=Path), required=True)
@click.option(
    "--model",
    "models",
    multiple=True,
    type=click.Path(exists=True, path_type=Path),
    default=[ROOT / "assets" / "models" / name for name in MODELS],
)
def main(data: Path, models: tuple[Path, ...]) -> None:
    """Write the table of scores."""
    import pandas as pd

    rows = [row for model in models for name in SETS for row in measure(data / f"{name}.h5ad", model)]
    table = pd.DataFrame(rows)
    table.to_csv(ROOT / "benchmarks" / "results" / "embedded_model.csv", index=False, lineterminator="\n")
    click.echo(table.to_string(index=False))


if __name__ == "__main__":
    main()
