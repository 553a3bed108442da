"""Commands on a disk that is full or read-only: a small file system in memory, which takes a user namespace."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from small_model import simulate, write_reference


def on_a_disk(options: str, folder: Path, *command: object) -> subprocess.CompletedProcess[str]:
    """Run a command in `folder` with a file system of its own at `folder`/disk; what is left there, hidden or not, is
    said at the end of its output.
    """
    (folder / "disk").mkdir(exist_ok=True)
    script = f'mount -t tmpfs -o {options} tmpfs disk && {{ "$@"; code=$?; ls -A disk; exit $code; }}'
    return subprocess.run(
        ["unshare", "--map-root-user", "--mount", "sh", "-c", script, "sh", *map(str, command)],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module", autouse=True)
def namespaces(tmp_path_factory: pytest.TempPathFactory) -> None:
    try:
        done = on_a_disk("size=4k", tmp_path_factory.mktemp("tried"), "true")
    except FileNotFoundError:
        pytest.skip("there is no unshare here")
    if done.returncode:
        pytest.skip(f"no file system can be mounted here: {done.stderr}")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        # HDF5 has written a part of the file, and would crash where Python ends (139).
        ("size=60k", ["no space is left on the disk", "free at '", "Make room", "-resume"]),
        ("ro", ["read-only", "choose another folder", "-resume"]),
    ],
)
def test_a_disk_that_cannot_be_written_is_told_with_the_file_and_nothing_half_written_is_left(
    root: Path, tmp_path: Path, options: str, words: list[str]
) -> None:
    simulate(300).write_h5ad(tmp_path / "cells.h5ad")
    convert = [sys.executable, root / "bin" / "convert.py", "--sample", "s1", "--input", "cells.h5ad"]
    outputs = ["--output", "disk/s1.counts.h5ad", "--metrics", "disk/s1.convert.json"]
    done = on_a_disk(options, tmp_path, *convert, *outputs)
    assert done.returncode == 70, done.stderr
    told = done.stderr[done.stderr.rindex("\nerror: ") :] if "\nerror: " in done.stderr else done.stderr
    assert all(word in told for word in ["sample 's1'", "file 'disk/s1.counts.h5ad'", *words]), done.stderr
    assert "bug in cellscribe" not in done.stderr
    assert done.stdout == ""


def test_a_reference_that_the_disk_cannot_take_is_told_and_no_model_is_left(
    root: Path, tmp_path: Path
) -> None:
    write_reference(simulate(300), tmp_path / "reference.h5ad")
    train = [sys.executable, root / "bin" / "train.py", "--reference", "reference.h5ad", "--name", "m"]
    how = ["--label-key", "cell_type", "--batch-key", "donor", "--kind", "logistic", "--output", "disk/m"]
    done = on_a_disk("size=60k", tmp_path, *train, *how)
    assert done.returncode == 70, done.stderr
    assert "no space is left on the disk (free at '" in done.stderr
    assert "bug in cellscribe" not in done.stderr
    assert done.stdout == ""
