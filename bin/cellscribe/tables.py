"""Tables of strangers as an h5ad can hold them."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pandas as pd


def writable(table: pd.DataFrame, warnings: list[str]) -> pd.DataFrame:
    """A table of a stranger as an h5ad can hold it: by other names, and without columns of unknown kinds."""
    unknown = [place for place, kind in enumerate(table.dtypes) if not _can_be_written(kind)]
    if unknown:
        listed = ", ".join(str(table.columns[place]) for place in unknown)
        warnings.append(f"Columns that are neither text nor numbers were left out: {listed}.")
        table = table.iloc[:, [place for place in range(table.shape[1]) if place not in unknown]]
    return table.set_axis(_safe_names(table.columns), axis=1)


def _can_be_written(kind: Any) -> bool:
    if isinstance(kind, np.dtype):
        return kind.kind in "biufOSU"
    return isinstance(kind, pd.CategoricalDtype) or kind.kind in "biufO"


def _safe_names(columns: pd.Index) -> list[str]:
    """HDF5 takes '/' for a folder, '.' for this one, and knows no NUL; anndata keeps '_index' for itself."""
    from anndata.utils import make_index_unique

    names = ["input_index" if name == "_index" else re.sub("[/\0]", "_", str(name)) for name in columns]
    names = [name if name.strip(".") else f"column{name.replace('.', '_')}" for name in names]
    index = pd.Index(names, dtype=object)
    return [str(name) for name in (index if index.is_unique else make_index_unique(index))]
