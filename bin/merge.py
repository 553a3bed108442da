#!/usr/bin/env python3
"""MERGE: all samples of a run in one file, with one UMAP."""

from __future__ import annotations

from pathlib import Path

import click

from cellscribe.cli import (
    SETTINGS,
    cluster_options,
    common_options,
    exit_codes,
    file_in,
    folder_in,
    path_out,
)


@click.command(context_settings=SETTINGS)
@click.option(
    "--inputs",
    type=folder_in,
    required=True,
    help="The folder of the samples' annotated.h5ad and annotation.json.",
)
@click.option(
    "--samples",
    type=file_in,
    help="A list of all samples of the run (JSON, `id` of each): a warning names those that are not in the folder.",
)
@click.option("--output", type=path_out, required=True, help="All cells (h5ad).")
@click.option(
    "--composition", type=path_out, required=True, help="The table of cells by sample and label (TSV)."
)
@click.option("--pseudobulk", type=path_out, required=True, help="Counts summed by sample and label (h5ad).")
@click.option("--page", type=path_out, required=True, help="The page (HTML).")
@cluster_options
@click.option("--seed", type=int, default=0, help="Seed of clusters and UMAP.")
@common_options
@exit_codes
def main(
    inputs: Path,
    samples: Path | None,
    output: Path,
    composition: Path,
    pseudobulk: Path,
    page: Path,
    cluster_key: str | None,
    cluster_resolution: float,
    seed: int,
    cpus: int,
    pipeline_version: str,
) -> None:
    """Join the samples of a folder: one file with clusters and a UMAP of all cells, sums by label, a table, a page."""
    from cellscribe.merge import run_merge

    run_merge(
        inputs,
        output,
        composition,
        pseudobulk,
        page,
        listed=samples,
        cluster_key=cluster_key,
        cluster_resolution=cluster_resolution,
        seed=seed,
        pipeline_version=pipeline_version,
    )


if __name__ == "__main__":
    main()
