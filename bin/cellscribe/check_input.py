"""CHECK_INPUT: every parameter and every sample held to the schemas, before anything else runs.

What comes out is safe: each value that a later command line carries fits a pattern without quotes. All problems are
reported at once.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import quote

from cellscribe.check_models import Catalogues, find_models
from cellscribe.check_parameters import check_parameters
from cellscribe.check_samples import check_samples, read_rows
from cellscribe.io import read_json, write_json
from cellscribe.launch import Launch, existing_files
from cellscribe.places import absolute
from cellscribe.problems import Problems
from cellscribe.sample_names import clean_name
from cellscribe.schema import shown
from cellscribe.step_options import ABOUT, ANNOTATE, CENSUS, MERGE, TRAIN, options_of


def run_check(
    launch_file: Path,
    sheet: Path | None,
    schema_file: Path,
    input_schema_file: Path,
    catalogues: Catalogues,
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Check everything; return the samples and the run's settings, as docs/architecture.md describes them.

    sheet: the staged sample sheet; None where `--input` is data itself. Raises InputError with all problems.
    """
    launch = Launch.read(launch_file)
    problems = Problems()
    params = check_parameters(launch.params, read_json(schema_file), problems)
    settings: dict[str, Any] = {"mode": params["mode"], "params": params}
    samples: list[dict[str, Any]] = []
    if params["mode"] == "train":
        settings["train"] = _training(params, launch, problems)
    elif params["mode"] == "reference":
        settings["census"] = _census(params, launch, problems)
    else:
        settings["models"] = find_models(params, catalogues, launch, problems)
        urls = [model["url"] for model in settings["models"]]
        settings["shard_cells"] = _shard_cells(params, problems)
        settings["annotate"] = options_of(ANNOTATE, params) | {"model_url": urls}
        listed = [model["listed_as"] for model in settings["models"]]
        if any(listed):
            settings["annotate"]["listed_as"] = listed
        row_schema = read_json(input_schema_file)["items"]
        rows = read_rows(sheet, params, row_schema["properties"], launch.launch_dir, problems)
        samples = check_samples(rows, params, row_schema, launch, problems)
        settings["truth_map"] = _truth_map(params, samples, launch, problems)
        settings["merge"] = _merge(params, samples) if params["merge"] else None
    problems.stop()
    return samples, settings


def write_check(
    samples: list[dict[str, Any]], settings: dict[str, Any], output: Path, settings_out: Path
) -> None:
    """Write both for Nextflow."""
    write_json(samples, output)
    write_json(settings, settings_out)


def _truth_map(
    params: Mapping[str, Any], samples: list[dict[str, Any]], launch: Launch, problems: Problems
) -> str | None:
    """The table of what known labels mean; None where none is given."""
    paths = existing_files("truth_map", [params["truth_map"] or ""], launch, problems)
    compared = params["truth_key"] or any("truth_key" in sample["report"] for sample in samples)
    if paths and samples and not compared:
        problems.add("--truth_map: needs truth_key: the column of the labels whose meanings it tells")
    return paths[0] if paths else None


def _merge(params: Mapping[str, Any], samples: list[dict[str, Any]]) -> dict[str, Any]:
    """Options of MERGE. Clusters of one file are those of all its samples; `0` of two files is not one cluster."""
    own = samples[0]["annotate"] if len(samples) == 1 else {}
    return options_of(MERGE, params) | own


def _shard_cells(params: Mapping[str, Any], problems: Problems) -> int | None:
    """How many cells a shard has; None where no sample is sharded."""
    if params["shard_cells"] is None:
        return None
    if params["surgery"]:
        problems.add(
            "--shard_cells: --surgery fine-tunes the model on all cells of a sample, so that none can be mapped in "
            "parts; leave one of the two out"
        )
    # It reads no matrix, but its module does: imported where it is needed.
    from cellscribe.shards import shard_rows

    return shard_rows(params["shard_cells"])


def _training(params: Mapping[str, Any], launch: Launch, problems: Problems) -> dict[str, Any]:
    for name, what in (
        ("reference", "the labelled cells (.h5ad) to train on"),
        ("label_key", "the obs column of their labels, or the column of --label_csv"),
    ):
        if params[name] is None:
            problems.add(f"--{name}: needed with --mode train: {what}")
    references, label_csvs = (
        existing_files(name, str(params[name] or "").split(","), launch, problems)
        for name in ("reference", "label_csv")
    )
    label_maps, cl_maps = (
        existing_files(name, [params[name] or ""], launch, problems) for name in ("label_map", "cl_map")
    )
    for path in dict.fromkeys(references):
        if references.count(path) > 1:
            problems.add(
                f"--reference: {shown(path)} is given {references.count(path)} times; give each file once"
            )
    if len(label_csvs) > 1 and len(label_csvs) != len(references):
        problems.add(
            f"--label_csv: {len(label_csvs)} tables for {len(references)} references; give one for each reference, in "
            "the same order, or one for all"
        )
    # 64, as the schemas of parameters and models allow.
    named = clean_name(PurePosixPath(references[0]).stem)[:64] if references else "model"
    name = params["model_name"] or named
    return {
        "name": name,
        "references": references,
        "label_csvs": label_csvs,
        "label_map": label_maps[0] if label_maps else None,
        "cl_map": cl_maps[0] if cl_maps else None,
        "options": options_of(TRAIN, params) | _about(params),
    }


def _about(params: Mapping[str, Any]) -> dict[str, str]:
    """Free text as one option of letters, digits and % alone: JSON with %-escapes."""
    given = options_of(ABOUT, params)
    return {"about": quote(json.dumps(given, sort_keys=True), safe="")} if given else {}


def _census(params: Mapping[str, Any], launch: Launch, problems: Problems) -> dict[str, Any]:
    """The query for CELLxGENE Census. It reaches the task in a file: a filter has quotes."""
    if params["census"] is None:
        problems.add(
            "--census: needed with --mode reference: which cells, as "
            "\"tissue_general == 'lung' and is_primary_data == True\""
        )
    uri = params["census_uri"]
    return options_of(CENSUS, params) | {
        "organism": "human" if params["organism"] == "auto" else params["organism"],
        "uri": None if uri is None else absolute(uri, launch.launch_dir),
    }
