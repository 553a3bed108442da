"""Thinned and gene-poor copies of cells, so that shallow or gene-poor queries do not surprise a model."""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp

LEAST_DEPTH = 0.1
LEAST_GENES = 0.3


def thinned_copy(
    counts: sp.csr_matrix, rng: np.random.Generator, *, drop_genes: bool = False
) -> sp.csr_matrix:
    """A copy with each cell thinned to 10 to 100 % of its counts; with `drop_genes`, 0 to 70 % of genes too.

    counts: CSR (n_cells, n_genes) of integers. Counts are thinned binomially, each cell by a depth of its
    own drawn log-uniformly. With `drop_genes`, cells are cut into ten groups, each of which loses a random
    set of genes, as if measured by another platform.
    """
    depth = np.exp(rng.uniform(np.log(LEAST_DEPTH), 0.0, size=counts.shape[0]))
    copy = counts.tocsr().astype(np.float32, copy=True)
    copy.data = rng.binomial(copy.data.astype(np.int64), np.repeat(depth, np.diff(copy.indptr))).astype(
        np.float32
    )
    if drop_genes:
        groups = rng.integers(0, 10, size=counts.shape[0])
        keep = np.stack([rng.random(counts.shape[1]) < rng.uniform(LEAST_GENES, 1.0) for _ in range(10)])
        rows = np.repeat(groups, np.diff(copy.indptr))
        copy.data *= keep[rows, copy.indices]
    copy.eliminate_zeros()
    return copy


def with_copies(
    counts: sp.csr_matrix, n_copies: int, rng: np.random.Generator, *, drop_genes: bool = True
) -> tuple[sp.csr_matrix, np.ndarray]:
    """The cells and `n_copies` altered copies of each, stacked; with `drop_genes`, every second copy loses genes too.

    Returns the matrix and, for each of its rows, the row of the original cell.
    """
    parts = [counts.tocsr().astype(np.float32)]
    parts += [thinned_copy(counts, rng, drop_genes=drop_genes and copy % 2 == 0) for copy in range(n_copies)]
    return sp.vstack(parts).tocsr(), np.tile(np.arange(counts.shape[0]), n_copies + 1)
