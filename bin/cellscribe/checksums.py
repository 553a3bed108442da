"""Lists of sha256 checksums, as `sha256sum` writes and reads them: what a folder was published with."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from cellscribe.errors import InputError
from cellscribe.io import atomic_path
from cellscribe.model.manifest import file_sha256

LIST_SUFFIX = ".sha256"
_LINE = re.compile(r"(?P<sha256>[0-9a-f]{64}) [ *](?P<name>[^/\\]+)")


def write_list(files: Iterable[Path], output: Path, listed: Iterable[Path] = ()) -> None:
    """List files by their names alone, with those of lists that were made before, sorted by name.

    Raises InputError where two have one name.
    """
    lines: dict[str, str] = {}
    entries = [entry for path in listed for entry in read_list(path).items()]
    for name, sha256 in [*entries, *((path.name, file_sha256(path)) for path in files)]:
        if lines.setdefault(name, sha256) != sha256:
            raise InputError(f"two different files are called '{name}'", "List each once.", file=output.name)
    with atomic_path(output) as temporary:
        temporary.write_text("".join(f"{lines[name]}  {name}\n" for name in sorted(lines)))


def read_list(path: Path) -> dict[str, str]:
    """Name to sha256. Raises InputError for what is no such list, or names a file elsewhere."""
    entries = {}
    for number, line in enumerate(path.read_text(errors="replace").splitlines(), start=1):
        found = _LINE.fullmatch(line)
        if not found or found["name"] in (".", ".."):
            raise InputError(f"line {number} is no sha256 and a name", "Publish again.", file=path)
        entries[found["name"]] = found["sha256"]
    return entries
