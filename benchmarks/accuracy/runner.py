"""Run programs on pairs, and keep what they gave: nothing that is there and still holds is run again."""

from __future__ import annotations

import functools
import hashlib
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from accuracy.measure import run_measured
from accuracy.pairs import CL_IDS, Pair, Sets
from accuracy.programs import HERE, Program, hash_of, thread_limits
from cellscribe.io import atomic_path, read_json, write_h5ad, write_json


@dataclass(frozen=True)
class Inputs:
    """The files of one pair and seed. truth: text (n,), in the order of the query's cells."""

    reference: Path
    query: Path
    labels: Path
    truth: np.ndarray
    reference_labels: list[str]

    @property
    def key(self) -> str:
        """Of what is in the files."""
        return hash_of([self.reference.name, self.query.name, self.labels.name])


def prepare(pair: Pair, seed: int, sets: Sets, out: Path) -> Inputs:
    """Write the pair's reference and query, unless they are there; equal ones of several pairs are one file."""
    folder = out / "inputs"
    index = folder / f"{pair.name}-seed_{seed}.json"
    data = [f"{path.name} {file_hash(path)}" for path in sorted(sets.folder.glob("*.h5ad"))]
    made_by = hash_of([(HERE / "pairs.py").read_bytes(), (HERE / "alterations.py").read_bytes(), *data])
    if not index.is_file() or read_json(index)["made_by"] != made_by:
        reference, query = pair.build(sets, np.random.default_rng(seed))
        names = sorted(set(reference.obs["label"]))
        labels = "".join(f'"{name}",{CL_IDS[name]}\n' for name in names if name in CL_IDS)
        label_file = folder / f"labels-{hash_of([labels])}.csv"
        folder.mkdir(parents=True, exist_ok=True)
        with atomic_path(label_file) as temporary:
            temporary.write_text("label,cl_id\n" + labels)
        write_json(
            {
                "made_by": made_by,
                "reference": _keep(reference[:, :], ["label", "batch"], folder, "reference"),
                "query": _keep(query[:, :], ["batch"], folder, "query"),
                "labels": label_file.name,
                "truth": query.obs["label"].astype(str).tolist(),
                "reference_labels": names,
            },
            index,
        )
    return read_inputs(pair.name, seed, out)


@functools.cache
def file_hash(path: Path) -> str:
    """The sha256 of a file that no run changes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_inputs(pair: str, seed: int, out: Path) -> Inputs:
    """What `prepare` wrote."""
    folder = out / "inputs"
    known = read_json(folder / f"{pair}-seed_{seed}.json")
    return Inputs(
        *(folder / known[part] for part in ("reference", "query", "labels")),
        np.array(known["truth"]),
        known["reference_labels"],
    )


def _keep(cells: Any, columns: list[str], folder: Path, kind: str) -> str:
    """Write cells under a name made of what they hold; returns the name."""
    import anndata

    counts = cells.X.tocsr().astype(np.float32)
    counts.sort_indices()
    kept = anndata.AnnData(counts, obs=cells.obs[columns].copy(), var=cells.var[["gene_ids"]].copy())
    parts = [counts.data.tobytes(), counts.indices.tobytes(), counts.indptr.tobytes()]
    parts += [" ".join(kept.var_names), " ".join(kept.obs_names)]
    parts += [" ".join(kept.obs[column].astype(str)) for column in columns]
    name = f"{kind}-{hash_of(parts)}.h5ad"
    if not (folder / name).is_file():
        write_h5ad(kept, folder / name)
    return name


@dataclass(frozen=True)
class Settings:
    """out: the folder of everything. environments: the peers' own. limit: seconds for one run."""

    out: Path
    environments: Path
    limit: float
    cpus: int
    retry: bool = False


def run_key(code: str, inputs: Inputs, seed: int) -> str:
    """Of everything that a run depends on."""
    return hash_of([code, inputs.key, str(seed)])


def result_folder(out: Path, program: str, pair: str, seed: int) -> Path:
    """Where one run's result, predictions and log are."""
    return out / "runs" / program / pair / f"seed_{seed}"


def run_one(program: Program, pair: Pair, seed: int, inputs: Inputs, settings: Settings) -> dict[str, Any]:
    """One program on one pair with one seed: its result, from before where nothing that it depends on has changed.

    A run that failed or took too long is kept as such too, and repeated with `retry`.
    """
    folder = result_folder(settings.out, program.name, pair.name, seed)
    code = program.code_hash()
    path, key = folder / "result.json", run_key(code, inputs, seed)
    if path.is_file():
        before: dict[str, Any] = read_json(path)
        if before["key"] == key and (before["status"] == "ok" or not settings.retry):
            return before
    folder.mkdir(parents=True, exist_ok=True)
    for old in (path, *folder.glob("*.npz"), folder / "times.json"):
        old.unlink(missing_ok=True)
    command: list[str | Path] = [program.interpreter(settings.environments), program.path]
    command += ["--reference", inputs.reference, "--query", inputs.query, "--labels", inputs.labels]
    command += ["--output", folder, "--seed", str(seed), "--cpus", str(settings.cpus), *program.options]
    if program.keeps_model:
        # The model depends on the reference, the code that trains and the seed, not on the query.
        model = hash_of([inputs.reference.name, inputs.labels.name, program.trained_by(), str(seed)])
        cache = settings.out / "models"
        cache.mkdir(parents=True, exist_ok=True)
        command += ["--cache", cache, "--model", model]
    measured = run_measured(
        command, folder / "log.txt", limit=settings.limit, env=thread_limits(settings.cpus)
    )
    said = read_json(folder / "times.json") if measured.status == "ok" else {}
    lacking = [name for name in program.gives if not (folder / f"{name}.npz").is_file()]
    if measured.status == "ok" and lacking:
        measured = type(measured)("failed", *list(asdict(measured).values())[1:4], f"it gave no {lacking[0]}")
    result = {
        "key": key,
        "code": code,
        "program": program.name,
        "pair": pair.name,
        "family": pair.family,
        "seed": seed,
        **asdict(measured),
        **said,
    }
    write_json(result, path)
    return result
