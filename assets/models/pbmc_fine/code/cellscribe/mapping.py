"""MAP: put a sample's cells into a model's reference."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import scipy.sparse as sp

from cellscribe.align import WHERE_GENES_DO_NOT_FIT, GeneMatch, check_overlap, match_genes, query_gene_names
from cellscribe.cli import log, warn
from cellscribe.counts_file import CHUNK_ROWS, CountsFile, open_counts
from cellscribe.errors import InputError, ModelMismatchError
from cellscribe.genes import read_organism
from cellscribe.io import write_h5ad
from cellscribe.model.logistic import Logistic, log_normalise
from cellscribe.model.model import LIKELIHOOD, LOGISTIC, Model
from cellscribe.model.neighbours import N_NEIGHBOURS, nearest
from cellscribe.model.reference_counts import FEWEST_GENES, REFIT_BELOW
from cellscribe.parallel import in_order
from cellscribe.progress import progress
from cellscribe.surgery import Surgery, Tuned, tune

if TYPE_CHECKING:
    import pandas as pd

    from cellscribe.model.encoder import Encoder

# Two cores encode so many and find their neighbours in some ten seconds; loading PyTorch takes a few.
FEWEST_FOR_GPU = 500_000
LARGEST = 1e9


class Cells(Protocol):
    """Raw counts that can be read by rows: a counts file, or a matrix in memory."""

    @property
    def var(self) -> pd.DataFrame:
        """One row a gene."""

    @property
    def n_obs(self) -> int:
        """Cells."""

    def chunks(self, rows: int = CHUNK_ROWS) -> Iterator[tuple[slice, sp.csr_matrix]]:
        """Consecutive rows and their counts, CSR float32 (n_rows, n_genes)."""


@dataclass(frozen=True)
class Mapping:
    """A sample in a model's reference; arrays have one row a cell, or are None where the model lacks the member.

    sketches: of the cells' expression (`Profiles`); label_sketches: (n_labels, n_numbers), those of the model's labels
    on the genes that the sample has.
    """

    latent: np.ndarray | None
    distances: np.ndarray | None
    indices: np.ndarray | None
    logistic_scores: np.ndarray | None
    likelihood_scores: np.ndarray | None
    n_model_counts: np.ndarray
    n_counts: np.ndarray
    n_silent_counts: np.ndarray
    info: dict[str, Any]
    barcodes: pd.Index | None = None
    sketches: np.ndarray | None = None
    label_sketches: np.ndarray | None = None

    @property
    def n_obs(self) -> int:
        """Cells."""
        return len(self.n_model_counts)

    def arrays(self) -> dict[str, np.ndarray | None]:
        """What the members name cells by, as `Model.member_probabilities` takes it."""
        return {
            "latent": self.latent,
            "distances": self.distances,
            "indices": self.indices,
            "logistic_scores": self.logistic_scores,
            "likelihood_scores": self.likelihood_scores,
        }


def check_organism(model: Model, given: str, seen: str, *, orthologs: bool = False) -> str:
    """The sample's organism where its genes are to be mapped to the model's by orthologues, else "".

    given: `auto` or what the user said; seen: what CONVERT found. orthologs: whether the user asks for them. Raises
    ModelMismatchError where the sample is of another organism than the model, and the user does not.
    """
    organism = read_organism(given)
    if organism == "auto":
        organism = seen
    wanted = model.manifest["organism"]
    if organism in ("unknown", wanted):
        return ""
    if orthologs:
        return organism
    found = "the sample's genes are" if given == "auto" else "the sample was given as"
    raise ModelMismatchError(
        f"the model '{model.name}' is for {wanted}, but {found} {organism}",
        f"Use a {organism} model with --model, or map the {organism} genes to the model's by one-to-one orthologues "
        "with --orthologs.",
    )


@dataclass(frozen=True)
class SampleGenes:
    """A sample's genes and where they are among the model's.

    var, column: by what names they are found (of the model's organism, where `orthologs` says that they were mapped).
    """

    var: pd.DataFrame
    column: str | None
    match: GeneMatch
    orthologs: dict[str, Any] | None
    warnings: list[str]


def find_genes(
    var: pd.DataFrame,
    model: Model,
    gene_column: str | None,
    orthologs_of: str,
    min_gene_overlap: float,
    warn_gene_overlap: float,
    advice: str,
) -> SampleGenes:
    """Match a sample's genes to the model's. advice: of `check_overlap`.

    Raises ModelMismatchError where too few of the model's are there, InputError where `gene_column` is not.
    """
    named, column, orthologs = var, gene_column, None
    if orthologs_of:
        from cellscribe.orthologs import named_as

        # The names are the model's organism's from here on.
        named, matched_by = named_as(var, orthologs_of, model.manifest["organism"], gene_column)
        column = None
        n_genes = int((named["gene_ids"] != "").sum())
        orthologs = {"from": orthologs_of, "to": model.manifest["organism"], "n_genes": n_genes}
    match = match_genes(named, model.genes, column, numbered=is_numbered(model))
    if orthologs:
        match = replace(match, matched_by=matched_by)
    warnings = check_overlap(
        match,
        next(iter(query_gene_names(var, gene_column or "index").values())),
        model=model.name,
        organism=model.manifest["organism"],
        minimum=min_gene_overlap,
        warn_below=warn_gene_overlap,
        by_orthologs=bool(orthologs),
        advice=advice,
    )
    if orthologs:
        warnings.append(ortholog_warning(match, orthologs))
    return SampleGenes(named, column, match, orthologs, warnings)


def has_encoder(model: Model) -> bool:
    """Whether the model is more than a regression."""
    return set(model.members) != {LOGISTIC}


def is_numbered(model: Model) -> bool:
    """Whether the model's genes were named by numbers alone."""
    return bool(model.manifest["genes"].get("numbered"))


class Placement:
    """What the members of a model need of each chunk of a sample's counts.

    All of the model that it uses is read when it is made, so that threads can share it. encoder: one that was
    fine-tuned, in the place of the model's own.
    """

    def __init__(self, model: Model, genes: SampleGenes, encoder: Encoder | None, device: str | None) -> None:
        self.model, self.match = model, genes.match
        has_latent, has_logistic = has_encoder(model), LOGISTIC in model.members
        # genes that no reference type expresses: what a cell says with them, the model cannot read
        silent = match_genes(genes.var, model.silent_genes, genes.column, fill_in=False)
        self.n_silent_genes = int(silent.found.sum())
        self.is_silent = (np.diff(silent.selector.indptr) > 0) & (np.diff(self.match.selector.indptr) == 0)
        self.encoder = (encoder or model.encoder) if has_latent else None
        self.reference = model.reference.latent if has_latent else np.empty((0, 0))
        self.profiles = model.profiles if has_latent else None
        self.regression, self.on_regression = model.logistic if has_logistic else None, self.match
        if has_logistic and expression_overlap(self.match, model) < REFIT_BELOW:
            self.regression, self.on_regression = refitted(model, genes)
        # Whether the regression wants counts normalised as the sketches do, so that it is done once.
        self.regression_shares = (
            self.regression is not None and self.on_regression is self.match and not self.regression.all_genes
        )
        self.likelihood = model.likelihood.on(self.match.found) if LIKELIHOOD in model.members else None
        self.on_gpu = None
        if device and self.encoder is not None:
            from cellscribe.gpu import Placer

            self.on_gpu = Placer(self.encoder, self.reference, device)

    @property
    def n_refit_genes(self) -> int:
        """Genes that the regression was fitted anew on; 0 where it is the model's own."""
        return 0 if self.on_regression is self.match else int(self.on_regression.found.sum())

    def place(self, chunk: sp.csr_matrix) -> dict[str, np.ndarray]:
        """`Mapping`'s arrays of some cells. chunk: raw counts, CSR (n_cells, n_query_genes)."""
        on_model, n_silent_counts = self.match.split(chunk, self.is_silent)
        n_counts = np.asarray(chunk.sum(axis=1)).ravel()
        part = {
            "n_model_counts": np.asarray(on_model.sum(axis=1)).ravel(),
            "n_counts": n_counts,
            "n_silent_counts": n_silent_counts,
        }
        if self.on_gpu is not None:
            latent, part["distances"], part["indices"] = self.on_gpu.place(on_model, N_NEIGHBOURS)
            part["latent"] = finite(latent, self.model)
        elif self.encoder is not None:
            part["latent"] = finite(self.encoder.encode(on_model), self.model)
            part["distances"], part["indices"] = nearest(part["latent"], self.reference, N_NEIGHBOURS)
        if self.profiles is not None or self.regression_shares:
            logged = log_normalise(on_model, totals=part["n_model_counts"])
        if self.profiles is not None:
            # Half as much to keep and to write; its last digit says nothing of a mean over cells.
            part["sketches"] = finite(self.profiles.sketch(logged), self.model).astype(np.float16)
        if self.likelihood is not None:
            scores = self.likelihood.scores(on_model, part["n_model_counts"])
            part["likelihood_scores"] = finite(scores, self.model)
        if self.regression is not None:
            found = self.on_regression.found
            if self.regression_shares:
                scores = self.regression.scores_of(logged, found=found)
            else:
                on = on_model
                if self.on_regression is not self.match:
                    on = self.on_regression.on_model(chunk)
                    n_own = np.asarray(on.sum(axis=1)).ravel()
                    part["n_model_counts"] = np.maximum(part["n_model_counts"], n_own)
                scores = self.regression.scores(on, totals=n_counts, found=found)
            part["logistic_scores"] = finite(scores, self.model)
        return part


def joined(parts: Iterable[dict[str, np.ndarray]], n_obs: int) -> dict[str, np.ndarray]:
    """The arrays of consecutive cells as one each, filled as they come."""
    whole: dict[str, np.ndarray] = {}
    start = 0
    for part in parts:
        stop = start + len(part["n_counts"])
        for name, values in part.items():
            if name not in whole:
                whole[name] = np.empty((n_obs, *values.shape[1:]), values.dtype)
            whole[name][start:stop] = values
        start = stop
    return whole


def map_cells(
    counts: Cells,
    model: Model,
    *,
    gene_column: str | None = None,
    min_gene_overlap: float = 0.5,
    warn_gene_overlap: float = 0.8,
    use_gpu: bool | None = False,
    surgery: Surgery | None = None,
    orthologs_of: str = "",
    advice: str = WHERE_GENES_DO_NOT_FIT,
    chunk_rows: int = CHUNK_ROWS,
    cpus: int = 1,
) -> Mapping:
    """Encode the cells, find their nearest reference cells, score them by the logistic regression and the likelihood.

    One pass over the counts, in chunks of `chunk_rows` cells, `cpus` of them at a time. use_gpu: None for one where it
    helps, without a word where it does not. surgery: how to fine-tune the encoder on the cells first, which takes one
    pass more, and memory for the counts on the model's genes. orthologs_of: the cells' organism, where their genes are
    to be found by one-to-one orthologues. advice: of `check_overlap`. Raises ModelMismatchError where too few of the
    model's genes are there, InputError where `gene_column` is not or there is no cell.
    """
    if not counts.n_obs:
        raise InputError("there is no cell to map", "Check the cells that quality control removed.")
    genes = find_genes(
        counts.var, model, gene_column, orthologs_of, min_gene_overlap, warn_gene_overlap, advice
    )
    warnings = genes.warnings
    device = None
    if use_gpu is not False:
        device = gpu_for(counts.n_obs, has_encoder(model), surgery, asked=use_gpu is True)
    tuned = Tuned()
    if surgery is not None:
        tuned = tune(model, counts, genes.match, surgery, device)
        warnings = [*warnings, *tuned.warnings]
    placement = Placement(model, genes, tuned.encoder, device)
    n_chunks = -(-counts.n_obs // chunk_rows)
    placed = in_order(placement.place, (chunk for _, chunk in counts.chunks(chunk_rows)), cpus)
    arrays = joined(progress(placed, total=n_chunks, label="mapping"), counts.n_obs)
    for warning in warnings:
        warn(warning)
    return Mapping(
        arrays.get("latent"),
        arrays.get("distances"),
        arrays.get("indices"),
        arrays.get("logistic_scores"),
        arrays.get("likelihood_scores"),
        arrays["n_model_counts"],
        arrays["n_counts"],
        arrays["n_silent_counts"],
        mapping_info(genes.match, model, warnings)
        | {
            "n_silent_genes_found": placement.n_silent_genes,
            "n_refit_genes": placement.n_refit_genes,
            "surgery_epochs": tuned.epochs,
            "orthologs": genes.orthologs,
        },
        sketches=arrays.get("sketches"),
        label_sketches=None
        if placement.profiles is None
        else placement.profiles.of_labels(genes.match.found),
    )


def gpu_for(n_cells: int, has_latent: bool, surgery: Surgery | None, *, asked: bool = True) -> str | None:
    """The device to map so many cells on, None for the processor.

    has_latent: whether the model has an encoder. asked: whether the user did, and is told why none is used.
    """
    why_not = ""
    if not has_latent:
        why_not = "this model is a regression alone, which has no use for a GPU"
    elif surgery is None and n_cells < FEWEST_FOR_GPU:
        why_not = f"{n_cells:,} cells are mapped in seconds; a GPU is used from {FEWEST_FOR_GPU:,} cells on"
    if not why_not:
        from cellscribe.gpu import find_gpu

        return find_gpu(asked=asked)
    if asked:
        log(f"--use_gpu: {why_not}")
    return None


def finite(values: np.ndarray, model: Model) -> np.ndarray:
    """What a model gives of some cells, as it is. Raises ModelMismatchError where it is no number."""
    # Far above what any model gives, and far below what overflows when it is squared.
    if not -LARGEST < values.min() <= values.max() < LARGEST:
        raise ModelMismatchError(
            f"the model '{model.name}' gives numbers without bounds for these cells",
            "The model is damaged, or was never tried: ask whoever made it.",
        )
    return values


def ortholog_warning(match: GeneMatch, orthologs: dict[str, Any]) -> str:
    """What a reader must know of cells that a model of another organism named."""
    return (
        f"These are {orthologs['from']} cells, named by a model of {orthologs['to']} cells: {int(match.found.sum()):,} "
        f"of its {len(match.found):,} genes were found by one-to-one orthologues. Its uncertainty was calibrated on "
        f"{orthologs['to']} cells; do not trust it as much here."
    )


def refitted(model: Model, genes: SampleGenes) -> tuple[Logistic, GeneMatch]:
    """The regression fitted anew on the genes that the sample has, and which these are; the model's own where it holds
    no counts to fit from, or the sample has hardly a gene.
    """
    reference = model.reference_counts
    if reference is None:
        return model.logistic, genes.match
    on = match_genes(genes.var, reference.genes, genes.column, numbered=is_numbered(model))
    if on.found.sum() < FEWEST_GENES:
        return model.logistic, genes.match
    log(f"fitting the regression anew on {on.found.sum():,} genes that the sample has")
    return reference.regression(on.found, len(model.labels)), on


def expression_overlap(match: GeneMatch, model: Model) -> float:
    """Share of the reference's expression (log-normalised, summed over the model's genes) on genes that the query has.

    A table from which rarely seen genes were removed lacks many genes and little expression: it is hardly poorer.
    """
    mean = model.genes["mean"].to_numpy(dtype=np.float64)
    return float(mean[match.found].sum() / mean.sum()) if mean.sum() > 0 else match.overlap


def mapping_info(match: GeneMatch, model: Model, warnings: list[str]) -> dict[str, Any]:
    """What is said of the genes: overlap, by which names, the most important missing ones."""
    missing = model.genes[~match.found].sort_values("importance", ascending=False)
    return {
        "gene_overlap": match.overlap,
        "expression_overlap": expression_overlap(match, model),
        "n_model_genes": len(match.found),
        "n_genes_found": int(match.found.sum()),
        "genes_matched_by": match.matched_by,
        "n_genes_respelled": match.n_respelled,
        "missing_genes": [
            symbol or gene_id
            for symbol, gene_id in zip(missing["symbol"].head(50), missing["gene_id"].head(50), strict=True)
        ],
        "model_sha256": model.sha256,
        "warnings": warnings,
    }


def run_map(
    counts: Path,
    model_folder: Path,
    output: Path,
    *,
    organism: str = "auto",
    gene_column: str | None = None,
    min_gene_overlap: float = 0.5,
    warn_gene_overlap: float = 0.8,
    use_gpu: bool = False,
    surgery: Surgery | None = None,
    orthologs: bool = False,
    cpus: int = 1,
    rows: tuple[int, int] | None = None,
) -> None:
    """Map the cells of a filtered counts file and write mapping.h5ad (docs/architecture.md).

    rows: map these alone, first and behind the last; `shards.run_gather` joins such parts.
    """
    sample, model = open_counts(counts, rows), Model(model_folder)
    orthologs_of = check_organism(model, organism, sample.organism, orthologs=orthologs)
    mapping = map_cells(
        sample,
        model,
        gene_column=gene_column,
        min_gene_overlap=min_gene_overlap,
        warn_gene_overlap=warn_gene_overlap,
        use_gpu=use_gpu,
        surgery=surgery,
        orthologs_of=orthologs_of,
        cpus=cpus,
    )
    write_mapping(mapping, sample, output)
    log(
        f"{sample.n_obs:,} cells mapped by {mapping.info['n_genes_found']:,} of {mapping.info['n_model_genes']:,} genes"
    )


def write_mapping(mapping: Mapping, sample: CountsFile, output: Path) -> None:
    """Write mapping.h5ad."""
    import anndata

    arrays = {
        "latent": mapping.latent,
        "neighbour_distances": mapping.distances,
        "neighbour_indices": mapping.indices,
        "logistic_scores": mapping.logistic_scores,
        "likelihood_scores": mapping.likelihood_scores,
        "sketches": mapping.sketches,
    }
    of_labels = {} if mapping.label_sketches is None else {"label_sketches": mapping.label_sketches}
    write_h5ad(
        anndata.AnnData(
            obs=sample.obs[[]].assign(
                n_model_counts=mapping.n_model_counts,
                n_counts=mapping.n_counts,
                n_silent_counts=mapping.n_silent_counts,
            ),
            obsm={key: array for key, array in arrays.items() if array is not None},
            uns={"mapping": json.dumps(mapping.info, sort_keys=True)}
            | of_labels
            | ({"shard": json.dumps(asdict(sample.shard))} if sample.shard else {}),
        ),
        output,
    )


def read_mapping(path: Path) -> Mapping:
    """Read mapping.h5ad. Raises InputError for anything else."""
    import anndata

    try:
        adata = anndata.read_h5ad(path)
        obs = {name: adata.obs[name].to_numpy() for name in ("n_model_counts", "n_counts", "n_silent_counts")}
        info = json.loads(adata.uns["mapping"])
    except (OSError, LookupError, ValueError, TypeError) as error:
        raise no_mapping(path, error) from error
    return Mapping(
        latent=adata.obsm.get("latent"),
        distances=adata.obsm.get("neighbour_distances"),
        indices=adata.obsm.get("neighbour_indices"),
        logistic_scores=adata.obsm.get("logistic_scores"),
        likelihood_scores=adata.obsm.get("likelihood_scores"),
        **obs,
        info=info,
        barcodes=adata.obs_names,
        sketches=adata.obsm.get("sketches"),
        label_sketches=adata.uns.get("label_sketches"),
    )


def no_mapping(path: Path, error: Exception) -> InputError:
    """What to say of a file that should be a mapping."""
    return InputError(
        f"this is no mapping that the MAP or PREDICT step wrote ({error})",
        "Run map.py, or predict.py for a model made by others, on these counts first.",
        file=path,
    )
