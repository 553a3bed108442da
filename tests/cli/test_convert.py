from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import anndata as ad
import numpy as np
import pytest
from tenx_files import small_counts, write_h5_v3


@pytest.fixture
def convert(root):
    def run(*arguments: object) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, str(root / "bin/convert.py"), *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    return run


def wanted(path: Path, out: Path) -> list[object]:
    return [
        "--sample",
        "s1",
        "--input",
        path,
        "--output",
        out / "s1.counts.h5ad",
        "--metrics",
        out / "s1.convert.json",
    ]


def test_a_sample_is_converted(convert, tmp_path):
    counts = small_counts()
    path = write_h5_v3(tmp_path / "filtered_feature_bc_matrix.h5", counts)
    # As Nextflow hands over what the sheet leaves empty.
    empty = ["--counts-layer", "", "--gene-column", "", "--genome", "", "--batch", ""]
    done = convert(
        *wanted(path, tmp_path),
        *empty,
        "--organism",
        "auto",
        "--call-cells",
        "auto",
        "--seed",
        7,
        "--cpus",
        1,
    )
    assert done.returncode == 0, done.stderr
    data = ad.read_h5ad(tmp_path / "s1.counts.h5ad")
    assert np.array_equal(data.X.toarray(), counts)
    assert set(data.obs["batch"]) == {"s1"}
    assert json.loads((tmp_path / "s1.convert.json").read_text())["n_cells"] == 5


def test_bad_input_ends_with_3_names_the_sample_and_leaves_nothing_behind(convert, tmp_path):
    path = write_h5_v3(tmp_path / "m.h5", np.zeros((5, 6)))
    done = convert(*wanted(path, tmp_path))
    assert done.returncode == 3
    assert "sample 's1'" in done.stderr
    assert "m.h5" in done.stderr
    assert "Traceback" not in done.stderr
    assert [file.name for file in tmp_path.iterdir()] == ["m.h5"]


def test_a_wrong_option_ends_with_2(convert, tmp_path):
    path = write_h5_v3(tmp_path / "m.h5", small_counts())
    assert convert(*wanted(path, tmp_path), "--call-cells", "maybe").returncode == 2


def test_help_answers_at_once(convert):
    start = time.monotonic()
    done = convert("--help")
    assert done.returncode == 0
    assert "--call-cells" in done.stdout
    # No numerical library is loaded for it; generous for a busy machine.
    assert time.monotonic() - start < 3
