#!/usr/bin/env python3
"""Time and memory of training on large references.

    .venv/bin/python benchmarks/speed/train_large.py --source ../shared/data/labelled/pbmc4k_labelled.h5ad --work WORK

Makes references of labelled cells (make_sample.py, four donors), and runs train.py on each as a process of its own,
with one epoch of scVI in place of 20 to 200. Its rows of benchmarks/results/speed/train_large.csv replace those of the
same program and size. `private_mib`: the most memory that was the process's own at a time; `peak_mib` has what it read
of its files on disk too, which the system takes back when it needs the room. With `--bin` another checkout's train.py.
"""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import click

ROOT = Path(__file__).resolve().parents[2]
sys.path[0] = str(ROOT / "benchmarks")
TARGET = ROOT / "benchmarks" / "results" / "speed" / "train_large.csv"
N_DONORS = 4


@click.command(context_settings={"show_default": True})
@click.option("--source", type=click.Path(exists=True, path_type=Path), required=True, help="Real cells.")
@click.option("--work", type=click.Path(path_type=Path), required=True)
@click.option("--cells", default="10000,100000", help="Sizes of the references.")
@click.option("--cpus", type=int, default=2)
@click.option("--bin", "programs", type=click.Path(exists=True, path_type=Path), default=ROOT / "bin")
@click.option("--program", default="cellscribe", help="What the rows are called.")
def main(source: Path, work: Path, cells: str, cpus: int, programs: Path, program: str) -> None:
    """Train on references of every size."""
    import os

    import pandas as pd
    from accuracy.programs import thread_limits

    work = work.resolve()
    work.mkdir(parents=True, exist_ok=True)
    rows = []
    for n_cells in map(int, cells.split(",")):
        reference = work / f"reference_{n_cells}.h5ad"
        if not reference.is_file():
            make_reference(source, reference, n_cells)
        command = [
            *(sys.executable, programs / "train.py", "--reference", reference, "--label-key", "cell_type"),
            *("--batch-key", "donor", "--name", "large", "--max-epochs", "1", "--cpus", str(cpus)),
            *("--output", work / f"model_{program}_{n_cells}"),
        ]
        start = time.monotonic()
        with (work / f"{program}_{n_cells}.log").open("wb") as log:
            child = subprocess.Popen(
                command, stdout=log, stderr=log, env={**os.environ, **thread_limits(cpus)}
            )
            private = peak = 0
            while child.poll() is None:
                private = max(private, memory_of(child.pid, "RssAnon"))
                peak = max(peak, memory_of(child.pid, "VmHWM"))
                time.sleep(0.1)
        rows.append(
            {
                "program": program,
                "n_cells": n_cells,
                "ended": "ok" if child.returncode == 0 else f"exit {child.returncode}",
                "seconds": round(time.monotonic() - start),
                "private_mib": private // 1024,
                "peak_mib": peak // 1024,
            }
        )
        click.echo(rows[-1])
    table = pd.DataFrame(rows)
    if TARGET.is_file():
        table = pd.concat([pd.read_csv(TARGET), table]).drop_duplicates(["program", "n_cells"], keep="last")
    table.sort_values(["program", "n_cells"]).to_csv(TARGET, index=False)


def make_reference(source: Path, target: Path, n_cells: int) -> None:
    """A reference of `n_cells` labelled cells, of N_DONORS donors by turns."""
    import h5py
    import numpy as np
    from anndata.io import read_elem, write_elem

    make = ROOT / "benchmarks" / "speed" / "make_sample.py"
    subprocess.run(
        [sys.executable, make, "--cells", str(n_cells), "--source", source, "--output", target], check=True
    )
    with h5py.File(target, "r+") as file:
        obs = read_elem(file["obs"])
        obs["donor"] = np.char.add("donor", (np.arange(n_cells) % N_DONORS).astype(str)).astype(object)
        del file["obs"]
        write_elem(file, "obs", obs)


def memory_of(pid: int, what: str) -> int:
    """A line of the process's /proc/PID/status, in KiB; 0 where it has ended."""
    try:
        text = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in text.splitlines() if line.startswith(f"{what}:")), 0)


if __name__ == "__main__":
    main()
