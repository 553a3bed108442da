"""A saved scvi-tools model made into one of ours.

Lopez et al. 2018, Nature Methods 15:1053; Xu et al. 2021, Molecular Systems Biology 17:e9620. The encoder is taken
over as it is; trees and neighbours are trained on labelled reference cells in its latent space; SCANVI's own classifier
is kept beside them. Neither torch nor scvi-tools is needed.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from cellscribe.cli import log
from cellscribe.errors import InputError
from cellscribe.importing.calibrate import calibrate
from cellscribe.importing.scvi_reference import Placed, ScviOptions, place_reference
from cellscribe.importing.scvi_saved import PROGRAM, read_scvi
from cellscribe.io import write_json
from cellscribe.model.calibration import UNCALIBRATED
from cellscribe.model.model import NEIGHBOURS, SCANVI, TREES
from cellscribe.model.neighbours import N_NEIGHBOURS
from cellscribe.model.scvi_model import SCANVI as SCANVI_CLASS
from cellscribe.model.scvi_model import ScviModel, plain
from cellscribe.training.calibrate import fit_calibration, score_classifiers, unexpected_limit
from cellscribe.training.evaluate import Evaluation
from cellscribe.training.folder import (
    check_names,
    finish_model,
    lineage_levels,
    manifest_fields,
    new_model,
    place_labels,
    write_genes,
)
from cellscribe.training.genes import silent_genes
from cellscribe.training.held_out import (
    HeldOut,
    Part,
    check_fold,
    folds_of,
    seen_elsewhere,
    tested_cells,
    unexpected_shares,
)
from cellscribe.training.members import Members, taught_cells, train_trees
from cellscribe.training.reference import LabelledCells
from cellscribe.training.train import REJECTION, gene_table, markers_of, reference_of, silent_table
from cellscribe.words import plural

SEEN_BY_ENCODER = (
    "Trees, neighbours and their calibration were tested on whole batches that they had not seen, but the encoder may "
    "have been trained on these cells: on new donors expect lower scores and less certain labels. Cells new to "
    "the model, given with --test, would say by how much."
)


def members_of(
    placed: Placed, codes: np.ndarray, n_labels: int, rows: np.ndarray, options: ScviOptions
) -> Members:
    """Trees and neighbours of some of the cells. codes: (n_cells,); rows: bool (n_cells,)."""
    own = np.flatnonzero(rows)
    taught, known = taught_cells(codes[own], n_labels, options.seed)
    inside = np.isin(placed.source, own[taught])
    source, latent = placed.source[inside], placed.latent[inside]
    trees = train_trees(latent, codes[source], n_labels, cpus=options.cpus, seed=options.seed)
    kept = np.isin(source, own[known])
    latent, source = latent[kept], source[kept]
    return Members(placed.encoder, trees, None, latent, source, codes[source], len(known), n_labels)


def hold_out(placed: Placed, codes: np.ndarray, names: list[str], options: ScviOptions) -> HeldOut:
    """Train trees and neighbours without each fold of batches in turn, and name its cells as a query's."""
    cells = placed.cells
    folds = folds_of(cells.batches, codes, seed=options.seed)
    parts: list[Part] = []
    unexpected = []
    fewer: dict[float, list[Part]] = {share: [] for share in placed.fewer_genes}
    for fold in range(folds.max() + 1):
        inside, held = folds != fold, np.flatnonzero(folds == fold)
        check_fold(codes, cells.batches, inside, held, names)
        held = tested_cells(held, options.seed)
        members = members_of(placed, codes, len(names), inside, options)
        parts.append((members.latent_probabilities(placed.asked[held]), held, False))
        if placed.altered is not None:
            parts.append((members.latent_probabilities(placed.altered[held]), held, True))
        unexpected.append(unexpected_shares(cells, np.flatnonzero(inside), held))
        for share, latent in placed.fewer_genes.items():
            fewer[share].append((members.latent_probabilities(latent[held]), held, False))
    return HeldOut.of(parts, unexpected, [], fewer, seen_elsewhere(codes, folds))


def test_members(
    placed: Placed, held: HeldOut, codes: np.ndarray, names: list[str], seed: int
) -> tuple[dict[str, Any], Evaluation]:
    """The calibration by held-out batches, marked as seen by the encoder, and what it scores."""
    calibration = fit_calibration(held, codes, placed.cells.batches, names)
    evaluation = score_classifiers(
        held,
        calibration,
        codes,
        placed.cells.batches,
        names,
        seed,
        held_from="from trees, neighbours and the weights of the pool, though not from the encoder",
    )
    return {name: fitted | {"seen_by": "encoder"} for name, fitted in calibration.items()}, evaluation


def labels_column(model: ScviModel, options: ScviOptions, file: Path) -> str:
    """The obs column of labels: that which was asked for, else the model's own. Raises InputError for neither."""
    label_key = options.test.label_key or model.column("labels")
    if not label_key:
        raise InputError(
            "the model was trained without labels, so that the column of labels must be named",
            "Give --label-key, an obs column of the reference.",
            file=file,
        )
    return label_key


def labels_of(model: ScviModel, cells: LabelledCells) -> tuple[list[str], bool, list[str]]:
    """The labels, whether SCANVI's own classifier is kept for them, and a sentence where it cannot be.

    It is kept where it knows all labels of the cells; then the labels are all that it knows.
    """
    names, own = cells.names, set(model.labels)
    if not own:
        return names, False, []
    if set(names) <= own:
        return sorted(own), True, []
    other = ", ".join(sorted(set(names) - own)[:5])
    note = f"{SCANVI_CLASS}'s own classifier was left out: it does not know the labels {other}."
    log(note)
    return names, False, [note]


def members_kept(keeps_scanvi: bool) -> list[dict[str, Any]]:
    """`members` of the manifest. keeps_scanvi: whether SCANVI's own classifier is one of them."""
    return [
        {"name": NEIGHBOURS, "parameters": {"k": N_NEIGHBOURS}},
        {"name": TREES, "parameters": {}},
        *([{"name": SCANVI, "parameters": {}}] if keeps_scanvi else []),
    ]


def write_members(
    folder: Path,
    model: ScviModel,
    placed: Placed,
    members: Members,
    names: list[str],
    *,
    keeps_scanvi: bool,
    seed: int,
) -> None:
    """Write what the model names cells by, and the markers of its labels, where there are counts to find them in."""
    cells = placed.cells
    placed.encoder.save(folder / "encoder.safetensors")
    members.trees.save_model(folder / "trees.ubj")
    reference_of(members, cells.batches, seed).save(folder / "reference.safetensors")
    if keeps_scanvi:
        model.classifier(names).save(folder / "scanvi.safetensors")
    if model.encodes_covariates:
        model.save(folder)
    if placed.counts is not None:
        markers = markers_of(placed.counts, placed.genes, cells.codes, cells.batches, cells.names)
        write_json({label: markers.get(label, []) for label in names}, folder / "markers.json")


def run_import_scvi(options: ScviOptions) -> Path:
    """Write a model folder from a saved SCVI or SCANVI model; returns it.

    Raises ModelFetchError for what is no such model, InputError for cells and options that cannot be used,
    ModelMismatchError where the cells' genes are not the model's.
    """
    own_name = (options.model.parent if options.model.is_file() else options.model).resolve().name
    name = options.name or own_name
    check_names(name, options.version, options.output)
    model, file, sha256 = read_scvi(options.model, trusted=options.trust_model_code)
    label_key = labels_column(model, options, file)
    placed = place_reference(model, options, name, label_key, file)
    cells = placed.cells
    names, keeps_scanvi, left_out = labels_of(model, cells)
    notes = [*([] if options.test.files else [SEEN_BY_ENCODER]), *placed.notes, *left_out]
    codes = np.array([names.index(label) for label in cells.labels])
    cl_ids, ontology = place_labels(names, options.cl_map)
    log(
        f"reference: {plural(len(codes), 'cell')}, {plural(len(names), 'label')}, "
        f"{plural(len(np.unique(cells.batches.astype(str))), 'batch')}"
    )
    held = hold_out(placed, codes, names, options)
    calibration, evaluation = test_members(placed, held, codes, names, options.seed)
    if keeps_scanvi:
        calibration[SCANVI] = {"method": UNCALIBRATED, "weights": {SCANVI: 1.0}}
    members = members_of(placed, codes, len(names), np.ones(len(codes), dtype=bool), options)
    genes = _gene_table(placed, members)
    fields = manifest_fields(
        options,
        names,
        cl_ids,
        ontology,
        genes,
        cells,
        name=name,
        kind="scvi",
        organism=cells.organism,
        label_key=label_key,
        levels=lineage_levels(ontology, names, cl_ids),
        members=members_kept(keeps_scanvi),
        calibration=calibration,
        rejection=REJECTION
        | {"unexpected_share": unexpected_limit(held) if placed.counts is not None else 1.0},
        training={
            "batch_key": options.test.batch_key or model.column("batch"),
            "parameters": plain(model.options),
            "seed": options.seed,
        },
        source={
            "program": PROGRAM,
            "version": model.version,
            "file": f"{own_name}/{file.name}",
            "sha256": sha256,
            "details": {"Class": model.kind, "Batches in training": str(len(model.batches))},
            "notes": notes,
        },
        evaluation=evaluation.headline,
        libraries=("numpy", "scipy", "scikit-learn", "xgboost"),
    )
    with new_model(options.output) as folder:
        write_genes(folder, genes, silent_table(cells.genes, silent_genes(cells)))
        write_members(folder, model, placed, members, names, keeps_scanvi=keeps_scanvi, seed=options.seed)
        test = replace(options.test, label_key=label_key)
        fields, tested = calibrate(folder, fields, test, options.seed)
        sha256 = finish_model(folder, fields, ontology, tested or evaluation)
    log(
        f"model '{name} {options.version}' written to {options.output}: {len(names)} labels, {len(genes):,} genes, "
        + ("calibrated on test cells" if tested else "calibrated on cells that the encoder may have seen")
        + f" (sha256 {sha256[:12]})"
    )
    return options.output


def _gene_table(placed: Placed, members: Members) -> pd.DataFrame:
    """genes.tsv; without counts the genes' weights alone say how much each matters."""
    if placed.counts is not None:
        return gene_table(placed.genes, placed.counts, members)
    weight = np.abs(placed.encoder.weights[0]).sum(axis=1)
    return placed.genes.assign(mean=0.0, importance=(weight / max(weight.sum(), 1e-12)).round(7))
