"""The tables and embeddings of an .h5ad of any age: obs, var, raw's var and obsm."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from cellscribe.hdf5 import check_table, check_whole, whole

if TYPE_CHECKING:
    import h5py


# An embedding, not a second matrix.
MAX_OBSM_COLUMNS = 50
# Counts of antibodies, which are held in memory: 200 MB.
MOST_OF_FEATURES = 50_000_000


def read_table(node: Any, file: h5py.File) -> pd.DataFrame:
    """obs or var, also of files from before anndata 0.7 (one structured array, categories in uns)."""
    if not hasattr(node, "dtype"):
        check_table(node)
        read = _read_elem(node)
        if not isinstance(read, pd.DataFrame):
            raise TypeError(f"{node.name} is a {type(read).__name__}, not a table")
        frame = read
    else:
        records = whole(node)
        frame = pd.DataFrame({name: _decoded(records[name]) for name in records.dtype.names or ()})
        frame = frame.set_index(next(name for name in ("index", "_index", frame.columns[0]) if name in frame))
        for name in frame.columns:
            categories = file.get(f"uns/{name}_categories")
            if categories is not None and frame[name].dtype.kind in "iu":
                check_whole(categories)
                values = _decoded(categories[:])
                frame[name] = pd.Categorical.from_codes(frame[name].to_numpy(), pd.Index(values))
    frame.index = pd.Index([str(name) for name in frame.index], dtype=object)
    frame.columns = [str(name) for name in frame.columns]
    return frame


def _read_elem(node: Any) -> Any:
    from anndata.io import read_elem

    try:
        return read_elem(node)
    except Exception as error:
        # Which of the columns it was, anndata says in a note.
        said = " ".join(" ".join([str(error), *getattr(error, "__notes__", [])]).split())
        raise ValueError(f"{node.name}: {said}") from error


def _decoded(values: np.ndarray) -> np.ndarray:
    if values.dtype.kind not in "SO":
        return values
    return np.array([v.decode() if isinstance(v, bytes) else v for v in values], dtype=object)


def read_raw_var(file: h5py.File, var: pd.DataFrame) -> pd.DataFrame:
    """raw's own genes, with the columns of `var` that raw lacks where `var` names every one of them."""
    raw = read_table(file["raw/var"] if "raw/var" in file else file["raw.var"], file)
    if raw.index.is_unique and var.index.is_unique and raw.index.isin(var.index).all():
        for name in var.columns.difference(raw.columns, sort=False):
            raw[name] = var.loc[raw.index, name].to_numpy()
    return raw


def read_feature_names(file: h5py.File) -> dict[str, np.ndarray]:
    """What the columns of some arrays of obsm count (antibodies, guides), as CONVERT writes it: text, (n_columns,)."""
    import h5py

    nodes = file.get("uns/feature_names")
    if not isinstance(nodes, h5py.Group):
        return {}
    return {
        name: _decoded(whole(node))
        for name, node in nodes.items()
        if isinstance(node, h5py.Dataset) and node.ndim == 1 and node.dtype.kind in "SO"
    }


def read_embeddings(
    file: h5py.File, n_obs: int, feature_names: Mapping[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """Two-dimensional numeric arrays of obsm: small ones (X_umap, X_pca, ...), and counts of named features."""
    import h5py

    nodes = file.get("obsm")
    # Before 0.7, obsm was one structured array too; no embedding is worth reading that.
    if not isinstance(nodes, h5py.Group):
        return {}
    return {
        name: node[:]
        for name, node in nodes.items()
        if isinstance(node, h5py.Dataset)
        and node.ndim == 2
        and node.dtype.kind in "fiu"
        and node.shape[0] == n_obs
        and (
            node.shape[1] <= MAX_OBSM_COLUMNS
            or (node.shape[1] == len(feature_names.get(name, ())) and node.size <= MOST_OF_FEATURES)
        )
    }
