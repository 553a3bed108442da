"""Where the models of `--model` are: in a catalogue, at a path or an address, or in an MLflow registry."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Container, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from cellscribe.catalogue import Entry, NotInCatalogueError, find_entry, read_catalogue
from cellscribe.contract import free_name
from cellscribe.errors import InputError
from cellscribe.launch import Launch, is_there
from cellscribe.places import absolute, folder_of, is_registered, is_uri
from cellscribe.problems import Problems
from cellscribe.registry import address_problem, parse_name
from cellscribe.sample_names import clean_name
from cellscribe.schema import shown


@dataclass(frozen=True)
class Catalogues:
    """Our catalogue of models, and the user's as it was staged; None where there is none."""

    ours: Path
    own: Path | None = None


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
