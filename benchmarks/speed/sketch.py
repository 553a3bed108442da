#!/usr/bin/env python3
"""How alike a large sample comes out by the sketch and by all of its cells.

    .venv/bin/python benchmarks/speed/sketch.py --sample SAMPLE

SAMPLE: of make_sample.py, or any counts file, of more than 30,000 cells (of 100,000 the whole way takes minutes).
Writes benchmarks/results/speed/sketch.csv: the share of cells with the same label after rejection, the same label of
their cluster, the adjusted Rand index of the clusters, and for each UMAP how well it keeps neighbours (trustworthiness
of 15, on 5,000 cells drawn at random: Venna and Kaski 2001), with the seconds of each way.
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
@click.option("--cpus", type=int, default=2)
def main(sample: Path, cpus: int) -> None:
    """Annotate the sample both ways."""
    from cellscribe.cli import set_threads

    set_threads(cpus)
    import numpy as np
    import pandas as pd
    from sklearn.manifold import trustworthiness
    from sklearn.metrics import adjusted_rand_score

    from cellscribe import clusters
    from cellscribe.annotation import annotate_cells
    from cellscribe.answer import answer_cells
    from cellscribe.contract import OutputNames
    from cellscribe.counts_file import open_counts
    from cellscribe.mapping import map_cells
    from cellscribe.model.model import Model

    model, cells = Model(ROOT / "assets" / "models" / "pbmc"), open_counts(sample)
    mapping = map_cells(cells, model, cpus=cpus)
    names = OutputNames.of("cxg", "cell_type", "")
    some = np.sort(np.random.default_rng(0).permutation(cells.n_obs)[:5000])
    rows, found = [], {}
    for way, limit in (("sketch", clusters.EXACT_UP_TO), ("all cells", cells.n_obs)):
        clusters.EXACT_UP_TO = limit
        start = time.perf_counter()
        one = annotate_cells(answer_cells(mapping, model, cpus=cpus), cells.obs.index, names, cpus=cpus)
        seconds = time.perf_counter() - start
        found[way] = one.obs
        rows.append(
            {
                "way": way,
                "n_cells": cells.n_obs,
                "seconds": round(seconds, 1),
                "clusters": one.obs[names.cluster].nunique(),
                "unassigned": round(float((one.obs[names.final] == "unassigned").mean()), 4),
                "umap_trustworthiness": round(
                    float(
                        trustworthiness(
                            one.obsm[names.embedding][some], one.obsm[names.umap][some], n_neighbors=15
                        )
                    ),
                    4,
                ),
            }
        )
    first, second = found.values()
    for row in rows:
        row |= {
            "same_final": round(
                float((first[names.final].astype(str) == second[names.final].astype(str)).mean()), 4
            ),
            "same_cluster_label": round(
                float(
                    (first[names.cluster_label].astype(str) == second[names.cluster_label].astype(str)).mean()
                ),
                4,
            ),
            "rand_index": round(float(adjusted_rand_score(first[names.cluster], second[names.cluster])), 4),
        }
    target = ROOT / "benchmarks" / "results" / "speed" / "sketch.csv"
    target.parent.mkdir(parents=True, exist_ok=True)
    pd.DataFrame(rows).to_csv(target, index=False)
    click.echo(pd.DataFrame(rows).T.to_string())


if __name__ == "__main__":
    main()
