"""Small real models, made once a session by TRAIN from simulated cells, and samples to annotate with them."""

from __future__ import annotations

import atexit
import functools
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any
from unittest import mock

import anndata
import numpy as np
import pandas as pd
import scipy.sparse as sp

from cellscribe.io import write_h5ad
from cellscribe.model.encoder import Encoder

CL_IDS = {
    "B cell": "CL:0000236",
    "CD4 T cell": "CL:0000624",
    "CD8 T cell": "CL:0000625",
    "Monocyte": "CL:0000576",
    "NK cell": "CL:0000623",
}
TYPES = tuple(CL_IDS)
BATCHES = ("donor_1", "donor_2", "donor_3")
N_GENES = 400
MARKERS_EACH = 25


@functools.cache
def scratch() -> Path:
    """A folder that lives as long as the session."""
    folder, own = tempfile.mkdtemp(prefix="cellscribe-tests-"), os.getpid()
    # A process that a test forks ends too, and must leave it.
    atexit.register(lambda: shutil.rmtree(folder, ignore_errors=True) if os.getpid() == own else None)
    return Path(folder)


def simulate(n_cells: int = 300, *, seed: int = 0, types: tuple[str, ...] = TYPES) -> anndata.AnnData:
    """Raw counts in which each type has 25 genes of its own, in three batches; about 700 counts a cell.

    The two T cells share 15 of theirs, as T cells do. A type's genes are the same for every seed.
    """
    fixed, rng = np.random.default_rng(7), np.random.default_rng(seed)
    base = fixed.gamma(0.6, 1.0, N_GENES) + 0.05
    profiles = np.tile(base, (len(TYPES), 1))
    for i in range(len(TYPES)):
        profiles[i, i * MARKERS_EACH : (i + 1) * MARKERS_EACH] += 4
    for i in (1, 2):
        profiles[i, 1 * MARKERS_EACH + 10 : 2 * MARKERS_EACH] += 4
    effects = fixed.lognormal(0, 0.15, (len(BATCHES), N_GENES))
    codes = np.array([TYPES.index(name) for name in types])[np.arange(n_cells) % len(types)]
    batch = (np.arange(n_cells) // len(types)) % len(BATCHES)
    rates = profiles[codes] * effects[batch] * rng.uniform(0.7, 1.3, (n_cells, 1))
    labels = np.array(TYPES)[codes]
    ids, symbols = gene_names()
    return anndata.AnnData(
        X=sp.csr_matrix(rng.poisson(rates).astype(np.float32)),
        obs=pd.DataFrame(
            {
                "cell_type": labels,
                "broad": np.where(np.isin(labels, ["CD4 T cell", "CD8 T cell"]), "T cell", labels),
                "donor": np.array(BATCHES)[batch],
            },
            index=[f"CELL{i:04d}-1" for i in range(n_cells)],
        ),
        var=pd.DataFrame({"gene_ids": ids, "gene_symbols": symbols}, index=symbols),
    )


def gene_names() -> tuple[list[str], list[str]]:
    """The simulated genes' Ensembl ids and symbols."""
    return [f"ENSG{i + 1:011d}" for i in range(N_GENES)], [f"SYM{i}" for i in range(N_GENES)]


def write_reference(adata: anndata.AnnData, path: Path) -> Path:
    """Write labelled cells as a user would have them."""
    adata.copy().write_h5ad(path)
    return path


def write_counts(adata: anndata.AnnData, path: Path, *, sample: str = "s1", organism: str = "human") -> Path:
    """Write cells as QC does (docs/architecture.md)."""
    adata = adata.copy()
    adata.obs = adata.obs.rename(columns={"cell_type": "published"}).assign(sample=sample, batch=sample)
    adata.uns["cellscribe"] = {"sample": sample, "organism": organism, "convert": "{}"}
    write_h5ad(adata, path)
    return path


def options(folder: Path, **changes: Any) -> Any:
    """Options of a training that takes seconds."""
    from cellscribe.training.options import TrainOptions

    chosen: dict[str, Any] = {
        "reference": (folder / "reference.h5ad",),
        "label_key": "cell_type",
        "batch_key": "donor",
        "output": folder / "model",
        "name": "small",
        "kind": "logistic",
        "n_top_genes": 100,
        "n_markers": 20,
        "n_latent": 8,
        "logistic_copies": 1,
        "cl_map": folder / "cl.csv",
        "citation": "none",
    }
    return TrainOptions(**{**chosen, **changes})


def ready_options(folder: Path) -> Any:
    """Options of such a training, whose reference and ids lie in `folder`."""
    write_reference(simulate(120), folder / "reference.h5ad")
    write_cl_map(folder / "cl.csv")
    return options(folder)


def write_cl_map(path: Path) -> Path:
    """The Cell Ontology ids of the simulated types."""
    pd.Series(CL_IDS, name="cl_id").rename_axis("label").to_csv(path)
    return path


def linear_encoder(counts: sp.csr_matrix, batches: np.ndarray, *, n_latent: int = 8, **_: Any) -> Encoder:
    """In place of scVI's: principal components of log counts, which an encoder of one layer can hold."""
    from sklearn.decomposition import TruncatedSVD

    logged = counts.log1p()
    axes = TruncatedSVD(n_latent, random_state=0).fit(logged).components_.T.astype(np.float32)
    mean = np.asarray(logged.mean(axis=0), dtype=np.float32).ravel()
    return Encoder((axes,), (-mean @ axes,))


@functools.cache
def small_model(kind: str = "logistic") -> Path:
    """A model folder of kind `logistic` or `consensus`, the latter with a linear encoder: no torch is needed."""
    from cellscribe.training.train import run_train

    folder = scratch() / kind
    folder.mkdir()
    write_reference(simulate(), folder / "reference.h5ad")
    write_cl_map(folder / "cl.csv")
    with mock.patch("cellscribe.training.members.train_encoder", linear_encoder):
        return run_train(options(folder, kind=kind))


@functools.cache
def small_counts(n_cells: int = 90) -> Path:
    """Other cells of the same types, as QC writes them."""
    return write_counts(simulate(n_cells, seed=1), scratch() / f"s1_{n_cells}.filtered.h5ad")


@functools.cache
def small_mapping(kind: str = "logistic", n_cells: int = 90) -> Path:
    """What MAP makes of `small_counts` and `small_model`."""
    from cellscribe.mapping import run_map

    path = scratch() / f"s1_{kind}_{n_cells}.mapping.h5ad"
    run_map(small_counts(n_cells), small_model(kind), path)
    return path


def as_organism(adata: anndata.AnnData, organism: str) -> anndata.AnnData:
    """The simulated cells with ids and symbols of human or mouse; the same column is the same gene in both."""
    from cellscribe.orthologs import ortholog_pairs

    pairs = ortholog_pairs()
    pairs = pairs[(pairs["human_symbol"] != "") & (pairs["mouse_symbol"] != "")].iloc[:N_GENES]
    ids, symbols = pairs[f"{organism}_gene_id"].to_numpy(), pairs[f"{organism}_symbol"].to_numpy()
    renamed = adata.copy()
    renamed.var = pd.DataFrame({"gene_ids": ids, "gene_symbols": symbols}, index=symbols)
    return renamed


@functools.cache
def model_of(organism: str) -> Path:
    """A logistic model of human or mouse genes, both trained on the same cells."""
    from cellscribe.training.train import run_train

    folder = scratch() / organism
    folder.mkdir()
    write_reference(as_organism(simulate(), organism), folder / "reference.h5ad")
    write_cl_map(folder / "cl.csv")
    return run_train(options(folder, name=organism))


def barnyard(n_cells: int = 60) -> anndata.AnnData:
    """Human and mouse cells, half and half, in one matrix of both organisms' genes; two have a count of the other's."""
    human, mouse = (
        as_organism(simulate(n_cells // 2, seed=seed), organism)
        for seed, organism in ((3, "human"), (4, "mouse"))
    )
    mouse.obs_names = [f"M{name}" for name in mouse.obs_names]
    counts = sp.block_diag([human.X, mouse.X], format="lil", dtype=np.float32)
    counts[0, -1] = counts[-1, 0] = 1
    return anndata.AnnData(
        counts.tocsr(), obs=pd.concat([human.obs, mouse.obs]), var=pd.concat([human.var, mouse.var])
    )
