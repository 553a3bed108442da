"""The organism of a model of another program, which seldom says it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from cellscribe.errors import InputError
from cellscribe.genes import check_organism, read_organism


def organism_of(asked: str, genes: pd.DataFrame, names: Sequence[str] | np.ndarray, file: Path) -> str:
    """The organism that was asked for, else that of the model's genes.

    genes: `gene_id` and `symbol`, (n_genes,). names: the genes as the model has them. Raises InputError where they do
    not tell, or are of another organism.
    """
    organism, _ = check_organism(
        read_organism(asked), genes["gene_id"].to_numpy(), genes["symbol"].to_numpy()
    )
    if organism == "unknown":
        raise InputError(
            f"the organism cannot be told from the model's genes ({', '.join(names[:3])}, ...)",
            "Give --organism human or --organism mouse.",
            file=file,
        )
    return organism
