"""One sample named by one command, without Nextflow: what `cellxgene annotate` does, with our reading and models."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cellscribe.annotated_file import write_annotated
from cellscribe.annotation import annotate_cells, grouping_of
from cellscribe.annotation_info import named_words
from cellscribe.answer import Strictness
from cellscribe.cli import log, warn
from cellscribe.clusters import RESOLUTION
from cellscribe.contract import OutputNames
from cellscribe.convert import ConvertOptions, run_convert
from cellscribe.counts_file import CountsFile, open_counts
from cellscribe.errors import InputError
from cellscribe.foreign import PredictOptions, answer_prediction, predict_cells
from cellscribe.genes import ORGANISMS
from cellscribe.model.foreign import is_foreign
from cellscribe.model.model import Model
from cellscribe.obtain import obtained_model
from cellscribe.one_file import annotate_file
from cellscribe.places import HOW_INSTEAD, hidden, is_registered
from cellscribe.qc import QcOptions, run_qc
from cellscribe.registry import parse_name, resolve
from cellscribe.sample_names import name_of
from cellscribe.several import looks_like_several
from cellscribe.tenx_places import find_input

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class OneOptions:
    """Options of `annotate_one.py`; see its --help. qc: off, filter or flag. use_gpu: None where nobody asked."""

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
    mlflow_tracking_uri: str = ""
    use_gpu: bool | None = None
    trust_model_code: bool = False
    mlflow_env_manager: str = "virtualenv"
    classifier: str = "default"
    min_probability: float | None = None
    reject_novel: bool = True
    novelty_limit: float | None = None
    cluster_key: str | None = None
    cluster_resolution: float = RESOLUTION
    organism: str = "auto"
    min_gene_overlap: float = 0.5
    warn_gene_overlap: float = 0.8
    orthologs: bool = False
    qc: str = "off"
    genome: str | None = None
    seed: int = 0
    cpus: int = 1
    pipeline_version: str = "unknown"

    @property
    def strictness(self) -> Strictness:
        """How strict the model is asked to be."""
        return Strictness(self.min_probability, self.reject_novel, self.novelty_limit)


def annotate_one(options: OneOptions) -> dict[str, Any]:
    """Write the annotated file; returns what annotation.json holds. Raises what the pipeline's steps raise."""
    names = OutputNames.of(options.annotation_prefix, options.annotation_type, options.run_name or "")
    source, shown = options.model_url, hidden(options.model_url)
    if "***@" in shown:
        raise InputError(f"--model-url: '{shown}' holds a user name or a password, {HOW_INSTEAD}")
    if is_registered(options.model_url):
        # An alias moves; what is written names the version.
        version = resolve(parse_name(options.model_url), options.mlflow_tracking_uri)
        source = shown = version.url
    # What is signed can be fetched; what is written and said does not repeat it.
    options = replace(options, model_url=shown)
    with obtained_model(
        source,
        sha256=options.model_sha256,
        cache=options.model_cache_dir,
        use_cache=options.use_model_cache,
        trust_model_code=options.trust_model_code,
        tracking_uri=options.mlflow_tracking_uri,
    ) as model:
        if is_foreign(model):
            return _annotate_by_others(options, model, names)
        with _cells(options) as (cells, as_given):
            log(f"Naming the cells of {options.query} with {options.model_url}")
            info = annotate_file(
                cells,
                options.output,
                Model(model),
                key=names.key,
                counts_layer=options.counts_layer if as_given else None,
                gene_column=options.gene_column_name,
                classifier=options.classifier,
                strictness=options.strictness,
                cluster_key=options.cluster_key,
                cluster_resolution=options.cluster_resolution,
                organism=options.organism,
                use_gpu=options.use_gpu,
                model_url=options.model_url,
                min_gene_overlap=options.min_gene_overlap,
                warn_gene_overlap=options.warn_gene_overlap,
                orthologs=options.orthologs,
                told=not as_given,
                seed=options.seed,
                cpus=options.cpus,
                pipeline_version=options.pipeline_version,
            )
            if as_given and (several := looks_like_several(_obs_of(cells))):
                warn(several)
            return info


def _annotate_by_others(options: OneOptions, model: Path, names: OutputNames) -> dict[str, Any]:
    """As the pipeline does it: the code gets a file whose X holds the counts, wherever they were found."""
    with _cells(options, always_read=True) as (path, _):
        log(f"Naming the cells of {options.query} with {options.model_url}")
        cells = open_counts(path)
        prediction = predict_cells(
            cells,
            path,
            model,
            PredictOptions(
                classifier=options.classifier,
                # Their code is told one also where the genes tell none: what is the default in the documents.
                organism="Homo sapiens"
                if options.organism == "auto" and cells.organism not in ORGANISMS
                else options.organism,
                gene_column_name=options.gene_column_name,
                use_gpu=options.use_gpu is not False,
                mlflow_env_manager=options.mlflow_env_manager,
                trust_model_code=options.trust_model_code,
                seed=options.seed,
            ),
        )
        annotation = annotate_cells(
            answer_prediction(prediction, options.model_url, options.strictness),
            cells.obs.index,
            names,
            grouping=grouping_of(cells.obs, options.cluster_key, options.cluster_resolution),
            seed=options.seed,
            cpus=options.cpus,
            pipeline_version=options.pipeline_version,
        )
        write_annotated(
            options.query if _stays_as_given(options, cells) else path, annotation, options.output
        )
    log(f"{named_words(annotation.info)}: {options.output}")
    return annotation.info


def _stays_as_given(options: OneOptions, cells: CountsFile) -> bool:
    """Whether the answer can be added to the h5ad that was given: all its cells were read."""
    return (
        options.qc == "off" and _can_be_added_to(options.query) and len(_obs_of(options.query)) == cells.n_obs
    )


def _obs_of(path: Path) -> pd.DataFrame:
    import h5py
    from anndata.io import read_elem

    with h5py.File(path, "r") as file:
        return read_elem(file["obs"])


def _can_be_added_to(query: Path) -> bool:
    """Whether this is an h5ad as anndata has written it from 0.7 on, which has columns of obs one by one."""
    if find_input(query).kind != "h5ad":
        return False
    import h5py

    try:
        with h5py.File(query, "r") as file:
            return not isinstance(file.get("obs"), h5py.Dataset)
    except OSError:
        # Whoever reads it next says what is wrong.
        return True


@contextmanager
def _cells(options: OneOptions, *, always_read: bool = False) -> Iterator[tuple[Path, bool]]:
    """The cells as one h5ad, and whether that is the file as it was given: an h5ad, whole, without quality control.

    always_read: give a counts file of ours all the same.
    """
    as_given = not always_read and options.qc == "off" and options.genome is None
    if as_given and _can_be_added_to(options.query):
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
