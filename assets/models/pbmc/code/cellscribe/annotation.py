"""ANNOTATE: name the cells, say how sure that is, and write the output contract."""

from __future__ import annotations

import datetime
import itertools
import json
import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from cellscribe.answer import AS_THE_MODEL, Answer, Decision, Strictness, answer_cells
from cellscribe.cli import log, warn
from cellscribe.clusters import FEWEST_CELLS, RESOLUTION, Clusters, clusters_and_map, commonest, majority
from cellscribe.contract import UNASSIGNED, OutputNames
from cellscribe.counts_file import CountsFile, open_counts
from cellscribe.errors import InputError
from cellscribe.explorer import explorer_warnings
from cellscribe.io import COMPRESSION, plain_columns, write_json, write_table
from cellscribe.mapping import Mapping, read_mapping
from cellscribe.model.manifest import MANIFEST
from cellscribe.model.model import Model
from cellscribe.verify import PREDICTIONS, verified_path

if TYPE_CHECKING:
    from cellscribe.foreign import Prediction
    from cellscribe.model.foreign import ForeignModel

# Of the reference's own cells so many lie nearer.
FAR_QUANTILE = 0.99


@dataclass
class Annotation:
    """Everything that annotation adds. obs: columns in order; obsm, uns: by key; info: for annotation.json."""

    names: OutputNames
    obs: pd.DataFrame
    obsm: dict[str, np.ndarray]
    predictions: pd.DataFrame
    info: dict[str, Any]
    uns: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Layout:
    """How cells lie to each other: clusters, umap float32 (n_cells, 2), warnings to the reader."""

    clusters: Clusters
    umap: np.ndarray
    warnings: Sequence[str] = ()


@dataclass(frozen=True)
class Votes:
    """What a cluster's cells are, (n_clusters,): its label's position, the share of its cells that have it, and the
    commonest label after rejection.
    """

    winners: np.ndarray
    shares: np.ndarray
    finals: np.ndarray


@dataclass(frozen=True)
class Grouping:
    """How cells are to be clustered: as they are already (`given`), else at a resolution. warnings: to the reader."""

    given: Clusters | None = None
    resolution: float = RESOLUTION
    warnings: Sequence[str] = ()


BY_LEIDEN = Grouping()


def grouping_of(obs: pd.DataFrame, cluster_key: str | None, resolution: float = RESOLUTION) -> Grouping:
    """The clusters of a column of obs, where it is asked for and there, else a resolution to find clusters at."""
    if not cluster_key:
        return Grouping(resolution=resolution)
    # Here, as models carry this file into environments that have no use for it.
    from cellscribe.given_clusters import read_clusters

    given, warnings = read_clusters(obs, cluster_key)
    return Grouping(given, resolution, warnings)


def lay_out(answer: Answer, grouping: Grouping = BY_LEIDEN, seed: int = 0, cpus: int = 1) -> Layout:
    """Cluster the cells in a model's embedding unless they are clustered, and lay them out unless the model did."""
    clusters, umap = clusters_and_map(
        answer.embedding,
        codes=answer.predicted,
        start=answer.reference_umap,
        umap=answer.umap,
        graph=answer.near,
        clusters=grouping.given,
        resolution=grouping.resolution,
        seed=seed,
        cpus=cpus,
    )
    n_cells = len(umap)
    if n_cells >= FEWEST_CELLS:
        return Layout(clusters, umap, grouping.warnings)
    few = (
        f"With {n_cells} cells there is no UMAP: principal components are given."
        if grouping.given
        else f"With {n_cells} cells there are no clusters and no UMAP: one cluster is given, and principal components."
    )
    return Layout(clusters, umap, (*grouping.warnings, few))


def annotate_cells(
    answer: Answer,
    barcodes: pd.Index,
    names: OutputNames,
    *,
    layout: Layout | None = None,
    grouping: Grouping = BY_LEIDEN,
    probabilities: bool = False,
    seed: int = 0,
    cpus: int = 1,
    pipeline_version: str = "unknown",
) -> Annotation:
    """Everything that the output contract asks for, from what a model says of the cells.

    layout: of these cells, where there is one already; else grouping says how to cluster them. probabilities: whether
    to add those of every label.
    """
    layout = layout or lay_out(answer, grouping, seed, cpus)
    inside, codes = layout.clusters.inside, layout.clusters.codes
    votes = Votes(
        *majority(codes[inside], answer.predicted[inside], len(answer.labels)),
        commonest(codes[inside], answer.decision.final[inside])[0],
    )
    table = _columns(answer, barcodes, names, layout, votes)
    obsm = {
        names.embedding: answer.embedding.astype(np.float32),
        names.umap: layout.umap,
        names.umap_explorer: layout.umap,
    }
    if answer.reference_umap is not None:
        obsm[names.reference_umap] = answer.reference_umap
    if probabilities and answer.probabilities is not None:
        obsm[names.probabilities] = answer.probabilities.astype(np.float32)
    info = _information(answer, table, names, layout, votes) | {
        "parameters": answer.parameters | layout.clusters.origin | {"seed": seed},
        "pipeline_version": pipeline_version,
    }
    uns = _provenance(answer, info) | {"obs_keys": list(table.columns), "obsm_keys": list(obsm)}
    return Annotation(names, table, obsm, _predictions(answer, table, names), info, {names.predictions: uns})


def _columns(
    answer: Answer,
    barcodes: pd.Index,
    names: OutputNames,
    layout: Layout,
    votes: Votes,
) -> pd.DataFrame:
    """The columns of obs."""
    predicted, decision, clusters = answer.predicted, answer.decision, layout.clusters
    labels, cl_ids = np.array(answer.labels, dtype=object), np.array(answer.cl_ids, dtype=object)
    obs: dict[str, Any] = {
        names.predicted: pd.Categorical(labels[predicted], categories=_used(labels, predicted)),
        names.uncertainty: answer.uncertainty.astype(np.float32),
        names.final: pd.Categorical(decision.final),
        names.reason: pd.Categorical(decision.reason),
        names.cl_id: pd.Categorical(cl_ids[predicted]),
        names.final_cl_id: pd.Categorical(decision.final_cl_id),
    }
    for level, (coarse, uncertainty) in answer.levels.items():
        obs[names.level(level)] = pd.Categorical(coarse)
        obs[names.level_uncertainty(level)] = uncertainty.astype(np.float32)
    obs[names.cluster] = clusters.column()
    # A cell that is in no cluster is alone in voting, for its own label.
    obs[names.cluster_label] = pd.Categorical(clusters.of_each_cell(labels[votes.winners], labels[predicted]))
    obs[names.cluster_final] = pd.Categorical(clusters.of_each_cell(votes.finals, decision.final))
    alone = np.ones(len(predicted))
    obs[names.cluster_vote] = clusters.of_each_cell(votes.shares, alone).astype(np.float32)
    if answer.distance_quantile is not None:
        obs[names.reference_distance] = answer.distance_quantile
    if answer.unexpected is not None:
        obs[names.unexpected] = answer.unexpected.astype(np.float32)
    if answer.novelty is not None:
        obs[names.novelty] = answer.novelty
    if answer.set_sizes is not None:
        obs[names.set_size] = answer.set_sizes.astype(np.int32)
    if answer.agreeing is not None:
        obs[names.agreeing] = answer.agreeing
    return pd.DataFrame(obs, index=barcodes)


def _predictions(answer: Answer, table: pd.DataFrame, names: OutputNames) -> pd.DataFrame:
    """The columns of obs as a table of their own, with the next label and each cell's set."""
    predictions = table.copy()
    predictions.columns = [str(c).removeprefix(f"{names.key}_") for c in table.columns]
    predictions = predictions.rename(columns={"predicted_uncertainty": "uncertainty"})
    if answer.second is not None:
        second, probability = answer.second
        predictions["second_label"] = np.array(answer.labels, dtype=object)[second]
        predictions["second_probability"] = probability
    if answer.label_sets is not None:
        predictions["label_set"] = answer.label_sets
    predictions.insert(0, "barcode", np.asarray(table.index, dtype=object))
    return predictions


def _information(
    answer: Answer,
    table: pd.DataFrame,
    names: OutputNames,
    layout: Layout,
    votes: Votes,
) -> dict[str, Any]:
    """What annotation.json says of the sample, but for how the step was run."""
    decision, quantile, clusters = answer.decision, answer.distance_quantile, layout.clusters
    labels, sizes = np.array(answer.labels, dtype=object), clusters.sizes
    return {
        "model": answer.model,
        "names": {
            key: getattr(names, key)
            for key in (
                "predicted",
                "uncertainty",
                "embedding",
                "umap",
                "umap_explorer",
                "reference_umap",
                "predictions",
                "final",
                "reason",
                "cl_id",
                "final_cl_id",
                "cluster",
                "cluster_label",
                "cluster_final",
                "cluster_vote",
                "reference_distance",
                "unexpected",
                "novelty",
                "set_size",
                *(() if answer.agreeing is None else ("agreeing",)),
            )
        },
        "n_cells": len(table),
        "labels": [str(label) for label in answer.labels],
        "composition": _counts(decision.final),
        "predicted_composition": _counts(labels[answer.predicted]),
        "unassigned": int((decision.final == UNASSIGNED).sum()),
        "reasons": {key: number for key, number in _counts(decision.reason).items() if key},
        "unassigned_by": _counts(decision.reason[decision.final == UNASSIGNED]),
        # Several models differ in what makes a cell novel, and one made by others gives no reasons.
        **({} if decision.novel_by is None else {"novel_by": decision.novel_by}),
        "median_uncertainty": float(np.median(table[names.uncertainty])),
        **{
            key: answer.mapping[key]
            for key in ("gene_overlap", "n_model_genes", "n_genes_found", "genes_matched_by", "missing_genes")
        },
        "orthologs": answer.mapping.get("orthologs"),
        "set_sizes": None
        if answer.set_sizes is None
        else {
            str(size): int(n)
            for size, n in zip(*np.unique(answer.set_sizes, return_counts=True), strict=True)
        },
        "n_genes_respelled": answer.mapping.get("n_genes_respelled", 0),
        "n_refit_genes": answer.mapping.get("n_refit_genes", 0),
        "reference_distance": None
        if quantile is None
        else {
            "median": float(np.median(quantile)),
            "share_beyond_99": float((quantile >= FAR_QUANTILE).mean()),
        },
        "clusters": [
            {
                "cluster": str(clusters.names[cluster]),
                "n_cells": int(sizes[cluster]),
                "label": str(labels[votes.winners[cluster]]),
                "final": str(votes.finals[cluster]),
                "vote": float(votes.shares[cluster]),
            }
            for cluster in np.argsort(-sizes, kind="stable").tolist()
        ],
        "in_no_cluster": {"n_cells": int((~clusters.inside).sum()), "name": clusters.none},
        "levels": list(answer.levels),
        "calibrated": answer.calibrated,
        "warnings": [
            *answer.mapping["warnings"],
            *layout.warnings,
            *answer.warnings,
            *annotation_warnings(decision, quantile),
        ],
    }


def _provenance(answer: Answer, info: dict[str, Any]) -> dict[str, Any]:
    """What the file itself says of the model and of how it was used."""
    orthologs = info["orthologs"]
    return {
        "model_url": answer.model["url"],
        "model_name": answer.model["name"],
        "model_version": answer.model["version"],
        "model_sha256": answer.model["sha256"],
        "pipeline_version": info["pipeline_version"],
        "parameters": json.dumps(info["parameters"], sort_keys=True),
        # Which genes a model made by others looks at, only its code knows; older readers know no null.
        **{
            key: answer.mapping[key]
            for key in ("gene_overlap", "genes_matched_by")
            if answer.mapping[key] is not None
        },
        **({"orthologs": "{from} to {to}".format(**orthologs)} if orthologs else {}),
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "labels": info["labels"],
    }


def annotate_by_models(
    answers: Sequence[Answer],
    barcodes: pd.Index,
    names: OutputNames,
    *,
    grouping: Grouping = BY_LEIDEN,
    probabilities: bool = False,
    seed: int = 0,
    cpus: int = 1,
    pipeline_version: str = "unknown",
) -> Annotation:
    """What one model says, or each of several under names of its own and, under the plain names, their consensus."""
    if len(answers) == 1:
        return annotate_cells(
            answers[0],
            barcodes,
            names,
            grouping=grouping,
            probabilities=probabilities,
            seed=seed,
            cpus=cpus,
            pipeline_version=pipeline_version,
        )
    from cellscribe.consensus import agreement, agreement_by_label, consensus, unite

    own_names = [names.of_model(name) for name in model_keys(answers, names)]
    layouts = [lay_out(answer, grouping, seed, cpus) for answer in answers]
    parts = [
        annotate_cells(
            answer,
            barcodes,
            own,
            layout=layout,
            probabilities=probabilities,
            seed=seed,
            pipeline_version=pipeline_version,
        )
        for answer, own, layout in zip(answers, own_names, layouts, strict=True)
    ]
    together, union = consensus(answers), unite(answers)
    # The consensus has the embedding of the first model, and so its clusters and its UMAP.
    joint = annotate_cells(
        together,
        barcodes,
        names,
        layout=layouts[0],
        probabilities=probabilities,
        seed=seed,
        pipeline_version=pipeline_version,
    )
    for part in parts:
        key = part.names.key.removeprefix(f"{names.key}_")
        for column in ("predicted", "uncertainty", "final"):
            joint.predictions[f"{key}_{column}"] = part.obs[getattr(part.names, column)].to_numpy()
    joint.info["models"] = [part.info for part in parts]
    joint.info["agreement"] = {
        "pairs": agreement(answers, union),
        "labels": agreement_by_label(answers, union, together.predicted),
    }
    obs = pd.concat([joint.obs, *(part.obs for part in parts)], axis=1)
    obsm, uns = joint.obsm, joint.uns
    for part in parts:
        obsm = obsm | part.obsm
        uns = uns | part.uns
    uns[names.predictions] |= {
        "obs_keys": list(obs.columns),
        "obsm_keys": list(obsm),
        "uns_keys": list(uns),
    }
    return Annotation(names, obs, obsm, joint.predictions, joint.info, uns)


def model_keys(answers: Sequence[Answer], names: OutputNames) -> list[str]:
    """A name for each of several models that can stand in a key: its own, with its version where that is not enough.

    names: the consensus's. It is not enough where two names would make one key: the UMAP on the reference of a model
    `lung` is called as the UMAP of a model `lung_ref`.
    """
    plain = [_key_part(str(answer.model["name"])) for answer in answers]
    levels = {level for answer in answers for level in answer.levels}
    taken = names.every(levels)
    keys = []
    for own, answer in zip(plain, answers, strict=True):
        longer = _key_part(f"{answer.model['name']}_{answer.model['version']}")
        short = [] if plain.count(own) > 1 else [own]
        numbered = (f"{longer}_{number}" for number in itertools.count(2))
        key = next(
            key
            for key in itertools.chain(short, [longer], numbered)
            if not names.of_model(key).every(levels) & taken
        )
        taken |= names.of_model(key).every(levels)
        keys.append(key)
    return keys


def _key_part(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9-]+", "_", text).strip("_") or "model"


# What may stand behind each reason; "" for a model that gives none.
WHY_UNASSIGNED = {
    "low_information": "they have too few counts on the model's genes: the sample is shallow, or these are no cells.",
    "novel": "they are unlike all that the model was trained on: other cell types or states, or a strong technical "
    "difference.",
    "ambiguous": "no label is probable enough: types between those of the model, doublets, or lower quality than its "
    "reference.",
    "disagreement": "the models contradict each other.",
    "": "the sample holds cells that the model was not trained on, or is of lower quality than its reference.",
}


def annotation_warnings(decision: Decision, quantile: np.ndarray | None) -> list[str]:
    """What a reader must know before trusting the labels."""
    warnings = []
    left = decision.final == UNASSIGNED
    if left.mean() > 0.2:
        numbers = _counts(decision.reason[left])
        reason = next(iter(numbers))
        most = f" ({reason}: {numbers[reason]:,} of {left.sum():,})" if reason else ""
        warnings.append(f"{left.mean():.0%} of the cells are unassigned{most}: {WHY_UNASSIGNED[reason]}")
    if quantile is not None and (far := float(np.mean(quantile >= FAR_QUANTILE))) > 0.1:
        warnings.append(
            f"{far:.0%} of the cells lie farther from the reference than 99 % of its own cells: cell types or states "
            "that the model does not know, or a strong technical difference."
        )
    return warnings


def _counts(values: np.ndarray) -> dict[str, int]:
    numbers = pd.Series(values, dtype=object).value_counts()
    return {str(name): int(n) for name, n in sorted(numbers.items(), key=lambda one: (-one[1], str(one[0])))}


def _used(labels: np.ndarray, codes: np.ndarray) -> list[str]:
    return [str(label) for i, label in enumerate(labels) if (codes == i).any()]


def write_annotated(counts: Path, annotation: Annotation, output: Path, *, ours: bool = False) -> list[str]:
    """Copy the filtered counts file and add the annotation to the copy; the matrix is never read.

    What an earlier annotation of the same name added goes, so that nothing of another model stays beside it. Returns
    in sentences what CELLxGENE Explorer will not show of the file. ours: whether `counts` is a counts file of ours,
    which is looked at whole. Raises OutputError where the file, opened again, breaks the output contract; nothing of it
    is kept.
    """
    import anndata
    import h5py
    from anndata.io import read_elem, write_elem

    keys = [key.removesuffix(PREDICTIONS) for key in annotation.uns]
    with (
        verified_path(output, keys, ours=ours) as temporary,
        anndata.settings.override(allow_write_nullable_strings=False),
    ):
        shutil.copyfile(counts, temporary)
        with h5py.File(temporary, "r+") as file:
            earlier = _earlier(file, annotation.names, read_elem)
            if isinstance(file["obs"], h5py.Dataset):
                raise InputError(
                    "this .h5ad is of an anndata before 0.7, and no columns can be added to it",
                    "Read it with a recent anndata and write it again.",
                    file=counts,
                )
            obs = read_elem(file["obs"])
            # A file may have lost what said which columns were an annotation's, and kept these.
            levels = annotation.info["levels"]
            columns = set().union(*(OutputNames(key).columns(levels) for key in keys))
            arrays = set().union(*(OutputNames(key).arrays() for key in keys))
            gone = {*annotation.obs.columns, *earlier.get("obs_keys", ()), *columns}
            obs = obs.drop(columns=[c for c in obs.columns if c in gone])
            obs = pd.concat([obs, annotation.obs.set_axis(obs.index, axis=0)], axis=1)
            plain_columns(obs)
            _replace(file, "obs", obs, write_elem)
            for group in ("obsm", "uns"):
                if group not in file:
                    write_elem(file, group, {})
            for key in {*earlier.get("obsm_keys", ()), *arrays}:
                if key in file["obsm"]:
                    del file["obsm"][key]
            for key in earlier.get("uns_keys", ()):
                if key in file["uns"]:
                    del file["uns"][key]
            for key, array in annotation.obsm.items():
                _replace(file["obsm"], key, array, write_elem)
            for key, said in annotation.uns.items():
                _replace(file["uns"], key, said, write_elem)
            return explorer_warnings(obs, file["obsm"])


def _earlier(file: Any, names: OutputNames, read_elem: Any) -> dict[str, list[str]]:
    """Which keys of obs, obsm and uns an annotation of this name wrote before; empty for another program's."""
    key = f"uns/{names.predictions}"
    try:
        found = read_elem(file[key]) if key in file else {}
    except Exception:
        # What anndata cannot read is none of ours.
        return {}
    if not isinstance(found, dict):
        return {}
    return {
        part: [str(name) for name in found.get(part, ()) if names.key in str(name)]
        for part in ("obs_keys", "obsm_keys", "uns_keys")
    }


def _replace(group: Any, key: str, value: Any, write_elem: Any) -> None:
    if key in group:
        del group[key]
    write_elem(group, key, value, dataset_kwargs={} if isinstance(value, dict) else COMPRESSION)


def run_annotate(
    counts: Path,
    mapping_paths: Sequence[Path],
    model_folders: Sequence[Path],
    *,
    sample: str,
    output: Path,
    predictions: Path,
    summary: Path,
    names: OutputNames,
    zarr: bool = False,
    probabilities: bool = False,
    classifier: str = "default",
    strictness: Strictness = AS_THE_MODEL,
    cluster_key: str | None = None,
    cluster_resolution: float = RESOLUTION,
    model_urls: Sequence[str] = (),
    listed_as: Sequence[str] = (),
    seed: int = 0,
    cpus: int = 1,
    pipeline_version: str = "unknown",
) -> None:
    """Annotate a mapped sample: annotated.h5ad, predictions.tsv.gz and annotation.json (docs/outputs.md).

    zarr: whether to write annotated.zarr.zip too. probabilities: whether to add those of every label. cluster_key: a
    column of obs whose clusters take the place of those found here, at `cluster_resolution`.

    mapping_paths, model_urls: one a model, in the order of `model_folders`; without urls none is recorded. listed_as:
    the `name==version` of each model's row in the catalogue, "" for none; a warning tells where the model has another.
    Raises InputError where a mapping is not of these cells or not by that model, OutputError where what was written
    does not hold the output contract.
    """
    cells = open_counts(counts)
    answers = []
    none = [""] * len(model_folders)
    for mapping_path, folder, url, listed in zip(
        mapping_paths, model_folders, model_urls or none, listed_as or none, strict=True
    ):
        answer = sample_answer(
            cells,
            mapping_path,
            folder,
            classifier=classifier,
            strictness=strictness,
            model_url=url,
            seed=seed,
            cpus=cpus,
        )
        answers.append(held_to_catalogue(answer, listed))
    check_different(answers)
    annotation = annotate_by_models(
        answers,
        cells.obs.index,
        names,
        grouping=grouping_of(cells.obs, cluster_key, cluster_resolution),
        probabilities=probabilities,
        seed=seed,
        cpus=cpus,
        pipeline_version=pipeline_version,
    )
    annotation.info["warnings"] += write_annotated(counts, annotation, output, ours=True)
    if zarr:
        # Here, as models carry this file into environments that have no use for it.
        from cellscribe.zarr_output import write_zarr, zarr_path

        write_zarr(output, zarr_path(output))
    for warning in annotation.info["warnings"]:
        warn(warning)
    write_table(annotation.predictions.round(6), predictions)
    write_json({"sample": sample, **annotation.info}, summary)
    log(f"{named_words(annotation.info)}; median uncertainty {annotation.info['median_uncertainty']:.2f}")


def named_words(info: dict[str, Any]) -> str:
    """How many of the cells got a name, and why the others got none. info: of `Annotation`."""
    reasons = ", ".join(f"{n:,} {reason}" for reason, n in info["unassigned_by"].items() if reason)
    left = f", {info['unassigned']:,} left unassigned{f' ({reasons})' if reasons else ''}"
    named = f"{info['n_cells'] - info['unassigned']:,} of {info['n_cells']:,} cells named"
    return named + (left if info["unassigned"] else "")


def check_different(answers: Sequence[Answer]) -> None:
    """Raises InputError where two of several models are the same: their agreement would say nothing."""
    seen: dict[str, Answer] = {}
    for answer in answers:
        sha256 = str(answer.model["sha256"])
        if sha256 in seen:
            raise InputError(
                f"the model '{answer.model['name']} {answer.model['version']}' is given twice (sha256 {sha256[:12]})",
                "Give each model once with --model.",
            )
        seen[sha256] = answer


def held_to_catalogue(answer: Answer, listed_as: str) -> Answer:
    """The answer, with a warning where a model of ours has another name or version than its row in the catalogue."""
    # Here, as models carry this file into environments that have no catalogue.
    from cellscribe.catalogue import other_model
    from cellscribe.foreign import KIND

    if not listed_as or answer.model["kind"] == KIND:
        return answer
    told = other_model(listed_as, str(answer.model["name"]), str(answer.model["version"]))
    return replace(answer, warnings=[told, *answer.warnings]) if told else answer


def sample_answer(
    cells: CountsFile,
    mapping_path: Path,
    model_folder: Path,
    *,
    classifier: str = "default",
    strictness: Strictness = AS_THE_MODEL,
    model_url: str = "",
    seed: int = 0,
    cpus: int = 1,
) -> Answer:
    """What a model says of a sample's cells by their mapping, as MAP wrote it or, for a model made by others, PREDICT.

    Raises InputError where the mapping is of other cells or of another model.
    """
    if (Path(model_folder) / MANIFEST).is_file():
        mapping, model = read_mapping(mapping_path), Model(model_folder)
        check_same(cells, mapping, model, mapping_path)
        return answer_cells(
            mapping,
            model,
            classifier=classifier,
            strictness=strictness,
            model_url=model_url,
            seed=seed,
            cpus=cpus,
        )
    # Here, as models carry this file into environments that have no use for those.
    from cellscribe.foreign import answer_prediction, read_prediction_mapping
    from cellscribe.model.foreign import open_foreign

    prediction = read_prediction_mapping(mapping_path)
    check_same(cells, prediction, open_foreign(model_folder), mapping_path)
    return answer_prediction(prediction, model_url, strictness)


def check_same(
    cells: CountsFile, mapping: Mapping | Prediction, model: Model | ForeignModel, path: Path
) -> None:
    """Raises InputError where the mapping is of other cells or of another model."""
    if mapping.n_obs != cells.n_obs:
        raise InputError(
            f"the mapping has {mapping.n_obs:,} cells, the counts have {cells.n_obs:,}",
            "Run map.py, or predict.py for a model made by others, again on these counts.",
            file=path,
        )
    if mapping.barcodes is not None and list(mapping.barcodes) != list(cells.obs.index):
        raise InputError(
            "the mapping is of other cells than the counts, or in another order",
            "Run map.py, or predict.py for a model made by others, again on these counts.",
            file=path,
        )
    if mapping.info["model_sha256"] != model.sha256:
        raise InputError(
            f"the mapping was made with another model than '{model.name}'",
            "Run map.py, or predict.py for a model made by others, again.",
            file=path,
        )
