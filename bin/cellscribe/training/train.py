"""TRAIN: from labelled cells to a model folder, tested on donors that it did not see."""

from __future__ import annotations

import datetime
import importlib.metadata
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import scipy.sparse as sp

from cellscribe.cli import log, warn
from cellscribe.contract import OutputNames
from cellscribe.errors import InputError
from cellscribe.io import scratch_beside, write_json
from cellscribe.model.calibration import few_cells_offsets, fit_pool, pool, softmax
from cellscribe.model.encoder import Encoder
from cellscribe.model.label_sets import coverage_of, fit_limits, label_sets
from cellscribe.model.logistic import Logistic, batch_weights, log_normalise, train_logistic
from cellscribe.model.model import (
    CLASSIFIERS,
    LOGISTIC,
    NEIGHBOURS,
    TREES,
    Reference,
    rarity_weights,
    tree_probabilities,
)
from cellscribe.model.neighbours import N_NEIGHBOURS, nearest, vote
from cellscribe.model.novelty import entropy_of, fit_null, strangeness
from cellscribe.model.profiles import FILE as PROFILES
from cellscribe.model.profiles import Profiles
from cellscribe.model.reference_counts import (
    MOST_MARKERS,
    N_MARKERS,
    N_TOP_GENES,
    ReferenceCounts,
    some_cells,
)
from cellscribe.model.robust import thinned_copy, with_copies
from cellscribe.model.scvi_model import ScviModel
from cellscribe.training.disk import blocks_of, draw_cells, on_disk, some_columns
from cellscribe.training.evaluate import Evaluation, evaluate, scores
from cellscribe.training.folder import (
    check_names,
    finish_model,
    gene_entry,
    label_entries,
    lineage_levels,
    new_model,
    place_labels,
)
from cellscribe.training.genes import label_sums, marker_scores, moments, select_genes, silent_genes
from cellscribe.training.members import batch_table, train_encoder, train_scvi, train_trees
from cellscribe.training.reference import LabelledCells, read_reference

KINDS: dict[str, tuple[str, ...]] = {
    "scvi": (NEIGHBOURS, TREES),
    "logistic": (LOGISTIC,),
    "consensus": (NEIGHBOURS, TREES, LOGISTIC),
}
# Of a larger reference, so many cells teach the regression and the trees and are named in each part of the test
# (`draw_cells`). All cells teach the encoder and the markers.
MOST_TAUGHT = 50_000
MOST_TESTED = 50_000
# Cells that a query finds as neighbours, each with its copies: to find the nearest is half of what mapping takes, and
# as many as these lose nothing (benchmarks/neighbours.py). Labels with up to half their share keep all of theirs.
NEIGHBOURS_OF_A_LABEL = 200
LEAST_NEIGHBOURS, MOST_NEIGHBOURS = 2_000, 10_000
MOST_FOLDS = 3
N_QUANTILES = 1001
# Of a batch that tells how strange known cells look: smaller ones look as strange as they like.
FEWEST_HELD_OUT = 50
REJECTION = {
    "least_probability": 0.5,
    "ancestor_probability": 0.8,
    "distance_quantile": 0.995,
    # Of held-out cells thinned to 20 to 50 counts, those that pass least_probability were named right 9 times in 10.
    "least_counts": 20,
    "least_unexpected_counts": 5,
}
KNOWN_ACCEPTED = 0.995


@dataclass(frozen=True)
class TrainOptions:
    """Options of `train.py`; see its --help."""

    reference: tuple[Path, ...]
    label_key: str
    output: Path
    name: str
    label_csv: tuple[Path, ...] = ()
    version: str = "1.0"
    kind: str = "consensus"
    batch_key: str | None = None
    levels: tuple[str, ...] = ()
    organism: str = "auto"
    counts_layer: str | None = None
    gene_column: str | None = None
    cl_map: Path | None = None
    description: str = ""
    licence: str = ""
    citation: str = ""
    n_top_genes: int = 1500
    n_markers: int = 50
    n_latent: int = 30
    max_epochs: int | None = None
    encode_covariates: bool = False
    keep_counts: bool = True
    logistic_copies: int = 3
    encoder_copies: int = 1
    seed: int = 0
    use_gpu: bool = False
    cpus: int = 1
    pipeline_version: str = "unknown"


@dataclass(frozen=True)
class Members:
    """Trained members. encoder and trees are None for a logistic model, logistic is None for an scvi one.

    latent: (n_rows, n_latent) of cells and their altered copies, which are the neighbours that a query finds, the
    `n_cells` unaltered ones first; source: (n_rows,), each row's cell among those trained on; codes: (n_rows,), its
    label. scvi: what fine-tuning the encoder takes, where it takes covariates. profiles: what the labels express.
    """

    encoder: Encoder | None
    trees: Any
    logistic: Logistic | None
    latent: np.ndarray | None
    source: np.ndarray
    codes: np.ndarray
    n_cells: int
    n_labels: int
    scvi: ScviModel | None = None
    profiles: Profiles | None = None

    def probabilities(self, counts: sp.csr_matrix) -> dict[str, np.ndarray]:
        """Each member's label probabilities for raw counts on the model's genes."""
        result: dict[str, np.ndarray] = {}
        if self.encoder is not None:
            result |= self.latent_probabilities(self.encoder.encode(counts))
        if self.logistic is not None:
            result[LOGISTIC] = softmax(self.logistic.scores(counts))
        return result

    def latent_probabilities(self, latent: np.ndarray) -> dict[str, np.ndarray]:
        """Those of the members that see the latent alone. latent: (n_cells, n_latent)."""
        assert self.latent is not None
        distances, indices = nearest(latent, self.latent, N_NEIGHBOURS)
        weights = rarity_weights(np.bincount(self.codes, minlength=self.n_labels))
        return {
            NEIGHBOURS: vote(distances, indices, self.codes, self.n_labels, weights),
            TREES: tree_probabilities(self.trees, latent),
        }


def as_stored(latent: np.ndarray) -> np.ndarray:
    """A latent in the precision that `Reference.save` keeps: what is trained on it meets the same numbers later."""
    return latent.astype(np.float16).astype(np.float32)


def train_members(
    counts: sp.csr_matrix, codes: np.ndarray, batches: np.ndarray, n_labels: int, options: TrainOptions
) -> Members:
    """Train every member of the model's kind on raw counts of the model's genes."""
    rng = np.random.default_rng(options.seed)
    encoder = trees = logistic = latent = scvi = profiles = None
    taught, known = taught_cells(codes, n_labels, options.seed)
    source = known
    wanted = KINDS[options.kind]
    if LOGISTIC in wanted:
        copies, rows = with_copies(counts[taught], options.logistic_copies, rng)
        weights = batch_weights(batches)[taught]
        logistic = train_logistic(
            copies, codes[taught][rows], n_labels, cell_weights=weights[rows], seed=options.seed
        )
    if NEIGHBOURS in wanted:
        copies = copies_on_disk(counts, options.encoder_copies, rng, scratch_beside(options.output))
        of_copies = np.tile(batches, options.encoder_copies + 1)
        how: dict[str, Any] = {
            "n_latent": options.n_latent,
            "max_epochs": options.max_epochs,
            "seed": options.seed,
            "use_gpu": options.use_gpu,
        }
        own = None
        if options.encode_covariates:
            scvi = train_scvi(copies, of_copies, encode_covariates=True, **how)
            own = scvi.covariates(batch_table(of_copies))
            encoder = scvi.encoder(own.mean(axis=0))
        else:
            encoder = train_encoder(copies, of_copies, **how)
        rows, source = rows_of_copies(taught, len(codes), options.encoder_copies)
        latent = as_stored(encode(encoder, copies, rows, own))
        trees = train_trees(latent, codes[source], n_labels, cpus=options.cpus, seed=options.seed)
        kept = np.isin(source, known)
        latent, source = latent[kept], source[kept]
        profiles = profiles_of(counts, codes, n_labels, options.seed)
    return Members(
        encoder, trees, logistic, latent, source, codes[source], len(known), n_labels, scvi, profiles
    )


def profiles_of(counts: sp.csr_matrix, codes: np.ndarray, n_labels: int, seed: int) -> Profiles:
    """What the labels express, by all cells. counts: raw, on the model's genes. A label without cells has the mean of
    all.
    """
    sums, squares = np.zeros((n_labels, counts.shape[1])), np.zeros(counts.shape[1])
    for own, block in blocks_of(counts):
        logged = log_normalise(block)
        sums += label_sums(logged, codes[own], n_labels)
        squares += np.asarray(logged.multiply(logged).sum(axis=0)).ravel()
    numbers = np.bincount(codes, minlength=n_labels)
    means = np.where(
        numbers[:, None] > 0, sums / np.maximum(numbers, 1)[:, None], sums.sum(axis=0) / len(codes)
    )
    variances = squares / len(codes) - (numbers / len(codes)) @ np.square(means)
    return Profiles.of(means, np.maximum(variances, 0), seed=seed)


def most_neighbours(n_labels: int) -> int:
    """How many cells of a reference with so many labels become neighbours."""
    return min(max(NEIGHBOURS_OF_A_LABEL * n_labels, LEAST_NEIGHBOURS), MOST_NEIGHBOURS)


def taught_cells(codes: np.ndarray, n_labels: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """The cells that teach regression and trees, and those of them that become neighbours: both rows, ascending."""
    taught = draw_cells(codes, MOST_TAUGHT, seed=seed)
    return taught, taught[draw_cells(codes[taught], most_neighbours(n_labels), seed=seed)]


def copies_on_disk(
    counts: sp.csr_matrix, n_copies: int, rng: np.random.Generator, folder: Path
) -> sp.csr_matrix:
    """What `with_copies` gives, on disk: CSR ((1 + n_copies) * n_cells, n_genes)."""

    def parts() -> Iterator[sp.csr_matrix]:
        for copy in range(-1, n_copies):
            for _, block in blocks_of(counts):
                yield block if copy < 0 else thinned_copy(block, rng, drop_genes=copy % 2 == 0)

    return on_disk(parts(), counts.shape[1], folder)


def rows_of_copies(cells: np.ndarray, n_cells: int, n_copies: int) -> tuple[np.ndarray, np.ndarray]:
    """Where some of `n_cells` cells and their copies stand in `copies_on_disk`, and each row's cell."""
    rows = np.concatenate([cells + n_cells * copy for copy in range(n_copies + 1)])
    return rows, np.tile(cells, n_copies + 1)


def encode(
    encoder: Encoder,
    counts: sp.csr_matrix,
    rows: np.ndarray,
    covariates: np.ndarray | None = None,
    *,
    alter: Callable[[sp.csr_matrix], sp.csr_matrix] = lambda block: block,
) -> np.ndarray:
    """The latent of some rows of counts, (n_rows, n_latent). covariates: (n_cells, n_covariates), of all rows.
    alter: what is done to a block first.
    """
    return np.concatenate(
        [
            encoder.encode(alter(block), None if covariates is None else covariates[own])
            for own, block in blocks_of(counts, rows)
        ]
    )


def folds_of(batches: np.ndarray, codes: np.ndarray, *, most: int = MOST_FOLDS, seed: int = 0) -> np.ndarray:
    """Which fold each cell is held out in, int (n_cells,): whole batches together, never split.

    Batches are dealt, the largest first, to the fold with fewest cells. With one batch only, cells are split at random
    within labels: said to flatter, and used because there is nothing better.
    """
    names, sizes = np.unique(batches.astype(str), return_counts=True)
    if len(names) == 1:
        rng = np.random.default_rng(seed)
        folds = np.empty(len(codes), dtype=int)
        for code in np.unique(codes):
            rows = rng.permutation(np.flatnonzero(codes == code))
            folds[rows] = np.arange(len(rows)) % most
        return folds
    n_folds = min(most, len(names))
    load = np.zeros(n_folds)
    fold_of = {}
    for i in np.argsort(-sizes, kind="stable"):
        fold = int(load.argmin())
        fold_of[names[i]] = fold
        load[fold] += sizes[i]
    return np.array([fold_of[batch] for batch in batches.astype(str)])


# How many of the genes held-out cells keep: what is fitted on them is interpolated for a sample in between.
GENE_SHARES = (0.75, 0.5, 0.25, 0.1)
# Of a thinned copy of a cell, beside the cell itself.
ALTERED_WEIGHT = 0.25


@dataclass(frozen=True)
class HeldOut:
    """Members' probabilities for cells whose batch was not trained on.

    One row a held-out cell and copy: `rows` is the cell, `altered` says whether it was thinned first.
    fewer_genes: the same cells without some of the genes, by the share that is left.
    unexpected: for each unaltered cell, the share of its counts on genes that the training cells do not express.
    taught: bool, one for each cell of the reference: whether its label was among those that its fold trained on.
    neighbourhoods: one a held-out batch that is large enough, of a model with an embedding.
    """

    members: dict[str, np.ndarray]
    rows: np.ndarray
    altered: np.ndarray
    unexpected: np.ndarray
    neighbourhoods: list[Neighbourhood]
    fewer_genes: dict[float, FewerGenes]
    taught: np.ndarray

    @classmethod
    def of(
        cls,
        parts: Sequence[tuple[dict[str, np.ndarray], np.ndarray, bool]],
        unexpected: Sequence[np.ndarray],
        neighbourhoods: list[Neighbourhood],
        fewer_genes: Mapping[float, Sequence[tuple[dict[str, np.ndarray], np.ndarray]]],
        taught: np.ndarray,
    ) -> HeldOut:
        """From the folds' parts: the members' probabilities, the cells, and whether these were altered.

        fewer_genes: the members' probabilities and the cells of each fold, by the share of genes that was left.
        """
        return cls(
            {name: np.concatenate([part[0][name] for part in parts]) for name in parts[0][0]},
            np.concatenate([part[1] for part in parts]),
            np.concatenate([np.full(len(part[1]), part[2]) for part in parts]),
            np.concatenate(unexpected),
            neighbourhoods,
            {
                share: FewerGenes(
                    {name: np.concatenate([part[0][name] for part in folds]) for name in folds[0][0]},
                    np.concatenate([part[1] for part in folds]),
                )
                for share, folds in fewer_genes.items()
            },
            taught,
        )


@dataclass(frozen=True)
class FewerGenes:
    """Members' probabilities for held-out cells that lack genes. rows: the cells."""

    members: dict[str, np.ndarray]
    rows: np.ndarray


@dataclass(frozen=True)
class Neighbourhood:
    """A held-out batch beside the labels that the others have. positions: (n_cells,), its unaltered rows in
    `HeldOut.rows`; sketches: (n_cells, n_numbers), label_sketches: (n_labels, n_numbers), of `Profiles`; near:
    (n_cells, k), each cell's nearest cells.
    """

    positions: np.ndarray
    sketches: np.ndarray
    label_sketches: np.ndarray
    near: np.ndarray


def neighbourhoods_of(
    members: Members, counts: sp.csr_matrix, batches: np.ndarray, first: int
) -> list[Neighbourhood]:
    """Each batch of held-out cells beside the labels that the members were trained on.

    counts: the held-out cells, (n_cells, n_genes), batches: (n_cells,), theirs. first: the position of the first cell
    in `HeldOut.rows`.
    """
    from cellscribe.clusters import sample_graph

    if members.encoder is None or members.profiles is None:
        return []
    latent, sketches = members.encoder.encode(counts), members.profiles.sketch(counts)
    of_labels = members.profiles.of_labels(np.ones(counts.shape[1], dtype=bool))
    of = batches.astype(str)
    result = []
    for name in np.unique(of):
        rows = np.flatnonzero(of == name)
        if len(rows) >= FEWEST_HELD_OUT:
            near = sample_graph(latent[rows]).near
            result.append(Neighbourhood(first + rows, sketches[rows], of_labels, near))
    return result


def check_fold(codes: np.ndarray, batches: np.ndarray, inside: np.ndarray, names: Sequence[str]) -> None:
    """Raises InputError where the cells that a fold trains on have one label only. inside: bool (n_cells,)."""
    if len(np.unique(codes[inside])) > 1:
        return
    away = ", ".join(sorted(set(batches[~inside].astype(str))))
    raise InputError(
        f"with the batches {away} held out for the test, '{names[codes[inside][0]]}' is the only label left: no model "
        "could be trained without them, or it would learn the batches and not the labels",
        "Give references in which at least two batches hold two labels or more each, or another --batch_key.",
    )


def hold_out(cells: LabelledCells, options: TrainOptions) -> HeldOut:
    """Train without each fold in turn and predict it, as it is, thinned, and without some of the genes.

    Genes are chosen anew in each fold, so that nothing of the held-out batches is seen.
    """
    codes, n_labels = cells.codes, len(cells.names)
    folds = folds_of(cells.batches, codes, seed=options.seed)
    scratch = scratch_beside(options.output)
    parts: list[tuple[dict[str, np.ndarray], np.ndarray, bool]] = []
    unexpected = []
    neighbourhoods: list[Neighbourhood] = []
    fewer: dict[float, list[tuple[dict[str, np.ndarray], np.ndarray]]] = {share: [] for share in GENE_SHARES}
    first = 0
    for fold in range(folds.max() + 1):
        inside = folds != fold
        held = tested_cells(np.flatnonzero(~inside), options.seed)
        check_fold(codes, cells.batches, inside, cells.names)
        log(
            f"held-out test {fold + 1} of {folds.max() + 1}: "
            f"training on {inside.sum():,} cells, testing on {len(held):,}"
        )
        chosen = choose_genes(cells, inside, options)
        counts = cells.counts[held][:, chosen].tocsr()
        members = train_members(
            some_columns(cells.counts, chosen, scratch, np.flatnonzero(inside)),
            codes[inside],
            cells.batches[inside],
            n_labels,
            options,
        )
        unexpected.append(unexpected_shares(cells.counts, codes, n_labels, np.flatnonzero(inside), held))
        rng = np.random.default_rng(options.seed + 1)
        parts.append((members.probabilities(counts), held, False))
        neighbourhoods += neighbourhoods_of(members, counts, cells.batches[held], first)
        altered = thinned_copy(counts, rng)
        parts.append((members.probabilities(altered), held, True))
        known = (
            reference_counts(cells, inside, options)
            if members.logistic is not None and options.keep_counts
            else None
        )
        for share in GENE_SHARES:
            kept = rng.random(cells.counts.shape[1]) < share
            fewer[share].append((without_genes(members, known, cells, held, chosen, kept), held))
        first += 2 * len(held)
    return HeldOut.of(parts, unexpected, neighbourhoods, fewer, seen_elsewhere(codes, folds))


def tested_cells(held: np.ndarray, seed: int) -> np.ndarray:
    """Rows of at most MOST_TESTED of a fold's cells, ascending, every cell with the same chance: scores and calibration
    are of labels as frequent as they are. held: int (n_held,), ascending.
    """
    if len(held) <= MOST_TESTED:
        return held
    return np.sort(np.random.default_rng(seed).choice(held, MOST_TESTED, replace=False))


def seen_elsewhere(codes: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Whether each cell's label is that of a cell in another group too: bool (n_cells,). codes, groups: (n_cells,)."""
    _, of = np.unique(groups, return_inverse=True)
    labels, _ = np.unique(np.stack([codes, of]), axis=1)
    return np.asarray(np.bincount(labels)[codes] > 1)


def or_all(some: np.ndarray) -> np.ndarray:
    """The cells that `some` marks, or all where it marks none: bool (n_cells,)."""
    return some if some.any() else np.ones(len(some), dtype=bool)


def unexpected_shares(
    counts: sp.csr_matrix, codes: np.ndarray, n_labels: int, trained: np.ndarray, held: np.ndarray
) -> np.ndarray:
    """The share of each held-out cell's counts on genes that the training cells do not express, (n_held,).

    counts: raw, (n_cells, n_genes). codes: (n_cells,). trained, held: rows, int.
    """
    silent = silent_genes(counts, codes, n_labels, rows=trained)
    of_cells = counts[held]
    totals = np.asarray(of_cells.sum(axis=1)).ravel()
    return np.asarray((of_cells @ silent.astype(np.float32)) / np.maximum(totals, 1))


def without_genes(
    members: Members,
    known: tuple[ReferenceCounts, np.ndarray] | None,
    cells: LabelledCells,
    rows: np.ndarray,
    chosen: np.ndarray,
    kept: np.ndarray,
) -> dict[str, np.ndarray]:
    """Each member's probabilities for cells of which only some genes were measured, as MAP would have them.

    known: `reference_counts` of the training cells. rows: the cells. chosen: the model's genes. kept: bool (n_genes,).
    """
    result = members.probabilities(only(cells.counts[rows][:, chosen], kept[chosen]))
    if known is not None:
        reference, columns = known
        found = kept[columns]
        counts = only(cells.counts[rows][:, columns], found)
        result[LOGISTIC] = softmax(reference.regression(found, members.n_labels).scores(counts))
    return result


def only(counts: sp.csr_matrix, kept: np.ndarray) -> sp.csr_matrix:
    """The counts with zeros on all other genes. kept: bool (n_genes,)."""
    return (counts @ sp.diags(kept.astype(np.float32))).tocsr()


def reference_counts(
    cells: LabelledCells, rows: np.ndarray, options: TrainOptions
) -> tuple[ReferenceCounts, np.ndarray]:
    """Counts of some cells on more genes than the model's own, and which genes these are. rows: bool (n_cells,)."""
    more = replace(
        options,
        n_top_genes=max(N_TOP_GENES, options.n_top_genes),
        n_markers=min(N_MARKERS, max(options.n_markers, MOST_MARKERS // len(cells.names))),
    )
    columns = choose_genes(cells, rows, more)
    inside = np.flatnonzero(rows)
    some = inside[some_cells(cells.codes[inside], cells.batches[inside], seed=options.seed)]
    _, batches = np.unique(cells.batches[some].astype(str), return_inverse=True)
    genes = cells.genes.iloc[columns].reset_index(drop=True)
    return ReferenceCounts(cells.counts[some][:, columns].tocsr(), cells.codes[some], batches, genes), columns


def choose_genes(cells: LabelledCells, rows: np.ndarray, options: TrainOptions) -> np.ndarray:
    """The model's genes, which have a name, chosen on some of the cells. rows: bool (n_obs,)."""
    named = (cells.genes["symbol"] != "") | (cells.genes["gene_id"] != "")
    chosen = select_genes(
        cells.counts,
        cells.codes,
        cells.batches,
        len(cells.names),
        rows=np.flatnonzero(rows),
        n_top_genes=options.n_top_genes,
        n_markers=options.n_markers,
    )
    return chosen[named.to_numpy()[chosen]]


def fit_calibration(
    held: HeldOut, codes: np.ndarray, batches: np.ndarray, names: Sequence[str]
) -> dict[str, Any]:
    """Pool weights of each classifier and the limits of its sets of labels, fitted on held-out cells, altered copies
    weighing a quarter; and the same for cells that lack genes. codes, batches: (n_cells,), of all cells, whose numbers
    say which labels have few (`label_offsets`).

    Cells of a label that a fold's training part lacked have a part in the weights: being wrong there is what
    uncertainty is for. They have none in the limits, which are for labels that a model knows.
    """
    result: dict[str, Any] = {}
    weights = batch_weights(batches)
    offsets = few_cells_offsets(np.bincount(codes, minlength=len(names)))
    for name, members in CLASSIFIERS.items():
        if set(members) <= set(held.members):
            fitted = fit_classifier(
                held.members,
                members,
                codes[held.rows],
                weights[held.rows],
                names,
                offsets=offsets,
                for_limits=~held.altered & held.taught[held.rows],
                altered=held.altered,
            )
            fewer = [
                {"gene_overlap": share}
                | fit_classifier(
                    part.members,
                    members,
                    codes[part.rows],
                    weights[part.rows],
                    names,
                    offsets=offsets,
                    for_limits=held.taught[part.rows],
                )
                for share, part in held.fewer_genes.items()
            ]
            result[name] = {
                "method": "log-linear pool",
                **fitted,
                "label_offsets": {n: round(float(o), 6) for n, o in zip(names, offsets, strict=True)},
                "fewer_genes": fewer,
            }
    return result


def fit_classifier(
    probabilities: dict[str, np.ndarray],
    members: Sequence[str],
    truth: np.ndarray,
    cell_weights: np.ndarray,
    names: Sequence[str],
    *,
    offsets: np.ndarray,
    for_limits: np.ndarray,
    altered: np.ndarray | None = None,
) -> dict[str, Any]:
    """Weights of the members, and the limits of the sets of labels, by held-out cells.

    probabilities: of each member, (n_cells, n_labels). truth, cell_weights: (n_cells,). offsets: (n_labels,), of
    `pool`, for the limits; weights are fitted without, so that held-out cells of other labels do not undo them.
    for_limits: bool (n_cells,), the cells that the limits are fitted on. altered: bool (n_cells,), copies that weigh a
    quarter.
    """
    own = [probabilities[m] for m in members]
    shares = np.ones(len(truth)) if altered is None else np.where(altered, ALTERED_WEIGHT, 1.0)
    weights = fit_pool(own, truth, shares * cell_weights)
    some = or_all(for_limits)
    limits = fit_limits(pool([p[some] for p in own], weights, offsets), truth[some], cell_weights[some])
    return {
        "weights": {m: round(float(w), 6) for m, w in zip(members, weights, strict=True)},
        "set_limits": {n: round(float(limit), 6) for n, limit in zip(names, limits, strict=True)},
    }


def pooled_across(
    probabilities: Mapping[str, np.ndarray],
    members: Sequence[str],
    truth: np.ndarray,
    cell_weights: np.ndarray,
    folds: np.ndarray,
    offsets: np.ndarray,
) -> np.ndarray:
    """A classifier's probabilities for held-out cells, each fold's by weights that were fitted on the other folds.

    probabilities: of each member, (n_cells, n_labels). truth, cell_weights, folds: (n_cells,). offsets: (n_labels,).
    """
    own = [probabilities[member] for member in members]
    result = np.empty(own[0].shape)
    for fold in np.unique(folds):
        held, others = folds == fold, folds != fold
        weights = fit_pool([p[others] for p in own], truth[others], cell_weights[others])
        result[held] = pool([p[held] for p in own], weights, offsets)
    return result


def score_classifiers(
    held: HeldOut,
    classifiers: Iterable[str],
    codes: np.ndarray,
    batches: np.ndarray,
    names: Sequence[str],
    seed: int,
    *,
    held_from: str = "from the weights of the pool too",
) -> Evaluation:
    """Score each of the classifiers on held-out cells, by weights that were fitted without the cell's own fold.

    codes, batches: (n_cells,), of all cells. held_from: what had not seen them, as the card says.
    """
    folds = folds_of(batches, codes, seed=seed)
    weights = batch_weights(batches)
    offsets = few_cells_offsets(np.bincount(codes, minlength=len(names)))

    def across(
        classifier: str, members: dict[str, np.ndarray], rows: np.ndarray, share: np.ndarray
    ) -> np.ndarray:
        return pooled_across(
            members, CLASSIFIERS[classifier], codes[rows], weights[rows] * share, folds[rows], offsets
        )

    thinned = np.where(held.altered, ALTERED_WEIGHT, 1.0)
    found = {name: across(name, held.members, held.rows, thinned) for name in classifiers}
    best = next(name for name in CLASSIFIERS if name in found)
    fewer = [
        {"gene_overlap": share}
        | scores(across(best, part.members, part.rows, np.ones(len(part.rows))), codes[part.rows])
        for share, part in held.fewer_genes.items()
    ]
    of = batches[held.rows]
    evaluation = evaluate(found, codes[held.rows], of, held.altered, list(names), best, fewer)
    evaluation.headline["split"] += f", {held_from}"
    plain = np.flatnonzero(~held.altered)
    rows = held.rows[plain]
    sets = held_out_sets(found[best][plain], codes[rows], folds[rows], weights[rows], held.taught[rows])
    evaluation.headline.update({f"set_{key}": value for key, value in sets.items()})
    return evaluation


def unexpected_limit(held: HeldOut) -> float:
    """The share of counts on unexpected genes that nearly all held-out cells of known labels stay below."""
    known = or_all(held.taught[held.rows[~held.altered]])
    return float(np.quantile(held.unexpected[known], KNOWN_ACCEPTED))


def novelty_null(held: HeldOut, calibration: dict[str, Any], names: Sequence[str]) -> dict[str, Any]:
    """How strange held-out cells look: `novelty` of a manifest. calibration: of `fit_calibration`."""
    doubt = held.members.get(LOGISTIC)
    members, fitted = next(
        (CLASSIFIERS[name], calibration[name]) for name in CLASSIFIERS if name in calibration
    )
    weights = np.array([fitted["weights"][member] for member in members])
    offsets = np.array([fitted["label_offsets"][name] for name in names])
    parts = []
    for one in held.neighbourhoods:
        signs = strangeness(
            one.sketches,
            one.label_sketches,
            pool([held.members[member][one.positions] for member in members], weights, offsets),
            None if doubt is None else entropy_of(doubt[one.positions]),
            one.near,
        )
        known = held.taught[held.rows[one.positions]]
        parts.append((signs, known if known.sum() >= FEWEST_HELD_OUT else np.ones(len(known), dtype=bool)))
    return fit_null(parts, names)


def held_out_sets(
    probabilities: np.ndarray,
    codes: np.ndarray,
    folds: np.ndarray,
    cell_weights: np.ndarray,
    taught: np.ndarray,
) -> dict[str, float]:
    """Coverage and size of the sets of labels, each fold with limits fitted on the others.

    probabilities: (n_cells, n_labels), calibrated; codes, folds, cell_weights: (n_cells,). taught: bool (n_cells,),
    cells that limits may be fitted on.
    """
    inside = np.zeros(probabilities.shape, dtype=bool)
    for fold in np.unique(folds):
        own = folds == fold
        others = ~own & taught if (~own & taught).any() else ~own
        limits = fit_limits(probabilities[others], codes[others], cell_weights[others])
        inside[own] = label_sets(probabilities[own], limits)
    return coverage_of(inside, codes)


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

    Ribosomal and mitochondrial genes are left out: they follow the state of a cell and its library, and would speak
    for whatever type was measured in the best shape.
    """
    scores = marker_scores(counts, codes, batches, len(names))
    housekeeping = genes["symbol"].str.upper().str.match(r"^(RP[SL]\d|RPLP\d|RPSA$|MT-)").to_numpy()
    scores[:, housekeeping] = 0
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


def run_train(options: TrainOptions) -> Path:
    """Train a model and write its folder; returns it. Raises InputError for references that cannot be used."""
    check_options(options)
    cells = read_reference(
        options.reference,
        options.label_key,
        label_csv=options.label_csv,
        batch_key=options.batch_key,
        levels=options.levels,
        organism=options.organism,
        counts_layer=options.counts_layer,
        gene_column=options.gene_column,
        scratch=scratch_beside(options.output),
    )
    names, codes = cells.names, cells.codes
    log(
        f"reference: {len(codes):,} cells, {len(names)} labels, {len(np.unique(cells.batches.astype(str)))} batches, "
        f"{len(cells.genes):,} genes"
    )
    if options.encode_covariates and len(np.unique(cells.batches.astype(str))) == 1:
        warn("--encode_covariates has no effect: there is one batch, so that the encoder sees genes alone")
    cl_ids, ontology = place_labels(names, options.cl_map)
    levels = [
        {"name": level, "labels": {n: cells.levels[level][n] for n in names}} for level in options.levels
    ]
    levels = levels or lineage_levels(ontology, names, cl_ids)

    held = hold_out(cells, options)
    calibration = fit_calibration(held, codes, cells.batches, names)
    evaluation = score_classifiers(held, calibration, codes, cells.batches, names, options.seed)

    log("training on all cells")
    every = np.ones(len(codes), dtype=bool)
    chosen = choose_genes(cells, every, options)
    counts = some_columns(cells.counts, chosen, scratch_beside(options.output))
    genes = cells.genes.iloc[chosen].reset_index(drop=True)
    members = train_members(counts, codes, cells.batches, len(names), options)
    n_batches = {
        name: len(np.unique(cells.batches[codes == code].astype(str))) for code, name in enumerate(names)
    }
    with new_model(options.output) as folder:
        gene_table(genes, counts, members).to_csv(
            folder / "genes.tsv", sep="\t", index=False, lineterminator="\n"
        )
        silent_table(cells.genes, silent_genes(cells.counts, codes, len(names))).to_csv(
            folder / "silent_genes.tsv", sep="\t", index=False, lineterminator="\n"
        )
        if members.encoder is not None:
            members.encoder.save(folder / "encoder.safetensors")
            members.trees.save_model(folder / "trees.ubj")
            if members.scvi is not None and members.scvi.encodes_covariates:
                members.scvi.save(folder)
            reference_of(members, cells.batches, options.seed).save(folder / "reference.safetensors")
            if members.profiles is not None and held.neighbourhoods:
                members.profiles.save(folder / PROFILES)
        if members.logistic is not None:
            members.logistic.save(folder / "logistic.safetensors")
            if options.keep_counts:
                reference_counts(cells, every, options)[0].save(folder)
        write_json(markers_of(counts, genes, codes, cells.batches, names), folder / "markers.json")
        rejection = REJECTION | {"unexpected_share": unexpected_limit(held)}
        fields = manifest_fields(
            options, cells, genes, cl_ids, ontology, levels, n_batches, calibration, rejection, evaluation
        )
        if held.neighbourhoods:
            fields["novelty"] = novelty_null(held, calibration, names)
        sha256 = finish_model(folder, fields, ontology, evaluation)
    log(f"model '{options.name} {options.version}' written to {options.output} (sha256 {sha256[:12]})")
    return options.output


def silent_table(genes: pd.DataFrame, silent: np.ndarray) -> pd.DataFrame:
    """silent_genes.tsv: gene_id, symbol of the silent genes. One that shares its symbol with another gene is left out:
    a query that knows genes by symbol could not tell the two apart. silent: bool (n_genes,).
    """
    shared = genes["symbol"].duplicated(keep=False) & (genes["symbol"] != "")
    return genes[silent & ~shared.to_numpy()]


def gene_table(genes: pd.DataFrame, counts: sp.csr_matrix, members: Members) -> pd.DataFrame:
    """genes.tsv: gene_id, symbol, mean (log-normalised), importance (share of all weight that the model puts on it)."""
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


def manifest_fields(
    options: TrainOptions,
    cells: LabelledCells,
    genes: pd.DataFrame,
    cl_ids: dict[str, str],
    ontology: Any,
    levels: list[dict[str, Any]],
    n_batches: dict[str, int],
    calibration: dict[str, Any],
    rejection: dict[str, float],
    evaluation: Evaluation,
) -> dict[str, Any]:
    """Everything of manifest.json but the files."""
    names, codes = cells.names, cells.codes
    numbers = np.bincount(codes, minlength=len(names))
    parameters = {
        key: value
        for key, value in json.loads(json.dumps(asdict(options), default=str)).items()
        if key
        not in (
            "output",
            "reference",
            "label_csv",
            "cl_map",
            "cpus",
            "pipeline_version",
            "description",
            "licence",
            "citation",
        )
    }
    return {
        "name": options.name,
        "version": options.version,
        "kind": options.kind,
        "organism": cells.organism,
        "created": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "description": options.description,
        "licence": options.licence,
        "citation": options.citation,
        "label_key": options.label_key,
        "labels": label_entries(names, cl_ids, ontology, numbers, n_batches),
        "levels": levels,
        "genes": gene_entry(genes),
        "members": [
            {"name": member, "parameters": {"k": N_NEIGHBOURS} if member == NEIGHBOURS else {}}
            for member in KINDS[options.kind]
        ],
        "calibration": calibration,
        "rejection": rejection,
        "training": {
            "n_cells": len(codes),
            "n_genes": len(genes),
            "sources": cells.sources,
            "batch_key": options.batch_key,
            "n_batches": len(np.unique(cells.batches.astype(str))),
            "parameters": parameters,
            "seed": options.seed,
        },
        "evaluation": evaluation.headline,
        "does_not_know": [
            f"{label} ({number} cells: too few to learn)" for label, number in cells.left_out.items()
        ],
        "libraries": {
            name: importlib.metadata.version(name)
            for name in ("numpy", "scipy", "scikit-learn", "xgboost", "scvi-tools", "torch", "mlflow-skinny")
        },
        "pipeline_version": options.pipeline_version,
    }
