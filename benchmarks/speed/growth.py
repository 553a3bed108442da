#!/usr/bin/env python3
"""Time and memory of each step, as the pipeline runs it, for samples of 10,000 to 1,000,000 cells.

    .venv/bin/python benchmarks/speed/growth.py --source ../shared/data/labelled/pbmc4k_labelled.h5ad --work WORK

Makes the samples (make_sample.py), runs convert.py, qc.py, map.py, annotate.py and report.py with the embedded model,
each a process of its own, and writes benchmarks/results/speed/growth.csv (rows of other sizes stay): seconds by the
clock and of all cores, peak memory, bytes written, and microseconds a cell. Of the largest sample the files take 25 GB
in WORK, and are removed after.
"""

from __future__ import annotations

import sys
from pathlib import Path

import click

ROOT = Path(__file__).resolve().parents[2]
sys.path[0] = str(ROOT / "benchmarks")
sys.path.insert(0, str(ROOT / "bin"))
WARM_UP = 1000
FIGURES = ("violin", "knee", "scatter")
PAGES = {
    "output": "report.html",
    "markers": "markers.tsv",
    "differential": "de.tsv.gz",
    "clusters": "clusters.tsv",
    "verdicts": "verdicts.tsv",
    "verdict-summary": "verdicts.json",
    "truth": "truth.tsv",
    "truth-summary": "truth.json",
}


@click.command(context_settings={"show_default": True})
@click.option("--source", type=click.Path(exists=True, path_type=Path), required=True, help="Real cells.")
@click.option("--work", type=click.Path(path_type=Path), required=True)
@click.option("--cells", default="10000,100000,1000000", help="Sizes of the samples.")
@click.option("--cpus", type=int, default=2)
@click.option("--keep", is_flag=True, help="Keep the files, and make no sample that is there.")
def main(source: Path, work: Path, cells: str, cpus: int, keep: bool) -> None:
    """Run every step on every size."""
    import pandas as pd
    from accuracy.measure import run_measured
    from accuracy.programs import thread_limits

    python, model = sys.executable, ROOT / "assets" / "models" / "pbmc"
    work = work.resolve()
    work.mkdir(parents=True, exist_ok=True)
    env = thread_limits(cpus) | {
        "NUMBA_CACHE_DIR": str(work / "numba"),
        "MPLCONFIGDIR": str(work / "matplotlib"),
    }
    rows = []
    # The first sample only leaves compiled code behind, as the first task of a machine does.
    for n_cells in (WARM_UP, *map(int, cells.split(","))):
        name = f"s{n_cells}"
        at = {
            part: work / f"{name}.{part}" for part in ("h5ad", "counts.h5ad", "filtered.h5ad", "mapping.h5ad")
        }
        steps = {
            "make": ["--cells", n_cells, "--source", source.resolve(), "--output", at["h5ad"]],
            "convert": [
                "--input",
                at["h5ad"],
                "--output",
                at["counts.h5ad"],
                "--metrics",
                f"{name}.convert.json",
            ],
            "qc": ["--counts", at["counts.h5ad"]],
            "map": ["--counts", at["filtered.h5ad"], "--model", model, "--output", at["mapping.h5ad"]],
            "annotate": [
                *("--counts", at["filtered.h5ad"], "--mapping", at["mapping.h5ad"], "--model", model),
                *("--output", f"{name}.annotated.h5ad", "--predictions", f"{name}.predictions.tsv.gz"),
                *("--summary", f"{name}.annotation.json"),
            ],
            "report": [
                *("--annotated", f"{name}.annotated.h5ad", "--annotation", f"{name}.annotation.json"),
                *("--convert", f"{name}.convert.json", "--qc", f"{name}.qc.json", "--model", model),
                *(part for kind in FIGURES for part in (f"--qc-{kind}", f"{name}.qc_{kind}.png")),
                *(part for option, end in PAGES.items() for part in (f"--{option}", f"{name}.{end}")),
            ],
        }
        for step, options in steps.items():
            if step == "make" and keep and at["h5ad"].is_file():
                continue
            script = (
                ROOT / "benchmarks" / "speed" / "make_sample.py"
                if step == "make"
                else ROOT / "bin" / f"{step}.py"
            )
            command = [python, script, *map(str, options)]
            command += [] if step == "make" else ["--sample", name, "--cpus", str(cpus)]
            before = written(work)
            measured = run_measured(
                ["env", "-C", work, *command], work / f"{name}.{step}.log", limit=7200, env=env
            )
            if measured.status != "ok":
                raise click.ClickException(f"{step} of {n_cells} cells: {measured.message}")
            if step != "make" and n_cells != WARM_UP:
                row = {
                    "step": step,
                    "n_cells": n_cells,
                    "seconds": measured.seconds,
                    "cpu_seconds": measured.cpu_seconds,
                    "peak_mib": round(measured.peak_kib / 1024),
                    "written_mib": round((written(work) - before) / 2**20),
                    "us_per_cell": round(1e6 * measured.seconds / n_cells, 1),
                }
                rows.append(row)
                click.echo(row)
        if not keep:
            for path in work.glob(f"{name}.*"):
                path.unlink()
    target = ROOT / "benchmarks" / "results" / "speed" / "growth.csv"
    target.parent.mkdir(parents=True, exist_ok=True)
    table = pd.DataFrame(rows)
    if target.is_file():
        before = pd.read_csv(target)
        table = pd.concat([before[~before["n_cells"].isin(table["n_cells"])], table])
    table.sort_values("n_cells", kind="stable").to_csv(target, index=False)


def written(folder: Path) -> int:
    """Bytes of the files in a folder."""
    return sum(path.stat().st_size for path in folder.iterdir() if path.is_file())


if __name__ == "__main__":
    main()
