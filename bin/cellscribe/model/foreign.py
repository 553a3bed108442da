"""Models made by others to CELLxGENE Annotate's contract: an MLflow folder without our manifest.

To use one is to run its code (docs/models.md). Nothing here does: it reads MLmodel, which is YAML, and counts bytes.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cellscribe.errors import ModelFetchError
from cellscribe.model.manifest import MANIFEST, file_sha256, plain_files

MLMODEL = "MLmodel"

_MAX_MLMODEL_BYTES = 2**20
_WHAT_IT_IS = "Ask whoever made the model for a whole MLflow folder of the python_function flavour."


@dataclass(frozen=True)
class ForeignModel:
    """A model made by others: what MLmodel calls it ("" where it does not say), and the sha256 of all that it holds."""

    folder: Path
    name: str
    version: str
    sha256: str


def is_foreign(folder: Path) -> bool:
    """Whether a folder is an MLflow model that is none of ours."""
    return (Path(folder) / MLMODEL).is_file() and not (Path(folder) / MANIFEST).is_file()


def content_sha256(folder: Path) -> str:
    """The identity of a model without a manifest: the sha256 over the names and sha256 of its files, in order.

    What `sha256sum` prints for the files in the order of their names, so that a user can count it again. Raises
    ModelFetchError for a link out of the folder, and for what is no plain file.
    """
    digest = hashlib.sha256()
    for name in plain_files(folder):
        digest.update(f"{file_sha256(Path(folder) / name)}  {name}\n".encode(errors="surrogateescape"))
    return digest.hexdigest()


def open_foreign(folder: Path) -> ForeignModel:
    """Read what a model made by others is. Raises ModelFetchError where it is no MLflow model that predicts."""
    folder = Path(folder)
    described = read_mlmodel(folder)
    metadata = described.get("metadata")
    told = {**described, **metadata} if isinstance(metadata, dict) else described
    made = str(described.get("utc_time_created") or "")[:10]
    return ForeignModel(
        folder,
        name=_first(told, "name", "artifact_path"),
        version=_first(told, "version") or (f"of {made}" if made else "unknown"),
        sha256=content_sha256(folder),
    )


def read_mlmodel(folder: Path) -> dict[str, Any]:
    """What MLmodel says. Raises ModelFetchError where it is not that of an MLflow model that predicts."""
    import yaml

    path = Path(folder) / MLMODEL
    if path.stat().st_size > _MAX_MLMODEL_BYTES:
        raise ModelFetchError(f"{MLMODEL} has {path.stat().st_size:,} bytes", _WHAT_IT_IS, file=path)
    try:
        described = yaml.safe_load(path.read_text())
    # ValueError: a date or a number that cannot be one, and what is no text.
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        said = " ".join(str(error).split())
        raise ModelFetchError(f"{MLMODEL} is no YAML: {said}", _WHAT_IT_IS, file=path) from None
    flavours = described.get("flavors") if isinstance(described, dict) else None
    if not isinstance(flavours, dict) or "python_function" not in flavours:
        seen = ", ".join(map(str, flavours)) if isinstance(flavours, dict) else "none"
        raise ModelFetchError(
            f"{MLMODEL} names no python_function flavour (it names: {seen}): MLflow could not predict with it",
            _WHAT_IT_IS,
            file=path,
        )
    return dict(described)


def _first(told: dict[str, Any], *keys: str) -> str:
    """The first of the keys that holds a short text; what others wrote is shown on pages, so nothing else is."""
    values = (str(told[key]).strip() for key in keys if isinstance(told.get(key), str | int | float))
    return next((value for value in values if value.isprintable() and 0 < len(value) <= 100), "")
