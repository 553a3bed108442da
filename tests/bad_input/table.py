"""The one table of bad input: every case by its chapter, and the page that says them (docs/bad_input.md)."""

from __future__ import annotations

import re
from collections.abc import Sequence

from bad_input.case import Case
from bad_input.cellranger import FOLDERS, H5
from bad_input.cells import ANNOTATE, ANNOTATE_ONE, MAP, QC
from bad_input.h5ads import H5AD, SPLIT
from bad_input.models import MODELS
from bad_input.sheets import PARAMETERS, SHEETS

CHAPTERS: dict[str, Sequence[Case]] = {
    "Sample sheets": SHEETS,
    "Parameters": PARAMETERS,
    "Folders of Cell Ranger": FOLDERS,
    "Files of Cell Ranger and of others (.h5)": H5,
    "Files of AnnData (.h5ad)": H5AD,
    "Files of several samples": SPLIT,
    "Quality control": QC,
    "Mapping": MAP,
    "Annotation": ANNOTATE,
    "One file by one command": ANNOTATE_ONE,
    "Models": MODELS,
}
CASES = [case for cases in CHAPTERS.values() for case in cases]

HEAD = """# Bad input, and odd input

What a step does with what it is given: {n} cases, each of them a test. Where the input is bad, the step ends with the
code ([errors.md](errors.md)), says what stands here, names the sample and the file (or the line of the sheet),
says what
to do, and writes nothing. Where it is only odd, the code is 0, and what stands here is what comes out.

This page is written from the tests (`tests/bad_input`, `tests/cli/test_bad_input.py`); a test holds it to them."""


def page() -> str:
    """The page, as Markdown."""
    parts = [HEAD.format(n=len(CASES))]
    for chapter, cases in CHAPTERS.items():
        parts += [f"\n## {chapter}\n", "| given | step | code | what comes of it |", "|---|---|---|---|"]
        parts += [f"| {plain(case.given)} | {case.step} | {case.code} | {outcome(case)} |" for case in cases]
    return "\n".join(parts) + "\n"


def outcome(case: Case) -> str:
    """What is said, or what comes out, in one cell of the table."""
    shown = " … ".join(part.removeprefix("warning: ").strip() for part in case.says[:3])
    said = f"says “{plain(shown)}”" if shown else ""
    if case.holds is None:
        return said
    return plain(case.holds.words) + (f"; {said}" if said else "")


def plain(text: str) -> str:
    """Text that a cell of a Markdown table shows as it is, but for code between backticks."""
    escaped = re.sub(r"([|<>*\\])", r"\\\1", " ".join(text.split()))
    return re.sub(r"`[^`]*`", lambda code: re.sub(r"\\([<>*\\])", r"\1", code[0]), escaped)


if __name__ == "__main__":
    print(page(), end="")
