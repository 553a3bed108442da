"""Fixtures that every test may use."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

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


@pytest.fixture(autouse=True, scope="session")
def threads_as_they_are() -> Iterator[None]:
    """A command that runs in this process must not change its threads: numba refuses that once it has started."""
    with mock.patch("cellscribe.cli.set_threads"):
        yield


@pytest.fixture(autouse=True)
def numbers_as_they_are() -> Iterator[None]:
    """Training tells the processor to take the smallest numbers for zero, which the tests after it in this process are
    not to meet.
    """
    yield
    if "torch" in sys.modules:
        sys.modules["torch"].set_flush_denormal(False)


@pytest.fixture
def ready(tmp_path: Path) -> Any:
    """A folder with a reference and ids, and the options of a training that takes seconds."""
    from small_model import ready_options

    return ready_options(tmp_path)
