"""Whether the cells of a matrix are of several samples, and where they were split already."""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from cellscribe.genes import as_text
from cellscribe.io import without_nul
from cellscribe.sample_names import BARCODE_SUFFIX
from cellscribe.words import some

# More than a column of samples has; what is beyond is one of barcodes or numbers.
MOST_SAMPLES = 2_000
# What files have in the place of a sample's name, in any case.
NO_SAMPLE = frozenset(("", "nan", "none", "na", "n/a", "null", "<na>"))
# Where a part says, as JSON, what it is a part of.
KEY = "cellscribe_split"
# What people call the column of samples, and that of donors, of whom one sample may hold several.
SAMPLES = ("sample", "sample_id", "sample_name", "library", "library_id", "orig.ident", "batch")
DONORS = ("donor", "donor_id", "patient", "patient_id", "subject", "individual")
# Fewer cells than these are no sample but a label of some.
FEWEST_CELLS = 50
# A cell's barcode with what programs that join libraries write around it: AAACCTGAGAAACCAT-2, S1_AAACCTGAGAAACCAT-1.
BARCODE = re.compile(r"(.*?)[ACGTN]{12,}(.*)", re.DOTALL)
# What `cellranger aggr` numbers libraries by.
OF_AGGR = re.compile(r"…-\d+")
# Of so many names it is told whether all are alike, so that a million of one library cost nothing.
FIRST_NAMES = 1_000
TAKEN_FOR_ONE = "taken for one: bounds of quality, doublets and what is novel are those of the mixture. "


@dataclass(frozen=True)
class Origin:
    """What a part tells of the file that it was split from, in sentences for the sample's page."""

    notes: list[str]
    warnings: list[str]
    named_raw: bool = False
    """Whether the file is called as Cell Ranger's raw matrix."""
    counts_from: str = ""
    """Where the file has its counts."""
    recovered_from: str = ""
    """What stood there in place of counts, as `AnyCounts` has it."""

    def written(self) -> str:
        """As text for uns."""
        return json.dumps(asdict(self))


def sample_values(column: pd.Series) -> np.ndarray:
    """The sample of each cell as text, (n_obs,), "" where the column names none."""
    text = without_nul(as_text(column))
    return np.where([value.lower() in NO_SAMPLE for value in text], "", text)


def origin_of(path: Path) -> Origin | None:
    """What SPLIT wrote into a part; None of any other .h5ad."""
    import h5py

    with h5py.File(path, "r") as file:
        said = file.get(f"uns/{KEY}")
        try:
            told = json.loads(said.asstr()[()]) if isinstance(said, h5py.Dataset) else None
            if told is None:
                return None
            notes, warnings = ([*map(str, told[name])] for name in ("notes", "warnings"))
            where, recovered = (str(told.get(name, "")) for name in ("counts_from", "recovered_from"))
            return Origin(notes, warnings, told.get("named_raw") is True, where, recovered)
        except (TypeError, ValueError, KeyError, AttributeError):
            # Not ours, whatever it is.
            return None


def looks_like_several(obs: pd.DataFrame, *, aggregated: bool = False) -> str:
    """What to say of cells that seem to be of several samples, by a column that is called so or by their barcodes; ""
    of others.

    aggregated: whether a table of `cellranger aggr` lies beside the matrix.
    """
    known = {str(name).lower(): name for name in obs.columns}
    for name in (*SAMPLES, *DONORS):
        column = obs.get(known.get(name))
        if column is None or isinstance(column, pd.DataFrame):
            continue
        values, sizes = np.unique(sample_values(column).astype(str), return_counts=True)
        sizes = sizes[values != ""]
        if (sizes >= FEWEST_CELLS).sum() < 2 or len(sizes) > MOST_SAMPLES:
            continue
        are, whether = "samples", "To have"
        if name in DONORS:
            are, whether = "donors", "Unless these were pooled in one library, have"
        return (
            f"By the obs column '{known[name]}' these are cells of {len(sizes):,} {are}, which were {TAKEN_FOR_ONE}"
            f"{whether} each judged by itself: nextflow run . --sample_key {known[name]}"
        )
    libraries = _libraries(obs.index, 1 if aggregated else FEWEST_CELLS)
    if len(libraries) < 2:
        return ""
    shown = some(libraries, 3)
    if all(OF_AGGR.fullmatch(name) for name in libraries):
        return (
            f"By the ends of their barcodes ({shown}) these are cells of {len(libraries):,} libraries, as "
            f"`cellranger aggr` joins them, which were {TAKEN_FOR_ONE}"
            f"To have each judged by itself: nextflow run . --sample_key {BARCODE_SUFFIX}"
        )
    return (
        f"The cells' names differ around their barcodes ({shown}). If these are {len(libraries):,} samples, they were "
        f"{TAKEN_FOR_ONE}Then give an .h5ad with a column that names each cell's sample, and --sample_key."
    )


def _libraries(names: pd.Index, fewest: int) -> list[str]:
    """What the cells' names have around their barcodes (`…-1`), where it parts them into libraries; else [].

    fewest: the number of cells that a library has.
    """
    few = names[np.unique(np.linspace(0, len(names) - 1, min(len(names), FIRST_NAMES)).astype(int))]
    if len(set(_around(few))) < 2:
        return []
    values, sizes = np.unique(np.array(_around(names), dtype=str), return_counts=True)
    sizes = np.where(values == "", 0, sizes)
    # Where barcodes are of two parts with something between, nearly every cell has an end of its own.
    if len(values) > MOST_SAMPLES or sizes[sizes >= fewest].sum() < 0.9 * len(names):
        return []
    return values[sizes >= fewest].tolist()


def barcode_suffixes(names: pd.Index) -> np.ndarray:
    """The library of each cell as `cellranger aggr` numbers it behind the barcode, text (n_obs,), "" where none is."""
    return np.array(
        [around[2:] if OF_AGGR.fullmatch(around) else "" for around in _around(names)], dtype=object
    )


def _around(names: pd.Index) -> list[str]:
    """What each name has around its barcode, which is written as `…`; "" where it has none."""
    found = (BARCODE.fullmatch(str(name)) for name in names)
    return [f"{match[1]}…{match[2]}" if match else "" for match in found]
