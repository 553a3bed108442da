"""map.py --rows and gather.py."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import anndata
import numpy as np
import pytest
from small_model import small_counts, small_mapping, small_model


def run(root: Path, command: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, root / "bin" / command, "--sample", "s1", *map(str, arguments)],
        capture_output=True,
        text=True,
    )


def map_rows(root: Path, rows: str, output: Path, *more: object) -> subprocess.CompletedProcess[str]:
    given = ("--counts", small_counts(), "--model", small_model("logistic"), "--rows", rows)
    return run(root, "map.py", *given, "--output", output, *more)


def test_two_halves_are_joined(root: Path, tmp_path: Path) -> None:
    parts = [tmp_path / "a.h5ad", tmp_path / "b.h5ad"]
    for rows, part in zip(("0:45", "45:90"), parts, strict=True):
        done = map_rows(root, rows, part)
        assert done.returncode == 0, done.stderr
    assert "45 cells mapped" in done.stderr
    output = tmp_path / "s1.mapping.h5ad"
    done = run(root, "gather.py", "--part", parts[1], "--part", parts[0], "--output", output)
    assert done.returncode == 0 and "90 cells joined from 2 parts" in done.stderr
    joined, whole = anndata.read_h5ad(output), anndata.read_h5ad(small_mapping("logistic"))
    assert joined.obs.equals(whole.obs) and dict(joined.uns) == dict(whole.uns)
    np.testing.assert_array_equal(joined.obsm["logistic_scores"], whole.obsm["logistic_scores"])

    done = run(root, "gather.py", "--part", parts[1], "--output", tmp_path / "m.h5ad")
    assert done.returncode == 3 and "sample 's1'" in done.stderr and "rows 0:45" in done.stderr
    assert not (tmp_path / "m.h5ad").exists()


@pytest.mark.parametrize(
    ("rows", "more", "code", "message"),
    [
        ("0-45", (), 2, "'0-45' is not two row numbers"),
        ("0:x", (), 2, "'0:x' is not two row numbers"),
        ("0:91", (), 3, "no rows 0:91"),
        ("0:45", ("--surgery", "true"), 2, "leave out --rows"),
    ],
)
def test_rows_that_make_no_sense_are_refused(
    root: Path, tmp_path: Path, rows: str, more: tuple[str, ...], code: int, message: str
) -> None:
    done = map_rows(root, rows, tmp_path / "m.h5ad", *more)
    assert done.returncode == code and message in done.stderr, done.stderr
    assert list(tmp_path.iterdir()) == []
