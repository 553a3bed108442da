"""Run a program, and say how long it took, how much memory it held, and how it ended."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Measured:
    """status: ok, failed or timeout. seconds: by the clock; cpu_seconds: of all cores; peak_kib: resident memory."""

    status: str
    seconds: float
    cpu_seconds: float
    peak_kib: int
    message: str


def run_measured(command: Sequence[str | Path], log: Path, *, limit: float, env: dict[str, str]) -> Measured:
    """Run `command` for at most `limit` seconds; what it says goes to `log`. Never raises for what it does."""
    start = time.monotonic()
    with log.open("wb") as out:
        try:
            child = subprocess.Popen(
                [str(part) for part in command], stdout=out, stderr=out, env=env, start_new_session=True
            )
        except OSError as error:
            return Measured("failed", 0.0, 0.0, 0, f"{command[0]} cannot be run: {error.strerror}")
        try:
            late, (status, usage) = _wait(child.pid, start + limit)
        except BaseException:
            os.killpg(child.pid, signal.SIGKILL)
            raise
        child.returncode = os.waitstatus_to_exitcode(status)
    spent = time.monotonic() - start
    state = "timeout" if late else "failed" if child.returncode else "ok"
    message = f"stopped after {limit:.0f} s" if late else _last_words(log) if child.returncode else ""
    return Measured(
        state, round(spent, 2), round(usage.ru_utime + usage.ru_stime, 2), usage.ru_maxrss, message
    )


def _wait(pid: int, until: float) -> tuple[bool, tuple[int, object]]:
    late = False
    while True:
        found, status, usage = os.wait4(pid, os.WNOHANG)
        if found:
            return late, (status, usage)
        if time.monotonic() > until and not late:
            late = True
            os.killpg(pid, signal.SIGKILL)
        time.sleep(0.05)


def _last_words(log: Path) -> str:
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return lines[-1][:300] if lines else "it said nothing"
