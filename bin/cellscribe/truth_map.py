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
    import pandas as pd

    try:
        header = next(iter(path.read_text(encoding="utf-8-sig").splitlines()), "")
        table = pd.read_csv(
            path, sep=max(",;\t", key=header.count), dtype=str, keep_default_na=False, encoding="utf-8-sig"
        )
    except (csv.Error, ValueError) as error:
        raise InputError(
            f"this is no table ({' '.join(str(error).split())})",
            "Give label and meaning as CSV or TSV.",
            file=path,
        ) from error
    table.columns = [str(name).strip() for name in table.columns]
    if not set(COLUMNS) <= set(table.columns):
        raise InputError(
            f"the columns are {', '.join(table.columns)}; label and meaning are needed",
            "Name the columns so in the first line of the table.",
            file=path,
        )
    rows = [
        (label.strip(), meaning.strip())
        for label, meaning in zip(table["label"], table["meaning"], strict=True)
        if meaning.strip()
    ]
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
            f"term of the Cell Ontology: {some(wrong)}",
            f"Write a label of the model ({some(labels)}) or an id, as CL:0000576.",
            sample=sample or None,
            file=path,
        )
