"""CENSUS: labelled cells from CELLxGENE Census as a reference for TRAIN.

The package cellxgene-census has a Python environment of its own (containers/census.txt), in which all of this runs.
Source of the data: CZI Cell Science Program, Nucleic Acids Research 2025, 53:D886.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse as sp

from cellscribe.cli import log, warn
from cellscribe.counts_file import new_counts_file
from cellscribe.errors import InputError, ModelFetchError
from cellscribe.io import write_json
from cellscribe.progress import progress

if TYPE_CHECKING:
    import pandas as pd

ORGANISMS = {"human": "homo_sapiens", "mouse": "mus_musculus"}
OBS_COLUMNS = (
    "cell_type",
    "cell_type_ontology_term_id",
    "donor_id",
    "dataset_id",
    "assay",
    "tissue",
)
# Labels that name no type.
NO_TYPE = ("unknown", "na", "")
# About 300 MB of counts at 20,000 genes expressed a cell; mostly a tenth of that.
BLOCK_CELLS = 2_000


@dataclass(frozen=True)
class Query:
    """Which cells to take. holdout_donors: how many to keep apart; uri: of another Census than the public one."""

    filter: str
    version: str = "stable"
    organism: str = "human"
    cells_per_type: int = 2_000
    holdout_donors: int = 0
    seed: int = 0
    uri: str | None = None


@dataclass(frozen=True)
class Chosen:
    """Sampled cells: rows of the obs table that was read, ascending, of the reference and of the donors kept apart."""

    reference: np.ndarray
    held_out: np.ndarray
    held_out_donors: list[str]


# --- which cells ---


def fair_shares(available: np.ndarray, total: int) -> np.ndarray:
    """How many to take of each donor so that `total` are taken, as evenly as what they have allows.

    available: whole numbers (n_donors,). Returns whole numbers (n_donors,), no larger, that sum to `total`, or to all
    there is. What does not divide goes to the first donors.
    """
    taken = np.zeros(len(available), dtype=np.int64)
    left = int(min(total, available.sum()))
    while left:
        open_donors = np.flatnonzero(taken < available)
        share = max(left // len(open_donors), 1)
        for donor in open_donors:
            more = int(min(share, available[donor] - taken[donor], left))
            taken[donor] += more
            left -= more
    return taken


def hold_out(types: np.ndarray, donors: np.ndarray, n: int, generator: np.random.Generator) -> list[str]:
    """Draw `n` donors to keep apart, none that would leave a type without a donor.

    types, donors: text (n_cells,). Donors are drawn in a random order; fewer than `n` where no more can be spared.
    """
    import pandas as pd

    present = pd.crosstab(donors, types) > 0
    left = present.sum(axis=0)
    kept_apart: list[str] = []
    for donor in generator.permutation(present.index.to_numpy(dtype=object)):
        if len(kept_apart) == n:
            break
        without = left - present.loc[donor]
        if (without > 0).all():
            left = without
            kept_apart.append(str(donor))
    return kept_apart


def choose_cells(types: np.ndarray, donors: np.ndarray, query: Query) -> Chosen:
    """Sample at most `cells_per_type` cells a type, evenly over its donors; the same ones for the same seed.

    types, donors: text (n_cells,). Cells of held-out donors are sampled alike, apart from the others.
    """
    generator = np.random.default_rng(query.seed)
    apart = hold_out(types, donors, query.holdout_donors, generator)
    is_apart = np.isin(donors.astype(str), apart)
    parts = [
        np.sort(_sample(types, donors, np.flatnonzero(rows), query.cells_per_type, generator))
        for rows in (~is_apart, is_apart)
    ]
    return Chosen(parts[0], parts[1], apart)


def _sample(
    types: np.ndarray,
    donors: np.ndarray,
    rows: np.ndarray,
    cells_per_type: int,
    generator: np.random.Generator,
) -> np.ndarray:
    chosen = [np.empty(0, dtype=np.int64)]
    for name in np.unique(types[rows].astype(str)):
        of_type = rows[types[rows].astype(str) == name]
        names, codes, available = np.unique(
            donors[of_type].astype(str), return_inverse=True, return_counts=True
        )
        for donor, n in zip(range(len(names)), fair_shares(available, cells_per_type), strict=True):
            chosen.append(generator.choice(of_type[codes == donor], int(n), replace=False))
    return np.concatenate(chosen)


# --- the Census ---


@contextmanager
def opened(query: Query) -> Iterator[tuple[Any, str, dict[str, str]]]:
    """The organism's experiment, the release that it is of (`stable` is one with a date), and `collections_of` it.

    Raises InputError, or ModelFetchError where the Census cannot be reached, or no longer.
    """
    try:
        import cellxgene_census
        import requests
        import tiledbsoma
    except ModuleNotFoundError as error:
        raise InputError(
            f"the package {error.name} is not here",
            "`make census-env` brings it; in containers the image `census` does (docs/models.md).",
        ) from error
    where = query.uri or f"the Census release '{query.version}'"
    lost = (requests.RequestException, OSError, tiledbsoma.SOMAError)
    try:
        release = query.uri or str(
            cellxgene_census.get_census_version_description(query.version)["release_build"]
        )
        census = cellxgene_census.open_soma(census_version=query.version, uri=query.uri)
    except ValueError as error:
        raise InputError(
            f"there is no Census release '{query.version}'",
            f"Give one of: {', '.join(_releases()) or 'stable, latest'} (--census_version).",
        ) from error
    except lost as error:
        raise ModelFetchError(
            f"{where} cannot be opened: {_first_line(error)}",
            "This step needs the network (census.cellxgene.cziscience.com and the bucket behind it). Run it on a "
            "machine that has it; the file that it writes can be taken elsewhere.",
        ) from error
    with census:
        name = ORGANISMS[query.organism]
        if name not in census["census_data"]:
            raise InputError(
                f"{where} has no cells of {query.organism}", "Give another --organism or --census_version."
            )
        try:
            yield census["census_data"][name], release, collections_of(census)
        except lost as error:
            raise ModelFetchError(
                f"{where} can no longer be read: {_first_line(error)}", "Run again, with -resume."
            ) from error


def _releases() -> list[str]:
    import cellxgene_census

    try:
        return [str(name) for name in cellxgene_census.get_census_version_directory()]
    except Exception:
        # Only for a message: whatever is wrong, the user is told the names that always work.
        return []


def read_obs(experiment: Any, query: Query) -> pd.DataFrame:
    """The cells that the filter matches: `soma_joinid` and OBS_COLUMNS, in the order of the joinid.

    Raises InputError for a filter that cannot be read and for one that matches nothing.
    """
    import tiledbsoma

    columns = {name for name in experiment.obs.schema.names if not name.startswith("soma_")}
    if missing := [name for name in OBS_COLUMNS if name not in columns]:
        raise InputError(
            f"the Census has no obs columns {', '.join(missing)}", "Give another --census_version."
        )
    try:
        reader = experiment.obs.read(column_names=["soma_joinid", *OBS_COLUMNS], value_filter=query.filter)
    except (tiledbsoma.SOMAError, TypeError, ValueError) as error:
        raise InputError(
            f"the filter --census cannot be read: {query.filter}\n{_first_line(error)}",
            "Write it as: tissue_general == 'lung' and is_primary_data == True. Text stands in quotes, and the columns "
            f"are: {', '.join(sorted(columns))}.",
        ) from error
    obs = reader.concat().to_pandas().sort_values("soma_joinid", ignore_index=True)
    if obs.empty:
        raise InputError(
            f"the filter --census matches no cell: {query.filter}",
            "Look at the values of its columns: capitals count, and each word must be the Census's own "
            "(tissue_general, not tissue, has 'lung' for all parts of it).",
        )
    return obs


def _first_line(error: BaseException) -> str:
    return str(error).strip().splitlines()[0][:300] if str(error).strip() else type(error).__name__


def blocks_of_counts(experiment: Any, joinids: np.ndarray, n_genes: int) -> Iterator[sp.csr_matrix]:
    """The counts of the cells, in their order: CSR float32 (at most BLOCK_CELLS, n_genes). joinids: ascending."""
    counts = experiment.ms["RNA"].X["raw"]
    for start in range(0, len(joinids), BLOCK_CELLS):
        ids = joinids[start : start + BLOCK_CELLS]
        read = counts.read((ids, slice(None))).tables().concat()
        rows = np.searchsorted(ids, read["soma_dim_0"].to_numpy())
        yield sp.csr_matrix(
            (read["soma_data"].to_numpy().astype(np.float32), (rows, read["soma_dim_1"].to_numpy())),
            shape=(len(ids), n_genes),
        )


# --- the files ---


def write_cells(
    experiment: Any, obs: pd.DataFrame, var: pd.DataFrame, uns: Mapping[str, Any], output: Path
) -> None:
    """Write cells with their raw counts, a block at a time. obs: with `soma_joinid`, ascending.

    Raises OutputError where the file, opened again, is not whole.
    """
    import anndata

    joinids = obs["soma_joinid"].to_numpy()
    table = obs.drop(columns="soma_joinid").set_axis(joinids.astype(str), axis=0)
    for name in table.columns:
        table[name] = table[name].astype(str).astype("category")
    blocks = progress(
        blocks_of_counts(experiment, joinids, len(var)),
        total=-(-len(joinids) // BLOCK_CELLS),
        label=f"{output.name}: blocks of {BLOCK_CELLS:,} cells",
    )
    with new_counts_file(anndata.AnnData(obs=table, var=var, uns=dict(uns)), output) as (_, matrix):
        for block in blocks:
            matrix.append(block)


def read_var(experiment: Any) -> pd.DataFrame:
    """The genes in the order of the matrix: index Ensembl ids, columns `gene_ids` and `gene_symbols`."""
    import pandas as pd

    var = (
        experiment.ms["RNA"]
        .var.read(column_names=["soma_joinid", "feature_id", "feature_name"])
        .concat()
        .to_pandas()
        .sort_values("soma_joinid")
    )
    ids = var["feature_id"].astype(str).to_numpy(dtype=object)
    symbols = var["feature_name"].astype(str).to_numpy(dtype=object)
    return pd.DataFrame({"gene_ids": ids, "gene_symbols": symbols}, index=ids)


def collections_of(census: Any) -> dict[str, str]:
    """The collection that each dataset is of, by their ids; empty where the Census does not say."""
    if "census_info" not in census or "datasets" not in census["census_info"]:
        return {}
    table = census["census_info"]["datasets"].read(column_names=["dataset_id", "collection_id"])
    found = table.concat().to_pandas()
    return dict(zip(found["dataset_id"].astype(str), found["collection_id"].astype(str), strict=True))


def donors_of(obs: pd.DataFrame, collections: Mapping[str, str]) -> pd.Series:
    """Who each cell is of, `collection/donor`: text (n_cells,).

    A donor's name is its own within a collection, whose datasets (one a tissue, say) may share donors. obs: columns
    dataset_id and donor_id. collections: by dataset; a dataset that is not among them stands for its own.
    """
    datasets = obs["dataset_id"].astype(str)
    return datasets.map(lambda name: collections.get(name, name)) + "/" + obs["donor_id"].astype(str)


def run_census(
    query: Query, *, output: Path, held_out: Path, summary: Path, pipeline_version: str = "unknown"
) -> None:
    """Write the reference, the cells of the donors kept apart (where any are), and what was taken as JSON.

    Raises InputError for a filter that cannot be read, or that matches no cell with a type, and for a release that is
    not there; ModelFetchError where the Census cannot be reached, or no longer; OutputError as `write_cells` does.
    """
    with opened(query) as (experiment, release, collections):
        obs = read_obs(experiment, query)
        log(f"{len(obs):,} cells match: {query.filter}")
        typed = ~obs["cell_type"].astype(str).isin(NO_TYPE)
        if n_untyped := int((~typed).sum()):
            log(f"{n_untyped:,} of them have no cell type and are left out")
        obs = obs[typed.to_numpy()].reset_index(drop=True)
        if obs.empty:
            raise InputError(
                f"no cell that the filter --census matches has a cell type: {query.filter}", "Widen it."
            )
        obs["donor"] = donors_of(obs, collections)
        types, donors = (obs[name].astype(str).to_numpy(dtype=object) for name in ("cell_type", "donor"))
        chosen = choose_cells(types, donors, query)
        if len(chosen.held_out_donors) < query.holdout_donors:
            warn(
                f"{len(chosen.held_out_donors)} donors are held out, not {query.holdout_donors}: without the "
                "others some type would have no donor left"
            )
        var = read_var(experiment)
        uns = {
            "census_filter": query.filter,
            "census_version": release,
            "cellscribe_version": pipeline_version,
        }
        write_cells(experiment, obs.iloc[chosen.reference], var, uns, output)
        if len(chosen.held_out):
            write_cells(experiment, obs.iloc[chosen.held_out], var, uns, held_out)
    write_json(
        {
            "query": vars(query),
            "release": release,
            "n_matching": len(obs) + n_untyped,
            "n_without_type": n_untyped,
            "n_genes": len(var),
            "reference": _described(obs.iloc[chosen.reference]),
            "held_out": _described(obs.iloc[chosen.held_out]),
            "held_out_donors": chosen.held_out_donors,
        },
        summary,
    )
    log(
        f"{len(chosen.reference):,} cells of {len(set(types[chosen.reference]))} types written to {output.name}"
    )


def _described(obs: pd.DataFrame) -> dict[str, Any]:
    return {
        "n_cells": len(obs),
        "n_donors": int(obs["donor"].nunique()),
        "types": _counts(obs["cell_type"]),
        "datasets": _counts(obs["dataset_id"]),
        "assays": _counts(obs["assay"]),
    }


def _counts(values: Iterable[Any]) -> dict[str, int]:
    names, numbers = np.unique(np.asarray(list(values), dtype=str), return_counts=True)
    return dict(zip(names.tolist(), numbers.tolist(), strict=True))
