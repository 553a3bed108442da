"""Models trained with scvi-tools in every setting that changes an encoder, by whichever release runs this file.

python scvi_models.py CELLS FOLDER NAME...: trains each and saves, beside it, what scvi-tools itself says of the cells.
"""

from __future__ import annotations

import functools
import subprocess
import sys
from pathlib import Path
from typing import Any

BATCH = {"batch_key": "donor"}
COVARIATES = {"categorical_covariate_keys": ["site"], "continuous_covariate_keys": ["age"]}
LABELS = {"labels_key": "label"}
# How the cells are set up, and what the model is made with.
SETTINGS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "plain": (BATCH, {}),
    "no_batch": ({}, {"encode_covariates": True}),
    "encoded": (BATCH, {"encode_covariates": True}),
    "covariates": (
        BATCH | COVARIATES,
        {"encode_covariates": True, "n_layers": 2, "use_batch_norm": "none", "use_layer_norm": "both"},
    ),
    "both_norms": (
        BATCH | COVARIATES,
        {
            "encode_covariates": True,
            "n_layers": 3,
            "use_layer_norm": "encoder",
            "deeply_inject_covariates": False,
        },
    ),
    "counts": (BATCH, {"log_variational": False, "dispersion": "gene-batch", "n_layers": 2}),
    "library": (
        BATCH,
        {"use_observed_lib_size": False, "dispersion": "gene-cell", "use_batch_norm": "decoder"},
    ),
    "by_label": (BATCH | LABELS, {"dispersion": "gene-label", "gene_likelihood": "nb"}),
    "embedded": (BATCH, {"encode_covariates": True, "n_layers": 2, "batch_representation": "embedding"}),
    "minified": (BATCH | LABELS, {"encode_covariates": True}),
    "scanvi": (BATCH | LABELS, {"n_layers": 2}),
    "scanvi_encoded": (
        BATCH | {"categorical_covariate_keys": ["site"]} | LABELS,
        {"encode_covariates": True, "use_layer_norm": "both"},
    ),
    "scanvi_linear": (
        BATCH | COVARIATES | LABELS,
        {"encode_covariates": True, "linear_classifier": True, "use_layer_norm": "both"},
    ),
}
# These, scvi-tools 1.0 has not.
NEWER = ("embedded",)
UNLABELLED = "Unknown"


def train(cells: Path, folder: Path, names: list[str]) -> None:
    """Train each model for two epochs and save it, its latent, and SCANVI's predictions."""
    import anndata
    import numpy as np
    import scvi

    for name in names:
        scvi.settings.seed = 1
        adata = anndata.read_h5ad(cells)
        setup, options = SETTINGS[name]
        kind = scvi.model.SCANVI if name.startswith("scanvi") else scvi.model.SCVI
        more = {"unlabeled_category": UNLABELLED} if kind is scvi.model.SCANVI else {}
        kind.setup_anndata(adata, **setup, **more)
        model = kind(adata, n_hidden=32, n_latent=8, **options)
        model.train(max_epochs=2, accelerator="cpu", enable_progress_bar=False)
        out = folder / name
        out.mkdir()
        np.save(out / "latent.npy", model.get_latent_representation())
        if kind is scvi.model.SCANVI:
            model.predict(soft=True).to_csv(out / "probabilities.csv")
        if name == "minified":
            adata.obsm["X_latent_qzm"], adata.obsm["X_latent_qzv"] = model.get_latent_representation(
                return_dist=True
            )
            model.minify_adata(use_latent_qzm_key="X_latent_qzm", use_latent_qzv_key="X_latent_qzv")
        model.save(str(out / "model"), save_anndata=name == "minified")


def write_cells(path: Path) -> Path:
    """Labelled cells with covariates, a tenth of them without a label."""
    import numpy as np
    from small_model import simulate

    from cellscribe.io import write_h5ad

    adata = simulate(300)
    adata.obs["site"] = np.where(np.arange(300) % 2, "x", "y")
    adata.obs["age"] = np.random.default_rng(0).uniform(0, 1, 300)
    adata.obs["label"] = np.where(np.arange(300) % 10, adata.obs["cell_type"], UNLABELLED)
    write_h5ad(adata, path)
    return path


def run(python: str | Path, folder: Path, names: list[str]) -> Path:
    """Train the models in a process of their own; returns the folder."""
    cells = write_cells(folder / "cells.h5ad")
    done = subprocess.run(
        [python, "-W", "ignore", __file__, cells, folder, *names], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return folder


@functools.cache
def trained() -> Path:
    """Models of the scvi-tools that training here uses, once a session."""
    from small_model import scratch

    folder = scratch() / "scvi"
    folder.mkdir()
    return run(sys.executable, folder, list(SETTINGS))


if __name__ == "__main__":
    train(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:])
