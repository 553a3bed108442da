"""TRAIN: from labelled cells to a model folder, tested on donors that it did not see."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import scipy.sparse as sp

from cellscribe.cli import log, warn, warnings_told
from cellscribe.contract import OutputNames
from cellscribe.errors import InputError
from cellscribe.io import scratch_beside, write_json
from cellscribe.markers import housekeeping
from cellscribe.model.likelihood import FILE as LIKELIHOOD_FILE
from cellscribe.model.logistic import log_normalise
from cellscribe.model.model import NEIGHBOURS, Reference
from cellscribe.model.neighbours import N_NEIGHBOURS, nearest
from cellscribe.model.profiles import FILE as PROFILES
from cellscribe.training.calibrate import fit_calibration, novelty_null, score_classifiers, unexpected_limit
from cellscribe.training.coreceptors import check_coreceptors
from cellscribe.training.disk import blocks_of, some_columns
from cellscribe.training.folder import (
    check_names,
    finish_model,
    lineage_levels,
    manifest_fields,
    new_model,
    place_labels,
    tell_related,
    write_genes,
)
from cellscribe.training.genes import choose_genes, label_sums, marker_scores, moments, silent_genes
from cellscribe.training.held_out import hold_out, or_all, seen_elsewhere
from cellscribe.training.members import Members, reference_counts, train_members
from cellscribe.training.options import KINDS, TrainOptions
from cellscribe.training.reference import read_reference
from cellscribe.words import plural

N_QUANTILES = 1001
# Options that change nothing of what a model learns, or stand in fields of their own.
NO_PARAMETERS = (
    "output",
    "reference",
    "label_csv",
    "label_map",
    "cl_map",
    "cpus",
    "pipeline_version",
    "description",
    "licence",
    "citation",
    "lacks",
)
LIBRARIES = ("numpy", "scipy", "scikit-learn", "xgboost", "scvi-tools", "torch", "mlflow-skinny")
REJECTION = {
    "least_probability": 0.5,
    "ancestor_probability": 0.8,
    "distance_quantile": 0.995,
    # Of held-out cells thinned to 20 to 50 counts, those that pass least_probability were named right 9 times in 10.
    "least_counts": 20,
    "least_unexpected_counts": 5,
}


def reference_of(members: Members, batches: np.ndarray, seed: int) -> Reference:
    """The reference cells' latent, UMAP and null of distances; an altered copy lies where its cell does.

    batches: of the cells trained on. The null: each cell's mean distance to its nearest cells in other batches, as a
    query's cells would have (with one batch: to the other cells of that batch). Cells whose label is in no other batch
    have no part in it, as a query's cells of that label do have their like in the reference.
    """
    from cellscribe.clusters import lay_out, sample_graph

    assert members.latent is not None
    n_cells, latent = members.n_cells, members.latent
    cells, of = latent[:n_cells], batches[members.source].astype(str)
    own = of[:n_cells]
    mean = np.empty(n_cells, dtype=np.float32)
    if len(np.unique(of)) == 1:
        distances, _ = nearest(cells, cells, N_NEIGHBOURS + 1)
        mean[:] = distances[:, 1:].mean(axis=1)
    else:
        for name in np.unique(own):
            distances, _ = nearest(cells[own == name], latent[of != name], N_NEIGHBOURS)
            mean[own == name] = distances.mean(axis=1)
    layout = lay_out(cells, sample_graph(cells, members.codes[:n_cells], seed=seed), seed=seed)
    place = np.searchsorted(members.source[:n_cells], members.source)
    known = or_all(seen_elsewhere(members.codes[:n_cells], own))
    quantiles = np.quantile(mean[known], np.linspace(0, 1, N_QUANTILES)).astype(np.float32)
    return Reference(latent, members.codes, layout[place], quantiles)


def markers_of(
    counts: sp.csr_matrix, genes: pd.DataFrame, codes: np.ndarray, batches: np.ndarray, names: Sequence[str]
) -> dict[str, list[dict[str, Any]]]:
    """For each label, the 20 genes that mark it best in the reference, with how strong and how common they are.

    `housekeeping` genes are left out.
    """
    scores = marker_scores(counts, codes, batches, len(names))
    scores[:, housekeeping(genes["symbol"], genes["gene_id"])] = 0
    sums, seen = np.zeros(scores.shape), np.zeros(scores.shape)
    for own, block in blocks_of(counts):
        logged = log_normalise(block)
        sums += label_sums(logged, codes[own], len(names))
        seen += label_sums(logged > 0, codes[own], len(names))
    n_inside = np.bincount(codes, minlength=len(names))
    result = {}
    for code, name in enumerate(names):
        n_outside = max(len(codes) - n_inside[code], 1)
        mean_in, share_in = sums[code] / n_inside[code], seen[code] / n_inside[code]
        mean_out = (sums.sum(axis=0) - sums[code]) / n_outside
        share_out = (seen.sum(axis=0) - seen[code]) / n_outside
        top = [
            g
            for g in np.argsort(-scores[code], kind="stable")[:60]
            if scores[code][g] > 0 and share_in[g] >= 0.1
        ]
        result[name] = [
            {
                "gene_id": genes["gene_id"].iloc[g],
                "symbol": genes["symbol"].iloc[g],
                "mean": round(float(mean_in[g]), 4),
                "mean_rest": round(float(mean_out[g]), 4),
                "share": round(float(share_in[g]), 4),
                "share_rest": round(float(share_out[g]), 4),
                "score": round(float(scores[code][g]), 4),
            }
            for g in top[:20]
        ]
    return result


def check_options(options: TrainOptions) -> None:
    """Raises InputError for names and an output that would only fail once everything is trained."""
    check_names(options.name, options.version, options.output, options.levels)
    keys = OutputNames("key")
    taken = keys.every()
    for level in options.levels:
        for key in (keys.level(level), keys.level_uncertainty(level)):
            if key in taken:
                raise InputError(
                    f"a level cannot be called '{level}': annotation has another column of that name",
                    "Rename the obs column and name it with --levels.",
                )
            taken.add(key)


def tell_empty_levels(levels: Sequence[Mapping[str, Any]]) -> None:
    """Warn of levels that tell no labels apart. levels: each `name` and `labels`, label -> label at that level."""
    for level in levels:
        values = set(level["labels"].values())
        if len(values) == 1:
            warn(
                f"at level '{level['name']}' all labels are '{values.pop()}', which every cell will be called there: "
                "is it the column of coarser labels? Name that with --levels, or leave the level out."
            )


def run_train(options: TrainOptions) -> Path:
    """Train a model and write its folder; returns it. Raises InputError for references that cannot be used."""
    with warnings_told() as told:
        return _train(options, told)


def _train(options: TrainOptions, told: list[str]) -> Path:
    """told: what is warned of, as it is."""
    check_options(options)
    cells = read_reference(
        options.reference,
        options.label_key,
        label_csv=options.label_csv,
        label_map=options.label_map,
        batch_key=options.batch_key,
        levels=options.levels,
        organism=options.organism,
        counts_layer=options.counts_layer,
        gene_column=options.gene_column,
        scratch=scratch_beside(options.output),
    )
    names = cells.names
    n_batches = len(np.unique(cells.batches.astype(str)))
    log(
        f"reference: {plural(len(cells.labels), 'cell')}, {plural(len(names), 'label')}, {plural(n_batches, 'batch')}, "
        f"{plural(len(cells.genes), 'gene')}"
    )
    if options.encode_covariates and n_batches == 1:
        warn("--encode_covariates has no effect: there is one batch, so that the encoder sees genes alone")
    cl_ids, ontology = place_labels(names, options.cl_map)
    tell_related(cl_ids, ontology)
    cells = check_coreceptors(cells, cl_ids, ontology, options)
    codes = cells.codes
    levels = [
        {"name": level, "labels": {n: cells.levels[level][n] for n in names}} for level in options.levels
    ]
    tell_empty_levels(levels)
    levels = levels or lineage_levels(ontology, names, cl_ids)

    # A label in doubt calibrates nothing, and one that a regression gave is no test of one. But new cells will be like
    # both, and look as strange.
    held = hold_out(cells, options)
    if not held.taught.any():
        warn(
            "no label is in two of the parts that are held out, which are whole batches, so that no test can say how "
            "well the model knows any. Name the column of donors or samples with --batch_key."
        )
    teaching = None if cells.doubtful is None else ~cells.doubtful
    certain = held if teaching is None else held.of_cells(teaching)
    tested = certain if cells.renamed is None else certain.of_cells(~cells.renamed)
    calibration = fit_calibration(certain, codes, cells.batches, names, teaching=teaching)
    evaluation = score_classifiers(
        tested, calibration, codes, cells.batches, names, options.seed, teaching=teaching
    )

    if teaching is not None:
        cells = cells.of_cells(teaching, scratch_beside(options.output))
        codes = cells.codes
    log("training on all cells")
    every = np.ones(len(codes), dtype=bool)
    chosen = choose_genes(cells, every, options)
    counts = some_columns(cells.counts, chosen, scratch_beside(options.output))
    genes = cells.genes.iloc[chosen].reset_index(drop=True)
    members = train_members(counts, codes, cells.batches, len(names), options)
    contested = {one.sentence() for one in cells.contested}
    with new_model(options.output) as folder:
        silent = silent_table(cells.genes, silent_genes(cells))
        write_genes(folder, gene_table(genes, counts, members), silent)
        _write_members(folder, members, cells.batches, options.seed, with_profiles=bool(held.neighbourhoods))
        if members.logistic is not None and options.keep_counts:
            reference_counts(cells, every, options)[0].save(folder)
        write_json(markers_of(counts, genes, codes, cells.batches, names), folder / "markers.json")
        fields = manifest_fields(
            options,
            names,
            cl_ids,
            ontology,
            genes,
            cells,
            name=options.name,
            kind=options.kind,
            organism=cells.organism,
            label_key=options.label_key,
            levels=levels,
            members=[
                {"name": member, "parameters": {"k": N_NEIGHBOURS} if member == NEIGHBOURS else {}}
                for member in KINDS[options.kind]
            ],
            calibration=calibration,
            rejection=REJECTION | {"unexpected_share": unexpected_limit(held)},
            training={
                "batch_key": options.batch_key,
                "parameters": parameters_of(options),
                "seed": options.seed,
                "contested": [asdict(one) for one in cells.contested],
                "warnings": [text for text in told if text not in contested],
            },
            evaluation=evaluation.headline,
            libraries=LIBRARIES,
        )
        if held.neighbourhoods:
            fields["novelty"] = novelty_null(held, calibration, names)
        sha256 = finish_model(folder, fields, ontology, evaluation)
    log(f"model '{options.name} {options.version}' written to {options.output} (sha256 {sha256[:12]})")
    return options.output


def _write_members(
    folder: Path, members: Members, batches: np.ndarray, seed: int, *, with_profiles: bool
) -> None:
    """Write what the model names cells by. batches: (n_cells,). with_profiles: whether `novelty` was fitted on them."""
    if members.encoder is not None:
        members.encoder.save(folder / "encoder.safetensors")
        members.trees.save_model(folder / "trees.ubj")
        if members.scvi is not None and members.scvi.encodes_covariates:
            members.scvi.save(folder)
        reference_of(members, batches, seed).save(folder / "reference.safetensors")
        if members.profiles is not None and with_profiles:
            members.profiles.save(folder / PROFILES)
    if members.likelihood is not None:
        members.likelihood.save(folder / LIKELIHOOD_FILE)
    if members.logistic is not None:
        members.logistic.save(folder / "logistic.safetensors")


def silent_table(genes: pd.DataFrame, silent: np.ndarray) -> pd.DataFrame:
    """silent_genes.tsv: gene_id, symbol of the silent genes. One that shares its symbol with another gene is left out:
    a query that knows genes by symbol could not tell the two apart. silent: bool (n_genes,).
    """
    shared = genes["symbol"].duplicated(keep=False) & (genes["symbol"] != "")
    return genes[silent & ~shared.to_numpy()]


def gene_table(genes: pd.DataFrame, counts: sp.csr_matrix, members: Members) -> pd.DataFrame:
    """genes.tsv: gene_id, symbol, mean (log-normalised), importance (share of what regression and encoder weigh it)."""
    mean, deviation = moments(counts)
    weight = np.zeros(len(genes))
    if members.logistic is not None:
        weight += _share(np.abs(members.logistic.coefficients).sum(axis=1) * deviation)
    if members.encoder is not None:
        weight += _share(np.abs(members.encoder.weights[0]).sum(axis=1) * deviation)
    return pd.DataFrame(
        {
            "gene_id": genes["gene_id"],
            "symbol": genes["symbol"],
            "mean": mean.round(5),
            "importance": _share(weight).round(7),
        }
    )


def _share(values: np.ndarray) -> np.ndarray:
    return values / max(values.sum(), 1e-12)


def parameters_of(options: TrainOptions) -> dict[str, Any]:
    """The options that say how a model was trained: `training.parameters` of its manifest."""
    values = json.loads(json.dumps(asdict(options), default=str))
    return {key: value for key, value in values.items() if key not in NO_PARAMETERS}
