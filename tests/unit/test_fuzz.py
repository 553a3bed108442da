"""A hundred and fifty of the ten thousand files of benchmarks/fuzz: each a clean result or a documented exit code."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from fuzz import harness
from fuzz.harness import KINDS, Bench, make_file, run_many, run_seeds, set_up

N_FILES = 150


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    made = set_up(tmp_path_factory.mktemp("bench"), seed=1)
    run_seeds(made, tmp_path_factory.mktemp("seeds"), whole=False)
    return made


def test_a_mutated_file_ends_clean_or_with_a_documented_exit_code(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The last steps take seconds a file, and are the benchmark's.
    monkeypatch.setattr(harness, "TO_THE_END", {})
    outcomes = list(run_many(bench, range(N_FILES), tmp_path))
    assert [outcome.number for outcome in outcomes] == list(range(N_FILES))
    assert [(o.number, o.what, o.fault, o.said[-500:]) for o in outcomes if o.fault] == []
    assert {outcome.kind for outcome in outcomes} == set(KINDS)
    ends = [outcome.end for outcome in outcomes]
    assert {0, 3, 6} <= set(ends)
    # Files that are all refused would try nothing but the first check.
    assert 0.1 < ends.count(0) / N_FILES < 0.9


def test_a_file_is_made_again_by_its_number(bench: Bench, tmp_path: Path) -> None:
    def digest(number: int, folder: Path) -> str:
        folder.mkdir()
        kind, path, what = make_file(bench, number, folder)
        parts = sorted(p for p in (path.rglob("*") if path.is_dir() else [path]) if p.is_file())
        # HDF5 writes the time into what is changed in place.
        content = b"" if kind.startswith("h5") else b"".join(part.read_bytes() for part in parts)
        return f"{what} {hashlib.sha256(content).hexdigest()}"

    for number in range(30):
        assert digest(number, tmp_path / f"a{number}") == digest(number, tmp_path / f"b{number}")


def test_a_file_that_kills_or_stops_its_worker_is_an_outcome_and_the_others_go_on(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import os
    import time

    def one(_bench: Bench, number: int, folder: Path, _seen: object = None) -> harness.Outcome:
        folder.mkdir()
        if number == 1:
            os.kill(os.getpid(), 11)
        if number == 3:
            time.sleep(60)
        return harness.Outcome(number, "h5", "", (), 0, "")

    monkeypatch.setattr(harness, "run_one", one)
    outcomes = list(run_many(bench, range(5), tmp_path, seconds=2))
    assert [(o.number, o.end) for o in outcomes] == [(0, 0), (1, "killed"), (2, 0), (3, "hang"), (4, 0)]
    assert "by signal 11" in outcomes[1].fault
