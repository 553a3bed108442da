"""Logistic regression on log-normalised counts, kept sparse: how it is used, and how it is trained."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import scipy.sparse as sp

from cellscribe.model.calibration import softmax
from cellscribe.model.encoder import read_tensors

TARGET_SUM = 1e4
ABSENT_LABEL_INTERCEPT = -30.0
LEAST_DEVIATION = 0.3
# scikit-learn's C: the less, the nearer to zero the coefficients are held.
STRENGTH = 0.001


def log_normalise(counts: sp.csr_matrix, totals: np.ndarray | None = None) -> sp.csr_matrix:
    """log1p of counts scaled to 10,000 a cell.

    The sum is over the columns given (the model's genes), so that a query with fewer other genes is
    normalised as the reference was; or `totals`, (n_cells,), where they are given. Cells without counts stay zero.
    """
    if totals is None:
        totals = np.asarray(counts.sum(axis=1)).ravel()
    factors = (TARGET_SUM / np.maximum(totals, 1)).astype(np.float32)
    result = counts.astype(np.float32, copy=True).tocsr()
    result.data *= np.repeat(factors, np.diff(result.indptr))
    np.log1p(result.data, out=result.data)
    return result


@dataclass(frozen=True)
class Logistic:
    """coefficients: (n_genes, n_labels), the scaling of genes folded in; intercepts: (n_labels,).

    Models made by others may also have: ceilings, (n_genes,), the highest log-normalised value that counts; means,
    (n_genes,), subtracted first, so that a gene that the query lacks is taken to be at its mean; `all_genes`: cells are
    normalised by their counts on all genes, not on the model's.
    """

    coefficients: np.ndarray
    intercepts: np.ndarray
    ceilings: np.ndarray | None = None
    means: np.ndarray | None = None
    all_genes: bool = False

    def scores(
        self, counts: sp.csr_matrix, *, totals: np.ndarray | None = None, found: np.ndarray | None = None
    ) -> np.ndarray:
        """Logits of raw counts on the model's genes: float32 (n_cells, n_labels).

        totals: (n_cells,), each cell's counts on all genes, by default those of `counts`. found: bool (n_genes,), which
        of the model's genes the query has, by default all.
        """
        return self.scores_of(log_normalise(counts, totals=totals if self.all_genes else None), found=found)

    def scores_of(self, logged: sp.csr_matrix, *, found: np.ndarray | None = None) -> np.ndarray:
        """The same of counts that are log-normalised already, by the totals that the regression wants."""
        if self.ceilings is not None:
            capped = np.minimum(logged.data, self.ceilings[logged.indices])
            logged = sp.csr_matrix((capped, logged.indices, logged.indptr), shape=logged.shape)
        intercepts = self.intercepts
        if self.means is not None:
            present = self.means if found is None else np.where(found, self.means, 0)
            intercepts = intercepts - present @ self.coefficients
        return (np.asarray(logged @ self.coefficients) + intercepts).astype(np.float32, copy=False)

    def save(self, path: Path) -> None:
        """Write as safetensors, in the precision that they have."""
        from safetensors.numpy import save_file

        tensors = {
            name: np.ascontiguousarray(array)
            for name in ("coefficients", "intercepts", "ceilings", "means")
            if (array := getattr(self, name)) is not None
        }
        save_file(tensors, path, metadata={"totals": "all genes"} if self.all_genes else None)

    @classmethod
    def load(cls, path: Path) -> Logistic:
        """Read what `save` wrote. Raises ValueError or TypeError where its parts do not fit together."""
        tensors, metadata = read_tensors(path)
        regression = cls(**tensors, all_genes=metadata.get("totals") == "all genes")
        if regression.coefficients.ndim != 2:
            raise ValueError("its coefficients are not of genes and labels")
        n_genes, n_labels = regression.coefficients.shape
        by_gene = (regression.ceilings, regression.means)
        if regression.intercepts.shape != (n_labels,) or any(
            part is not None and part.shape != (n_genes,) for part in by_gene
        ):
            raise ValueError("its parts are not of the same genes and labels")
        return regression


def link(scores: np.ndarray, name: str = "softmax") -> np.ndarray:
    """Label probabilities of scores (n_cells, n_labels), float64.

    name: `softmax`; `one_vs_rest`: each label's own sigmoid, divided by their sum where that exceeds one, so that
    what is left to one is the chance of none of the labels; `one_vs_rest_share`: always divided by their sum. Where
    sigmoids are the same to all digits, the label of the highest score stays the first.
    """
    if name == "softmax":
        return softmax(scores)
    from scipy.special import expit, log_expit

    exact = np.asarray(scores, dtype=np.float64)
    if name == "one_vs_rest_share":
        result = softmax(log_expit(exact))
    else:
        result = expit(exact)
        result /= np.maximum(result.sum(axis=1, keepdims=True), 1)
    best = exact.argmax(axis=1)
    # What is smaller becomes zero in single precision, where PyTorch has switched off all below it.
    lost = result.max(axis=1) < np.finfo(np.float32).tiny
    tied = np.flatnonzero((result.argmax(axis=1) != best) | lost)
    result[tied, best[tied]] = result[tied].max(axis=1) * (1 + 1e-9) + 1e-12
    return result


def train_logistic(
    counts: sp.csr_matrix,
    codes: np.ndarray,
    n_labels: int,
    *,
    cell_weights: np.ndarray | None = None,
    seed: int = 0,
) -> Logistic:
    """Multinomial logistic regression, classes balanced, on genes scaled by their deviation.

    counts: raw counts on the model's genes, copies included. codes, cell_weights: (n_cells,).
    Deviations are floored at 0.3, so that hardly seen genes do not weigh most. A label without cells gets an
    intercept that rules it out.
    """
    from sklearn.linear_model import LogisticRegression

    logged = log_normalise(counts)
    mean = np.asarray(logged.mean(axis=0)).ravel()
    square = np.asarray(logged.multiply(logged).mean(axis=0)).ravel()
    deviation = np.maximum(np.sqrt(np.maximum(square - mean**2, 0)), LEAST_DEVIATION)
    scaled = (logged @ sp.diags((1 / deviation).astype(np.float32))).tocsr()
    fitted = LogisticRegression(
        C=STRENGTH, class_weight="balanced", max_iter=500, tol=1e-3, random_state=seed
    ).fit(scaled, codes, sample_weight=cell_weights)
    coefficients = np.zeros((counts.shape[1], n_labels), dtype=np.float32)
    intercepts = np.full(n_labels, ABSENT_LABEL_INTERCEPT, dtype=np.float32)
    rows, offsets = fitted.coef_, fitted.intercept_
    if len(fitted.classes_) == 2:
        rows, offsets = np.vstack([-rows / 2, rows / 2]), np.concatenate([-offsets / 2, offsets / 2])
    coefficients[:, fitted.classes_] = (rows / deviation).T
    intercepts[fitted.classes_] = offsets
    return Logistic(coefficients, intercepts)


def batch_weights(batches: np.ndarray) -> np.ndarray:
    """One over the square root of a cell's batch size, mean one (n_cells,): a large batch teaches more, but not all."""
    _, which, sizes = np.unique(batches.astype(str), return_inverse=True, return_counts=True)
    weights = 1 / np.sqrt(sizes[which])
    return np.asarray(weights / weights.mean(), dtype=np.float64)
