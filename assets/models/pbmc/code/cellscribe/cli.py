"""What every command in bin/ shares: exit codes, threads, common options, one way to log."""

from __future__ import annotations

import functools
import os
import re
import sys
import traceback
import unicodedata
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

import click

from cellscribe.errors import CellscribeError, MachineError, OutOfMemoryError, of_the_machine

# The options that name what a command reads: an error that names no file is about it.
DATA = ("input_path", "counts")
ENV_MANAGERS = ("local", "virtualenv", "conda")
CONFIGURATION = Path(__file__).resolve().parents[2] / "nextflow.config"


def _dashes(name: str) -> str:
    """An option's name as commands spell it: messages, docs and the pipeline's parameters have underscores."""
    return name.replace("_", "-")


SETTINGS = {
    "show_default": True,
    "help_option_names": ["-h", "--help"],
    "max_content_width": 110,
    "token_normalize_func": _dashes,
}

_listeners: list[list[str]] = []

file_in = click.Path(exists=True, dir_okay=False, path_type=Path)
path_in = click.Path(exists=True, path_type=Path)
folder_in = click.Path(exists=True, file_okay=False, path_type=Path)
path_out = click.Path(path_type=Path)


def log(message: str) -> None:
    """Say one line on standard error, where Nextflow's task log keeps it."""
    click.echo(plain_text(message), err=True)


def warn(message: str) -> None:
    """Say one line that a user should not miss."""
    for listener in _listeners:
        listener.append(message)
    click.echo(plain_text(f"warning: {message}"), err=True)


@contextmanager
def warnings_told() -> Iterator[list[str]]:
    """A list of the warnings that the block tells, for where its log is not read."""
    told: list[str] = []
    _listeners.append(told)
    try:
        yield told
    finally:
        _listeners.remove(told)


def plain_text(message: str) -> str:
    """Text for a terminal: a name from a file could else move its cursor, or set what it shows."""
    return "".join(
        letter if letter in "\n\t" or unicodedata.category(letter) not in ("Cc", "Cs") else "?"
        for letter in message
    )


def set_threads(cpus: int) -> None:
    """Hold every numerical library to `cpus` threads. Call it before one of them is imported."""
    for variable in (
        "OMP_NUM_THREADS",
        "OPENBLAS_NUM_THREADS",
        "MKL_NUM_THREADS",
        "NUMBA_NUM_THREADS",
        "POLARS_MAX_THREADS",
    ):
        os.environ[variable] = str(max(1, cpus))


def _end(error: CellscribeError) -> NoReturn:
    """End the program with the error's exit code.

    Where a disk is full at once, without Python's own end: HDF5 would try there to finish the file that it could not
    write, and crash (139), which Nextflow takes for a want of memory.
    """
    stream = sys.__stderr__
    if isinstance(error, MachineError) and stream is not None and stream is sys.stderr:
        stream.flush()
        os._exit(error.exit_code)
    sys.exit(error.exit_code)


def exit_codes(function: Callable[..., None]) -> Callable[..., None]:
    """Turn our errors and the machine's into their exit codes and one clear message; all else is our bug (70)."""

    @functools.wraps(function)
    def wrapped(*args: Any, **kwargs: Any) -> None:
        try:
            if "cpus" in kwargs:
                set_threads(kwargs["cpus"])
            function(*args, **kwargs)
        except (click.exceptions.ClickException, click.exceptions.Exit, click.exceptions.Abort):
            raise
        except Exception as error:
            told = of_the_machine(error) or error
            if isinstance(told, CellscribeError):
                sample = kwargs.get("sample")
                if told.sample is None and isinstance(sample, str):
                    told.sample = sample
                if told.file is None and not isinstance(told, MachineError | OutOfMemoryError):
                    told.file = next((kwargs[name] for name in DATA if name in kwargs), None)
                click.echo(plain_text(f"error: {told}"), err=True)
                _end(told)
            traceback.print_exc()
            click.echo("error: this is a bug in cellscribe; please report it with the lines above.", err=True)
            sys.exit(70)

    return wrapped


def own_version() -> str:
    """The version that nextflow.config states, which lies beside bin/; "unknown" where it does not."""
    try:
        stated = CONFIGURATION.read_text(encoding="utf-8")
    except OSError:
        return "unknown"
    found = re.search(r"^ *version *= *'([^']+)'", stated, re.MULTILINE)
    return found[1] if found else "unknown"


def common_options(function: Callable[..., None]) -> Callable[..., None]:
    """Options that every step takes: `--cpus` and `--pipeline-version`."""
    function = click.option(
        "--pipeline-version", default=own_version(), help="Recorded in the output's provenance."
    )(function)
    return click.option(
        "--cpus", type=click.IntRange(min=1), default=1, help="How many threads to use at most."
    )(function)


sample_option = click.option(
    "--sample", required=True, help="The sample's name, as the sample sheet gives it."
)

trust_option = click.option(
    "--trust-model-code",
    is_flag=True,
    help="Run the code of an MLflow model made by others: only where you trust its source.",
)


def strictness_options(function: Callable[..., None]) -> Callable[..., None]:
    """Options that say how strict a model is to be: `--min-probability`, `--reject-novel`, `--novelty-limit`."""
    for option in (
        click.option(
            "--novelty-limit",
            type=click.FloatRange(0.5, 1),
            help="From which novelty on a cell is left unassigned; the model's own limit where not given.",
        ),
        click.option(
            "--reject-novel",
            type=bool,
            default=True,
            help="false: cells unlike all that the model knows are called by their label all the same.",
        ),
        click.option(
            "--min-probability",
            type=click.FloatRange(0, 1),
            help="The least probability of a label; the model's own where not given.",
        ),
    ):
        function = option(function)
    return function


def cluster_options(function: Callable[..., None]) -> Callable[..., None]:
    """Options that say how cells are clustered: `--cluster-key`, `--cluster-resolution`."""
    function = click.option(
        "--cluster-resolution",
        type=click.FloatRange(0.01, 100),
        default=1.0,
        help="Of Leiden: more gives more and smaller clusters.",
    )(function)
    return click.option(
        "--cluster-key", help="A column of obs whose clusters are used, in the place of those found here."
    )(function)
