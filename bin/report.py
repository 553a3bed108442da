#!/usr/bin/env python3
"""Make the page of one sample, and the tables of its genes and clusters."""

from __future__ import annotations

from typing import Any

import click

from cellscribe.cli import SETTINGS, common_options, exit_codes, file_in, folder_in, path_out, sample_option


@click.command(context_settings=SETTINGS)
@sample_option
@click.option("--annotated", type=file_in, required=True, help="Annotated cells, as ANNOTATE writes them.")
@click.option("--convert", type=file_in, required=True, help="What CONVERT says about the sample (JSON).")
@click.option("--qc", type=file_in, required=True, help="What QC says about the sample (JSON).")
@click.option("--annotation", type=file_in, required=True, help="What ANNOTATE says about the sample (JSON).")
@click.option("--qc-violin", type=file_in, required=True, help="QC's figure of the metrics (PNG).")
@click.option("--qc-knee", type=file_in, required=True, help="QC's figure of counts by barcode rank (PNG).")
@click.option("--qc-scatter", type=file_in, required=True, help="QC's figure of counts against genes (PNG).")
@click.option(
    "--model",
    "models",
    type=folder_in,
    required=True,
    multiple=True,
    help="The model folder that named the cells; give it again for each of several, in their order.",
)
@click.option("--output", type=path_out, required=True, help="The page (HTML).")
@click.option("--markers", type=path_out, required=True, help="The table of marker genes (TSV).")
@click.option(
    "--differential", type=path_out, required=True, help="The table of differential expression (TSV, .gz)."
)
@click.option("--clusters", type=path_out, required=True, help="The table of types by cluster (TSV).")
@click.option(
    "--verdicts", type=path_out, required=True, help="The table of each cluster's name and its verdict (TSV)."
)
@click.option("--verdict-summary", type=path_out, required=True, help="The same in short (JSON).")
@click.option("--curation", type=file_in, help="What CURATE says about the sample (JSON).")
@click.option(
    "--compare", default="", help="Groups of cells to compare: 'B cell vs NK cell', see docs/usage.md."
)
@click.option("--truth", type=path_out, required=True, help="The table of agreement with known labels (TSV).")
@click.option("--truth-summary", type=path_out, required=True, help="The same in short (JSON).")
@click.option("--truth-key", default="", help="The obs column, or that of --truth-csv, with known labels.")
@click.option("--truth-csv", type=file_in, help="Known labels, as CELLxGENE Explorer saves them (CSV).")
@click.option("--truth-map", type=file_in, help="What the known labels mean to the model (label, meaning).")
@common_options
@exit_codes
def main(cpus: int, **options: Any) -> None:
    """Make the page of one sample, and the tables of its genes and clusters."""
    from cellscribe.report import write_report
    from cellscribe.report_inputs import ReportInputs

    write_report(ReportInputs(**options))


if __name__ == "__main__":
    main()
