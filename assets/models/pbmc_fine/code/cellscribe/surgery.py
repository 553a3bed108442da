"""Fine-tuning an encoder on a query, by scvi-tools itself.

scArches: Lotfollahi et al. 2022, Nature Biotechnology 40:121. The query is a new batch; only the weights by which
layers take that batch are trained, all others stay as they are. An encoder that takes no batch stays the same whatever
is trained: it is then not tried.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse as sp

from cellscribe.cli import log, warn
from cellscribe.errors import CellscribeError
from cellscribe.model.encoder import Encoder
from cellscribe.model.model import Model
from cellscribe.model.scvi_model import SCANVI, ScviModel

if TYPE_CHECKING:
    from cellscribe.align import GeneMatch
    from cellscribe.mapping import Cells

MOST_EPOCHS = 100
FEWEST_CELLS = 10
BATCH_SIZE = 128
NOT_NEEDED = (
    "Fine-tuning (--surgery) would change nothing: the model has no encoder that takes the batch. The cells were "
    "mapped by a forward pass."
)


@dataclass(frozen=True)
class Surgery:
    """How to fine-tune. epochs: None for as many as the number of cells asks for."""

    epochs: int | None = None
    seed: int = 0


@dataclass(frozen=True)
class Tuned:
    """What came of it. encoder: the one to map with, or None where the model's own stays; epochs that were trained;
    warnings for the reader.
    """

    encoder: Encoder | None = None
    epochs: int = 0
    warnings: tuple[str, ...] = ()


def epochs_for(n_cells: int) -> int:
    """100 up to 80,000 cells and fewer beyond, as scvi-tools reckons (8,000,000 cells seen in all)."""
    return max(1, min(MOST_EPOCHS, round(8_000_000 / max(n_cells, 1))))


def tune(model: Model, cells: Cells, match: GeneMatch, surgery: Surgery, device: str | None = None) -> Tuned:
    """Fine-tune a model's encoder on a query's cells, where that would change it.

    match: of their genes. device: a GPU by PyTorch's name for it, or None for the processor.
    """
    if not model.can_be_tuned:
        warn(NOT_NEEDED)
        return Tuned(warnings=(NOT_NEEDED,))
    if cells.n_obs < FEWEST_CELLS:
        few = (
            f"{cells.n_obs} cells are too few to fine-tune the model on: they were mapped by a forward pass."
        )
        warn(few)
        return Tuned(warnings=(few,))
    epochs = surgery.epochs or epochs_for(cells.n_obs)
    log(f"fine-tuning the encoder on {cells.n_obs:,} cells, {epochs} epochs")
    counts = sp.vstack([match.on_model(chunk) for _, chunk in cells.chunks()]).tocsr()
    encoder = fine_tune(
        ScviModel.load(model.folder), counts, model.encoder.default, epochs, surgery.seed, device
    )
    return Tuned(encoder, epochs)


def fine_tune(
    reference: ScviModel,
    counts: sp.csr_matrix,
    average: np.ndarray | None,
    epochs: int,
    seed: int = 0,
    device: str | None = None,
) -> Encoder:
    """The encoder after `epochs` on the query, all of it one new batch.

    counts: (n_cells, n_genes). average: (n_covariates,), the reference's average covariates, of which the continuous
    ones are given to the query. Weight decay is 0: else frozen weights decay too.
    """
    scvi = load_scvi(seed)
    accelerator = "gpu" if device else "cpu"
    obs = query_covariates(reference, counts, average)
    adata = _adata(reference, counts, obs)
    kind = scvi.model.SCANVI if reference.kind == SCANVI else scvi.model.SCVI
    with tempfile.TemporaryDirectory() as folder:
        write_scvi(reference, Path(folder))
        query = kind.load_query_data(adata, folder, accelerator=accelerator)
    if reference.kind == SCANVI:
        query._training_plan_cls = _unlabelled_plan(scvi)
    query.train(
        max_epochs=epochs,
        accelerator=accelerator,
        plan_kwargs={"weight_decay": 0.0},
        batch_size=_batch_size(counts.shape[0]),
        train_size=1.0,
        enable_progress_bar=False,
        logger=False,
    )
    tuned = from_scvi(query, reference.kind)
    return tuned.encoder(tuned.covariates(obs.iloc[:1])[0])


def query_covariates(reference: ScviModel, counts: sp.csr_matrix, average: np.ndarray | None) -> Any:
    """obs of a query as the reference was set up: a new batch, new categories, the reference's average numbers.

    Returns the table, one row a cell.
    """
    import pandas as pd

    n_cells = counts.shape[0]
    known = {*reference.batches, *(name for names in reference.categorical.values() for name in names)}
    new = next(name for number in range(len(known) + 1) if (name := f"query{number or ''}") not in known)
    text: dict[str, str] = {}
    batch, labels, size = (reference.column(field) for field in ("batch", "labels", "size_factor"))
    for column in ([batch] if batch else []) + list(reference.categorical):
        text[column] = new
    if labels:
        known_labels = reference.state("labels").get("categorical_mapping", ())
        text[labels] = str(reference.unlabelled if reference.kind == SCANVI else known_labels[0])
    obs = pd.DataFrame(
        {column: pd.Categorical([value] * n_cells) for column, value in text.items()},
        index=np.arange(n_cells).astype(str),
    )
    for number, column in enumerate(reference.continuous):
        obs[column] = 0.0 if average is None else float(average[number])
    if size:
        obs[size] = np.asarray(counts.sum(axis=1)).ravel()
    return obs


def _adata(reference: ScviModel, counts: sp.csr_matrix, obs: Any) -> Any:
    """The query as scvi-tools takes it."""
    import anndata
    import pandas as pd

    matrix = counts.astype(np.float32)
    layer = reference.registry.get("setup_args", {}).get("layer")
    return anndata.AnnData(
        matrix,
        obs=obs,
        var=pd.DataFrame(index=np.asarray(reference.genes, dtype=object)),
        layers={layer: matrix} if layer else None,
    )


def _batch_size(n_cells: int) -> int:
    """Cells a step, so that none is left alone in the last: batch normalisation needs two."""
    return next(size for size in range(BATCH_SIZE, 1, -1) if n_cells % size != 1)


def load_scvi(seed: int) -> Any:
    """scvi-tools, quiet and seeded. Raises CellscribeError where it is not installed."""
    try:
        import scvi
        import torch
    except ImportError as error:
        raise CellscribeError(
            f"fine-tuning needs scvi-tools, which cannot be loaded ({error})",
            "Run the step in the image of training (--container_cpu), or leave --surgery out.",
        ) from None
    # probabilities of genes that a cell lacks shrink below what a processor handles at full speed
    torch.set_flush_denormal(True)
    scvi.settings.verbosity = 30
    scvi.settings.seed = seed
    return scvi


def _unlabelled_plan(scvi: Any) -> Any:
    """SCANVI's training on cells without labels: scvi-tools 1.5 takes those that have both categorical and continuous
    covariates for labelled ones, and fails.
    """

    class Unlabelled(scvi.train.SemiSupervisedTrainingPlan):
        @staticmethod
        def _split_semisupervised_batch(batch: Any) -> tuple[Any, None]:
            return batch, None

    return Unlabelled


def from_scvi(model: Any, kind: str) -> ScviModel:
    """A model of scvi-tools in memory as arrays and plain values."""
    weights = {
        name: tensor.detach().cpu().numpy().copy() for name, tensor in model.module.state_dict().items()
    }
    genes: Sequence[str] = [str(gene) for gene in model.adata.var_names]
    return ScviModel(kind, weights, model.adata_manager.registry, model.init_params_, genes)


def write_scvi(model: ScviModel, folder: Path) -> None:
    """Write the model as scvi-tools saves it, for scvi-tools to load."""
    import torch

    registry = dict(model.registry) | {"setup_method_name": "setup_anndata", "model_name": model.kind}
    fields = {
        name: dict(field) | {"state_registry": _arrays(field.get("state_registry", {}))}
        for name, field in registry["field_registries"].items()
    }
    torch.save(
        {
            "model_state_dict": {
                name: torch.from_numpy(np.array(array)) for name, array in model.weights.items()
            },
            "var_names": np.asarray(model.genes, dtype=object),
            "attr_dict": {
                "is_trained_": True,
                "init_params_": dict(model.init_params),
                "registry_": registry | {"field_registries": fields},
            },
        },
        folder / "model.pt",
    )


def _arrays(state: Any) -> dict[str, Any]:
    """A field's state with the lists of JSON as the arrays that scvi-tools works on.

    Categories of a user's column become text, as a query's new one is; those that scvi-tools made up stay numbers.
    """
    result = dict(state)
    if str(result.get("original_key", "")).startswith("_scvi_"):
        return result | {"categorical_mapping": np.asarray(result["categorical_mapping"])}
    for name in ("categorical_mapping", "columns", "column_names"):
        if name in result:
            result[name] = np.array([str(value) for value in result[name]], dtype=object)
    if "mappings" in result:
        result["mappings"] = {
            column: np.array([str(value) for value in names], dtype=object)
            for column, names in result["mappings"].items()
        }
    return result
