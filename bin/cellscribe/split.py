"""A file with cells of several samples as one file for each: quality, doublets and novelty are a sample's own."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from itertools import batched
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from cellscribe.aggregated import aggregated_samples, aggregation_table
from cellscribe.cli import log
from cellscribe.contract import free_name
from cellscribe.counts_file import new_counts_file
from cellscribe.errors import InputError
from cellscribe.h5ad_input import open_h5ad
from cellscribe.io import scratch_beside, write_json
from cellscribe.sample_names import BARCODE_SUFFIX, clean_name
from cellscribe.schema import nearest
from cellscribe.several import KEY, MOST_SAMPLES, Origin, barcode_suffixes, sample_values
from cellscribe.stored import StoredInput, blocks
from cellscribe.tables import writable
from cellscribe.tenx import AnyCounts, read_tenx
from cellscribe.tenx_places import find_input

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
    path: Path,
    sample: str,
    sample_key: str,
    output: Path,
    counts_layer: str | None = None,
    genome: str | None = None,
) -> list[Part]:
    """Write `<sample>_<value>.h5ad` for each value of an obs column beside `output`, which lists them (JSON).

    sample_key: the column; where there is none of that name, BARCODE_SUFFIX takes the libraries that `cellranger aggr`
    joined, by the ends of barcodes, under the names in its table, where that lies beside the matrix. genome: which of
    several matrices in an .h5 to read. Cells stay in their order; counts go into X, obs, var and small embeddings come
    along. Raises InputError as CONVERT does, and for a column that is not there or is no column of samples.
    """
    counts, table = _read(path, counts_layer, genome, scratch_beside(output))
    by_suffix = sample_key == BARCODE_SUFFIX and sample_key not in counts.obs
    if by_suffix:
        codes, values = library_of_each(counts.obs.index, path)
        whose = [
            f"whose barcodes end in -{value}" if value else "whose barcodes end in no number"
            for value in values
        ]
        if table:
            values, told = names_of_libraries(values, table)
            counts.warnings += told
            if not told:
                whose = [
                    f"{one}, '{_shown(value)}' of {table.name}"
                    for one, value in zip(whose, values, strict=True)
                ]
    else:
        codes, values = sample_of_each(counts.obs, sample_key, path)
        whose = [
            f"whose '{sample_key}' is '{_shown(value)}'" if value else f"without a value in '{sample_key}'"
            for value in values
        ]
    sizes = np.bincount(codes, minlength=len(values))
    names = sample_names(sample, values)
    parts = [
        Part(name, value, f"{name}.h5ad", int(size))
        for name, value, size in zip(names, values, sizes, strict=True)
    ]
    counts.obs, counts.var = (writable(table, counts.warnings) for table in (counts.obs, counts.var))
    for some in batched(range(len(parts)), MOST_FILES):
        _write_parts(
            counts, codes, {number: (parts[number], whose[number]) for number in some}, path, output.parent
        )
    write_json([asdict(part) for part in parts], output)
    by = "the ends of their barcodes" if by_suffix else f"'{sample_key}'"
    log(f"{sample}: {len(counts.obs):,} cells of {len(parts):,} samples by {by}")
    return parts


def _read(
    path: Path, counts_layer: str | None, genome: str | None, scratch: Path
) -> tuple[AnyCounts, Path | None]:
    """The counts, and the table of `cellranger aggr` beside them, None where there is none."""
    if path.suffix.lower() == ".h5ad":
        return open_h5ad(path, counts_layer, scratch), None
    found = find_input(path)
    if found.kind == "h5ad":
        return open_h5ad(found.paths[0], counts_layer, scratch), None
    counts = read_tenx(found, genome, scratch)
    # As CONVERT reads them of an .h5ad.
    counts.var["feature_types"] = counts.feature_types
    counts.var["genome"] = counts.genomes
    return counts, aggregation_table(found.paths[0])


def library_of_each(names: pd.Index, path: Path) -> tuple[np.ndarray, list[str]]:
    """Which library each cell is of by its barcode, (n_obs,), as a place among the numbers behind the barcodes, in
    the order of these; "" is that of cells without one. Raises InputError where no barcode has one, or nearly all do.
    """
    suffixes = barcode_suffixes(names)
    values = sorted(set(suffixes), key=lambda value: (value == "", len(value), value))
    if not any(values):
        raise InputError(
            f"no cell's barcode ends in a number, as `cellranger aggr` writes them (AAACCTGAGAAACCAT-2); they are "
            f"called as {', '.join(map(str, names[:2])) or 'nothing'}",
            "Leave out sample_key, or give an .h5ad with a column that tells the samples apart.",
            file=path,
        )
    _check_number(len(values), len(names), "the barcodes end in {} numbers", path)
    place = {value: code for code, value in enumerate(values)}
    return np.array([place[value] for value in suffixes]), values


def names_of_libraries(values: Sequence[str], table: Path) -> tuple[list[str], list[str]]:
    """The libraries' names in the table of `cellranger aggr`, by the order of its rows, and a warning where it does not
    fit these numbers, which then stay the names.
    """
    names = aggregated_samples(table)
    if all(not value or 0 < int(value) <= len(names) for value in values):
        return [names[int(value) - 1] if value else "" for value in values], []
    last = max((value for value in values if value), key=int)
    return list(values), [
        f"{table.name} does not name the samples that barcodes number up to -{last} (it has {len(names):,} names, each "
        "another, in a column sample_id or library_id): they are named by these numbers."
    ]


def _shown(value: str) -> str:
    return " ".join(value.split())[:SHOWN]


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
    _check_number(len(values), len(obs), f"the obs column '{sample_key}' has {{}} values", path)
    return codes, [str(value) for value in values]


def _check_number(n_values: int, n_cells: int, said: str, path: Path) -> None:
    """Raise InputError for more values than samples can have, nearly one a cell. said: with {} for their number."""
    if n_values > min(MOST_SAMPLES, max(FEW_SAMPLES, n_cells // 2)):
        raise InputError(
            f"{said.format(f'{n_values:,}')} for {n_cells:,} cells",
            "Give a column with one value for each sample as sample_key.",
            file=path,
        )


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
    parts: dict[int, tuple[Part, str]],
    path: Path,
    folder: Path,
) -> None:
    """One pass over the counts, each block's rows to the files of their samples. parts: each with whose cells it has,
    in words.
    """
    with ExitStack() as files:
        writers = {
            number: files.enter_context(
                new_counts_file(
                    _tables(counts, np.flatnonzero(codes == number), path, whose),
                    folder / part.file,
                    ours=False,
                )
            )[1]
            for number, (part, whose) in parts.items()
        }
        for rows, block in blocks(counts.matrix):
            here = codes[rows]
            for number in np.unique(here):
                if number in writers:
                    writers[number].append(block[here == number])


def _tables(
    counts: Counts[sp.csr_matrix | StoredInput],
    rows: np.ndarray,
    path: Path,
    whose: str,
) -> anndata.AnnData:
    import anndata

    obs = counts.obs.iloc[rows].copy()
    for name in obs.select_dtypes("category"):
        obs[name] = obs[name].cat.remove_unused_categories()
    note = f"These are the {len(rows):,} of the {len(counts.obs):,} cells of {path.name} {whose}."
    with warnings.catch_warnings():
        # Names that occur twice are CONVERT's to mend, as in a file that is not split.
        warnings.simplefilter("ignore", UserWarning)
        return anndata.AnnData(
            obs=obs,
            var=counts.var,
            obsm={key: values[rows] for key, values in counts.obsm.items()},
            uns={
                KEY: Origin(
                    [note, *counts.notes],
                    counts.warnings,
                    counts.named_raw,
                    counts.counts_from,
                    counts.recovered_from,
                ).written()
            }
            | ({"feature_names": counts.feature_names} if counts.feature_names else {}),
        )
