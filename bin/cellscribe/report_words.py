"""Numbers and sentences of the pages: how a count, a share, a warning or a cause is written."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from cellscribe.contract import FAR, REASONS, STRANGE, UNASSIGNED, UNEXPECTED_GENES
from cellscribe.words import plural

if TYPE_CHECKING:
    from markupsafe import Markup

LABELS_IN_SENTENCE = 3
# How it is said of several cells, of one, and the reason itself.
WHY_UNASSIGNED = {
    "novel": ("they are ", "it is ", REASONS["novel"]),
    "ambiguous": ("", "", "no label, and no common ancestor of labels, is probable enough"),
    "disagreement": ("", "", "the models contradict each other, and no common ancestor is probable enough"),
    "low_information": ("they have ", "it has ", "too few counts on the model's genes"),
}
# The causes of `novel`: how each is said of several cells, and of one.
NOVEL_BY = {
    FAR: ("are far from every reference cell", "is far from every reference cell"),
    UNEXPECTED_GENES: (
        "express genes that no reference type does",
        "expresses genes that no reference type does",
    ),
    STRANGE: (
        "look stranger to the model than nearly all known cells",
        "looks stranger to the model than nearly all known cells",
    ),
}


def count(value: Any) -> str:
    """A whole number with its thousands set apart: 4,012."""
    return "–" if value is None else f"{int(value):,}"


def percent(part: float, digits: int = 1) -> str:
    """A share (0 to 1) as 7.2 %; a share above 0 is never shown as 0."""
    if 0 < part < 0.5 * 10 ** -(digits + 2):
        return f"< {10**-digits:.{digits}f} %"
    return f"{100 * part:.{digits}f} %"


def spaced(text: str) -> str:
    """A step's sentence with its shares as the page writes them: 43 %, not 43%."""
    return re.sub(r"(?<=\d)%", " %", text)


def number(value: Any, unit: str = "") -> str:
    """A measured number, three or four digits of it, and its unit; – for none."""
    if value is None:
        return "–"
    value = float(value)
    if abs(value) >= 100 or value == int(value):
        return f"{value:,.0f}{unit}"
    return f"{value:.3g}{unit}"


def merge_warnings(*sources: tuple[str, Sequence[str]]) -> list[dict[str, Any]]:
    """Gather the steps' warnings, each once, with the steps that gave it, whatever their case and spacing."""
    merged: dict[str, dict[str, Any]] = {}
    for step, sentences in sources:
        for sentence in sentences:
            text = spaced(" ".join(str(sentence).split()))
            if not text:
                continue
            entry = merged.setdefault(
                text.lower().rstrip("."), {"text": text[0].upper() + text[1:], "steps": []}
            )
            if step not in entry["steps"]:
                entry["steps"].append(step)
    return list(merged.values())


def most_frequent(final: np.ndarray) -> str:
    """The labels with most cells and their shares of all cells, as they follow `were named`; "" for none."""
    names, numbers = np.unique(final[final != UNASSIGNED].astype(str), return_counts=True)
    first = np.argsort(-numbers, kind="stable")[:LABELS_IN_SENTENCE]
    if not len(first):
        return ""
    of = " of all" if len(final) > numbers.sum() else ""
    said = [f"{names[i]} ({percent(numbers[i] / len(final))}{of if i == first[0] else ''})" for i in first]
    listed = said[0] if len(said) == 1 else f"{', '.join(said[:-1])} and {said[-1]}"
    return f", most often {listed}" if len(names) > len(said) else f": {listed}"


def why_novel(novel_by: Mapping[str, int], *, one: bool) -> str:
    """The causes that made cells `novel`, the largest first, as they follow `because`. one: whether it is one cell."""
    found = sorted(((n, cause) for cause, n in novel_by.items() if n and cause in NOVEL_BY), reverse=True)
    if len(found) == 1:
        return f"{'it' if one else 'they'} {NOVEL_BY[found[0][1]][one]}"
    said = [NOVEL_BY[cause][one] + ("" if one else f" ({n:,})") for n, cause in found]
    return f"{'it' if one else 'they'} {', '.join(said[:-1])} {'and' if one else 'or'} {said[-1]}"


def verdict(
    final: np.ndarray,
    predicted: np.ndarray,
    reason: np.ndarray,
    novel_by: Mapping[str, int] | None = None,
) -> str:
    """Say in one or two sentences how many cells were named and how most of them, and why the others were not.

    novel_by: by cause, how many of the `novel` cells it made so, where that is known.
    """
    n, left = len(final), final == UNASSIGNED
    n_left = int(left.sum())
    most_named = most_frequent(final)
    if not n_left:
        first = f"All {n:,} cells were named" if n > 1 else "The one cell was named"
        first += f"{most_named}."
    else:
        named = (
            f"{n - n_left:,} of {plural(n, 'cell')} {'was' if n - n_left == 1 else 'were'} named{most_named}"
        )
        if n_left == n:
            named = f"None of {plural(n, 'cell')} was named"
        first = (
            f"{named}; {n_left:,} ({percent(n_left / n)}) {'was' if n_left == 1 else 'were'} left unassigned"
        )
        reasons, numbers = np.unique(reason[left].astype(str), return_counts=True)
        top = reasons[np.argmax(numbers)]
        if top in WHY_UNASSIGNED:
            every = numbers.max() == n_left
            most = "" if every else "most " if 2 * numbers.max() > n_left else f"{numbers.max():,} of them "
            several, one, why = WHY_UNASSIGNED[top]
            because = f"{one if numbers.max() == 1 else several}{why}"
            if top == "novel" and novel_by and any(novel_by.get(cause) for cause in NOVEL_BY):
                because = why_novel(novel_by, one=bool(numbers.max() == 1))
            first += f", {most}because {because}"
        first += "."
    broader = (final != predicted) & ~left
    n_against = int((broader & (reason == "disagreement")).sum())
    for n_cells, why in (
        (int(broader.sum()) - n_against, "the finer one was not certain enough"),
        (n_against, "the models contradict each other on the finer one"),
    ):
        if n_cells:
            first += f" {plural(n_cells, 'cell')} got a broader name, as {why}."
    return first


def readable(name: str) -> str:
    """A key as words: `low_total_counts` as `low total counts`."""
    return name.replace("_", " ")


def flatten(value: Any, prefix: str = "") -> Iterator[tuple[str, str]]:
    """Every leaf of nested parameters as (name, text)."""
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, dict):
        for key in sorted(value, key=str):
            yield from flatten(value[key], f"{prefix}.{key}" if prefix else str(key))
    elif isinstance(value, list | tuple):
        yield prefix, ", ".join(str(item) for item in value)
    else:
        yield prefix, "" if value is None else str(value)


def as_code(text: str) -> Markup:
    """Text as HTML, escaped, what stands between backticks as code."""
    from markupsafe import Markup, escape

    parts = str(text).split("`")
    # Without a partner a backtick is one.
    last = len(parts) - 1 if len(parts) % 2 == 0 else len(parts)
    said = [
        Markup("<code>{}</code>").format(part)
        if i % 2 and i < last
        else escape(f"`{part}" if i == last else part)
        for i, part in enumerate(parts)
    ]
    return Markup("").join(said)
