"""Reading labelled reference cells, from one file or several: their counts go by blocks to disk (disk.py)."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pandas as pd
import scipy.sparse as sp

from cellscribe import genes as gene_names
from cellscribe.cli import log, warn
from cellscribe.counts import GENE_EXPRESSION
from cellscribe.errors import InputError
from cellscribe.h5ad_input import cell_names, open_h5ad
from cellscribe.label_csv import check_cells, is_labelled, read_label_csv, with_labels
from cellscribe.label_map import read_label_map, renamed, tell_unknown
from cellscribe.merge_genes import ids_of_one_gene
from cellscribe.model.ontology import plain_name
from cellscribe.schema import nearest
from cellscribe.stored import SomeRows, StoredInput, blocks
from cellscribe.training.disk import blocks_of, on_disk
from cellscribe.words import first_names, plural, some

FEWEST_CELLS = 5
# Two cells of so many counts have the same ones only if they are one cell.
COUNTS_OF_A_COPY = 100
LABELS_SHOWN = 20


@dataclass(frozen=True)
class Contested:
    """Cells of a label that have the coreceptor of the other kind of T cell alone (coreceptors.py), and what became of
    them: with none renamed and none left out they are as they were. n_cells: all of the label.
    """

    label: str
    n_cells: int
    n_contested: int
    n_renamed: int = 0
    n_left_out: int = 0

    @property
    def is_corrected(self) -> bool:
        """Whether they were renamed or left out."""
        return self.n_renamed + self.n_left_out > 0

    def sentence(self) -> str:
        """What a card says of them."""
        have, their = ("has", "its") if self.n_contested == 1 else ("have", "their")
        found = (
            f"{self.n_contested:,} of the {plural(self.n_cells, 'cell')} called {self.label} {have} counts of the "
            f"other kind of T cell's coreceptor (CD4, CD8) and none of {their} own's"
        )
        if self.is_corrected:
            were = "was" if self.n_renamed == 1 else "were"
            return (
                f"{found}: {self.n_renamed:,} {were} renamed and {self.n_left_out:,} taught nothing; none of them is "
                "in the scores (--correct_labels false leaves them as they are)."
            )
        return f"{found}, and may be of that kind."


@dataclass
class LabelledCells:
    """Raw counts with labels.

    counts: CSR float32 (n_obs, n_genes), on disk where `read_reference` read them. genes: columns `gene_id`, `symbol`.
    labels, batches: text (n_obs,). levels: for each coarser level, label -> coarse label. left_out: label -> cells, for
    labels too rare to learn. covariates: one row a cell, the further obs columns that were asked for and are there.
    contested: what `check_coreceptors` found. renamed: bool (n_obs,), cells whose label is not the one that they came
    with; doubtful: those whose label is in doubt, so that they teach nothing. Both None where there are none.
    named_alone: bool (n_genes,), genes that one of the files has by a symbol alone, though it has ids of most: it may
    not have counted them, so that their silence says nothing. None where there are none.
    """

    counts: sp.csr_matrix
    genes: pd.DataFrame
    labels: np.ndarray
    batches: np.ndarray
    organism: str
    sources: list[str]
    levels: dict[str, dict[str, str]] = field(default_factory=dict)
    left_out: dict[str, int] = field(default_factory=dict)
    n_unlabelled: int = 0
    covariates: pd.DataFrame = field(default_factory=pd.DataFrame)
    contested: list[Contested] = field(default_factory=list)
    renamed: np.ndarray | None = None
    doubtful: np.ndarray | None = None
    named_alone: np.ndarray | None = None

    @property
    def names(self) -> list[str]:
        """The labels, sorted."""
        return sorted(set(self.labels.tolist()))

    @property
    def codes(self) -> np.ndarray:
        """Each cell's position in `names`, int (n_obs,)."""
        return np.searchsorted(np.array(self.names, dtype=object).astype(str), self.labels.astype(str))

    def of_cells(self, wanted: np.ndarray, folder: Path | None = None) -> LabelledCells:
        """Some of the cells, their counts on disk too. wanted: bool (n_obs,). folder: as `on_disk` takes it."""
        rows = np.flatnonzero(wanted)
        counts = on_disk((block for _, block in blocks_of(self.counts, rows)), self.counts.shape[1], folder)
        return replace(
            self,
            counts=counts,
            labels=self.labels[rows],
            batches=self.batches[rows],
            covariates=self.covariates.iloc[rows] if len(self.covariates) else self.covariates,
            renamed=None if self.renamed is None else self.renamed[rows],
            doubtful=None if self.doubtful is None else self.doubtful[rows],
        )


@dataclass(frozen=True, kw_only=True)
class _Asked:
    """What `read_reference` was asked to take of each file."""

    label_key: str
    names: Mapping[str, str]
    batch_key: str | None
    levels: Sequence[str]
    organism: str
    counts_layer: str | None
    gene_column: str | None
    covariates: Sequence[str]
    no_label: str | None
    scratch: Path | None


@dataclass
class _File:
    """Labelled cells of one file. Their counts are where they lie: the rows (n_cells,) and columns (n_genes,) of
    `matrix`. genes, labels, batches, levels and covariates are those of `LabelledCells`. given: the labels that the
    file has, each once, as they stand there.
    """

    name: str
    given: set[str]
    matrix: sp.csr_matrix | StoredInput
    rows: np.ndarray
    columns: np.ndarray
    genes: pd.DataFrame
    labels: np.ndarray
    batches: np.ndarray
    organism: str
    levels: dict[str, dict[str, str]]
    n_unlabelled: int
    covariates: pd.DataFrame

    def counts(self, cells: np.ndarray, places: np.ndarray, n_genes: int) -> Iterator[sp.csr_matrix]:
        """The counts of some cells, bool (n_cells,), block by block: CSR (n_rows, n_genes). places: int, which column
        each of `genes` is added to, -1 for none.
        """
        kept = np.flatnonzero(places >= 0)
        onto = sp.csr_matrix(
            (np.ones(len(kept), dtype=np.float32), (self.columns[kept], places[kept])),
            shape=(self.matrix.shape[1], n_genes),
        )
        for _, block in blocks(SomeRows(self.matrix, self.rows[cells])):
            joined = block @ onto
            joined.sort_indices()
            yield joined


def read_reference(
    paths: Sequence[Path],
    label_key: str,
    *,
    label_csv: Sequence[Path] = (),
    label_map: Path | None = None,
    batch_key: str | None = None,
    levels: Sequence[str] = (),
    organism: str = "auto",
    counts_layer: str | None = None,
    gene_column: str | None = None,
    covariates: Sequence[str] = (),
    no_label: str | None = None,
    scratch: Path | None = None,
) -> LabelledCells:
    """Read labelled h5ad files and join them on the genes that all of them have.

    label_csv: tables whose columns go before those of obs, one for each path or one for all of them. label_map: a table
    of what labels shall be called (`label`, `name`). covariates: obs columns to keep where they are there. no_label:
    one more word for no label. scratch: a folder with room for the counts, eight bytes each; by default that of
    temporary files.
    Cells without a label (empty, "unknown", "unlabelled", ...) or a batch, cells that were read before and labels with
    fewer than five cells are left out, and warnings say so. Without `batch_key` each file is one batch. Raises
    InputError where a column is missing, where raw counts are not found, where a fine label has two coarse ones, where
    a table labels cells that are not there, where most cells are a batch of their own, or where fewer than two labels
    remain.
    """
    asked = _Asked(
        label_key=label_key,
        names=read_label_map(label_map, "name", keep_blank=True) if label_map else {},
        batch_key=batch_key,
        levels=levels,
        organism=organism,
        counts_layer=counts_layer,
        gene_column=gene_column,
        covariates=covariates,
        no_label=no_label,
        scratch=scratch,
    )
    tables = read_label_csvs(paths, label_csv, label_key)
    files = [_open_one(path, table, asked) for path, table in zip(paths, tables, strict=True)]
    tell_unknown("--label_map", asked.names, set[str]().union(*(file.given for file in files)))
    if not batch_key:
        files = [
            replace(file, batches=np.full(len(file.labels), name, dtype=object))
            for file, name in zip(files, names_of(paths), strict=True)
        ]
    elif shared := shared_batches([file.batches for file in files]):
        warn(
            f"the files share batches of '{batch_key}' ({', '.join(shared[:5])}): cells of one name are taken for one "
            "donor's. Where they are not, name the donors apart, or no test is on donors left out."
        )
    organisms = {file.organism for file in files} - {"unknown"}
    if len(organisms) > 1:
        raise InputError(
            f"the references are of several organisms: {', '.join(sorted(organisms))}",
            f"Train a model for each: {', '.join(f'{file.name} is {file.organism}' for file in files)}.",
        )
    genes, places = _shared_genes(files)
    named_alone = _named_alone(files, places, len(genes))
    if not organisms:
        raise InputError(
            "the organism cannot be told from the genes' names", "Give --organism human or --organism mouse."
        )
    merged = _merge_levels(files)
    labels = np.concatenate([file.labels for file in files])
    keep, left_out = common_labels(labels, label_key, paths[0])
    check_spelling(labels[keep])
    of_file = np.split(keep, np.cumsum([len(file.labels) for file in files])[:-1])
    cells = LabelledCells(
        counts=on_disk(
            (
                block
                for file, cells, own in zip(files, of_file, places, strict=True)
                for block in file.counts(cells, own, len(genes))
            ),
            len(genes),
            scratch,
        ),
        genes=genes,
        labels=labels[keep],
        batches=np.concatenate([file.batches for file in files])[keep],
        organism=organisms.pop(),
        sources=[
            *(file.name for file in files),
            *(path.name for path in label_csv),
            *([label_map.name] if label_map else []),
        ],
        levels=merged,
        left_out=left_out,
        n_unlabelled=sum(file.n_unlabelled for file in files),
        covariates=pd.concat([file.covariates for file in files])[keep],
        named_alone=named_alone if named_alone.any() else None,
    )
    if batch_key:
        check_batches(cells.batches, batch_key, paths[0])
    return _without_copies(cells, label_key, paths[0], scratch)


def check_batches(batches: np.ndarray, batch_key: str, file: Path) -> None:
    """Raises InputError, naming `file`, where most cells are a batch of their own: no test can be on batches left out.

    batches: text (n_obs,).
    """
    n_batches = len(np.unique(batches.astype(str)))
    if n_batches > len(batches) / 2:
        raise InputError(
            f"the batch column '{batch_key}' has {n_batches:,} values for {plural(len(batches), 'cell')}",
            "Name the column of donors or samples with --batch_key, or none: then each file is one batch.",
            file=file,
        )


def check_spelling(labels: np.ndarray) -> None:
    """Warn of labels that a comparison with known labels would take for one, and of labels that are all numbers.

    labels: text (n_obs,).
    """
    names, numbers = np.unique(labels.astype(str), return_counts=True)
    alike: dict[str, list[str]] = {}
    for name, number in zip(names, numbers, strict=True):
        alike.setdefault(plain_name(name), []).append(f"'{name}' ({number:,})")
    for spellings in alike.values():
        if len(spellings) > 1:
            warn(
                f"labels that are written almost alike are learned as different types: {', '.join(spellings)}. Write "
                "them alike if they are one."
            )
    if len(names) and all(name.replace(".", "", 1).isdigit() for name in names):
        warn(
            f"all labels are numbers ({first_names(names.tolist())}), as those of clusters are: cells will be named so"
        )


def _without_copies(cells: LabelledCells, label_key: str, file: Path, scratch: Path | None) -> LabelledCells:
    """The cells without those whose counts are those of an earlier one: held-out tests would know them already.

    Raises InputError as `common_labels`.
    """
    random = np.random.default_rng(0).integers(1, 2**40, size=(cells.counts.shape[1], 2))
    keys = np.zeros((len(cells.labels), 2), dtype=np.int64)
    for rows, block in blocks_of(cells.counts):
        keys[rows] = block.astype(np.int64) @ random
        few = np.asarray(block.sum(axis=1)).ravel() < COUNTS_OF_A_COPY
        keys[rows[few]] = np.column_stack([-1 - rows[few], rows[few]])
    _, first = np.unique(keys, axis=0, return_index=True)
    if len(first) == len(keys):
        return cells
    once = np.zeros(len(keys), dtype=bool)
    once[first] = True
    warn(
        f"{len(keys) - len(first):,} of {plural(len(keys), 'cell')} in the reference have the counts of an earlier one "
        "and are left out as copies: a test on them would be one on cells that the model learned from."
    )
    keep, left_out = common_labels(cells.labels[once], label_key, file)
    once[once] = keep
    return replace(cells.of_cells(once, scratch), left_out=cells.left_out | left_out)


def shared_batches(files: Sequence[np.ndarray]) -> list[str]:
    """Names of batches that stand in more than one file, sorted. files: each file's, (n_obs,)."""
    names, numbers = np.unique(
        np.concatenate([np.unique(batches.astype(str)) for batches in files]), return_counts=True
    )
    return [str(name) for name in names[numbers > 1]]


def common_labels(labels: np.ndarray, label_key: str, file: Path) -> tuple[np.ndarray, dict[str, int]]:
    """Which cells have a label that enough cells have, bool (n_obs,), and the other labels with their cells.

    Raises InputError, naming `file`, where fewer than two labels remain.
    """
    names, numbers = np.unique(labels.astype(str), return_counts=True)
    rare = {str(n): int(k) for n, k in zip(names, numbers, strict=True) if k < FEWEST_CELLS}
    for label, number in list(rare.items())[:LABELS_SHOWN]:
        log(f"label '{label}' is left out: {plural(number, 'cell')}, too few to learn it")
    if len(rare) > LABELS_SHOWN:
        more = len(rare) - LABELS_SHOWN
        log(f"and so {'is' if more == 1 else 'are'} {plural(more, 'further label')}")
    if len(names) - len(rare) < 2:
        raise InputError(
            f"column '{label_key}' holds {plural(len(names) - len(rare), 'label')} with at least {FEWEST_CELLS} "
            "cells; two are needed",
            "Name another column with --label_key.",
            file=file,
        )
    return ~np.isin(labels.astype(str), list(rare)), rare


def read_label_csvs(
    paths: Sequence[Path], label_csv: Sequence[Path], label_key: str
) -> list[pd.DataFrame | None]:
    """The table of labels of each reference, None where none is given. Raises InputError as `read_reference`, and for
    a table without the column of labels.
    """
    if not label_csv:
        return [None] * len(paths)
    if len(label_csv) not in (1, len(paths)):
        raise InputError(
            f"{len(label_csv)} tables of labels were given for {plural(len(paths), 'reference')}",
            "Give one for each reference, in the same order, or one for all of them.",
        )
    tables = [read_label_csv(path) for path in label_csv]
    for table, file in zip(tables, label_csv, strict=True):
        if label_key not in table:
            columns = [str(name) for name in table.columns]
            raise InputError(
                f"this table has no column '{label_key}'{nearest(label_key, columns) or ';'} it has: "
                f"{first_names(columns)}",
                "Name one of these with --label_key.",
                file=file,
            )
    names = [cell_names(path) for path in paths]
    if len(tables) == len(paths):
        for table, file, path, cells in zip(tables, label_csv, paths, names, strict=True):
            check_cells(table, file, {path.name: cells})
        return list(tables)
    # The folder too: references may have one file name.
    check_cells(tables[0], label_csv[0], {str(path): cells for path, cells in zip(paths, names, strict=True)})
    return tables * len(paths)


def _open_one(path: Path, table: pd.DataFrame | None, asked: _Asked) -> _File:
    read = open_h5ad(path, asked.counts_layer, asked.scratch)
    if table is not None:
        read = replace(read, obs=with_labels(read.obs, table))
    for note in read.notes:
        log(f"{path.name}: {note}")
    for warning in read.warnings:
        warn(f"{path.name}: {warning}")
    _check_columns(read.obs, filter(None, (asked.label_key, asked.batch_key, *asked.levels)), path)
    is_gene = np.flatnonzero(read.feature_types == GENE_EXPRESSION)
    identity, _ = gene_names.identify_genes(read.var.iloc[is_gene], asked.gene_column, [])
    found, _ = gene_names.check_organism(
        gene_names.read_organism(asked.organism), identity.gene_ids, identity.gene_symbols
    )
    given = gene_names.as_text(read.obs[asked.label_key])
    labels = renamed(given, asked.names, path.name) if asked.names else given
    labelled = is_labelled(labels, asked.no_label)
    listed = np.isin(np.char.strip(given.astype(str)), list(asked.names))
    if n_without := int((~labelled & ~listed).sum()):
        log(f"{path.name}: {plural(n_without, 'cell')} without a label in '{asked.label_key}' left out")
    batches = gene_names.as_text(read.obs[asked.batch_key]) if asked.batch_key else labels
    rows = _rows_with_batch(labelled, batches, asked.batch_key, path)
    coarse = {
        level: dict(_one_parent(labels[rows], gene_names.as_text(read.obs[level])[rows], level, path))
        for level in asked.levels
    }
    return _File(
        name=path.name,
        given={label.strip() for label in set(given.tolist())},
        matrix=read.matrix,
        rows=rows,
        columns=is_gene,
        genes=pd.DataFrame({"gene_id": identity.gene_ids, "symbol": identity.gene_symbols}),
        labels=labels[rows],
        batches=batches[rows],
        organism=found,
        levels=coarse,
        n_unlabelled=int((~labelled).sum()),
        covariates=read.obs[[name for name in asked.covariates if name in read.obs]].iloc[rows],
    )


def _check_columns(obs: pd.DataFrame, wanted: Iterable[str], path: Path) -> None:
    """Raise InputError for a column that obs does not have."""
    for column in wanted:
        if column not in obs:
            columns = [str(name) for name in obs.columns]
            raise InputError(
                f"there is no obs column '{column}'{nearest(column, columns) or ';'} there are: {', '.join(columns)}",
                "Name one of these.",
                file=path,
            )


def _rows_with_batch(
    labelled: np.ndarray, batches: np.ndarray, batch_key: str | None, path: Path
) -> np.ndarray:
    """The rows of labelled cells, (n_kept,), of known batch alone. labelled: bool; batches: text, both (n_obs,).

    Raises InputError where no labelled cell has a batch.
    """
    nowhere = labelled & (np.char.strip(batches.astype(str)) == "")
    if nowhere.any() and (nowhere == labelled).all():
        raise InputError(
            f"no labelled cell has a value in batch column '{batch_key}'",
            "Fill it with the donor or sample of each cell, or name another column with --batch_key.",
            file=path,
        )
    if nowhere.any():
        warn(
            f"{path.name}: {plural(int(nowhere.sum()), 'cell')} without a value in batch column '{batch_key}' left "
            "out, as nobody knows whose they are"
        )
    return np.flatnonzero(labelled & ~nowhere)


def names_of(paths: Sequence[Path]) -> list[str]:
    """A name for each file: its own without the ending, numbered where several files have it."""
    stems = [path.stem for path in paths]
    names: list[str] = []
    for stem in stems:
        numbered = (f"{stem}_{number}" for number in itertools.count(1))
        free = (name for name in numbered if name not in stems and name not in names)
        names.append(next(free) if stems.count(stem) > 1 else stem)
    return names


def _one_parent(labels: np.ndarray, parents: np.ndarray, level: str, path: Path) -> Mapping[str, str]:
    table = pd.DataFrame({"label": labels, "parent": parents}).value_counts().reset_index()
    several = table[table["label"].duplicated(keep=False)]
    if len(several):
        label = several["label"].iloc[0]
        of = several[several["label"] == label]
        seen = ", ".join(
            f"{parent} ({number:,})" for parent, number in zip(of["parent"], of["count"], strict=True)
        )
        raise InputError(
            f"the label '{label}' has several labels at level '{level}': {seen}; a level is coarser than the labels",
            "Correct the cells, or leave the level out.",
            file=path,
        )
    without = table["label"][table["parent"] == ""]
    if len(without):
        raise InputError(
            f"the label '{without.iloc[0]}' has no label at level '{level}'",
            f"Fill obs column '{level}', or leave the level out.",
            file=path,
        )
    return dict(zip(table["label"], table["parent"], strict=True))


def _merge_levels(files: Sequence[_File]) -> dict[str, dict[str, str]]:
    merged: dict[str, dict[str, str]] = {}
    for file in files:
        for level, parents in file.levels.items():
            into = merged.setdefault(level, {})
            for label, parent in parents.items():
                if into.setdefault(label, parent) != parent:
                    raise InputError(
                        f"at level '{level}' the label '{label}' is '{into[label]}' in one reference and "
                        f"'{parent}' in '{file.name}'",
                        f"Give it one in obs column '{level}' of all references, or leave the level out of --levels.",
                    )
    return merged


def _shared_genes(files: Sequence[_File]) -> tuple[pd.DataFrame, list[np.ndarray]]:
    """The genes that all files have, in the first one's order, and for each file which of them each of its own is added
    to: int (its n_genes,), -1 for none. Raises InputError where they are fewer than a hundred.
    """
    keys = _gene_keys([file.genes for file in files])
    shared = set.intersection(*({key for key in own if key} for own in keys))
    if len(shared) < 100:
        raise InputError(
            f"the references share only {len(shared)} genes by Ensembl id or symbol",
            "Give files that name their genes alike, or the var column in which they do with --gene_column_name.",
        )
    first: dict[str, int] = {}
    for place, key in enumerate(keys[0]):
        if key in shared:
            first.setdefault(key, place)
    genes = files[0].genes.iloc[list(first.values())].reset_index(drop=True)
    ids = set[str]().union(*(file.genes["gene_id"] for file in files))
    genes["gene_id"] = [
        key if key in ids else own for key, own in zip(first, genes["gene_id"].tolist(), strict=True)
    ]
    column = {key: place for place, key in enumerate(first)}
    for file, own in zip(files, keys, strict=True):
        _tell_joined(file, [key if key in shared else "" for key in own])
    return genes, [np.array([column.get(key, -1) for key in own], dtype=np.int64) for own in keys]


def _gene_keys(tables: Sequence[pd.DataFrame]) -> list[list[str]]:
    """What each gene of several files is known by: its Ensembl id; without one, the id that its symbol has in any of
    the files, if that is one alone; else its symbol. tables: columns `gene_id`, `symbol`.

    Genes of one file that are known alike are one under two names, as where several annotations were joined; naming
    adds them up too (align.py). So are those of two ids that share a symbol (`ids_of_one_gene`).
    """
    named = [(table["gene_id"].tolist(), table["symbol"].tolist()) for table in tables]
    same = ids_of_one_gene(named)
    ids_of: dict[str, set[str]] = {}
    for ids, symbols in named:
        for gene_id, symbol in zip(ids, symbols, strict=True):
            if gene_id and symbol:
                ids_of.setdefault(symbol, set()).add(same.get(gene_id, gene_id))
    return [
        [
            same.get(gene_id, gene_id)
            or (next(iter(ids_of[symbol])) if len(ids_of.get(symbol, ())) == 1 else symbol)
            for gene_id, symbol in zip(ids, symbols, strict=True)
        ]
        for ids, symbols in named
    ]


def _named_alone(files: Sequence[_File], places: Sequence[np.ndarray], n_genes: int) -> np.ndarray:
    """`named_alone` of `LabelledCells`. places: as `_shared_genes` gives them."""
    found = np.zeros(n_genes, dtype=bool)
    for file, own in zip(files, places, strict=True):
        has_id = (file.genes["gene_id"] != "").to_numpy()
        if has_id.mean() > 0.5:
            by_id = np.zeros(n_genes, dtype=bool)
            by_id[own[has_id & (own >= 0)]] = True
            found |= ~by_id
    return found


def _tell_joined(file: _File, keys: Sequence[str]) -> None:
    """Log which genes of a file are added up, as they are known alike. keys: (n_genes,), "" for those not kept."""
    names = pd.Series(np.where(file.genes["symbol"] != "", file.genes["symbol"], file.genes["gene_id"]))
    kept = pd.Series(keys)
    again = kept.duplicated(keep=False) & (kept != "")
    if not again.any():
        return
    pairs = [" and ".join(dict.fromkeys(own)) for _, own in names[again].groupby(kept[again], sort=False)]
    log(
        f"{file.name}: {plural(len(pairs), 'gene')} under several names, by id or symbol, added up each: {some(pairs)}"
    )
