"""One sample named by one command, without Nextflow: what `cellxgene annotate` does, with our reading and models."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cellscribe.check_input import name_of
from cellscribe.cli import log
from cellscribe.contract import OutputNames
from cellscribe.convert import ConvertOptions, run_convert
from cellscribe.model.model import Model
from cellscribe.obtain import obtained_model
from cellscribe.one_file import annotate_file
from cellscribe.qc import QcOptions, run_qc
from cellscribe.tenx import find_input


@dataclass(frozen=True)
class OneOptions:
    """Options of `annotate_one.py`; see its --help. qc: off, filter or flag."""

    query: Path
    output: Path
    model_url: str
    counts_layer: str | None = None
    gene_column_name: str | None = None
    annotation_prefix: str = "cxg"
    annotation_type: str = "cell_type"
    run_name: str | None = None
    use_model_cache: bool = True
    model_cache_dir: Path = Path(".models_cache")
    model_sha256: str = ""
    use_gpu: bool = True
    classifier: str = "default"
    organism: str = "Homo sapiens"
    min_gene_overlap: float = 0.5
    warn_gene_overlap: float = 0.8
    qc: str = "off"
    genome: str | None = None
    seed: int = 0
    cpus: int = 1
    pipeline_version: str = "unknown"


def annotate_one(options: OneOptions) -> dict[str, Any]:
    """Write the annotated file; returns what annotation.json holds. Raises what the pipeline's steps raise."""
    names = OutputNames.of(options.annotation_prefix, options.annotation_type, options.run_name or "")
    with (
        obtained_model(
            options.model_url,
            sha256=options.model_sha256,
            cache=options.model_cache_dir,
            use_cache=options.use_model_cache,
        ) as model,
        _cells(options) as (cells, as_given),
    ):
        log(f"Naming the cells of {options.query} with {options.model_url}")
        return annotate_file(
            cells,
            options.output,
            Model(model),
            key=names.key,
            counts_layer=options.counts_layer if as_given else None,
            gene_column=options.gene_column_name,
            classifier=options.classifier,
            organism=options.organism,
            use_gpu=options.use_gpu,
            model_url=options.model_url,
            min_gene_overlap=options.min_gene_overlap,
            warn_gene_overlap=options.warn_gene_overlap,
            seed=options.seed,
            pipeline_version=options.pipeline_version,
        )


@contextmanager
def _cells(options: OneOptions) -> Iterator[tuple[Path, bool]]:
    """The cells as one h5ad, and whether that is the file as it was given: an h5ad without quality control."""
    if options.qc == "off" and find_input(options.query).kind == "h5ad":
        yield options.query, True
        return
    with tempfile.TemporaryDirectory() as scratch:
        folder, sample = Path(scratch), name_of(str(options.query.resolve()))
        log(f"Reading {options.query}")
        cells = folder / "counts.h5ad"
        run_convert(
            ConvertOptions(
                sample=sample,
                input=options.query,
                output=cells,
                metrics=folder / "convert.json",
                organism=options.organism,
                counts_layer=options.counts_layer,
                gene_column=options.gene_column_name,
                genome=options.genome,
                seed=options.seed,
            )
        )
        if options.qc != "off":
            log("Checking the quality of the cells")
            run_qc(
                cells,
                QcOptions(sample=sample, mode=options.qc, seed=options.seed),
                cpus=options.cpus,
                folder=folder,
            )
            cells = folder / f"{sample}.filtered.h5ad"
        yield cells, False
