"""Symbols of human and mouse genes: today's, by Ensembl id, and those of other years.

Tables and no web service, so that a task needs no network and a run is the same next year: gene_sets/README.md.
"""

from __future__ import annotations

import functools

import numpy as np
import pandas as pd

from cellscribe.genes import ORGANISMS, SYMBOLS
from cellscribe.orthologs import ortholog_pairs

# Today's symbol, and those before it.
Symbols = tuple[str, tuple[str, ...]]
NONE: Symbols = ("", ())


def other_symbols(gene_id: str, symbol: str) -> tuple[tuple[str, ...], ...]:
    """The other symbols of a gene, the safest first: today's, Ensembl's where it has one orthologue, previous ones.

    gene_id: Ensembl's without version, by which the gene is looked up; by its symbol where it has none ("").
    """
    by_id, by_symbol = known_symbols()
    today, previous = by_id.get(gene_id, NONE) if gene_id else by_symbol.get(symbol, NONE)
    of_ensembl = ensembl_symbols().get(gene_id, "")
    return tuple(
        tuple(name for name in names if name not in ("", symbol))
        for names in ((today,), (of_ensembl,) if of_ensembl != today else (), previous)
    )


def symbols_of_ids(gene_ids: np.ndarray) -> np.ndarray:
    """Today's symbol of each Ensembl id, or Ensembl's of a few years ago where no gene has that today; else "".

    gene_ids: without version, (n_genes,), as what is returned.
    """
    table = _table()
    used = set(table["symbol"])
    symbols = {gene_id: name for gene_id, name in ensembl_symbols().items() if name not in used}
    symbols.update(zip(table["gene_id"], table["symbol"], strict=True))
    return np.array([symbols.get(gene_id, "") for gene_id in gene_ids], dtype=object)


@functools.cache
def _table() -> pd.DataFrame:
    """Every gene of both organisms that has an Ensembl id of its own, text: `gene_id`, `symbol`, `previous`."""
    return pd.read_csv(SYMBOLS, sep="\t", dtype=str, keep_default_na=False)


@functools.cache
def known_symbols() -> tuple[dict[str, Symbols], dict[str, Symbols]]:
    """Symbols of the genes that changed theirs, by Ensembl id and by each symbol that they have or had.

    By symbol without those that a human and a mouse gene share.
    """
    table = _table()
    by_id: dict[str, Symbols] = {}
    by_symbol: dict[str, Symbols] = {}
    several = set()
    for gene_id, today, previous in table[table["previous"] != ""].itertuples(index=False):
        names: Symbols = (today, tuple(previous.split("|")))
        by_id[gene_id] = names
        for name in (today, *names[1]):
            if by_symbol.setdefault(name, names) != names:
                several.add(name)
    return by_id, {name: names for name, names in by_symbol.items() if name not in several}


@functools.cache
def ensembl_symbols() -> dict[str, str]:
    """Ensembl ids to symbols of the genes in the table of orthologues."""
    pairs = ortholog_pairs()
    return {
        gene_id: symbol
        for organism in ORGANISMS
        for gene_id, symbol in zip(pairs[f"{organism}_gene_id"], pairs[f"{organism}_symbol"], strict=True)
    }
