"""Counts summed by sample and label, which tests between groups of samples begin with.

Cells of one sample are no independent measurements, so that samples are compared by one sum of each type (Squair et al.
2021, Nature Communications 12:5692; Crowell et al. 2020, Nature Communications 11:6077).
"""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import scipy.sparse as sp

from cellscribe.contract import MERGED_BY

if TYPE_CHECKING:
    import anndata


class SumsByLabel:
    """Sums of the raw counts of each sample's cells of each label, from blocks of rows that come one after another.

    obs: of all cells, one sample after another, with `sample` and `label_key`. n_genes: columns of every block.
    without: columns of obs that tell nothing of a sample.
    """

    def __init__(self, obs: pd.DataFrame, label_key: str, n_genes: int, without: Collection[str] = ()):
        samples = pd.factorize(obs["sample"].astype(str))[0]
        labels = pd.Categorical(obs[label_key].astype(str))
        pairs, first, self._group, n_cells = np.unique(
            samples * len(labels.categories) + labels.codes,
            return_index=True,
            return_inverse=True,
            return_counts=True,
        )
        self._sample = pairs // max(len(labels.categories), 1)
        self.groups = _table(obs.iloc[first], label_key, n_cells, of_samples(obs, without))
        self._n_genes, self._n_seen = n_genes, 0
        self._done: list[sp.csr_matrix] = []
        # Of one sample at a time: of all, sums that are not sparse would be many gigabytes.
        self._open = np.zeros((0, n_genes))
        self._first = 0

    def add(self, block: sp.csr_matrix) -> None:
        """Add the next rows, all of one sample: CSR (n_rows, n_genes)."""
        own = self._group[self._n_seen : self._n_seen + block.shape[0]]
        self._n_seen += block.shape[0]
        if not len(own):
            return
        first, last = np.searchsorted(self._sample, self._sample[own[0]] + np.array([0, 1]))
        if first != self._first or not len(self._open):
            self._close()
            self._first, self._open = int(first), np.zeros((int(last - first), self._n_genes))
        members = sp.csr_matrix(
            (np.ones(len(own)), (own - first, np.arange(len(own)))), shape=(len(self._open), len(own))
        )
        self._open += (members @ block).toarray()

    def _close(self) -> None:
        self._done.append(sp.csr_matrix(self._open))

    def table(self, var: pd.DataFrame) -> anndata.AnnData:
        """All sums, when every row was added: X float64 CSR (n_groups, n_genes), whole numbers. var: of the genes."""
        import anndata

        self._close()
        return anndata.AnnData(sp.vstack(self._done, format="csr"), obs=self.groups, var=var)


def of_samples(obs: pd.DataFrame, without: Collection[str] = ()) -> list[str]:
    """Columns that have one value in all cells of each sample, as a condition, a donor or an age has."""
    names = [name for name in obs if name not in {"sample", *without}]
    by_sample = obs.groupby(obs["sample"].astype(str), observed=True)[names]
    return [name for name, most in by_sample.nunique(dropna=False).max().items() if most == 1]


def _table(cells: pd.DataFrame, label_key: str, n_cells: np.ndarray, kept: list[str]) -> pd.DataFrame:
    """A row for each group. cells: a cell of each."""
    samples, labels = cells["sample"].astype(str).to_numpy(), cells[label_key].astype(str).to_numpy()
    names = [f"{sample}{MERGED_BY}{label}" for sample, label in zip(samples, labels, strict=True)]
    table = pd.DataFrame(
        {"sample": samples, "label": labels, "n_cells": n_cells}, index=pd.Index(names, dtype=object)
    )
    for name in kept:
        column = cells[name]
        is_text = not pd.api.types.is_numeric_dtype(column.dtype)
        table[f"input_{name}" if name in table else name] = (
            column.astype(str) if is_text else column
        ).to_numpy()
    return table
