"""benchmarks/accuracy: running, resuming and reporting, without the peers' environments."""

from __future__ import annotations

import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from accuracy import programs, report, table
from accuracy.pairs import Sets, all_pairs
from accuracy.programs import Program
from accuracy.runner import Settings, prepare, result_folder, run_one
from conftest import ROOT
from labelled_sets import labelled_sets

# Every cell gets the commonest label; the first line decides how the run ends.
SCRIPT = """
{first}
import sys
sys.path.insert(0, {methods!r})
import numpy as np
from exchange import Exchange

exchange = Exchange("numpy")
reference, query = exchange.cells()
assert "label" not in query.obs, "a method sees no label of the query"
with exchange.timed("predict"):
    labels, counts = np.unique(reference.obs["label"].astype(str), return_counts=True)
    shares = np.tile(counts / counts.sum(), (query.n_obs, 1))
    exchange.write("commonest", labels, labels[shares.argmax(axis=1)], probabilities=shares)
exchange.finish()
"""


@pytest.fixture(scope="module")
def sets() -> Sets:
    return Sets(labelled_sets())


def program(folder: Path, first: str = "", name: str = "fake") -> Program:
    script = folder / f"{name}.py"
    script.write_text(SCRIPT.format(first=first, methods=str(ROOT / "benchmarks" / "accuracy" / "methods")))
    return Program(name, str(script), ("commonest",))


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(tmp_path / "out", tmp_path, limit=60, cpus=1)


@pytest.fixture(autouse=True)
def this_interpreter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Program, "interpreter", lambda self, environments: Path(sys.executable))


def test_a_run_is_kept_and_not_repeated_until_something_changes(
    tmp_path: Path, settings: Settings, sets: Sets
) -> None:
    pair = all_pairs()["pbmc3k-to-kang_ctrl"]
    inputs = prepare(pair, 0, sets, settings.out)
    fake = program(tmp_path)
    result = run_one(fake, pair, 0, inputs, settings)
    assert result["status"] == "ok", result["message"]
    assert result["seconds"] > 0
    assert result["peak_kib"] > 10_000
    assert "numpy" in result["versions"]
    written = result_folder(settings.out, "fake", pair.name, 0) / "commonest.npz"
    before = written.stat().st_mtime_ns
    run_one(fake, pair, 0, prepare(pair, 0, sets, settings.out), settings)
    assert written.stat().st_mtime_ns == before
    run_one(program(tmp_path, first="# changed"), pair, 0, inputs, settings)
    assert written.stat().st_mtime_ns > before


def test_a_crash_and_a_timeout_are_recorded_and_stop_nothing(
    tmp_path: Path, settings: Settings, sets: Sets, monkeypatch: pytest.MonkeyPatch
) -> None:
    pair = all_pairs()["scmix_p1-to-scmix_p2"]
    inputs = prepare(pair, 0, sets, settings.out)
    runs = [
        program(tmp_path, "raise SystemExit('no such marker')", "crashes"),
        program(tmp_path, "import time; time.sleep(60)", "sleeps"),
        replace(program(tmp_path, name="lacks"), gives=("another",)),
        program(tmp_path),
    ]
    quick = replace(settings, limit=1.0)
    results = [run_one(each, pair, 0, inputs, quick if each.name == "sleeps" else settings) for each in runs]
    assert [result["status"] for result in results] == ["failed", "timeout", "failed", "ok"]
    assert results[0]["message"] == "no such marker"
    assert results[2]["message"] == "it gave no another"
    assert results[1]["seconds"] < 20

    monkeypatch.setattr(report, "PROGRAMS", tuple(runs))
    monkeypatch.setattr(table, "PROGRAMS", tuple(runs))
    report.write_report(settings.out)
    lost = pd.read_csv(settings.out / "not_run.csv")
    assert lost["program"].tolist() == ["crashes", "sleeps", "lacks"]
    scores = pd.read_csv(settings.out / "scores.csv")
    truth = inputs.truth
    assert scores["method"].tolist() == ["commonest"]
    assert scores["accuracy"][0] == pytest.approx((truth == "A549").mean(), abs=1e-4)

    program(tmp_path, "# changed")
    report.write_report(settings.out)
    assert pd.read_csv(settings.out / "scores.csv").empty, "a result of other code is not scored"
    lost = pd.read_csv(settings.out / "not_run.csv").set_index("program")
    assert lost.loc["fake", "status"] == "stale"

    program(tmp_path)
    report.write_report(settings.out)
    assert len(pd.read_csv(settings.out / "scores.csv"))
    index = settings.out / "inputs" / f"{pair.name}-seed_0.json"
    index.write_text(index.read_text().replace("query-", "query-of-other-cells-"))
    report.write_report(settings.out)
    assert pd.read_csv(settings.out / "scores.csv").empty, "a result of other cells is not scored"


def test_a_failure_is_kept_until_it_is_asked_for_again(
    tmp_path: Path, settings: Settings, sets: Sets, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Program, "code_hash", lambda self: "same")
    pair = all_pairs()["scmix_p1-to-scmix_p2"]
    inputs = prepare(pair, 0, sets, settings.out)
    assert run_one(program(tmp_path, "raise SystemExit(1)"), pair, 0, inputs, settings)["status"] == "failed"
    mended = program(tmp_path)
    assert run_one(mended, pair, 0, inputs, settings)["status"] == "failed"
    assert run_one(mended, pair, 0, inputs, replace(settings, retry=True))["status"] == "ok"


def test_a_missing_environment_is_a_failure_that_says_so(
    tmp_path: Path, settings: Settings, sets: Sets, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Program, "interpreter", lambda self, environments: tmp_path / "none" / "python")
    pair = all_pairs()["scmix_p1-to-scmix_p2"]
    inputs = prepare(pair, 0, sets, settings.out)
    result = run_one(program(tmp_path), pair, 0, inputs, settings)
    assert result["status"] == "failed"
    assert "cannot be run" in result["message"]


def test_equal_references_are_one_file(settings: Settings, sets: Sets) -> None:
    pairs = all_pairs()
    first = prepare(pairs["both-to-kang_ctrl"], 0, sets, settings.out)
    second = prepare(pairs["both-to-pbmc4k"], 1, sets, settings.out)
    other = prepare(pairs["pbmc3k-to-pbmc4k"], 0, sets, settings.out)
    assert first.reference == second.reference != other.reference
    thin = [prepare(pairs["both-to-kang_ctrl-counts_50"], seed, sets, settings.out) for seed in (0, 1)]
    assert thin[0].query != thin[1].query, "each seed thins anew"
    assert np.array_equal(first.truth, thin[0].truth)


def test_methods_are_chosen_by_program_or_method() -> None:
    assert [found.name for found in programs.chosen("cellscribe_scvi,ours,popv")] == ["ours", "popv"]
    assert len(programs.chosen("")) == len(programs.PROGRAMS)
    with pytest.raises(KeyError):
        programs.chosen("garnett")


def test_each_way_of_ours_has_a_model_of_its_own() -> None:
    ours = [program for program in programs.PROGRAMS if program.is_ours]
    assert [program.name for program in ours] == ["ours", "ours_as_given", "ours_surgery"]
    assert len({program.trained_by() for program in ours}) == len(ours)


def test_our_models_are_made_anew_when_what_trains_them_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(ROOT / "bin", tmp_path / "bin")
    monkeypatch.setattr(programs, "ROOT", tmp_path)
    library, seen = tmp_path / "bin" / "cellscribe", []
    for file in ("training/members.py", "model/store.py", "clusters.py", "report.py", "surgery.py"):
        before = programs.library_hash()
        (library / file).write_text((library / file).read_text() + "# changed\n")
        seen.append(programs.library_hash() != before)
    assert seen == [True, False, True, False, True]
    there = {file.name for file in library.rglob("*")}
    assert there >= programs.NO_MATTER, "a file of another name now"


@pytest.mark.train
def test_quick_runs_ours_from_reference_to_figures(tmp_path: Path, sets: Sets) -> None:
    quick = [pair.name for pair in all_pairs().values() if pair.quick]
    command = [sys.executable, ROOT / "benchmarks" / "accuracy" / "run.py", "--quick", "--pairs", quick[-1]]
    done = subprocess.run(
        [*command, "--data", sets.folder, "--out", tmp_path / "out"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    scores = pd.read_csv(tmp_path / "out" / "scores.csv")
    assert len(quick) > 1
    assert set(scores["pair"]) == {quick[-1]}, done.stderr
    assert set(scores["method"]) == set(programs.PROGRAMS[0].gives)
    assert scores["macro_f1"].min() > 0.8, "the simulated types are far apart"
    assert (tmp_path / "out" / "macro_f1.png").is_file()


def test_a_model_is_trained_once_and_its_cost_told_to_every_other_query(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(programs.HERE / "methods"))
    from kept_model import train_once

    made: list[Path] = []

    def train(folder: Path) -> None:
        folder.mkdir(exist_ok=True)
        made.append(folder)

    folder = tmp_path / "model"
    assert train_once(folder, train) == {}
    cost = train_once(folder, train)
    assert made == [folder] and set(cost) == {"seconds_before", "cpu_seconds_before", "peak_kib_before"}
    folder.with_suffix(".json").unlink()
    assert train_once(folder, train) == {} and len(made) == 2
