"""summary.py as Nextflow calls it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path


def summarise(root: Path, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(root / "bin" / "summary.py"), *arguments, "--pipeline-version", "0.1.0"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True)


def test_a_run_is_summed_up_and_the_failed_samples_are_named(root: Path, tmp_path: Path) -> None:
    (tmp_path / "samples.json").write_text(
        json.dumps([{"id": "a", "path": "a.h5"}, {"id": "b", "path": "b.h5"}])
    )
    (tmp_path / "in").mkdir()
    for part in ("convert", "qc", "annotation", "verdicts"):
        (tmp_path / "in" / f"a.{part}.json").write_text("{}")
    failure = ("b", "CONVERT", "3", "bad input", "no counts")
    (tmp_path / "failures.tsv").write_text(
        "sample\tstep\texit_code\tmeaning\tmessage\n" + "\t".join(failure) + "\n"
    )
    given = "--samples samples.json --inputs in --failures failures.tsv --output-folder out"
    result = summarise(root, tmp_path, *given.split())
    assert result.returncode == 0, result.stderr
    assert "1 of 2 samples are done" in result.stderr
    assert "failed: b" in result.stderr
    lines = (tmp_path / "out" / "summary.tsv").read_text().splitlines()
    assert [line.split("\t")[:5] for line in lines[1:]] == [
        ["a", "done", "", "", ""],
        ["b", "failed", "CONVERT", "3", "no counts"],
    ]


def test_a_damaged_file_ends_with_3_and_its_name(root: Path, tmp_path: Path) -> None:
    (tmp_path / "samples.json").write_text("[{")
    result = summarise(root, tmp_path, "--samples", "samples.json", "--inputs", ".")
    assert result.returncode == 3
    assert "samples.json" in result.stderr
    assert "Traceback" not in result.stderr


def test_the_help_names_the_options(root: Path, tmp_path: Path) -> None:
    result = summarise(root, tmp_path, "--help")
    assert result.returncode == 0
    assert "--output-folder" in result.stdout
