"""How likely each label makes the counts of a cell: naive Bayes, for cells of few counts.

A cell's counts are taken as drawn from the genes by the shares that they have in a label (multinomial; McCallum and
Nigam 1998, AAAI workshop on learning for text categorization). With a hundred counts that is about true, and finds
rare types that a regression on logarithms loses. With a thousand it is not, as genes vary together and between
studies, so that its say fades.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import scipy.sparse as sp

from cellscribe.model.encoder import read_tensors

FILE = "likelihood.safetensors"
# Of the mean over labels, added to each label's share, so that a gene that a label never showed does not rule it out.
BACKGROUND = 0.05
LEAST_SHARE = 1e-7
# What the log likelihood is multiplied by: `STRENGTH` for a cell of hardly a count, half of it at `HALF_AT` counts on
# all of the model's genes, and for one of ten times as many nothing to speak of. Chosen on held-out studies
# (docs/models.md).
STRENGTH, HALF_AT, STEEPNESS = 0.2, 100, 3


@dataclass(frozen=True)
class Likelihood:
    """shares: (n_genes, n_labels), each gene's share of a label's counts; zeros for a label without cells, which is
    scored as the least likely of the others. measured: how much of the labels' counts are on genes that the cells have,
    mean over labels, 0 to 1: a cell is as deep as its counts divided by this.
    """

    shares: np.ndarray
    measured: float = 1.0

    def on(self, found: np.ndarray) -> Likelihood:
        """As if the other genes had not been measured in the reference either. found: bool (n_genes,)."""
        kept = self.shares[found].sum() / max(self.shares.sum(), 1e-12)
        return Likelihood(np.where(found[:, None], self.shares, 0), float(kept))

    @functools.cached_property
    def logs(self) -> np.ndarray:
        """Log of the shares, less the mean over labels, which says nothing of the label: float32 (n_genes, n_labels),
        zero for genes that no label has.
        """
        of_labels = self.shares / np.maximum(self.shares.sum(axis=0), 1e-12)
        known = of_labels.any(axis=0)
        if not known.any():
            return np.zeros(self.shares.shape, dtype=np.float32)
        background = of_labels[:, known].mean(axis=1, keepdims=True)
        smooth = of_labels + BACKGROUND * background + LEAST_SHARE
        smooth[~self.shares.any(axis=1)] = 0
        smooth /= np.maximum(smooth.sum(axis=0), 1e-12)
        logs = np.log(smooth, out=np.zeros(smooth.shape), where=smooth > 0)
        return (logs - logs[:, known].mean(axis=1, keepdims=True)).astype(np.float32)

    def scores(self, counts: sp.csr_matrix, totals: np.ndarray | None = None) -> np.ndarray:
        """Logits of raw counts on the model's genes: float32 (n_cells, n_labels).

        counts: CSR (n_cells, n_genes), zero on genes that were not measured. totals: (n_cells,), each cell's sum, where
        it is known.
        """
        if totals is None:
            totals = np.asarray(counts.sum(axis=1)).ravel()
        depth = totals.astype(np.float64) / max(self.measured, 1e-6)
        strength = STRENGTH / (1 + (depth / HALF_AT) ** STEEPNESS)
        scores = (np.asarray(counts @ self.logs) * strength[:, None]).astype(np.float32)
        known = self.shares.any(axis=0)
        if known.any():
            scores[:, ~known] = scores[:, known].min(axis=1, keepdims=True)
        return scores

    def save(self, path: Path) -> None:
        """Write as safetensors."""
        from safetensors.numpy import save_file

        save_file({"shares": np.ascontiguousarray(self.shares, dtype=np.float32)}, path)

    @classmethod
    def load(cls, path: Path) -> Likelihood:
        """Read what `save` wrote. Raises ValueError where it is no table of shares."""
        tensors, _ = read_tensors(path)
        shares = tensors["shares"]
        if shares.ndim != 2 or (shares < 0).any() or not shares.any():
            raise ValueError("its shares are no table of genes and labels, none below zero and some above")
        return cls(shares)
