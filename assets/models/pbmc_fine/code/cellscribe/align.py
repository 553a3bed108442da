"""Fit a query's genes to a model's genes, sparsely."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import scipy.sparse as sp

from cellscribe.errors import InputError, ModelMismatchError
from cellscribe.genes import (
    ENSEMBL,
    ID_COLUMNS,
    SYMBOL_COLUMNS,
    as_text,
    has_symbol_tables,
    parted_names,
)

if TYPE_CHECKING:
    import pandas as pd

# In the place of a model gene's number: the gene is none of them, and its counts are not used, or only summed.
NONE, OTHER = -1, -2
WHERE_GENES_DO_NOT_FIT = (
    "Use a model of the same organism (or --orthologs, with --organism where the genes' names do not tell it), "
    "or name the var column that holds symbols or Ensembl ids with --gene_column_name. If the data are a "
    "targeted panel, --min_gene_overlap lowers the bar."
)


@dataclass(frozen=True)
class GeneMatch:
    """Which query gene is which model gene.

    selector: CSR (n_query_genes, n_model_genes); counts @ selector are the counts on the model's genes.
    Query genes that name the same model gene are summed. found: bool (n_model_genes,). n_respelled: how many of these
    have another symbol in the query than in the model (`other_spellings`).
    """

    selector: sp.csr_matrix
    found: np.ndarray
    matched_by: str
    n_duplicates: int = 0
    n_respelled: int = 0

    @functools.cached_property
    def _position(self) -> np.ndarray:
        """The model gene of each query gene, or NONE: int32 (n_query_genes,)."""
        position = np.full(self.selector.shape[0], NONE, dtype=np.int32)
        entries = self.selector.tocoo()
        position[entries.row] = entries.col
        return position

    def on_model(self, counts: sp.csr_matrix) -> sp.csr_matrix:
        """Counts on the model's genes, CSR (n_cells, n_model_genes). counts: CSR (n_cells, n_query_genes)."""
        return self.split(counts, np.zeros(counts.shape[1], dtype=bool))[0]

    def split(self, counts: sp.csr_matrix, others: np.ndarray) -> tuple[sp.csr_matrix, np.ndarray]:
        """Counts on the model's genes, and each cell's sum on others that hold few of its counts: float32 (n_cells,).

        counts: CSR (n_cells, n_query_genes). others: bool (n_query_genes,), true for none of the model's genes.
        """
        places = np.where(others, OTHER, self._position)
        # Few entries are on any of these genes: what comes after is quick.
        used = np.flatnonzero((places != NONE).take(counts.indices))
        place, values = places.take(counts.indices[used]), counts.data[used]
        other = np.flatnonzero(place == OTHER)
        cells = np.searchsorted(counts.indptr, used[other], side="right") - 1
        sums = np.bincount(cells, values[other], minlength=counts.shape[0]).astype(np.float32)
        if self.n_duplicates:
            return (counts @ self.selector).tocsr(), sums
        kept = place != OTHER
        on_model = sp.csr_matrix(
            (values[kept], place[kept], np.searchsorted(used[kept], counts.indptr)),
            shape=(counts.shape[0], self.selector.shape[1]),
        )
        return on_model, sums

    @property
    def overlap(self) -> float:
        """Share of the model's genes that the query has, 0 to 1."""
        return float(self.found.mean()) if len(self.found) else 0.0


def without_version(ids: pd.Series) -> pd.Series:
    """Ensembl ids without their version (ENSG00000000003.15 is ENSG00000000003); other names unchanged."""
    return ids.astype(str).str.replace(f"^{ENSEMBL.pattern}$", r"\1\2", regex=True)


def query_gene_names(var: pd.DataFrame, gene_column: str | None = None) -> dict[str, pd.Series]:
    """Every set of names that the query's genes go by, the likeliest first.

    With `gene_column`, only that column (or `index`). Raises InputError where there is no such column.
    """
    index = var.index.to_series()
    if gene_column:
        if gene_column in ("index", "var.index"):
            return {"index": without_version(index)}
        if gene_column not in var.columns:
            raise InputError(
                f"there is no var column '{gene_column}'; there are: {', '.join(map(str, var.columns)) or 'none'}",
                "Name one of these with --gene_column_name, or leave it out: the best column is found by itself.",
            )
        return {gene_column: without_version(_ids_cut_out(var[gene_column]))}
    names = {column: var[column] for column in (*ID_COLUMNS, *SYMBOL_COLUMNS) if column in var.columns}
    names["index"] = index
    return {column: without_version(series) for column, series in names.items()}


def _ids_cut_out(names: pd.Series) -> pd.Series:
    """Ensembl ids in the place of names that hold one and a symbol, as CONVERT reads them; other names unchanged."""
    values = as_text(names)
    parts = parted_names(values)
    if parts is None:
        return names
    return names.astype(object).where(parts[0] == "", parts[0])


def match_genes(
    var: pd.DataFrame,
    genes: pd.DataFrame,
    gene_column: str | None = None,
    *,
    fill_in: bool = True,
    numbered: bool = False,
) -> GeneMatch:
    """Match the query's genes to the model's by ids or symbols, whichever find more.

    var: the query's genes, (n_query_genes, ...). genes: the model's, columns `gene_id` and `symbol`.
    Where the best set of names leaves model genes unfound, the other sets fill in one by one (unless `fill_in` is
    false): a query whose symbols are of another year still has most ids. What symbols leave unfound is looked for by
    other spellings of them (`other_spellings`). numbered: of query genes that share a name
    the second is `NAME-1`, the third `NAME-2`, as anndata makes them unique and as some models know them; else they
    are summed.
    """
    columns = query_gene_names(var, gene_column)
    if numbered:
        columns = {name: _numbered(column) for name, column in columns.items()}
    # Plain strings, as looking them up in pandas' own takes ten times as long.
    places = {
        kind: {name: i for i, name in reversed(list(enumerate(genes[kind].to_numpy(dtype=object)))) if name}
        for kind in ("gene_id", "symbol")
    }
    hits: dict[str, np.ndarray] = {}
    for column, names in columns.items():
        plain = names.to_numpy(dtype=object)
        for kind, place in places.items():
            hits[f"{column}:{kind}"] = np.array([place.get(name, -1) for name in plain], dtype=int)
    order = sorted(hits, key=lambda key: -len(np.unique(hits[key][hits[key] >= 0])))
    best = hits[order[0]].copy()
    for key in order[1:] if fill_in else []:
        taken = set(best[best >= 0].tolist())
        fill = (best < 0) & (hits[key] >= 0) & ~np.isin(hits[key], list(taken))
        best[fill] = hits[key][fill]
    column, kind = order[0].rsplit(":", 1)
    n_alike = int((best >= 0).sum())
    if kind == "symbol":
        _find_by_other_spellings(best, columns[column], genes, former=fill_in)
    rows = np.flatnonzero(best >= 0)
    n_genes = len(genes)
    selector = sp.csr_matrix(
        (np.ones(len(rows), dtype=np.float32), (rows, best[rows])), shape=(len(var), n_genes)
    )
    found = np.zeros(n_genes, dtype=bool)
    found[best[rows]] = True
    return GeneMatch(
        selector=selector,
        found=found,
        matched_by=column
        if column != "index"
        else ("gene ids in the index" if kind == "gene_id" else "index"),
        n_duplicates=len(rows) - int(found.sum()),
        n_respelled=len(rows) - n_alike,
    )


def _find_by_other_spellings(
    best: np.ndarray, names: pd.Series, genes: pd.DataFrame, *, former: bool
) -> None:
    """Fill in, in place, the model genes that no symbol of the query names, by other spellings of their symbols.

    best: the model gene of each query gene, or -1, (n_query_genes,). former: whether to look for newer symbols too.
    """
    missing = np.setdiff1d(np.arange(len(genes)), best)
    kinds = [kind for kind in other_spellings(genes.iloc[missing], former=former) if kind]
    if not kinds:
        return
    wanted = set().union(*kinds)
    rows = [(row, name) for row, name in enumerate(names.to_numpy(dtype=object)) if name in wanted]
    for spelled in kinds:
        # One that an earlier spelling found stays that query gene's alone.
        taken = set(best[best >= 0].tolist())
        for row, name in rows:
            if best[row] < 0 and name in spelled and missing[spelled[name]] not in taken:
                best[row] = missing[spelled[name]]


def other_spellings(genes: pd.DataFrame, *, former: bool) -> Iterator[dict[str, int]]:
    """Other names of model genes to their numbers, the safest kind first; never one name of two genes.

    With dots for hyphens, as R's make.names writes them (HLA.DRA). Where `former`, then the symbols that the genes have
    in other years, today's first (JCHAIN for IGJ, IL8 for CXCL8), and these with dots. The code that a model carries
    has no table of these.
    """
    symbols = genes["symbol"].to_numpy(dtype=object)
    yield from _with_dots(enumerate(symbols))
    if not (former and len(genes) and has_symbol_tables()):
        return
    from cellscribe.symbols import other_symbols

    found = [
        other_symbols(gene_id, symbol) for gene_id, symbol in zip(genes["gene_id"], symbols, strict=True)
    ]
    for of_a_kind in zip(*found, strict=True):
        names = [(i, name) for i, several in enumerate(of_a_kind) for name in several]
        yield _of_one_gene((name, i) for i, name in names)
        yield from _with_dots(names)


def _with_dots(names: Iterable[tuple[int, str]]) -> Iterator[dict[str, int]]:
    """The names that have hyphens, with dots in their place, to their numbers."""
    yield _of_one_gene((name.replace("-", "."), i) for i, name in names if "-" in name)


def _of_one_gene(spelled: Iterator[tuple[str, int]]) -> dict[str, int]:
    """Names to numbers, without the names that several numbers have."""
    found: dict[str, int] = {}
    several = set()
    for name, i in spelled:
        if found.setdefault(name, i) != i:
            several.add(name)
    return {name: i for name, i in found.items() if name not in several}


def _numbered(names: pd.Series) -> pd.Series:
    """Repeated names as anndata's `make_index_unique` names them."""
    import pandas as pd
    from anndata.utils import make_index_unique

    return pd.Series(np.asarray(make_index_unique(pd.Index(names.astype(str)))), index=names.index)


def looks_like(names: pd.Series) -> str:
    """What a set of gene names looks like, in words, with three of them: for messages."""
    sample = names.astype(str)
    shown = ", ".join(sample.head(3))
    if sample.str.match(r"ENSMUSG\d+").mean() > 0.5:
        return f"mouse Ensembl ids ({shown})"
    if sample.str.match(r"ENSG\d+").mean() > 0.5:
        return f"human Ensembl ids ({shown})"
    letters = sample[sample.str.contains("[A-Za-z]")]
    if len(letters) and letters.str.match(r"^[A-Z][a-z0-9]+").mean() > 0.5:
        return f"mouse symbols ({shown})"
    if len(letters) and (letters == letters.str.upper()).mean() > 0.5:
        return f"human symbols ({shown})"
    if sample.str.fullmatch(r"\d+").mean() > 0.5:
        return f"numbers ({shown})"
    return f"{shown}"


def check_overlap(
    match: GeneMatch,
    names: pd.Series,
    *,
    model: str,
    organism: str,
    minimum: float = 0.5,
    warn_below: float = 0.8,
    by_orthologs: bool = False,
    advice: str = WHERE_GENES_DO_NOT_FIT,
) -> list[str]:
    """Gate on the share of the model's genes found. Returns warnings; raises ModelMismatchError.

    names, organism: the data's genes, and what the model is for. minimum, warn_below: shares between 0 and 1.
    by_orthologs: whether they were found by these. advice: what the error says to do, by options that the command has.
    """
    n_found, n_genes = int(match.found.sum()), len(match.found)
    where = "have a one-to-one orthologue in the data" if by_orthologs else "are in the data"
    said = f"{n_found:,} of the model's {n_genes:,} genes {where} ({match.overlap:.1%})"
    if match.overlap < minimum:
        raise ModelMismatchError(
            f"the genes do not fit the model '{model}' ({organism}): {said}; at least {minimum:.0%} are needed. "
            f"The data's names look like {looks_like(names)}.",
            advice,
        )
    if match.overlap < warn_below:
        return [f"Only {said}: labels are less certain than with all of them."]
    return []
