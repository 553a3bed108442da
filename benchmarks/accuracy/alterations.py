"""What makes a query or a reference harder: fewer counts, fewer genes, soup, wrong labels."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import scipy.sparse as sp

if TYPE_CHECKING:
    import anndata

FEWEST_CELLS_OF_A_GENE = 3


def thinned(cells: anndata.AnnData, share: float, rng: np.random.Generator) -> anndata.AnnData:
    """Each count kept with probability `share`, as by shallower sequencing; cells without a count are left out."""
    counts = cells.X.tocsr().copy()
    counts.data = rng.binomial(counts.data.astype(np.int64), share).astype(np.float32)
    counts.eliminate_zeros()
    result = cells.copy()
    result.X = counts
    return result[np.asarray(counts.sum(axis=1)).ravel() > 0].copy()


def random_genes(cells: anndata.AnnData, number: int, rng: np.random.Generator) -> anndata.AnnData:
    """Only `number` random genes, of those that at least three cells express."""
    expressed = np.flatnonzero(cells.X.getnnz(axis=0) >= FEWEST_CELLS_OF_A_GENE)
    return cells[:, np.sort(rng.choice(expressed, min(number, len(expressed)), replace=False))].copy()


def panel(cells: anndata.AnnData, number: int) -> anndata.AnnData:
    """Only the `number` genes that vary most between cells, as a designed panel would hold.

    By the variance of log-normalised values beyond what genes of that mean have (Satija et al. 2015), without labels.
    """
    from cellscribe.compiled import import_scanpy

    sc = import_scanpy()
    logged = cells.copy()
    sc.pp.normalize_total(logged, target_sum=1e4)
    sc.pp.log1p(logged)
    sc.pp.highly_variable_genes(logged, n_top_genes=min(number, cells.n_vars), flavor="seurat")
    return cells[:, logged.var["highly_variable"].to_numpy()].copy()


def with_soup(cells: anndata.AnnData, share: float, rng: np.random.Generator) -> anndata.AnnData:
    """Ambient RNA added to each cell, `share` of its own counts, drawn from the mean of all cells."""
    counts = cells.X.tocsr()
    totals = np.asarray(counts.sum(axis=1)).ravel()
    soup = np.asarray(counts.sum(axis=0)).ravel().astype(float)
    soup /= soup.sum()
    added = [
        sp.csr_matrix(rng.multinomial(round(total * share), soup).astype(np.float32)) for total in totals
    ]
    result = cells.copy()
    result.X = (counts + sp.vstack(added)).tocsr()
    return result


def with_wrong_labels(labels: np.ndarray, share: float, rng: np.random.Generator) -> np.ndarray:
    """A random `share` of the labels replaced, each by another label drawn evenly. labels: text (n,)."""
    names = np.unique(labels)
    result = labels.copy()
    for row in rng.choice(len(labels), round(share * len(labels)), replace=False):
        result[row] = rng.choice(names[names != labels[row]])
    return result
