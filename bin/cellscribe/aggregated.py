"""The table of what `cellranger aggr` joined."""

from __future__ import annotations

import csv
import io
from pathlib import Path

TABLES = ("aggregation.csv", "aggregation_csv.csv")
# What it calls a sample, of version 6 on and before.
NAMES = ("sample_id", "library_id")
LARGEST_TABLE = 2**20


def aggregation_table(matrix: Path) -> Path | None:
    """The table beside a matrix that `cellranger aggr` wrote, or up to two folders above; None without one."""
    places = (folder / name for folder in list(matrix.parents)[:3] for name in TABLES)
    return next((place for place in places if place.is_file()), None)


def aggregated_samples(table: Path) -> list[str]:
    """The names in a table of `cellranger aggr`, whose i-th is that of the cells whose barcodes end in -i; [] where it
    has none, or one twice.
    """
    with table.open(encoding="utf-8-sig", errors="replace", newline="") as file:
        text = file.read(LARGEST_TABLE)
    try:
        rows = [[value.strip() for value in row] for row in csv.reader(io.StringIO(text))]
    except csv.Error:
        return []
    rows = [row for row in rows if any(row)]
    head = [name.lower() for name in rows[0]] if rows else []
    column = next((head.index(name) for name in NAMES if name in head), None)
    if column is None:
        return []
    names = [row[column] if column < len(row) else "" for row in rows[1:]]
    return names if all(names) and len(set(names)) == len(names) else []
