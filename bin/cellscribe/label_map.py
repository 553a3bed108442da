"""Tables that say something of each label: what it means, what it shall be called, which Cell Ontology id it has."""

from __future__ import annotations

import csv
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import numpy as np

from cellscribe.cli import log
from cellscribe.errors import InputError
from cellscribe.label_csv import is_labelled
from cellscribe.model.ontology import find_cl_ids, is_term, plain_name
from cellscribe.schema import nearest
from cellscribe.words import plural, some


def read_label_map(path: Path, says: str, *, keep_blank: bool = False) -> dict[str, str]:
    """What a table with the columns `label` and `says` has of each label. Commas, semicolons and tabs part its columns.

    keep_blank: whether a label of which it says nothing is kept too, as "". Raises InputError for what is no such
    table, and for a label that is named twice.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
        separator = max(",;\t", key=(lines or [""])[0].count)
        table = [
            [field.strip() for field in row] for row in csv.reader(lines, delimiter=separator, strict=True)
        ]
    except (csv.Error, ValueError) as error:
        raise InputError(
            f"this is no table ({' '.join(str(error).split())})",
            f"Give label and {says} as CSV or TSV.",
            file=path,
        ) from error
    header = table[0] if table else []
    if not {"label", says} <= set(header):
        raise InputError(
            f"the columns are {', '.join(header) or 'none'}; label and {says} are needed",
            "Name the columns so in the first line of the table.",
            file=path,
        )
    if wide := [number for number, row in enumerate(table, start=1) if any(row[len(header) :])]:
        raise InputError(
            f"row {wide[0]} has more values than the {len(header)} columns",
            'Put a value that holds the separator in quotes, as "T cells, CD4".',
            file=path,
        )
    places = [header.index(name) for name in ("label", says)]
    filled = [row + [""] * len(header) for row in table[1:] if any(row)]
    rows = [(row[places[0]], row[places[1]]) for row in filled if row[places[1]] or keep_blank]
    labels = [label for label, _ in rows]
    if "" in labels:
        raise InputError(
            f"a row without a label has the {says} '{dict(rows)['']}'",
            "Write the label, or take the row out.",
            file=path,
        )
    if twice := list(dict.fromkeys(label for label in labels if labels.count(label) > 1)):
        raise InputError(
            f"{len(twice):,} of its labels {'is' if len(twice) == 1 else 'are'} named more than once: "
            f"{some(twice, quoted=True)}",
            "Leave one row for each label.",
            file=path,
        )
    return dict(rows)


def renamed(labels: np.ndarray, names: Mapping[str, str], file: str) -> np.ndarray:
    """The labels as `names` calls them, text (n_obs,); "" where it has no name for one, or a word that is none, and as
    they are where it does not list them. What becomes of them is logged. file: whose labels they are.
    """
    given, of = np.unique(np.char.strip(labels.astype(str)), return_inverse=True)
    new = np.array([names.get(label, label) for label in given.tolist()], dtype=object)
    listed = np.isin(given, list(names))
    blank = listed & ~is_labelled(new)
    if blank.any():
        n_cells = int(np.bincount(of, minlength=len(given))[blank].sum())
        log(
            f"{file}: {plural(n_cells, 'cell')} left out, as --label_map has no name for "
            f"{some(given[blank].tolist(), quoted=True)}"
        )
    if others := given[~listed & is_labelled(given)].tolist():
        log(f"{file}: --label_map does not list {some(others, quoted=True)}: kept as they are")
    return np.where(blank, "", new)[of]


def tell_unknown(parameter: str, listed: Collection[str], known: Collection[str]) -> None:
    """Log each label that a table lists and no cell has."""
    for label in listed:
        if label not in known:
            log(f"{parameter}: no cell has the label '{label}'{nearest(label, list(known))}")


def check_meanings(meanings: Mapping[str, str], labels: Sequence[str], path: Path, sample: str = "") -> None:
    """Raise InputError unless each meaning is a label of the model, or an id or a name in the Cell Ontology.

    labels: those that the model can predict.
    """
    plain = {plain_name(label) for label in labels}
    ids = find_cl_ids(list(meanings.values()))
    wrong = [
        f"'{meaning}' (of '{label}'{nearest(meaning, labels)})"
        for label, meaning in meanings.items()
        if plain_name(meaning) not in plain and not is_term(ids[meaning])
    ]
    if wrong:
        raise InputError(
            f"{len(wrong):,} of its meanings {'is' if len(wrong) == 1 else 'are'} neither a label of the model nor a "
            f"type of the Cell Ontology: {some(wrong)}",
            f"Write a label of the model ({some(labels)}) or an id, as CL:0000576.",
            sample=sample or None,
            file=path,
        )
