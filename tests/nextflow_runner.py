"""Runs the real Nextflow in a folder of its own, and tells what came of it."""

from __future__ import annotations

import csv
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
NEXTFLOW = ROOT / ".tools" / "bin" / "nextflow"
DEMO = ROOT / "assets" / "demo" / "filtered_feature_bc_matrix.h5"


def files_with(text: bytes, folder: Path) -> list[str]:
    """The files below a folder, hidden ones too, that hold a text; compressed ones as they are."""
    return [str(path) for path in folder.rglob("*") if path.is_file() and text in path.read_bytes()]


@dataclass
class Run:
    """What one run said and left."""

    returncode: int
    output: str
    results: Path

    def tasks(self, verb: str) -> list[str]:
        """The tasks that were `Submitted` or `Cached`, without the workflow's name, sorted."""
        names = re.findall(rf"{verb} process > (?:\w+:)?(.*)", self.output)
        return sorted(re.sub(r" \(1\)$", "", name.strip()) for name in names)

    def table(self, name: str) -> list[dict[str, str]]:
        with (self.results / name).open(newline="") as handle:
            return list(csv.DictReader(handle, delimiter="\t"))

    def files(self) -> set[str]:
        return {str(path.relative_to(self.results)) for path in self.results.rglob("*") if path.is_file()}


@dataclass
class Launch:
    """A folder that runs are started in."""

    folder: Path

    def write(self, name: str, text: str) -> Path:
        path = self.folder / name
        path.write_text(text)
        return path

    def run(self, *arguments: str, script: Path = ROOT) -> Run:
        done = subprocess.run(
            [NEXTFLOW, "run", script, "-ansi-log", "false", *arguments],
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=900,
            check=False,
        )
        return Run(done.returncode, done.stdout, self.folder / "results")
