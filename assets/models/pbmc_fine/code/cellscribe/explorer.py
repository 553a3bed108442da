"""What CELLxGENE Explorer does not show of a file."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

# Of cellxgene 1.3.0: `cellxgene launch --max-category-items`, and MAX_LAYOUTS of its server.
MOST_VALUES = 1000
MOST_EMBEDDINGS = 30


def explorer_warnings(obs: pd.DataFrame, obsm_keys: Iterable[str]) -> list[str]:
    """Sentences on the columns that have more values than Explorer shows, and on embeddings that it does not list.

    obs: whole. obsm_keys: in the order of the file, which is that of their names; Explorer lists those that start with
    `X_`. It takes text and booleans for categories too, and counts a category that no cell has.
    """
    warnings = []
    if wide := {name: n for name, n in value_counts(obs).items() if n > MOST_VALUES}:
        names = ", ".join(f"'{name}' ({n:,})" for name, n in wide.items())
        these = "this column has" if len(wide) == 1 else "these columns have"
        warnings.append(
            f"CELLxGENE Explorer shows the {MOST_VALUES:,} values with most cells of a column and puts all others into "
            f"one; {these} more: {names}. Start it with --max-category-items {max(wide.values())} to see all, or take "
            "out columns that name cells."
        )
    hidden = sorted(key for key in obsm_keys if key.startswith("X_"))[MOST_EMBEDDINGS:]
    if hidden:
        warnings.append(
            f"CELLxGENE Explorer lists the first {MOST_EMBEDDINGS} embeddings of a file, by name, and not these: "
            f"{', '.join(key.removeprefix('X_') for key in hidden)}. Start it with --embedding NAME for each that you "
            "want, or take others out of the input."
        )
    return warnings


def value_counts(obs: pd.DataFrame) -> dict[str, int]:
    """How many categories Explorer sees in each column that it takes for a category."""
    import pandas as pd

    counts = {}
    for name in obs.columns:
        column = obs[name]
        if isinstance(column.dtype, pd.CategoricalDtype):
            counts[str(name)] = len(column.cat.categories)
        elif not pd.api.types.is_numeric_dtype(column.dtype):
            counts[str(name)] = int(column.nunique())
    return counts
