#!/usr/bin/env python3
"""Make a sample of any size out of real cells, to measure time and memory on.

    .venv/bin/python benchmarks/speed/make_sample.py --cells 1000000 \
        --source ../shared/data/labelled/pbmc4k_labelled.h5ad --output sample.h5ad

Each cell is a real one, drawn with replacement and thinned (each molecule is kept by a chance of the cell's own,
between THINNED and 1), so that copies differ as cells of one type do; some are the sum of two such. The size of the
source changes neither the genes nor the depth: from pbmc4k_labelled come 33,694 genes and about 1,180 stored counts
a cell. Written by chunks: a million cells take no more memory than ten thousand.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    import numpy as np
    import scipy.sparse as sp

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT / "bin"))

CHUNK = 8192
THINNED = 0.66
"""The least share of its molecules that a drawn cell keeps."""

LETTERS = "ACGT"


def barcodes(n: int) -> list[str]:
    """`n` different barcodes as Cell Ranger writes them."""
    return ["".join(LETTERS[(i >> 2 * place) & 3] for place in range(16)) + "-1" for i in range(n)]


@click.command(context_settings={"show_default": True})
@click.option("--cells", type=click.IntRange(min=1), required=True, help="How many cells to make.")
@click.option(
    "--source", type=click.Path(exists=True, path_type=Path), required=True, help="Raw counts in X."
)
@click.option("--output", type=click.Path(path_type=Path), required=True, help="The sample, .h5ad.")
@click.option("--doublets", type=click.FloatRange(0, 1), default=0.03, help="Share of sums of two cells.")
@click.option("--seed", type=int, default=0, help="Same seed, same cells.")
def main(cells: int, source: Path, output: Path, doublets: float, seed: int) -> None:
    """Draw cells with replacement, thin them, and write them chunk by chunk."""
    import anndata
    import h5py
    import numpy as np
    import pandas as pd
    import scipy.sparse as sp
    from anndata.io import write_elem

    from cellscribe.counts_file import CsrWriter
    from cellscribe.io import atomic_path, plain_columns

    rng = np.random.default_rng(seed)
    real = anndata.read_h5ad(source)
    counts = sp.csr_matrix(real.X).astype(np.int32)
    first = rng.integers(counts.shape[0], size=cells)
    second = rng.integers(counts.shape[0], size=cells)
    is_double = rng.random(cells) < doublets
    obs = pd.DataFrame({"is_doublet": is_double}, index=barcodes(cells))
    if "cell_type" in real.obs:
        obs["cell_type"] = real.obs["cell_type"].astype("category").to_numpy()[first]
        obs["cell_type"] = obs["cell_type"].astype("category")
    var = real.var.copy()
    for table in (obs, var):
        plain_columns(table)

    with atomic_path(output) as temporary, h5py.File(temporary, "w") as file:
        for name, value in (("obs", obs), ("var", var)):
            write_elem(file, name, value)
        for name in ("layers", "obsm", "obsp", "uns", "varm", "varp"):
            write_elem(file, name, {})
        file.attrs.update({"encoding-type": "anndata", "encoding-version": "0.1.0"})
        with CsrWriter(file, "X", len(var)) as matrix:
            for start in range(0, cells, CHUNK):
                part = slice(start, start + CHUNK)
                rows = thinned(counts[first[part]], rng)
                doubled = np.flatnonzero(is_double[part])
                place = sp.csr_matrix(
                    (np.ones(len(doubled), dtype=np.int32), (doubled, np.arange(len(doubled)))),
                    shape=(rows.shape[0], len(doubled)),
                )
                rows = rows + place @ thinned(counts[second[part][doubled]], rng)
                matrix.append(rows.tocsr().astype(np.float32))


def thinned(rows: sp.csr_matrix, rng: np.random.Generator) -> sp.csr_matrix:
    """Keep each molecule by the chance of its cell."""
    import numpy as np

    chance = np.repeat(rng.uniform(THINNED, 1, rows.shape[0]).astype(np.float32), np.diff(rows.indptr))
    several = rows.data > 1
    drawn = rng.binomial(rows.data[several], chance[several])
    # most counts are 1, and a number drawn for each is ten times as fast as a binomial one
    rows.data = (rng.random(len(chance), dtype=np.float32) < chance).astype(np.int32)
    rows.data[several] = drawn
    rows.eliminate_zeros()
    return rows


if __name__ == "__main__":
    main()
