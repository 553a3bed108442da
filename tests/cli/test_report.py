import os
import subprocess
import sys
import time

import pytest
from report_factory import simulated, write_sample


def report(root, *arguments):
    return subprocess.run(
        [sys.executable, root / "bin" / "report.py", *map(str, arguments)], capture_output=True, text=True
    )


@pytest.fixture
def files(tmp_path):
    return write_sample(tmp_path, simulated())


def named(files):
    """The files by the name of their option."""
    (model,) = files["models"]
    return {name: path for name, path in files.items() if name != "models"} | {"model": model}


def options(files):
    return [part for name, path in named(files).items() for part in (f"--{name.replace('_', '-')}", path)]


def test_the_command_writes_the_page_and_the_table(root, files):
    done = report(root, "--sample", "blood", *options(files), "--cpus", 1, "--pipeline-version", "9.8.7")
    assert done.returncode == 0, done.stderr
    assert "cellscribe 9.8.7" in files["output"].read_text()
    assert files["markers"].read_text().startswith("label\tgene\t")
    assert sorted(p.name for p in files["output"].parent.iterdir() if p.name.startswith(".")) == []


def test_files_of_two_runs_end_with_three_and_name_the_sample(root, files):
    files["annotation"].write_text(
        files["annotation"].read_text().replace("cxg_cell_type_final", "other_final")
    )
    done = report(root, "--sample", "blood", *options(files))
    assert done.returncode == 3
    assert "sample 'blood'" in done.stderr and "other_final" in done.stderr
    assert not files["output"].exists()


def test_a_missing_file_is_wrong_usage(root, files):
    files["qc"].unlink()
    assert report(root, "--sample", "blood", *options(files)).returncode == 2


def test_help_answers_at_once_and_names_every_option(root, files):
    start = time.monotonic()
    done = report(root, "--help")
    seconds = time.monotonic() - start
    assert done.returncode == 0
    for name in named(files):
        assert f"--{name.replace('_', '-')}" in done.stdout
    # Heavy imports would take several seconds even on a fast machine.
    assert seconds < 3 or os.getloadavg()[0] > (os.cpu_count() or 1)
