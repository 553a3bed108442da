"""Small labelled files with the names, donors and labels of ../shared/data/labelled, for the accuracy benchmark."""

from __future__ import annotations

import functools
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import scipy.sparse as sp
from accuracy.pairs import COARSE, FILES, FINE, KANG_FOLDS, SAMPLES, UNLABELLED
from small_model import scratch

N_GENES = 120
FINE_NAMES = {
    "pbmc3k": ("Naive CD4 T", "CD14+ Mono", "FCGR3A+ Mono", "B", "CD8 T", "NK", "DC", "Platelet"),
    "kang_ctrl": (
        "CD4 T cells",
        "CD14+ Monocytes",
        "FCGR3A+ Monocytes",
        "B cells",
        "CD8 T cells",
        "NK cells",
        "Dendritic cells",
        "Megakaryocytes",
    ),
}
BROAD = (
    "CD4 T cell",
    "Monocyte",
    "Monocyte",
    "B cell",
    "CD8 T cell",
    "NK cell",
    "Dendritic cell",
    "Platelet",
)
LINES = ("A549", "H838", "H1975")


def simulate(name: str, folder: Path) -> None:
    """A file like that of ../shared/data/labelled: counts in which each broad type has genes of its own."""
    rng = np.random.default_rng(len(name))
    lines = name.startswith("scmix")
    fine = LINES if lines else FINE_NAMES.get(name, BROAD)
    broad = LINES if lines else BROAD
    n_cells = 24 * len(fine)
    code = np.arange(n_cells) % len(fine)
    kinds = sorted(set(broad))
    rates = np.full((n_cells, N_GENES), 1.0)
    for row, cell in enumerate(code):
        start = 12 * kinds.index(broad[cell])
        rates[row, start : start + 12] = 6
    obs = pd.DataFrame({FINE: np.array(fine)[code], COARSE: np.array(broad)[code]}, dtype=object)
    obs.iloc[:1] = UNLABELLED if not lines else obs.iloc[:1]
    donors = {"multistudy": SAMPLES, "kang_ctrl": tuple(d for fold in KANG_FOLDS for d in fold)}.get(name)
    if donors:
        obs["donor"] = np.array(donors)[np.arange(n_cells) // len(fine) % len(donors)]
    obs.index = [f"cell{i}" for i in range(n_cells)]
    symbols = [f"SYM{i}" for i in range(N_GENES)]
    cells = anndata.AnnData(
        sp.csr_matrix(rng.poisson(rates).astype(np.float32)),
        obs=obs,
        var=pd.DataFrame({"gene_ids": [f"ENSG{i:011d}" for i in range(N_GENES)]}, index=symbols),
    )
    cells.write_h5ad(folder / f"{FILES[name]}.h5ad")


@functools.cache
def labelled_sets() -> Path:
    """The folder of all files."""
    folder = scratch() / "labelled"
    folder.mkdir()
    for name in FILES:
        simulate(name, folder)
    return folder
