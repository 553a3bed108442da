"""What `train.py` is asked for."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from cellscribe.model.model import LIKELIHOOD, LOGISTIC, NEIGHBOURS, TREES

KINDS: dict[str, tuple[str, ...]] = {
    "scvi": (NEIGHBOURS, TREES),
    "logistic": (LOGISTIC,),
    "consensus": (NEIGHBOURS, TREES, LOGISTIC, LIKELIHOOD),
}


@dataclass(frozen=True)
class TrainOptions:
    """Options of `train.py`; see its --help."""

    reference: tuple[Path, ...]
    label_key: str
    output: Path
    name: str
    label_csv: tuple[Path, ...] = ()
    version: str = "1.0"
    kind: str = "consensus"
    batch_key: str | None = None
    levels: tuple[str, ...] = ()
    organism: str = "auto"
    counts_layer: str | None = None
    gene_column: str | None = None
    cl_map: Path | None = None
    description: str = ""
    licence: str = ""
    citation: str = ""
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
    pipeline_version: str = "unknown"
