"""Which genes a model looks at. Counts are walked over by blocks: they may lie on disk (disk.py)."""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp

from cellscribe.compiled import import_scanpy
from cellscribe.model.logistic import log_normalise
from cellscribe.training.disk import blocks_of, draw_cells
from cellscribe.training.options import TrainOptions
from cellscribe.training.reference import LabelledCells

PSEUDO_VARIANCE = 0.01
SILENT_SHARE = 1e-6
# So many cells say well enough which genes vary most; small batches keep theirs.
VARIABLE_FROM = 50_000
FEWEST_IN_A_BATCH = 20
# Genes in fewer cells are left out.
MIN_CELLS = 5


def label_sums(values: sp.csr_matrix, codes: np.ndarray, n_labels: int) -> np.ndarray:
    """Sum of each gene over each label's cells, float64 (n_labels, n_genes).

    values: CSR (n_cells, n_genes). codes: (n_cells,).
    """
    of = sp.csr_matrix((np.ones(len(codes)), (codes, np.arange(len(codes)))), shape=(n_labels, len(codes)))
    return np.asarray((of @ values).todense())


def moments(counts: sp.csr_matrix) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of each gene's log-normalised counts, both (n_genes,). counts: raw CSR."""
    total, square = np.zeros(counts.shape[1]), np.zeros(counts.shape[1])
    for _, block in blocks_of(counts):
        logged = log_normalise(block)
        total += np.asarray(logged.sum(axis=0, dtype=np.float64)).ravel()
        square += np.asarray(logged.power(2).sum(axis=0, dtype=np.float64)).ravel()
    mean = total / counts.shape[0]
    return mean, np.sqrt(np.maximum(square / counts.shape[0] - mean**2, 0))


def marker_scores(
    counts: sp.csr_matrix,
    codes: np.ndarray,
    batches: np.ndarray,
    n_labels: int,
    *,
    rows: np.ndarray | None = None,
) -> np.ndarray:
    """How well each gene marks each label: its standardised difference to all other cells, mean over batches.

    counts: raw CSR (n_cells, n_genes), compared log-normalised. codes, batches: (n_cells,). rows: the cells to look at,
    by default all. A batch counts for a label where it has at least three of its cells and as many others; for a label
    for which none does, all cells count as one batch. Returns (n_labels, n_genes).
    """
    rows = np.arange(counts.shape[0]) if rows is None else rows
    scores = np.zeros((n_labels, counts.shape[1]))
    counted = np.zeros(n_labels)
    all_sums, all_square = np.zeros_like(scores), np.zeros(counts.shape[1])
    for batch in np.unique(batches[rows]):
        of_batch = rows[batches[rows] == batch]
        sums, square = np.zeros_like(scores), np.zeros(counts.shape[1])
        for own, block in blocks_of(counts, of_batch):
            logged = log_normalise(block)
            sums += label_sums(logged, codes[own], n_labels)
            square += np.asarray(logged.power(2).sum(axis=0, dtype=np.float64)).ravel()
        n_inside = np.bincount(codes[of_batch], minlength=n_labels)
        for label in np.flatnonzero((n_inside >= 3) & (len(of_batch) - n_inside >= 3)).tolist():
            weight = np.sqrt(n_inside[label])
            scores[label] += weight * _difference(label, sums, square, n_inside)
            counted[label] += weight
        all_sums += sums
        all_square += square
    n_inside = np.bincount(codes[rows], minlength=n_labels)
    for label in np.flatnonzero((counted == 0) & (n_inside >= 3) & (len(rows) - n_inside >= 3)).tolist():
        scores[label] = _difference(label, all_sums, all_square, n_inside)
    return scores / np.maximum(counted, 1)[:, None]


def _difference(label: int, sums: np.ndarray, square: np.ndarray, n_inside: np.ndarray) -> np.ndarray:
    """Mean of a label's cells less that of the others, over the spread of all: (n_genes,). sums: (n_labels, n_genes),
    square: (n_genes,), of log-normalised counts; n_inside: (n_labels,) cells.
    """
    n_cells, total = n_inside.sum(), sums.sum(axis=0)
    spread = np.sqrt(np.maximum(square / n_cells - (total / n_cells) ** 2, 0) + PSEUDO_VARIANCE)
    inside = sums[label] / n_inside[label]
    outside = (total - sums[label]) / (n_cells - n_inside[label])
    return np.asarray((inside - outside) / spread)


def silent_genes(
    cells: LabelledCells, *, rows: np.ndarray | None = None, most: float = SILENT_SHARE
) -> np.ndarray:
    """Which genes no label expresses: bool (n_genes,), true where the gene has a smaller share than `most` of
    every label's counts, and where every file surely counted it (`named_alone`).

    rows: the cells to look at, by default all. A cell type that the reference lacks shows itself by counts on such
    genes, however near it comes to a known type on the genes that tell the known types apart.
    """
    codes, n_labels = cells.codes, len(cells.names)
    of_label = np.zeros((n_labels, cells.counts.shape[1]))
    for own, block in blocks_of(cells.counts, rows):
        of_label += label_sums(block, codes[own], n_labels)
    silent = (of_label / np.maximum(of_label.sum(axis=1, keepdims=True), 1)).max(axis=0) < most
    return silent if cells.named_alone is None else silent & ~cells.named_alone


def select_genes(
    counts: sp.csr_matrix,
    codes: np.ndarray,
    batches: np.ndarray,
    n_labels: int,
    *,
    rows: np.ndarray | None = None,
    n_top_genes: int = 2000,
    n_markers: int = 100,
) -> np.ndarray:
    """Indices of the model's genes, ascending: the most variable ones and each label's markers.

    counts: raw CSR (n_cells, n_genes). codes, batches: (n_cells,). rows: the cells to look at, by default all.
    Variable genes by normalised dispersion within each batch, ranked by the number of batches that agree (scanpy's
    `seurat` flavour; Satija et al. 2015, Nature Biotechnology 33:495), of at most VARIABLE_FROM cells. Batches of fewer
    than FEWEST_IN_A_BATCH cells have no variance to speak of: together they are one batch, which has no say where it is
    as small itself.
    Markers, of all cells, keep the genes of types too rare to move the variance. Genes in fewer than MIN_CELLS cells
    are left out.
    """
    import anndata
    import pandas as pd

    rows = np.arange(counts.shape[0]) if rows is None else rows
    n_cells = np.zeros(counts.shape[1], dtype=np.int64)
    for _, block in blocks_of(counts, rows):
        n_cells += block.getnnz(axis=0)
    seen = np.flatnonzero(n_cells >= MIN_CELLS)
    _, of = np.unique(batches[rows].astype(str), return_inverse=True)
    of = np.where(np.bincount(of)[of] < FEWEST_IN_A_BATCH, of.max() + 1, of)
    large = np.flatnonzero(np.bincount(of)[of] >= FEWEST_IN_A_BATCH)
    large = large if len(large) else np.arange(len(of))
    looked_at, of = rows[large], np.unique(of[large], return_inverse=True)[1]
    some = draw_cells(of, VARIABLE_FROM)
    adata = anndata.AnnData(
        log_normalise(counts[looked_at[some]])[:, seen].tocsr(),
        obs=pd.DataFrame({"batch": pd.Categorical(of[some])}, index=np.arange(len(some)).astype(str)),
    )
    import_scanpy().pp.highly_variable_genes(
        adata,
        n_top_genes=min(n_top_genes, len(seen)),
        batch_key="batch" if of.max() else None,
    )
    chosen = set(seen[adata.var["highly_variable"].to_numpy()].tolist())
    for scores in marker_scores(counts, codes, batches, n_labels, rows=rows)[:, seen]:
        top = np.argsort(-scores, kind="stable")[:n_markers]
        chosen |= set(seen[top[scores[top] > 0]].tolist())
    return np.array(sorted(chosen), dtype=int)


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
