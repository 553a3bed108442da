"""The labelled cells of an import from scvi-tools, read and encoded: where they lie in the model's latent space."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import scipy.sparse as sp

from cellscribe import genes as gene_names
from cellscribe.align import GeneMatch, check_overlap, looks_like, match_genes
from cellscribe.cli import log, warn
from cellscribe.errors import InputError
from cellscribe.importing.calibrate import TestCells, gene_names_of
from cellscribe.importing.organism import organism_of
from cellscribe.io import scratch_beside
from cellscribe.label_csv import is_labelled
from cellscribe.model.encoder import Encoder
from cellscribe.model.robust import thinned_copy
from cellscribe.model.scvi_model import ScviModel
from cellscribe.schema import nearest
from cellscribe.training.disk import blocks_of, on_disk
from cellscribe.training.held_out import GENE_SHARES, only
from cellscribe.training.members import as_stored, copies_on_disk, encode, rows_of_copies
from cellscribe.training.options import ModelOptions
from cellscribe.training.reference import LabelledCells, common_labels, read_reference

OTHER_CELLS = (
    "Give cells of the same organism with --reference, or name the var column that holds such names with "
    "--gene-column-name. --min-gene-overlap lowers the bar."
)


@dataclass(frozen=True)
class ScviOptions(ModelOptions):
    """Options of `import_model.py scvi`; see its --help."""

    model: Path
    output: Path
    reference: tuple[Path, ...] = ()
    counts_layer: str | None = None
    gene_column_name: str | None = None
    name: str | None = None
    seed: int = 0
    test: TestCells = field(default_factory=TestCells)
    trust_model_code: bool = False
    cpus: int = 1


@dataclass(frozen=True)
class Placed:
    """The reference in the model's latent space.

    cells: its labels and batches; its counts are on the reference's own genes, or on none where the file holds the
    latent alone. counts: CSR on the model's genes, None where there are none. latent: (n_rows, n_latent) of the cells
    and their altered copies, each encoded with its own covariates; source: (n_rows,), each row's cell. asked, altered:
    (n_cells, n_latent), the cells as a query's would lie, as they are and thinned; altered is None without counts.
    fewer_genes: the same without some of the genes, by the share that is left.
    """

    cells: LabelledCells
    encoder: Encoder
    latent: np.ndarray
    source: np.ndarray
    asked: np.ndarray
    genes: pd.DataFrame
    altered: np.ndarray | None = None
    fewer_genes: Mapping[float, np.ndarray] = field(default_factory=dict)
    counts: sp.csr_matrix | None = None
    notes: tuple[str, ...] = ()


def place_reference(model: ScviModel, options: ScviOptions, name: str, label_key: str, file: Path) -> Placed:
    """Read the labelled cells and encode them.

    Without `options.reference` they are those that the model was saved with. Raises InputError where they cannot be
    read, ModelMismatchError where their genes are not the model's.
    """
    given = options.reference
    if not given:
        saved = file.with_name(file.name.removesuffix("model.pt") + "adata.h5ad")
        if not saved.is_file():
            raise InputError(
                "no labelled cells were given, and the model was saved without its own (adata.h5ad)",
                "Give cells that it was trained on with --reference, and their labels with --label-key.",
                file=file,
            )
        placed = _minified(model, saved, options, label_key)
        if placed is not None:
            return placed
        given = (saved,)
    scratch = scratch_beside(options.output)
    cells = read_reference(
        given,
        label_key,
        batch_key=_batch_key(model, options, given),
        organism=options.organism,
        counts_layer=options.counts_layer,
        gene_column=options.gene_column_name,
        covariates=[column for column in _columns(model) if column],
        no_label=model.unlabelled,
        scratch=scratch,
    )
    genes, match = _genes(model, cells, options, name)
    counts = on_disk((match.on_model(block) for _, block in blocks_of(cells.counts)), len(genes), scratch)
    notes = _covariate_notes(model, cells, given[0])
    own = model.covariates(cells.covariates)
    encoder = model.encoder(own.mean(axis=0))
    every = np.arange(counts.shape[0])
    copies = copies_on_disk(counts, 1, np.random.default_rng(options.seed), scratch)
    rows, source = rows_of_copies(every, len(every), 1)
    of_rows = own[source] if model.encodes_covariates else None
    to_thin, to_drop = (np.random.default_rng(options.seed + add) for add in (1, 2))
    kept = {share: to_drop.random(counts.shape[1]) < share for share in GENE_SHARES}
    return Placed(
        cells=cells,
        encoder=encoder,
        latent=as_stored(encode(encoder, copies, rows, of_rows)),
        source=source,
        asked=encode(encoder, counts, every),
        altered=encode(encoder, counts, every, alter=partial(thinned_copy, rng=to_thin)),
        fewer_genes={
            share: encode(encoder, counts, every, alter=partial(only, kept=genes))
            for share, genes in kept.items()
        },
        counts=counts,
        genes=genes,
        notes=tuple(notes),
    )


def _covariate_notes(model: ScviModel, cells: LabelledCells, file: Path) -> list[str]:
    """How the cells and a query are encoded where the encoder takes covariates; none where it takes none.

    Raises InputError where the cells lack a continuous one, which no category stands for.
    """
    if not model.encodes_covariates:
        return []
    absent = [column for column in _columns(model) if column not in cells.covariates]
    numbers = [column for column in model.continuous if column in absent]
    if numbers:
        raise InputError(
            f"the encoder takes the continuous covariate '{numbers[0]}', and the cells have no such obs column",
            f"Add obs['{numbers[0]}'] as the model was trained with it.",
            file=file,
        )
    notes = [
        f"The reference cells have no obs column '{column}', which the encoder takes: they were encoded as the "
        "average of its categories."
        for column in absent
    ]
    if model.continuous or model.categorical:
        also = ", ".join([*model.categorical, *model.continuous])
        return [*notes, f"A query is encoded with the reference's average of batch, {also}."]
    return [*notes, "A query is encoded with the reference's average of batches, or fine-tuned (--surgery)."]


def _columns(model: ScviModel) -> list[str]:
    """The obs columns that the model's covariates come from."""
    batch = model.column("batch")
    return [*([batch] if batch else []), *model.categorical, *model.continuous]


def _batch_key(model: ScviModel, options: ScviOptions, files: tuple[Path, ...]) -> str | None:
    """The obs column of batches: that which was asked for, or the model's own where all files have it."""
    if options.test.batch_key or not (own := model.column("batch")):
        return options.test.batch_key
    return own if all(own in _obs_columns(file) for file in files) else None


def _obs_columns(path: Path) -> set[str]:
    import h5py

    try:
        with h5py.File(path, "r") as file:
            return set(file["obs"])
    except (OSError, KeyError):
        return set()  # read_reference says what is wrong


def _genes(
    model: ScviModel, cells: LabelledCells, options: ScviOptions, name: str
) -> tuple[pd.DataFrame, GeneMatch]:
    """The model's genes by id and symbol, where the reference has both, and which reference gene is which."""
    genes = _own_genes(model)
    var = pd.DataFrame(
        {"gene_ids": cells.genes["gene_id"].to_numpy(), "gene_symbols": cells.genes["symbol"].to_numpy()}
    )
    match = match_genes(var.set_axis(cells.genes["symbol"].astype(str), axis=0), genes)
    told, _ = gene_names.detect_organism(genes["gene_id"].to_numpy(), genes["symbol"].to_numpy())
    for warning in check_overlap(
        match,
        gene_names_of(cells.genes),
        model=name,
        # The model's, and not the cells': which of the two is the wrong one is what the reader must know.
        organism=told if told in gene_names.ORGANISMS else cells.organism,
        minimum=options.test.min_gene_overlap,
        warn_below=0.8,
        advice=f"The model's own look like {looks_like(pd.Series(model.genes))}. {OTHER_CELLS}",
    ):
        warn(warning)
    log(f"{int(match.found.sum()):,} of the model's {len(genes):,} genes are in the reference")
    there, which = match.selector.tocoo().row, match.selector.tocoo().col
    for column in ("gene_id", "symbol"):
        theirs = pd.Series("", index=np.arange(len(genes)), dtype=object)
        theirs.iloc[which] = cells.genes[column].to_numpy()[there]
        twice = theirs.duplicated(keep=False)
        genes[column] = np.where((genes[column] == "") & ~twice, theirs, genes[column])
    return genes, match


def _own_genes(model: ScviModel) -> pd.DataFrame:
    names = np.array(model.genes, dtype=object)
    ids = gene_names.ensembl_ids(names)
    symbols = np.where(ids == "", names, gene_names.looked_up_symbols(ids)).astype(object)
    return pd.DataFrame({"gene_id": ids, "symbol": symbols})


def _minified(model: ScviModel, file: Path, options: ScviOptions, label_key: str) -> Placed | None:
    """The cells of a minified model, of which there is no more than the latent; None where the file has counts."""
    saved = _saved_latent(model, file)
    if saved is None:
        return None
    obs, latent = saved
    batch_key = options.test.batch_key or model.column("batch")
    for column in filter(None, (label_key, options.test.batch_key)):
        if column not in obs:
            raise InputError(
                f"there is no obs column '{column}'; there are: {', '.join(map(str, obs.columns))}"
                f"{nearest(column, map(str, obs.columns))}",
                "Name one of these, or give labelled cells with --reference.",
                file=file,
            )
    labels = gene_names.as_text(obs[label_key])
    labelled = is_labelled(labels, model.unlabelled)
    common, left_out = common_labels(labels[labelled], label_key, file)
    rows = np.flatnonzero(labelled)[common]
    genes = _own_genes(model)
    organism = organism_of(options.organism, genes, model.genes, file)
    batches = (
        gene_names.as_text(obs[batch_key]) if batch_key in obs else np.full(len(obs), "all", dtype=object)
    )
    cells = LabelledCells(
        counts=sp.csr_matrix((len(rows), 0), dtype=np.float32),
        genes=genes.iloc[:0],
        labels=labels[rows],
        batches=batches[rows],
        organism=organism,
        sources=[file.name],
        left_out=left_out,
        n_unlabelled=int((~labelled).sum()),
        covariates=obs.iloc[rows],
    )
    notes = [
        "The model was saved without counts (minified): it has no marker genes, no genes that its types lack, and no "
        "copies of thinned cells."
    ]
    default = None
    if model.encodes_covariates:
        default = model.covariates(cells.covariates).mean(axis=0)
        notes.append(
            "Its encoder takes covariates: the test cells lie where their own batch puts them, while a query is "
            "encoded with the reference's average, or fine-tuned (--surgery)."
        )
    return Placed(
        cells=cells,
        encoder=model.encoder(default),
        latent=as_stored(latent[rows]),
        source=np.arange(len(rows)),
        asked=latent[rows],
        genes=genes,
        notes=tuple(notes),
    )


def _saved_latent(model: ScviModel, file: Path) -> tuple[pd.DataFrame, np.ndarray] | None:
    """The obs and the latent, float32 (n_obs, n_latent), of a minified model's cells; None where there are counts."""
    import anndata

    adata = anndata.read_h5ad(file, backed="r")
    try:
        stored = [
            model.registry["field_registries"].get("latent_qzm", {}).get("data_registry", {}).get("attr_key")
        ]
        stored += [f"{model.kind.lower()}_latent_qzm", f"_{model.kind.lower()}_latent_qzm", "X_latent_qzm"]
        key = next((key for key in stored if key and key in adata.obsm), None)
        if key is None or adata.X[:100].sum():
            return None
        return adata.obs, np.asarray(adata.obsm[key], dtype=np.float32)
    finally:
        adata.file.close()
