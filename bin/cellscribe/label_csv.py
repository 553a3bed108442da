"""Labels of cells in a table of their own: the annotations that CELLxGENE Explorer saves, or one like it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from cellscribe.contract import MERGED_BY
from cellscribe.errors import InputError
from cellscribe.words import some

if TYPE_CHECKING:
    import pandas as pd

# Labels of tens of millions of cells.
LARGEST = 2 * 10**9
# Words that name no type of cell: docs/models.md lists them.
NO_LABEL = frozenset(
    (
        *("", "-", "?", "nan", "none", "na", "n/a", "null"),
        *("unlabelled", "unlabeled", "unassigned", "not assigned", "unknown", "unclassified", "undefined"),
        *("ambiguous", "other", "others", "low quality", "low-quality", "low_quality", "debris"),
        *("doublet", "doublets", "multiplet", "multiplets"),
    )
)


def is_labelled(labels: np.ndarray, no_label: str | None = None) -> np.ndarray:
    """Which labels say something: bool (n,), false for "", "unknown", "unassigned" and the like.

    no_label: one more word for none, as it is written.
    """
    return np.array(
        [label.strip().lower() not in NO_LABEL and label != no_label for label in labels], dtype=bool
    )


def read_label_csv(path: Path) -> pd.DataFrame:
    """Read a table of labels: text, indexed by the cells' names, one column a category.

    Lines that start with `#` above the header are comments; the first column names the cells, whatever it is called.
    Commas, semicolons and tabs part the columns; a gzipped table is read too. A `#` within a label is kept.
    Raises InputError for what is no such table, and for a cell that is named twice.
    """
    import gzip
    import io
    import zlib

    import pandas as pd

    try:
        with path.open("rb") as plain:
            packed = plain.read(2) == b"\x1f\x8b"
        with gzip.open(path) if packed else path.open("rb") as file:
            content = file.read(LARGEST + 1)
        if len(content) > LARGEST:
            raise ValueError(f"it holds more than {LARGEST:,} bytes")
        text = content.decode("utf-8-sig")
        lines = text.splitlines(keepends=True)
        comments = next((i for i, line in enumerate(lines) if not line.startswith("#")), len(lines))
        body = "".join(lines[comments:])
        if not body.strip():
            raise ValueError("it is empty: CELLxGENE Explorer writes it when the first category is made")
        header = next(line for line in body.splitlines() if line.strip())
        table = pd.read_csv(
            io.StringIO(body),
            sep=max(",;\t", key=header.count),
            index_col=0,
            dtype=str,
            keep_default_na=False,
        )
    except (ValueError, OSError, EOFError, IndexError, zlib.error) as error:
        raise InputError(
            f"this is no table of labels ({' '.join(str(error).split())})",
            "Give a CSV with the cells' names in its first column and a column for each category, as CELLxGENE "
            "Explorer saves them.",
            file=path,
        ) from error
    if not len(table.columns):
        raise InputError(
            f"there is one column only ('{table.index.name or ''}'): the first names the cells, the others label them",
            "Give a CSV with a column for each category.",
            file=path,
        )
    table.index = pd.Index([str(name).strip() for name in table.index], dtype=object)
    table.columns = [str(name).strip() for name in table.columns]
    if not table.columns.is_unique:
        raise InputError(
            f"several of its columns have one name: {some(table.columns[table.columns.duplicated()], quoted=True)}",
            "Give each category its own.",
            file=path,
        )
    if n := int(table.index.duplicated().sum()):
        raise InputError(
            f"{n:,} cells are named more than once: {some(table.index[table.index.duplicated()], quoted=True)}",
            "Leave one row for each cell.",
            file=path,
        )
    return table


def of_sample(table: pd.DataFrame, sample: str) -> pd.DataFrame:
    """The rows of one sample under its cells' own names, where cells are named as in a merged file (`sample:barcode`);
    else all rows.
    """
    prefix = f"{sample}{MERGED_BY}"
    own = table.index.str.startswith(prefix)
    return table[own].set_axis(table.index[own].str.removeprefix(prefix), axis=0) if own.any() else table


def check_cells(table: pd.DataFrame, path: Path, references: Mapping[str, pd.Index]) -> None:
    """Raise InputError unless each labelled cell is exactly one cell of the references.

    references: file name -> the names of its cells.
    """
    import pandas as pd

    cells = pd.Index(np.concatenate([names.to_numpy(dtype=object) for names in references.values()]))
    where = next(iter(references)) if len(references) == 1 else f"any of {', '.join(references)}"
    unknown = table.index[~table.index.isin(cells)]
    if len(unknown):
        raise InputError(
            f"{len(unknown):,} of its {len(table):,} cells are not in {where}: {some(unknown, quoted=True)} "
            f"(that has {some(cells, quoted=True)})",
            "Give the labels of these very cells: those of the .h5ad that was open in CELLxGENE Explorer.",
            file=path,
        )
    twice = table.index[table.index.isin(cells[cells.duplicated()])]
    if len(twice):
        several = len(references) > 1
        raise InputError(
            f"{len(twice):,} of its {len(table):,} cells are more than one cell of {', '.join(references)}: "
            f"{some(twice, quoted=True)}",
            "Give one table of labels for each reference, in the same order."
            if several
            else "Make the cells' names unique.",
            file=path,
        )


def with_labels(obs: pd.DataFrame, table: pd.DataFrame) -> pd.DataFrame:
    """obs with the table's columns, "" for cells that it does not name; of equal names the table's column counts.

    obs: (n_obs,) rows. table: as `read_label_csv` gives it; cells that obs has not are left out.
    """
    import pandas as pd

    found = table.reindex(obs.index.astype(str)).fillna("").set_axis(obs.index, axis=0)
    return pd.concat([obs.drop(columns=[c for c in obs.columns if c in table.columns]), found], axis=1)
