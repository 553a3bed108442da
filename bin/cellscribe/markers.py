"""Do the genes agree with the names? Expected markers of each type, and the genes that really mark it here.

The model keeps, for each label, the genes that mark it in the reference (`markers.json`). A name is judged by
whether those genes go up in the cells that carry it; `RULE` says how, in the words that the report prints.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from cellscribe.contract import UNASSIGNED
from cellscribe.differential import MIN_CELLS_TO_TEST

if TYPE_CHECKING:
    import pandas as pd
    import scipy.sparse as sp

TARGET_SUM = 1e4
MIN_CELLS_TO_JUDGE = 5
MARKERS_JUDGED = 10
MIN_MARKERS_PRESENT = 3
SUPPORTED, CONTRADICTED = 0.6, 0.3
SHARE_OF_REFERENCE = 0.5
MARKER_COLUMNS = (
    "label",
    "gene",
    "gene_id",
    "rank",
    "log2_fold_change",
    "score",
    "adjusted_p",
    "share_in",
    "share_out",
    "expected_marker",
)

RULE = (
    f"For each name, the model's first {MARKERS_JUDGED} marker genes that this sample measures are looked at."
    " A marker goes up when its mean log-normalised expression is higher in the cells of that name than in"
    " the cells that resemble another type most, and when the share of cells that express it is at least half"
    " of what it was in the reference. The name is supported when at least"
    f" {100 * SUPPORTED:.0f} % of its markers go up, contradicted when fewer than {100 * CONTRADICTED:.0f} %"
    f" do, and weak in between. It is not judged with fewer than {MIN_CELLS_TO_JUDGE} cells or fewer than"
    f" {MIN_MARKERS_PRESENT} markers measured. Where nearly all cells resemble one type, they are compared"
    " with the other cells of the reference instead."
)


@dataclass(frozen=True)
class Marker:
    """A gene that marks a label in the reference; means are log-normalised, shares are of cells (0 to 1)."""

    gene_id: str
    symbol: str
    share: float
    mean_rest: float


@dataclass(frozen=True)
class MarkerCall:
    """One expected marker as it is in this sample."""

    symbol: str
    column: int
    mean: float
    share: float
    mean_rest: float
    up: bool
    higher_in: str
    """The label whose cells express it more, "" where that is this one."""


@dataclass(frozen=True)
class Support:
    """What the expected markers say about the cells of one label."""

    label: str
    n_cells: int
    verdict: str
    """`supported`, `weak`, `contradicted` or `not judged`."""
    why: str
    calls: list[MarkerCall] = field(default_factory=list)
    rival: str = ""
    """A type whose own markers go up in these cells more than this label's do, or ""."""
    rival_share: float = 0.0

    @property
    def n_up(self) -> int:
        """How many of the markers go up."""
        return sum(call.up for call in self.calls)


@dataclass(frozen=True)
class GroupStatistics:
    """Sums over cells, by group. sums, expressing: shape (n_groups, n_genes); n_cells: (n_groups,)."""

    n_cells: np.ndarray
    sums: np.ndarray
    expressing: np.ndarray

    def of(self, groups: np.ndarray) -> tuple[int, np.ndarray, np.ndarray]:
        """Cells, mean and share by gene of some groups together. groups: bool, shape (n_groups,)."""
        n = int(self.n_cells[groups].sum())
        return n, self.sums[groups].sum(axis=0) / max(n, 1), self.expressing[groups].sum(axis=0) / max(n, 1)


def read_markers(entries: dict[str, list[dict[str, Any]]]) -> dict[str, list[Marker]]:
    """Take in a model's markers.json: label to its marker genes, the best first."""
    return {
        str(label): [
            Marker(
                gene_id=str(gene.get("gene_id") or ""),
                symbol=str(gene.get("symbol") or gene.get("gene_id") or ""),
                share=float(gene.get("share") or 0.0),
                mean_rest=float(gene.get("mean_rest") or 0.0),
            )
            for gene in genes
        ]
        for label, genes in entries.items()
    }


def locate_markers(
    markers: dict[str, list[Marker]],
    var: pd.DataFrame,
    matched_by: str = "gene_ids",
    orthologs: pd.DataFrame | None = None,
) -> dict[str, list[tuple[Marker, int]]]:
    """Find the markers among this sample's genes, by id, else by symbol.

    var: the sample's genes, with `gene_ids` and `gene_symbols` where known. matched_by: the column that the
    mapping used, looked at first. orthologs: the same genes as another organism names them, looked at last. Returns
    label to the markers found, each with its column of X.
    """
    ids: dict[str, int] = {}
    symbols: dict[str, int] = {}
    for genes, first in ((var, matched_by), (orthologs, "gene_ids")):
        if genes is None:
            continue
        columns = [name for name in dict.fromkeys([first, "gene_ids", "gene_symbols"]) if name in genes]
        for name in columns:
            target = symbols if name == "gene_symbols" else ids
            for column, value in enumerate(genes[name].astype(str)):
                if value:
                    target.setdefault(value, column)
        for column, value in enumerate(genes.index.astype(str)):
            symbols.setdefault(value, column)
    found: dict[str, list[tuple[Marker, int]]] = {}
    for label, expected in markers.items():
        hits = [
            (gene, ids.get(gene.gene_id, ids.get(gene.symbol, symbols.get(gene.symbol, -1))))
            for gene in expected
        ]
        found[label] = [(gene, column) for gene, column in hits if column >= 0]
    return found


def log_normalise(counts: sp.csr_matrix) -> sp.csr_matrix:
    """log(1 + counts scaled to 10,000 a cell), a copy. counts: CSR, (n_obs, n_genes); empty cells stay so."""
    result = counts.astype(np.float32, copy=True)
    totals = np.asarray(counts.sum(axis=1), dtype=np.float64).ravel()
    factors = np.divide(TARGET_SUM, totals, out=np.zeros_like(totals), where=totals > 0)
    result.data *= np.repeat(factors, np.diff(result.indptr)).astype(np.float32)
    np.log1p(result.data, out=result.data)
    return result


def group_statistics(
    blocks: Iterable[tuple[np.ndarray, sp.csr_matrix]], n_groups: int, n_genes: int
) -> GroupStatistics:
    """Sum log-normalised expression by group, a block of cells at a time.

    blocks: (group of each cell, log-normalised CSR of shape (n_block, n_genes)). Memory: two dense arrays of
    n_groups x n_genes.
    """
    import scipy.sparse as sp

    n_cells = np.zeros(n_groups, dtype=np.int64)
    sums = np.zeros((n_groups, n_genes))
    expressing = np.zeros((n_groups, n_genes))
    for codes, block in blocks:
        n_cells += np.bincount(codes, minlength=n_groups)
        member = sp.csr_matrix(
            (np.ones(len(codes), dtype=np.float32), (codes, np.arange(len(codes)))),
            shape=(n_groups, len(codes)),
        )
        sums += (member @ block).toarray()
        present = block.copy()
        present.data = (present.data > 0).astype(np.float32)
        expressing += (member @ present).toarray()
    return GroupStatistics(n_cells, sums, expressing)


def judge(
    statistics: GroupStatistics,
    predicted: Sequence[str],
    final: Sequence[str],
    located: dict[str, list[tuple[Marker, int]]],
    expected: dict[str, list[Marker]],
) -> tuple[list[Support], list[Support]]:
    """Judge each label by its expected markers, as `RULE` says.

    statistics: by group, a group being the cells of one predicted and one final label: `predicted` and
    `final` give each group's. Returns (by final label, the unassigned cells by the label that they came
    closest to), the largest first. Cells are held against those whose *predicted* label is another one,
    so that cells of the same type that were left unassigned do not hide its markers.
    """
    predicted_array, final_array = np.asarray(predicted, dtype=object), np.asarray(final, dtype=object)
    sizes = {name: int(statistics.n_cells[predicted_array == name].sum()) for name in set(predicted)}
    means = {
        name: statistics.of(predicted_array == name)[1]
        for name, size in sizes.items()
        if size >= MIN_CELLS_TO_JUDGE
    }

    def support(label: str, members: np.ndarray) -> Support:
        n, mean, share = statistics.of(members)
        n_rest, mean_rest, _ = statistics.of((predicted_array != label) & ~members)
        if n < MIN_CELLS_TO_JUDGE:
            return Support(label, n, "not judged", f"fewer than {MIN_CELLS_TO_JUDGE} cells")
        if not expected.get(label):
            return Support(label, n, "not judged", "the model has no markers for this name")
        enough_rest = n_rest >= max(MIN_CELLS_TO_TEST, 0.02 * n)

        def call(gene: Marker, column: int) -> MarkerCall:
            rest = float(mean_rest[column]) if enough_rest else gene.mean_rest
            up = bool(mean[column] > rest and share[column] >= SHARE_OF_REFERENCE * gene.share)
            others = {name: values[column] for name, values in means.items() if name != label}
            top = max(others, key=lambda name: others[name], default="")
            return MarkerCall(
                symbol=gene.symbol,
                column=column,
                mean=float(mean[column]),
                share=float(share[column]),
                mean_rest=rest,
                up=up,
                higher_in=top if top and others[top] > mean[column] else "",
            )

        calls = [call(gene, column) for gene, column in located[label][:MARKERS_JUDGED]]
        if len(calls) < MIN_MARKERS_PRESENT:
            return Support(
                label,
                n,
                "not judged",
                f"only {len(calls)} of its {len(expected[label])} markers are measured here",
                calls,
            )
        own = sum(one.up for one in calls) / len(calls)
        verdict = "supported" if own >= SUPPORTED else "contradicted" if own < CONTRADICTED else "weak"
        rival, rival_share = "", own
        own_columns = {column for _, column in located[label]}
        for other, genes in sorted(located.items()):
            theirs = [(gene, column) for gene, column in genes if column not in own_columns][:MARKERS_JUDGED]
            if other == label or len(theirs) < MIN_MARKERS_PRESENT:
                continue
            rising = sum(call(gene, column).up for gene, column in theirs) / len(theirs)
            if rising >= SUPPORTED and rising > rival_share:
                rival, rival_share = other, rising
        return Support(
            label,
            n,
            verdict,
            f"{sum(one.up for one in calls)} of {len(calls)} markers go up",
            calls,
            rival,
            rival_share if rival else 0.0,
        )

    named = [support(name, final_array == name) for name in sorted(set(final)) if name != UNASSIGNED]
    left = [
        support(name, (predicted_array == name) & (final_array == UNASSIGNED))
        for name in sorted({p for p, f in zip(predicted, final, strict=True) if f == UNASSIGNED})
    ]
    return sorted(named, key=lambda s: -s.n_cells), sorted(left, key=lambda s: -s.n_cells)


def stratified_sample(groups: np.ndarray, n: int, seed: int = 0, at_least: int = 200) -> np.ndarray:
    """Choose about `n` cells at most, each group by its share but no fewer than `at_least` of its cells.

    groups: shape (n_obs,), whole numbers. Returns sorted row numbers, all of them where n suffices.
    """
    if len(groups) <= n:
        return np.arange(len(groups))
    generator = np.random.default_rng(seed)
    chosen = []
    for group in np.unique(groups):
        rows = np.flatnonzero(groups == group)
        wanted = min(len(rows), max(at_least, round(n * len(rows) / len(groups))))
        chosen.append(generator.choice(rows, size=wanted, replace=False))
    return np.sort(np.concatenate(chosen))


def rank_markers(
    tested: pd.DataFrame, var: pd.DataFrame, expected_columns: dict[str, set[int]], n_top: int = 50
) -> pd.DataFrame:
    """Genes that mark each label in this sample: the first `n_top` with a positive score.

    tested: each label against all other cells, as `differential.each_against_rest` gives it. var: the sample's genes.
    expected_columns: label to the columns of its expected markers.
    """
    first = tested[tested["score"] > 0].groupby("group", sort=False).head(n_top)
    columns = var.index.get_indexer(first["gene"])
    expected = [
        "yes" if column in expected_columns.get(label, set()) else "no"
        for label, column in zip(first["group"], columns, strict=True)
    ]
    table = first.rename(columns={"group": "label"}).assign(
        rank=first.groupby("group", sort=False).cumcount() + 1, expected_marker=expected
    )
    return table[list(MARKER_COLUMNS)].reset_index(drop=True)
