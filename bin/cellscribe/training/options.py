"""What `train.py` is asked for, and every other command that makes a model."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from cellscribe.model.model import LIKELIHOOD, LOGISTIC, NEIGHBOURS, TREES

KINDS: dict[str, tuple[str, ...]] = {
    "scvi": (NEIGHBOURS, TREES),
    "logistic": (LOGISTIC,),
    "consensus": (NEIGHBOURS, TREES, LOGISTIC, LIKELIHOOD),
}


@dataclass(frozen=True, kw_only=True)
class ModelOptions:
    """What every command that makes a model is asked for."""

    version: str = "1.0"
    organism: str = "auto"
    cl_map: Path | None = None
    description: str = ""
    licence: str = ""
    citation: str = ""
    # Cell types of the tissue that the reference does not have, separated by commas.
    lacks: str = ""
    pipeline_version: str = "unknown"


@dataclass(frozen=True)
class TrainOptions(ModelOptions):
    """Options of `train.py`; see its --help."""

    reference: tuple[Path, ...]
    label_key: str
    output: Path
    name: str
    label_csv: tuple[Path, ...] = ()
    label_map: Path | None = None
    kind: str = "consensus"
    batch_key: str | None = None
    levels: tuple[str, ...] = ()
    counts_layer: str | None = None
    gene_column: str | None = None
    n_top_genes: int = 1500
    n_markers: int = 50
    n_latent: int = 30
    max_epochs: int | None = None
    encode_covariates: bool = False
    keep_counts: bool = True
    correct_labels: bool = True
    logistic_copies: int = 3
    encoder_copies: int = 1
    seed: int = 0
    use_gpu: bool = False
    cpus: int = 1
