"""Which genes a model looks at."""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp

from cellscribe.model.logistic import log_normalise

PSEUDO_VARIANCE = 0.01
SILENT_SHARE = 1e-6


def _moments(matrix: sp.csr_matrix) -> tuple[np.ndarray, np.ndarray]:
    mean = np.asarray(matrix.mean(axis=0)).ravel()
    square = np.asarray(matrix.multiply(matrix).mean(axis=0)).ravel()
    return mean, np.maximum(square - mean**2, 0)


def marker_scores(logged: sp.csr_matrix, codes: np.ndarray, batches: np.ndarray, n_labels: int) -> np.ndarray:
    """How well each gene marks each label: its standardised difference to all other cells, mean over batches.

    logged: log-normalised CSR (n_cells, n_genes). codes: (n_cells,). batches: (n_cells,). A batch counts for a label
    where it has at least three of its cells and as many others. Returns (n_labels, n_genes).
    """
    scores = np.zeros((n_labels, logged.shape[1]))
    counted = np.zeros(n_labels)
    for batch in np.unique(batches):
        rows = np.flatnonzero(batches == batch)
        part, part_codes = logged[rows], codes[rows]
        _, variance = _moments(part)
        spread = np.sqrt(variance + PSEUDO_VARIANCE)
        for label in range(n_labels):
            inside = part_codes == label
            if inside.sum() < 3 or (~inside).sum() < 3:
                continue
            difference = (
                np.asarray(part[inside].mean(axis=0)).ravel() - np.asarray(part[~inside].mean(axis=0)).ravel()
            )
            weight = np.sqrt(inside.sum())
            scores[label] += weight * difference / spread
            counted[label] += weight
    return scores / np.maximum(counted, 1)[:, None]


def silent_genes(
    counts: sp.csr_matrix, codes: np.ndarray, n_labels: int, *, most: float = SILENT_SHARE
) -> np.ndarray:
    """Which genes no label expresses: bool (n_genes,), true where the gene has a smaller share than `most` of
    every label's counts.

    counts: raw CSR (n_cells, n_genes). A cell type that the reference lacks shows itself by counts on such genes,
    however near it comes to a known type on the genes that tell the known types apart.
    """
    highest = np.zeros(counts.shape[1])
    for code in range(n_labels):
        of_label = np.asarray(counts[np.flatnonzero(codes == code)].sum(axis=0)).ravel()
        highest = np.maximum(highest, of_label / max(of_label.sum(), 1))
    return highest < most


def select_genes(
    counts: sp.csr_matrix,
    codes: np.ndarray,
    batches: np.ndarray,
    n_labels: int,
    *,
    n_top_genes: int = 2000,
    n_markers: int = 100,
    min_cells: int = 5,
) -> np.ndarray:
    """Indices of the model's genes, ascending: the most variable ones and each label's markers.

    counts: raw CSR (n_cells, n_genes). Variable genes by normalised dispersion within each batch, ranked by
    the number of batches that agree (scanpy's `seurat` flavour; Satija et al. 2015, Nature Biotechnology 33:495).
    Markers keep the genes of types too rare to move the variance. Genes in fewer than `min_cells` cells are left out.
    """
    import anndata
    import pandas as pd
    import scanpy

    seen = np.flatnonzero(counts.getnnz(axis=0) >= min_cells)
    logged = log_normalise(counts)[:, seen].tocsr()
    adata = anndata.AnnData(
        logged.copy(),
        obs=pd.DataFrame(
            {"batch": pd.Categorical(np.asarray(batches, dtype=str))},
            index=np.arange(logged.shape[0]).astype(str),
        ),
    )
    scanpy.pp.highly_variable_genes(
        adata,
        n_top_genes=min(n_top_genes, len(seen)),
        batch_key="batch" if len(np.unique(batches)) > 1 else None,
    )
    chosen = set(np.flatnonzero(adata.var["highly_variable"].to_numpy()).tolist())
    for scores in marker_scores(logged, codes, batches, n_labels):
        top = np.argsort(-scores, kind="stable")[:n_markers]
        chosen |= set(top[scores[top] > 0].tolist())
    return seen[np.array(sorted(chosen), dtype=int)]
