"""Genes of one organism under the names of another: human and mouse, by one-to-one orthologues."""

from __future__ import annotations

import functools

import numpy as np
import pandas as pd

from cellscribe.align import match_genes
from cellscribe.genes import ORTHOLOGS


@functools.cache
def ortholog_pairs() -> pd.DataFrame:
    """Human and mouse genes that are each other's only orthologue: ids and symbols of both, (n_pairs, 4), text.

    A symbol that stands in several pairs is "". Source: Ensembl Compara, see gene_sets/README.md.
    """
    pairs = pd.read_csv(ORTHOLOGS, sep="\t", dtype=str, keep_default_na=False)
    for name in ("human_symbol", "mouse_symbol"):
        pairs[name] = pairs[name].mask(pairs[name].duplicated(keep=False), "")
    return pairs


def named_as(
    var: pd.DataFrame, organism: str, other: str, gene_column: str | None = None
) -> tuple[pd.DataFrame, str]:
    """The genes of an organism under the ids and symbols of the other's.

    var: one row a gene. organism, other: `human` and `mouse`, or the reverse. gene_column: the only column to look at.
    Returns a frame of `gene_ids` and `gene_symbols`, (n_genes, 2), its index and both "" where a gene has no one-to-one
    orthologue, and the column of `var` that named the genes best. Raises InputError where `gene_column` does not exist.
    """
    pairs = ortholog_pairs()
    own = pairs[[f"{organism}_gene_id", f"{organism}_symbol"]].set_axis(["gene_id", "symbol"], axis=1)
    match = match_genes(var, own, gene_column)
    rows, found = match.selector.nonzero()
    names = np.full((len(var), 2), "", dtype=object)
    names[rows] = pairs[[f"{other}_gene_id", f"{other}_symbol"]].to_numpy(dtype=object)[found]
    return pd.DataFrame(names, columns=["gene_ids", "gene_symbols"], index=[""] * len(var)), match.matched_by
