"""The catalogue: a table of models that `--model` finds by name.

assets/models.csv is ours; `--catalogue` adds one of the user's. The columns are the same.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from cellscribe.places import absolute, secret_problem
from cellscribe.schema import nearest, shown

COLUMNS = (
    "name",
    "version",
    "organism",
    "tissue",
    "url",
    "sha256",
    "licence",
    "types",
    "held_out_accuracy",
    "held_out_macro_f1",
)
NEEDED = ("name", "version", "url")
RESERVED = ("list",)
# What a later command line, or a page, is given of a row.
RULES = {
    "name": (r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", "may hold only letters, digits, . _ and -"),
    "version": (r"[A-Za-z0-9][A-Za-z0-9.+_-]{0,99}", "may hold only letters, digits, . + _ and -"),
    "url": (
        r"[^'\"`$\\*?\[\]{}!|;<>&\x00-\x1f-][^'\"`$\\*\[\]{}!|;<>\x00-\x1f]*",
        "has a character that shells give a meaning",
    ),
    "sha256": (r"([0-9a-fA-F]{64})?", "must be 64 hexadecimal digits, or empty"),
}


@dataclass(frozen=True)
class Entry:
    """A model of the catalogue. source: where it lies; url: how the results name that place."""

    name: str
    version: str
    source: str
    url: str
    sha256: str

    @property
    def title(self) -> str:
        """As `--model` names it to the version."""
        return f"{self.name}=={self.version}"


class NotInCatalogueError(LookupError):
    """There is no model of that name, or none of that version; the text says which there are."""


def read_catalogue(
    path: Path, folder: str, *, shown_folder: str | None = None, problem: Callable[[str], None]
) -> list[Entry]:
    """The models of a catalogue; `problem` is told of each row that cannot be used.

    folder: where the catalogue came from: a relative url is relative to it. shown_folder: the same as the results
    name it.
    """
    name = path.name
    try:
        text = path.read_text(encoding="utf-8-sig")
        rows = list(csv.DictReader(text.splitlines(), strict=True))
    except (UnicodeDecodeError, csv.Error) as error:
        problem(f"catalogue {name}: cannot be read as CSV ({error}); save it as CSV (UTF-8)")
        return []
    columns = list(rows[0]) if rows else text.partition("\n")[0].strip().split(",")
    missing = [column for column in NEEDED if column not in columns]
    for column in missing:
        problem(f"catalogue {name}: the column '{column}' is missing{nearest(column, map(str, columns))}")
    if missing:
        return []
    entries: list[Entry] = []
    for number, row in enumerate(rows, start=2):
        values = {column: (row.get(column) or "").strip() for column in COLUMNS}
        where = f"catalogue {name}, line {number}"
        wrong = [column for column, (rule, _) in RULES.items() if not re.fullmatch(rule, values[column])]
        for column in wrong:
            problem(f"{where}, {column}: {shown(values[column])} {RULES[column][1]}")
        secret = secret_problem(values["url"])
        if secret:
            problem(f"{where}, url: {shown(values['url'])} {secret}")
        if wrong or secret:
            continue
        if values["name"] in RESERVED:
            problem(f"{where}, name: '{values['name']}' means something else to --model; use another name")
        elif any((entry.name, entry.version) == (values["name"], values["version"]) for entry in entries):
            problem(f"{where}: '{values['name']}=={values['version']}' stands in it twice; keep one")
        entries.append(
            Entry(
                values["name"],
                values["version"],
                absolute(values["url"], folder),
                absolute(values["url"], folder if shown_folder is None else shown_folder),
                values["sha256"],
            )
        )
    return entries


def other_model(title: str, name: str, version: str) -> str:
    """What to say of a row, by its `title`, whose model is another by its own manifest's name and version; else ""."""
    if title == f"{name}=={version}":
        return ""
    return (
        f"The catalogue calls this model '{title}', but by its own manifest it is '{name}=={version}': check the row, "
        "which may point to another model than the one you mean."
    )


def find_entry(named: str, entries: Sequence[Entry]) -> Entry:
    """The model meant by `name` or `name==version`; of several versions, the first that is listed.

    Raises NotInCatalogueError, with the nearest name or the versions that there are.
    """
    name, _, version = (part.strip() for part in named.partition("=="))
    found = [entry for entry in entries if entry.name == name]
    if not found:
        known = sorted({entry.name for entry in entries})
        hint = nearest(name, known) or f"; there are: {', '.join(known) or 'none'}"
        raise NotInCatalogueError(f"{shown(named)} is not in the catalogue{hint}")
    for entry in found:
        if version in ("", entry.version):
            return entry
    versions = ", ".join(entry.version for entry in found)
    raise NotInCatalogueError(
        f"'{name}' is not in the catalogue in version {shown(version)}; there are: {versions}"
    )
