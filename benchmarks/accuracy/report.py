"""Tables and figures of everything that lies in the folder of results."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from accuracy import table
from accuracy.figures import draw_all
from accuracy.pairs import all_pairs
from accuracy.programs import PROGRAMS
from accuracy.runner import Inputs, read_inputs, run_key
from cellscribe.io import atomic_path, read_json


def collect(out: Path) -> list[tuple[dict[str, Any], Inputs]]:
    """Every result with its pair's truth, in the order of pairs and programs.

    One of code or cells that have changed since has the status `stale`, so that no table mixes two versions.
    """
    pairs = {name: place for place, name in enumerate(all_pairs())}
    programs = {program.name: place for place, program in enumerate(PROGRAMS)}
    code = {program.name: program.code_hash() for program in PROGRAMS}
    found = []
    for path in out.glob("runs/*/*/seed_*/result.json"):
        result = read_json(path)
        if result["pair"] not in pairs or result["program"] not in programs:
            continue
        inputs = read_inputs(result["pair"], result["seed"], out)
        if result["key"] != run_key(code[result["program"]], inputs, result["seed"]):
            result |= {"status": "stale", "message": "its code or its cells have changed since: run it again"}
        found.append((result, inputs))
    return sorted(
        found, key=lambda item: (pairs[item[0]["pair"]], programs[item[0]["program"]], item[0]["seed"])
    )


def write_report(out: Path) -> list[Path]:
    """Score all results, and write every table and figure of README.md; returns the files."""
    runs = collect(out)
    scores, lost = table.score_runs(runs, out)
    by_pair = table.over_seeds(scores)
    tables = {
        "scores": scores,
        "pairs": by_pair,
        "means": table.means(by_pair),
        "paired_tests": table.paired_tests(scores),
        "best_peer": table.against_best_peer(by_pair),
        "not_run": lost,
    }
    written = []
    for name, frame in tables.items():
        with atomic_path(out / f"{name}.csv") as temporary:
            frame.replace({np.nan: None}).to_csv(temporary, index=False, lineterminator="\n")
        written.append(out / f"{name}.csv")
    return written + (draw_all(by_pair, runs, out) if len(by_pair) else [])
