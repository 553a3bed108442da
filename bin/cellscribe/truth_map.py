"""A table of what the user's own words for known labels mean, in a model's words or the Cell Ontology's."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

from cellscribe.errors import InputError
from cellscribe.model.ontology import find_cl_ids, is_term, plain_name
from cellscribe.schema import nearest
from cellscribe.words import some

COLUMNS = ("label", "meaning")


def read_truth_map(path: Path) -> dict[str, str]:
    """Each label that the table gives a meaning. Commas, semicolons and tabs part its columns.

    Raises InputError for what is no such table, and for a label that is named twice.
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
            "Give label and meaning as CSV or TSV.",
            file=path,
        ) from error
    header = table[0] if table else []
    if not set(COLUMNS) <= set(header):
        raise InputError(
            f"the columns are {', '.join(header) or 'none'}; label and meaning are needed",
            "Name the columns so in the first line of the table.",
            file=path,
        )
    if wide := [number for number, row in enumerate(table, start=1) if any(row[len(header) :])]:
        raise InputError(
            f"row {wide[0]} has more values than the {len(header)} columns",
            'Put a value that holds the separator in quotes, as "T cells, CD4".',
            file=path,
        )
    places = [header.index(name) for name in COLUMNS]
    filled = [row + [""] * len(header) for row in table[1:]]
    rows = [(row[places[0]], row[places[1]]) for row in filled if row[places[1]]]
    labels = [label for label, _ in rows]
    if "" in labels:
        raise InputError(
            f"a row without a label means '{dict(rows)['']}'",
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
