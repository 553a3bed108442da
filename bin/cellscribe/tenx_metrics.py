"""Cell Ranger's metrics_summary.csv, of `count` and of `multi`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

LARGEST_METRICS = 2**20


def read_metrics(path: Path) -> dict[str, float | str]:
    """Cell Ranger's own metrics: numbers as numbers, percentages as fractions, anything else as text.

    One row of `count` gives its column names as keys; the long table of `multi` gives
    "Category / Library Type / Metric Name" and, where the metric is of a part, its name.
    """
    try:
        # What lies beside a matrix under that name may be anything, and nothing depends on it.
        if path.stat().st_size > LARGEST_METRICS:
            return {}
        table = pd.read_csv(path, dtype=str, keep_default_na=False)
    except Exception:
        return {}
    if {"Metric Name", "Metric Value"} <= set(table.columns):
        parts = [
            name
            for name in ("Category", "Library Type", "Metric Name", "Group Name")
            if name in table.columns
        ]
        keys = [" / ".join(str(row[part]) for part in parts if row[part]) for _, row in table.iterrows()]
        return {key: _number(str(value)) for key, value in zip(keys, table["Metric Value"], strict=True)}
    if len(table) != 1:
        return {}
    return {str(name): _number(str(table[name].iloc[0])) for name in table.columns}


def _number(text: str) -> float | str:
    plain = text.strip().replace(",", "")
    try:
        number = float(plain.removesuffix("%"))
    except ValueError:
        return text
    if not np.isfinite(number):
        return text
    if plain.endswith("%"):
        return round(number / 100, 10)
    return int(number) if number.is_integer() and "." not in plain else number
