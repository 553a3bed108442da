from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest
from scipy import sparse


@pytest.fixture
def counts(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    symbols = ["MT-CO1", "MT-ND1", *(f"GENE{i}" for i in range(98))]
    var = pd.DataFrame({"gene_ids": [""] * 100, "gene_symbols": symbols}, index=symbols)
    obs = pd.DataFrame(index=[f"cell{i}" for i in range(150)])
    matrix = sparse.csr_matrix(rng.poisson(8, size=(150, 100)).astype(np.float32))
    uns = {"cellscribe": {"sample": "s1", "organism": "human", "convert": "{}"}}
    path = tmp_path / "s1.counts.h5ad"
    anndata.AnnData(matrix, obs=obs, var=var, uns=uns).write_h5ad(path)
    return path


def run(root: Path, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(root / "bin" / "qc.py"), *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


def test_the_six_files_are_written_into_the_current_folder(root: Path, tmp_path: Path, counts: Path) -> None:
    done = run(
        root, tmp_path, "--sample", "s1", "--counts", counts.name, "--cpus", "2", "--pipeline-version", "1"
    )
    assert done.returncode == 0, done.stderr
    assert {path.name for path in tmp_path.iterdir()} - {counts.name} == {
        "s1.filtered.h5ad",
        "s1.qc.json",
        "s1.removed.tsv.gz",
        "s1.qc_violin.png",
        "s1.qc_knee.png",
        "s1.qc_scatter.png",
    }


def test_every_option_reaches_the_report(root: Path, tmp_path: Path, counts: Path) -> None:
    options = {
        "mode": "flag",
        "min_counts": 10.0,
        "max_counts": 9000.0,
        "min_genes": 5.0,
        "max_genes": 99.0,
        "max_pct_mt": 11.0,
        "max_pct_ribo": 60.0,
        "max_pct_hb": 4.0,
        "n_mads": 4.0,
        "n_mads_mt": 2.5,
        "min_cells": 3,
        "min_cells_per_gene": 1,
        "doublets": "flag",
        "expected_doublet_rate": 0.02,
        "seed": 7,
    }
    words = [word for key, value in options.items() for word in (f"--{key.replace('_', '-')}", str(value))]
    done = run(root, tmp_path, "--sample", "s1", "--counts", counts.name, *words)
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "s1.qc.json").read_text())["parameters"] == {"sample": "s1", **options}


def test_nothing_left_ends_with_5_names_the_sample_and_writes_nothing(
    root: Path, tmp_path: Path, counts: Path
) -> None:
    done = run(root, tmp_path, "--sample", "s1", "--counts", counts.name, "--max-counts", "3")
    assert done.returncode == 5
    assert "sample 's1', file 's1.counts.h5ad': 0 of 150 cells" in done.stderr
    assert "high_counts (150 cells" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == [counts.name]


def test_a_wrong_percentage_is_wrong_usage(root: Path, tmp_path: Path, counts: Path) -> None:
    done = run(root, tmp_path, "--sample", "s1", "--counts", counts.name, "--max-pct-mt", "120")
    assert done.returncode == 2
    assert "--max-pct-mt" in done.stderr


def test_help_loads_nothing_heavy(root: Path) -> None:
    code = "import sys; sys.argv = ['qc.py', '--help']; sys.path.insert(0, 'bin')\nimport runpy\n"
    code += "try:\n    runpy.run_path('bin/qc.py', run_name='__main__')\nexcept SystemExit:\n    pass\n"
    code += "print([name for name in ('numpy', 'pandas', 'anndata', 'scipy') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert "--max-pct-mt" in done.stdout
    assert done.stdout.strip().endswith("[]")
