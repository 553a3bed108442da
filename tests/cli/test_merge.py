from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import anndata
from small_model import simulate, write_counts

from cellscribe.io import write_json


def merge(root: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, root / "bin" / "merge.py", *map(str, arguments)], capture_output=True, text=True
    )


def outputs(folder: Path) -> list[object]:
    return [
        *("--output", folder / "m.h5ad", "--composition", folder / "c.tsv"),
        *(
            "--pseudobulk",
            folder / "s.h5ad",
            "--page",
            folder / "p.html",
            "--cpus",
            1,
            "--pipeline-version",
            "9.8.7",
        ),
    ]


def test_the_command_writes_the_file_the_table_and_the_page(root: Path, tmp_path: Path) -> None:
    for seed, sample in enumerate(("a", "b")):
        cells = simulate(20, seed=seed)
        cells.obs["x_predicted"] = cells.obs["cell_type"].astype("category")
        cells.obsm["x"] = cells.X[:, :100].toarray()
        write_counts(cells, tmp_path / f"{sample}.annotated.h5ad", sample=sample)
        write_json({"names": {"predicted": "x_predicted"}}, tmp_path / f"{sample}.annotation.json")
    done = merge(root, "--inputs", tmp_path, *outputs(tmp_path / "out"))
    assert done.returncode == 0, done.stderr
    merged = anndata.read_h5ad(tmp_path / "out" / "m.h5ad", backed="r")
    assert merged.shape == (40, 400) and merged.obsm["X_x_umap"].shape == (40, 2)
    assert anndata.read_h5ad(tmp_path / "out" / "s.h5ad").obs["n_cells"].sum() == 40
    assert "cellscribe 9.8.7" in (tmp_path / "out" / "p.html").read_text()
    assert (tmp_path / "out" / "c.tsv").read_text().startswith("sample\tlabel\tn_cells\tshare\n")


def test_a_folder_without_samples_ends_with_three(root: Path, tmp_path: Path) -> None:
    done = merge(root, "--inputs", tmp_path, *outputs(tmp_path / "out"))
    assert done.returncode == 3 and "no annotated sample" in done.stderr


def test_help_answers_at_once(root: Path) -> None:
    start = time.monotonic()
    done = merge(root, "--help")
    seconds = time.monotonic() - start
    assert done.returncode == 0 and "--inputs" in done.stdout
    # Heavy imports would take several seconds even on a fast machine.
    assert seconds < 3 or os.getloadavg()[0] > (os.cpu_count() or 1)
