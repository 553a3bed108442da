#!/usr/bin/env python3
"""Every method on every reference and query: one table, figures, and a paired test. See README.md beside this file."""

from __future__ import annotations

import sys
from pathlib import Path

import click

ROOT = Path(__file__).resolve().parents[2]
sys.path[0] = str(ROOT / "benchmarks")
sys.path.insert(0, str(ROOT / "bin"))

QUICK_SEEDS = "0"


@click.command(context_settings={"show_default": True})
@click.option(
    "--data",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    required=True,
    help="The folder of labelled files.",
)
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    required=True,
    help="Where inputs, predictions, tables and figures go; what is there is not run again.",
)
@click.option("--methods", default="", help="Programs or methods, comma-separated; by default all.")
@click.option("--pairs", default="", help="Names, patterns or families, comma-separated; by default all.")
@click.option("--seeds", default="0,1,2", help="Seeds of pairs and methods.")
@click.option("--quick", is_flag=True, help="Ours, two small pairs and one seed, unless others are named.")
@click.option(
    "--environments",
    type=click.Path(file_okay=False, path_type=Path),
    default=ROOT / "benchmarks" / "accuracy" / ".environments",
    help="Where make_environments.sh put the peers' environments.",
)
@click.option("--limit", type=float, default=1800, help="Seconds after which a run is stopped.")
@click.option("--cpus", type=int, default=1, help="Cores for one run.")
@click.option("--no-report", is_flag=True, help="Only run; write no tables and figures.")
@click.option("--retry", is_flag=True, help="Run again what failed or took too long.")
def main(
    data: Path,
    out: Path,
    methods: str,
    pairs: str,
    seeds: str,
    quick: bool,
    environments: Path,
    limit: float,
    cpus: int,
    no_report: bool,
    retry: bool,
) -> None:
    """Run what is missing, then write the tables and figures of all that there is."""
    from accuracy import pairs as all_pairs
    from accuracy import programs
    from accuracy.pairs import Sets
    from accuracy.report import write_report
    from accuracy.runner import Settings, prepare, run_one

    try:
        wanted = programs.chosen(methods or (programs.OURS if quick else ""))
        asked = all_pairs.chosen(pairs)
    except KeyError as error:
        raise click.UsageError(f"{error.args[0]!r} is no method or pair; README.md lists them") from None
    if quick and not pairs:
        asked = [pair for pair in asked if pair.quick]
    numbers = [int(seed) for seed in (QUICK_SEEDS if quick else seeds).split(",")]
    settings = Settings(out.resolve(), environments.resolve(), limit, cpus, retry)
    sets = Sets(data.resolve())
    for seed in numbers:
        for pair in asked:
            inputs = prepare(pair, seed, sets, settings.out)
            for program in wanted:
                result = run_one(program, pair, seed, inputs, settings)
                click.echo(
                    f"{program.name:16} {pair.name:40} seed {seed}  {result['status']:8} {result['seconds']:7.1f} s  "
                    f"{result['message']}",
                    err=True,
                )
    for path in [] if no_report else write_report(settings.out):
        click.echo(path)


if __name__ == "__main__":
    main()
