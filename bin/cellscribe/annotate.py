"""ANNOTATE: name a sample's cells by one model or several, say how sure that is, and write the output contract."""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pandas as pd

from cellscribe.annotated_file import write_annotated
from cellscribe.annotation import BY_LEIDEN, Annotation, Grouping, annotate_cells, grouping_of, lay_out
from cellscribe.annotation_info import named_words
from cellscribe.answer import AS_THE_MODEL, Answer, Strictness, answer_cells
from cellscribe.catalogue import other_model
from cellscribe.cli import log, warn
from cellscribe.clusters import RESOLUTION
from cellscribe.consensus import agreement, agreement_by_label, consensus, unite
from cellscribe.contract import OutputNames
from cellscribe.counts_file import CountsFile, open_counts
from cellscribe.errors import InputError
from cellscribe.foreign import KIND, Prediction, answer_prediction, read_prediction_mapping
from cellscribe.io import write_json, write_table
from cellscribe.mapping import Mapping, read_mapping
from cellscribe.model.foreign import ForeignModel, open_foreign
from cellscribe.model.manifest import MANIFEST
from cellscribe.model.model import Model


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
        # Here, as zarr takes its time to be imported.
        from cellscribe.zarr_output import write_zarr, zarr_path

        write_zarr(output, zarr_path(output))
    for warning in annotation.info["warnings"]:
        warn(warning)
    write_table(annotation.predictions.round(6), predictions)
    write_json({"sample": sample, **annotation.info}, summary)
    log(f"{named_words(annotation.info)}; median uncertainty {annotation.info['median_uncertainty']:.2f}")


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
    joint.info["cl_ids"] = list(together.cl_ids)
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
