"""What each label of a reference expresses, and a short sketch of it that cells can be held against.

A sketch is a fixed random projection of log-normalised counts, each gene divided by its deviation within labels:
differences between sketches are as long as those between the profiles, nearly (Johnson and Lindenstrauss 1984,
Contemporary Mathematics 26:189), and means of sketches are sketches of means. So MAP, which sees a chunk of cells
at a time, can leave to ANNOTATE what it needs to ask of the genes of a cell and its like.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import scipy.sparse as sp

from cellscribe.model.logistic import log_normalise

FILE = "profiles.safetensors"
# Of half as many the residual of a whole label hangs on which were drawn. Models with another number are used as they
# are.
N_NUMBERS = 256
# Added to each gene's variance within labels, so that hardly seen genes do not weigh most.
VARIANCE_FLOOR = 0.02


@dataclass(frozen=True)
class Profiles:
    """means: (n_labels, n_genes), of log-normalised counts; projection: (n_genes, n_numbers)."""

    means: np.ndarray
    projection: np.ndarray

    @classmethod
    def of(cls, means: np.ndarray, variances: np.ndarray, *, seed: int = 0) -> Profiles:
        """From the mean of each label (n_labels, n_genes) and the genes' variances within labels (n_genes,)."""
        drawn = np.random.default_rng(seed).standard_normal((len(variances), N_NUMBERS))
        # Its lengths are those of the mean over genes, so that models of many genes have no longer ones.
        scale = 1 / np.sqrt((variances + VARIANCE_FLOOR) * N_NUMBERS * len(variances))
        # As they are stored, so that what is fitted on them meets the same numbers later.
        return cls(
            means.astype(np.float16).astype(np.float32),
            (drawn * scale[:, None]).astype(np.float16).astype(np.float32),
        )

    def sketch(self, counts: sp.csr_matrix) -> np.ndarray:
        """Of raw counts on the model's genes: float32 (n_cells, n_numbers)."""
        return np.asarray(log_normalise(counts) @ self.projection)

    def of_labels(self, found: np.ndarray) -> np.ndarray:
        """The sketches of the labels on the genes that a sample has, float32 (n_labels, n_numbers).

        found: bool (n_genes,), the genes that it has.
        A sample without some of the genes is normalised by fewer counts: the labels are as if they were too.
        """
        share = np.expm1(self.means)
        kept = share[:, found].sum(axis=1) / np.maximum(share.sum(axis=1), 1e-12)
        fewer = np.log1p(share[:, found] / np.maximum(kept, 1e-3)[:, None])
        return np.asarray(fewer @ self.projection[found], dtype=np.float32)

    def save(self, path: Path) -> None:
        """Write as safetensors, in half precision."""
        from safetensors.numpy import save_file

        save_file({name: getattr(self, name).astype(np.float16) for name in ("means", "projection")}, path)

    @classmethod
    def load(cls, path: Path) -> Profiles:
        """Read what `save` wrote. Raises ValueError where its parts do not fit together."""
        from safetensors.numpy import load_file

        tensors = load_file(path)
        means, projection = (tensors[name].astype(np.float32) for name in ("means", "projection"))
        if means.ndim != 2 or projection.ndim != 2 or len(projection) != means.shape[1]:
            raise ValueError("its labels' means and its projection are not of the same genes")
        if not (np.isfinite(means).all() and np.isfinite(projection).all()):
            raise ValueError("a number is not finite")
        return cls(means, projection)
