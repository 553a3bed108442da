#!/usr/bin/env python3
"""Many small samples in one run: how much of its wall time is not the tasks' work, and what each step costs a sample.

    .venv/bin/python benchmarks/speed/many_samples.py --samples 100 --folder /tmp/many \
        --source ../shared/data/labelled/10x_1k_PBMC_v3_filt_unlabelled.h5ad \
        --output benchmarks/results/speed/many_samples.json

Needs an idle machine, .venv and .tools/bin/nextflow (`make setup`). Each sample is of other rows of the source, by a
seed. With the options `-- -stub-run` the steps do nothing, and the run is of Nextflow alone: how it bears many samples.

`overhead` is the part of the run's wall time, Nextflow's start and end included, that is not the scripts' own:
1 - sum(realtime x cpus) / (cores x wall). A task's realtime is that of its script, Python's start and imports included.
`cpu_use` is the part of the cores' time in which they computed for a task. `head_peak_mb` is the most memory that
Nextflow itself held at a time; `head_options` (NXF_OPTS) bound its heap.
"""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import click

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT / "bin"))

FIELDS = "task_id,process,tag,name,status,exit,attempt,cpus,submit,duration,realtime,%cpu,peak_rss,rchar,wchar,workdir"
# In numbers and not in words: milliseconds and bytes. `cores` are what Nextflow may hand out at a time.
CONFIG = "trace {{ raw = true\n fields = '{fields}' }}\nexecutor {{ cpus = {cores} }}\n"


def make_samples(source: Path, folder: Path, samples: int, cells: int) -> Path:
    """Write the samples, each of rows drawn without replacement, and their sheet, whose path is returned."""
    import anndata
    import numpy as np

    from cellscribe.io import write_h5ad

    real = anndata.read_h5ad(source)
    folder.mkdir(parents=True, exist_ok=True)
    lines = ["sample,path"]
    for number in range(samples):
        rows = np.sort(np.random.default_rng(number).choice(real.n_obs, cells, replace=False))
        drawn = anndata.AnnData(real.X[rows], obs=real.obs[[]].iloc[rows].copy(), var=real.var.copy())
        write_h5ad(drawn, folder / f"s{number:03d}.h5ad")
        lines.append(f"s{number:03d},s{number:03d}.h5ad")
    sheet = folder / "sheet.csv"
    sheet.write_text("\n".join(lines) + "\n")
    return sheet


def run(sheet: Path, nextflow: Path, cores: int, options: Iterable[str]) -> tuple[float, float]:
    """Run the pipeline beside the sheet; its wall time in seconds, and the most memory that Nextflow held, in MB.

    Ends the program where the run fails.
    """
    config = sheet.with_name("trace.config")
    config.write_text(CONFIG.format(fields=FIELDS, cores=cores))
    command = [nextflow, "run", ROOT, "-ansi-log", "false", "-c", config, "--input", sheet.name, *options]
    start, peak = time.monotonic(), 0.0
    with sheet.with_name("run.log").open("w") as log:
        head = subprocess.Popen(command, cwd=sheet.parent, stdout=log, stderr=subprocess.STDOUT)
        while head.poll() is None:
            peak = max(peak, peak_memory(head.pid))
            time.sleep(0.2)
    if head.returncode:
        raise click.ClickException(f"the run failed: see {sheet.with_name('run.log')}")
    return time.monotonic() - start, peak


def peak_memory(pid: int) -> float:
    """The most memory that a process has held so far, in MB; 0 where it has ended. The launcher becomes Java."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0.0
    return sum(float(line.split()[1]) / 1000 for line in status.splitlines() if line.startswith("VmHWM:"))


def written(workdir: Path) -> int:
    """Bytes of the files that a task left, without what was linked into its folder and Nextflow's own."""
    return sum(
        path.stat().st_size
        for path in workdir.rglob("*")
        if path.is_file() and not path.is_symlink() and not path.name.startswith(".")
    )


def number(text: str) -> float:
    """A number of the trace; 0 for `-`."""
    return 0.0 if text in ("-", "") else float(text)


def by_process(tasks: list[dict[str, str]]) -> list[dict[str, Any]]:
    """What a task of each process took, on average, the most costly process first."""
    groups = defaultdict(list)
    for task in tasks:
        groups[task["process"].split(":")[-1]].append(task)
    rows = []
    for process, found in groups.items():
        # FIELDS in milliseconds, bytes and per cent
        mean = {
            name: sum(number(task[name]) for task in found) / len(found)
            for name in ("realtime", "duration", "%cpu", "rchar", "wchar")
        }
        work = sum(number(task["realtime"]) * number(task["%cpu"]) / 100 for task in found) / len(found)
        rows.append(
            {
                "process": process,
                "tasks": len(found),
                "cpus": max(int(task["cpus"]) for task in found),
                "realtime_s": round(mean["realtime"] / 1000, 2),
                "cpu_s": round(work / 1000, 2),
                "around_it_s": round((mean["duration"] - mean["realtime"]) / 1000, 2),
                "read_mb": round(mean["rchar"] / 1e6, 1),
                "written_mb": round(mean["wchar"] / 1e6, 1),
                "files_mb": round(
                    sum(written(Path(task["workdir"])) for task in found) / len(found) / 1e6, 2
                ),
                "peak_rss_mb": round(max(number(task["peak_rss"]) for task in found) / 1e6),
            }
        )
    return sorted(rows, key=lambda row: -row["tasks"] * row["realtime_s"])


def summed(
    tasks: list[dict[str, str]], wall: float, peak: float, cores: int, samples: int, results: Path
) -> dict[str, Any]:
    """The run in numbers; times in seconds."""
    held = sum(number(task["realtime"]) * min(int(task["cpus"]), cores) for task in tasks) / 1000
    worked = sum(number(task["realtime"]) * number(task["%cpu"]) / 100 for task in tasks) / 1000
    rows = by_process(tasks)
    each = [row for row in rows if row["tasks"] == samples]
    published = sum(path.stat().st_size for path in (results / "samples").rglob("*") if path.is_file())
    return {
        "samples": samples,
        "cores": cores,
        "wall_s": round(wall, 1),
        "head_peak_mb": round(peak),
        "head_options": os.environ.get("NXF_OPTS", ""),
        "seconds_a_sample": round(wall / samples, 2),
        "tasks": len(tasks),
        "tasks_a_sample": len(each),
        "overhead": round(1 - held / (cores * wall), 3),
        "cpu_use": round(worked / (cores * wall), 3),
        "read_mb_a_sample": round(sum(row["read_mb"] for row in each), 1),
        "written_mb_a_sample": round(sum(row["written_mb"] for row in each), 1),
        "files_mb_a_sample": round(sum(row["files_mb"] for row in each), 1),
        "published_mb_a_sample": round(published / samples / 1e6, 1),
        "load_at_the_end": [round(load, 1) for load in os.getloadavg()],
        "processes": rows,
    }


@click.command(context_settings={"show_default": True, "ignore_unknown_options": True})
@click.option(
    "--source", type=click.Path(exists=True, path_type=Path), required=True, help="Raw counts in X."
)
@click.option("--samples", type=click.IntRange(min=2), default=100, help="How many samples.")
@click.option("--cells", type=click.IntRange(min=50), default=500, help="Cells of each.")
@click.option("--cores", type=click.IntRange(min=1), default=2, help="Cores that Nextflow may use.")
@click.option("--folder", type=click.Path(path_type=Path), required=True, help="Scratch: a new folder.")
@click.option(
    "--nextflow", type=click.Path(exists=True, path_type=Path), default=ROOT / ".tools" / "bin" / "nextflow"
)
@click.option("--output", type=click.Path(path_type=Path), required=True, help="The numbers (JSON).")
@click.argument("options", nargs=-1, type=click.UNPROCESSED)
def main(
    source: Path,
    samples: int,
    cells: int,
    cores: int,
    folder: Path,
    nextflow: Path,
    output: Path,
    options: tuple[str, ...],
) -> None:
    """Make the samples, run the pipeline on them, and write what the run took. OPTIONS go to the pipeline."""
    from cellscribe.io import write_json

    sheet = make_samples(source, folder.resolve(), samples, cells)
    wall, peak = run(sheet, nextflow, cores, options)
    results = sheet.with_name("results")
    with (results / "pipeline_info" / "trace.txt").open(newline="") as handle:
        tasks = [row for row in csv.DictReader(handle, delimiter="\t") if row["status"] == "COMPLETED"]
    found = summed(tasks, wall, peak, cores, samples, results) | {
        "cells_a_sample": cells,
        "options": list(options),
    }
    write_json(found, output)
    click.echo(json.dumps({key: value for key, value in found.items() if key != "processes"}, indent=1))
    for row in found["processes"]:
        click.echo("  ".join(f"{key} {value}" for key, value in row.items()))


if __name__ == "__main__":
    main()
