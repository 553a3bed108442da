#!/usr/bin/env python3
"""CURATE: write the annotated cells as CELLxGENE Discover takes them, and say what a curator still has to give."""

from __future__ import annotations

from pathlib import Path

import click

from cellscribe.cli import SETTINGS, common_options, exit_codes, file_in, path_out, sample_option


@click.command(context_settings=SETTINGS)
@sample_option
@click.option("--annotated", type=file_in, required=True, help="Annotated cells, as ANNOTATE writes them.")
@click.option("--annotation", type=file_in, required=True, help="What ANNOTATE says about the sample (JSON).")
@click.option("--title", help="Title of the dataset.")
@click.option("--is-primary-data", type=bool, help="Whether these cells are published here first.")
@click.option("--assay-ontology-term-id", default="", help="The assay (EFO).")
@click.option("--donor-id", default="", help="The donor.")
@click.option("--sex-ontology-term-id", default="", help="The donor's sex (PATO).")
@click.option("--tissue-type", default="", help="tissue, organoid, primary cell culture or cell line.")
@click.option("--tissue-ontology-term-id", default="", help="The tissue (UBERON).")
@click.option("--disease-ontology-term-id", default="", help="The disease (MONDO), or PATO:0000461 for none.")
@click.option("--development-stage-ontology-term-id", default="", help="The donor's age (HsapDv, MmusDv).")
@click.option("--self-reported-ethnicity-ontology-term-id", default="", help="HANCESTRO or AfPO.")
@click.option("--suspension-type", default="", help="cell, nucleus or na.")
@click.option("--output", type=path_out, required=True, help="The file for CELLxGENE (h5ad).")
@click.option("--todo", type=path_out, required=True, help="The table of what is left to do (TSV).")
@click.option("--summary", type=path_out, required=True, help="The same for the report (JSON).")
@common_options
@exit_codes
def main(
    sample: str,
    annotated: Path,
    annotation: Path,
    title: str | None,
    is_primary_data: bool | None,
    output: Path,
    todo: Path,
    summary: Path,
    cpus: int,
    pipeline_version: str,
    **fields: str,
) -> None:
    """Write the annotated cells as CELLxGENE Discover takes them, and say what a curator still has to give."""
    from cellscribe.curation import Facts, run_curate

    run_curate(
        annotated,
        annotation,
        Facts(fields, title, is_primary_data),
        sample=sample,
        output=output,
        todo=todo,
        summary=summary,
        cpus=cpus,
        pipeline_version=pipeline_version,
    )


if __name__ == "__main__":
    main()
