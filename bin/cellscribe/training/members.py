"""Training of the members of a model that live in a latent space: the scVI encoder, the trees."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse as sp

from cellscribe.cli import log
from cellscribe.errors import CellscribeError
from cellscribe.model.encoder import Encoder
from cellscribe.model.scvi_model import SCVI, ScviModel
from cellscribe.surgery import from_scvi, load_scvi

if TYPE_CHECKING:
    import pandas as pd


def train_encoder(counts: sp.csr_matrix, batches: np.ndarray, **how: Any) -> Encoder:
    """An scVI encoder that sees genes alone (`encode_covariates=False`), so that a query needs no fine-tuning.

    Arguments as for `train_scvi`.
    """
    return train_scvi(counts, batches, **how).encoder()


def batch_table(batches: np.ndarray) -> pd.DataFrame:
    """obs as `train_scvi` sets it up. batches: (n_cells,)."""
    import pandas as pd

    names = pd.Categorical(np.asarray(batches, dtype=str))
    return pd.DataFrame({"batch": names}, index=np.arange(len(batches)).astype(str))


def train_scvi(
    counts: sp.csr_matrix,
    batches: np.ndarray,
    *,
    n_latent: int = 30,
    n_layers: int = 2,
    n_hidden: int = 128,
    max_epochs: int | None = None,
    encode_covariates: bool = False,
    seed: int = 0,
    use_gpu: bool = False,
) -> ScviModel:
    """A trained scVI model.

    counts: raw counts on the model's genes, copies included, (n_cells, n_genes). batches: (n_cells,).
    max_epochs: by default 20 to 200, fewer for more cells, stopped early where nothing improves. encode_covariates:
    whether the encoder sees the batch too.
    The encoder that comes of it is checked against scvi-tools' own latent.
    """
    import anndata
    import torch

    scvi = load_scvi(seed)
    adata = anndata.AnnData(counts.astype(np.float32, copy=False), obs=batch_table(batches))
    scvi.model.SCVI.setup_anndata(adata, batch_key="batch")
    model = scvi.model.SCVI(
        adata,
        n_latent=n_latent,
        n_layers=n_layers,
        n_hidden=n_hidden,
        gene_likelihood="nb",
        encode_covariates=encode_covariates,
    )
    epochs = max_epochs or int(np.clip(round(400_000 / adata.n_obs), 20, 200))
    on_gpu = use_gpu and torch.cuda.is_available()
    if use_gpu and not on_gpu:
        log("no GPU was found: training on the CPU")
    model.train(
        max_epochs=epochs,
        batch_size=256 if adata.n_obs < 50_000 else 512,
        early_stopping=max_epochs is None and adata.n_obs >= 2_000,
        early_stopping_patience=15,
        accelerator="gpu" if on_gpu else "cpu",
        enable_progress_bar=False,
        logger=False,
        callbacks=[_said_every_tenth(epochs)],
    )
    trained = from_scvi(model, SCVI)
    some = adata[: min(500, adata.n_obs)]
    covariates = trained.covariates(some.obs) if trained.encodes_covariates else None
    gap = float(
        np.abs(
            trained.encoder().encode(sp.csr_matrix(some.X), covariates)
            - model.get_latent_representation(some.copy())
        ).max()
    )
    if not gap < 1e-3:
        raise CellscribeError(f"the exported encoder differs from scvi-tools' by {gap:.2g}")
    log(f"scVI: {model.trainer.current_epoch} epochs on {adata.n_obs:,} cells")
    return trained


def _said_every_tenth(epochs: int) -> Any:
    """A callback of the trainer that says how far it is."""
    from lightning.pytorch.callbacks import Callback

    class Said(Callback):
        def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
            done = trainer.current_epoch + 1
            if done * 10 // epochs > (done - 1) * 10 // epochs:
                log(f"scVI: epoch {done} of at most {epochs}")

    return Said()


def train_trees(
    latent: np.ndarray, codes: np.ndarray, n_labels: int, *, n_rounds: int = 80, cpus: int = 1, seed: int = 0
) -> Any:
    """Gradient-boosted trees on the latent; rare labels weigh more (square root of their rarity, at most ten).

    latent: (n_cells, n_latent). Returns an `xgboost.Booster` that gives (n_cells, n_labels) probabilities.
    """
    import xgboost

    counts = np.bincount(codes, minlength=n_labels)
    rarity = np.minimum(10.0, np.sqrt(len(codes) / (n_labels * np.maximum(counts, 1))))
    data = xgboost.DMatrix(latent, label=codes, weight=rarity[codes])
    parameters = {
        "objective": "multi:softprob",
        "num_class": n_labels,
        "tree_method": "hist",
        "max_depth": 4,
        "eta": 0.15,
        "subsample": 0.8,
        "colsample_bytree": 0.8,
        "lambda": 2.0,
        "min_child_weight": 2,
        "seed": seed,
        "nthread": cpus,
    }
    return xgboost.train(parameters, data, num_boost_round=n_rounds)
