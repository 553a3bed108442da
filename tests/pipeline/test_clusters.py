"""What reaches a scheduler or a container engine. Stand-ins take the place of sbatch, docker and singularity, and run
what they are given here."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import h5py
import pytest
from nextflow_runner import Launch

SBATCH = """#!/bin/bash
setsid bash "${@: -1}" >/dev/null 2>&1 </dev/null &
echo "Submitted batch job $$"
"""
ENGINE = """#!/bin/bash
if [ "$1" = pull ]; then touch "$(ls -d "${@: -2:1}" 2>/dev/null || echo "${@: -2:1}")"; exit; fi
while [ $# -gt 0 ] && [ "$1" != /bin/bash ]; do shift; done
[ $# -eq 0 ] || exec "$@"
"""
TRAIN = "--mode train --reference reference.h5ad --label_key cell_type --model_name small"


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Puts a stand-in on the PATH."""
    folder = tmp_path / "programs"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")

    def add(name: str, text: str) -> None:
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)

    return add


def wrappers(folder: Path) -> dict[str, str]:
    """The file that Nextflow hands out for each task, by the task's name without its workflow."""
    texts = [path.read_text() for path in folder.glob("work/*/*/.command.run")]
    names = [re.search(r"name: '(?:\w+:)?(\w+)", text) for text in texts]
    return {name[1]: text for name, text in zip(names, texts, strict=True) if name}


def test_a_job_that_the_scheduler_does_not_take_ends_the_run(launch: Launch, programs: Any) -> None:
    """Passed over as a sample's failure is, Nextflow would wait for it for ever."""
    programs("qsub", "#!/bin/bash\necho 'job rejected: no such queue' >&2\nexit 1\n")
    programs("qstat", "#!/bin/bash\n")
    launch.write(
        "sge.config", "process { withName: CONVERT { executor = 'sge' } }\nexecutor.pollInterval = '1 sec'"
    )
    run = launch.run("-c", "sge.config", "-stub-run", "-profile", "test")
    assert run.returncode != 0
    assert "Failed to submit process to grid scheduler" in run.output
    tries = [row for row in run.table("pipeline_info/trace.txt") if row["process"].endswith(":CONVERT")]
    assert [row["attempt"] for row in tries] == ["1", "2", "3", "4"]


def test_slurm_is_told_account_partition_memory_and_the_gpu_of_the_step_that_uses_one(
    launch: Launch, programs: Any
) -> None:
    programs("sbatch", SBATCH)
    programs("squeue", "#!/bin/bash\n")
    launch.write("reference.h5ad", "no more than a name")
    launch.write("quick.config", "executor.pollInterval = '1 sec'")
    queues = "--slurm_account lab --slurm_queue short --slurm_gpu_queue gpus --max_memory 8.GB"
    run = launch.run(*f"-c quick.config -stub-run -profile slurm,gpu {queues} {TRAIN}".split())
    assert run.returncode == 0, run.output
    found = {
        name: [line.removeprefix("#SBATCH ") for line in text.splitlines() if line.startswith("#SBATCH")]
        for name, text in wrappers(launch.folder).items()
    }
    assert {"-p gpus", "--account=lab --gres=gpu:1", "--mem 8192M", "-c 8"} <= set(found["TRAIN"])
    assert {"-p short", "--account=lab", "--mem 2048M"} <= set(found["CHECK_INPUT"])
    assert not [line for line in found["CHECK_INPUT"] if "gpu" in line]


@pytest.mark.parametrize(
    ("engine", "flag"), [("docker", "--gpus all"), ("singularity", "--nv"), ("apptainer", "--nv")]
)
def test_an_engine_is_told_of_the_gpu_in_its_own_words_and_of_an_image_that_is_a_file(
    launch: Launch, programs: Any, engine: str, flag: str
) -> None:
    programs(engine, ENGINE)
    launch.write("reference.h5ad", "no more than a name")
    image = launch.write("cellscribe.sif", "")
    own = "" if engine == "docker" else f"--container_run {image}"
    run = launch.run(*f"-stub-run -profile gpu,{engine} {TRAIN} {own}".split())
    assert run.returncode == 0, run.output
    found = {
        name: next(line for line in text.splitlines() if f"{engine} run" in line or f"{engine} exec" in line)
        for name, text in wrappers(launch.folder).items()
    }
    assert flag in found["TRAIN"] and "-cuda" in found["TRAIN"]
    assert flag not in found["CHECK_INPUT"] and "-cuda" not in found["CHECK_INPUT"]
    if engine != "docker":
        assert "--no-home" in found["CHECK_INPUT"] and "--pid -B " in found["CHECK_INPUT"]
        # an image file is used where it lies
        assert re.search(rf"{engine} exec .* {image} ", found["CHECK_INPUT"])


@pytest.mark.parametrize(("surgery", "image"), [("false", "-run"), ("true", "-cuda")])
def test_map_gets_a_gpu_where_it_has_a_use_for_one(
    launch: Launch, programs: Any, surgery: str, image: str
) -> None:
    programs("docker", ENGINE)
    launch.write("small.h5ad", "no more than a name")
    run = launch.run(*f"-stub-run -profile gpu,docker --input small.h5ad --surgery {surgery}".split())
    assert run.returncode == 0, run.output
    found = wrappers(launch.folder)
    assert (f"0.1.0{image}" in found["MAP"], "--gpus all" in found["MAP"]) == (True, surgery == "true")
    assert "--gpus all" not in found["QC"] and "0.1.0-run" in found["QC"]


def test_a_failure_is_listed_where_the_results_go_to_another_file_system(launch: Launch) -> None:
    launch.write("bad.h5ad", "this is no HDF5 file")
    results = f"file://{launch.folder}/results"
    run = launch.run("--input", "bad.h5ad", "--outdir", results)
    assert run.returncode != 0
    (failure,) = run.table("summary/failures.tsv")
    assert (failure["sample"], failure["exit_code"]) == ("bad", "3") and "HDF5" in failure["message"]
    assert "FAILED" in {row["status"] for row in run.table("pipeline_info/trace.txt")}


def test_memory_starts_from_the_size_of_a_file_and_from_a_fixed_one_for_a_folder_and_no_secret_is_written(
    launch: Launch, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = "a-word-that-nobody-may-read"
    mlflow = ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", *mlflow):
        monkeypatch.setenv(name, secret)
    for name, size in (("small.h5", 1_000), ("large.h5", 3_000_000_000)):
        with h5py.File(launch.folder / name, "w") as file:
            file.create_group("matrix")
        with (launch.folder / name).open("ab") as file:
            file.truncate(size if size > 1_000 else file.tell())
    (launch.folder / "outs").mkdir()
    (launch.folder / "outs" / "matrix.mtx").write_text("")
    launch.write("sheet.csv", "sample,path\nsmall,small.h5\nlarge,large.h5\nfolder,outs\n")
    launch.write("fields.config", "trace.fields = 'name,status,memory,process,tag,exit,workdir'")
    run = launch.run("-c", "fields.config", "-stub-run", "--input", "sheet.csv")
    assert run.returncode == 0, run.output
    memory = {
        row["tag"]: row["memory"]
        for row in run.table("pipeline_info/trace.txt")
        if "CONVERT" in row["process"]
    }
    assert memory == {"small": "2 GB", "large": "4 GB", "folder": "6 GB"}
    written = [path for path in launch.folder.rglob("*") if path.is_file() and path.suffix != ".h5"]
    assert any(path.name == "params.json" for path in written) and any(
        path.name == ".nextflow.log" for path in written
    )
    assert not [path for path in written if secret.encode() in path.read_bytes()]
