"""A file with cells of several samples as one file for each: quality, doublets and novelty are a sample's own."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from itertools import batched
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from cellscribe.cli import log
from cellscribe.contract import free_name
from cellscribe.counts_file import new_counts_file
from cellscribe.errors import InputError
from cellscribe.h5ad_input import open_h5ad
from cellscribe.io import scratch_beside, write_json
from cellscribe.sample_names import clean_name
from cellscribe.schema import nearest
from cellscribe.several import KEY, MOST_SAMPLES, Origin, sample_values
from cellscribe.stored import StoredInput, blocks
from cellscribe.tables import writable

if TYPE_CHECKING:
    import anndata
    import scipy.sparse as sp

    from cellscribe.counts import Counts

# Files that are written to at once: some systems open no more than 256 for a program.
MOST_FILES = 100
# So many samples may have a cell or two each.
FEW_SAMPLES = 4
# Letters of a value that a sentence shows.
SHOWN = 100
# What cells without a value become a sample of.
UNNAMED = "unnamed"


@dataclass(frozen=True)
class Part:
    """One sample of a file: its name, its cells' value in the column, its file's name."""

    sample: str
    value: str
    file: str
    n_cells: int


def run_split(
    path: Path, sample: str, sample_key: str, output: Path, counts_layer: str | None = None
) -> list[Part]:
    """Write `<sample>_<value>.h5ad` for each value of an obs column beside `output`, which lists them (JSON).

    Cells stay in their order; counts go into X, obs, var and small embeddings come along. Raises InputError as CONVERT
    does, and for a column that is not there or is no column of samples.
    """
    counts = open_h5ad(path, counts_layer, scratch_beside(output))
    codes, values = sample_of_each(counts.obs, sample_key, path)
    sizes = np.bincount(codes, minlength=len(values))
    names = sample_names(sample, values)
    parts = [
        Part(name, value, f"{name}.h5ad", int(size))
        for name, value, size in zip(names, values, sizes, strict=True)
    ]
    counts.obs, counts.var = (writable(table, counts.warnings) for table in (counts.obs, counts.var))
    for some in batched(range(len(parts)), MOST_FILES):
        _write_parts(
            counts, codes, {number: parts[number] for number in some}, path, sample_key, output.parent
        )
    write_json([asdict(part) for part in parts], output)
    log(f"{sample}: {len(counts.obs):,} cells of {len(parts):,} samples by '{sample_key}'")
    return parts


def sample_of_each(obs: pd.DataFrame, sample_key: str, path: Path) -> tuple[np.ndarray, list[str]]:
    """Which sample each cell is of, (n_obs,), as a place among the values of the column, in the order seen; "" is that
    of cells whose value names none. Raises InputError for a column that is not there and for one with too many values.
    """
    if sample_key not in obs:
        listed = ", ".join(str(name) for name in obs.columns[:40]) or "none"
        raise InputError(
            f"there is no obs column '{sample_key}'; there are: {listed}"
            f"{nearest(sample_key, map(str, obs.columns))}",
            "Give the column that tells the samples apart as sample_key.",
            file=path,
        )
    codes, values = pd.factorize(sample_values(obs[sample_key]))
    if len(obs) and not any(values):
        raise InputError(
            f"no cell has a value in the obs column '{sample_key}'",
            "Give the column that tells the samples apart as sample_key.",
            file=path,
        )
    if len(values) > min(MOST_SAMPLES, max(FEW_SAMPLES, len(obs) // 2)):
        raise InputError(
            f"the obs column '{sample_key}' has {len(values):,} values for {len(obs):,} cells",
            "Give a column with one value for each sample as sample_key.",
            file=path,
        )
    return codes, [str(value) for value in values]


def sample_names(sample: str, values: Iterable[str]) -> list[str]:
    """`<sample>_<value>` of letters that files may have, each another, on disks that do not tell capitals apart too."""
    # Room for a number behind it, within the 100 letters of a sample's name.
    wanted = {value: f"{sample}_{clean_name(value or UNNAMED)}"[:95] for value in values}
    names: dict[str, str] = {}
    taken: set[str] = set()
    # Those first that a name says to the letter: no other value's number makes one look like them.
    for value, name in wanted.items():
        if name == f"{sample}_{value}" and name.casefold() not in taken:
            taken.add(name.casefold())
            names[value] = name
    for value, name in wanted.items():
        if value not in names:
            free = free_name(name.casefold(), taken)
            taken.add(free)
            names[value] = name + free.removeprefix(name.casefold())
    return [names[value] for value in wanted]


def _write_parts(
    counts: Counts[sp.csr_matrix | StoredInput],
    codes: np.ndarray,
    parts: dict[int, Part],
    path: Path,
    sample_key: str,
    folder: Path,
) -> None:
    """One pass over the counts, each block's rows to the files of their samples."""
    with ExitStack() as files:
        writers = {
            number: files.enter_context(
                new_counts_file(
                    _tables(counts, np.flatnonzero(codes == number), part, path, sample_key),
                    folder / part.file,
                    ours=False,
                )
            )[1]
            for number, part in parts.items()
        }
        for rows, block in blocks(counts.matrix):
            here = codes[rows]
            for number in np.unique(here):
                if number in writers:
                    writers[number].append(block[here == number])


def _tables(
    counts: Counts[sp.csr_matrix | StoredInput],
    rows: np.ndarray,
    part: Part,
    path: Path,
    sample_key: str,
) -> anndata.AnnData:
    import anndata

    obs = counts.obs.iloc[rows].copy()
    for name in obs.select_dtypes("category"):
        obs[name] = obs[name].cat.remove_unused_categories()
    value = " ".join(part.value.split())[:SHOWN]
    whose = f"whose '{sample_key}' is '{value}'" if value else f"without a value in '{sample_key}'"
    note = f"These are the {len(rows):,} of the {len(counts.obs):,} cells of {path.name} {whose}."
    with warnings.catch_warnings():
        # Names that occur twice are CONVERT's to mend, as in a file that is not split.
        warnings.simplefilter("ignore", UserWarning)
        return anndata.AnnData(
            obs=obs,
            var=counts.var,
            obsm={key: values[rows] for key, values in counts.obsm.items()},
            uns={KEY: Origin([note, *counts.notes], counts.warnings).written()}
            | ({"feature_names": counts.feature_names} if counts.feature_names else {}),
        )
