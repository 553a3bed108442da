"""Where a file is: a path of this machine, or an address that Nextflow fetches."""

from __future__ import annotations

import re


def is_uri(path: str) -> bool:
    """Whether Nextflow has to fetch it (https, s3, ...)."""
    return re.match(r"[A-Za-z][A-Za-z0-9+.]*://", path) is not None


def is_registered(path: str) -> bool:
    """Whether it is a model's name in an MLflow registry, which neither this machine nor Nextflow can open."""
    return path.startswith("models:/")


def absolute(path: str, folder: str) -> str:
    """`path` as seen from `folder`, which may be an address too; one that is absolute stays as it is."""
    if is_uri(path) or is_registered(path) or path.startswith("/"):
        return path
    return f"{folder.rstrip('/')}/{path.removeprefix('./')}"


def folder_of(path: str) -> str:
    """The folder of an absolute path or address."""
    return path.rsplit("/", 1)[0] or "/"
