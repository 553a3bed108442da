"""The samples of a run as their steps tell of them: what each left as JSON, and where and why one failed.

A sample that lacks a file failed in that step; why stands in the list of failures that Nextflow's side makes
(workflows/failures.nf).
"""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import reduce
from pathlib import Path
from typing import Any

from cellscribe.contract import UNASSIGNED
from cellscribe.errors import InputError
from cellscribe.io import read_json

# In the order of the pipeline: the file that is left, and the steps that failed where it is missing.
STEPS = {"convert": "CONVERT", "qc": "QC", "annotation": "MAP or ANNOTATE", "verdicts": "REPORT"}
# REPORT leaves it where it was asked for.
OPTIONAL = {"truth": "REPORT"}
WARNED_BY = {**STEPS, "annotation": "ANNOTATE", **OPTIONAL}
ORDER = ("SPLIT", "CONVERT", "QC", "MAP", "PREDICT", "GATHER", "ANNOTATE", "CURATE", "REPORT")


@dataclass(frozen=True)
class Failure:
    """Where and why a sample failed. exit_code, meaning: of the step's task; "" where only its file is missing."""

    step: str
    exit_code: str = ""
    meaning: str = ""
    message: str = ""


@dataclass(frozen=True)
class Sample:
    """What the steps said about one sample; None where a step left nothing. failures: in the order of the steps."""

    id: str
    path: str
    convert: dict[str, Any] | None
    qc: dict[str, Any] | None
    annotation: dict[str, Any] | None
    verdicts: dict[str, Any] | None = None
    truth: dict[str, Any] | None = None
    failures: list[Failure] = field(default_factory=list)

    @property
    def failed_step(self) -> str:
        """The first step that failed, or "" for a sample that is done."""
        return self.failures[0].step if self.failures else ""

    def get(self, part: str, *keys: str) -> Any:
        """A value below `part`, or None where it or anything on the way to it is missing."""
        return reduce(
            lambda value, key: value.get(key) if isinstance(value, dict) else None, keys, getattr(self, part)
        )

    @property
    def labels(self) -> Counter[str]:
        """Number of cells by final label, `unassigned` left out."""
        counts = Counter(self.get("annotation", "composition") or {})
        del counts[UNASSIGNED]
        return counts

    @property
    def has_page(self) -> bool:
        """Whether REPORT wrote its page."""
        return self.verdicts is not None

    @property
    def warnings(self) -> list[tuple[str, str]]:
        """(step, sentence) of every warning."""
        return [
            (step, str(text)) for part, step in WARNED_BY.items() for text in self.get(part, "warnings") or []
        ]


def read_samples(samples_file: Path, inputs: Path, failures: Path | None = None) -> list[Sample]:
    """Read samples.json and every step's JSON, in the order of samples.json. Raises as `run_summary`."""
    listed = _read(samples_file, list)
    if not listed:
        raise InputError("the run has no samples", "Give at least one sample as --input.", file=samples_file)
    told = read_failures(failures) if failures else {}
    samples = []
    for row in listed:
        files = {part: inputs / f"{row['id']}.{part}.json" for part in (*STEPS, *OPTIONAL)}
        parts = {part: _read(file, dict) if file.exists() else None for part, file in files.items()}
        # Without a word of it, the first step that left nothing is the one that failed.
        missing = [Failure(step) for part, step in STEPS.items() if parts[part] is None][:1]
        samples.append(
            Sample(row["id"], str(row.get("path", "")), **parts, failures=told.get(row["id"], missing))
        )
    return samples


def read_failures(path: Path) -> dict[str, list[Failure]]:
    """The failures of each sample, in the order of the steps: `sample`, `step`, `exit_code`, `meaning`, `message`."""
    told: dict[str, list[Failure]] = {}
    with path.open(newline="") as handle:
        # Messages have quotes of their own.
        for row in csv.DictReader(handle, delimiter="\t", quoting=csv.QUOTE_NONE):
            one = Failure(row["step"], row["exit_code"], row["meaning"], row["message"])
            told.setdefault(row["sample"], []).append(one)
    for found in told.values():
        found.sort(key=lambda one: ORDER.index(one.step) if one.step in ORDER else len(ORDER))
    return told


def _read(path: Path, kind: type) -> Any:
    try:
        value = read_json(path)
    except ValueError as error:
        value = error
    if not isinstance(value, kind):
        seen = value if isinstance(value, ValueError) else f"a JSON {type(value).__name__}"
        raise InputError(
            f"this should be a JSON {kind.__name__} that an earlier step wrote; seen: {seen}",
            "Delete the step's work folder and run again with -resume.",
            file=path,
        )
    return value


def _share(part: Any, whole: Any) -> float | None:
    return part / whole if part is not None and whole else None


def _model(sample: Sample) -> str | None:
    model = sample.get("annotation", "model")
    return f"{model.get('name', '')} {model.get('version', '')}".strip() if model else None


def _doublets(sample: Sample) -> int | None:
    # Where they were not searched, their number is not 0 but unknown.
    found = sample.get("qc", "doublets") or {}
    return found.get("n") if found.get("status") in ("called", "fallback") else None


def _pct_mt(sample: Sample) -> float | None:
    # Where no such gene was measured, it is not 0 but unknown.
    known = sample.get("qc", "mt_known") is not False
    return sample.get("qc", "after", "pct_counts_mt", "median") if known else None


def _orthologs(sample: Sample) -> str | None:
    used = sample.get("annotation", "orthologs")
    return f"{used['from']} to {used['to']}" if used else None


def percent_novel(sample: Sample) -> float | None:
    """The percentage of cells left unassigned as novel; None where nothing tells."""
    # Only code of others knows the genes of a model made by others, and nothing then tells which cells are novel.
    if sample.get("annotation", "gene_overlap") is None:
        return None
    by_reason = sample.get("annotation", "unassigned_by")
    novel = None if by_reason is None else 100 * by_reason.get("novel", 0)
    return _share(novel, sample.get("annotation", "n_cells"))


def _top(sample: Sample) -> tuple[str | None, int | None]:
    # The name breaks ties, so that the same cells always give the same row.
    return min(sample.labels.items(), key=lambda item: (-item[1], item[0]), default=(None, None))


COLUMNS: dict[str, Callable[[Sample], Any]] = {
    "sample": lambda s: s.id,
    "status": lambda s: "failed" if s.failed_step else "done",
    "failed_step": lambda s: s.failed_step,
    "exit_code": lambda s: s.failures[0].exit_code if s.failures else "",
    "message": lambda s: s.failures[0].message if s.failures else "",
    "organism": lambda s: s.get("convert", "organism"),
    "source": lambda s: s.get("convert", "source"),
    "n_cells_read": lambda s: s.get("convert", "n_cells"),
    "n_cells_kept": lambda s: s.get("qc", "n_cells_after"),
    "n_doublets": _doublets,
    "median_counts": lambda s: s.get("qc", "after", "total_counts", "median"),
    "median_genes": lambda s: s.get("qc", "after", "n_genes_by_counts", "median"),
    "median_pct_mt": _pct_mt,
    "model": _model,
    "gene_overlap": lambda s: s.get("annotation", "gene_overlap"),
    "orthologs": _orthologs,
    "n_labels": lambda s: len(s.labels) if s.annotation is not None else None,
    "top_label": lambda s: _top(s)[0],
    "top_label_share": lambda s: _share(_top(s)[1], s.get("annotation", "n_cells")),
    "unassigned_share": lambda s: _share(s.get("annotation", "unassigned"), s.get("annotation", "n_cells")),
    "median_uncertainty": lambda s: s.get("annotation", "median_uncertainty"),
    "share_far_from_reference": lambda s: s.get("annotation", "reference_distance", "share_beyond_99"),
    "n_clusters": lambda s: s.get("verdicts", "n_clusters"),
    "n_clusters_named": lambda s: s.get("verdicts", "n_clusters_named"),
    "n_clusters_supported": lambda s: s.get("verdicts", "n_clusters_supported"),
    "n_clusters_weak": lambda s: s.get("verdicts", "n_clusters_weak"),
    "n_clusters_contradicted": lambda s: s.get("verdicts", "n_clusters_contradicted"),
    "truth_n_cells": lambda s: s.get("truth", "n_cells"),
    "truth_n_known": lambda s: s.get("truth", "n_known"),
    "truth_accuracy": lambda s: s.get("truth", "accuracy"),
    "truth_macro_f1": lambda s: s.get("truth", "macro_f1"),
    "truth_accuracy_assigned": lambda s: s.get("truth", "accuracy_assigned"),
    "truth_calibration_error": lambda s: s.get("truth", "calibration_error"),
    "truth_share_same": lambda s: s.get("truth", "share_same"),
    "truth_share_compatible": lambda s: s.get("truth", "share_compatible"),
    "truth_share_not_understood": lambda s: s.get("truth", "share_not_understood"),
    "n_warnings": lambda s: len(s.warnings),
}
