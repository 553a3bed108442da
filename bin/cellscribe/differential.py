"""Differential expression: each label, `unassigned` too, against all other cells, and groups that the user chose.

Wilcoxon rank-sum tests of log-normalised counts, cell by cell: cells of one donor are no replicates of each other,
so that p values rank genes and prove nothing about other donors (Squair et al. 2021, Nature Communications 12:5692).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from cellscribe.contract import UNASSIGNED, kept_column
from cellscribe.model.ontology import plain_name
from cellscribe.schema import nearest, shown
from cellscribe.words import first_names

if TYPE_CHECKING:
    import pandas as pd
    import scipy.sparse as sp

    from cellscribe.markers import GroupStatistics

REST, EACH = "rest", "each"
MIN_CELLS_TO_TEST = 10
MIN_SHARE_TESTED = 0.1
CELLS_A_SIDE = 5_000
CELLS_OF_ALL_COMPARISONS = 40_000
MOST_COMPARISONS = 60
# Labels are tested against the rest on so many cells of the sample, and on so many of either side at the least.
CELLS_TESTED = 20_000
FEWEST_OF_A_SIDE = 200
SYNTAX = (
    "write it as 'B cell vs NK cell', 'B cell + NK cell vs rest', 'condition: stim vs ctrl', "
    "'condition: stim vs ctrl within B cell' or '... within each', several with | between them"
)
COLUMNS = (
    "comparison",
    "column",
    "group",
    "against",
    "within",
    "n_in",
    "n_out",
    "gene",
    "gene_id",
    "log2_fold_change",
    "score",
    "p",
    "adjusted_p",
    "share_in",
    "share_out",
)


@dataclass(frozen=True)
class Comparison:
    """One comparison as the user wrote it.

    column: of obs, "" for the final labels. group, against: values of it; `against` is empty for all other cells.
    within: the final label to look within, `each` for every one by itself, "" for all cells.
    """

    column: str
    group: tuple[str, ...]
    against: tuple[str, ...]
    within: str = ""


@dataclass(frozen=True)
class Contrast:
    """A comparison on this sample's cells: row numbers, sorted; n_in and n_out count all, drawn or not."""

    name: str
    column: str
    group: str
    against: str
    within: str
    rows_in: np.ndarray
    rows_out: np.ndarray
    n_in: int
    n_out: int


@dataclass(frozen=True)
class Draw:
    """Cells to test some labels on, each against all others. rows: sorted row numbers. tested: the labels' codes."""

    rows: np.ndarray
    tested: np.ndarray


def parse_comparisons(text: str) -> list[Comparison]:
    """Read `--compare`. Raises ValueError that says what is wrong and how to write it."""
    found = []
    for part in text.split("|"):
        parsed = re.fullmatch(
            r"(?:(?P<column>[^:]+):\s+)?(?P<group>.+?)\s+vs\s+(?P<against>.+?)(?:\s+within\s+(?P<within>.+))?",
            part.strip(),
        )
        if not parsed:
            raise ValueError(f"{shown(part.strip())} is no comparison; {SYNTAX}")
        group, against = (
            tuple(name.strip() for name in re.split(r"\s\+\s", parsed[side])) for side in ("group", "against")
        )
        if set(group) & set(against):
            raise ValueError(f"{shown(part.strip())} has the same group on both sides; {SYNTAX}")
        found.append(
            Comparison(
                (parsed["column"] or "").strip(),
                group,
                () if against == (REST,) else against,
                (parsed["within"] or "").strip(),
            )
        )
    return found


def find_contrasts(
    comparisons: Sequence[Comparison], obs: pd.DataFrame, final_key: str
) -> tuple[list[Contrast], list[str]]:
    """The comparisons that these cells allow, and a sentence for each that they do not, or not in every label.

    obs: one row a cell, with `final_key`, the column of final labels. At most 5,000 cells a side are drawn, and
    40,000 in all.
    """
    from cellscribe.genes import column_text

    final = column_text(obs[final_key])
    wanted: dict[tuple[str, tuple[str, ...], tuple[str, ...], str], Contrast] = {}
    notes: list[str] = []
    for one in comparisons:
        column = kept_column(one.column or final_key, obs)
        if problem := _not_to_be_compared(one, column, obs, final, final_key):
            notes.append(problem)
            continue
        made, told = _contrasts_of(one, column, column_text(obs[column]), final)
        for contrast in made:
            wanted.setdefault((column, one.group, one.against, contrast.within), contrast)
        notes += told
    if len(wanted) > MOST_COMPARISONS:
        notes.append(f"{len(wanted)} comparisons were asked for; the first {MOST_COMPARISONS} were made.")
    return _drawn([*wanted.values()][:MOST_COMPARISONS]), list(dict.fromkeys(notes))


def _not_to_be_compared(
    one: Comparison, column: str, obs: pd.DataFrame, final: np.ndarray, final_key: str
) -> str:
    """Why nothing can be compared: no such column, or no such value in it; "" where that is not so.

    final: the final labels as text, (n_obs,).
    """
    from cellscribe.genes import column_text

    if column not in obs:
        return (
            f"Nothing was compared by {shown(column)}: obs has no such column"
            f"{nearest(column, [str(name) for name in obs.columns]) or '.'}"
        )
    values = column_text(obs[column])
    asked = [(value, column, values) for value in (*one.group, *one.against)]
    if one.within not in ("", EACH):
        asked.append((one.within, final_key, final))
    absent = [(value, where, known) for value, where, known in asked if value not in set(known)]
    if not absent:
        return ""
    parts = ", and ".join(f"no cell has {shown(value)} in {where}" for value, where, _ in absent)
    hints = (
        _same_label(value, known) if where == final_key else nearest(value, sorted(set(known)))
        for value, where, known in absent
    )
    columns = {where: known for _, where, known in absent}
    there = " ".join(_values_of(where, known) for where, known in columns.items())
    return (
        f"{shown(_name(one, one.within))} was not compared: {parts}{next(filter(None, hints), '.')} {there}"
    )


def _values_of(column: str, values: np.ndarray) -> str:
    """A sentence of which values a column has, the most frequent ones first. values: text (n_obs,), "" for none."""
    names, numbers = np.unique(values[values != ""].astype(str), return_counts=True)
    frequent = [shown(name) for name in names[np.argsort(-numbers, kind="stable")].tolist()]
    return (
        f"In {column} there {'is' if len(frequent) == 1 else 'are'} {first_names(frequent) or 'no values'}."
    )


def _contrasts_of(
    one: Comparison, column: str, values: np.ndarray, final: np.ndarray
) -> tuple[list[Contrast], list[str]]:
    """A comparison among all cells, or within each of its labels, and sentences of those with too few cells.

    values: the column's, final: the final labels, both text, (n_obs,).
    """
    made: list[Contrast] = []
    too_few: list[str] = []
    notes: list[str] = []
    within = sorted(set(final) - {UNASSIGNED}) if one.within == EACH else [one.within]
    in_group = np.isin(values, one.group)
    in_others = np.isin(values, one.against) if one.against else ~in_group
    for label in within:
        inside = final == label if label else np.ones(len(final), dtype=bool)
        rows_in, rows_out = np.flatnonzero(in_group & inside), np.flatnonzero(in_others & inside)
        if min(len(rows_in), len(rows_out)) < MIN_CELLS_TO_TEST:
            too_few.append(label)
            if one.within != EACH:
                notes.append(
                    f"{shown(_name(one, label))} was not compared: {len(rows_in)} against {len(rows_out)} "
                    f"cells; each side needs {MIN_CELLS_TO_TEST}."
                )
            continue
        made.append(
            Contrast(
                name=_name(one, label),
                column=column,
                group=" + ".join(one.group),
                against=" + ".join(one.against) or REST,
                within=label,
                rows_in=rows_in,
                rows_out=rows_out,
                n_in=len(rows_in),
                n_out=len(rows_out),
            )
        )
    if one.within == EACH and len(too_few) == len(within):
        notes.append(
            f"{shown(_name(one, EACH))} was not compared: no label has {MIN_CELLS_TO_TEST} cells on each side."
        )
    elif one.within == EACH and too_few:
        notes.append(
            f"{shown(_name(one, EACH))} was not compared in {first_names(too_few)}: fewer than {MIN_CELLS_TO_TEST} "
            "cells on a side."
        )
    return made, notes


def _drawn(contrasts: Sequence[Contrast]) -> list[Contrast]:
    """The contrasts with so many cells of each side, drawn at random, that all together stay few enough."""
    each = min(
        CELLS_A_SIDE, max(2 * MIN_CELLS_TO_TEST, CELLS_OF_ALL_COMPARISONS // (2 * max(len(contrasts), 1)))
    )
    generator = np.random.default_rng(0)

    def drawn(rows: np.ndarray) -> np.ndarray:
        return rows if len(rows) <= each else np.sort(generator.choice(rows, size=each, replace=False))

    return [replace(one, rows_in=drawn(one.rows_in), rows_out=drawn(one.rows_out)) for one in contrasts]


def _same_label(label: str, known: np.ndarray) -> str:
    """As `nearest`, but for spelling alone: CD4 T cell is near CD8 T cell, and the sample may well lack the one."""

    def plain(name: str) -> str:
        return plain_name(name).replace("+", "").replace(" ", "").rstrip("s")

    same = next((name for name in sorted(set(known)) if plain(name) == plain(label)), "")
    return f"; did you mean '{same}'?" if same else ""


def _name(one: Comparison, within: str) -> str:
    column = f"{one.column}: " if one.column else ""
    inside = f" within {within}" if within else ""
    return f"{column}{' + '.join(one.group)} vs {' + '.join(one.against) or REST}{inside}"


def draw_cells(codes: np.ndarray) -> list[Draw]:
    """The cells to test each label on: a draw from all for most labels, one by itself for each that is too rare there.

    codes: each cell's label, shape (n_obs,). In every draw, the cells that are not of the tested label are a random
    draw of all such: none was drawn for another label, which would then be too frequent among them. Left out are labels
    with fewer than 10 cells, or fewer than 10 others.
    """
    # In this order, the first so many of any cells are a random draw of them.
    order = np.random.default_rng(0).permutation(len(codes))
    in_order = codes[order]
    first = in_order[:CELLS_TESTED]
    sizes = np.bincount(codes)
    drawn = np.bincount(first, minlength=len(sizes))
    # Of each label and of all others, (2, n_labels).
    n_all, n_drawn = np.stack([sizes, len(codes) - sizes]), np.stack([drawn, len(first) - drawn])
    is_tested = (n_all >= MIN_CELLS_TO_TEST).all(axis=0)
    is_enough = (n_drawn >= np.minimum(n_all, FEWEST_OF_A_SIDE)).all(axis=0)
    apart = np.flatnonzero(is_tested & ~is_enough)
    # Ten others for each cell tell nearly as much as all of them. The more labels, the fewer, or it takes too long.
    shared = CELLS_OF_ALL_COMPARISONS // max(len(apart), 1)
    most = np.clip(shared, 2 * FEWEST_OF_A_SIDE, 10 * FEWEST_OF_A_SIDE)
    draws = [Draw(np.sort(order[: len(first)]), np.flatnonzero(is_tested & is_enough))]
    for code in apart:
        own = in_order == code
        n_own, n_others = np.clip(n_drawn[:, code], FEWEST_OF_A_SIDE, most)
        rows = order[np.concatenate([np.flatnonzero(own)[:n_own], np.flatnonzero(~own)[:n_others]])]
        draws.append(Draw(np.sort(rows), np.array([code])))
    return draws


def each_against_rest(
    expression: sp.csr_matrix,
    labels: np.ndarray,
    var: pd.DataFrame,
    column: str = "",
    draws: Sequence[Draw] | None = None,
    rows: np.ndarray | None = None,
    whole: GroupStatistics | None = None,
) -> pd.DataFrame:
    """Test each label's cells against all other cells. Returns `COLUMNS`, each label's highest score first.

    expression: log-normalised CSR, (n_obs, n_genes), or of the cells `rows` alone, sorted, which those of the `draws`
    are among (`draw_cells`). labels: (n_obs,) text. var: index and `gene_ids` of the genes. whole: of all cells, by
    label in the order of their names: n_in, n_out, shares and fold changes are of all cells, drawn or not.
    `unassigned` is tested as a label: what its cells express is what is known of them. Labels with fewer than 10 cells
    are not tested; genes are when at least 10 % of the cells of some label express them.
    """
    from cellscribe.markers import group_statistics

    names, codes = np.unique(labels.astype(str), return_inverse=True)
    draws = draw_cells(codes) if draws is None else draws
    rows = np.arange(len(codes)) if rows is None else rows
    if whole is None:
        whole = group_statistics([(codes, expression)], len(names), expression.shape[1])
    genes = _genes_to_test(whole, np.concatenate([one.tested for one in draws]))
    tables: dict[int, pd.DataFrame] = {}
    for one in draws:
        cells = expression[np.searchsorted(rows, one.rows)]
        tables |= _tested(cells, codes[one.rows], one.tested, var, whole, genes)
    n_cells = whole.n_cells
    return together(
        [
            _described(
                table,
                f"{names[i]} vs {REST}",
                column,
                names[i],
                REST,
                "",
                n_cells[i],
                n_cells.sum() - n_cells[i],
            )
            for i, table in sorted(tables.items())
        ]
    )


def contrast_genes(
    expression: sp.csr_matrix, n_in: int, contrast: Contrast, var: pd.DataFrame
) -> pd.DataFrame:
    """Test one contrast. Returns `COLUMNS`, the highest score first; below 0 is higher on the other side.

    expression: log-normalised CSR, its first `n_in` rows the group, the others what it is compared with.
    """
    from cellscribe.markers import group_statistics

    codes = np.where(np.arange(expression.shape[0]) < n_in, 0, 1)
    statistics = group_statistics([(codes, expression)], 2, expression.shape[1])
    genes = _genes_to_test(statistics, np.array([0, 1]))
    one = contrast
    return together(
        [
            _described(table, one.name, one.column, one.group, one.against, one.within, one.n_in, one.n_out)
            for table in _tested(expression, codes, np.array([0]), var, statistics, genes).values()
        ]
    )


def together(tables: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Tables of `COLUMNS` one below the other."""
    import pandas as pd

    empty = pd.DataFrame({name: pd.Series(dtype=object) for name in COLUMNS})
    filled = [table for table in tables if len(table)]
    return pd.concat(filled, ignore_index=True) if filled else empty


def _described(
    table: pd.DataFrame, name: str, column: str, group: str, against: str, within: str, n_in: int, n_out: int
) -> pd.DataFrame:
    values = (name, column, group, against, within, int(n_in), int(n_out))
    for position, (key, value) in enumerate(zip(COLUMNS, values, strict=False)):
        table.insert(position, key, value)
    return table


def _genes_to_test(statistics: GroupStatistics, groups: np.ndarray) -> np.ndarray:
    """The columns of the genes that enough cells of some of these groups express."""
    shares = statistics.expressing[groups] / np.maximum(statistics.n_cells[groups, None], 1)
    return np.flatnonzero((shares >= MIN_SHARE_TESTED).any(axis=0))


def _tested(
    expression: sp.csr_matrix,
    codes: np.ndarray,
    tested: np.ndarray,
    var: pd.DataFrame,
    statistics: GroupStatistics,
    kept: np.ndarray,
) -> dict[int, pd.DataFrame]:
    """Wilcoxon rank-sum test of each tested code's cells against all others, genes by falling score.

    statistics: by code, of these cells, or of all that they were drawn from. kept: the columns of the genes to test.
    Source: scanpy.tl.rank_genes_groups (Wolf et al. 2018), p values adjusted by Benjamini and Hochberg.
    """
    if not len(tested) or not len(kept):
        return {}

    import anndata
    import pandas as pd

    from cellscribe.compiled import import_scanpy

    n_groups = len(statistics.n_cells)
    adata = anndata.AnnData(
        X=expression[:, kept],
        obs=pd.DataFrame(
            {"code": pd.Categorical(codes.astype(str), categories=[str(i) for i in range(n_groups)])},
            index=[str(i) for i in range(len(codes))],
        ),
        var=pd.DataFrame(index=[str(i) for i in kept]),
    )
    # Without this entry scanpy reads the data as natural-log, which is what they are, but says so each time.
    adata.uns["log1p"] = {"base": None}
    import_scanpy().tl.rank_genes_groups(
        adata, "code", groups=[str(i) for i in tested], method="wilcoxon", tie_correct=True
    )
    result = adata.uns["rank_genes_groups"]
    drawn = len(codes) < statistics.n_cells.sum()
    all_names = var.index.astype(str).to_numpy()
    gene_ids = var["gene_ids"].astype(str).to_numpy() if "gene_ids" in var else np.full(len(var), "")
    tables = {}
    for code in tested.tolist():
        genes = result["names"][str(code)].astype(int)
        inside = np.arange(n_groups) == code
        (_, mean_in, share_in), (_, mean_out, share_out) = (
            statistics.of(side, genes) for side in (inside, ~inside)
        )
        fold_change = result["logfoldchanges"][str(code)].astype(float)
        if drawn:
            # scanpy's own is of the drawn cells.
            fold_change = np.log2((np.expm1(mean_in) + 1e-9) / (np.expm1(mean_out) + 1e-9))
        tables[code] = pd.DataFrame(
            {
                "gene": all_names[genes],
                "gene_id": gene_ids[genes],
                "log2_fold_change": fold_change.round(4),
                "score": result["scores"][str(code)].astype(float).round(4),
                "p": result["pvals"][str(code)].astype(float),
                "adjusted_p": result["pvals_adj"][str(code)].astype(float),
                "share_in": share_in.round(4),
                "share_out": share_out.round(4),
            }
        )
    return tables
