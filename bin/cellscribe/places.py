"""Where a file is: a path of this machine, or an address that Nextflow fetches."""

from __future__ import annotations

import re

# workflows/inputs.nf has the same two; setup/refuse-secrets and nextflow.config, which hide nothing, have simpler ones.
# Tests hold them to these and to each other.
_USER = r"(?<=://)([^/\s'\"]*|[^/@:\s'\"]+:[^/@\s'\"]*[^0-9/@\s'\"][^\s'\"]*)@"
_SIGNED = (
    r"(?i)([?&]([^=&#\s'\"]*(signature|token|secret|passw(or)?d|pwd|credentials?|access_?key(_?id)?|api_?key|private_link)"
    r"|([^=&#\s'\"]*[-_.])?(sig|key|auth))=)[^&#\s'\",]*"
)
HOW_INSTEAD = "which logs and results would hold; download the file and give its path (keys: docs/errors.md)"


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


def secret_problem(text: str) -> str | None:
    """What of an address, or of text with some in it, nobody else should read; None where there is nothing."""
    if re.search(_USER, text):
        return f"holds a user name or a password, {HOW_INSTEAD}"
    signed = re.search(_SIGNED, text)
    return f"holds a signature or a token ({signed[1][1:-1]}), {HOW_INSTEAD}" if signed else None


def hidden(text: str) -> str:
    """Text with `***` for user names, passwords, signatures and tokens of addresses in it."""
    return re.sub(_SIGNED, r"\1***", re.sub(_USER, "***@", text))
