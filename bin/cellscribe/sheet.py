"""The sample sheet: rows of text from a CSV, TSV or YAML file."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cellscribe.problems import Problems
from cellscribe.schema import nearest, shown

NEEDED = ("sample", "path")
# More than a sheet of ten thousand samples has: what is larger is no sheet. YAML is read a hundred times slower.
MOST_BYTES = {".csv": 20_000_000, ".tsv": 20_000_000, ".yaml": 1_000_000, ".yml": 1_000_000}
MOST_COLUMNS = 200
SHEET_SUFFIXES = (".csv", ".tsv", ".yaml", ".yml")


@dataclass
class Row:
    """One row of a sheet: where it stands, for messages, and its values as they came."""

    where: str
    values: dict[str, Any]


def read_sheet(path: Path, columns: Iterable[str], problems: Problems) -> list[Row]:
    """The rows of a CSV, TSV or YAML sheet, with normalised column names.

    columns: the names that it may have. A byte order mark, Windows line ends, blank lines, quoted commas, and
    semicolons or tabs in place of commas are read; what is no sheet is noted as a problem.
    """
    text = _decode(path, problems)
    if text is None:
        return []
    known = list(columns)
    if path.suffix.lower() in (".yaml", ".yml"):
        return _yaml_rows(path, text, known, problems)
    return _table_rows(path, text, known, problems)


def _decode(path: Path, problems: Problems) -> str | None:
    most = MOST_BYTES[path.suffix.lower()]
    if path.stat().st_size > most:
        problems.add(
            f"sheet {path.name}: has {path.stat().st_size:,} bytes, and a sheet at most {most:,}; is it another file?"
        )
        return None
    content = path.read_bytes()
    if content.startswith(b"PK"):
        problems.add(f"sheet {path.name}: is an Excel file; save it as CSV (UTF-8)")
        return None
    encoding = "utf-16" if content.startswith((b"\xff\xfe", b"\xfe\xff")) else "utf-8-sig"
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError as error:
        problems.add(f"sheet {path.name}: byte {error.start + 1} is no UTF-8 text; save it as CSV (UTF-8)")
        return None
    if "\x00" in text:
        problems.add(f"sheet {path.name}: holds bytes that are no text; save it as CSV (UTF-8)")
        return None
    return text


def _table_rows(path: Path, text: str, known: list[str], problems: Problems) -> list[Row]:
    first = next((line for line in text.splitlines() if line.strip()), "")
    # The first of the largest wins: a comma, where the header has no delimiter at all.
    delimiter = max(",;\t", key=first.count)
    reader = csv.reader(
        io.StringIO(text, newline=""), delimiter=delimiter, strict=True, skipinitialspace=True
    )
    header: list[str] | None = None
    rows: list[Row] = []
    try:
        for fields in reader:
            if not any(value.strip() for value in fields):
                continue
            if header is None:
                header = [_column(name) for name in fields]
                if len(header) > MOST_COLUMNS:
                    problems.add(f"sheet {path.name}: has {len(header):,} columns; is it another file?")
                    return []
                continue
            where = f"line {reader.line_num}"
            if any(value.strip() for value in fields[len(header) :]):
                problems.add(
                    f"{where}: has {len(fields)} fields, the header {len(header)}; "
                    "put double quotes around a value that holds the delimiter"
                )
            rows.append(Row(where, dict.fromkeys(header) | dict(zip(header, fields, strict=False))))
    except csv.Error as error:
        problems.add(
            f"line {reader.line_num}: cannot be read as a table ({error}); look for an unclosed double quote"
        )
        return rows
    if header is None:
        problems.add(f"sheet {path.name}: is empty; its first line must be: sample,path")
        return rows
    for name in dict.fromkeys(name for name in header if name and header.count(name) > 1):
        problems.add(f"sheet {path.name}: has {header.count(name)} columns named '{name}'; keep one")
    _check_columns(path, header, known, problems)
    if not rows:
        problems.add(f"sheet {path.name}: has a header but no samples; add one line a sample")
    return rows


def _yaml_rows(path: Path, text: str, known: list[str], problems: Problems) -> list[Row]:
    try:
        value = load_yaml(text)
    except Exception as error:
        said = " ".join(str(error).split()) or type(error).__name__
        problems.add(f"sheet {path.name}: is no YAML: {said[:500]}")
        return []
    if isinstance(value, dict) and isinstance(value.get("samples"), list):
        value = value["samples"]
    if not isinstance(value, list) or not value or not all(isinstance(entry, dict) for entry in value):
        problems.add(f"sheet {path.name}: must be a list of entries, each with 'sample' and 'path'")
        return []
    rows = []
    named = [name for entry in value for name in entry]
    if not all(isinstance(name, (str, int, float, bool)) for name in named) or len(set(named)) > MOST_COLUMNS:
        problems.add(f"sheet {path.name}: has columns that are no names, or very many; is it another file?")
        return []
    for number, entry in enumerate(value, start=1):
        values = {_column(name): item for name, item in entry.items()}
        rows.append(Row(f"entry {number}", dict.fromkeys(("sample", "path")) | values))
    _check_columns(
        path, [name for entry in value for name in map(_column, entry)], known, problems, each=True
    )
    return rows


def load_yaml(text: str) -> Any:
    """A YAML document whose values are text, as in a CSV: 007, 1.10, no and 2024-01-05 are names.

    Raises whatever PyYAML does, for what grows as it is read too.
    """
    import yaml

    class Loader(yaml.SafeLoader):
        """Merges (`<<: *defaults`) of a size that people write: merged mappings may be merged again, and double."""

        def flatten_mapping(self, node: Any) -> None:
            merged = sum(
                len(value.value) for key, value in node.value if key.tag == "tag:yaml.org,2002:merge"
            )
            super().flatten_mapping(node)
            if merged > MOST_COLUMNS or len(node.value) > MOST_COLUMNS:
                raise yaml.constructor.ConstructorError(
                    None, None, "too many values are merged", node.start_mark
                )

    kept = ("tag:yaml.org,2002:null", "tag:yaml.org,2002:merge")
    Loader.yaml_implicit_resolvers = {
        first: [(tag, rule) for tag, rule in rules if tag in kept]
        for first, rules in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }
    return yaml.load(text, Loader)


def _column(name: object) -> str:
    return re.sub(r"[\s-]+", "_", str(name).strip().lower())


def _check_columns(
    path: Path, names: Iterable[str], known: list[str], problems: Problems, *, each: bool = False
) -> None:
    """Note unknown and missing columns. each: entries have their own keys, checked row by row."""
    given = [name for name in dict.fromkeys(names) if name]
    for name in given:
        if name not in known:
            hint = nearest(name, [column for column in known if column not in given])
            problems.add(f"sheet {path.name}: there is no column {shown(name)}{hint or '; take it out'}")
    for name in NEEDED:
        if name not in given and not each:
            problems.add(
                f"sheet {path.name}: the column '{name}' is missing; seen: {', '.join(given) or 'none'}"
            )
