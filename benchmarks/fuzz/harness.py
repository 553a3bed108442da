"""Runs mutated files through the steps, each in a worker that may hang or die, and says how each ended."""

from __future__ import annotations

import collections
import contextlib
import faulthandler
import importlib.util
import json
import multiprocessing
import random
import resource
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import click
from click.testing import CliRunner

from fuzz import mutations
from fuzz.seeds import make_seeds, query

ROOT = Path(__file__).resolve().parents[2]
# A file of each kind in a hundred, roughly as often as users give them.
KINDS = {"h5": 22, "h5ad": 30, "merged": 6, "mtx": 10, "model": 14, "archive": 6, "sheet": 12}
SPOIL_BYTES = 0.4
SECONDS = 60
MEMORY, DISK = 3 * 2**30, 2**30
FILES_A_WORKER = 250
# How many of the samples that convert, and of the models that map, go through the later steps too.
TO_THE_END = {"model": 0.2, "archive": 0.04, "h5": 0.04, "h5ad": 0.04, "mtx": 0.04}
DOCUMENTED = (0, 2, 3, 4, 5, 6)
FORBIDDEN = ("os.system", "os.exec", "os.posix_spawn", "subprocess.Popen", "pickle.find_class")


@dataclass(frozen=True)
class Outcome:
    """What became of one file. end: an exit code, `hang` or `killed`; fault: what was wrong with it, "" for nothing."""

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
    """Make the seeds below `folder`, or take those that were made there before."""
    listed = folder / "seeds.json"
    if not listed.exists():
        seeds = make_seeds(folder / "seeds")
        query(folder)
        listed.write_text(
            json.dumps(
                {kind: [str(path.relative_to(folder)) for path in paths] for kind, paths in seeds.items()}
            )
        )
    names = json.loads(listed.read_text())
    return Bench(
        {kind: [folder / name for name in paths] for kind, paths in names.items()},
        folder / "query.filtered.h5ad",
        seed,
    )


def run_seeds(bench: Bench, folder: Path, *, whole: bool) -> None:
    """Run every seed as it is, so that libraries are read before workers are made. Raises RuntimeError."""
    for kind, paths in bench.seeds.items():
        for place, path in enumerate(paths):
            (here := folder / f"{kind}{place}").mkdir(parents=True)
            with contextlib.chdir(here):
                # Once to the end is enough to have read every library.
                to_the_end = whole and not place
                steps, end, said = run_steps(bench, kind, copied(path, here), here, whole=to_the_end)
            if end:
                raise RuntimeError(f"{path.name} as it is ends with {end} at {steps}: {said}")


def copied(path: Path, folder: Path) -> Path:
    """A file or folder, copied below `folder`."""
    target = folder / path.name
    return Path(shutil.copytree(path, target) if path.is_dir() else shutil.copyfile(path, target))


# --- one file ---


def kind_of(chance: random.Random) -> str:
    """The first thing that a file's generator decides."""
    return chance.choices(list(KINDS), list(KINDS.values()))[0]


def make_file(bench: Bench, number: int, folder: Path) -> tuple[str, Path, str]:
    """Write mutated file `number` below `folder`: its kind, its path, and what was done to it."""
    chance = bench.chance(number)
    kind = kind_of(chance)
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
        arguments = [f"--{option}={value}" for option, value in options.items()]
        result = CliRunner().invoke(command(name), arguments)
        said = result.output
        if result.exit_code:
            return tuple(done), result.exit_code, said
    return tuple(done), 0, said


def steps_of(
    bench: Bench, kind: str, path: Path, folder: Path, *, whole: bool
) -> Iterator[tuple[str, dict[str, object]]]:
    """Commands and their options, one after the other."""
    out, assets, sample = folder / "out", ROOT / "assets", {"sample": "s"}
    out.mkdir(exist_ok=True)
    if kind == "sheet":
        params = {"input": str(path), "model": "pbmc"}
        launch = {"params": params, "launch_dir": str(folder), "project_dir": str(ROOT), "sees_paths": False}
        (folder / "launch.json").write_text(json.dumps(launch))
        yield (
            "check_input",
            {
                "launch": folder / "launch.json",
                "sheet": path,
                "schema": ROOT / "nextflow_schema.json",
                "input-schema": assets / "schema_input.json",
                "catalogue": assets / "models.csv",
                "output": out / "samples.json",
                "settings": out / "settings.json",
            },
        )
        return
    counts: Path = bench.query
    model = bench.seeds["model"][0]
    if kind in ("model", "archive"):
        yield "fetch_model", {"model": path, "output-folder": out / "models"}
        model = next((out / "models").glob("[!.]*"))
    elif kind == "merged":
        yield "split", sample | {"input": path, "sample-key": "kind", "output": out / "s.split.json"}
        for part in sorted(out.glob("*.h5ad")):
            written = {
                "output": out / f"{part.stem}.counts.h5ad",
                "metrics": out / f"{part.stem}.convert.json",
            }
            yield "convert", {"sample": part.stem, "input": part} | written
        return
    else:
        counts = out / "s.counts.h5ad"
        genome = {"genome": "hg19"} if "two" in path.name else {}
        yield (
            "convert",
            sample | genome | {"input": path, "output": counts, "metrics": out / "s.convert.json"},
        )
        if not (whole and "mapped" in path.name):
            return
        yield "qc", sample | {"counts": counts}
        counts = Path("s.filtered.h5ad")
    mapping = out / "s.mapping.h5ad"
    yield "map", sample | {"counts": counts, "model": model, "output": mapping}
    if whole:
        yield (
            "annotate",
            sample
            | {"counts": counts, "mapping": mapping, "model": model, "output": out / "s.annotated.h5ad"}
            | {"predictions": out / "s.predictions.tsv.gz", "summary": out / "s.annotation.json"},
        )


def run_one(bench: Bench, number: int, folder: Path, seen: list[str] | None = None) -> Outcome:
    """Make file `number` and run its steps. seen: where a trap writes what should never happen."""
    folder.mkdir(parents=True)
    kind, path, what = make_file(bench, number, folder)
    whole = random.Random(f"whole/{bench.seed}/{number}").random() < TO_THE_END.get(kind, 0)
    # Making the file may have done what no step should.
    if seen is not None:
        seen.clear()
    started = time.process_time()
    with contextlib.chdir(folder):
        steps, end, said = run_steps(bench, kind, path, folder, whole=whole)
    seconds = time.process_time() - started
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
    from threadpoolctl import threadpool_limits

    # A process that was forked waits for ever for the threads that its parent's OpenMP had.
    threadpool_limits(1)
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
    times: dict[str, list[float]] = collections.defaultdict(list)
    steps: collections.Counter[str] = collections.Counter()
    for outcome in outcomes:
        table[outcome.kind][str(outcome.end)] += 1
        times[outcome.kind].append(outcome.seconds)
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
        "mean_seconds": {kind: round(sum(each) / len(each), 3) for kind, each in sorted(times.items())},
        "seconds": {"wall": round(wall), "cpu": round(cpu), "slowest_file": round(slowest.seconds, 1)},
    }


def printed(summary: dict[str, Any]) -> str:
    """The table of kinds by how they ended."""
    ends = sorted({end for row in summary["ends"].values() for end in row}, key=lambda end: (len(end), end))
    lines = [f"{'':10}" + "".join(f"{end:>8}" for end in ends)]
    for kind, row in summary["ends"].items():
        lines.append(f"{kind:10}" + "".join(f"{row.get(end, 0):>8,}" for end in ends))
    return "\n".join(lines)
