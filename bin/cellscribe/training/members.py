"""Training of a model's members: the scVI encoder, neighbours and trees in its latent space, regression, likelihood."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse as sp

from cellscribe.cli import log
from cellscribe.errors import CellscribeError
from cellscribe.io import scratch_beside
from cellscribe.model.calibration import softmax
from cellscribe.model.encoder import Encoder
from cellscribe.model.likelihood import Likelihood
from cellscribe.model.logistic import Logistic, batch_weights, log_normalise, train_logistic
from cellscribe.model.model import LIKELIHOOD, LOGISTIC, NEIGHBOURS, TREES, rarity_weights, tree_probabilities
from cellscribe.model.neighbours import N_NEIGHBOURS, nearest, vote
from cellscribe.model.profiles import Profiles
from cellscribe.model.reference_counts import (
    MOST_MARKERS,
    N_MARKERS,
    N_TOP_GENES,
    ReferenceCounts,
    some_cells,
)
from cellscribe.model.robust import thinned_copy, with_copies
from cellscribe.model.scvi_model import SCVI, ScviModel
from cellscribe.surgery import from_scvi, load_scvi
from cellscribe.training.disk import blocks_of, draw_cells, on_disk
from cellscribe.training.genes import choose_genes, label_sums
from cellscribe.training.options import KINDS, TrainOptions
from cellscribe.training.reference import LabelledCells

if TYPE_CHECKING:
    import pandas as pd

# Of a larger reference, so many cells teach the regression and the trees (`draw_cells`). All cells teach the encoder,
# the likelihood and the markers.
MOST_TAUGHT = 50_000
# Cells that a query finds as neighbours, each with its copies: to find the nearest is half of what mapping takes, and
# as many as these lose nothing (benchmarks/neighbours.py). Labels with up to half their share keep all of theirs.
NEIGHBOURS_OF_A_LABEL = 200
LEAST_NEIGHBOURS, MOST_NEIGHBOURS = 2_000, 10_000


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
    Raises CellscribeError where scvi-tools cannot be loaded, and where the encoder that comes of the model gives
    another latent than scvi-tools itself.
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
        raise CellscribeError(
            f"the exported encoder differs from scvi-tools' by {gap:.2g}",
            "Bring the release of scvi-tools that cellscribe was tested with (make setup); report it if it stays.",
        )
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

    rarity = rarity_weights(np.bincount(codes, minlength=n_labels))
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


@dataclass(frozen=True)
class Members:
    """Trained members. encoder and trees are None for a logistic model, logistic is None for an scvi one.

    latent: (n_rows, n_latent) of cells and their altered copies, which are the neighbours that a query finds, the
    `n_cells` unaltered ones first; source: (n_rows,), each row's cell among those trained on; codes: (n_rows,), its
    label. scvi: what fine-tuning the encoder takes, where it takes covariates. profiles, likelihood: what the labels
    express; the likelihood is None for an scvi or a logistic model.
    """

    encoder: Encoder | None
    trees: Any
    logistic: Logistic | None
    latent: np.ndarray | None
    source: np.ndarray
    codes: np.ndarray
    n_cells: int
    n_labels: int
    scvi: ScviModel | None = None
    profiles: Profiles | None = None
    likelihood: Likelihood | None = None

    def probabilities(self, counts: sp.csr_matrix, found: np.ndarray | None = None) -> dict[str, np.ndarray]:
        """Each member's label probabilities for raw counts on the model's genes. found: bool (n_genes,), by default
        all: those that were measured in the cells.
        """
        result: dict[str, np.ndarray] = {}
        if self.encoder is not None:
            result |= self.latent_probabilities(self.encoder.encode(counts))
        if self.logistic is not None:
            result[LOGISTIC] = softmax(self.logistic.scores(counts))
        if self.likelihood is not None:
            likelihood = self.likelihood if found is None else self.likelihood.on(found)
            result[LIKELIHOOD] = softmax(likelihood.scores(counts))
        return result

    def latent_probabilities(self, latent: np.ndarray) -> dict[str, np.ndarray]:
        """Those of the members that see the latent alone. latent: (n_cells, n_latent)."""
        assert self.latent is not None
        distances, indices = nearest(latent, self.latent, N_NEIGHBOURS)
        weights = rarity_weights(np.bincount(self.codes, minlength=self.n_labels))
        return {
            NEIGHBOURS: vote(distances, indices, self.codes, self.n_labels, weights),
            TREES: tree_probabilities(self.trees, latent),
        }


def as_stored(latent: np.ndarray) -> np.ndarray:
    """A latent in the precision that `Reference.save` keeps: what is trained on it meets the same numbers later."""
    return latent.astype(np.float16).astype(np.float32)


def train_members(
    counts: sp.csr_matrix, codes: np.ndarray, batches: np.ndarray, n_labels: int, options: TrainOptions
) -> Members:
    """Train every member of the model's kind on raw counts of the model's genes."""
    rng = np.random.default_rng(options.seed)
    encoder = trees = logistic = latent = scvi = profiles = likelihood = None
    taught, known = taught_cells(codes, n_labels, options.seed)
    source = known
    wanted = KINDS[options.kind]
    if LOGISTIC in wanted:
        weights = batch_weights(batches)[taught]
        logistic = regression_of(counts[taught], codes[taught], weights, n_labels, options, rng)
    if LIKELIHOOD in wanted:
        likelihood = likelihood_of(counts, codes, batch_weights(batches), n_labels)
    if NEIGHBOURS in wanted:
        copies = copies_on_disk(counts, options.encoder_copies, rng, scratch_beside(options.output))
        of_copies = np.tile(batches, options.encoder_copies + 1)
        how: dict[str, Any] = {
            "n_latent": options.n_latent,
            "max_epochs": options.max_epochs,
            "seed": options.seed,
            "use_gpu": options.use_gpu,
        }
        own = None
        if options.encode_covariates:
            scvi = train_scvi(copies, of_copies, encode_covariates=True, **how)
            own = scvi.covariates(batch_table(of_copies))
            encoder = scvi.encoder(own.mean(axis=0))
        else:
            encoder = train_encoder(copies, of_copies, **how)
        rows, source = rows_of_copies(taught, len(codes), options.encoder_copies)
        latent = as_stored(encode(encoder, copies, rows, own))
        trees = train_trees(latent, codes[source], n_labels, cpus=options.cpus, seed=options.seed)
        kept = np.isin(source, known)
        latent, source = latent[kept], source[kept]
        profiles = profiles_of(counts, codes, n_labels, options.seed)
    return Members(
        encoder,
        trees,
        logistic,
        latent,
        source,
        codes[source],
        len(known),
        n_labels,
        scvi,
        profiles,
        likelihood,
    )


def regression_of(
    counts: sp.csr_matrix,
    codes: np.ndarray,
    cell_weights: np.ndarray,
    n_labels: int,
    options: TrainOptions,
    rng: np.random.Generator,
) -> Logistic:
    """A regression that learned from cells and their thinned copies. counts: raw, on the model's genes. codes,
    cell_weights: (n_cells,).
    """
    copies, rows = with_copies(counts, options.logistic_copies, rng)
    return train_logistic(copies, codes[rows], n_labels, cell_weights=cell_weights[rows], seed=options.seed)


def likelihood_of(
    counts: sp.csr_matrix, codes: np.ndarray, cell_weights: np.ndarray, n_labels: int
) -> Likelihood:
    """The mean share of each gene in the counts of a label's cells. counts: raw, on the model's genes. codes,
    cell_weights: (n_cells,).
    """
    sums = np.zeros((n_labels, counts.shape[1]))
    for own, block in blocks_of(counts):
        totals = np.maximum(np.asarray(block.sum(axis=1)).ravel(), 1)
        sums += label_sums(sp.diags(cell_weights[own] / totals) @ block, codes[own], n_labels)
    shares = sums / np.maximum(sums.sum(axis=1, keepdims=True), 1e-12)
    return Likelihood(np.ascontiguousarray(shares.T, dtype=np.float32))


def profiles_of(counts: sp.csr_matrix, codes: np.ndarray, n_labels: int, seed: int) -> Profiles:
    """What the labels express, by all cells. counts: raw, on the model's genes. A label without cells has the mean of
    all.
    """
    sums, squares = np.zeros((n_labels, counts.shape[1])), np.zeros(counts.shape[1])
    for own, block in blocks_of(counts):
        logged = log_normalise(block)
        sums += label_sums(logged, codes[own], n_labels)
        squares += np.asarray(logged.multiply(logged).sum(axis=0)).ravel()
    numbers = np.bincount(codes, minlength=n_labels)
    means = np.where(
        numbers[:, None] > 0, sums / np.maximum(numbers, 1)[:, None], sums.sum(axis=0) / len(codes)
    )
    variances = squares / len(codes) - (numbers / len(codes)) @ np.square(means)
    return Profiles.of(means, np.maximum(variances, 0), seed=seed)


def most_neighbours(n_labels: int) -> int:
    """How many cells of a reference with so many labels become neighbours."""
    return min(max(NEIGHBOURS_OF_A_LABEL * n_labels, LEAST_NEIGHBOURS), MOST_NEIGHBOURS)


def taught_cells(codes: np.ndarray, n_labels: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """The cells that teach regression and trees, and those of them that become neighbours: both rows, ascending."""
    taught = draw_cells(codes, MOST_TAUGHT, seed=seed)
    return taught, taught[draw_cells(codes[taught], most_neighbours(n_labels), seed=seed)]


def copies_on_disk(
    counts: sp.csr_matrix, n_copies: int, rng: np.random.Generator, folder: Path
) -> sp.csr_matrix:
    """What `with_copies` gives, on disk: CSR ((1 + n_copies) * n_cells, n_genes)."""

    def parts() -> Iterator[sp.csr_matrix]:
        for copy in range(-1, n_copies):
            for _, block in blocks_of(counts):
                yield block if copy < 0 else thinned_copy(block, rng, drop_genes=copy % 2 == 0)

    return on_disk(parts(), counts.shape[1], folder)


def rows_of_copies(cells: np.ndarray, n_cells: int, n_copies: int) -> tuple[np.ndarray, np.ndarray]:
    """Where some of `n_cells` cells and their copies stand in `copies_on_disk`, and each row's cell."""
    rows = np.concatenate([cells + n_cells * copy for copy in range(n_copies + 1)])
    return rows, np.tile(cells, n_copies + 1)


def encode(
    encoder: Encoder,
    counts: sp.csr_matrix,
    rows: np.ndarray,
    covariates: np.ndarray | None = None,
    *,
    alter: Callable[[sp.csr_matrix], sp.csr_matrix] = lambda block: block,
) -> np.ndarray:
    """The latent of some rows of counts, (n_rows, n_latent). covariates: (n_cells, n_covariates), of all rows.
    alter: what is done to a block first.
    """
    return np.concatenate(
        [
            encoder.encode(alter(block), None if covariates is None else covariates[own])
            for own, block in blocks_of(counts, rows)
        ]
    )


def reference_counts(
    cells: LabelledCells, rows: np.ndarray, options: TrainOptions
) -> tuple[ReferenceCounts, np.ndarray]:
    """Counts of some cells on more genes than the model's own, and which genes these are. rows: bool (n_cells,)."""
    more = replace(
        options,
        n_top_genes=max(N_TOP_GENES, options.n_top_genes),
        n_markers=min(N_MARKERS, max(options.n_markers, MOST_MARKERS // len(cells.names))),
    )
    columns = choose_genes(cells, rows, more)
    inside = np.flatnonzero(rows)
    some = inside[some_cells(cells.codes[inside], cells.batches[inside], seed=options.seed)]
    _, batches = np.unique(cells.batches[some].astype(str), return_inverse=True)
    genes = cells.genes.iloc[columns].reset_index(drop=True)
    return ReferenceCounts(cells.counts[some][:, columns].tocsr(), cells.codes[some], batches, genes), columns
