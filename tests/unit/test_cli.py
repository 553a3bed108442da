"""What every command shares."""

import errno
import os
import re
import runpy
import subprocess
import sys

import click
import pytest
from click.testing import CliRunner
from conftest import ROOT

from cellscribe.cli import SETTINGS, common_options, exit_codes, sample_option, set_threads, trust_option
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


HDF5 = "Can't decrement id ref count (file write failed: time = Sat, errno = 28, error message = 'No space left')"


@pytest.mark.parametrize(
    ("failure", "words"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), ["no space is left", "Make room", "free at '"]),
        (RuntimeError(HDF5), ["no space is left", "Make room"]),
        (
            FileNotFoundError(errno.ENOENT, "No usable temporary directory found in ['/tmp']"),
            ["no space is left"],
        ),
        (OSError(errno.EDQUOT, "Disk quota exceeded", "a.h5ad"), ["quota", "'a.h5ad'", "Make room"]),
        (OSError(errno.EROFS, "Read-only file system", "/r/a"), ["read-only", "'/r/a'", "another folder"]),
        (PermissionError(errno.EACCES, "Permission denied", "/r/a"), ["no right", "'/r/a'"]),
        (OSError(errno.EIO, "Input/output error"), ["the disk failed"]),
    ],
)
def test_a_failure_of_the_machine_is_told_in_plain_words_and_is_no_bug(failure, words):
    result = run(failure)
    assert result.exit_code == 70
    assert all(word in result.stderr for word in [*words, "error: sample 's1'", "-resume"]), result.stderr
    assert "Traceback" not in result.stderr and "bug" not in result.stderr


@pytest.mark.parametrize(
    "failure", [MemoryError("Unable to allocate 9 GiB"), OSError(errno.ENOMEM, "Cannot allocate memory")]
)
def test_memory_that_ran_out_ends_as_a_kill_for_memory_does_which_is_tried_again(failure):
    result = run(failure)
    assert result.exit_code == 137
    assert "error: sample 's1': memory ran out: " in result.stderr and "--max_memory" in result.stderr
    assert "Traceback" not in result.stderr


def test_a_full_disk_is_not_taken_for_a_bad_input_and_an_unreadable_input_is_not_for_the_machine():
    wrapped = InputError("this .h5ad cannot be read", file="a.h5ad")
    wrapped.__cause__ = OSError(errno.ENOSPC, "No space left on device")
    assert run(wrapped).exit_code == 70
    wrapped.__cause__ = PermissionError(errno.EACCES, "Permission denied")
    assert run(wrapped).exit_code == 3


def test_an_error_that_only_reads_like_one_of_the_machine_is_our_bug():
    result = run(ValueError("No space left on device, errno = 28"))
    assert result.exit_code == 70 and "bug in cellscribe" in result.stderr
    assert "bug in cellscribe" in run(FileNotFoundError(errno.ENOENT, "No such file", "a")).stderr


def test_an_unknown_option_is_wrong_usage():
    assert run(None, "--nonsense", "1").exit_code == 2
    assert run(None, "--cpus", "0").exit_code == 2


def test_an_option_may_have_the_pipelines_underscores_and_a_wrong_one_is_told_what_is_near():
    @click.command(context_settings=SETTINGS)
    @click.option("--label-key")
    @click.option("--kind", type=click.Choice(["one_way", "other"]))
    @trust_option
    def main(label_key: str, kind: str, trust_model_code: bool) -> None:
        click.echo(f"{label_key} {kind} {trust_model_code}")

    for spelling in ("--label_key", "--label-key"):
        result = CliRunner().invoke(main, [spelling, "cell_type", "--trust_model_code", "--kind=one_way"])
        assert result.stdout == "cell_type one_way True\n"
    wrong = CliRunner().invoke(main, ["--labl_key", "cell_type"])
    assert wrong.exit_code == 2 and re.search("Did you mean .*--label-key", wrong.stderr), wrong.stderr


@pytest.mark.parametrize("file", sorted((ROOT / "bin").glob("*.py")), ids=lambda file: file.stem)
def test_every_command_takes_its_options_with_underscores(file):
    main = runpy.run_path(str(file))["main"]
    for command in (main, *getattr(main, "commands", {}).values()):
        context = click.Context(command, **command.context_settings)
        known = command.make_parser(context)._long_opt
        names = [
            name for option in command.get_params(context) for name in (*option.opts, *option.secondary_opts)
        ]
        assert all(name.replace("_", "-") in known for name in names if name.startswith("--"))
        assert context.token_normalize_func("label_key") == "label-key"


def test_the_number_of_threads_is_held_to_cpus(monkeypatch):
    monkeypatch.setattr("cellscribe.cli.set_threads", set_threads)
    for name in THREADS:
        monkeypatch.setenv(name, "2")
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
