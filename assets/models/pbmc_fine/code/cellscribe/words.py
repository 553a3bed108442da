"""Counts of things and lists of names as sentences have them; long lists are cut short."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

NAMES_SHOWN = 8


def plural(n: int, thing: str) -> str:
    """`n` of a thing: 1 cell, 2 cells, 2 batches."""
    return f"{n:,} {thing if n == 1 else thing + ('es' if thing.endswith('ch') else 's')}"


def first_names(names: Sequence[str]) -> str:
    """The first names as text, and how many more there are."""
    more = len(names) - NAMES_SHOWN
    listed = ", ".join(names[:NAMES_SHOWN])
    return f"{listed} and {more:,} more" if more > 0 else listed


def some(names: Sequence[Any] | np.ndarray | pd.Index, most: int = 5, *, quoted: bool = False) -> str:
    """The first names as text, with `...` in place of all others, where it matters little how many these are."""
    listed = [f"'{name}'" if quoted else str(name) for name in names[:most]]
    return ", ".join(listed) + (", ..." if len(names) > most else "")
