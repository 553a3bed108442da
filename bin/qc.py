#!/usr/bin/env python3
"""QC: measure each cell, remove the bad ones, and say why."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from cellscribe.cli import SETTINGS, common_options, exit_codes, file_in, sample_option

count = click.FloatRange(min=0)
percent = click.FloatRange(min=0, max=100)


@click.command(context_settings=SETTINGS)
@sample_option
@click.option("--counts", type=file_in, required=True, help="Raw counts, as CONVERT writes them.")
@click.option(
    "--mode", type=click.Choice(["filter", "flag"]), default="filter", help="Remove cells, or mark them."
)
@click.option(
    "--min-counts", type=count, help="Fewest counts a cell; overrides the MAD bound, as all of these."
)
@click.option("--max-counts", type=count, help="Most counts a cell.")
@click.option("--min-genes", type=count, help="Fewest genes a cell.")
@click.option("--max-genes", type=count, help="Most genes a cell.")
@click.option("--max-pct-mt", type=percent, help="Most mitochondrial counts, in percent.")
@click.option("--max-pct-ribo", type=percent, help="Most ribosomal counts, in percent; no bound without it.")
@click.option("--max-pct-hb", type=percent, help="Most haemoglobin counts, in percent; no bound without it.")
@click.option(
    "--n-mads", type=count, default=5.0, help="MADs around the median of counts and genes; 0: no bound."
)
@click.option(
    "--n-mads-mt", type=count, default=3.0, help="MADs above the median mitochondrial share; 0: no bound."
)
@click.option("--min-cells", type=click.IntRange(min=1), default=10, help="Fewer cells left: exit code 5.")
@click.option(
    "--min-cells-per-gene",
    type=click.IntRange(min=0),
    default=0,
    help="Drop genes seen in fewer cells. 0 keeps all, so that no gene of the model seems missing.",
)
@click.option(
    "--doublets",
    type=click.Choice(["remove", "flag", "off"]),
    default="remove",
    help="What to do with doublets.",
)
@click.option(
    "--expected-doublet-rate",
    type=click.FloatRange(min=0, max=1, max_open=True),
    help="Share of doublets; without it 0.8 % for each 1,000 cells, as 10x Genomics gives it. 0: no search.",
)
@click.option("--seed", type=click.IntRange(0, 2**32 - 1), default=0, help="Same seed, same doublets.")
@common_options
@exit_codes
def main(counts: Path, cpus: int, pipeline_version: str, **options: Any) -> None:
    """Measure each cell, remove (or mark) the bad ones, and say why."""
    from cellscribe.qc import QcOptions, run_qc

    run_qc(counts, QcOptions(**options), cpus=cpus)


if __name__ == "__main__":
    main()
