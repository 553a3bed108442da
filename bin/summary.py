#!/usr/bin/env python3
"""Sum up a run: one row a sample, and the content of the MultiQC page."""

from __future__ import annotations

from pathlib import Path

import click

from cellscribe.cli import SETTINGS, common_options, exit_codes, file_in, folder_in, log, path_out


@click.command(context_settings=SETTINGS)
@click.option("--samples", type=file_in, required=True, help="samples.json, as CHECK_INPUT writes it.")
@click.option("--inputs", type=folder_in, required=True, help="The folder of the steps' JSON files.")
@click.option("--failures", type=file_in, help="A table of the samples' tasks that failed, and why.")
@click.option("--merged", is_flag=True, help="The samples are merged too: lead to the page of that.")
@click.option("--output-folder", type=path_out, default=".", help="Where summary.tsv and *_mqc.json are put.")
@common_options
@exit_codes
def main(
    samples: Path,
    inputs: Path,
    failures: Path | None,
    merged: bool,
    output_folder: Path,
    cpus: int,
    pipeline_version: str,
) -> None:
    """Sum up a run: one row a sample, and the content of the MultiQC page."""
    from cellscribe.summary import run_summary

    summed_up = run_summary(samples, inputs, output_folder, failures, merged=merged)
    failed = [sample.id for sample in summed_up if sample.failed_step]
    log(f"{len(summed_up) - len(failed):,} of {len(summed_up):,} samples are done")
    if failed:
        log("failed: " + ", ".join(failed))


if __name__ == "__main__":
    main()
