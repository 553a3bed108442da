#!/usr/bin/env python3
"""Ten thousand mutated files, each read by the step that reads what users give. README.md tells how to use it.

.venv/bin/python benchmarks/fuzz/fuzz.py
"""

from __future__ import annotations

import json
import os
import resource
import sys
import tempfile
import time
from pathlib import Path

import click

ROOT = Path(__file__).resolve().parents[2]
sys.path[0] = str(ROOT / "benchmarks")
sys.path[1:1] = [str(ROOT / "bin"), str(ROOT / "tests")]
os.environ |= dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS"), "1")
# Workers are forked, which OpenMP does not bear.
os.environ["NUMBA_THREADING_LAYER"] = "workqueue"


@click.command(context_settings={"show_default": True})
@click.option("--files", type=int, default=10_000, help="How many.")
@click.option("--first", type=int, default=0, help="Number of the first.")
@click.option("--seed", type=int, default=0, help="Another seed gives other files of the same numbers.")
@click.option(
    "--only", type=int, multiple=True, help="Make and run these files alone, and print what was said."
)
@click.option("--kind", help="Run files of this kind alone.")
@click.option("--keep", type=click.Path(path_type=Path), help="Leave the files of failures here.")
@click.option(
    "--seeds", type=click.Path(path_type=Path), help="Make the seeds here, or use those made here before."
)
@click.option("--output", type=click.Path(path_type=Path), help="Write the result as JSON.")
def main(
    files: int,
    first: int,
    seed: int,
    only: tuple[int, ...],
    kind: str | None,
    keep: Path | None,
    seeds: Path | None,
    output: Path | None,
) -> None:
    """Mutate files, run the steps on them, and say how each ended. Exit code 1 where one failed."""
    from fuzz.harness import kind_of, printed, run_many, run_seeds, set_up, summed_up

    started = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="cellscribe-fuzz-") as scratch:
        bench = set_up(seeds.resolve() if seeds else Path(scratch), seed)
        run_seeds(bench, Path(scratch) / "seeds as they are", whole=True)
        folder = keep.resolve() if keep else Path(scratch) / "files"
        folder.mkdir(parents=True, exist_ok=True)
        numbers = list(only) or list(range(first, first + files))
        if kind:
            numbers = [number for number in numbers if kind_of(bench.chance(number)) == kind]
        outcomes = []
        for outcome in run_many(bench, numbers, folder):
            outcomes.append(outcome)
            if outcome.fault or only:
                click.echo(f"{outcome.number} {outcome.what}: {outcome.fault or outcome.end} {outcome.steps}")
                click.echo("    " + "\n    ".join(outcome.said.splitlines()[-30 if only else -4 :]))
            if len(outcomes) % 100 == 0:
                click.echo(f"{len(outcomes):,} files in {time.perf_counter() - started:.0f} s", err=True)
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    cpu = sum(one.ru_utime + one.ru_stime for one in used)
    summary = summed_up(outcomes, seed, time.perf_counter() - started, cpu)
    click.echo(printed(summary))
    click.echo(f"{len(outcomes):,} files, {len(summary['failures']):,} failures; {summary['seconds']}")
    if output:
        output.write_text(json.dumps(summary, indent=1) + "\n")
    sys.exit(1 if summary["failures"] else 0)


if __name__ == "__main__":
    main()
