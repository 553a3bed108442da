"""Read an .h5ad: find the raw counts in it, and nothing else that is large.

The file is read part by part with h5py: a candidate that holds no counts is looked at, never loaded, and a
dense matrix is made sparse by blocks of rows. `open_h5ad` leaves the counts in the file too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from cellscribe.counts import Counts, Matrix, see
from cellscribe.errors import InputError
from cellscribe.feature_kinds import feature_types
from cellscribe.h5ad_counts import Candidate, asked_for, copied_part, first_with_counts, matrices
from cellscribe.h5ad_matrix import (
    check_shape,
    numbers_by_block,
    open_h5ad_file,
    read_matrix,
    stored_matrix,
)
from cellscribe.h5ad_tables import (
    MAX_OBSM_COLUMNS,
    read_embeddings,
    read_feature_names,
    read_raw_var,
    read_table,
)
from cellscribe.stored import StoredInput

if TYPE_CHECKING:
    import h5py
    import scipy.sparse as sp


def read_h5ad(path: Path, counts_layer: str | None = None) -> Counts[sp.csr_matrix]:
    """Read counts, obs, var and small embeddings of an .h5ad of any age.

    counts_layer: a layer's name, `X` or `raw.X`; None looks into raw.X, X, then the layers, in that order. Counts that
    were only scaled in each cell, and logged, are recovered where there are no others, or only such of far fewer genes.
    Raises InputError where there are no raw counts, saying for each matrix what was seen.
    """
    with open_h5ad_file(path) as file:
        return _read(file, path, counts_layer, _matrix_in_memory, None)


def open_h5ad(
    path: Path, counts_layer: str | None = None, scratch: Path | None = None
) -> Counts[sp.csr_matrix | StoredInput]:
    """As `read_h5ad`, but the counts stay where they are and are read by blocks of rows.

    scratch: a folder with room for a large CSC matrix, twelve bytes a number, which is sorted by rows there.
    """
    with open_h5ad_file(path) as file:
        return _read(
            file,
            path,
            counts_layer,
            lambda one: one.recovered or stored_matrix(one.node, one.seen.n, path, scratch),
            scratch,
        )


def cell_names(path: Path) -> pd.Index:
    """The names of an .h5ad's cells: text, (n_obs,). Raises InputError where it cannot be read."""
    with open_h5ad_file(path) as file:
        return read_table(file["obs"], file).index


def _read(
    file: h5py.File,
    path: Path,
    counts_layer: str | None,
    matrix_of: Callable[[Candidate], Matrix],
    scratch: Path | None,
) -> Counts[Matrix]:
    places = matrices(file)
    if not places:
        todo = "Give one with raw counts."
        if "mod" in file:
            kinds = ", ".join(file["mod"])
            todo = f"This seems to be MuData, which holds {kinds}: write the one with the genes as an .h5ad."
        raise InputError("the file has no X, no raw and no layers", todo, file=path)
    obs = read_table(file["obs"], file)
    var = read_table(file["var"], file)
    raw_var = read_raw_var(file, var) if "raw.X" in places else var

    def look(name: str) -> Candidate:
        genes = raw_var if name == "raw.X" else var
        node = places[name]
        check_shape(name, node, (len(obs), len(genes)), path)
        candidate = Candidate(name, node, genes.index, see(numbers_by_block(node)))
        return replace(candidate, copy_of=copied_part(candidate, places, var.index))

    if counts_layer:
        found = asked_for(places, look, counts_layer, path, scratch)
    else:
        found = first_with_counts(places, look, path, scratch)
    chosen, notes, warnings = found.candidate, [*found.notes], [*found.warnings]
    if chosen.name == "raw.X":
        var = raw_var
    matrix = matrix_of(chosen)
    types, of_types = feature_types(var)
    warnings += of_types
    genomes = var["genome"].astype(str) if "genome" in var else pd.Series("", index=var.index)
    if chosen.seen.maximum == 1 and chosen.seen.n > 1000 and not chosen.recovered:
        warnings.append(f"Every number in {chosen.name} is 0 or 1: these may be no counts of molecules.")
    feature_names = read_feature_names(file)
    obsm = read_embeddings(file, len(obs), feature_names)
    notes += _left_out_of(file, obsm)
    return Counts(
        matrix=matrix,
        obs=obs,
        var=var,
        feature_types=types,
        genomes=genomes.where(genomes != "nan", "").to_numpy(dtype=object),
        source="h5ad",
        counts_from=chosen.name,
        recovered_from=chosen.recovered.way if chosen.recovered else "",
        obsm=obsm,
        feature_names={key: names for key, names in feature_names.items() if key in obsm},
        notes=notes,
        warnings=warnings,
    )


def _matrix_in_memory(candidate: Candidate) -> sp.csr_matrix:
    import scipy.sparse as sp

    if candidate.recovered:
        return sp.vstack([block for _, block in candidate.recovered.blocks()], format="csr")
    return read_matrix(candidate.node)


def _left_out_of(file: h5py.File, obsm: Iterable[str]) -> list[str]:
    """A note of what the file's obsm has besides the arrays that were read; none where that is nothing."""
    left = [name for name in file["obsm"] if name not in obsm] if hasattr(file.get("obsm"), "keys") else []
    if not left:
        return []
    return [
        f"Of obsm {', '.join(left)} was left out: tables do not come along, and of arrays of more than "
        f"{MAX_OBSM_COLUMNS} columns only counts whose names uns['feature_names'] holds, and that are not too many."
    ]
