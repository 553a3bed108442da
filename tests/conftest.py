"""Fixtures that every test may use."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
# benchmarks/accuracy is tested too
sys.path.insert(0, str(ROOT / "benchmarks"))


def shared_data_folder() -> Path | None:
    """The folder of real data beside the project, or None."""
    folder = Path(os.environ.get("CELLSCRIBE_DATA", ROOT.parent / "shared" / "data"))
    return folder if folder.is_dir() else None


@pytest.fixture(scope="session")
def shared_data() -> Path:
    folder = shared_data_folder()
    if folder is None:
        pytest.skip("the shared test data is not beside the project (set CELLSCRIBE_DATA to its folder)")
    return folder


@pytest.fixture(scope="session")
def root() -> Path:
    return ROOT


@pytest.fixture(autouse=True)
def threads_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    """A command that runs in this process must not change its threads: numba refuses that once it has started."""
    monkeypatch.setattr("cellscribe.cli.set_threads", lambda _cpus: None)
