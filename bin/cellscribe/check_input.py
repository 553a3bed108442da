"""CHECK_INPUT: every parameter and every sample held to the schemas, before anything else runs.

What comes out is safe: each value that a later command line carries fits a pattern without quotes. All problems are
reported at once.
"""

from __future__ import annotations

import json
import posixpath
import re
import unicodedata
from bisect import bisect_left
from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import quote

from cellscribe.catalogue import Entry, NotInCatalogueError, find_entry, read_catalogue
from cellscribe.cli import warn
from cellscribe.contract import OutputNames, free_name
from cellscribe.differential import parse_comparisons
from cellscribe.errors import InputError
from cellscribe.io import read_json, write_json
from cellscribe.places import absolute, folder_of, is_registered, is_uri, secret_problem
from cellscribe.registry import address_problem, parse_name
from cellscribe.sample_names import BARCODE_SUFFIX, clean_name, name_of
from cellscribe.schema import coerce, nearest, parameters, problem, shown
from cellscribe.sheet import SHEET_SUFFIXES, Problems, Row, read_sheet

# Letters of a sample's name to which `_<value>` is added.
LONGEST_SPLIT = 60
# What people keep tables in, and what holds no counts.
OTHER_TABLES = (".xlsx", ".xls", ".ods", ".numbers", ".txt", ".json")
ORGANISMS = {"Homo sapiens": "human", "Mus musculus": "mouse"}
# What files for -c that sites share (nf-core/configs) say of themselves.
OF_SITES = re.compile(r"(config_profile|custom_config)_\w+")
ORDERED = (
    ("min_counts", "max_counts"),
    ("min_genes", "max_genes"),
    ("min_gene_overlap", "warn_gene_overlap"),
)
CLUSTERS = {"cluster_resolution": "cluster_resolution"}

# Which parameter each step's option takes its value from. A sample's own column goes before the parameter.
CONVERT = {
    "organism": "organism",
    "counts_layer": "counts_layer",
    "gene_column": "gene_column_name",
    "genome": "genome",
    "call_cells": "call_cells",
    "seed": "seed",
}
# A file of several samples is parted before it is converted.
SPLIT = {"sample_key": "sample_key", "counts_layer": "counts_layer", "genome": "genome"}
QC = {
    "mode": "qc",
    **{
        name: name
        for name in (
            "min_counts",
            "max_counts",
            "min_genes",
            "max_genes",
            "max_pct_mt",
            "max_pct_ribo",
            "max_pct_hb",
            "n_mads",
            "n_mads_mt",
            "min_cells",
            "min_cells_per_gene",
            "doublets",
            "expected_doublet_rate",
            "seed",
        )
    },
}
MAP = {
    "organism": "organism",
    "gene_column_name": "gene_column_name",
    "min_gene_overlap": "min_gene_overlap",
    "warn_gene_overlap": "warn_gene_overlap",
    "orthologs": "orthologs",
    "use_gpu": "use_gpu",
    "surgery": "surgery",
    "surgery_epochs": "surgery_epochs",
    "seed": "seed",
}
PREDICT = {
    name: name
    for name in (
        "organism",
        "gene_column_name",
        "classifier",
        "use_gpu",
        "mlflow_env_manager",
        "trust_model_code",
        "seed",
    )
}
ANNOTATE = {
    "annotation_prefix": "annotation_prefix",
    "annotation_type": "annotation_type",
    "run_name": "run_name",
    "classifier": "classifier",
    "min_probability": "min_probability",
    "reject_novel": "reject_novel",
    "novelty_limit": "novelty_limit",
    **CLUSTERS,
    "probabilities": "probabilities",
    "zarr": "zarr",
    "seed": "seed",
}
# A sample's own, beside those of the run.
ANNOTATE_SAMPLE = {"cluster_key": "cluster_key"}
# The fields of the CELLxGENE schema that only the sheet can tell, by the schema's own names.
CURATE = {
    name: name
    for name in (
        "title",
        "is_primary_data",
        "assay_ontology_term_id",
        "tissue_type",
        "tissue_ontology_term_id",
        "disease_ontology_term_id",
        "suspension_type",
        "donor_id",
        "sex_ontology_term_id",
        "development_stage_ontology_term_id",
        "self_reported_ethnicity_ontology_term_id",
    )
}
REPORT = {
    "compare": "compare",
    "truth_key": "truth_key",
}
MERGE = {**CLUSTERS, "seed": "seed"}
# Which parameter each part of the query for CELLxGENE Census takes its value from.
CENSUS = {
    "filter": "census",
    "version": "census_version",
    "cells_per_type": "census_cells_per_type",
    "holdout_donors": "census_holdout_donors",
    "seed": "seed",
}
TRAIN = {
    "label_key": "label_key",
    "batch_key": "batch_key",
    "levels": "levels",
    "version": "model_version",
    "kind": "model_kind",
    "organism": "organism",
    "counts_layer": "counts_layer",
    "gene_column": "gene_column_name",
    "n_top_genes": "n_top_genes",
    "n_latent": "n_latent",
    "max_epochs": "max_epochs",
    "encode_covariates": "encode_covariates",
    "keep_counts": "keep_counts",
    "correct_labels": "correct_labels",
    "seed": "seed",
    "use_gpu": "use_gpu",
}
# Free text, which no command line may carry as it is: `about` holds it.
ABOUT = {
    "description": "model_description",
    "licence": "model_licence",
    "citation": "model_citation",
    "lacks": "model_lacks",
}


@dataclass(frozen=True)
class Launch:
    """What Nextflow knows and a task does not.

    `sees_paths`: whether a task sees the launch folder's files, as it does not in a container. `tracking_uri`: what
    MLFLOW_TRACKING_URI says there.
    """

    params: dict[str, Any]
    launch_dir: str
    project_dir: str
    sees_paths: bool
    tracking_uri: str = ""

    @classmethod
    def read(cls, path: Path) -> Launch:
        """From the JSON that main.nf writes."""
        value = read_json(path)
        return cls(
            value["params"],
            value["launch_dir"],
            value["project_dir"],
            bool(value["sees_paths"]),
            value.get("tracking_uri") or "",
        )

    def visible(self) -> bool:
        """Whether a path that is not here is nowhere."""
        return self.sees_paths and Path(self.launch_dir).is_dir()


@dataclass(frozen=True)
class Catalogues:
    """Our catalogue of models, and the user's as it was staged; None where there is none."""

    ours: Path
    own: Path | None = None


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
        settings["annotate"] = _options(ANNOTATE, params) | {"model_url": urls}
        listed = [model["listed_as"] for model in settings["models"]]
        if any(listed):
            settings["annotate"]["listed_as"] = listed
        row_schema = read_json(input_schema_file)["items"]
        rows = _rows(sheet, params, row_schema["properties"], launch.launch_dir, problems)
        samples = check_samples(rows, params, row_schema, launch, problems)
        settings["merge"] = _merge(params, samples) if params["merge"] else None
    problems.stop()
    return samples, settings


def write_check(
    samples: list[dict[str, Any]], settings: dict[str, Any], output: Path, settings_out: Path
) -> None:
    """Write both for Nextflow."""
    write_json(samples, output)
    write_json(settings, settings_out)


# --- parameters ---


def check_parameters(
    given: Mapping[str, Any], schema: Mapping[str, Any], problems: Problems
) -> dict[str, Any]:
    """Every parameter of the schema in its type; its default, or None, where none is given or it is wrong, which is
    noted.
    """
    known = parameters(schema)
    for name in _unknown(given, known):
        problems.add(f"--{name}: there is no such parameter{nearest(name, known)}")
    checked: dict[str, Any] = {}
    for name, part in known.items():
        value = coerce(given.get(name), part)
        wrong = None if value is None else _wrong(value, part)
        if wrong:
            problems.add(f"--{name}: {wrong}")
        checked[name] = part.get("default") if wrong or value is None else value
    checked["organism"] = ORGANISMS.get(checked["organism"], checked["organism"])
    _check_order(checked, "", problems)
    if checked["novelty_limit"] is not None and not checked["reject_novel"]:
        problems.add(
            "--novelty_limit: says from which novelty on cells are left unassigned, and with --reject_novel false none "
            "is for that; leave out one of the two"
        )
    if checked["compare"] is not None:
        try:
            parse_comparisons(checked["compare"])
        except ValueError as error:
            problems.add(f"--compare: {error}")
    if checked["run_name"]:
        try:
            OutputNames.of(checked["annotation_prefix"], checked["annotation_type"], checked["run_name"])
        except InputError as error:
            problems.add(f"--run_name: {error.seen}")
    return checked


def _wrong(value: Any, part: Mapping[str, Any]) -> str | None:
    """What is wrong with a value, passwords first: what fits the pattern may hold one all the same.

    A rule that says itself where a password belongs goes before.
    """
    secret = secret_problem(value) if isinstance(value, str) else None
    if secret and "password" not in part.get("errorMessage", ""):
        return f"{shown(value)} {secret}"
    return problem(value, part)


def _merge(params: Mapping[str, Any], samples: list[dict[str, Any]]) -> dict[str, Any]:
    """Options of MERGE. Clusters of one file are those of all its samples; `0` of two files is not one cluster."""
    own = samples[0]["annotate"] if len(samples) == 1 else {}
    return _options(MERGE, params) | own


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


def _unknown(given: Mapping[str, Any], known: Iterable[str]) -> list[str]:
    """Names that are no parameters. Nextflow adds to each `a-b` an `aB` of its own: told once, as it was typed."""
    unknown = [name for name in given if name not in known and not OF_SITES.fullmatch(name)]
    twins = {re.sub(r"-(\w)", lambda found: found[1].upper(), name) for name in unknown if "-" in name}
    return [name for name in unknown if name not in twins]


def _check_order(
    values: Mapping[str, Any], where: str, problems: Problems, changed: Iterable[str] | None = None
) -> None:
    """Note bounds in the wrong order; with `changed`, only those that one of these names is part of."""
    for low, high in ORDERED:
        if changed is not None and not {low, high} & set(changed):
            continue
        lowest, highest = values.get(low), values.get(high)
        if lowest is not None and highest is not None and lowest > highest:
            problems.add(f"{where}{low} ({lowest}) is above {high} ({highest}); nothing fits between them")


def _options(names: Mapping[str, str], values: Mapping[str, Any]) -> dict[str, Any]:
    """The options of a step that have a value; booleans as the words that commands read."""
    chosen = {option: values.get(name) for option, name in names.items()}
    return {
        option: str(value).lower() if isinstance(value, bool) else value
        for option, value in chosen.items()
        if value is not None
    }


# --- the models ---


def find_models(
    params: Mapping[str, Any], catalogues: Catalogues, launch: Launch, problems: Problems
) -> list[dict[str, Any]]:
    """Where the models of `--model` are: `{place, label, source, sha256, url, remote, tracking_uri, listed_as}` each,
    in order.

    A word without a slash is a name in the catalogue; anything else is a path, a URL or a name in an MLflow registry.
    `url` is what the output names, `source` what Nextflow stages; `tracking_uri` is the registry's server, "" for
    other models; `label` is what the model's tasks are called where there are several models, else ""; `listed_as` is
    the `name==version` of the catalogue's row, "" where it is in none.
    """
    given = [part.strip() for part in str(params["model"]).split(",")]
    named = [part for part in given if part]
    if len(named) < len(given):
        problems.add(
            f"--model: {shown(params['model'])} has an empty place; give models with commas between them"
        )
    sha256s = _sha256s(params["model_sha256"], len(named), problems)
    models: list[dict[str, Any]] = []
    labels: list[str] = []
    for place, (name, sha256) in enumerate(zip(named, sha256s, strict=True), start=1):
        found = _find_model(name, sha256, params, catalogues, launch, problems)
        labels.append(_label(name, labels))
        twice = [earlier for earlier, model in zip(named, models, strict=False) if _same_model(model, found)]
        if twice:
            problems.add(
                f"--model: {shown(name)} and {shown(twice[0])} are the same model; give each model once"
            )
        models.append({"place": place, "label": labels[-1] if len(named) > 1 else "", **found})
    return models


def _sha256s(given: str | None, n_models: int, problems: Problems) -> list[str]:
    """What each model must have, "" for any."""
    sha256s = [part.strip() for part in (given or "").split(",")]
    if len(sha256s) == n_models:
        return sha256s
    if len(sha256s) > 1:
        problems.add(
            f"--model_sha256: {len(sha256s)} for {n_models} models; give one for each model, in the same order "
            "(a place may be empty)"
        )
    elif sha256s[0]:
        problems.add(
            "--model_sha256: which of the models has it? Give one for each, in the same order (a place may be empty)"
        )
    return [""] * n_models


def _find_model(
    named: str,
    sha256: str,
    params: Mapping[str, Any],
    catalogues: Catalogues,
    launch: Launch,
    problems: Problems,
) -> dict[str, Any]:
    if is_registered(named):
        return _registered(named, sha256, params, launch, problems)
    if is_uri(named) or "/" in named or named.lower().endswith((".zip", ".gz", ".tgz", ".tar")):
        source = absolute(named, launch.launch_dir)
        if not is_uri(source) and launch.visible() and not is_there(source):
            problems.add(f"--model: {shown(source)} does not exist")
        return _model(source, sha256, named)
    entries = _read_catalogues(catalogues, params["catalogue"], launch, problems)
    try:
        entry = find_entry(named, entries)
    except NotInCatalogueError as error:
        problems.add(f"--model: {error} (a folder of your own is written ./{named})")
        return _model("", sha256, named)
    if is_registered(entry.source):
        registered = _registered(entry.source, sha256 or entry.sha256, params, launch, problems)
        return registered | {"listed_as": entry.title}
    if not is_uri(entry.source) and launch.visible() and not is_there(entry.source):
        problems.add(
            f"--model: the catalogue says that '{entry.name}' is at {shown(entry.source)}: nothing is there"
        )
    return _model(entry.source, sha256 or entry.sha256, entry.url) | {"listed_as": entry.title}


def _model(source: str, sha256: str, url: str, *, tracking_uri: str = "") -> dict[str, Any]:
    return {
        "source": source,
        "sha256": sha256.lower(),
        "url": url,
        "remote": is_uri(source) or bool(tracking_uri),
        "tracking_uri": tracking_uri,
        "listed_as": "",
    }


def _registered(
    named: str, sha256: str, params: Mapping[str, Any], launch: Launch, problems: Problems
) -> dict[str, Any]:
    """A model of an MLflow registry, which no path leads to."""
    try:
        named = str(parse_name(named))
    except InputError as error:
        problems.add(f"--model: {error.seen}; {error.todo[0].lower()}{error.todo[1:]}")
    given = params["mlflow_tracking_uri"]
    server = given or launch.tracking_uri
    wrong = address_problem(server)
    told = given is None and launch.params.get("mlflow_tracking_uri")
    if wrong and not told:
        problems.add(
            f"--mlflow_tracking_uri: {wrong}" if given or not server else f"MLFLOW_TRACKING_URI: {wrong}"
        )
    return _model(named, sha256, named, tracking_uri=server)


def _same_model(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    if one["sha256"] and one["sha256"] == other["sha256"]:
        return True
    return bool(one["source"]) and posixpath.normpath(one["source"]) == posixpath.normpath(other["source"])


def _label(named: str, taken: Container[str]) -> str:
    """A short word for a model, unlike the others'."""
    last = PurePosixPath(named.split("?")[0]).name
    return free_name(clean_name(re.sub(r"\.(zip|tar\.gz|tgz|tar)$", "", last, flags=re.I)), taken)


def _read_catalogues(
    catalogues: Catalogues, given: str | None, launch: Launch, problems: Problems
) -> list[Entry]:
    """The user's models, then ours: the first of a name counts."""
    assets = f"{launch.project_dir.rstrip('/')}/assets"
    ours = read_catalogue(catalogues.ours, assets, shown_folder="assets", problem=problems.add)
    if given is None:
        return ours
    if catalogues.own is None:
        problems.add(f"--catalogue: {shown(given)} does not exist, or is no file")
        return ours
    folder = folder_of(absolute(given, launch.launch_dir))
    return read_catalogue(catalogues.own, folder, problem=problems.add) + ours


def _training(params: Mapping[str, Any], launch: Launch, problems: Problems) -> dict[str, Any]:
    for name, what in (
        ("reference", "the labelled cells (.h5ad) to train on"),
        ("label_key", "the obs column of their labels, or the column of --label_csv"),
    ):
        if params[name] is None:
            problems.add(f"--{name}: needed with --mode train: {what}")
    references, label_csvs = (
        _existing(name, str(params[name] or "").split(","), launch, problems)
        for name in ("reference", "label_csv")
    )
    cl_maps = _existing("cl_map", [params["cl_map"] or ""], launch, problems)
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
        "cl_map": cl_maps[0] if cl_maps else None,
        "options": _options(TRAIN, params) | _about(params),
    }


def _about(params: Mapping[str, Any]) -> dict[str, str]:
    """Free text as one option of letters, digits and % alone: JSON with %-escapes."""
    given = _options(ABOUT, params)
    return {"about": quote(json.dumps(given, sort_keys=True), safe="")} if given else {}


def _census(params: Mapping[str, Any], launch: Launch, problems: Problems) -> dict[str, Any]:
    """The query for CELLxGENE Census. It reaches the task in a file: a filter has quotes."""
    if params["census"] is None:
        problems.add(
            "--census: needed with --mode reference: which cells, as "
            "\"tissue_general == 'lung' and is_primary_data == True\""
        )
    uri = params["census_uri"]
    return _options(CENSUS, params) | {
        "organism": "human" if params["organism"] == "auto" else params["organism"],
        "uri": None if uri is None else absolute(uri, launch.launch_dir),
    }


def _existing(name: str, given: Iterable[str], launch: Launch, problems: Problems) -> list[str]:
    """The files of a parameter that are not empty; one that is nowhere, or a folder, is noted."""
    paths = [absolute(part.strip(), launch.launch_dir) for part in given if part.strip()]
    for path in paths:
        if is_uri(path) or not launch.visible():
            continue
        if not is_there(path):
            problems.add(f"--{name}: {shown(path)} does not exist")
        elif Path(path).is_dir():
            problems.add(f"--{name}: {shown(path)} is a folder; give a file")
    return paths


# --- the samples ---


def _rows(
    sheet: Path | None,
    params: Mapping[str, Any],
    columns: Iterable[str],
    launch_dir: str,
    problems: Problems,
) -> list[Row]:
    given = params["input"]
    if given is None and problems.about("input"):
        return []
    if given is None:
        problems.add(
            "--input: needed: a sample sheet (.csv, .tsv, .yaml), or a Cell Ranger folder, .h5 or .h5ad"
        )
        return []
    if sheet is not None:
        return read_sheet(sheet, columns, problems)
    if given.lower().endswith(SHEET_SUFFIXES):
        problems.add(f"--input: the sample sheet {shown(given)} does not exist, or is no file")
        return []
    if given.lower().endswith(OTHER_TABLES):
        problems.add(
            f"--input: {shown(given)} is no sample sheet by its name; save it as .csv, .tsv or .yaml"
        )
        return []
    # The whole path: `--input outs` is named by the folder that the run was started in.
    whole = given if is_uri(given) else posixpath.normpath(absolute(given, launch_dir))
    return [Row("--input", {"sample": name_of(whole), "path": given})]


def check_samples(
    rows: list[Row], params: Mapping[str, Any], schema: Mapping[str, Any], launch: Launch, problems: Problems
) -> list[dict[str, Any]]:
    """One object a row: `id`, `paths` (where it may lie, the first that exists counts) and each step's options."""
    columns: dict[str, dict[str, Any]] = schema["properties"]
    # A relative path of --input itself is relative to the launch folder.
    direct = [row.where for row in rows] == ["--input"]
    folders = [launch.launch_dir] if direct else _sheet_folders(str(params["input"]), launch.launch_dir)
    samples: list[dict[str, Any]] = []
    seen: dict[str, tuple[str, str]] = {}
    used: dict[str, str] = {}
    alike: list[str] = []
    for row in rows:
        values = _check_row(row, columns, schema["required"], problems)
        resolved = _resolve(values, params)
        _check_order(resolved, f"{row.where}: ", problems, values)
        name, path = values.get("sample"), values.get("path")
        if name:
            _check_twice(row.where, name, seen, problems)
        if not name or not path:
            continue
        paths = _places(path, folders, f"{row.where}, path", launch, problems)
        if path in used:
            warn(f"{row.where}: sample '{name}' is read from the same path as sample '{used[path]}'")
        used.setdefault(path, name)
        if _nothing_to_compare(resolved, problems):
            alike.append(name)
        samples.append(
            {
                "id": name,
                "path": path,
                "paths": paths,
                "split": _split(row, values, resolved, problems),
                "convert": _options(CONVERT, resolved) | _batch(resolved, name),
                "qc": _options(QC, resolved),
                "map": _options(MAP, resolved),
                "predict": _options(PREDICT, resolved),
                "annotate": _options(ANNOTATE_SAMPLE, resolved),
                "report": _options(REPORT, resolved),
                "truth_csvs": _truth_csvs(row, values, resolved, folders, launch, problems),
                "curate": _options(CURATE, values),
            }
        )
    # Other samples may well have what is to be compared.
    if alike and len(alike) == len(samples):
        problems.add(
            f"--compare: each of the samples that '{alike[0]}' is split into has one value of the column to compare "
            "by, so that nothing is left to compare; leave out one of the two"
        )
    whole = [sample["id"] for sample in samples if sample["split"]]
    _check_parts(dict(seen.values()), whole, problems)
    return samples


def _batch(resolved: Mapping[str, Any], name: str) -> dict[str, str]:
    """A sample's batch is the one given, else its name, which of the samples of a split file SPLIT alone sees."""
    given = resolved.get("batch") or (None if resolved["sample_key"] else name)
    return {"batch": given} if given else {}


def _split(
    row: Row, values: Mapping[str, Any], resolved: Mapping[str, Any], problems: Problems
) -> dict[str, Any] | None:
    """Options of SPLIT for a file of several samples; None for one that is a sample itself."""
    if resolved["sample_key"] is None:
        return None
    where = f"{row.where}, sample_key" if "sample_key" in values else "--sample_key"
    is_h5ad = values["path"].split("?")[0].lower().endswith(".h5ad")
    if resolved["sample_key"] != BARCODE_SUFFIX and not is_h5ad:
        problems.add(
            f"{where}: {shown(values['path'])} is no .h5ad, and only these have an obs column of samples; in a sheet, "
            f"give sample_key in the rows of .h5ad files alone, or {BARCODE_SUFFIX} for what `cellranger aggr` joined"
        )
    if len(values["sample"]) > LONGEST_SPLIT:
        problems.add(
            f"{row.where}, sample: '{values['sample']}' has more than {LONGEST_SPLIT} letters, and each of its samples "
            "gets a longer name; give it a shorter one in a sheet"
        )
    # What is wrong with --compare itself is told with the parameters.
    return _options(SPLIT, resolved)


def _nothing_to_compare(resolved: Mapping[str, Any], problems: Problems) -> bool:
    """Whether each of the samples that a file is split into has one value of all that is to be compared."""
    # What is wrong with --compare itself is told with the parameters.
    if not resolved["compare"] or problems.about("compare"):
        return False
    return {one.column for one in parse_comparisons(resolved["compare"])} == {resolved["sample_key"]}


def _check_parts(places: Mapping[str, str], split: Iterable[str], problems: Problems) -> None:
    """Note names that a sample of a split file might have too: what it will be called, only SPLIT sees.

    places: where each name stands.
    """
    names = sorted((name.casefold(), name) for name in places)
    for whole in split:
        start = f"{whole}_".casefold()
        for folded, name in names[bisect_left(names, (start,)) :]:
            if not folded.startswith(start):
                break
            problems.add(
                f"{places[name]}, sample: '{name}' may be one of the samples of '{whole}' too, which is split by its "
                f"sample_key into {whole}_...; give one of the two another name"
            )


def _places(
    path: str,
    folders: Iterable[str],
    where: str,
    launch: Launch,
    problems: Problems,
    *,
    is_file: bool = False,
) -> list[str]:
    """Where a path of a sheet may lie; one that is in none of these is noted. is_file: it must be no folder."""
    folders = list(folders)
    paths = [absolute(path, folder) for folder in folders]
    if launch.visible():
        there = next((place for place in paths if is_uri(place) or is_there(place)), None)
        if there is None:
            looked = "" if len(paths) == 1 else f" (looked in {' and in '.join(folders)})"
            problems.add(f"{where}: {shown(path)} does not exist{looked}")
        elif is_file and not is_uri(there) and Path(there).is_dir():
            problems.add(f"{where}: {shown(path)} is a folder; give a file")
    return list(dict.fromkeys(paths))


def _truth_csvs(
    row: Row,
    values: Mapping[str, Any],
    resolved: Mapping[str, Any],
    folders: Iterable[str],
    launch: Launch,
    problems: Problems,
) -> list[str]:
    """Where a sample's table of known labels may lie: that of its row, else that of the run; empty for none."""
    given = resolved["truth_csv"]
    if given is None:
        return []
    own = "truth_csv" in values
    where = f"{row.where}, truth_csv" if own else "--truth_csv"
    if resolved["truth_key"] is None:
        problems.add(f"{where}: needs truth_key: the column of it that holds the labels")
    return _places(given, folders if own else [launch.launch_dir], where, launch, problems, is_file=True)


def _resolve(values: Mapping[str, Any], params: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters, with a row's own values in their place."""
    own = {("gene_column_name" if name == "gene_column" else name): value for name, value in values.items()}
    resolved = dict(params) | own
    resolved["organism"] = ORGANISMS.get(resolved["organism"], resolved["organism"])
    return resolved


def _check_row(
    row: Row, columns: Mapping[str, dict[str, Any]], needed: Iterable[str], problems: Problems
) -> dict[str, Any]:
    """The row's values that are given and right, in their types."""
    right: dict[str, Any] = {}
    for name, part in columns.items():
        value = coerce(row.values.get(name), part)
        if isinstance(value, (list, dict, set, tuple)):
            problems.add(f"{row.where}, {name}: is a {type(value).__name__} of values; give one")
            continue
        if value is None:
            if name in needed and name in row.values:
                problems.add(f"{row.where}, {name}: is empty; every sample needs one")
            continue
        wrong = _wrong(value, part) or _unprintable(value)
        if wrong:
            problems.add(f"{row.where}, {name}: {wrong}")
        else:
            right[name] = value
    return right


def _unprintable(value: Any) -> str | None:
    """What is wrong with text that holds control characters, or halves of letters; None for any other value."""
    if any(unicodedata.category(letter) in ("Cc", "Cs", "Zl", "Zp") for letter in str(value)):
        return f"{shown(value)} has characters that cannot be printed"
    return None


def _check_twice(where: str, name: str, seen: dict[str, tuple[str, str]], problems: Problems) -> None:
    known = seen.setdefault(name.casefold(), (name, where))
    if known[1] == where:
        return
    if known[0] == name:
        problems.add(
            f"{where}, sample: '{name}' was already given in {known[1]}; give each sample its own name"
        )
    else:
        problems.add(
            f"{where}, sample: '{name}' and '{known[0]}' ({known[1]}) differ in capitals alone; "
            "give names that differ in more, as some disks hold them for the same"
        )


# --- paths ---


def is_there(path: str) -> bool:
    """Whether something is at a path; a name that no disk can hold is nowhere."""
    try:
        return Path(path).exists()
    except (OSError, ValueError):
        return False


def _sheet_folders(sheet: str, launch_dir: str) -> list[str]:
    """Where a sheet's relative paths may lie: beside the sheet first, then in the launch folder."""
    folder = folder_of(absolute(sheet, launch_dir))
    return list(dict.fromkeys([folder, launch_dir]))
