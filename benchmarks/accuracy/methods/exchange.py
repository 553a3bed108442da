"""What every method reads and writes, in whatever environment it runs: nothing but numpy and anndata is needed here.

A method is a program: `method.py --reference R.h5ad --query Q.h5ad --labels L.csv --output FOLDER --seed S --cpus N`.
R: raw counts in X, obs `label` and `batch`. Q: raw counts, obs `batch`, no labels. L: label, Cell Ontology id.
It writes one FOLDER/NAME.npz for each method that it runs (see `metrics.Prediction`), and FOLDER/times.json.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import numpy as np

UNASSIGNED = "unassigned"


class Exchange:
    """The arguments of one run, its inputs and its results."""

    def __init__(self, *packages, options=()):
        parser = argparse.ArgumentParser()
        for name in ("--reference", "--query", "--labels", "--output", "--cache"):
            parser.add_argument(name, type=Path)
        parser.add_argument("--seed", type=int)
        parser.add_argument("--cpus", type=int)
        for option in options:
            parser.add_argument(option)
        self.options = parser.parse_args()
        self.seed, self.cpus, self.output = self.options.seed, self.options.cpus, self.options.output
        self.packages = packages
        self.times = {}

    def cells(self, *, shared_genes=True):
        """Reference and query; with `shared_genes` on the genes that both have, in one order."""
        import anndata

        reference = anndata.read_h5ad(self.options.reference)
        query = anndata.read_h5ad(self.options.query)
        if shared_genes:
            genes = reference.var_names[reference.var_names.isin(query.var_names)]
            reference, query = reference[:, genes].copy(), query[:, genes].copy()
        return reference, query

    @contextmanager
    def timed(self, what):
        """Seconds of a part, `train` or `predict`."""
        start = time.perf_counter()
        yield
        self.times[what] = self.times.get(what, 0.0) + time.perf_counter() - start

    def write(self, name, labels, predicted, **arrays):
        """One method's prediction; confidence is that of the label predicted, where there are probabilities."""
        labels, predicted = _text(labels), _text(predicted)
        probabilities = arrays.get("probabilities")
        if probabilities is not None and "confidence" not in arrays:
            column = np.array([{str(x): i for i, x in enumerate(labels)}[str(x)] for x in predicted])
            arrays["confidence"] = np.asarray(probabilities)[np.arange(len(predicted)), column]
        if "final" in arrays:
            arrays["final"] = _text(arrays["final"])
        kept = {key: np.asarray(value) for key, value in arrays.items() if value is not None}
        for key, value in kept.items():
            if len(value) != len(predicted):
                raise ValueError(f"{name}: {key} has {len(value)} rows for {len(predicted)} cells")
        np.savez_compressed(self.output / f"{name}.npz", labels=labels, predicted=predicted, **kept)

    def finish(self, **more):
        """Write what the run says of itself."""
        versions = {package: importlib.metadata.version(package) for package in self.packages}
        versions["python"] = sys.version.split()[0]
        text = json.dumps({"times": self.times, "versions": versions, **more}, indent=2)
        (self.output / "times.json").write_text(text)


def log_normalised(adata, target_sum=1e4):
    """Counts of a cell scaled to `target_sum` over the genes given, log1p, CSR float32."""
    import scipy.sparse as sp

    totals = np.maximum(np.asarray(adata.X.sum(axis=1)).ravel(), 1)
    scaled = sp.diags((target_sum / totals).astype(np.float32)) @ adata.X.tocsr()
    return scaled.log1p().tocsr().astype(np.float32)


def one_hot_shares(votes, labels):
    """Share of votes for each label. votes: text (n, n_voters). Returns (n, k)."""
    return np.stack([(votes == label).mean(axis=1) for label in labels], axis=1)


def _text(values):
    return np.asarray(values).astype(str)
