"""MERGE: all samples of a run in one file, with the embedding that they share, and one UMAP.

What grows with cells alone (obs, embeddings) is held in memory; counts go from file to file a block of rows at a time.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import scipy.sparse as sp

from cellscribe.cli import log, warn
from cellscribe.clusters import RESOLUTION, Clusters, clusters_and_map, commonest
from cellscribe.contract import MERGED_BY, OutputNames
from cellscribe.counts_file import new_counts_file, open_counts
from cellscribe.errors import InputError
from cellscribe.explorer import explorer_warnings
from cellscribe.genes import as_text, column_text
from cellscribe.given_clusters import FOUND_ANEW, read_clusters
from cellscribe.io import read_json, write_plain, write_table
from cellscribe.merge_genes import join_genes
from cellscribe.pseudobulk import SumsByLabel
from cellscribe.qc import COLUMNS
from cellscribe.verify import verified_path
from cellscribe.words import first_names, plural

if TYPE_CHECKING:
    import anndata

ANNOTATED, ANNOTATION = ".annotated.h5ad", ".annotation.json"
# Of the smaller sample's cells so many are in the other too, where both are of one file.
SHARED_CELLS = 0.5
PREDICTED, PREDICTIONS = "_predicted", "_predictions"


@dataclass
class SampleFile:
    """One annotated sample without its counts. runs: keys of its annotations, as `cxg_cell_type`."""

    sample: str
    path: Path
    info: dict[str, Any]
    obs: pd.DataFrame
    var: pd.DataFrame
    obsm: dict[str, np.ndarray]
    uns: dict[str, Any]

    @property
    def runs(self) -> list[str]:
        """Keys of the annotations in this file, that of annotation.json first."""
        own = str(self.info["names"]["predicted"]).removesuffix(PREDICTED)
        found = [key.removesuffix(PREDICTIONS) for key in self.uns if key.endswith(PREDICTIONS)]
        return list(dict.fromkeys([own, *(key for key in found if f"{key}{PREDICTED}" in self.obs)]))


@dataclass
class Merged:
    """obs, var, obsm and uns of the merged file; `places`: each sample's genes' columns in it. clusters_from: where
    the clusters come of, in words. no_cluster: what stands for that of cells that are in none; "" where all are in one.
    """

    obs: pd.DataFrame
    var: pd.DataFrame
    obsm: dict[str, np.ndarray]
    uns: dict[str, Any]
    places: list[np.ndarray]
    label_key: str
    layout_key: str
    cluster_key: str
    clusters_from: str = ""
    no_cluster: str = ""
    warnings: list[str] = field(default_factory=list)


def run_merge(
    inputs: Path,
    output: Path,
    composition_out: Path,
    pseudobulk_out: Path,
    page_out: Path,
    *,
    listed: Path | None = None,
    cluster_key: str | None = None,
    cluster_resolution: float = RESOLUTION,
    seed: int = 0,
    pipeline_version: str = "unknown",
) -> Merged:
    """Write the samples of a folder as one h5ad, their composition as a table, their sums by label, and a page.

    inputs: a folder of `<sample>.annotated.h5ad` and `<sample>.annotation.json`, as ANNOTATE writes them. listed:
    all samples of the run (JSON), to tell which are missing. cluster_key, cluster_resolution: as `merge_samples` takes
    them. Raises InputError where there are none.
    """
    from cellscribe.merge_page import write_page

    samples = read_samples(inputs)
    merged = merge_samples(samples, cluster_key=cluster_key, cluster_resolution=cluster_resolution, seed=seed)
    log(f"{len(samples):,} samples: {len(merged.obs):,} cells, {len(merged.var):,} genes")
    merged.warnings += explorer_warnings(merged.obs, merged.obsm)
    merged.warnings[:0] = _novelty_not_judged(samples)
    if listed:
        merged.warnings[:0] = _missing(listed, {one.sample for one in samples})
    for warning in merged.warnings:
        warn(warning)
    sums = SumsByLabel(merged.obs, merged.label_key, len(merged.var), without=_of_steps(samples, merged.obs))
    write_merged(samples, merged, sums, output)
    with verified_path(pseudobulk_out) as temporary:
        write_plain(sums.table(merged.var), temporary)
    composition = composition_table(merged.obs["sample"], merged.obs[merged.label_key])
    write_table(composition, composition_out)
    files = {"cells": output.name, "composition": composition_out.name, "sums": pseudobulk_out.name}
    write_page(merged, composition, samples[0].info, page_out, files, pipeline_version)
    return merged


def _missing(listed: Path, here: set[str]) -> list[str]:
    """A warning that names the listed samples that are not here; none where all are."""
    absent = [sample["id"] for sample in read_json(listed) if sample["id"] not in here]
    if not absent:
        return []
    are = "is" if len(absent) == 1 else "are"
    return [
        f"{plural(len(absent), 'sample')} of the run got no labels and {are} not here: {first_names(absent)}. "
        "summary/failures.tsv says why."
    ]


def _novelty_not_judged(samples: Sequence[SampleFile]) -> list[str]:
    """A warning that names the samples that have too few cells for it; none where it was not to reject cells."""
    few = [
        one.sample
        for one in samples
        if (one.info.get("parameters") or {}).get("reject_novel") is not False
        and any(
            "novelty_from_cells" in (part.get("parameters") or {})
            for part in (one.info, *(one.info.get("models") or []))
        )
    ]
    if not few:
        return []
    return [
        f"Novelty is not judged in {plural(len(few), 'sample')} of too few cells: {first_names(few)}. Do not compare "
        "shares of unassigned cells with those of larger samples."
    ]


def read_samples(inputs: Path) -> list[SampleFile]:
    """All samples of a folder but for their counts, sorted by name. Raises InputError for none, and for half of one."""
    paths = sorted(inputs.glob(f"*{ANNOTATED}"))
    if not paths:
        raise InputError(
            "there is no annotated sample to merge",
            f"Give the folder that holds S{ANNOTATED} and S{ANNOTATION} of each sample S, as ANNOTATE writes them.",
            file=inputs,
        )
    return [_read_sample(path) for path in paths]


def _read_sample(path: Path) -> SampleFile:
    import h5py
    from anndata.io import read_elem

    sample = path.name.removesuffix(ANNOTATED)
    summary = path.with_name(f"{sample}{ANNOTATION}")
    if not summary.is_file():
        raise InputError(
            f"{summary.name} is not beside it", "Give both files of ANNOTATE.", sample=sample, file=path
        )
    counts = open_counts(path)
    with h5py.File(path, "r") as file:
        return SampleFile(
            sample,
            path,
            read_json(summary),
            counts.obs,
            counts.var,
            {key: read_elem(item) for key, item in file.get("obsm", {}).items()},
            {key: read_elem(item) for key, item in file.get("uns", {}).items()},
        )


# --- cells ---


def join_obs(samples: Sequence[SampleFile]) -> pd.DataFrame:
    """obs of all samples: the union of their columns, cells named `sample:barcode`, `sample` a category.

    What a sample lacks is NaN in a column of numbers and "" in any other; a column that holds numbers in one sample and
    text in another becomes text, and so do booleans that a sample lacks.
    """
    sizes = [len(one.obs) for one in samples]
    columns = dict.fromkeys(str(name) for one in samples for name in one.obs.columns)
    joined: dict[str, Any] = {
        "sample": pd.Categorical.from_codes(
            np.repeat(np.arange(len(samples)), sizes), categories=[one.sample for one in samples]
        )
    }
    for name in columns:
        if name != "sample":
            joined[name] = join_column([one.obs.get(name) for one in samples], sizes)
    index = [f"{one.sample}{MERGED_BY}{barcode}" for one in samples for barcode in one.obs.index.astype(str)]
    return pd.DataFrame(joined, index=pd.Index(index, dtype=object))


def twice_warnings(obs: pd.DataFrame) -> list[str]:
    """A sentence for each two samples of which most cells are the same: one file under two names.

    obs: of all samples, as `join_obs` makes it. Cells are the same by barcode, counts and number of genes, which two
    cells of different samples hardly ever have in common.
    """
    measures = [name for name in ("total_counts", "n_genes_by_counts") if name in obs]
    if not measures:
        return []
    cells = obs[["sample", *measures]].reset_index(names="barcode")
    cells["barcode"] = [
        name[len(sample) + len(MERGED_BY) :]
        for name, sample in zip(cells["barcode"], cells["sample"].astype(str), strict=True)
    ]
    key = ["barcode", *measures]
    again = cells[cells.duplicated(key, keep=False)]
    pairs = again.merge(again, on=key, suffixes=("", "_other"))
    pairs = pairs[pairs["sample"].cat.codes < pairs["sample_other"].cat.codes]
    shared = pairs.groupby(["sample", "sample_other"], observed=True).size()
    sizes = cells["sample"].value_counts()
    return [
        f"Samples '{one}' and '{other}' have {plural(n, 'cell')} in common, by barcode, counts and genes: are they of "
        "one file, or of one library under two names? Each counts twice here."
        for (one, other), n in shared.items()
        if n >= SHARED_CELLS * min(sizes[one], sizes[other])
    ]


def join_column(parts: Sequence[pd.Series | None], sizes: Sequence[int]) -> Any:
    """One column of all samples, None where a sample lacks it: an array, or a Categorical."""
    there = [part for part in parts if part is not None]
    kinds = {part.dtype.kind if isinstance(part.dtype, np.dtype) else "O" for part in there}
    if kinds == {"b"} and len(there) == len(parts):
        return np.concatenate([part.to_numpy() for part in there])
    if kinds <= {"i", "u", "f"}:
        filled = [
            np.full(size, np.nan, dtype=np.float32) if part is None else part.to_numpy()
            for part, size in zip(parts, sizes, strict=True)
        ]
        return np.concatenate(filled)
    if any(isinstance(part.dtype, pd.CategoricalDtype) for part in there):
        position: dict[str, int] = {}
        codes = [_codes(part, size, position) for part, size in zip(parts, sizes, strict=True)]
        return pd.Categorical.from_codes(np.concatenate(codes), categories=list(position))
    return np.concatenate(
        [
            np.full(size, "", dtype=object) if part is None else as_text(part)
            for part, size in zip(parts, sizes, strict=True)
        ]
    )


def _codes(part: pd.Series | None, size: int, position: dict[str, int]) -> np.ndarray:
    """A sample's values as codes of the categories of all samples, which grow in place; only those in use."""
    if part is None:
        return np.full(size, position.setdefault("", len(position)), dtype=np.int32)
    own = part if isinstance(part.dtype, pd.CategoricalDtype) else pd.Series(pd.Categorical(as_text(part)))
    own = own.cat.remove_unused_categories()
    values = own.cat.codes.to_numpy()
    # The last is that of missing values, whose code is -1.
    moved = [position.setdefault(name, len(position)) for name in column_text(own.cat.categories)]
    moved.append(position.setdefault("", len(position)) if (values < 0).any() else 0)
    return np.array(moved, dtype=np.int32)[values]


def merge_samples(
    samples: Sequence[SampleFile],
    *,
    cluster_key: str | None = None,
    cluster_resolution: float = RESOLUTION,
    seed: int = 0,
) -> Merged:
    """Join genes, cells and embeddings, and find clusters and a UMAP of all cells for each annotation.

    cluster_key: a column of obs whose clusters are those of all cells already, and take the place of those found here
    at `cluster_resolution`. Clusters and UMAPs of single samples mean nothing side by side: they give way to those of
    all, or go.
    """
    var, places = join_genes([one.var for one in samples])
    obs = join_obs(samples)
    warnings = []
    partly = int((var["n_samples"] < len(samples)).sum())
    if partly:
        warnings.append(
            f"{partly:,} of {len(var):,} genes were not measured in every sample; where one was not, its counts are 0. "
            "var['n_samples'] says in how many it was."
        )
    warnings += twice_warnings(obs)
    runs = list(dict.fromkeys(key for one in samples for key in one.runs))
    obsm = shared_arrays(samples, runs)
    given, said = _clusters_of_all(samples, obs, cluster_key) if cluster_key else (None, [])
    warnings += said
    for key in runs:
        names = OutputNames(key)
        of_sample = (names.cluster, names.cluster_label, names.cluster_final, names.cluster_vote)
        obs = obs.drop(columns=[column for column in of_sample if column in obs])
        if names.embedding not in obsm:
            warnings.append(
                f"There is no UMAP and no cluster of all cells by '{key}': its embedding is not in every sample, or "
                "not of one width."
            )
            continue
        log(f"placing {len(obs):,} cells on one map by '{key}'")
        clusters, layout = clusters_and_map(
            obsm[names.embedding],
            codes=pd.factorize(obs[names.predicted].astype(str))[0],
            start=obsm.get(names.reference_umap),
            clusters=given,
            resolution=cluster_resolution,
            seed=seed,
        )
        obsm[names.umap] = obsm[names.umap_explorer] = layout
        inside, codes = clusters.inside, clusters.codes[clusters.inside]
        predicted = obs[names.predicted].astype(str).to_numpy(dtype=object)
        winners, shares = commonest(codes, predicted[inside])
        obs[names.cluster] = clusters.column()
        obs[names.cluster_label] = pd.Categorical(clusters.of_each_cell(winners, predicted))
        if names.final in obs:
            final = obs[names.final].astype(str).to_numpy(dtype=object)
            finals = commonest(codes, final[inside])[0]
            obs[names.cluster_final] = pd.Categorical(clusters.of_each_cell(finals, final))
        obs[names.cluster_vote] = clusters.of_each_cell(shares, np.ones(len(obs))).astype(np.float32)
    own = [key for key in runs if OutputNames(key).umap in obsm]
    first = OutputNames(runs[0])
    clusters_from = (
        f"the column '{given.key}' of obs"
        if given
        else f"Leiden at a resolution of {cluster_resolution:g}, all samples together"
    )
    uns = join_uns(samples, runs)
    # Those of the samples may come of elsewhere, and it is theirs that the parameters tell.
    uns["cellscribe"]["clusters"] = clusters_from
    return Merged(
        obs,
        var,
        dict(sorted(obsm.items())),
        uns,
        places,
        label_key=first.final if first.final in obs else first.predicted,
        layout_key=OutputNames(own[0]).umap if own else "",
        cluster_key=OutputNames(own[0]).cluster if own else "",
        clusters_from=clusters_from,
        no_cluster=given.none if given and not given.inside.all() else "",
        warnings=warnings,
    )


def _clusters_of_all(
    samples: Sequence[SampleFile], obs: pd.DataFrame, key: str
) -> tuple[Clusters | None, list[str]]:
    """As `read_clusters`. A column of ANNOTATE's own name holds the input's clusters where each sample took them from
    it; else some are of one sample alone, and `0` of two is not one cluster.
    """
    if key not in {OutputNames(run).cluster for one in samples for run in one.runs}:
        return read_clusters(obs, key)
    if any((one.info.get("parameters") or {}).get("cluster_key") != key for one in samples):
        return None, [FOUND_ANEW.format(key, "in it are those that were found in each sample by itself.")]
    # What ANNOTATE wrote for cells in no cluster names none.
    none = np.repeat(
        [str((one.info.get("in_no_cluster") or {}).get("name", "")) for one in samples],
        [len(one.obs) for one in samples],
    )
    return read_clusters(obs.assign(**{key: obs[key].where(obs[key].astype(str) != none)}), key)


def shared_arrays(samples: Sequence[SampleFile], runs: Sequence[str]) -> dict[str, np.ndarray]:
    """The obsm arrays that every sample has with the same columns, stacked; UMAPs of single samples left out."""
    alone = {name for key in runs for name in (OutputNames(key).umap, OutputNames(key).umap_explorer)}
    arrays = {}
    for key in samples[0].obsm:
        parts = [one.obsm.get(key) for one in samples]
        if key in alone or not all(isinstance(part, np.ndarray) and part.ndim == 2 for part in parts):
            continue
        features = {json.dumps(_features(one, key)) for one in samples}
        if len({part.shape[1] for part in parts if part is not None}) == 1 and len(features) == 1:
            arrays[key] = np.concatenate([np.asarray(part, dtype=np.float32) for part in parts])
    return arrays


def _features(one: SampleFile, key: str) -> list[str]:
    """What the columns of an obsm array are, where CONVERT named them."""
    return [str(name) for name in one.uns.get("feature_names", {}).get(key, ())]


def join_uns(samples: Sequence[SampleFile], runs: Iterable[str]) -> dict[str, Any]:
    """Provenance: for each annotation what all samples say alike, and by sample what they do not (JSON text)."""
    uns: dict[str, Any] = {}
    for run in runs:
        key = f"{run}{PREDICTIONS}"
        said = {one.sample: one.uns[key] for one in samples if isinstance(one.uns.get(key), Mapping)}
        alike: dict[str, Any] = {}
        differing: dict[str, dict[str, Any]] = {}
        for name in dict.fromkeys(name for values in said.values() for name in values):
            values = {sample: _plain(mine[name]) for sample, mine in said.items() if name in mine}
            if len(values) == len(samples) and len({json.dumps(value) for value in values.values()}) == 1:
                alike[name] = next(iter(said.values()))[name]
            else:
                differing[name] = values
        if said:
            uns[key] = {
                **alike,
                **({"by_sample": json.dumps(differing, sort_keys=True)} if differing else {}),
            }
    features = samples[0].uns.get("feature_names")
    if features:
        uns["feature_names"] = features
    organisms = {str(one.uns.get("cellscribe", {}).get("organism", "unknown")) for one in samples}
    uns["cellscribe"] = {
        "samples": [one.sample for one in samples],
        "organism": organisms.pop() if len(organisms) == 1 else "unknown",
    }
    return uns


def _plain(value: Any) -> Any:
    return value.tolist() if hasattr(value, "tolist") else value


# --- the file ---


def _of_steps(samples: Sequence[SampleFile], obs: pd.DataFrame) -> list[str]:
    """Columns of obs that QC and ANNOTATE wrote."""
    own = tuple(f"{key}_" for one in samples for key in one.runs)
    return [name for name in obs if name.startswith(own) or name in COLUMNS]


def write_merged(samples: Sequence[SampleFile], merged: Merged, sums: SumsByLabel, output: Path) -> None:
    """Write the merged file, and add its rows to `sums`; of counts no more than a block of rows is ever in memory.

    Raises OutputError where the file, opened again, is not whole.
    """
    import anndata

    tables: anndata.AnnData = anndata.AnnData(
        obs=merged.obs, var=merged.var, obsm=dict(merged.obsm), uns=merged.uns
    )
    with new_counts_file(tables, output) as (_, matrix):
        for block in joined_blocks(samples, merged.places, len(merged.var)):
            matrix.append(block)
            sums.add(block)


def joined_blocks(
    samples: Sequence[SampleFile], places: Sequence[np.ndarray], n_genes: int
) -> Iterator[sp.csr_matrix]:
    """The samples' counts, one after another, a block of rows at a time: CSR float32 (n_rows, n_genes).

    places: each sample's genes' columns, as `join_genes` gives them. Columns are in no order within a row.
    """
    for one, place in zip(samples, places, strict=True):
        for _, block in open_counts(one.path).chunks():
            yield sp.csr_matrix(
                (block.data, place[block.indices], block.indptr), shape=(block.shape[0], n_genes)
            )


def composition_table(sample: pd.Series, labels: pd.Series) -> pd.DataFrame:
    """Cells by sample and label: `sample`, `label`, `n_cells`, `share` of the sample's cells.

    One row a pair, zeros too; labels with most cells come first.
    """
    counts = pd.crosstab(sample.astype(str), labels.astype(str))
    order = sorted(counts.columns, key=lambda name: (-int(counts[name].sum()), name))
    counts = counts[order]
    shares = counts.div(counts.sum(axis=1), axis=0)
    return pd.DataFrame(
        {
            "sample": np.repeat(counts.index.to_numpy(dtype=object), counts.shape[1]),
            "label": np.tile(np.array(order, dtype=object), len(counts)),
            "n_cells": counts.to_numpy().ravel(),
            "share": shares.to_numpy().ravel().round(6),
        }
    )
