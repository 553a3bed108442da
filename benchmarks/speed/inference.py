#!/usr/bin/env python3
"""How long naming takes beside scanpy's normalisation and CellTypist, on the same cells, in the same run.

    .venv/bin/python benchmarks/speed/make_sample.py --cells 100000 \
        --source ../shared/data/labelled/pbmc4k_labelled.h5ad --output SAMPLE
    benchmarks/accuracy/make_environments.sh ENVIRONMENTS celltypist
    .venv/bin/python benchmarks/speed/inference.py --sample SAMPLE --data ../shared/data/labelled --work WORK \
        --environments ENVIRONMENTS

Writes benchmarks/results/speed/inference.csv: for each program the least and the median of several runs, in turn, each
a process of its own. CellTypist (use_SGD) and cellscribe's `logistic` are trained on the same cells and labels; the
embedded model, trained on them too, is a `consensus`. name: from counts (in memory, or opened) to probabilities;
process: the whole, with imports, reading and a table of labels. again: the same cells went through it before in the
process, so that the system gives it no memory anew.
"""

from __future__ import annotations

import json
import statistics
import sys
from pathlib import Path

import click

ROOT = Path(__file__).resolve().parents[2]
sys.path[0] = str(ROOT / "benchmarks")
sys.path.insert(0, str(ROOT / "bin"))
PROGRAMS = Path(__file__).resolve().parent / "programs"


@click.command(context_settings={"show_default": True})
@click.option("--sample", type=click.Path(exists=True, path_type=Path), required=True)
@click.option("--data", type=click.Path(exists=True, path_type=Path), required=True, help="Labelled files.")
@click.option("--environments", type=click.Path(path_type=Path), required=True)
@click.option("--work", type=click.Path(path_type=Path), required=True, help="Where models and logs go.")
@click.option("--repeats", type=int, default=3)
@click.option("--cpus", type=int, default=2)
def main(sample: Path, data: Path, environments: Path, work: Path, repeats: int, cpus: int) -> None:
    """Run every program several times, in turn."""
    import pandas as pd
    from accuracy.measure import run_measured
    from accuracy.programs import thread_limits

    work = work.resolve()
    work.mkdir(parents=True, exist_ok=True)
    python, other = sys.executable, environments.resolve() / "celltypist" / "bin" / "python"
    reference, theirs, ours = work / "reference.h5ad", work / "celltypist.pkl", work / "logistic"
    run = {"limit": 3600.0, "env": thread_limits(cpus)}
    if not reference.is_file():
        write_reference(data, reference)
    if not theirs.is_file():
        run_measured(
            [other, PROGRAMS / "run_celltypist.py", "--train", reference, theirs], work / "train.txt", **run
        )
    if not (ours / "manifest.json").is_file():
        command = [python, ROOT / "bin" / "train.py", "--reference", reference, "--label-key", "label"]
        command += ["--batch-key", "batch", "--kind", "logistic", "--name", "logistic", "--output", ours]
        run_measured([*command, "--cpus", str(cpus)], work / "train_ours.txt", **run)

    own = [python, PROGRAMS / "run_cellscribe.py", sample]
    scanpy = [python, PROGRAMS / "run_scanpy.py", sample]
    embedded = ROOT / "assets" / "models" / "pbmc"
    in_memory = [*own, embedded, work / "a.csv", str(cpus), "memory"]
    programs = {
        "scanpy normalize_total + log1p": scanpy,
        "scanpy normalize_total + log1p, again": [*scanpy, "again"],
        "cellscribe consensus, in memory": in_memory,
        "cellscribe consensus, in memory, again": [*in_memory, "again"],
        "cellscribe consensus, from the file": [*own, embedded, work / "b.csv", str(cpus)],
        "celltypist": [other, PROGRAMS / "run_celltypist.py", sample, theirs, work / "c.csv"],
        "cellscribe logistic, in memory": [*own, ours, work / "d.csv", str(cpus), "memory"],
        "cellscribe logistic, from the file": [*own, ours, work / "e.csv", str(cpus)],
    }
    rows = []
    for turn in range(repeats):
        for name, command in programs.items():
            log = work / "log.txt"
            measured = run_measured(command, log, **run)
            if measured.status != "ok":
                raise click.ClickException(f"{name}: {measured.message}")
            said = json.loads(log.read_text().splitlines()[-1])
            name_s = said["normalise"] + said["annotate"] if "annotate" in said else said["name"]
            rows.append(
                {
                    "program": name,
                    "name": name_s,
                    "process": measured.seconds,
                    "cpu": measured.cpu_seconds,
                    "peak_mib": round(measured.peak_kib / 1024),
                }
            )
            click.echo(
                f"{turn} {name}: {name_s:.2f} s of {measured.seconds:.2f} s, {measured.peak_kib >> 10} MiB"
            )
    table = [
        {
            "program": name,
            **{
                f"{key}_{how.__name__}": round(how([row[key] for row in rows if row["program"] == name]), 2)
                for key in ("name", "process", "cpu")
                for how in (min, statistics.median)
            },
            "peak_mib": max(row["peak_mib"] for row in rows if row["program"] == name),
        }
        for name in programs
    ]
    target = ROOT / "benchmarks" / "results" / "speed" / "inference.csv"
    target.parent.mkdir(parents=True, exist_ok=True)
    pd.DataFrame(table).to_csv(target, index=False)
    click.echo(pd.DataFrame(table).to_string())


def write_reference(data: Path, target: Path) -> None:
    """The cells of the embedded model: labels, batches, counts on the genes that all have."""
    from accuracy.pairs import Sets, reference_of

    from cellscribe.io import write_h5ad

    write_h5ad(reference_of(Sets(data), "both", "pbmc4k"), target)


if __name__ == "__main__":
    main()
