"""Models of an MLflow model registry: finding one by its name, fetching it, and publishing one.

The registry's names are MLflow's own: `models:/lung/3`, `models:/lung@champion`, `models:/lung/latest`. Its client, the
package mlflow-skinny, speaks to the server; user names, passwords and tokens come from its environment variables and
nowhere else.
"""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from cellscribe.cli import log
from cellscribe.errors import CellscribeError, InputError, ModelFetchError
from cellscribe.model.manifest import model_sha256, verify_model
from cellscribe.places import hidden

NAMED = re.compile(
    r"models:/(?P<name>[A-Za-z0-9][A-Za-z0-9._-]{0,99})(/(?P<version>latest|[1-9][0-9]{0,8})|@(?P<alias>[A-Za-z][A-Za-z0-9_-]{0,99}))"
)
# No user name, password or token in it: addresses stand in logs and results.
ADDRESS = re.compile(r"https?://[A-Za-z0-9._:\[\]-]+(/[A-Za-z0-9._~/-]*)?")
EXPERIMENT = "cellscribe"
_ARTIFACTS = "model"
_FORMS = "models:/name/3, models:/name@alias or models:/name/latest"
_CREDENTIALS = (
    "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN, in the environment"
)


@dataclass(frozen=True)
class Named:
    """A model as the user names it. version: a number, `latest`, or "" where there is an alias."""

    name: str
    version: str
    alias: str

    def __str__(self) -> str:
        return f"models:/{self.name}@{self.alias}" if self.alias else f"models:/{self.name}/{self.version}"


@dataclass(frozen=True)
class Registered:
    """One version in the registry. place: where the server keeps its files; sha256: of its manifest.json as whoever
    published it said, "" where nobody did.
    """

    name: str
    version: str
    place: str
    sha256: str
    server: str

    @property
    def url(self) -> str:
        """The name that will always mean this version."""
        return f"models:/{self.name}/{self.version}"


def parse_name(text: str) -> Named:
    """`models:/...` in its parts. Raises InputError for what no registry knows, stages of older MLflow included."""
    found = NAMED.fullmatch(text)
    if not found:
        raise InputError(f"'{text[:100]}' names no model of a registry", f"Write {_FORMS}.")
    return Named(found["name"], found["version"] or "", found["alias"] or "")


def address_problem(text: str) -> str | None:
    """What is wrong with a tracking server's address, without repeating it: it may hold a password."""
    if not text:
        return (
            "needed for models:/ names: the tracking server's address (http://host:5000), or set "
            "MLFLOW_TRACKING_URI"
        )
    if "@" in text:
        return f"holds a user name or a password; leave these out and set {_CREDENTIALS}"
    if not ADDRESS.fullmatch(text):
        return "is no address of a tracking server; write http://host:5000 or https://host/path"
    return None


def resolve(named: Named, server: str) -> Registered:
    """The version that `named` means today. Raises ModelFetchError where there is none, naming what there is."""
    client = connect(server)
    with _failures(f"{named}", server):
        version = _find(client, named)
        if version is None:
            raise ModelFetchError(
                f"there is no such model at {server}{_there_is(client, named)}",
                f"Correct the name: {_FORMS}.",
                file=named,
            )
        # It becomes part of a command line, and a server may say anything.
        if not re.fullmatch(r"[1-9][0-9]{0,8}", str(version.version)):
            raise ModelFetchError(
                f"{server} gives '{version.version}' as a version, which is no number",
                "Ask whoever runs the server.",
                file=named,
            )
        sha256 = str((version.tags or {}).get("sha256", "")).lower()
        return Registered(
            named.name,
            str(version.version),
            client.get_model_version_download_uri(named.name, str(version.version)),
            sha256 if re.fullmatch(r"[0-9a-f]{64}", sha256) else "",
            server,
        )


def _find(client: Any, named: Named) -> Any:
    from mlflow.exceptions import MlflowException

    if named.version == "latest":
        return next(iter(_versions(client, named.name)), None)
    try:
        if named.alias:
            return client.get_model_version_by_alias(named.name, named.alias)
        return client.get_model_version(named.name, named.version)
    except MlflowException as error:
        if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            return None
        raise


def _versions(client: Any, name: str) -> list[Any]:
    """Every version, the newest first."""
    found: list[Any] = []
    token = None
    while True:
        page = client.search_model_versions(f"name='{name}'", max_results=200, page_token=token)
        found += page
        token = page.token
        if not token:
            return sorted(found, key=lambda version: -int(version.version))


def _there_is(client: Any, named: Named) -> str:
    """What a registry has instead, for a message."""
    from cellscribe.schema import nearest

    if named.alias or named.version != "latest":
        versions = [str(version.version) for version in _versions(client, named.name)]
        if versions:
            aliases = sorted(client.get_registered_model(named.name).aliases)
            return f"; '{named.name}' has the versions {', '.join(versions[:20])}" + (
                f" and the aliases {', '.join(aliases[:20])}" if aliases else " and no alias"
            )
    names = sorted(model.name for model in client.search_registered_models(max_results=200))
    return nearest(named.name, names) or f"; there are: {', '.join(names[:20]) or 'none'}"


@contextmanager
def downloaded(model: Registered) -> Iterator[Path]:
    """Give a folder of the model's files as they were published; nothing in it has been verified.

    It is gone after the block, in which errors about its files name the model instead. Raises ModelFetchError.
    """
    with tempfile.TemporaryDirectory() as scratch:
        log(f"Downloading {model.url} from {model.server}")
        connect(model.server)
        with _failures(model.url, model.server):
            from mlflow.artifacts import download_artifacts

            folder = Path(
                download_artifacts(artifact_uri=model.place, dst_path=scratch, tracking_uri=model.server)
            )
        try:
            yield folder
        except CellscribeError as error:
            if isinstance(error.file, Path) and error.file.is_relative_to(folder):
                error.file = PurePosixPath(f"{model.url}/{error.file.relative_to(folder)}")
            raise


def publish(
    folder: Path, server: str, *, name: str = "", alias: str = "", experiment: str = EXPERIMENT
) -> str:
    """Log a model folder as it is, register it, and return its name, `models:/lung/1`.

    name: in the registry; by default the model's own. A version that holds the same model is found by its sha256 and
    taken, so that nothing is published twice. A version is registered only once all its files are there. Raises
    ModelFetchError where the model is not whole, or the server cannot be used.
    """
    fields = verify_model(folder)
    sha256, name = model_sha256(folder), name or str(fields["name"])
    named = parse_name(f"models:/{name}@{alias}" if alias else f"models:/{name}/latest")
    client = connect(server)
    with _failures(f"models:/{name}", server, todo="Nothing was registered. Mend it and publish again."):
        version = next(
            (v.version for v in _versions(client, name) if (v.tags or {}).get("sha256") == sha256), None
        )
        if version is None:
            run_id, place = _log_model(client, folder, fields, sha256, experiment)
            version = _register(client, named.name, run_id, place, fields, sha256)
        else:
            log(f"the same model is there already as version {version}")
        if alias:
            client.set_registered_model_alias(named.name, alias, str(version))
    return f"models:/{named.name}/{version}"


def _log_model(
    client: Any, folder: Path, fields: dict[str, Any], sha256: str, experiment: str
) -> tuple[str, str]:
    """A run that holds the model's files, byte for byte; returns its id and where these are."""
    known = client.get_experiment_by_name(experiment)
    run = client.create_run(
        known.experiment_id if known else client.create_experiment(experiment),
        run_name=f"{fields['name']} {fields['version']}",
        tags=tags(fields, sha256),
    )
    run_id = run.info.run_id
    try:
        for key, value in parameters(fields).items():
            client.log_param(run_id, key, value)
        for key, score in metrics(fields).items():
            client.log_metric(run_id, key, score)
        log(f"Uploading {len(fields['files']) + 1} files")
        client.log_artifacts(run_id, str(folder), _ARTIFACTS)
    except BaseException:
        client.set_terminated(run_id, "FAILED")
        raise
    client.set_terminated(run_id, "FINISHED")
    return run_id, f"{run.info.artifact_uri}/{_ARTIFACTS}"


def _register(client: Any, name: str, run_id: str, place: str, fields: dict[str, Any], sha256: str) -> str:
    from mlflow.exceptions import MlflowException

    try:
        client.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    version = client.create_model_version(
        name, place, run_id, tags=tags(fields, sha256), description=fields["description"] or None
    )
    return str(version.version)


def tags(fields: dict[str, Any], sha256: str) -> dict[str, str]:
    """What the registry shows of a model, text that is empty left out. fields: its manifest."""
    shown = {
        "sha256": sha256,
        "model_version": fields["version"],
        **{key: fields[key] for key in ("name", "organism", "kind", "licence", "citation")},
        "labels": "; ".join(label["label"] for label in fields["labels"]),
        "cellscribe": fields["pipeline_version"],
    }
    # MLflow refuses longer ones.
    return {key: str(value)[:5000] for key, value in shown.items() if value}


def parameters(fields: dict[str, Any]) -> dict[str, str]:
    """How a model was made, as parameters of its run. fields: its manifest."""
    made = {"label_key": fields["label_key"], "created": fields["created"], "n_labels": len(fields["labels"])}
    training = {key: value for key, value in fields["training"].items() if not isinstance(value, list | dict)}
    return {key: str(value)[:5000] for key, value in (made | training).items() if value not in (None, "")}


def metrics(fields: dict[str, Any]) -> dict[str, float]:
    """The held-out scores of a model, each with `held_out_` before its name; {} where it was not tested."""
    scores = fields.get("evaluation") or {}
    return {
        f"held_out_{key}": float(value) for key, value in scores.items() if isinstance(value, int | float)
    }


def connect(server: str) -> Any:
    """MLflow's client. Raises InputError for an address that cannot be one, ModelFetchError where MLflow is missing."""
    wrong = address_problem(server)
    if wrong:
        raise InputError(
            f"the tracking server's address {wrong}",
            "Correct the address that was given, or that in MLFLOW_TRACKING_URI.",
        )
    # A server that is away is told of in seconds, not in MLflow's four minutes; and nothing is told to anyone else.
    for variable, value in (
        ("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "3"),
        ("MLFLOW_DISABLE_TELEMETRY", "true"),
        ("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false"),
        ("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true"),
    ):
        os.environ.setdefault(variable, value)
    try:
        import logging

        from mlflow import MlflowClient
    except ImportError:
        raise ModelFetchError(
            "MLflow's client is not installed, which models:/ names need",
            "`make setup` brings it, as does `pip install mlflow-skinny`; it is in the images cpu and cuda.",
        ) from None
    logging.getLogger("mlflow").setLevel(logging.ERROR)
    return MlflowClient(tracking_uri=server, registry_uri=server)


@contextmanager
def _failures(
    what: str, server: str, *, todo: str = "Check the address, the network and the server."
) -> Iterator[None]:
    """Turn what MLflow's client raises into our error, in one line."""
    import requests
    from mlflow.exceptions import MlflowException

    try:
        yield
    except (MlflowException, requests.RequestException, ConnectionError, TimeoutError, ImportError) as error:
        text = str(error).strip() or type(error).__name__
        if isinstance(error, ImportError):
            seen = f"its files lie where MLflow's client needs another package to read them ({text})"
            todo = "Let the server hand them out (mlflow server --artifacts-destination), or give their own address."
        elif re.search(r"\b40[13]\b|UNAUTHENTICATED|PERMISSION_DENIED", text):
            seen = f"the server {server} does not let you in"
            todo = f"Set {_CREDENTIALS}; ask whoever runs the server which."
        elif re.search(r"Max retries exceeded|Connection|Name or service|timed out|timeout", text):
            seen = f"the server {server} cannot be reached, or broke off: {_short(text)}"
        else:
            seen = f"the server {server} refused: {_short(text)}"
        raise ModelFetchError(seen, todo, file=what) from None


def _short(text: str) -> str:
    """The first line, without the address that a message repeats and anything secret in one."""
    first = hidden(text.splitlines()[0])
    reason = re.search(r"Caused by \w+\((.*?)\)\)?$", first)
    return (reason[1] if reason else first)[:300]
