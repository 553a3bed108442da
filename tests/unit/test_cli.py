"""What every command shares."""

import os
import subprocess
import sys

import click
import pytest
from click.testing import CliRunner

from cellscribe.cli import common_options, exit_codes, sample_option, set_threads
from cellscribe.errors import EXIT_CODES, InputError, ModelFetchError, ModelMismatchError, NothingLeftError
from cellscribe.progress import progress

THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")


@pytest.fixture(autouse=True)
def keep_threads(monkeypatch):
    for name in (*THREADS, "POLARS_MAX_THREADS"):
        monkeypatch.setenv(name, os.environ.get(name, "1"))


def command(failure: BaseException | None) -> click.Command:
    @click.command()
    @sample_option
    @common_options
    @exit_codes
    def main(sample: str, cpus: int, pipeline_version: str) -> None:
        if failure:
            raise failure

    return main


def run(failure: BaseException | None, *arguments: str):
    return CliRunner().invoke(command(failure), ["--sample", "s1", *arguments])


@pytest.mark.parametrize(
    ("failure", "code"),
    [
        (None, 0),
        (InputError("seen"), 3),
        (ModelMismatchError("seen"), 4),
        (NothingLeftError("seen"), 5),
        (ModelFetchError("seen"), 6),
        (ZeroDivisionError("seen"), 70),
        (click.UsageError("seen"), 2),
    ],
)
def test_each_failure_has_its_exit_code(failure, code):
    assert run(failure).exit_code == code
    assert code in EXIT_CODES


def test_a_users_failure_names_the_sample_and_what_to_do_without_a_traceback():
    result = run(InputError("what was seen", "What to do.", file="a.h5ad"))
    assert result.stderr == "error: sample 's1', file 'a.h5ad': what was seen\nWhat to do.\n"


def test_our_own_failure_shows_its_traceback():
    result = run(ZeroDivisionError("boom"))
    assert "Traceback" in result.stderr and "boom" in result.stderr and "report it" in result.stderr


def test_an_unknown_option_is_wrong_usage():
    assert run(None, "--nonsense", "1").exit_code == 2
    assert run(None, "--cpus", "0").exit_code == 2


def test_the_number_of_threads_is_held_to_cpus():
    run(None, "--cpus", "3")
    assert [os.environ[name] for name in THREADS] == ["3"] * 4
    set_threads(0)
    assert os.environ["OMP_NUM_THREADS"] == "1"


def test_a_log_gets_a_line_every_tenth_and_every_item(capsys):
    assert list(progress(iter(range(250)), total=250, label="mapping")) == list(range(250))
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 10
    assert lines[0] == "mapping: 25 of 250 (10 %)"
    assert lines[-1] == "mapping: 250 of 250 (100 %)"


def test_progress_of_nothing_says_nothing(capsys):
    assert list(progress([], total=0, label="mapping")) == []
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("step", ["map", "annotate", "train"])
def test_help_answers_without_heavy_imports(root, step):
    code = (
        "import sys, runpy; sys.argv = ['x', '--help']\n"
        f"try: runpy.run_path({str(root / 'bin' / (step + '.py'))!r}, run_name='__main__')\n"
        "except SystemExit as stop: assert not stop.code\n"
        "assert not {'numpy', 'pandas', 'anndata', 'torch'} & set(sys.modules), sorted(sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(root / "bin")},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "--output" in done.stdout


def test_no_name_of_a_file_moves_the_terminals_cursor_or_hides_what_was_said():
    result = run(InputError("a\x1b[2J\x07b\rc\x9bd\u200b", "e\nf\tg", file="x\x1b]0;t\x07"))
    assert result.stderr == "error: sample 's1', file 'x?]0;t?': a?[2J?b?c?d\u200b\ne\nf\tg\n"


def test_too_little_memory_ends_as_if_the_machine_had_ended_it(capsys):
    result = run(MemoryError())
    assert result.exit_code == 137
    assert result.stderr == "error: there is not enough memory\n"
