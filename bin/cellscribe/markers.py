"""Marker genes: those that a model expects of each type, found in a sample, and those that really mark it here.

The model keeps, for each label, the genes that mark it in the reference (`markers.json`). What they say of the names is
verdicts.py's subject.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from cellscribe.align import match_genes
from cellscribe.differential import MIN_CELLS_TO_TEST, MIN_SHARE_TESTED
from cellscribe.genes import ID_COLUMNS, SYMBOL_COLUMNS, gene_set_masks

if TYPE_CHECKING:
    import scipy.sparse as sp

MARKERS_A_LABEL = 50
MARKING_GENES = 10
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


@dataclass(frozen=True)
class Marker:
    """A gene that marks a label in the reference; means are log-normalised, shares are of cells (0 to 1)."""

    gene_id: str
    symbol: str
    share: float
    mean: float
    mean_rest: float


@dataclass(frozen=True)
class GroupStatistics:
    """Sums over the log-normalised expression of cells, by group, added up a block of cells at a time.

    n_cells: (n_groups,). sums, squares (sums of squares), expressing (numbers of cells): (n_groups, n_genes), dense.
    """

    n_cells: np.ndarray
    sums: np.ndarray
    squares: np.ndarray
    expressing: np.ndarray

    @classmethod
    def zeros(cls, n_groups: int, n_genes: int) -> GroupStatistics:
        """Of no cells yet."""
        shape = (n_groups, n_genes)
        return cls(np.zeros(n_groups, dtype=np.int64), np.zeros(shape), np.zeros(shape), np.zeros(shape))

    def add(self, groups: np.ndarray, block: sp.csr_matrix) -> None:
        """Add cells. groups: the group of each, int (n_block,). block: log-normalised CSR, (n_block, n_genes)."""
        import scipy.sparse as sp

        n_groups = len(self.n_cells)
        member = sp.csr_matrix(
            (np.ones(len(groups), dtype=np.float32), (groups, np.arange(len(groups)))),
            shape=(n_groups, len(groups)),
        )
        self.n_cells[:] += np.bincount(groups, minlength=n_groups)
        for total, power in ((self.sums, 1), (self.squares, 2), (self.expressing, 0)):
            part = block.copy()
            part.data = (part.data > 0).astype(np.float32) if power == 0 else part.data**power
            total += (member @ part).toarray()

    def of(
        self, groups: np.ndarray, columns: Sequence[int] | None = None
    ) -> tuple[int, np.ndarray, np.ndarray]:
        """Cells, mean and share by gene of some groups together. groups: bool, (n_groups,). columns: all where None."""
        n = int(self.n_cells[groups].sum())
        mean, share = (
            self._total(part, groups, columns) / max(n, 1) for part in (self.sums, self.expressing)
        )
        return n, mean, share

    def variance(self, groups: np.ndarray, columns: Sequence[int] | None = None) -> np.ndarray:
        """Variance between cells by gene, of some groups together; parameters as of `of`."""
        n, mean, _ = self.of(groups, columns)
        return np.maximum(self._total(self.squares, groups, columns) / max(n, 1) - mean**2, 0)

    def joined(self, groups: np.ndarray) -> GroupStatistics:
        """The same cells in fewer groups. groups: the new group of each, int (n_groups,)."""
        total = GroupStatistics.zeros(int(groups.max()) + 1, self.sums.shape[1])
        for name in ("n_cells", "sums", "squares", "expressing"):
            np.add.at(getattr(total, name), groups, getattr(self, name))
        return total

    @staticmethod
    def _total(part: np.ndarray, groups: np.ndarray, columns: Sequence[int] | None) -> np.ndarray:
        rows = np.flatnonzero(groups)
        picked = part[rows] if columns is None else part[np.ix_(rows, np.asarray(columns, dtype=int))]
        return np.asarray(picked.sum(axis=0))


def housekeeping(symbols: pd.Series, gene_ids: pd.Series) -> np.ndarray:
    """Which genes are ribosomal or mitochondrial: bool, (n_genes,).

    They follow the state of a cell and its library, and would speak for whatever type was measured in the best shape.
    """
    var = pd.DataFrame({"gene_ids": gene_ids.to_numpy(), "gene_symbols": symbols.to_numpy()})
    masks = gene_set_masks(var, "unknown")
    # Kinases and other genes named after the ribosome follow it too.
    named_so = symbols.astype(str).str.upper().str.match(r"RP([SL]\d|LP\d|SA$)").to_numpy(dtype=bool)
    return masks["mt"] | masks["ribo"] | named_so


def read_markers(entries: dict[str, list[dict[str, Any]]]) -> dict[str, list[Marker]]:
    """Take in a model's markers.json: label to its marker genes, the best first."""
    return {
        str(label): [
            Marker(
                gene_id=str(gene.get("gene_id") or ""),
                symbol=str(gene.get("symbol") or gene.get("gene_id") or ""),
                share=float(gene.get("share") or 0.0),
                mean=float(gene.get("mean") or 0.0),
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
    *,
    own_too: bool = False,
) -> dict[str, list[tuple[Marker, int]]]:
    """Find the markers among this sample's genes as MAP finds the model's: by id, symbol and other spellings of it.

    var: the sample's genes, with `gene_ids` and `gene_symbols` where known. matched_by: the column by which MAP found
    most. orthologs: the same genes as the model's organism names them, where MAP looked among these. own_too: whether
    it looked among `var` for others of several models, so that what is no orthologue is looked for there.
    Returns label to the markers found, each with its column of X.
    """
    genes = pd.DataFrame(
        list(dict.fromkeys((one.gene_id, one.symbol) for own in markers.values() for one in own)),
        columns=["gene_id", "symbol"],
    )
    # A column that only a user can have named was MAP's only one.
    usual = matched_by not in var or matched_by in (*ID_COLUMNS, *SYMBOL_COLUMNS)
    column = None if usual else matched_by
    columns = _first_columns(var, genes, column) if orthologs is None else _first_columns(orthologs, genes)
    if orthologs is not None and own_too:
        columns = np.where(columns >= 0, columns, _first_columns(var, genes, column))
    place = dict(zip(genes.itertuples(index=False, name=None), columns.tolist(), strict=True))
    located = {
        label: [(one, place[one.gene_id, one.symbol]) for one in own] for label, own in markers.items()
    }
    return {label: [hit for hit in hits if hit[1] >= 0] for label, hits in located.items()}


def _first_columns(var: pd.DataFrame, genes: pd.DataFrame, gene_column: str | None = None) -> np.ndarray:
    """The first of the sample's genes that is each of `genes`, -1 where none is: int (n_genes,)."""
    columns = np.full(len(genes), -1)
    rows, found = match_genes(var, genes, gene_column).selector.nonzero()
    columns[found[::-1]] = rows[::-1]
    return columns


def group_statistics(
    blocks: Iterable[tuple[np.ndarray, sp.csr_matrix]], n_groups: int, n_genes: int
) -> GroupStatistics:
    """Sum up blocks of cells, each as `GroupStatistics.add` takes it."""
    statistics = GroupStatistics.zeros(n_groups, n_genes)
    for groups, block in blocks:
        statistics.add(groups, block)
    return statistics


def marking_genes(
    statistics: GroupStatistics, members: np.ndarray, names: pd.Index, left_out: Collection[str]
) -> list[str]:
    """The genes that most clearly mark some groups of cells against all others, at most MARKING_GENES, the first first.

    statistics: of log-normalised expression. members: bool (n_groups,). names: (n_genes,). Ranked by Welch's t, which
    needs no more than these sums, among the genes that a tenth of the cells express. None of fewer than 10 cells.
    """
    (n, mean, share), (n_rest, mean_rest, _) = (statistics.of(side) for side in (members, ~members))
    if min(n, n_rest) < MIN_CELLS_TO_TEST:
        return []
    error = np.sqrt(statistics.variance(members) / n + statistics.variance(~members) / n_rest)
    difference = np.where((share >= MIN_SHARE_TESTED) & ~names.isin(list(left_out)), mean - mean_rest, 0)
    score = np.divide(difference, error, out=np.zeros_like(difference), where=error > 0)
    first = np.argsort(-score, kind="stable")[:MARKING_GENES]
    return [str(names[i]) for i in first if score[i] > 0]


def rank_markers(
    tested: pd.DataFrame, var: pd.DataFrame, expected_columns: dict[str, set[int]]
) -> pd.DataFrame:
    """Genes that mark each label, and the unassigned cells, in this sample: the first of positive score, as many as
    MARKERS_A_LABEL.

    tested: each label against all other cells, as `differential.each_against_rest` gives it. var: the sample's genes.
    expected_columns: label to the columns of its expected markers.
    """
    first = tested[tested["score"] > 0].groupby("group", sort=False).head(MARKERS_A_LABEL)
    columns = var.index.get_indexer(first["gene"])
    expected = [
        "yes" if column in expected_columns.get(label, set()) else "no"
        for label, column in zip(first["group"], columns, strict=True)
    ]
    table = first.rename(columns={"group": "label"}).assign(
        rank=first.groupby("group", sort=False).cumcount() + 1, expected_marker=expected
    )
    return table[list(MARKER_COLUMNS)].reset_index(drop=True)
