"""Multinomial logistic regression on log-normalised counts, kept sparse."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import scipy.sparse as sp

TARGET_SUM = 1e4


def log_normalise(counts: sp.csr_matrix, target_sum: float = TARGET_SUM) -> sp.csr_matrix:
    """log1p of counts scaled to `target_sum` a cell.

    The sum is over the columns given (the model's genes), so that a query with fewer other genes is
    normalised as the reference was. Cells without counts stay zero.
    """
    totals = np.asarray(counts.sum(axis=1)).ravel()
    factors = (target_sum / np.maximum(totals, 1)).astype(np.float32)
    result = counts.astype(np.float32, copy=True).tocsr()
    result.data *= np.repeat(factors, np.diff(result.indptr))
    np.log1p(result.data, out=result.data)
    return result


@dataclass(frozen=True)
class Logistic:
    """coefficients: (n_genes, n_labels) float32, the scaling of genes folded in; intercepts: (n_labels,)."""

    coefficients: np.ndarray
    intercepts: np.ndarray

    def scores(self, counts: sp.csr_matrix) -> np.ndarray:
        """Logits of raw counts on the model's genes: float32 (n_cells, n_labels)."""
        return np.asarray(log_normalise(counts) @ self.coefficients, dtype=np.float32) + self.intercepts

    def save(self, path: Path) -> None:
        """Write as safetensors."""
        from safetensors.numpy import save_file

        save_file(
            {
                "coefficients": np.ascontiguousarray(self.coefficients, dtype=np.float32),
                "intercepts": np.ascontiguousarray(self.intercepts, dtype=np.float32),
            },
            path,
        )

    @classmethod
    def load(cls, path: Path) -> Logistic:
        """Read what `save` wrote."""
        from safetensors.numpy import load_file

        tensors = load_file(path)
        return cls(tensors["coefficients"], tensors["intercepts"])
