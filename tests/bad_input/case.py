"""A case of bad or odd input: who meets it, what must come of it, and how it is tried."""

from __future__ import annotations

import contextlib
import functools
import re
import runpy
import tempfile
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path
from unittest import mock

import click
from click.testing import CliRunner, Result

from cellscribe.errors import CellscribeError

ROOT = Path(__file__).parents[2]

Maker = Callable[[Path], Sequence[object]]
"""Writes the input into an empty folder, and returns the options that name it."""


@dataclass(frozen=True)
class Holds:
    """What the output must hold: in words, and as a check of the folder that it is in."""

    words: str
    check: Callable[[Path], None]


@dataclass(frozen=True)
class Step:
    """A command of bin/. makes: patterns of all the files that it writes. about: the options of which a message of it
    must name one, as it was given, or the file that it is.
    """

    script: str
    options: tuple[object, ...]
    makes: tuple[str, ...]
    about: tuple[str, ...] = ()

    @property
    def command(self) -> click.Command:
        """The click command, read once."""
        return _command(self.script)


@functools.cache
def _command(script: str) -> click.Command:
    return runpy.run_path(str(ROOT / "bin" / script))["main"]


STEPS = {
    "CHECK_INPUT": Step(
        "check_input.py",
        (
            *("--schema", ROOT / "nextflow_schema.json"),
            *("--input-schema", ROOT / "assets" / "schema_input.json"),
            *("--catalogue", ROOT / "assets" / "models.csv"),
            *("--output", "samples.json", "--settings", "settings.json"),
        ),
        ("samples.json", "settings.json"),
    ),
    "SPLIT": Step(
        "split.py", ("--sample", "s1", "--output", "split.json"), ("split.json", "s1_*.h5ad"), ("--input",)
    ),
    "CONVERT": Step(
        "convert.py",
        ("--sample", "s1", "--output", "s1.counts.h5ad", "--metrics", "s1.convert.json"),
        ("s1.counts.h5ad", "s1.convert.json"),
        ("--input",),
    ),
    "QC": Step(
        "qc.py",
        ("--sample", "s1"),
        ("s1.filtered.h5ad", "s1.qc.json", "s1.removed.tsv.gz", "s1.qc_*.png"),
        ("--counts",),
    ),
    "MAP": Step(
        "map.py",
        ("--sample", "s1", "--output", "s1.mapping.h5ad"),
        ("s1.mapping.h5ad",),
        ("--counts", "--model"),
    ),
    "ANNOTATE": Step(
        "annotate.py",
        (
            *("--sample", "s1", "--output", "s1.annotated.h5ad"),
            *("--predictions", "s1.predictions.tsv.gz", "--summary", "s1.annotation.json"),
        ),
        ("s1.annotated.h5ad", "s1.predictions.tsv.gz", "s1.annotation.json"),
        ("--counts", "--mapping", "--model"),
    ),
    "FETCH_MODEL": Step(
        "fetch_model.py",
        ("--output-folder", "models"),
        ("models/*",),
        ("--model", "--sha256"),
    ),
    "ANNOTATE_ONE": Step("annotate_one.py", ("-o", "named.h5ad"), ("named.h5ad",), ("-m",)),
}


@dataclass(frozen=True)
class Case:
    """What is given, in words; the step that meets it; its exit code; parts of what it prints, in their order; and
    what it must have written where the input was good after all.
    """

    given: str
    step: str
    make: Maker
    code: int = 0
    says: tuple[str, ...] = ()
    holds: Holds | None = None

    def __post_init__(self) -> None:
        assert (self.code == 0) == (self.holds is not None), f"{self.given}: what must come of it?"
        assert self.code == 0 or self.says, f"{self.given}: what must be said?"


@dataclass(frozen=True)
class Tried:
    """What came of a case: the folder of the output, and all that was printed."""

    result: Result
    arguments: list[str]
    out: Path
    left: list[str] = field(default_factory=list)

    @property
    def error(self) -> CellscribeError:
        """The error that ended the command."""
        assert self.result.exception is not None
        error = self.result.exception.__context__
        assert isinstance(error, CellscribeError), repr(error)
        return error


def contents(folder: Path) -> dict[str, bytes | None]:
    """Everything below a folder: the bytes of files, None for folders and links."""
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() and not path.is_symlink() else None
        for path in sorted(folder.rglob("*"))
    }


def attempt(case: Case, folder: Path) -> Tried:
    """Make the input of a case, and run the step on it in a folder of its own; the input must stay as it was."""
    step = STEPS[case.step]
    given, out, scratch = (folder / name for name in ("given", "out", "scratch"))
    for path in (given, out, scratch):
        path.mkdir()
    arguments = [str(argument) for argument in (*case.make(given), *step.options)]
    before = contents(given)
    with (
        contextlib.chdir(out),
        mock.patch.object(tempfile, "tempdir", str(scratch)),
        # numba refuses another number of threads once it has run
        mock.patch("cellscribe.cli.set_threads"),
    ):
        result = CliRunner().invoke(step.command, arguments)
    forget(result.exception)
    assert contents(given) == before, "the input was changed"
    unfinished = [path for path in out.rglob(".*") if path.name != ".models_cache"]
    assert not unfinished and not list(scratch.iterdir()), "temporary files were left"
    return Tried(result, arguments, out, [name for name, data in contents(out).items() if data is not None])


def forget(error: BaseException | None) -> None:
    """Let go of what an error holds, as the end of a process does."""
    while error is not None:
        traceback.clear_frames(error.__traceback__)
        error = error.__context__


def check(case: Case, folder: Path) -> None:
    """Try a case, and hold what came of it to what it promises."""
    step, tried = STEPS[case.step], attempt(case, folder)
    said = tried.result.stderr
    assert tried.result.exit_code == case.code, tried.result.output
    assert "Traceback" not in tried.result.output
    at = 0
    for part in case.says:
        assert part in said[at:], f"{part!r} is not said, or not there:\n{said}"
        at = said.index(part, at) + len(part)
    if case.holds is not None:
        strangers = [name for name in tried.left if not any(fnmatch(name, made) for made in step.makes)]
        assert not strangers and all(
            any(fnmatch(name, made) for name in tried.left) for made in step.makes
        ), tried.left
        case.holds.check(tried.out)
        return
    assert tried.left == [], "something was written"
    if case.code != 2:
        check_message(step, tried)


PLACE = re.compile(r"(line|entry) \d+|sheet |catalogue |--\w|\w+ \(\S+\) is above ")


def check_message(step: Step, tried: Tried) -> None:
    """A message names the sample and the file (or the line, or the parameter), and says what to do."""
    message = str(tried.error)
    assert f"error: {message}" in tried.result.stderr
    assert tried.error.seen and tried.error.todo, message
    if step.script == "check_input.py":
        problems = [line.removeprefix("  - ") for line in message.splitlines() if line.startswith("  - ")]
        assert problems and all(PLACE.match(problem) for problem in problems), message
    if "--sample" in step.options:
        assert "sample 's1'" in message
    values = dict(zip(tried.arguments, tried.arguments[1:], strict=False))
    asked = [values[option] for option in step.about if option in values]
    parts = Path(str(tried.error.file)).parts
    assert not asked or any(value in message or Path(value).name in parts for value in asked), message
