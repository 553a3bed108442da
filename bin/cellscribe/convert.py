"""Any input as one counts.h5ad: raw counts of genes whose identity is known (docs/architecture.md)."""

from __future__ import annotations

import json
import re
from collections.abc import Container, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from cellscribe import genes
from cellscribe.aggregated import aggregation_table
from cellscribe.cell_calling import CalledCells, call_cells, droplet_shape, is_unfiltered
from cellscribe.cli import log, warn
from cellscribe.contract import free_name
from cellscribe.counts import GENE_EXPRESSION, gene_features
from cellscribe.counts_file import new_counts_file, new_dense
from cellscribe.errors import InputError
from cellscribe.h5ad_input import open_h5ad
from cellscribe.io import scratch_beside, without_nul, write_json
from cellscribe.several import looks_like_several, origin_of
from cellscribe.stored import SomeColumns, blocks, group_totals
from cellscribe.tables import writable
from cellscribe.tenx import AnyCounts, choose_genome, genome_called, read_tenx
from cellscribe.tenx_places import find_input

if TYPE_CHECKING:
    import anndata

# Features beside the genes are kept as dense columns; peaks by the hundred thousand are not.
MAX_DENSE_FEATURES = 20_000
# Columns of obs that the input may have found otherwise than we do.
KEPT_AS_INPUT = ("sample", "batch", "doublet_score", "predicted_doublet")


@dataclass(frozen=True)
class ConvertOptions:
    """Options of `convert.py`; see its --help. call_cells: auto, true or false. Empty text is as good as None."""

    sample: str
    input: Path
    output: Path
    metrics: Path
    organism: str = "auto"
    counts_layer: str | None = None
    gene_column: str | None = None
    genome: str | None = None
    call_cells: str = "auto"
    batch: str | None = None
    seed: int = 0


@dataclass(frozen=True)
class PickedGenes:
    """The genes to go on with, of one genome.

    n_features: features of the input by kind. is_gene: bool, (n_features,). other_species: bool, (n_obs,), the cells
    that are mostly of another genome, None where there is but one. genomes: their names. prefix: the genome's prefix
    that was taken off the names. by_genome: each cell's counts on each genome's genes, this one's first,
    (n_obs, n_genomes); None where there is but one.
    """

    n_features: dict[str, int]
    is_gene: np.ndarray
    other_species: np.ndarray | None
    genomes: list[str]
    by_genome: np.ndarray | None
    identity: genes.GeneIdentity
    prefix: str

    @property
    def columns(self) -> np.ndarray:
        """Columns of the matrix, int (n_genes,)."""
        return np.flatnonzero(self.is_gene)


@dataclass(frozen=True)
class KeptCells:
    """The cells to go on with: `keep`, bool, and `totals`, counts on the picked genes, each (n_obs,).

    called: how cells were called among all droplets, None where they were not.
    """

    keep: np.ndarray
    totals: np.ndarray
    called: dict[str, Any] | None

    @property
    def rows(self) -> np.ndarray:
        """Rows of the matrix, int (n_cells,)."""
        return np.flatnonzero(self.keep)


def run_convert(options: ConvertOptions) -> dict[str, Any]:
    """Read, check and write one sample. Returns what convert.json holds. Raises InputError for bad input."""
    asked = genes.read_organism(options.organism)
    counts = read_any(options)
    _not_empty(counts, options.input)
    picked = _pick_genes(counts, options)
    notes = [*counts.notes, *picked.identity.notes]
    warnings = [*counts.warnings, *picked.identity.warnings]
    organism, sentence = genes.check_organism(asked, picked.identity.gene_ids, picked.identity.gene_symbols)
    (notes if organism != "unknown" else warnings).append(sentence)
    kept = _keep_cells(counts, picked, options, notes, warnings)
    tables, others = _tables(counts, picked, kept, options, notes, warnings)
    report = _report(counts, picked, kept, tables, options, organism, notes, warnings)
    if names := _names_of_features(counts, others, tables.obsm):
        tables.uns["feature_names"] = names
    tables.uns["cellscribe"] = {
        "sample": options.sample,
        "organism": organism,
        "convert": json.dumps(report, sort_keys=True),
    }
    for warning in warnings:
        warn(warning)
    _write_counts(tables, counts, kept.keep, picked.columns, others, options.output)
    write_json(report, options.metrics)
    log(f"{options.sample}: {tables.n_obs:,} cells x {tables.n_vars:,} genes from {counts.source}")
    return report


def _pick_genes(counts: AnyCounts, options: ConvertOptions) -> PickedGenes:
    """Tell genes from other features, choose the genome, and find what the genes are.

    Raises InputError where no feature is a gene, and as `pick_genome` and `genes.identify_genes` do.
    """
    n_features = {str(kind): int(n) for kind, n in pd.Series(counts.feature_types).value_counts().items()}
    listed = (f"{n:,} {kind}" for kind, n in n_features.items())
    is_gene = gene_features(counts.feature_types, listed, options.input)
    is_gene, other_species, genomes, by_genome = pick_genome(counts, is_gene, options)
    identity, prefix = genes.identify_genes(counts.var[is_gene], options.gene_column, genomes)
    genomes = genomes or ([prefix] if prefix else [])
    return PickedGenes(n_features, is_gene, other_species, genomes, by_genome, identity, prefix)


def _keep_cells(
    counts: AnyCounts,
    picked: PickedGenes,
    options: ConvertOptions,
    notes: list[str],
    warnings: list[str],
) -> KeptCells:
    """Leave out empty droplets, where they are there, and cells of other genomes; sentences say so.

    Raises InputError where no cell is left.
    """
    by_genome = picked.by_genome
    if by_genome is None:
        by_genome = group_totals(counts.matrix, picked.is_gene[:, None])
    totals = by_genome[:, 0]
    if options.genome and not totals.any():
        raise InputError(
            f"no cell has counts on the genes of '{options.genome}'",
            "Choose another genome.",
            file=options.input,
        )
    keep = np.ones(len(totals), dtype=bool)
    called = None
    # By all genomes' counts: a cell of another species holds few on this one, and is no empty droplet.
    if _must_call(options, counts, by_genome.sum(axis=1), notes, warnings):
        matrix = counts.matrix if picked.is_gene.all() else SomeColumns(counts.matrix, picked.columns)
        keep, cells = call_cells(matrix, seed=options.seed, totals=totals)
        called = cells.as_dict()
        _tell_of_called(cells, notes, warnings)
    other_species = picked.other_species
    if other_species is not None and (n_other := int((keep & other_species).sum())):
        keep = keep & ~other_species
        notes.append(
            f"{n_other:,} cells with most counts on another genome than '{options.genome}' were left out."
        )
    if not keep.any():
        raise InputError(
            f"no cell of genome '{options.genome}' is left", "Choose another genome.", file=options.input
        )
    return KeptCells(keep, totals, called)


def _tables(
    counts: AnyCounts,
    picked: PickedGenes,
    kept: KeptCells,
    options: ConvertOptions,
    notes: list[str],
    warnings: list[str],
) -> tuple[anndata.AnnData, dict[str, np.ndarray]]:
    """All but the counts of the kept cells, and the columns of features beside the genes by their key of obsm."""
    import anndata

    tables = anndata.AnnData(
        obs=_obs(counts.obs.iloc[kept.rows], options, notes, warnings),
        var=_var(counts.var[picked.is_gene], picked.identity, warnings),
    )
    others = _other_features(counts, warnings)
    for key, values in counts.obsm.items():
        if key not in others:
            tables.obsm[key] = values[kept.rows]
    n_without = int((kept.totals[kept.keep] == 0).sum())
    if n_without:
        warnings.append(f"{n_without:,} of {tables.n_obs:,} cells have no counts at all.")
    return tables, others


def _report(
    counts: AnyCounts,
    picked: PickedGenes,
    kept: KeptCells,
    tables: anndata.AnnData,
    options: ConvertOptions,
    organism: str,
    notes: list[str],
    warnings: list[str],
) -> dict[str, Any]:
    """What convert.json holds."""
    return {
        "sample": options.sample,
        "path": str(options.input),
        "source": counts.source,
        "counts_from": counts.counts_from,
        "counts_recovered_from": counts.recovered_from,
        "n_cells": tables.n_obs,
        "n_genes": tables.n_vars,
        "organism": organism,
        "genomes": picked.genomes,
        "genome_prefix_removed": picked.prefix,
        "features": picked.n_features,
        "called_cells": kept.called,
        "cellranger_metrics": counts.metrics,
        "notes": notes,
        "warnings": warnings,
    }


def _tell_of_called(cells: CalledCells, notes: list[str], warnings: list[str]) -> None:
    """Add sentences of how cells were told from empty droplets."""
    notes.append(
        f"Cells were called among all droplets: {cells.n_cells:,} of {cells.n_droplets:,} "
        f"({cells.method}; ambient up to {cells.lower} counts, kept always from {cells.retain:,})."
    )
    if cells.fdr is None:
        warnings.append(
            f"Too few ambient counts for a test: droplets of {cells.retain:,} counts and more were called cells."
        )
    if cells.n_undecided:
        warnings.append(
            f"{cells.n_undecided:,} droplets look like no empty one, but are too few among all that were tested to "
            "be called cells: they were left out. Give Cell Ranger's filtered matrix to keep them."
        )


def _names_of_features(
    counts: AnyCounts, others: Mapping[str, np.ndarray], kept: Container[str]
) -> dict[str, np.ndarray]:
    """What the columns of each array of obsm count, where they have names: text, (n_columns,).

    others: the columns of the matrix that become an array each; kept: the names of all arrays that are written.
    """
    names = {key: value for key, value in counts.feature_names.items() if key in kept}
    names |= {key: genes.as_text(counts.var.index[columns]) for key, columns in others.items()}
    return {key: without_nul(value) for key, value in names.items()}


def read_any(options: ConvertOptions) -> AnyCounts:
    """Open the input whatever it is. What must be sorted on disk is, where the output will stand."""
    scratch = scratch_beside(options.output)
    found = find_input(options.input)
    if found.kind == "h5ad":
        counts = open_h5ad(found.paths[0], options.counts_layer, scratch)
        if origin := origin_of(found.paths[0]):
            # Where counts were found, the whole file tells: in a part they are in X.
            counts.notes = origin.notes
            counts.named_raw = origin.named_raw
            counts.counts_from = origin.counts_from or counts.counts_from
            counts.recovered_from = origin.recovered_from
            counts.warnings = [*dict.fromkeys([*origin.warnings, *counts.warnings])]
        elif several := looks_like_several(counts.obs):
            counts.warnings.append(several)
        return counts
    counts = read_tenx(found, options.genome, scratch)
    if several := looks_like_several(counts.obs, aggregated=aggregation_table(found.paths[0]) is not None):
        counts.warnings.append(several)
    if options.counts_layer:
        counts.warnings.append(
            f"counts_layer '{options.counts_layer}' has no meaning for Cell Ranger output."
        )
    return counts


def _not_empty(counts: AnyCounts, path: Path) -> None:
    n_cells, n_features = counts.matrix.shape
    if n_cells and n_features and counts.matrix.nnz:
        return
    raise InputError(
        f"the matrix is empty: {n_cells:,} cells, {n_features:,} features, {counts.matrix.nnz:,} numbers",
        "Look at the run that made it, or leave this sample out.",
        file=path,
    )


def pick_genome(
    counts: AnyCounts, is_gene: np.ndarray, options: ConvertOptions
) -> tuple[np.ndarray, np.ndarray | None, list[str], np.ndarray | None]:
    """Genes of the one genome to go on with.

    Returns the mask of its genes (n_features,), the mask of cells that are mostly of another genome (n_obs,)
    or None where there is but one, the genomes' names, and each cell's counts on each genome's genes, this one's
    first, (n_obs, n_genomes), where there are several. Raises InputError for several genomes and none chosen, and
    for an unknown one.
    """
    asked, path = options.genome, options.input
    genomes = np.where(is_gene, counts.genomes, "")
    if not (genomes != "").any():
        genomes = _genomes_by_prefix(counts, is_gene)
    if not (genomes != "").any():
        genomes = _genomes_by_organism(counts, is_gene, options.gene_column)
    names = [str(name) for name in pd.unique(genomes) if name]
    if len(names) <= 1:
        asked = genome_called(asked, names) if asked else None
        if asked and names and asked != names[0]:
            raise InputError(
                f"there is no genome '{asked}'; there is {names[0]}", "Choose it, or none.", file=path
            )
        if asked and not names:
            counts.warnings.append(f"The data name no genome: genome '{asked}' was not used.")
        return is_gene, None, names, None
    totals = group_totals(counts.matrix, np.column_stack([genomes == name for name in names]))
    mostly = np.argmax(totals, axis=1)
    summaries = {
        name: f"{int(((mostly == i) & (totals[:, i] > 0)).sum()):,} cells with most of their counts, "
        f"{int(totals[:, i].sum()):,} counts"
        for i, name in enumerate(names)
    }
    chosen = names.index(choose_genome(summaries, asked, path))
    counts.notes.append(f"Of {len(names)} genomes ({', '.join(names)}), '{names[chosen]}' was read.")
    others = (mostly != chosen) & (totals.sum(axis=1) > 0)
    order = [chosen, *(i for i in range(len(names)) if i != chosen)]
    return genomes == names[chosen], others, [names[chosen]], totals[:, order]


def _genomes_by_prefix(counts: AnyCounts, is_gene: np.ndarray) -> np.ndarray:
    """Genomes told by the prefixes of names, where several together cover the genes; else all ""."""
    found = np.where(is_gene, genes.prefix_genomes(genes.as_text(counts.var.index)), "")
    shares = pd.Series(found[is_gene]).value_counts(normalize=True)
    shares = shares[(shares.index != "") & (shares >= 0.01)]
    if len(shares) >= 2 and shares.sum() >= genes.CLEAR_MAJORITY:
        return found
    return np.full(len(found), "", dtype=object)


def _genomes_by_organism(counts: AnyCounts, is_gene: np.ndarray, gene_column: str | None) -> np.ndarray:
    """`human`, `mouse` and the like, where the genes' own names are of several organisms; else all ""."""
    found = np.full(len(is_gene), "", dtype=object)
    identity, _ = genes.identify_genes(counts.var[is_gene], gene_column)
    if genes.detect_organism(identity.gene_ids, identity.gene_symbols)[0] == genes.MIXED:
        found[is_gene] = genes.organism_of_each(identity.gene_ids, identity.gene_symbols)
    return found


def _must_call(
    options: ConvertOptions, counts: AnyCounts, totals: np.ndarray, notes: list[str], warnings: list[str]
) -> bool:
    """Whether cells are to be called. totals: (n_droplets,), counts on all genomes."""
    if options.call_cells == "true":
        return True
    if not is_unfiltered(totals, counts.named_raw):
        return False
    shape = droplet_shape(totals)
    if options.call_cells == "false":
        warnings.append(
            f"This looks like all droplets of a run, most of them empty ({shape}), and each was taken for a cell, as "
            "--call_cells false says. Give the filtered matrix, or let cells be called (--call_cells auto)."
        )
        return False
    notes.append(f"The matrix holds all droplets, most of them empty ({shape}).")
    return True


def _obs(obs: pd.DataFrame, options: ConvertOptions, notes: list[str], warnings: list[str]) -> pd.DataFrame:
    """Unique barcodes, the input's columns, `sample` and `batch`."""
    from anndata.utils import make_index_unique

    obs = obs.copy()
    if n_repeated := int(obs.index.duplicated().sum()):
        warnings.append(
            f"{n_repeated:,} barcodes occur more than once; '-1', '-2', ... was added to make them unique."
        )
        obs.index = make_index_unique(obs.index)
    for name in KEPT_AS_INPUT:
        if name in obs:
            kept = free_name(f"input_{name}", obs)
            obs = obs.rename(columns={name: kept})
            notes.append(f"The input's column '{name}' was kept as '{kept}'.")
    obs = writable(obs, warnings)
    obs["sample"] = options.sample
    obs["batch"] = options.batch or options.sample
    return obs


def _var(var: pd.DataFrame, identity: genes.GeneIdentity, warnings: list[str]) -> pd.DataFrame:
    kept = var.drop(columns=[name for name in ("gene_ids", "gene_symbols") if name in var])
    kept.index = pd.Index(identity.names, dtype=object)
    kept.insert(0, "gene_ids", identity.gene_ids)
    kept.insert(1, "gene_symbols", identity.gene_symbols)
    return writable(kept, warnings)


def _other_features(counts: AnyCounts, warnings: list[str]) -> dict[str, np.ndarray]:
    """Columns of antibodies and the like by the key of obsm that they go into."""
    columns_of: dict[str, np.ndarray] = {}
    for kind in pd.unique(counts.feature_types):
        if kind == GENE_EXPRESSION:
            continue
        columns = np.flatnonzero(counts.feature_types == kind)
        if len(columns) > MAX_DENSE_FEATURES:
            warnings.append(f"{len(columns):,} features of type '{kind}' were left out.")
            continue
        key = re.sub(r"[^a-z0-9]+", "_", str(kind).lower()).strip("_") or "other"
        columns_of[key] = columns
    return columns_of


def _write_counts(
    tables: anndata.AnnData,
    counts: AnyCounts,
    keep: np.ndarray,
    gene_columns: np.ndarray,
    others: dict[str, np.ndarray],
    output: Path,
) -> None:
    """Write the kept cells by blocks: their genes into X, other features, dense, into obsm.

    keep: bool, (n_obs,). others: columns by key of obsm.
    """
    whole = len(gene_columns) == counts.matrix.shape[1]
    with new_counts_file(tables, output) as (file, matrix):
        dense = {
            key: new_dense(file, f"obsm/{key}", (tables.n_obs, len(columns)))
            for key, columns in others.items()
        }
        done = 0
        for rows, block in blocks(counts.matrix):
            if not keep[rows].all():
                block = block[keep[rows]]
            matrix.append(block if whole else block[:, gene_columns])
            for key, columns in others.items():
                dense[key][done : done + block.shape[0]] = block[:, columns].toarray()
            done += block.shape[0]
