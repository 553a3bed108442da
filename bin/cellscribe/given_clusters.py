"""Clusters that the user has already, in a column of obs, in the place of those that ANNOTATE finds."""

from __future__ import annotations

import numpy as np
import pandas as pd

from cellscribe.clusters import Clusters
from cellscribe.contract import NO_CLUSTER, free_name, kept_column
from cellscribe.genes import as_text
from cellscribe.schema import nearest
from cellscribe.several import NO_SAMPLE

# More clusters than these no page can show and nobody looks at; more numbers than these are a measurement.
MOST_CLUSTERS = 2_000
MOST_NUMBERS = 500
# What a cluster is called that the user calls as cells without one are.
GIVEN = f"{NO_CLUSTER} (given)"
FOUND_ANEW = "Clusters were found anew and not taken from the column '{}' of obs: {}"


def read_clusters(obs: pd.DataFrame, key: str) -> tuple[Clusters | None, list[str]]:
    """The clusters of a column of obs, None where there is none of that name or what it holds are no clusters.

    The second value says in sentences what a reader must know. Clusters are in the order of numbers, of a categorical's
    categories, else of the alphabet. A cell without a value is in none. A cluster that is called `no cluster`
    gets another name, as that stands for cells that are in none.
    """
    # As CONVERT writes the names of columns.
    column = kept_column(key if key in obs else key.replace("/", "_"), obs)
    if column not in obs:
        hint = nearest(key, [str(name) for name in obs.columns])
        return None, [FOUND_ANEW.format(key, f"there is no such column{hint or '.'}")]
    values = _numbers_as_such(obs[column])
    names, codes = _named(values)
    if problem := _no_clusters(values, codes, len(names)):
        return None, [FOUND_ANEW.format(key, problem)]
    names, warnings = _apart_from_none(names, key)
    return Clusters(codes, names, key), [*_without_cluster(codes, key), *warnings]


def _without_cluster(codes: np.ndarray, key: str) -> list[str]:
    """A sentence of how many cells are in no cluster; none where all are in one."""
    n_without = int((codes < 0).sum())
    if not n_without:
        return []
    has, keeps = ("has", "It keeps its") if n_without == 1 else ("have", "Each keeps its")
    return [
        f"{n_without:,} of {len(codes):,} cells {has} no cluster in the column '{key}' of obs. {keeps} own label as "
        "that of its cluster, and is in no verdict on clusters."
    ]


def _apart_from_none(names: list[str], key: str) -> tuple[list[str], list[str]]:
    """The names, that of a cluster called `no cluster` changed, and a sentence that says so; none where none is."""
    if NO_CLUSTER not in names:
        return names, []
    given = free_name(GIVEN, names)
    return [given if name == NO_CLUSTER else name for name in names], [
        f"A cluster in the column '{key}' of obs is called '{NO_CLUSTER}', which stands for cells that are in none: it "
        f"is called '{given}' here. If its cells are in no cluster, leave their values in the column empty."
    ]


def _numbers_as_such(column: pd.Series) -> pd.Series:
    """A categorical of numbers as a column of numbers; any other column as it is."""
    if isinstance(column.dtype, pd.CategoricalDtype) and _is_number(column.cat.categories.to_series()):
        return pd.to_numeric(pd.Series(np.asarray(column, dtype=object)))
    return column


def _named(column: pd.Series) -> tuple[list[str], np.ndarray]:
    """The names of the clusters that have cells, and each cell's position in them, -1 for none: int (n_cells,)."""
    text = as_text(column)
    missing = np.array([value.lower() in NO_SAMPLE for value in text], dtype=bool)
    given = list(dict.fromkeys(text[~missing].tolist()))
    if isinstance(column.dtype, pd.CategoricalDtype):
        order = {name: place for place, name in enumerate(as_text(column.cat.categories).tolist())}
        names = sorted(given, key=lambda name: order.get(name, len(order)))
    elif all(_is_whole(name) for name in given):
        names = sorted(given, key=int)
    else:
        names = sorted(given)
    position = {name: place for place, name in enumerate(names)}
    return names, np.array([position.get(value, -1) for value in text], dtype=np.int64)


def _no_clusters(column: pd.Series, codes: np.ndarray, n_clusters: int) -> str:
    """Why what a column holds are no clusters, as a sentence; "" where they are."""
    if not n_clusters:
        return "no cell has a value in it."
    n_cells = int((codes >= 0).sum())
    if _is_number(column):
        values = column.to_numpy(dtype=np.float64, na_value=np.nan)
        if (values[np.isfinite(values)] % 1 != 0).any() or np.isinf(values).any():
            return "it holds fractions, as a measurement does, and no clusters."
        if n_clusters > MOST_NUMBERS:
            return (
                f"it holds {n_clusters:,} different numbers, as a measurement does. If they are clusters, write them "
                "as text."
            )
    if n_clusters > max(n_cells / 2, 1):
        return f"it has {n_clusters:,} values for {n_cells:,} cells, so that hardly any two share a cluster."
    if n_clusters > MOST_CLUSTERS:
        return f"it has {n_clusters:,} values, and clusters are {MOST_CLUSTERS:,} at most."
    return ""


def _is_number(column: pd.Series) -> bool:
    return pd.api.types.is_numeric_dtype(column) and not pd.api.types.is_bool_dtype(column)


def _is_whole(name: str) -> bool:
    return name.removeprefix("-").isascii() and name.removeprefix("-").isdigit()
