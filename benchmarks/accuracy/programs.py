"""The methods: which program runs them, and in which environment."""

from __future__ import annotations

import hashlib
import os
import sys
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
OURS = "ours"
DEFAULT_METHOD = "cellscribe_consensus"
# What neither makes a model of ours nor names cells with it.
NO_MATTER = frozenset(
    [
        "archive.py",
        "card.py",
        "card.html.j2",
        "foreign.py",
        "mlflow_folder.py",
        "schema_model.json",
        "store.py",
        "unpack.py",
        "aggregated.py",
        "annotate_one.py",
        "annotate.py",
        "annotated_file.py",
        "annotation.py",
        "annotation_info.py",
        "catalogue.py",
        "cell_calling.py",
        "census.py",
        "check_input.py",
        "check_models.py",
        "check_parameters.py",
        "check_samples.py",
        "checksums.py",
        "colours.py",
        "consensus.py",
        "convert.py",
        "curation.py",
        "differential.py",
        "doublets.py",
        "drawing.py",
        "explorer.py",
        "figures.py",
        "importing",
        "launch.py",
        "merge.py",
        "merge_page.py",
        "mlflow_run.py",
        "multiqc_page.py",
        "obtain.py",
        "orthologs.py",
        "problems.py",
        "published.py",
        "qc.py",
        "qc_figures.py",
        "registry.py",
        "report.py",
        "report_composition.py",
        "report_evidence.py",
        "report_inputs.py",
        "report_models.py",
        "report_steps.py",
        "report_truth.py",
        "report_words.py",
        "sample_names.py",
        "run_samples.py",
        "schema.py",
        "several.py",
        "shards.py",
        "sheet.py",
        "split.py",
        "step_options.py",
        "summary.py",
        "tables.py",
        "templates",
        "truth.py",
        "verdicts.py",
        "verify.py",
        "versions.py",
        "words.py",
        "zarr_output.py",
    ]
)


@dataclass(frozen=True)
class Program:
    """A program that runs one or several methods. environment: "" is that of run.py itself, the project's .venv.
    keeps_model: whether queries of one reference can share a model, which lies in the cache then.
    """

    name: str
    script: str
    gives: tuple[str, ...]
    environment: str = ""
    options: tuple[str, ...] = ()
    keeps_model: bool = False

    @property
    def path(self) -> Path:
        """The program's file."""
        return HERE / "methods" / self.script

    def interpreter(self, environments: Path) -> Path:
        """The Python that runs it."""
        return (
            environments / self.environment / "bin" / "python" if self.environment else Path(sys.executable)
        )

    @property
    def is_ours(self) -> bool:
        """Whether it runs the code of bin/cellscribe."""
        return self.script == "run_ours.py"

    def trained_by(self) -> str:
        """Of everything but the reference and the seed that a kept model depends on."""
        return hash_of([library_hash(), *self.options]) if self.is_ours else self.code_hash()

    def code_hash(self) -> str:
        """Of everything that can change its result, the inputs and the seed left out."""
        files = [self.path, HERE / "methods" / "exchange.py"]
        if self.environment:
            files.append(HERE / "environments" / f"{self.environment}.txt")
        if self.keeps_model:
            files.append(HERE / "methods" / "kept_model.py")
        if self.name in ("scvi", "scanvi"):
            files.append(HERE / "methods" / "scvi_reference.py")
        if not self.environment:
            files.append(ROOT / "uv.lock")
        code = library_hash() if self.is_ours else ""
        return hash_of([*(path.read_bytes() for path in files), " ".join(self.options), code])


PROGRAMS = (
    Program(
        OURS,
        "run_ours.py",
        (DEFAULT_METHOD, "cellscribe_scvi", "cellscribe_logistic"),
        keeps_model=True,
    ),
    Program(
        "ours_as_given",
        "run_ours.py",
        ("cellscribe_consensus_as_given", "cellscribe_scvi_as_given", "cellscribe_logistic_as_given"),
        options=("--way", "as_given"),
        keeps_model=True,
    ),
    Program(
        "ours_surgery",
        "run_ours.py",
        ("cellscribe_consensus_surgery", "cellscribe_scvi_surgery"),
        options=("--way", "surgery"),
        keeps_model=True,
    ),
    Program(
        "celltypist_sgd",
        "run_celltypist.py",
        ("celltypist_sgd", "celltypist_sgd_voting"),
        "celltypist",
        ("--trainer", "sgd"),
    ),
    Program("singler", "run_singler.py", ("singler",), "singler"),
    Program("symphony", "run_symphony.py", ("symphony",), "symphony"),
    Program(
        "celltypist",
        "run_celltypist.py",
        ("celltypist", "celltypist_voting"),
        "celltypist",
        ("--trainer", "lbfgs"),
    ),
    Program("scvi", "run_scvi.py", ("scvi_xgboost", "scvi_neighbours")),
    Program("scanvi", "run_scanvi.py", ("scanvi_surgery",), keeps_model=True),
    Program("popv", "run_popv.py", ("popv",), "popv"),
)


def chosen(wanted: str) -> list[Program]:
    """Programs by comma-separated names, theirs or their methods'. Raises KeyError for an unknown one."""
    result = []
    for name in filter(None, (part.strip() for part in wanted.split(","))):
        found = [program for program in PROGRAMS if name == program.name or name in program.gives]
        if not found:
            raise KeyError(name)
        result += [program for program in found if program not in result]
    return result if wanted else list(PROGRAMS)


def library_hash() -> str:
    """Of the files of bin/cellscribe, those that change no label left out."""
    library = ROOT / "bin" / "cellscribe"
    files = sorted(
        file
        for file in library.rglob("*")
        if file.is_file() and not {"__pycache__", *NO_MATTER} & {*file.relative_to(library).parts}
    )
    return hash_of([file.read_bytes() for file in files])


def hash_of(parts: list[bytes | str]) -> str:
    """Sixteen digits of the sha256 of the parts."""
    digest = hashlib.sha256()
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        digest.update(len(data).to_bytes(8, "little") + data)
    return digest.hexdigest()[:16]


def thread_limits(cpus: int) -> dict[str, str]:
    """The environment of a program that may use so many cores."""
    names = ("OMP", "OPENBLAS", "MKL", "NUMBA", "VECLIB_MAXIMUM")
    return {**os.environ, **{f"{name}_NUM_THREADS": str(cpus) for name in names}}
