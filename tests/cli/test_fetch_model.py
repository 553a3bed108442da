"""fetch_model.py as Nextflow calls it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from model_maker import make_model
from small_model import small_model

from cellscribe.model.manifest import model_sha256, verify_model


def fetch(root: Path, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [
        sys.executable,
        str(root / "bin" / "fetch_model.py"),
        *arguments,
        "--pipeline-version",
        "0.1.0",
    ]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True)


def test_a_whole_model_ends_with_0_below_models(root: Path, tmp_path: Path) -> None:
    model = small_model("logistic")
    result = fetch(root, tmp_path, "--model", str(model), "--sha256", model_sha256(model), "--cpus", "2")
    assert result.returncode == 0, result.stderr
    verify_model(tmp_path / "models" / model_sha256(model))


def test_a_model_whose_parts_are_none_ends_with_6_and_names_the_first(root: Path, tmp_path: Path) -> None:
    make_model(tmp_path / "tiny")
    result = fetch(root, tmp_path, "--model", "tiny")
    assert result.returncode == 6
    assert "manifest.json" in result.stderr and "cannot be used" in result.stderr
    assert "Traceback" not in result.stderr


def test_an_h5ad_given_as_a_model_ends_with_6_and_says_what_to_do(root: Path, tmp_path: Path) -> None:
    (tmp_path / "pbmc.h5ad").write_bytes(b"\x89HDF\r\n\x1a\n" + b"\0" * 100)
    result = fetch(root, tmp_path, "--model", "pbmc.h5ad")
    assert result.returncode == 6
    assert "pbmc.h5ad" in result.stderr
    assert "--mode train --reference" in result.stderr
    assert "Traceback" not in result.stderr


def test_a_wrong_sha256_ends_with_6_and_an_ill_formed_one_with_3(root: Path, tmp_path: Path) -> None:
    make_model(tmp_path / "tiny")
    assert fetch(root, tmp_path, "--model", "tiny", "--sha256", "0" * 64).returncode == 6
    assert fetch(root, tmp_path, "--model", "tiny", "--sha256", "0").returncode == 3
    assert list((tmp_path / "models").glob("[!.]*")) == []


def test_the_help_needs_no_heavy_import(root: Path, tmp_path: Path) -> None:
    result = fetch(root, tmp_path, "--help")
    assert result.returncode == 0
    assert "--sha256" in result.stdout
