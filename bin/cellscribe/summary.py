"""The run at a glance: one row a sample in summary.tsv, one a label in composition.tsv, and the sections of the page.

Everything comes from the steps' JSON files (docs/architecture.md).
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from cellscribe.io import as_cell, atomic_path
from cellscribe.multiqc_page import sections
from cellscribe.run_samples import COLUMNS, Sample, read_samples


def run_summary(
    samples_file: Path,
    inputs: Path,
    output_folder: Path,
    failures: Path | None = None,
    *,
    merged: bool = False,
) -> list[Sample]:
    """Write summary.tsv, composition.tsv and the `*_mqc.json` files into `output_folder`; return what was summed up.

    samples_file: samples.json, as CHECK_INPUT writes it. inputs: the folder of `<sample>.convert.json`,
    `<sample>.qc.json`, `<sample>.annotation.json` and `<sample>.verdicts.json`, as far as they were made. failures: a
    table with a row for each task that failed. merged: whether MERGE was asked for, so that there is a page to lead to.
    Raises InputError for a file that is no JSON object and for a run of no samples.
    """
    samples = read_samples(samples_file, inputs, failures)
    write_summary(samples, output_folder / "summary.tsv")
    write_composition(samples, output_folder / "composition.tsv")
    for section in sections(samples, merged=merged):
        with atomic_path(output_folder / f"{section['id']}_mqc.json") as temporary:
            # Not sorted: the order of columns and colours is the order drawn.
            temporary.write_text(json.dumps(section, indent=1, allow_nan=False))
    return samples


def write_summary(samples: Iterable[Sample], target: Path) -> None:
    """Write one row a sample, with the columns `COLUMNS`, safe to open in a spreadsheet."""
    with atomic_path(target) as temporary, temporary.open("w", newline="") as handle:
        writer = csv.writer(handle, delimiter="\t", lineterminator="\n")
        writer.writerow(COLUMNS)
        writer.writerows([cell(column(sample)) for column in COLUMNS.values()] for sample in samples)


def write_composition(samples: Iterable[Sample], target: Path) -> None:
    """Write one row a sample and label: `sample`, `label`, `n_cells`, `share` of all of the sample's cells."""
    with atomic_path(target) as temporary, temporary.open("w", newline="") as handle:
        writer = csv.writer(handle, delimiter="\t", lineterminator="\n")
        writer.writerow(("sample", "label", "n_cells", "share"))
        for sample in samples:
            numbers = sample.get("annotation", "composition") or {}
            whole = sum(numbers.values())
            for label, n in numbers.items():
                writer.writerow([cell(sample.id), cell(label), n, f"{n / whole:.6f}"])


def cell(value: Any) -> str:
    """A value as a cell of a table: numbers short, "" for none, text on one line that no spreadsheet runs."""
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.4f}".rstrip("0").rstrip(".")
    if isinstance(value, int):
        return str(value)
    return as_cell(" ".join(re.sub(r"[\x00-\x1f\x7f\u2028\u2029]", " ", str(value)).split()))
