#!/usr/bin/env python3
"""Ten thousand mutated files, each read by the step that reads what users give. README.md tells how to use it.

.venv/bin/python benchmarks/fuzz/fuzz.py
"""

from __future__ import annotations

import collections
import contextlib
import faulthandler
import importlib.util
import json
import multiprocessing
import os
import random
import resource
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
if __name__ == "__main__":
    sys.path[0] = str(ROOT / "benchmarks")
    sys.path[1:1] = [str(ROOT / "bin"), str(ROOT / "tests")]
    for _variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS"):
        os.environ[_variable] = "1"

import click
from click.testing import CliRunner
from fuzz import mutations
from fuzz.seeds import make_seeds, query

# A file of each kind in a hundred, roughly as often as users give them.
KINDS = {"h5": 22, "h5ad": 36, "mtx": 10, "model": 14, "archive": 6, "sheet": 12}
SPOIL_BYTES = 0.4
SECONDS = 60
MEMORY, DISK = 3 * 2**30, 2**30
FILES_A_WORKER = 250
# How many of the samples that convert, and of the models that map, go through the later steps too.
TO_THE_END = 0.04
DOCUMENTED = (0, 2, 3, 4, 5, 6)
FORBIDDEN = ("os.system", "os.exec", "os.posix_spawn", "subprocess.Popen", "pickle.find_class")


@dataclass(frozen=True)
class Outcome:
    """What became of one file. end: an exit code, `hang`, or `killed`. fault: what was wrong with that; "" for nothing."""

    number: int
    kind: str
    what: str
    steps: tuple[str, ...]
    end: int | str
    fault: str
    seconds: float = 0.0
    said: str = ""


@dataclass(frozen=True)
class Bench:
    """Where the seeds lie, and the seed of chance."""

    seeds: dict[str, list[Path]]
    query: Path
    seed: int

    def chance(self, number: int) -> random.Random:
        """The generator of file `number`: the same in every run."""
        return random.Random(f"{self.seed}/{number}")


def set_up(folder: Path, seed: int) -> Bench:
    """Make the seeds, and read every library once, so that workers start warm."""
    seeds = make_seeds(folder / "seeds")
    bench = Bench(seeds, query(folder), seed)
    for kind, paths in seeds.items():
        for place, path in enumerate(paths):
            (work := folder / "warm" / f"{kind}{place}").mkdir(parents=True)
            steps, end, said = run_steps(bench, kind, copied(path, work), work, whole=True)
            if end:
                raise RuntimeError(f"{path.name} as it is ends with {end} at {steps}: {said}")
    return bench


def copied(path: Path, folder: Path) -> Path:
    """A file or folder, copied below `folder`."""
    target = folder / path.name
    return Path(shutil.copytree(path, target) if path.is_dir() else shutil.copyfile(path, target))


# --- one file ---


def make_file(bench: Bench, number: int, folder: Path) -> tuple[str, Path, str]:
    """Write mutated file `number` below `folder`: its kind, its path, and what was done to it."""
    chance = bench.chance(number)
    kind = chance.choices(list(KINDS), list(KINDS.values()))[0]
    path = copied(chance.choice(bench.seeds[kind]), folder)
    if kind == "sheet":
        done = mutations.spoil_sheet(path, chance)
    elif kind == "archive":
        done = mutations.spoil_archive(path, chance)
    elif kind == "model":
        done = mutations.spoil_model(path, chance)
    elif kind == "mtx":
        done = mutations.spoil_folder(path, chance)
    elif chance.random() < SPOIL_BYTES:
        path.write_bytes(mutations.spoil_bytes(path.read_bytes(), chance))
        done = "bytes"
    else:
        done = mutations.spoil_h5(path, chance)
    return kind, path, f"{path.name}: {done}"


def command(name: str) -> click.Command:
    """The command of bin/ of that name."""
    module = f"_fuzzed_{name}"
    if module not in sys.modules:
        spec = importlib.util.spec_from_file_location(module, ROOT / "bin" / f"{name}.py")
        assert spec is not None and spec.loader is not None
        sys.modules[module] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[module])
    return sys.modules[module].main


def run_steps(
    bench: Bench, kind: str, path: Path, folder: Path, *, whole: bool
) -> tuple[tuple[str, ...], int, str]:
    """Give a file to the steps that read it: their names, the last one's exit code, and what it said.

    whole: go on to the last step where it fits.
    """
    done: list[str] = []
    said = ""
    for name, options in steps_of(bench, kind, path, folder, whole=whole):
        done.append(name)
        result = CliRunner().invoke(command(name), [str(option) for option in options])
        said = result.output
        if result.exit_code:
            return tuple(done), result.exit_code, said
    return tuple(done), 0, said


def steps_of(
    bench: Bench, kind: str, path: Path, folder: Path, *, whole: bool
) -> Iterator[tuple[str, Sequence[object]]]:
    """Commands and their options, one after the other."""
    out = folder / "out"
    out.mkdir(exist_ok=True)
    if kind == "sheet":
        launch = {
            "params": {"input": str(path), "model": "pbmc"},
            "launch_dir": str(folder),
            "project_dir": str(ROOT),
        }
        (folder / "launch.json").write_text(json.dumps({**launch, "sees_paths": False}))
        yield (
            "check_input",
            ["--launch", folder / "launch.json", "--sheet", path, "--schema", ROOT / "nextflow_schema.json"]
            + [
                "--input-schema",
                ROOT / "assets" / "schema_input.json",
                "--catalogue",
                ROOT / "assets" / "models.csv",
            ]
            + ["--output", out / "samples.json", "--settings", out / "settings.json"],
        )
        return
    filtered, model = bench.query, bench.seeds["model"][0]
    if kind in ("model", "archive"):
        yield "fetch_model", ["--model", path, "--output-folder", out / "models"]
        model = next((out / "models").glob("[!.]*"))
    else:
        counts = out / "s.counts.h5ad"
        yield (
            "convert",
            ["--sample", "s", "--input", path, "--output", counts, "--metrics", out / "s.convert.json"],
        )
        if not (whole and "mapped" in path.name):
            return
        yield "qc", ["--sample", "s", "--counts", counts]
        filtered = Path("s.filtered.h5ad")
    yield "map", ["--sample", "s", "--counts", filtered, "--model", model, "--output", out / "s.mapping.h5ad"]
    if whole:
        yield (
            "annotate",
            ["--sample", "s", "--counts", filtered, "--mapping", out / "s.mapping.h5ad", "--model", model]
            + ["--output", out / "s.annotated.h5ad", "--predictions", out / "s.predictions.tsv.gz"]
            + ["--summary", out / "s.annotation.json"],
        )


def run_one(bench: Bench, number: int, folder: Path, seen: list[str] | None = None) -> Outcome:
    """Make file `number` and run its steps. seen: where a trap writes what should never happen."""
    folder.mkdir(parents=True)
    kind, path, what = make_file(bench, number, folder)
    whole = random.Random(f"whole/{bench.seed}/{number}").random() < (0.2 if kind == "model" else TO_THE_END)
    # Making the file may have done what no step should.
    if seen is not None:
        seen.clear()
    started = time.perf_counter()
    with contextlib.chdir(folder):
        steps, end, said = run_steps(bench, kind, path, folder, whole=whole)
    seconds = time.perf_counter() - started
    return Outcome(number, kind, what, steps, end, find_fault(folder, end, said, seen or ()), seconds, said)


def find_fault(folder: Path, end: int, said: str, seen: Sequence[str]) -> str:
    """What is wrong with how a file ended; "" for nothing."""
    if end not in DOCUMENTED:
        return f"exit code {end}"
    if "Traceback" in said:
        return "a traceback"
    if end and not said.split("error: ")[-1].strip():
        return "no message"
    if seen:
        return f"it did {', '.join(sorted(set(seen)))}"
    if list(folder.rglob("sprung")) or list(folder.parent.rglob("evil*")):
        return "something planted was run, or written outside"
    half = [part.name for part in folder.rglob(".*") if part.name != ".numba"]
    return f"left {', '.join(half)}" if half else ""


# --- many files ---


def watch(forbidden: Sequence[str], seen: list[str]) -> None:
    """Note each of these events of the interpreter from here on."""
    sys.addaudithook(lambda event, _arguments: seen.append(event) if event in forbidden else None)


def work(bench: Bench, numbers: Sequence[int], folder: Path, talk: Connection) -> None:
    """In a process of its own: run these files, say before each which it is and after it what became of it."""
    in_use = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (in_use + MEMORY, in_use + MEMORY))
    resource.setrlimit(resource.RLIMIT_FSIZE, (DISK, DISK))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with (folder / "crash.txt").open("w") as crash:
        faulthandler.enable(crash)
        seen: list[str] = []
        watch(FORBIDDEN, seen)
        for number in numbers:
            talk.send(number)
            here = folder / str(number)
            outcome = run_one(bench, number, here, seen)
            talk.send(outcome)
            if not outcome.fault:
                shutil.rmtree(here, ignore_errors=True)


def run_many(
    bench: Bench, numbers: Sequence[int], folder: Path, seconds: float = SECONDS
) -> Iterator[Outcome]:
    """Run files in workers, one after the other; a file that hangs or kills its worker is an outcome too."""
    fork = multiprocessing.get_context("fork")
    left = list(numbers)
    while left:
        batch, current = left[:FILES_A_WORKER], None
        listen, talk = fork.Pipe(duplex=False)
        worker = fork.Process(target=work, args=(bench, batch, folder, talk))
        worker.start()
        talk.close()
        done = 0
        end: int | str = ""
        try:
            while done < len(batch):
                if not listen.poll(seconds):
                    end = "hang"
                    break
                told = listen.recv()
                if isinstance(told, int):
                    current = told
                    continue
                done += 1
                yield told
        except EOFError:
            end = "killed"
        worker.kill() if end else None
        worker.join()
        if end and current is not None:
            crash = (folder / "crash.txt").read_text()
            code = "" if end == "hang" else f" by signal {-(worker.exitcode or 0)}"
            kind, what = told_of(bench, current, folder / f"{current}-again")
            yield Outcome(
                current, kind, what, (), end, f"{end}{code}", seconds if end == "hang" else 0.0, crash
            )
            done += 1
        left = left[max(done, 1) :]


def told_of(bench: Bench, number: int, folder: Path) -> tuple[str, str]:
    """Kind of file `number` and what was done to it; the file is left below `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    kind, _, what = make_file(bench, number, folder)
    return kind, what


def summed_up(outcomes: Sequence[Outcome], seed: int, wall: float, cpu: float) -> dict[str, Any]:
    """What is kept of a run: how many files of each kind ended how, and every failure."""
    table: dict[str, collections.Counter[str]] = collections.defaultdict(collections.Counter)
    steps: collections.Counter[str] = collections.Counter()
    for outcome in outcomes:
        table[outcome.kind][str(outcome.end)] += 1
        steps.update(outcome.steps)
    slowest = max(outcomes, key=lambda outcome: outcome.seconds)
    return {
        "command": "benchmarks/fuzz/fuzz.py",
        "seed": seed,
        "files": len(outcomes),
        "failures": [
            {key: value for key, value in asdict(outcome).items() if key != "said"}
            for outcome in outcomes
            if outcome.fault
        ],
        "ends": {kind: dict(sorted(table[kind].items())) for kind in KINDS if kind in table},
        "steps_run": dict(steps),
        "seconds": {"wall": round(wall), "cpu": round(cpu), "slowest_file": round(slowest.seconds, 1)},
    }


def printed(summary: dict[str, Any]) -> str:
    """The table of kinds by how they ended."""
    ends = sorted({end for row in summary["ends"].values() for end in row}, key=lambda end: (len(end), end))
    lines = [f"{'':10}" + "".join(f"{end:>8}" for end in ends)]
    for kind, row in summary["ends"].items():
        lines.append(f"{kind:10}" + "".join(f"{row.get(end, 0):>8,}" for end in ends))
    return "\n".join(lines)


@click.command(context_settings={"show_default": True})
@click.option("--files", type=int, default=10_000, help="How many.")
@click.option("--first", type=int, default=0, help="Number of the first.")
@click.option("--seed", type=int, default=0, help="Another seed gives other files of the same numbers.")
@click.option(
    "--only", type=int, multiple=True, help="Make and run these files alone, and print what was said."
)
@click.option("--kind", help="Run files of this kind alone.")
@click.option("--keep", type=click.Path(path_type=Path), help="Leave the files of failures here.")
@click.option("--output", type=click.Path(path_type=Path), help="Write the result as JSON.")
def main(
    files: int,
    first: int,
    seed: int,
    only: tuple[int, ...],
    kind: str | None,
    keep: Path | None,
    output: Path | None,
) -> None:
    """Mutate files, run the steps on them, and say how each ended. Exit code 1 where one failed."""
    started = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="cellscribe-fuzz-") as scratch:
        bench = set_up(Path(scratch), seed)
        folder = keep.resolve() if keep else Path(scratch) / "files"
        folder.mkdir(parents=True, exist_ok=True)
        numbers = list(only) or list(range(first, first + files))
        if kind:
            numbers = [
                n for n in numbers if bench.chance(n).choices(list(KINDS), list(KINDS.values()))[0] == kind
            ]
        outcomes = []
        for outcome in run_many(bench, numbers, folder):
            outcomes.append(outcome)
            if outcome.fault or only:
                click.echo(f"{outcome.number} {outcome.what}: {outcome.fault or outcome.end} {outcome.steps}")
                click.echo("    " + "\n    ".join(outcome.said.splitlines()[-30 if only else -4 :]))
            if len(outcomes) % 500 == 0:
                click.echo(f"{len(outcomes):,} files in {time.perf_counter() - started:.0f} s", err=True)
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    cpu = sum(one.ru_utime + one.ru_stime for one in used)
    summary = summed_up(outcomes, seed, time.perf_counter() - started, cpu)
    click.echo(printed(summary))
    click.echo(f"{len(outcomes):,} files, {len(summary['failures']):,} failures; {summary['seconds']}")
    if output:
        output.write_text(json.dumps(summary, indent=1) + "\n")
    sys.exit(1 if summary["failures"] else 0)


if __name__ == "__main__":
    main()
