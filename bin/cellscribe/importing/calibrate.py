"""Calibrating and testing an imported model on labelled cells that it has not seen."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from cellscribe.align import looks_like
from cellscribe.cli import log
from cellscribe.errors import InputError
from cellscribe.mapping import map_cells
from cellscribe.model.calibration import fit_pool
from cellscribe.model.manifest import MANIFEST, write_manifest
from cellscribe.model.model import CLASSIFIERS, MEMBERS, Model
from cellscribe.one_file import CountsInMemory
from cellscribe.training.calibrate import LOG_LINEAR_POOL, pooled_across
from cellscribe.training.evaluate import Evaluation, evaluate
from cellscribe.training.held_out import folds_of
from cellscribe.training.reference import LabelledCells, read_reference

OTHER_TEST_CELLS = (
    "Give test cells whose genes are named like these, or leave --test out. For a targeted panel, --min-gene-overlap "
    "lowers the bar."
)


@dataclass(frozen=True)
class TestCells:
    """Labelled cells that the model has not seen: files (without any it is not tested), columns, least gene overlap."""

    files: tuple[Path, ...] = ()
    label_key: str | None = None
    batch_key: str | None = None
    min_gene_overlap: float = 0.5

    def read(self, organism: str) -> LabelledCells:
        """The cells. Raises InputError as `read_reference` does, and where no column of labels is named."""
        if not self.label_key:
            raise InputError(
                "the cells given with --test have true labels in a column that was not named",
                "Name this obs column with --label-key.",
                file=self.files[0],
            )
        return read_reference(self.files, self.label_key, batch_key=self.batch_key, organism=organism)


def fit(
    probabilities: Mapping[str, np.ndarray],
    codes: np.ndarray,
    batches: np.ndarray,
    names: list[str],
    *,
    split: str,
    seed: int = 0,
) -> tuple[dict[str, Any], Evaluation]:
    """Calibrate every classifier that the members allow, and score it.

    probabilities: each member's, (n_cells, n_labels), for cells that it was not trained on. The weights of the
    manifest are fitted on all cells; the scores come from weights fitted without the cell's own batch. split: what the
    card says of the cells.
    """
    folds = folds_of(batches, codes, seed=seed)
    calibration: dict[str, Any] = {}
    pooled = {}
    for name, members in classifiers_of(probabilities).items():
        own = [probabilities[member] for member in members]
        weights = fit_pool(own, codes)
        calibration[name] = {
            "method": LOG_LINEAR_POOL,
            "weights": {m: round(float(w), 6) for m, w in zip(members, weights, strict=True)},
        }
        pooled[name] = pooled_across(
            probabilities,
            members,
            codes,
            np.ones(len(codes)),
            folds,
            np.zeros(len(names)),
        )
    default = next(iter(calibration))
    evaluation = evaluate(pooled, codes, batches, np.zeros(len(codes), dtype=bool), names, default, [])
    evaluation.headline["split"] = split
    return calibration, evaluation


def classifiers_of(members: Mapping[str, Any]) -> dict[str, tuple[str, ...]]:
    """The classifiers that these members allow: all of them together, then as of a model trained here."""
    every = tuple(member for member in MEMBERS if member in members)
    chosen = {"consensus": every} if len(every) > 2 else {}
    for name, needed in CLASSIFIERS.items():
        if set(needed) <= set(members):
            chosen.setdefault(name, needed)
    return chosen


def gene_names_of(genes: pd.DataFrame) -> pd.Series:
    """The symbols of a table of genes, `gene_id` and `symbol`; its ids where it has none."""
    return genes["symbol"] if (genes["symbol"] != "").any() else genes["gene_id"]


def calibrate(
    folder: Path, fields: dict[str, Any], test: TestCells, seed: int = 0
) -> tuple[dict[str, Any], Evaluation | None]:
    """The fields of a manifest with the calibration that `test` allows, and its evaluation.

    folder: the members' files; fields: a whole manifest, its calibration that of an untested model. Cells of labels
    that the model lacks are left out. Raises InputError where fewer than two of its labels are among the cells.
    """
    if not test.files:
        return fields, None
    cells = test.read(fields["organism"])
    if cells.organism != fields["organism"]:
        raise InputError(
            f"the test cells are {cells.organism}, the model is for {fields['organism']}",
            "Give cells of the model's organism, leave --test out, or correct --organism.",
            file=test.files[0],
        )
    # Calibration speaks of the labels alone: the chance of none of them, which sigmoids leave, is shared out first.
    members = [
        member | {"parameters": {"link": "one_vs_rest_share"}} if member["parameters"].get("link") else member
        for member in fields["members"]
    ]
    fields = fields | {"members": members}
    write_manifest(folder, fields)
    model = Model(folder)
    unknown = sorted(set(cells.names) - set(model.labels))
    rows = np.flatnonzero(np.isin(cells.labels.astype(str), model.labels))
    if len(set(cells.labels[rows])) < 2:
        raise InputError(
            f"of the model's labels {', '.join(model.labels[:8])} ... fewer than two are in column "
            f"'{test.label_key}', which holds {', '.join(cells.names[:8])} ...",
            "Name the column that has the model's own labels with --label-key, or leave --test out.",
            file=test.files[0],
        )
    for label in unknown:
        log(f"test cells of '{label}' are left out: the model has no such label")
    var = pd.DataFrame(
        {"gene_ids": cells.genes["gene_id"].to_numpy(), "gene_symbols": cells.genes["symbol"].to_numpy()},
        index=gene_names_of(cells.genes).astype(str),
    )
    mapping = map_cells(
        CountsInMemory(cells.counts[rows], var),
        model,
        min_gene_overlap=test.min_gene_overlap,
        advice=f"The model's own look like {looks_like(gene_names_of(model.genes))}. {OTHER_TEST_CELLS}",
    )
    probabilities = model.member_probabilities(**mapping.arrays(), members=tuple(model.members))
    codes = np.array([model.labels.index(label) for label in cells.labels[rows]])
    calibration, evaluation = fit(
        probabilities,
        codes,
        cells.batches[rows],
        model.labels,
        split=f"given as new to the model ({', '.join(cells.sources)})",
        seed=seed,
    )
    (folder / MANIFEST).unlink()
    return fields | {"calibration": calibration, "evaluation": evaluation.headline}, evaluation
