"""Reference cells whose coreceptor contradicts their label.

The Cell Ontology tells T cells of two kinds apart by the coreceptor that they carry, CD4 or CD8. Clusters seldom do:
naive T cells of both kinds are nearer to each other than to the rest of their kind. So labels that were given to
clusters call many naive CD8 T cells CD4 T cells, and a model learns the mistake. A cell is contested where it has
counts of the other kind's coreceptor and none of its own kind's.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from cellscribe.cli import log, warn
from cellscribe.io import scratch_beside
from cellscribe.model.calibration import softmax
from cellscribe.model.logistic import batch_weights
from cellscribe.model.ontology import Ontology, descendants
from cellscribe.training.disk import blocks_of, draw_cells, some_columns
from cellscribe.training.genes import choose_genes
from cellscribe.training.held_out import folds_of
from cellscribe.training.members import MOST_TAUGHT, regression_of
from cellscribe.training.options import TrainOptions
from cellscribe.training.reference import FEWEST_CELLS, Contested, LabelledCells
from cellscribe.words import first_names

# Genes of the coreceptor, human and mouse, by the Cell Ontology's term for the T cells that carry it.
CORECEPTORS = {
    "CL:0000624": {"CD4", "ENSG00000010610", "ENSMUSG00000023274"},
    "CL:0000625": {
        *("CD8A", "ENSG00000153563", "ENSMUSG00000053977"),
        *("CD8B", "ENSG00000172116", "CD8B1", "ENSMUSG00000053044"),
    },
}
# What a label of either kind is mostly called.
NAMED_SO = re.compile("cd[48]", re.IGNORECASE)
NO_LABEL = -1
NEITHER = -1


def check_coreceptors(
    cells: LabelledCells, cl_ids: Mapping[str, str], ontology: Ontology, options: TrainOptions
) -> LabelledCells:
    """Find contested cells and, unless `options.correct_labels` is false, correct them; say what was found.

    cl_ids: each label's Cell Ontology id, "" where it has none. A label that would keep fewer than half of its cells,
    or fewer than a label needs, is left as it is, with a warning. Returns the cells with `contested` filled in and,
    where anything was corrected, `renamed` and `doubtful`.
    """
    kinds = kinds_of_labels(cells.names, cl_ids, ontology)
    if kinds is None:
        without = [name for name in cells.names if not cl_ids[name] and NAMED_SO.search(name)]
        if without:
            warn(
                f"labels were not held against CD4 and CD8, as the Cell Ontology does not know these: "
                f"{first_names(without)}. Give their ids with --cl_map."
            )
        return cells
    codes = cells.codes
    contested = contested_cells(cells, kinds[codes])
    numbers, found = (np.bincount(some, minlength=len(kinds)) for some in (codes, codes[contested]))
    left_alone = (found > 0) & (numbers - found < np.maximum(numbers / 2, FEWEST_CELLS))
    new = codes.copy()
    to_correct = contested & ~left_alone[codes]
    if options.correct_labels and to_correct.any():
        corrected = corrected_codes(cells, contested, kinds, options)
        new[to_correct] = corrected[to_correct[contested]]
    doubtful, renamed = new == NO_LABEL, (new != codes) & (new != NO_LABEL)
    report = [
        Contested(
            cells.names[code],
            n_cells=int(numbers[code]),
            n_contested=int(found[code]),
            n_renamed=int((renamed & (codes == code)).sum()),
            n_left_out=int((doubtful & (codes == code)).sum()),
        )
        for code in np.flatnonzero(found)
    ]
    for one, code in zip(report, np.flatnonzero(found), strict=True):
        warn(one.sentence())
        if left_alone[code]:
            warn(
                f"'{one.label}' is left as it is, as too few of its cells would remain: is {cl_ids[one.label]} the "
                "right term for it (--cl_map)?"
            )
    names = np.array(cells.names, dtype=object)
    return replace(
        cells,
        labels=names[np.where(doubtful, codes, new)],
        contested=report,
        renamed=renamed if renamed.any() else None,
        doubtful=doubtful if doubtful.any() else None,
    )


def kinds_of_labels(names: list[str], cl_ids: Mapping[str, str], ontology: Ontology) -> np.ndarray | None:
    """Which kind of T cell each label is, int (n_labels,): a position in `CORECEPTORS`, or NEITHER. None unless there
    are labels of both kinds: otherwise a cell of the other kind has no label to get.
    """
    covers = descendants(ontology, [cl_ids[name] for name in names])
    kinds = np.full(len(names), NEITHER)
    for kind, term in enumerate(CORECEPTORS):
        if term not in covers:
            return None
        kinds[covers[term]] = kind
    return kinds


def contested_cells(cells: LabelledCells, kinds: np.ndarray) -> np.ndarray:
    """Whether each cell has counts of the other kind's coreceptor and none of its own kind's: bool (n_obs,).

    kinds: int (n_obs,), of each cell's label. No cell is contested where the reference lacks the genes of either kind.
    """
    names = [cells.genes[column].str.upper() for column in ("gene_id", "symbol")]
    columns = [np.flatnonzero(names[0].isin(genes) | names[1].isin(genes)) for genes in CORECEPTORS.values()]
    contested = np.zeros(len(kinds), dtype=bool)
    if any(len(places) == 0 for places in columns):
        log(
            "the labels of CD4 and CD8 T cells are not checked: the reference lacks CD4, or both CD8A and CD8B"
        )
        return contested
    for rows, block in blocks_of(cells.counts):
        has = np.stack([np.asarray(block[:, places].sum(axis=1)).ravel() > 0 for places in columns])
        for kind in range(len(has)):
            contested[rows] |= (kinds[rows] == kind) & has[1 - kind] & ~has[kind]
    return contested


def corrected_codes(
    cells: LabelledCells, contested: np.ndarray, kinds: np.ndarray, options: TrainOptions
) -> np.ndarray:
    """The label that each contested cell gets, int (n_contested,): the best of the other kind where a regression finds
    that kind the more probable of the two, else -1, for none.

    The regression learns from uncontested cells of other batches (of one batch, from other cells); where these lack
    either kind nothing is known of the cell. contested: bool (n_obs,). kinds: int (n_labels,).
    """
    codes, n_labels = cells.codes, len(cells.names)
    folds = folds_of(cells.batches, codes, seed=options.seed)
    result = np.full(len(codes), NO_LABEL)
    for fold in np.unique(folds[contested]):
        inside = (folds != fold) & ~contested
        known = np.unique(codes[inside])
        if not np.isin(range(len(CORECEPTORS)), kinds[known]).all():
            continue
        rows = np.flatnonzero(inside)
        rows = rows[draw_cells(codes[rows], MOST_TAUGHT, seed=options.seed)]
        chosen = choose_genes(cells, inside, options)
        regression = regression_of(
            some_columns(cells.counts, chosen, scratch_beside(options.output), rows),
            codes[rows],
            batch_weights(cells.batches[rows]),
            n_labels,
            options,
            np.random.default_rng(options.seed),
        )
        for own, block in blocks_of(cells.counts, np.flatnonzero(contested & (folds == fold))):
            probabilities = softmax(regression.scores(block[:, chosen].tocsr()))
            of_kind = np.stack(
                [probabilities[:, kinds == kind].sum(axis=1) for kind in range(len(CORECEPTORS))], axis=1
            )
            kind = of_kind.argmax(axis=1)
            best = np.where(kinds == kind[:, None], probabilities, -1).argmax(axis=1)
            is_other = (kind != kinds[codes[own]]) & np.isin(best, known)
            result[own] = np.where(is_other, best, NO_LABEL)
    return result[contested]
