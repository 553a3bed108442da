"""A small annotated sample with real genes, for CURATE."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pandas as pd
import scipy.sparse as sp
from report_factory import TYPES, simulated, write_sample

from cellscribe.contract import OutputNames
from cellscribe.io import read_json, write_h5ad, write_json

ROOT = Path(__file__).parents[1]


def write_annotated_sample(folder: Path, *, empty_cells: int = 0) -> tuple[Path, Path]:
    """blood.annotated.h5ad and its annotation.json; the genes are the embedded model's first ones."""
    import anndata

    adata = simulated()
    with (ROOT / "assets" / "models" / "pbmc" / "genes.tsv").open() as handle:
        genes = [
            row for row, _ in zip(csv.DictReader(handle, delimiter="\t"), range(adata.n_vars), strict=False)
        ]
    adata.var["gene_ids"] = [gene["gene_id"] for gene in genes]
    adata.var["gene_symbols"] = [gene["symbol"] for gene in genes]
    if empty_cells:
        keep = np.arange(adata.n_obs) >= empty_cells
        adata.X = sp.csr_matrix(adata.X.multiply(keep[:, None]))
    files = write_sample(folder, adata)
    names = OutputNames.of()
    annotated = anndata.read_h5ad(files["annotated"])
    ids = annotated.obs[names.final].astype(str).map(TYPES).fillna("")
    annotated.obs[names.final_cl_id] = pd.Categorical(ids)
    annotated.obsm[names.umap_explorer] = np.asarray(annotated.obsm[names.umap])
    annotated.uns["cellscribe"] = {"organism": "human", "sample": "blood"}
    write_h5ad(annotated, files["annotated"])
    described = read_json(files["annotation"])
    described["names"]["final_cl_id"] = names.final_cl_id
    write_json(described, files["annotation"])
    return files["annotated"], files["annotation"]
