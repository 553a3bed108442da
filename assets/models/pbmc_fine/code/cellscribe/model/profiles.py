"""What each label of a reference expresses, and a short sketch of it that cells can be held against.

A sketch is a fixed random projection of log-normalised counts, each gene divided by its deviation within labels:
differences between sketches are as long as those between the profiles, nearly (Johnson and Lindenstrauss 1984,
Contemporary Mathematics 26:189), and means of sketches are sketches of means. So MAP, which sees a chunk of cells
at a time, can leave to ANNOTATE what it needs to ask of the genes of a cell and its like. Each gene is added to, or
taken from, a few of the numbers (Kane and Nelson 2014, Journal of the ACM 61:4), as that is quick.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import scipy.sparse as sp

from cellscribe.model.neighbours import row_blocks

FILE = "profiles.safetensors"
# Of half as many the residual of a whole label hangs on which were drawn. Models with another number are used as they
# are.
N_NUMBERS = 256
# Numbers that a gene is part of. With one alone, two genes that mark a label may fall together.
N_PLACES = 4
# Cells whose sums are made at a time.
BLOCK = 2048
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
        generator, n_genes = np.random.default_rng(seed), len(variances)
        genes, width = np.arange(n_genes), N_NUMBERS // N_PLACES
        signs = np.zeros((n_genes, N_NUMBERS))
        for first in range(0, N_NUMBERS, width):
            # As many genes to each number.
            signs[genes, first + generator.permutation(genes % width)] = generator.choice(
                [-1.0, 1.0], n_genes
            )
        # Its lengths are those of the mean over genes, so that models of many genes have no longer ones.
        scale = 1 / np.sqrt((variances + VARIANCE_FLOOR) * N_PLACES * n_genes)
        # As they are stored, so that what is fitted on them meets the same numbers later.
        return cls(
            means.astype(np.float16).astype(np.float32),
            (signs * scale[:, None]).astype(np.float16).astype(np.float32),
        )

    @functools.cached_property
    def _places(self) -> tuple[np.ndarray, np.ndarray] | None:
        """The numbers that each gene is part of, int32 (n_genes, n_places), and its factor in each; None where these
        are many, as in models made before.
        """
        n_places = int(np.count_nonzero(self.projection, axis=1).max(initial=0))
        if not 0 < n_places <= 2 * N_PLACES:
            return None
        places = np.argsort(self.projection == 0, axis=1, kind="stable")[:, :n_places].astype(np.int32)
        return places, np.take_along_axis(self.projection, places, axis=1)

    def sketch(self, logged: sp.csr_matrix) -> np.ndarray:
        """Of log-normalised counts on the model's genes: float32 (n_cells, n_numbers)."""
        if self._places is None:
            return np.asarray(logged @ self.projection)
        places, factors = self._places
        result = np.empty((logged.shape[0], self.projection.shape[1]), dtype=np.float32)
        for rows in row_blocks(len(result), BLOCK):
            cells = logged[rows]
            parts = cells.data[:, None] * factors.take(cells.indices, axis=0)
            numbers = places.take(cells.indices, axis=0)
            entries = (parts.ravel(), numbers.ravel(), cells.indptr * places.shape[1])
            # What falls together is summed.
            result[rows] = sp.csr_matrix(entries, (cells.shape[0], result.shape[1])).toarray()
        return result

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
