"""What a run published, held against its own lists of checksums and the output contract."""

from __future__ import annotations

import csv
import json
from dataclasses import dataclass, field
from pathlib import Path

from cellscribe.checksums import LIST_SUFFIX, read_list
from cellscribe.errors import CellscribeError, InputError
from cellscribe.model.manifest import file_sha256, verify_model
from cellscribe.verify import annotations_of, problems_of

# Written by Nextflow itself when all steps have ended.
UNLISTED = {"summary": {"failures.tsv"}}


EARLIER = "; of an earlier run, by summary/summary.tsv"


@dataclass
class Checked:
    """One folder of results: what to call it, one line of what it is, and what is wrong."""

    name: str
    said: str
    problems: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        lines = "".join(f"\n  - {problem}" for problem in self.problems)
        return f"{self.name}: {self.said}{lines}"


def check_results(results: Path) -> list[Checked]:
    """Every folder below an `--outdir`, samples first. Raises InputError where a run has published nothing."""
    checked = check_samples(results)
    for name in ("merged", "reference", "summary"):
        if (results / name).is_dir() and (name != "summary" or (results / name / "summary.tsv").exists()):
            checked.append(check_folder(results / name, name))
    of_run = {row["sample"] for row in _table(results / "summary" / "summary.tsv")}
    merged = {row["sample"] for row in _table(results / "merged" / "composition.tsv")}
    for one in checked:
        if one.name == "merged" and of_run and merged - of_run:
            one.said += EARLIER
    # As where the input was refused: what else lies here is of a run before it.
    whole = [row["step"] for row in _table(results / "summary" / "failures.tsv") if not row.get("sample")]
    checked += [Checked("the run", f"failed at {step} (summary/failures.tsv)") for step in whole]
    models = results / "models"
    checked += [check_model(folder) for folder in sorted(models.glob("*")) if folder.is_dir()]
    if not checked:
        raise InputError("no run has published anything in it", "Give the --outdir of a run.", file=results)
    return checked


def check_samples(results: Path) -> list[Checked]:
    """Each sample that has a folder, or that the run's tables speak of."""
    failed: dict[str, list[str]] = {}
    for row in _table(results / "summary" / "failures.tsv"):
        if row.get("sample"):
            failed.setdefault(row["sample"], []).append(row.get("step") or "a step")
    told = {
        row["sample"]: row.get("status")
        for row in _table(results / "summary" / "summary.tsv")
        if row.get("sample")
    }
    folders = {path.name: path for path in (results / "samples").glob("*") if path.is_dir()}
    checked = []
    for sample in sorted({*folders, *told, *failed}):
        steps = f"failed at {', '.join(failed[sample])} (summary/failures.tsv)" if sample in failed else ""
        if sample not in folders:
            lost = told.get(sample) == "done"
            problems = ["summary.tsv says that it is done, and its folder is missing"] if lost else []
            checked.append(Checked(sample, steps or "nothing was published", problems))
            continue
        one = check_folder(folders[sample], sample, must_have_list=not steps)
        # REPORT, the last step, leaves the list; what comes of CURATE is not needed for it.
        if {*failed.get(sample, ())} - {"CURATE"} and (folders[sample] / f"{sample}{LIST_SUFFIX}").is_file():
            one.problems.append(
                "it failed in this run: what lies here is, in part or whole, of an earlier one"
            )
        said = f"{one.said}; {steps}" if steps else one.said
        if told and sample not in {*told, *failed}:
            said += EARLIER
        checked.append(Checked(sample, said, one.problems))
    return checked


def check_folder(folder: Path, name: str, *, must_have_list: bool = True) -> Checked:
    """Hold each file against the folder's list, `<name>.sha256`, and each h5ad against the output contract."""
    own = folder / f"{name}{LIST_SUFFIX}"
    there = {path.name for path in folder.iterdir()} - {own.name} - UNLISTED.get(name, set())
    problems: list[str] = []
    if own.is_file():
        try:
            listed = read_list(own)
        except InputError as error:
            return Checked(name, "its list cannot be read", [f"{own.name}: {error.seen}"])
        said = f"{_files(len(listed))} as listed"
        problems += [f"{missing}: is missing" for missing in sorted({*listed} - there)]
        problems += [f"{extra}: is not listed in {own.name}" for extra in sorted(there - {*listed})]
        for file in sorted(there & {*listed}):
            if not (folder / file).is_file() or file_sha256(folder / file) != listed[file]:
                problems.append(f"{file}: was changed since it was published")
    else:
        said = f"{_files(len(there))}, and no list"
        if must_have_list:
            problems.append(f"there is no {own.name}: the run did not get so far, or it is lost")
    for file in sorted(there):
        if file.endswith(".h5ad"):
            for problem in h5ad_problems(folder / file):
                problems.append(f"{file}: {problem}")
    return Checked(name, said if not problems else f"{len(problems)} wrong", problems)


def h5ad_problems(path: Path) -> list[str]:
    """What is wrong with a published h5ad; one that is called annotated must be."""
    import h5py

    problems = problems_of(path, numbers=True)
    if not problems and path.name.endswith(".annotated.h5ad"):
        with h5py.File(path, "r") as file:
            if not annotations_of(file):
                problems.append("no annotation is in it")
    return problems


def check_model(folder: Path) -> Checked:
    """A model that was trained: its manifest is its list."""
    name = f"models/{folder.name}"
    try:
        files = verify_model(folder)["files"]
    except (CellscribeError, OSError, json.JSONDecodeError) as error:
        return Checked(name, "1 wrong", [" ".join(str(error).split())])
    return Checked(name, f"{_files(len(files) + 1)} as listed")


def _files(n: int) -> str:
    return "1 file" if n == 1 else f"{n} files"


def _table(path: Path) -> list[dict[str, str]]:
    if not path.is_file():
        return []
    with path.open(newline="", errors="replace") as file:
        return list(csv.DictReader(file, delimiter="\t"))
