#!/usr/bin/env python3
"""How long an epoch of training takes here and in scvi-tools as it comes, on the same cells.

    .venv/bin/python benchmarks/speed/training.py --sample SAMPLE

SAMPLE: of make_sample.py, 100,000 cells. Both train scVI on its 2,000 most counted genes, on the CPU; an epoch is what
two epochs take longer than one. Writes benchmarks/results/speed/training.csv.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import click

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "bin"))


@click.command(context_settings={"show_default": True})
@click.option("--sample", type=click.Path(exists=True, path_type=Path), required=True)
@click.option("--genes", type=int, default=2000)
@click.option("--cpus", type=int, default=2)
def main(sample: Path, genes: int, cpus: int) -> None:
    """Train both for one epoch and for two."""
    from cellscribe.cli import set_threads

    set_threads(cpus)
    import anndata
    import numpy as np
    import pandas as pd

    from cellscribe.counts import column_totals
    from cellscribe.surgery import load_scvi
    from cellscribe.training.members import train_encoder

    adata = anndata.read_h5ad(sample)
    counts = adata.X[:, np.sort(np.argsort(-column_totals(adata.X))[:genes])].tocsr()
    batches = np.repeat("one", counts.shape[0])
    scvi = load_scvi(0)

    def as_it_comes(epochs: int) -> None:
        cells = anndata.AnnData(counts)
        scvi.model.SCVI.setup_anndata(cells)
        model = scvi.model.SCVI(cells, n_latent=30, n_layers=2, n_hidden=128, gene_likelihood="nb")
        model.train(max_epochs=epochs, accelerator="cpu", enable_progress_bar=False, logger=False)

    def here(epochs: int) -> None:
        train_encoder(counts, batches, max_epochs=epochs)

    rows = []
    for name, train in (("scvi-tools, as it comes", as_it_comes), ("cellscribe", here)):
        seconds = []
        for epochs in (1, 2):
            start = time.perf_counter()
            train(epochs)
            seconds.append(time.perf_counter() - start)
        rows.append(
            {
                "program": name,
                "n_cells": counts.shape[0],
                "n_genes": genes,
                "one_epoch": round(seconds[1] - seconds[0], 1),
                "all_of_one_epoch": round(seconds[0], 1),
            }
        )
        click.echo(rows[-1])
    target = ROOT / "benchmarks" / "results" / "speed" / "training.csv"
    target.parent.mkdir(parents=True, exist_ok=True)
    pd.DataFrame(rows).to_csv(target, index=False)


if __name__ == "__main__":
    main()
