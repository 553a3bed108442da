"""Doublets: droplets that held two cells, found by their likeness to doublets made from the sample itself.

The method is Scrublet's (Wolock, Lopez and Klein 2019, Cell Systems 8:281). Its steps stand here, on
scikit-learn and scikit-image, because `scanpy.pp.scrublet` makes the matrix dense, fails with pynndescent
0.7 from about 2,700 cells on, and spends twenty seconds of each run on compiling itself.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

    from scipy import sparse

    from cellscribe.stored import Stored

MIN_CELLS = 100
"""Below this many cells simulated doublets say nothing."""

RATE_PER_THOUSAND = 0.008
"""10x Genomics' rate of multiplets for each 1,000 cells recovered."""

MAX_DEFAULT_RATE = 0.10
"""One 10x lane holds about 10,000 cells; a larger sample is several lanes, each with its own lower rate."""

ABSURD_FOLD = 2.5
"""More calls than this many times the expected number mean that the threshold is wrong."""

MAX_REFERENCE = 20_000
"""Neighbours are searched among this many cells, and the doublets made of them, at most: the density of
either is known well enough from so many, and the search stays exact and linear in the number of cells.
The components are those of the same cells; the others are placed in them, as many at a time."""

SIMULATED_PER_CELL = 2
N_GENES = 2_000
N_COMPONENTS = 30
# A variance, as a share of the square of the mean, that float32 alone makes.
ROUNDING = 1e-9


@dataclass(frozen=True)
class DoubletCalls:
    """Scores, float64 of shape (n_obs,), 0 to 1; calls, bool of shape (n_obs,); and how they were made."""

    scores: np.ndarray
    calls: np.ndarray
    status: str
    threshold: float | None
    expected_rate: float
    message: str

    def placed(self, rows: np.ndarray, n_cells: int) -> DoubletCalls:
        """The same calls for a sample of `n_cells` cells of which `rows` were scored; 0 for the others."""
        scores, calls = np.zeros(n_cells), np.zeros(n_cells, dtype=bool)
        scores[rows], calls[rows] = self.scores, self.calls
        return replace(self, scores=scores, calls=calls)

    def summary(self) -> dict[str, Any]:
        """The object `doublets` of qc.json."""
        told = {key: value for key, value in asdict(self).items() if key not in ("scores", "calls")}
        return {**told, "n": int(self.calls.sum())}


def default_rate(n_cells: int) -> tuple[float, str]:
    """The expected doublet rate of a 10x run with `n_cells` >= 0 cells, and a note where it was capped."""
    rate = RATE_PER_THOUSAND * n_cells / 1000
    if rate <= MAX_DEFAULT_RATE:
        return rate, ""
    return MAX_DEFAULT_RATE, (
        f"{n_cells:,} cells are more than one 10x lane holds; the expected doublet rate was capped at "
        f"{MAX_DEFAULT_RATE:.0%} (if the lane holds more, set expected_doublet_rate)."
    )


def skipped(n_cells: int, rate: float, message: str) -> DoubletCalls:
    """No doublets called among `n_cells`, and why."""
    return DoubletCalls(np.zeros(n_cells), np.zeros(n_cells, dtype=bool), "skipped", None, rate, message)


def call_doublets(
    counts: sparse.csr_matrix | Stored, *, expected_rate: float, seed: int = 0, cpus: int = 1
) -> DoubletCalls:
    """Score each cell and call the doublets.

    counts: raw counts, shape (n_obs, n_vars), one sample, cells of low quality removed. They are walked over twice,
    a third time for more than MAX_REFERENCE cells; no more than so many are held at once.
    expected_rate: share of doublets, between 0 and 1, both excluded.
    The threshold is the minimum between the two modes of the simulated doublets' scores. Where there is
    none, or it calls more than ABSURD_FOLD times the expected number, the cells with the highest scores are
    called instead, as many as expected (`status` is then `fallback`).
    """
    n_cells = counts.shape[0]
    if n_cells < MIN_CELLS:
        return skipped(
            n_cells, expected_rate, f"Doublets were not searched: {n_cells} cells are fewer than {MIN_CELLS}."
        )
    scored = _scores(counts, expected_rate, seed, cpus)
    if scored is None:
        return skipped(
            n_cells, expected_rate, "Doublets were not searched: too few genes vary between cells."
        )
    scores, simulated = scored

    threshold = _minimum(simulated)
    if threshold is None:
        problem = "Scrublet found no threshold (the scores have one mode)"
    else:
        calls = scores > threshold
        if calls.sum() <= max(ABSURD_FOLD * expected_rate * n_cells, 1):
            return DoubletCalls(
                scores,
                calls,
                "called",
                threshold,
                expected_rate,
                f"{calls.sum():,} of {n_cells:,} cells called doublets by Scrublet at a score above "
                f"{threshold:.3f} ({expected_rate:.1%} were expected).",
            )
        problem = (
            f"Scrublet's threshold {threshold:.3f} would call {calls.mean():.1%} of the cells doublets where "
            f"{expected_rate:.1%} are expected"
        )
    threshold = float(np.quantile(scores, 1 - expected_rate, method="lower"))
    calls = scores > threshold
    n_calls = int(calls.sum())
    instead = {
        0: "no cell was called, as none stands out",
        1: "the cell with the highest score was called instead",
    }.get(n_calls, f"the {n_calls:,} cells with the highest scores were called instead")
    return DoubletCalls(
        scores,
        calls,
        "fallback",
        threshold,
        expected_rate,
        f"{problem}; {instead}.",
    )


def _minimum(simulated: np.ndarray) -> float | None:
    """The minimum between two modes of the scores, or None: as Scrublet does it."""
    from skimage.filters import threshold_minimum

    try:
        return float(threshold_minimum(simulated))
    except (RuntimeError, ValueError):
        return None


def _scores(
    counts: sparse.csr_matrix | Stored, rate: float, seed: int, cpus: int
) -> tuple[np.ndarray, np.ndarray] | None:
    """Scores of the cells, shape (n_obs,), and of simulated doublets, or None where no gene varies."""
    from cellscribe.model.neighbours import nearest
    from cellscribe.stored import groups_of_rows

    rng = np.random.default_rng(seed)
    n_cells = counts.shape[0]
    n_reference = min(n_cells, MAX_REFERENCE)
    reference = np.sort(rng.permutation(n_cells)[:n_reference])
    genes, cells = _variable_genes(counts, reference)
    n_components = min(N_COMPONENTS, genes.size - 1, n_cells - 1)
    if n_components < 2:
        return None
    parents = np.searchsorted(reference, rng.choice(reference, size=(SIMULATED_PER_CELL * n_reference, 2)))
    place = _embedding(cells, n_components, seed)
    cell_points, doublet_points = place(cells), place(cells[parents[:, 0]] + cells[parents[:, 1]])

    n_doublets = len(doublet_points)
    share = n_doublets / n_reference
    k = round(0.5 * np.sqrt(n_reference) * (1 + share))
    index = np.vstack([cell_points, doublet_points])

    def score(points: np.ndarray, *, inside: bool) -> np.ndarray:
        """Scores of points. inside: whether they stand in the index."""
        simulated = nearest(points, index, k + 1, cpus=cpus)[1] >= n_reference
        # the nearest of a point that stands in the index is itself; another point gives up its farthest
        n_simulated = simulated.sum(axis=1) - simulated[:, 0 if inside else -1]
        # Scrublet's posterior: the share of simulated neighbours, made a chance of being a doublet
        q = (n_simulated + 1) / (k + 2)
        return q * rate / share / (1 - rate - q * (1 - rate - rate / share))

    queries = np.vstack([cell_points, doublet_points[:MAX_REFERENCE]])
    in_index = score(queries, inside=True)
    scores = np.empty(n_cells)
    scores[reference] = in_index[:n_reference]
    if n_cells > n_reference:
        outside = np.ones(n_cells, dtype=bool)
        outside[reference] = False
        for rows, block in groups_of_rows(counts, MAX_REFERENCE):
            chosen = outside[rows]
            scores[rows][chosen] = score(place(block[chosen][:, genes]), inside=False)
    return scores, in_index[n_reference:]


def _variable_genes(
    counts: sparse.csr_matrix | Stored, reference: np.ndarray
) -> tuple[np.ndarray, sparse.csr_matrix]:
    """Columns of the genes that vary most for their mean, seen in three cells or more, at most N_GENES; and these
    columns of the rows `reference`.

    The dispersion of each gene is compared with genes of like mean, as Seurat does (Satija et al. 2015).
    """
    import pandas as pd
    from scipy import sparse
    from sklearn.preprocessing import normalize
    from sklearn.utils.sparsefuncs import incr_mean_variance_axis

    from cellscribe.stored import blocks, groups_of_rows

    n_cells, totals = np.zeros(counts.shape[1], dtype=np.int64), []
    for _, block in blocks(counts):
        n_cells += np.bincount(block.indices[block.data != 0], minlength=counts.shape[1])
        totals.append(np.asarray(block.sum(axis=1)).ravel())
    seen = np.flatnonzero(n_cells >= 3)
    if seen.size == 0:
        return seen, sparse.csr_matrix((len(reference), 0), dtype=np.float32)
    median = float(np.median(np.concatenate(totals)))
    mean, variance, n = np.zeros((3, seen.size), dtype=np.float32)
    kept = []
    for rows, block in groups_of_rows(counts, MAX_REFERENCE):
        block = block[:, seen]
        first, last = np.searchsorted(reference, (rows.start, rows.stop))
        kept.append(block[reference[first:last] - rows.start])
        normal = normalize(block, norm="l1", copy=False)
        normal.data *= median
        mean, variance, n = incr_mean_variance_axis(
            normal, axis=0, last_mean=mean, last_var=variance, last_n=n
        )
    table = pd.DataFrame({"mean": np.log1p(mean), "dispersion": np.log(np.maximum(variance, 1e-12) / mean)})
    bins = table.groupby(pd.cut(table["mean"], 20, labels=False))["dispersion"]
    # a gene alone in its bin has no spread to compare with: it counts as variable
    excess = ((table["dispersion"] - bins.transform("mean")) / bins.transform("std")).fillna(1.0)
    # Of cells that are all alike only the rounding varies.
    excess = excess.where(variance > ROUNDING * np.square(mean), 0.0)
    order = np.argsort(-excess.to_numpy(), kind="stable")
    chosen = np.sort(order[: min(N_GENES, int((excess > 0).sum()))])
    return seen[chosen], sparse.vstack([part[:, chosen] for part in kept], format="csr")


def _embedding(
    cells: sparse.csr_matrix, n_components: int, seed: int
) -> Callable[[sparse.csr_matrix], np.ndarray]:
    """What places counts of the same genes in the principal components of `cells`: float32 (n, n_components)."""
    from sklearn.decomposition import PCA
    from sklearn.preprocessing import StandardScaler, normalize

    normal = normalize(cells, norm="l1")
    scaler = StandardScaler(with_mean=False).fit(normal)
    # on sparse input PCA centres implicitly
    pca = PCA(n_components=n_components, svd_solver="arpack", random_state=seed).fit(scaler.transform(normal))

    def place(counts: sparse.csr_matrix) -> np.ndarray:
        return pca.transform(scaler.transform(normalize(counts, norm="l1"))).astype(np.float32)

    return place
