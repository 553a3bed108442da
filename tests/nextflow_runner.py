"""Runs the real Nextflow in a folder of its own, and tells what came of it."""

from __future__ import annotations

import csv
import re
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
NEXTFLOW = ROOT / ".tools" / "bin" / "nextflow"
DEMO = ROOT / "assets" / "demo" / "filtered_feature_bc_matrix.h5"

# Nextflow may lose count of a core where one task ends as another starts, and then waits for ever
# (nextflow-io/nextflow#7652). It says so after five minutes.
STALLED = "No more task to compute -- Execution may be stalled"


class Stalled(Exception):
    """Nextflow waits for a core that nothing holds."""


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
        command = [NEXTFLOW, "run", script, "-ansi-log", "false", *arguments]
        try:
            return self._run(command)
        except Stalled:
            self.log.unlink()
            return self._run(command)

    @property
    def log(self) -> Path:
        return self.folder / ".nextflow.log"

    def _run(self, command: list[str | Path]) -> Run:
        end = time.monotonic() + 900
        with subprocess.Popen(
            command,
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        ) as head:
            while True:
                try:
                    output, _ = head.communicate(timeout=5)
                except subprocess.TimeoutExpired:
                    stalled = self.log.is_file() and STALLED in self.log.read_text(errors="replace")
                    if not stalled and time.monotonic() < end:
                        continue
                    head.kill()
                    if stalled:
                        raise Stalled from None
                    raise
                return Run(head.returncode, output, self.folder / "results")
