"""Tell droplets with a cell from empty ones, in the manner of EmptyDrops.

Source: Lun et al. 2019, Genome Biology 20:63 (the R package DropletUtils). As in Cell Ranger 3 and later, a
droplet's counts are taken as multinomial under the ambient profile.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import numpy as np

from cellscribe.counts import column_totals, row_totals
from cellscribe.errors import InputError
from cellscribe.progress import progress
from cellscribe.stored import Stored, blocks, group_totals

if TYPE_CHECKING:
    import scipy.sparse as sp

LOWER = 100
FDR = 0.001
N_ITERATIONS = 10_000
# Where so many are too few to reach FDR, as empty droplets beyond LOWER far outnumber the cells.
MOST_ITERATIONS = 100_000
# Below this many ambient counts a profile of thousands of genes is a guess.
MIN_AMBIENT_COUNTS = 500
# What sets an unfiltered matrix apart: most droplets all but empty, the others ten times fuller.
EMPTY_MEDIAN = 20
MIN_DROPLETS = 500
MIN_LOG10_GAP = 1.0
CROWD_SHARE, CROWD_GAP = 0.8, 3.0


@dataclass(frozen=True)
class DropletShape:
    """How the droplets' totals fall into two groups.

    boundary: counts that part the groups best. share_low: share of droplets at or below it. low_median,
    high_median: median total of either group.
    """

    n_droplets: int
    median: float
    boundary: float
    share_low: float
    low_median: float
    high_median: float

    @property
    def mostly_empty(self) -> bool:
        """Whether the rank curve is that of an unfiltered matrix."""
        gap = np.log10((1 + self.high_median) / (1 + self.low_median))
        return bool(
            self.n_droplets >= MIN_DROPLETS
            and self.share_low > 0.5
            and self.low_median <= EMPTY_MEDIAN
            and gap >= MIN_LOG10_GAP
        )

    def __str__(self) -> str:
        return (
            f"{self.n_droplets:,} barcodes, {100 * self.share_low:.1f} % of them with a median of "
            f"{self.low_median:,.0f} counts, the others with {self.high_median:,.0f}"
        )


@dataclass(frozen=True)
class CalledCells:
    """What was called, as convert.json has it. method: `emptydrops`, or `counts` where nothing was tested, and fdr is
    null. n_undecided: droplets left out that no draw resembled, but too few draws were made to tell.
    """

    method: str
    n_droplets: int
    n_cells: int
    lower: int
    retain: int
    fdr: float | None
    n_undecided: int = 0

    def as_dict(self) -> dict[str, object]:
        """The fields by name."""
        return asdict(self)


def droplet_shape(totals: np.ndarray) -> DropletShape:
    """Part the totals into a low and a high group where the variance between them is largest.

    totals: counts a droplet, shape (n_droplets,), >= 0; split on log10(1 + total).
    Source: Otsu 1979, IEEE Trans. Syst. Man Cybern. 9:62.
    """
    n = len(totals)
    if n == 0 or totals.max() == totals.min():
        value = float(totals[0]) if n else 0.0
        return DropletShape(n, value, value, 1.0 if n else 0.0, value, value)
    values, counts = np.unique(totals, return_counts=True)
    logs = np.log10(1 + values)
    below, sum_below = np.cumsum(counts)[:-1], np.cumsum(counts * logs)[:-1]
    above, sum_above = n - below, (counts * logs).sum() - sum_below
    between = below * above * (sum_below / below - sum_above / above) ** 2
    at = int(np.argmax(between))
    # Any cut in the gap is as good: take its middle, on the log scale.
    boundary = float(10 ** ((logs[at] + logs[at + 1]) / 2) - 1)
    low = totals <= boundary
    return DropletShape(
        n,
        float(np.median(totals)),
        boundary,
        float(low.mean()),
        float(np.median(totals[low])),
        float(np.median(totals[~low])),
    )


def is_unfiltered(totals: np.ndarray, named_raw: bool) -> bool:
    """Whether these are all droplets of a run. named_raw: the file is called as Cell Ranger's raw matrix.

    The name alone is not believed where the droplets are no emptier than cells.
    """
    shape = droplet_shape(totals)
    return shape.mostly_empty or (named_raw and len(totals) >= MIN_DROPLETS and shape.median <= LOWER)


def order_of_magnitude_cut(totals: np.ndarray) -> float:
    """A tenth of the 99th percentile of the cells' totals, for the number of cells that fits best.

    totals: shape (n_droplets,), not all 0.
    Source: the first step of cell calling in 10x Genomics' description of Cell Ranger's algorithms.
    """
    ordered = np.sort(totals[totals > 0])[::-1]
    n_cells = np.unique(np.round(np.logspace(0, np.log10(max(len(ordered), 1)), 2000)).astype(int))
    cuts = ordered[np.minimum(np.round(n_cells * 0.01).astype(int), len(ordered) - 1)] / 10
    above = len(ordered) - np.searchsorted(ordered[::-1], cuts, side="left")
    return float(cuts[np.argmin((above - n_cells) ** 2 / n_cells)])


def good_turing(counts: np.ndarray) -> np.ndarray:
    """Probabilities of all genes, those never seen included; they sum to 1.

    counts: shape (n_genes,), integers >= 0.
    Source: Gale & Sampson 1995, J. Quant. Linguist. 2:217 (simple Good-Turing).
    """
    seen = counts[counts > 0].astype(np.int64)
    total = seen.sum()
    r, n_r = np.unique(seen, return_counts=True)
    n_unseen = int((counts == 0).sum())
    if len(r) < 2:
        smoothed = counts + 1.0
        return smoothed / smoothed.sum()
    gaps = np.concatenate([[0], r, [2 * r[-1] - r[-2]]])
    z = n_r / (0.5 * (gaps[2:] - gaps[:-2]))
    slope, intercept = np.polyfit(np.log(r), np.log(z), 1)

    def expected(k: np.ndarray) -> np.ndarray:
        return np.exp(intercept + slope * np.log(k))

    linear = (r + 1) * expected(r + 1) / expected(r)
    n_next = np.where(np.append(np.diff(r) == 1, False), np.append(n_r[1:], 0), 0)
    turing = (r + 1) * n_next / n_r
    spread = 1.96 * np.sqrt((r + 1.0) ** 2 * n_next / n_r**2 * (1 + n_next / n_r))
    # Turing's own estimate until it first comes close to the fitted one; from there on the fit.
    usable = np.logical_and.accumulate((n_next > 0) & (np.abs(turing - linear) > spread))
    adjusted = np.where(usable, turing, linear)
    p_unseen = min(n_r[0] / total, 0.5) if r[0] == 1 and n_unseen else 0.0
    if n_unseen and p_unseen == 0:
        p_unseen = 1 / (total + 1)
    by_r = adjusted / (adjusted * n_r).sum() * (1 - p_unseen)
    probabilities = np.full(len(counts), p_unseen / n_unseen if n_unseen else 0.0)
    probabilities[counts > 0] = by_r[np.searchsorted(r, seen)]
    return probabilities / probabilities.sum()


def log_likelihoods(matrix: sp.csr_matrix, log_p: np.ndarray) -> np.ndarray:
    """Multinomial log-probability of each row, shape (n_obs,). log_p: shape (n_genes,)."""
    from scipy.special import gammaln

    terms = matrix.data * log_p[matrix.indices] - gammaln(matrix.data + 1.0)
    sums = np.concatenate([[0.0], np.cumsum(terms)])
    return gammaln(row_totals(matrix) + 1) + sums[matrix.indptr[1:]] - sums[matrix.indptr[:-1]]


def ambient_p_values(matrix: sp.csr_matrix, p: np.ndarray, seed: int, n_iterations: int) -> np.ndarray:
    """Monte-Carlo p-value of each row against the ambient profile, shape (n_obs,), in (0, 1].

    One drawn sequence of molecules serves every total: its first t molecules are a droplet of total t.
    p: shape (n_genes,), positive, sums to 1.
    """
    from scipy.special import gammaln

    totals = row_totals(matrix).astype(np.int64)
    observed = log_likelihoods(matrix, np.log(p))
    distinct, position = np.unique(totals, return_inverse=True)
    longest = int(distinct[-1])
    constant = gammaln(distinct + 1.0)
    rng = np.random.default_rng(seed)
    cumulative, log_p = np.cumsum(p), np.log(p)
    cumulative[-1] = 1.0
    log_rank = np.log(np.arange(1, longest + 1))
    at_or_below = np.zeros(len(totals), dtype=np.int64)
    places = np.arange(longest)
    # numpy sorts 16 bits by radix, several times as fast.
    small = np.uint16 if len(p) <= 2**16 else np.uint32
    for _ in progress(range(n_iterations), total=n_iterations, label="cell calling: Monte-Carlo draws"):
        genes = np.searchsorted(cumulative, rng.random(longest), side="right").astype(small)
        order = np.argsort(genes, kind="stable")
        ordered = genes[order]
        first = np.flatnonzero(np.append(True, ordered[1:] != ordered[:-1]))
        starts = np.repeat(first, np.diff(np.append(first, longest)))
        terms = np.empty(longest)
        # The n-th molecule of a gene adds log p - log n.
        terms[order] = log_p[ordered] - log_rank[places - starts]
        simulated = constant + np.cumsum(terms)[distinct - 1]
        at_or_below += simulated[position] <= observed + 1e-9
    return (at_or_below + 1) / (n_iterations + 1)


def call_cells(
    matrix: sp.csr_matrix | Stored,
    *,
    seed: int,
    totals: np.ndarray | None = None,
    n_iterations: int = N_ITERATIONS,
) -> tuple[np.ndarray, CalledCells]:
    """Which droplets hold a cell: bool, shape (n_droplets,), and how it was decided.

    matrix: all droplets, integer-valued counts of Gene Expression. Droplets that hold at least a tenth
    of a full cell's counts are kept always, as Cell Ranger does (the R package keeps those above the knee,
    and loses cells that look like the soup they made); of the others above `lower` those that differ from
    the ambient profile at a false discovery rate of FDR. totals: the sum of each row, where it is known.
    Raises InputError where no droplet stands out.
    """
    if totals is None:
        totals = group_totals(matrix, np.ones((matrix.shape[1], 1), dtype=bool))[:, 0]
    shape = droplet_shape(totals)
    # Shallow runs: the usual 100 counts would take cells into the ambient profile.
    lower = int(min(LOWER, max(1, shape.boundary))) if shape.mostly_empty else LOWER
    retain = max(order_of_magnitude_cut(totals), lower + 1)
    # Where the soup is thick, empty droplets too can hold a tenth of a cell's counts: they are a crowd of
    # their own among those above `lower`.
    upper = droplet_shape(totals[totals > lower])
    if upper.share_low >= CROWD_SHARE and upper.high_median >= CROWD_GAP * upper.low_median:
        retain = max(retain, upper.boundary)
    retain = int(np.ceil(retain))
    kept = totals >= retain
    tested = np.flatnonzero((totals > lower) & ~kept)
    ambient, used_genes, unsure = _soup_and_unsure(matrix, totals <= lower, tested)
    enough, n_undecided = bool(ambient.sum() >= MIN_AMBIENT_COUNTS), 0
    if enough and len(tested):
        profile = good_turing(ambient[used_genes])
        is_cell, n_undecided = unlike_ambient(
            unsure[:, used_genes], profile, int(kept.sum()), seed=seed, fdr=FDR, n_iterations=n_iterations
        )
        kept[tested[is_cell]] = True
    if not kept.any():
        raise InputError(
            f"no droplet stands out from the empty ones ({shape})",
            "Look at the run that made it; give the filtered matrix, or --call_cells false if every barcode is a cell.",
        )
    method = "emptydrops" if enough else "counts"
    n_cells = int(kept.sum())
    return kept, CalledCells(
        method, len(totals), n_cells, lower, retain, FDR if enough else None, n_undecided
    )


def unlike_ambient(
    matrix: sp.csr_matrix, p: np.ndarray, n_certain: int, *, seed: int, fdr: float, n_iterations: int
) -> tuple[np.ndarray, int]:
    """Which rows differ from the ambient profile, bool (n_obs,), and how many no number of draws here could tell.

    p: (n_genes,), positive, sums to 1. n_certain: droplets that are cells without a test, which count as such among the
    false discoveries, as in the R package. Rows that no draw resembled are drawn for again, up to MOST_ITERATIONS
    times, where they are too few among the tested for the p-values that `n_iterations` draws can give.
    """
    from scipy.stats import false_discovery_control

    p_values = ambient_p_values(matrix, p, seed, n_iterations)
    n_tests, drawn, most = n_certain + len(p_values), n_iterations, max(MOST_ITERATIONS, n_iterations)
    while True:
        # Half a draw more, as p-values are quotients.
        unlike = np.flatnonzero(p_values < 1.5 / (drawn + 1))
        rates = false_discovery_control(np.concatenate([np.zeros(n_certain), p_values]))
        found = rates[n_certain:] <= fdr
        undecided = unlike[~found[unlike]]
        # So many would do, and a twentieth more, if none of them were drawn now.
        wanted = int(1.05 * n_tests / (fdr * (n_certain + len(unlike)))) + 1 if len(undecided) else 0
        more = wanted - drawn
        # Beyond `most` they would be for nothing.
        if more <= 0 or wanted > most:
            return found, len(undecided)
        seed += 1
        again = ambient_p_values(matrix[undecided], p, seed, more)
        p_values[undecided] = again * (more + 1) / (drawn + more + 1)
        drawn += more


def _soup_and_unsure(
    matrix: sp.csr_matrix | Stored, empty: np.ndarray, tested: np.ndarray
) -> tuple[np.ndarray, np.ndarray, sp.csr_matrix]:
    """Counts of each gene in `empty` droplets, (n_genes,), the genes seen at all, and the rows `tested`.

    empty: bool (n_droplets,). tested: ascending rows; these few, and small, are all that is held at once.
    """
    import scipy.sparse as sp

    soup, all_counts = np.zeros(matrix.shape[1]), np.zeros(matrix.shape[1])
    parts = [sp.csr_matrix((0, matrix.shape[1]), dtype=np.float32)]
    for rows, block in blocks(matrix):
        soup += column_totals(block[empty[rows]])
        all_counts += column_totals(block)
        first, last = np.searchsorted(tested, (rows.start, rows.stop))
        if last > first:
            parts.append(block[tested[first:last] - rows.start])
    return soup, np.flatnonzero(all_counts), sp.vstack(parts, format="csr")
