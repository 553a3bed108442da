"""The part of a sample's page that its genes tell: verdicts, dot plots, the genes that mark each type, comparisons."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from cellscribe import differential, figures, markers, verdicts
from cellscribe.colours import label_colours
from cellscribe.contract import UNASSIGNED
from cellscribe.drawing import data_uri
from cellscribe.model.logistic import log_normalise
from cellscribe.report_inputs import Cells
from cellscribe.report_words import count, percent

if TYPE_CHECKING:
    import anndata
    import pandas as pd
    import scipy.sparse as sp

BLOCK = 10_000
TOP_GENES = 8
COMPARISONS_SHOWN = 12
GENES_COMPARED = 12
# Rows of a dot plot.
MOST_ROWS = 60
# Of more clusters the sums of all genes take much memory, and nobody reads what marks each.
MOST_CLUSTERS_TOLD = 60
# Label to its expected markers and their columns in this sample.
Located = dict[str, list[tuple[markers.Marker, int]]]


@dataclass(frozen=True)
class MarkerEvidence:
    """What the genes say: verdicts by final label, of the unassigned by closest label, by cluster; tests; dot plots.

    shown: `table` without housekeeping genes, with as many others, and without the names `not_shown`.
    cluster_genes: the first genes that mark each cluster here, without housekeeping genes; {} where none were sought.
    """

    named: list[verdicts.Support]
    left: list[verdicts.Support]
    clusters: list[verdicts.ClusterVerdict]
    cluster_genes: dict[str, list[str]]
    table: pd.DataFrame
    shown: pd.DataFrame
    not_shown: Sequence[str]
    differential: pd.DataFrame
    contrasts: list[differential.Contrast]
    dot_plots: list[bytes]
    top_plots: list[bytes]
    n_tested: int
    colours: dict[str, str]
    has_markers: bool


def marker_evidence(
    adata: anndata.AnnData,
    cells: Cells,
    expected: dict[str, list[markers.Marker]],
    matched_by: str,
    orthologs: dict[str, Any] | None = None,
    contrasts: Sequence[differential.Contrast] = (),
    final_key: str = "",
    kin: Mapping[str, frozenset[str]] | None = None,
    labels: Sequence[str] = (),
    *,
    not_shown: Sequence[str] = (),
    own_too: bool = False,
) -> MarkerEvidence:
    """Look at every label's expected markers, and test for the genes that mark it here, in one pass of X.

    orthologs: between which organisms the mapping used them. own_too: whether others of several models did without. The
    same pass keeps the cells of the contrasts, and tests them. labels: the model's, in whose order they have their
    colours, on the page of all samples too. not_shown: labels whose genes are in the tables alone.
    """
    located = _located(expected, adata.var, matched_by, orthologs, own_too=own_too)
    read = _read_once(adata, cells, located, contrasts)
    judge = verdicts.Judge(read.statistics, read.predicted, read.predicted, located, expected, kin or {})
    named, left = verdicts.judge_labels(judge, read.final)
    types = _types_against_rest(read, cells, adata.var, final_key)
    usual = _usual_genes(adata)
    table, shown = _marker_tables(types, adata.var, located, usual, not_shown)
    clusters: list[verdicts.ClusterVerdict] = []
    cluster_genes: dict[str, list[str]] = {}
    if cells.cluster is not None:
        clusters = _cluster_verdicts(cells, read, located, expected, kin or {})
        cluster_genes = _cluster_genes(
            *read.drawn_of_all(cells.cluster), cells.no_cluster, adata.var_names, usual
        )
    colours = _colours(cells.final, labels, expected)
    return MarkerEvidence(
        named,
        left,
        clusters,
        cluster_genes,
        table,
        shown,
        not_shown,
        differential.together(_tested(types, read, contrasts, final_key, adata.var)),
        list(contrasts),
        _expected_plots(read.statistics, read.predicted, read.final, named, left, located, colours),
        _found_plots(read.statistics, read.final, shown, adata.var, named, colours),
        read.n_tested,
        colours,
        any(expected.values()),
    )


def _located(
    expected: dict[str, list[markers.Marker]],
    var: pd.DataFrame,
    matched_by: str,
    orthologs: dict[str, Any] | None,
    *,
    own_too: bool,
) -> Located:
    """As `markers.locate_markers`, among the genes as the model's organism names them where the mapping did so."""
    others = None
    if orthologs:
        from cellscribe.orthologs import named_as

        column = matched_by if matched_by in var else None
        others, _ = named_as(var, orthologs["from"], orthologs["to"], column)
    return markers.locate_markers(expected, var, matched_by, others, own_too=own_too)


def _colours(
    final: np.ndarray, labels: Sequence[str], expected: Mapping[str, Sequence[markers.Marker]]
) -> dict[str, str]:
    """The colours of labels: those of the model in its order, others by their number of cells."""
    names, n_cells = np.unique(final.astype(str), return_counts=True)
    sizes = dict(zip(names, n_cells, strict=True))
    return label_colours(
        sorted(sizes, key=lambda name: -sizes[name]), list(dict.fromkeys([*labels, *expected]))
    )


def _usual_genes(adata: anndata.AnnData) -> pd.Index:
    """Names of the housekeeping genes."""
    symbols, ids = (
        adata.var[name] if name in adata.var else adata.var_names.to_series()
        for name in ("gene_symbols", "gene_ids")
    )
    return adata.var_names[markers.housekeeping(symbols, ids)]


def _types_against_rest(read: Read, cells: Cells, var: pd.DataFrame, final_key: str) -> pd.DataFrame:
    """Each final label against all other cells, by the draws that were read and the sums of all cells."""
    names = np.unique(cells.final.astype(str))
    whole = read.statistics.joined(np.searchsorted(names, read.final.astype(str)))
    return differential.each_against_rest(
        read.expression, cells.final, var, final_key, read.draws, read.rows, whole
    )


def _marker_tables(
    types: pd.DataFrame,
    var: pd.DataFrame,
    located: Located,
    usual: pd.Index,
    not_shown: Sequence[str],
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The genes that mark each label, of all and of those that the page shows. types: of `_types_against_rest`."""
    expected_columns = {label: {column for _, column in hits} for label, hits in located.items()}
    table, shown = (
        markers.rank_markers(tests, var, expected_columns)
        for tests in (types, types[~types["gene"].isin(usual)])
    )
    return table, shown[~shown["label"].isin(list(not_shown))]


def _cluster_verdicts(
    cells: Cells,
    read: Read,
    located: Located,
    expected: Mapping[str, Sequence[markers.Marker]],
    kin: Mapping[str, frozenset[str]],
) -> list[verdicts.ClusterVerdict]:
    """Judge each cluster, by the sums of its cells on the expected markers alone."""
    assert cells.cluster is not None
    place = {column: i for i, column in enumerate(read.columns)}
    own = {label: [(gene, place[column]) for gene, column in hits] for label, hits in located.items()}
    return verdicts.judge_clusters(
        verdicts.Judge(read.cluster_statistics, read.of_label, read.of_cluster, own, expected, kin),
        cells.cluster,
        cells.predicted,
        cells.final,
        no_cluster=cells.no_cluster,
    )


def _cluster_genes(
    expression: sp.csr_matrix,
    cluster: np.ndarray,
    no_cluster: str,
    names: pd.Index,
    left_out: Collection[str],
) -> dict[str, list[str]]:
    """The first genes that mark each cluster; {} where there is one, or more than anybody reads of.

    expression: log-normalised CSR, (n_cells, n_genes). cluster: (n_cells,), `no_cluster` for cells that are in none.
    """
    clusters, codes = np.unique(cluster.astype(str), return_inverse=True)
    if not 1 < len(clusters) <= MOST_CLUSTERS_TOLD:
        return {}
    sums = markers.group_statistics([(codes, expression)], len(clusters), len(names))
    return {
        str(name): markers.marking_genes(sums, clusters == name, names, left_out)
        for name in clusters
        if name != no_cluster
    }


@dataclass(frozen=True)
class Grouped:
    """Groups of cells whose sums are wanted. codes: each cell's, (n_obs,). columns: of the genes; None for all."""

    codes: np.ndarray
    n_groups: int
    columns: Sequence[int] | None = None


@dataclass(frozen=True)
class Read:
    """What one pass of X gave.

    predicted, final: (n_groups,), the labels of the groups of `statistics`, of all genes. of_cluster, of_label:
    (n_cluster_groups,), the cluster and the predicted label of the groups of `cluster_statistics`, of the genes
    `columns`. draws: the cells that each final label is tested on. expression: log-normalised CSR, (n_rows, n_genes),
    of the cells `rows`, which rise: of all draws and contrasts. n_tested: cells of the draws.
    """

    predicted: np.ndarray
    final: np.ndarray
    statistics: markers.GroupStatistics
    of_cluster: np.ndarray
    of_label: np.ndarray
    columns: list[int]
    cluster_statistics: markers.GroupStatistics
    draws: list[differential.Draw]
    rows: np.ndarray
    expression: sp.csr_matrix
    n_tested: int

    def drawn_of_all(self, of_cell: np.ndarray) -> tuple[sp.csr_matrix, np.ndarray]:
        """Expression of the first draw, which is of all cells alike, and what these have in `of_cell`, (n_obs,)."""
        drawn = self.draws[0].rows
        return self.expression[np.searchsorted(self.rows, drawn)], of_cell[drawn]


def _read_once(
    adata: anndata.AnnData, cells: Cells, located: Located, contrasts: Sequence[differential.Contrast]
) -> Read:
    """Read X, and keep what the verdicts, the tests and the comparisons need of it."""
    pairs, codes = _grouped(cells.predicted, cells.final)
    cluster = np.full(len(codes), "", dtype=object) if cells.cluster is None else cells.cluster
    by_cluster, cluster_codes = _grouped(cluster, cells.predicted)
    columns = sorted({column for hits in located.values() for _, column in hits})
    draws = differential.draw_cells(np.unique(cells.final.astype(str), return_inverse=True)[1])
    sample = np.unique(np.concatenate([one.rows for one in draws]))
    rows = np.unique(
        np.concatenate([sample, *(side for one in contrasts for side in (one.rows_in, one.rows_out))])
    )
    (statistics, cluster_statistics), expression = _sums_and_rows(
        adata, [Grouped(codes, len(pairs)), Grouped(cluster_codes, len(by_cluster), columns)], rows
    )
    predicted, final = (np.array(part, dtype=object) for part in zip(*pairs, strict=True))
    of_cluster, of_label = (np.array(part, dtype=object) for part in zip(*by_cluster, strict=True))
    return Read(
        predicted,
        final,
        statistics,
        of_cluster,
        of_label,
        columns,
        cluster_statistics,
        draws,
        rows,
        expression,
        len(sample),
    )


def _sums_and_rows(
    adata: anndata.AnnData, groupings: Sequence[Grouped], wanted: np.ndarray
) -> tuple[list[markers.GroupStatistics], sp.csr_matrix]:
    """One pass of X: sums for each grouping, and log-normalised expression, CSR, of the rows `wanted`, which rise."""
    import scipy.sparse as sp

    statistics = [
        markers.GroupStatistics.zeros(one.n_groups, adata.n_vars if one.columns is None else len(one.columns))
        for one in groupings
    ]
    kept: list[sp.csr_matrix] = []
    for start in range(0, adata.n_obs, BLOCK):
        end = min(start + BLOCK, adata.n_obs)
        block = log_normalise(sp.csr_matrix(adata.X[start:end]))
        for one, sums in zip(groupings, statistics, strict=True):
            sums.add(one.codes[start:end], block if one.columns is None else block[:, one.columns])
        first, last = np.searchsorted(wanted, [start, end])
        kept.append(block[wanted[first:last] - start])
    return statistics, sp.vstack(kept, format="csr")


def _tested(
    types: pd.DataFrame,
    read: Read,
    contrasts: Sequence[differential.Contrast],
    final_key: str,
    var: pd.DataFrame,
) -> list[pd.DataFrame]:
    """Each label against the rest, and what the user compares. types: the former."""
    # What the user compares goes before the same by itself, whose cells may be others.
    asked = [
        one.group
        for one in contrasts
        if (one.column, one.against, one.within) == (final_key, differential.REST, "")
    ]
    tested = [types[~types["group"].isin(asked)]]
    for one in contrasts:
        rows = np.searchsorted(read.rows, np.concatenate([one.rows_in, one.rows_out]))
        tested.append(differential.contrast_genes(read.expression[rows], len(one.rows_in), one, var))
    return tested


def _grouped(first: np.ndarray, second: np.ndarray) -> tuple[list[tuple[str, str]], np.ndarray]:
    """The pairs of values that cells have, sorted, and the number of each cell's pair, int (n_obs,)."""
    pairs = sorted(set(zip(first, second, strict=True)))
    position = {pair: i for i, pair in enumerate(pairs)}
    return pairs, np.array([position[pair] for pair in zip(first, second, strict=True)])


def _expected_plots(
    statistics: markers.GroupStatistics,
    predicted: np.ndarray,
    final: np.ndarray,
    named: list[verdicts.Support],
    left: list[verdicts.Support],
    located: Located,
    colours: dict[str, str],
) -> list[bytes]:
    """Dot plots of the genes that mark each type in the reference."""
    least = verdicts.MIN_CELLS_TO_JUDGE
    types = [one.label for one in named if one.n_cells >= least and located.get(one.label)]
    types += [
        one.label
        for one in left
        if one.n_cells >= least and located.get(one.label) and one.label not in types
    ]
    rows = [(one.label, one.label, final == one.label) for one in named if one.n_cells >= least]
    rows += [
        (
            f"unassigned, closest to {one.label}",
            one.label,
            (predicted == one.label) & (final == UNASSIGNED),
        )
        for one in left
        if one.n_cells >= least
    ]
    genes = {name: [(marker.symbol, column) for marker, column in located[name]] for name in types}
    return _dot_plots(statistics, rows, genes, colours)


def _found_plots(
    statistics: markers.GroupStatistics,
    final: np.ndarray,
    table: pd.DataFrame,
    var: pd.DataFrame,
    named: list[verdicts.Support],
    colours: dict[str, str],
) -> list[bytes]:
    """Dot plots of the genes that mark each type in this sample, and the unassigned cells: rows of the marker table."""
    found = table.assign(column=var.index.get_indexer(table["gene"]))
    own = {str(label): part for label, part in found.groupby("label", sort=False)}
    types = [name for name in (*(one.label for one in named), UNASSIGNED) if name in own]
    rows = [(name, name, final == name) for name in types]
    genes = {name: list(zip(own[name]["gene"], own[name]["column"], strict=True)) for name in types}
    return _dot_plots(statistics, rows, genes, colours)


def _dot_plots(
    statistics: markers.GroupStatistics,
    rows: Sequence[tuple[str, str, np.ndarray]],
    genes: dict[str, list[tuple[str, int]]],
    colours: dict[str, str],
) -> list[bytes]:
    """One dot plot of at most about 45 genes, or several of them one below the other.

    rows: (name, label, which of the groups). genes: type to its genes' names and columns, the best first.
    """
    rows = rows[:MOST_ROWS]
    if not genes or not rows:
        return []
    each = int(np.clip(45 // len(genes), 3, 6))
    taken: set[int] = set()
    chosen: list[tuple[str, list[tuple[str, int]]]] = []
    for name, own in genes.items():
        hits = [hit for hit in own if hit[1] not in taken][:each]
        taken |= {column for _, column in hits}
        if hits:
            chosen.append((name, hits))
    measured = [(label, name, statistics.of(members)) for name, label, members in rows]
    columns = sorted(taken)
    highest = max(float(np.percentile([values[1][columns] for _, _, values in measured], 99)), 0.5)
    across = 42 // each
    plots = []
    # Types are spread evenly over the plots, so that the last is not left with one.
    for part in np.array_split(np.arange(len(chosen)), -(-len(chosen) // across)):
        blocks = [chosen[i] for i in part]
        picked = [column for _, hits in blocks for _, column in hits]
        groups = [
            figures.DotPlotGroup(name, label, mean[picked], share[picked])
            for label, name, (_, mean, share) in measured
        ]
        names = [(name, [gene for gene, _ in hits]) for name, hits in blocks]
        plots.append(figures.dot_plot(groups, names, colours, highest))
    return plots


def comparison_parts(evidence: MarkerEvidence) -> list[dict[str, Any]]:
    """What the page shows of each comparison: both sides, a figure, and the first genes of either."""
    parts = []
    for one in evidence.contrasts[:COMPARISONS_SHOWN]:
        table = evidence.differential[evidence.differential["comparison"] == one.name]
        clear = table[table["adjusted_p"] < 0.05]
        up, down = clear[clear["score"] > 0], clear[clear["score"] < 0][::-1]
        parts.append(
            {
                "name": one.name,
                "group": one.group,
                "against": "all others" if one.against == differential.REST else one.against,
                "n_in": count(one.n_in),
                "n_out": count(one.n_out),
                "n_tested": count(len(table)),
                "figure": data_uri(
                    figures.score_plot(
                        table["gene"].to_numpy(dtype=object),
                        table["log2_fold_change"].to_numpy(dtype=np.float64),
                        table["score"].to_numpy(dtype=np.float64),
                        table["adjusted_p"].to_numpy(dtype=np.float64) < 0.05,
                    )
                )
                if len(table)
                else "",
                "sides": [
                    (count(len(side)), [_gene_title(row) for row in side.head(GENES_COMPARED).itertuples()])
                    for side in (up, down)
                ],
            }
        )
    return parts


def printed(table: pd.DataFrame) -> pd.DataFrame:
    """A table of differential expression as it is written: p values with four digits."""
    return table.assign(**{name: table[name].map("{:.3e}".format) for name in ("p", "adjusted_p")})


def _gene_title(row: Any) -> dict[str, Any]:
    return {
        "gene": row.gene,
        "title": f"log2 fold change {row.log2_fold_change:.2f}, expressed by {percent(row.share_in, 0)} of "
        f"these cells and {percent(row.share_out, 0)} of the others, adjusted p {row.adjusted_p:.1e}",
    }


def top_genes(table: pd.DataFrame, order: Sequence[str]) -> dict[str, list[dict[str, Any]]]:
    """The first genes of each label of the marker table, the labels in `order`."""
    result: dict[str, list[dict[str, Any]]] = {}
    for row in table[table["rank"].astype(int) <= TOP_GENES].itertuples():
        result.setdefault(str(row.label), []).append(
            {**_gene_title(row), "expected": row.expected_marker == "yes"}
        )
    return {label: result[label] for label in order if label in result}
