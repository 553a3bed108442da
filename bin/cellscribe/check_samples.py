"""The samples of `--input`: the rows of the sheet, or the one path, each held to the schema of rows."""

from __future__ import annotations

import posixpath
import unicodedata
from bisect import bisect_left
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from cellscribe.check_parameters import ORGANISMS, check_order, what_is_wrong
from cellscribe.cli import warn
from cellscribe.differential import parse_comparisons
from cellscribe.launch import Launch, possible_places
from cellscribe.places import absolute, folder_of, is_uri
from cellscribe.problems import Problems
from cellscribe.sample_names import BARCODE_SUFFIX, name_of
from cellscribe.schema import coerce, shown
from cellscribe.sheet import SHEET_SUFFIXES, Row, read_sheet
from cellscribe.step_options import (
    ANNOTATE_SAMPLE,
    CONVERT,
    CURATE,
    MAP,
    PREDICT,
    QC,
    REPORT,
    SPLIT,
    options_of,
)

# Letters of a sample's name to which `_<value>` is added.
LONGEST_SPLIT = 60
# What people keep tables in, and what holds no counts.
OTHER_TABLES = (".xlsx", ".xls", ".ods", ".numbers", ".txt", ".json")


def read_rows(
    sheet: Path | None,
    params: Mapping[str, Any],
    columns: Iterable[str],
    launch_dir: str,
    problems: Problems,
) -> list[Row]:
    """The sheet's rows, or one of the path that `--input` is; none where it is missing or unfit, which is noted."""
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
        check_order(resolved, f"{row.where}: ", problems, values)
        name, path = values.get("sample"), values.get("path")
        if name:
            _check_twice(row.where, name, seen, problems)
        paths = possible_places(path, folders, f"{row.where}, path", launch, problems) if path else []
        if not name or not path:
            continue
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
                "convert": options_of(CONVERT, resolved) | _batch(resolved, name),
                "qc": options_of(QC, resolved),
                "map": options_of(MAP, resolved),
                "predict": options_of(PREDICT, resolved),
                "annotate": options_of(ANNOTATE_SAMPLE, resolved),
                "report": options_of(REPORT, resolved),
                "truth_csvs": _truth_csvs(row, values, resolved, folders, launch, problems),
                "curate": options_of(CURATE, values),
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
    return options_of(SPLIT, resolved)


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
    return possible_places(
        given, folders if own else [launch.launch_dir], where, launch, problems, is_file=True
    )


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
        wrong = what_is_wrong(value, part) or _unprintable(value)
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


def _sheet_folders(sheet: str, launch_dir: str) -> list[str]:
    """Where a sheet's relative paths may lie: beside the sheet first, then in the launch folder."""
    folder = folder_of(absolute(sheet, launch_dir))
    return list(dict.fromkeys([folder, launch_dir]))
