"""Whether the cells of an .h5ad are of several samples, and where they were parted already."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

# More than a column of samples has; what is beyond is one of barcodes or numbers.
MOST_SAMPLES = 2_000
# Where a part says what it is a part of.
NOTE = "cellscribe_split"
# What people call the column of samples, the surest first: a library may hold the cells of several donors.
USUAL_NAMES = (
    *("sample", "sample_id", "sample_name", "library", "library_id", "orig.ident", "batch"),
    *("donor", "donor_id", "patient", "patient_id", "subject", "individual"),
)
# Fewer cells than these are no sample but a label of some.
FEWEST_CELLS = 50


def split_note(path: Path) -> str:
    """What a part says of the file that it was split from; "" of any other .h5ad."""
    import h5py

    with h5py.File(path, "r") as file:
        note = file.get(f"uns/{NOTE}")
        return str(note.asstr()[()]) if isinstance(note, h5py.Dataset) and note.shape == () else ""


def looks_like_several(obs: pd.DataFrame) -> str:
    """What to say of cells that seem to be of several samples, by a column that is called so; "" of others."""
    known = {str(name).lower(): name for name in obs.columns}
    for name in USUAL_NAMES:
        column = obs.get(known.get(name))
        if column is None or isinstance(column, pd.DataFrame):
            continue
        sizes = column.value_counts()
        if (sizes >= FEWEST_CELLS).sum() < 2 or len(sizes) > MOST_SAMPLES:
            continue
        return (
            f"By the obs column '{known[name]}' these are cells of {len(sizes):,} samples. They were taken for one: "
            "bounds of quality, doublets and what is novel are those of the mixture. To have each judged by itself: "
            f"--sample_key {known[name]}"
        )
    return ""
