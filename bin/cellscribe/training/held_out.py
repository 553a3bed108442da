"""The test on cells that a model did not see: as they are, thinned, and without some of their genes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
import scipy.sparse as sp

from cellscribe.cli import log
from cellscribe.errors import InputError
from cellscribe.io import scratch_beside
from cellscribe.model.calibration import softmax
from cellscribe.model.logistic import log_normalise
from cellscribe.model.model import LOGISTIC
from cellscribe.model.reference_counts import ReferenceCounts
from cellscribe.model.robust import thinned_copy
from cellscribe.training.disk import some_columns
from cellscribe.training.genes import choose_genes, silent_genes
from cellscribe.training.members import Members, reference_counts, train_members
from cellscribe.training.options import TrainOptions
from cellscribe.training.reference import LabelledCells

MOST_FOLDS = 3
# Of a larger fold, so many cells are named.
MOST_TESTED = 50_000
# Of a batch that tells how strange known cells look: smaller ones look as strange as they like.
FEWEST_HELD_OUT = 50
# How many of the genes held-out cells keep: what is fitted on them is interpolated for a sample in between.
GENE_SHARES = (0.75, 0.5, 0.25, 0.1)


def folds_of(batches: np.ndarray, codes: np.ndarray, *, seed: int = 0) -> np.ndarray:
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
            folds[rows] = np.arange(len(rows)) % MOST_FOLDS
        return folds
    n_folds = min(MOST_FOLDS, len(names))
    load = np.zeros(n_folds)
    fold_of = {}
    for i in np.argsort(-sizes, kind="stable"):
        fold = int(load.argmin())
        fold_of[names[i]] = fold
        load[fold] += sizes[i]
    return np.array([fold_of[batch] for batch in batches.astype(str)])


# The members' probabilities for some cells of a fold, which cells these are, and whether they were thinned first.
Part = tuple[dict[str, np.ndarray], np.ndarray, bool]


@dataclass(frozen=True)
class HeldOutNames:
    """Members' probabilities for cells whose batch was not trained on.

    One row a held-out cell and copy: `rows` is the cell, `altered` says whether it was thinned first.
    """

    members: dict[str, np.ndarray]
    rows: np.ndarray
    altered: np.ndarray

    def of_cells(self, wanted: np.ndarray) -> Self:
        """The rows of some cells. wanted: bool, one for each cell of the reference."""
        inside = wanted[self.rows]
        return replace(
            self,
            members={name: values[inside] for name, values in self.members.items()},
            rows=self.rows[inside],
            altered=self.altered[inside],
        )


def joined(parts: Sequence[Part]) -> HeldOutNames:
    """The folds' parts as one, in single precision: there are ten sets of them, each of every label and member."""
    return HeldOutNames(
        {name: np.concatenate([part[0][name] for part in parts], dtype=np.float32) for name in parts[0][0]},
        np.concatenate([part[1] for part in parts]),
        np.concatenate([np.full(len(part[1]), part[2]) for part in parts]),
    )


@dataclass(frozen=True)
class HeldOut(HeldOutNames):
    """All that is known of held-out cells.

    fewer_genes: the same cells without some of the genes, by the share that is left.
    unexpected: for each unaltered cell, the share of its counts on genes that the training cells do not express.
    taught: bool, one for each cell of the reference: whether its label was among those that its fold trained on.
    neighbourhoods: one a held-out batch that is large enough, of a model with an embedding.
    """

    unexpected: np.ndarray
    neighbourhoods: list[Neighbourhood]
    fewer_genes: dict[float, HeldOutNames]
    taught: np.ndarray

    @classmethod
    def of(
        cls,
        parts: Sequence[Part],
        unexpected: Sequence[np.ndarray],
        neighbourhoods: list[Neighbourhood],
        fewer_genes: Mapping[float, Sequence[Part]],
        taught: np.ndarray,
    ) -> HeldOut:
        """From the folds' parts; of each fold `unexpected` too."""
        whole = joined(parts)
        return cls(
            whole.members,
            whole.rows,
            whole.altered,
            np.concatenate(unexpected),
            neighbourhoods,
            {share: joined(folds) for share, folds in fewer_genes.items()},
            taught,
        )

    def of_cells(self, wanted: np.ndarray) -> Self:
        """The rows of some cells, those without some of the genes too; without neighbourhoods, which are of all."""
        return replace(
            super().of_cells(wanted),
            unexpected=self.unexpected[wanted[self.rows[~self.altered]]],
            neighbourhoods=[],
            fewer_genes={share: part.of_cells(wanted) for share, part in self.fewer_genes.items()},
        )


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
    latent, sketches = members.encoder.encode(counts), members.profiles.sketch(log_normalise(counts))
    of_labels = members.profiles.of_labels(np.ones(counts.shape[1], dtype=bool))
    of = batches.astype(str)
    result = []
    for name in np.unique(of):
        rows = np.flatnonzero(of == name)
        if len(rows) >= FEWEST_HELD_OUT:
            near = sample_graph(latent[rows]).near
            result.append(Neighbourhood(first + rows, sketches[rows], of_labels, near))
    return result


def check_fold(
    codes: np.ndarray, batches: np.ndarray, inside: np.ndarray, held: np.ndarray, names: Sequence[str]
) -> None:
    """Raises InputError where the cells that a fold trains on have one label only. inside: bool (n_cells,); held: rows
    of the fold's own cells.
    """
    if len(np.unique(codes[inside])) > 1:
        return
    away = ", ".join(sorted(set(batches[held].astype(str))))
    raise InputError(
        f"with the batches {away} held out for the test, '{names[codes[inside][0]]}' is the only label left: no model "
        "could be trained without them, or it would learn the batches and not the labels",
        "Give references in which at least two batches hold two labels or more each, or another --batch_key.",
    )


def hold_out(cells: LabelledCells, options: TrainOptions) -> HeldOut:
    """Train without each fold in turn and predict it, as it is, thinned, and without some of the genes.

    Genes are chosen anew in each fold, so that nothing of the held-out batches is seen. Cells whose label is in doubt
    are predicted, and teach nothing.
    """
    codes, n_labels = cells.codes, len(cells.names)
    teaching = np.ones(len(codes), dtype=bool) if cells.doubtful is None else ~cells.doubtful
    folds = folds_of(cells.batches, codes, seed=options.seed)
    scratch = scratch_beside(options.output)
    parts: list[Part] = []
    unexpected = []
    neighbourhoods: list[Neighbourhood] = []
    fewer: dict[float, list[Part]] = {share: [] for share in GENE_SHARES}
    first = 0
    for fold in range(folds.max() + 1):
        inside = (folds != fold) & teaching
        held = np.flatnonzero(folds == fold)
        check_fold(codes, cells.batches, inside, held, cells.names)
        held = tested_cells(held, options.seed)
        log(
            f"held-out test {fold + 1} of {folds.max() + 1}: "
            f"training on {inside.sum():,} cells, testing on {len(held):,}"
        )
        chosen = choose_genes(cells, inside, options)
        members = train_members(
            some_columns(cells.counts, chosen, scratch, np.flatnonzero(inside)),
            codes[inside],
            cells.batches[inside],
            n_labels,
            options,
        )
        unexpected.append(unexpected_shares(cells, np.flatnonzero(inside), held))
        known = (
            reference_counts(cells, inside, options)
            if members.logistic is not None and options.keep_counts
            else None
        )
        rng = np.random.default_rng(options.seed + 1)
        copies = copies_of(cells.counts[held].tocsr(), chosen, None if known is None else known[1], rng)
        for copy in copies:
            parts.append((members.probabilities(copy.on_model), held, copy.altered))
        neighbourhoods += neighbourhoods_of(members, copies[0].on_model, cells.batches[held], first)
        for share in GENE_SHARES:
            kept = rng.random(cells.counts.shape[1]) < share
            found = without_genes(members, known, copies, chosen, kept)
            fewer[share] += [(one, held, copy.altered) for one, copy in zip(found, copies, strict=True)]
        first += 2 * len(held)
    return HeldOut.of(parts, unexpected, neighbourhoods, fewer, seen_elsewhere(codes, folds, teaching))


@dataclass(frozen=True)
class Copy:
    """Raw counts of held-out cells, CSR (n_cells, n_genes): on the model's genes, and on those that a regression is
    fitted anew from, where there are such. altered: whether they were thinned.
    """

    altered: bool
    on_model: sp.csr_matrix
    on_reference: sp.csr_matrix | None = None


def copies_of(
    counts: sp.csr_matrix, chosen: np.ndarray, columns: np.ndarray | None, rng: np.random.Generator
) -> list[Copy]:
    """Cells as they are, and thinned. counts: raw, all genes; chosen, columns: which genes `Copy` has."""
    return [
        Copy(altered, part[:, chosen].tocsr(), None if columns is None else part[:, columns].tocsr())
        for altered, part in ((False, counts), (True, thinned_copy(counts, rng)))
    ]


def tested_cells(held: np.ndarray, seed: int) -> np.ndarray:
    """Rows of at most MOST_TESTED of a fold's cells, ascending, every cell with the same chance: scores and calibration
    are of labels as frequent as they are. held: int (n_held,), ascending.
    """
    if len(held) <= MOST_TESTED:
        return held
    return np.sort(np.random.default_rng(seed).choice(held, MOST_TESTED, replace=False))


def seen_elsewhere(codes: np.ndarray, groups: np.ndarray, counted: np.ndarray | None = None) -> np.ndarray:
    """Whether each cell's label is that of a cell in another group too: bool (n_cells,). codes, groups: (n_cells,).
    counted: bool (n_cells,), the cells that are looked for, by default all.
    """
    _, of = np.unique(groups, return_inverse=True)
    there = np.zeros((codes.max() + 1, of.max() + 1), dtype=bool)
    there[(codes, of) if counted is None else (codes[counted], of[counted])] = True
    return np.asarray(there.sum(axis=1)[codes] - there[codes, of] > 0)


def or_all(some: np.ndarray) -> np.ndarray:
    """The cells that `some` marks, or all where it marks none: bool (n_cells,)."""
    return some if some.any() else np.ones(len(some), dtype=bool)


def unexpected_shares(cells: LabelledCells, trained: np.ndarray, held: np.ndarray) -> np.ndarray:
    """The share of each held-out cell's counts on genes that the training cells do not express, (n_held,).

    trained, held: rows, int.
    """
    silent = silent_genes(cells, rows=trained)
    of_cells = cells.counts[held]
    totals = np.asarray(of_cells.sum(axis=1)).ravel()
    return np.asarray((of_cells @ silent.astype(np.float32)) / np.maximum(totals, 1))


def without_genes(
    members: Members,
    known: tuple[ReferenceCounts, np.ndarray] | None,
    copies: Iterable[Copy],
    chosen: np.ndarray,
    kept: np.ndarray,
) -> list[dict[str, np.ndarray]]:
    """Each member's probabilities for cells of which only some genes were measured, as MAP would have them.

    known: `reference_counts` of the training cells. chosen: the model's genes. kept: bool (n_genes,).
    """
    regression = None
    if known is not None:
        reference, columns = known
        regression = reference.regression(kept[columns], members.n_labels)
    result = []
    for copy in copies:
        found = members.probabilities(only(copy.on_model, kept[chosen]), kept[chosen])
        if regression is not None and copy.on_reference is not None:
            found[LOGISTIC] = softmax(regression.scores(only(copy.on_reference, kept[columns])))
        result.append(found)
    return result


def only(counts: sp.csr_matrix, kept: np.ndarray) -> sp.csr_matrix:
    """The counts with zeros on all other genes. kept: bool (n_genes,)."""
    return (counts @ sp.diags(kept.astype(np.float32))).tocsr()
