"""Raw counts of reference cells, from which the regression on genes is fitted anew where a sample lacks genes.

A regression whose genes are partly missing is worse than one that never relied on them. To fit one on the genes that
the sample has takes about a second, and needs nothing of the sample but the names of its genes.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import scipy.sparse as sp

from cellscribe.model.logistic import Logistic, batch_weights, train_logistic
from cellscribe.model.robust import with_copies

if TYPE_CHECKING:
    import pandas as pd

FILE, GENES_FILE = "reference_counts.safetensors", "reference_genes.tsv"
# More genes than the model's own, so that there are others in the place of those that are missing.
N_TOP_GENES = 3000
N_MARKERS, MOST_MARKERS = 200, 2000
# Of one label and batch, and in all: more cells make the model larger, and on held-out studies no better.
MOST_OF_A_KIND = 200
MOST_CELLS = 10_000
N_COPIES = 3
# With nearly all of the model's genes there is nothing to gain.
REFIT_BELOW = 0.95
FEWEST_GENES = 20


@dataclass(frozen=True)
class ReferenceCounts:
    """counts: raw, CSR (n_cells, n_genes). codes, batches: int (n_cells,). genes: gene_id, symbol."""

    counts: sp.csr_matrix
    codes: np.ndarray
    batches: np.ndarray
    genes: pd.DataFrame

    def regression(self, found: np.ndarray, n_labels: int) -> Logistic:
        """A regression on the genes that a sample has. found: bool (n_genes,).

        Its scores take counts on all of `genes`; those that were not found must be zero. The cells are taught with
        thinned copies, as shallow samples are gene-poor too.
        """
        columns = np.flatnonzero(found)
        copies, rows = with_copies(
            self.counts[:, columns], N_COPIES, np.random.default_rng(0), drop_genes=False
        )
        fitted = train_logistic(
            copies, self.codes[rows], n_labels, cell_weights=batch_weights(self.batches)[rows]
        )
        coefficients = np.zeros((len(found), n_labels), dtype=np.float32)
        coefficients[columns] = fitted.coefficients
        return Logistic(coefficients, fitted.intercepts)

    def save(self, folder: Path) -> None:
        """Write the counts as safetensors, at most 65,535 each, and the genes as a table."""
        from safetensors.numpy import save_file

        counts = self.counts.tocsr()
        save_file(
            {
                "counts": np.minimum(counts.data, np.iinfo(np.uint16).max).astype(np.uint16),
                "indices": counts.indices.astype(np.uint16),
                "indptr": counts.indptr.astype(np.int32),
                "codes": self.codes.astype(np.int16),
                "batches": self.batches.astype(np.int16),
            },
            folder / FILE,
        )
        self.genes[["gene_id", "symbol"]].to_csv(
            folder / GENES_FILE, sep="\t", index=False, lineterminator="\n"
        )

    @classmethod
    def load(cls, folder: Path) -> ReferenceCounts:
        """Read what `save` wrote."""
        import pandas as pd
        from safetensors.numpy import load_file

        tensors = load_file(folder / FILE)
        genes = pd.read_csv(folder / GENES_FILE, sep="\t", keep_default_na=False, dtype=str)
        counts = sp.csr_matrix(
            (
                tensors["counts"].astype(np.float32),
                tensors["indices"].astype(np.int32),
                tensors["indptr"],
            ),
            shape=(len(tensors["codes"]), len(genes)),
        )
        counts.check_format(full_check=True)
        if {"gene_id", "symbol"} - set(genes.columns) or tensors["batches"].shape != tensors["codes"].shape:
            raise ValueError("its cells, labels, batches and genes do not fit together")
        if not np.isfinite(counts.data).all() or (counts.data < 0).any():
            raise ValueError("its counts are no counts")
        return cls(counts, tensors["codes"].astype(np.int64), tensors["batches"].astype(np.int64), genes)


def some_cells(
    codes: np.ndarray,
    batches: np.ndarray,
    *,
    of_a_kind: int = MOST_OF_A_KIND,
    most: int = MOST_CELLS,
    seed: int = 0,
) -> np.ndarray:
    """Rows of at most `of_a_kind` cells of each label in each batch, fewer where there would be more than `most` cells.

    codes, batches: (n_cells,). Ascending; each kind keeps one cell at least.
    """
    order = np.random.default_rng(seed).permutation(len(codes))
    _, kinds, sizes = np.unique(
        np.stack([batches.astype(str)[order], codes[order].astype(str)]),
        axis=1,
        return_inverse=True,
        return_counts=True,
    )
    while of_a_kind > 1 and np.minimum(sizes, of_a_kind).sum() > most:
        of_a_kind -= 1
    by_kind = np.argsort(kinds.ravel(), kind="stable")
    rank = np.arange(len(codes)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    return np.sort(order[by_kind[rank < of_a_kind]])
