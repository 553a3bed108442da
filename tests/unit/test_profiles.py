"""What the profiles come to, as Nextflow itself renders them."""

from __future__ import annotations

import json
import re
import subprocess
from functools import cache
from pathlib import Path

import pytest
import yaml
from nextflow_runner import NEXTFLOW

from cellscribe.schema import coerce, parameters, problem

ROOT = Path(__file__).parents[2]
SCHEMA = json.loads((ROOT / "nextflow_schema.json").read_text())
PROFILES = [
    "standard",
    "test",
    "test_full",
    "debug",
    "gpu",
    "arm",
    "slurm",
    "awsbatch",
    "test,docker",
    "test,gpu,docker",
    "slurm,singularity",
    "slurm,apptainer,gpu",
    "test,slurm",
    "awsbatch,gpu",
    "awsbatch,arm",
    "awsbatch,fusion",
    "awsbatch,gpu,fusion",
    "test,podman",
    "test,apptainer",
    "test,charliecloud",
    "docker,gpu,test",
    "singularity,slurm",
]

pytestmark = pytest.mark.skipif(not NEXTFLOW.exists(), reason="there is no .tools/bin/nextflow")


@cache
def config(profiles: str) -> tuple[dict[str, str], str, int]:
    """Every setting as `nextflow config` prints it, what it said beside, and its exit code."""
    done = subprocess.run(
        [NEXTFLOW, "config", "-flat", "-profile", profiles, ROOT],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    lines = re.findall(r"^([a-z][\w.:'|]*) = (.*)$", done.stdout, flags=re.MULTILINE)
    return {name.replace("'", ""): value for name, value in lines}, done.stderr, done.returncode


def settings(profiles: str) -> dict[str, str]:
    return config(profiles)[0]


def under(profiles: str, prefix: str) -> dict[str, str]:
    found = settings(profiles)
    return {name.removeprefix(prefix): found[name] for name in found if name.startswith(prefix)}


def limits(profiles: str) -> dict[str, str]:
    """The limits of a task where no parameter says otherwise."""
    return dict(
        re.findall(r"(\w+): params\.max_\1 \?: ([\w.']+)", settings(profiles)["process.resourceLimits"])
    )


@pytest.mark.parametrize("profiles", PROFILES)
def test_a_profile_is_rendered_with_no_word_of_complaint(profiles: str) -> None:
    _, complaint, code = config(profiles)
    assert (code, complaint) == (0, "")


@pytest.mark.parametrize("profiles", ["standard", "test", "slurm", "gpu", "arm", "debug", "test,docker"])
def test_a_profile_that_names_no_other_place_finds_the_projects_python(profiles: str) -> None:
    """Any profile takes the place of `standard`."""
    for scope in ("process", "process.withLabel:schema_environment", "process.withLabel:census_environment"):
        assert f"{scope}.beforeScript" in settings(profiles)
    assert "process.beforeScript" not in settings("awsbatch")


def test_no_selector_is_a_negation() -> None:
    """Nextflow holds one against the whole name too: `!(CENSUS)` is true of REFERENCE:CENSUS."""
    paths = [ROOT / "nextflow.config", *ROOT.glob("conf/*.config"), *ROOT.glob("docs/*.md")]
    assert [path.name for path in paths if re.search(r"with(Name|Label): *'!", path.read_text())] == []


@pytest.mark.parametrize("profiles", ["test,docker", "slurm", "awsbatch"])
def test_no_step_gets_a_gpu_without_the_gpu_profile(profiles: str) -> None:
    found = settings(profiles)
    assert not any(name.endswith((".accelerator", ".containerOptions")) for name in found)
    used = {
        value for name, value in found.items() if name.startswith("process.") and name.endswith("container")
    }
    assert found["params.container_cpu"] in used and found["params.container_cuda"] not in used
    assert found["params.use_gpu"] == "null"


@pytest.mark.parametrize("profiles", PROFILES)
def test_a_profile_takes_no_steps_resources_image_or_retries_away(profiles: str) -> None:
    plain = {
        name
        for name in settings("standard")
        # Where Python is on this machine is of this machine alone.
        if re.match(r"process\.(with|container|cpus|memory|time|max)", name) and "beforeScript" not in name
    }
    assert plain <= set(settings(profiles))


@pytest.mark.parametrize("profiles", ["gpu", "test,gpu,docker", "slurm,apptainer,gpu", "awsbatch,gpu"])
def test_the_gpu_profile_gives_the_gpu_and_its_image_to_steps_that_use_one_alone(profiles: str) -> None:
    found = settings(profiles)
    gpu = under(profiles, "process.withLabel:process_gpu.")
    assert gpu["accelerator"] == "1"
    assert gpu["container"] == found["params.container_cuda"] != found["process.container"]
    assert found["params.use_gpu"] == "true"
    assert "process.accelerator" not in found and "process.containerOptions" not in found
    labelled = sorted(
        path.parent.name for path in ROOT.glob("modules/*/main.nf") if "'process_gpu'" in path.read_text()
    )
    assert labelled == ["predict", "train"]
    # for a sample that has a use for one: tests/pipeline/test_clusters.py
    assert {"accelerator", "container", "containerOptions"} <= set(
        under(profiles, "process.withName:ANNOTATION:MAP.")
    )


def test_awsbatch_sets_queues_retries_transfer_and_encryption() -> None:
    found = settings("awsbatch,gpu")
    assert found["process.executor"] == "'awsbatch'"
    assert under("awsbatch,gpu", "aws.batch.") == {
        "cliPath": "null",
        "jobRole": "null",
        "maxSpotAttempts": "3",
        "maxTransferAttempts": "3",
        "terminateUnschedulableJobs": "true",
    }
    assert found["aws.client.storageEncryption"] == "'AES256'"
    assert found["process.queue"] == (
        "{ task.accelerator && params.aws_gpu_queue ? params.aws_gpu_queue : params.aws_queue }"
    )
    assert found["process.resourceLabels"] == "[pipeline:'cellscribe', cost:'cellscribe']"
    assert limits("awsbatch,gpu") == {"cpus": "16", "memory": "'120.GB'", "time": "'24.h'"}


@pytest.mark.parametrize("profiles", ["test,docker", "test,podman", "slurm,singularity", "test,apptainer"])
def test_mlflows_credentials_reach_containers_by_name(profiles: str) -> None:
    engine = profiles.split(",")[1]
    assert settings(profiles)[f"{engine}.envWhitelist"].strip("'").split(",") == [
        f"MLFLOW_TRACKING_{word}" for word in ("USERNAME", "PASSWORD", "TOKEN")
    ]


def test_docker_gives_a_task_no_right_and_no_place_to_write_but_its_own_folder() -> None:
    options = settings("test,docker")["docker.runOptions"]
    for option in (
        "-u $(id -u):$(id -g)",
        "--read-only",
        "--cap-drop ALL",
        "--security-opt no-new-privileges",
    ):
        assert option in options
    assert '"TMPDIR=$PWD"' in options and '"HOME=$PWD"' in options


@pytest.mark.parametrize("profiles", ["test,docker", "awsbatch", "slurm,singularity,gpu"])
def test_what_speaks_to_a_registry_has_the_image_with_mlflows_client(profiles: str) -> None:
    found = under(profiles, "process.withName:RESOLVE_MODEL|FETCH_REGISTERED.")
    assert found == {"container": settings(profiles)["params.container_cpu"]}


def test_awsbatch_counts_as_containers_so_that_local_paths_are_not_looked_for_in_tasks() -> None:
    assert settings("awsbatch")["docker.enabled"] == "true"


def test_what_is_tried_again_stands_once_for_all_executors_and_as_often_as_it_is_allowed() -> None:
    plain = settings("standard")
    names = ("process.errorStrategy", "process.withLabel:per_sample.errorStrategy")
    again, others = ({plain[name].split(" ? 'retry'")[0]} for name in names)
    assert again == others and "1, 2147483647, 50001" in again.pop()
    for name in names:
        assert f"task.attempt <= {plain['process.maxRetries']} ? 'retry'" in plain[name]
    for profiles in ("slurm", "awsbatch"):
        assert {name: settings(profiles)[name] for name in (*names, "process.maxRetries")} == {
            name: plain[name] for name in (*names, "process.maxRetries")
        }


@pytest.mark.parametrize("profiles", ["standard", "slurm", "awsbatch"])
def test_a_failed_sample_is_passed_over_and_another_failure_ends_the_run(profiles: str) -> None:
    found = settings(profiles)
    asked = "? 'retry' : \"${params.on_error}\" == 'stop' ? 'terminate' : "
    assert found["process.errorStrategy"].endswith(f"{asked}'finish' }}")
    # Not one that never began: Nextflow would wait for it for ever.
    begun = "task.hash && task.workDir.resolve('.command.begin').exists() ? 'ignore' : 'finish' }"
    assert found["process.withLabel:per_sample.errorStrategy"].endswith(f"{asked}{begun}")
    assert found["workflow.failOnIgnore"] == "true"


def test_a_run_does_not_fail_for_its_cache_in_a_bucket() -> None:
    put = settings("standard")["process.withName:FETCH_MODEL.publishDir"]
    assert "failOnError:false" in put and "overwrite:true" in put


@pytest.mark.parametrize("profiles", ["docker,gpu,test", "singularity,slurm"])
def test_the_order_of_profiles_does_not_matter(profiles: str) -> None:
    assert settings(profiles) == settings(",".join(reversed(profiles.split(","))))


def test_fusion_needs_no_more_than_its_profile_beside_awsbatch() -> None:
    found = settings("awsbatch,fusion")
    assert (found["fusion.enabled"], found["wave.enabled"]) == ("true", "true")
    assert found["process.executor"] == "'awsbatch'"
    assert "fusion.enabled" not in settings("awsbatch")


def test_slurm_goes_gently_with_the_scheduler_and_lifts_the_limits_of_a_laptop() -> None:
    found = settings("slurm,singularity")
    assert found["process.executor"] == "'slurm'"
    assert found["singularity.enabled"] == "true"
    assert under("slurm,singularity", "executor.") == {
        "queueSize": "50",
        "pollInterval": "'15 sec'",
        "queueStatInterval": "'1 min'",
        "submitRateLimit": "'10/1sec'",
    }
    assert limits("slurm,singularity") == {"cpus": "16", "memory": "'120.GB'", "time": "'48.h'"}
    assert limits("standard") == {"cpus": "2", "memory": "'12.GB'", "time": "'48.h'"}


def test_arm_asks_for_the_images_of_its_processor() -> None:
    found = settings("awsbatch,arm")
    assert found["process.arch"] == "'linux/arm64'"
    assert "--platform linux/arm64" in found["process.containerOptions"]


@pytest.mark.parametrize(
    "name", ["SPLIT|CONVERT", "QC|ANNOTATE", "MAP", "PREDICT", "REPORT", "MERGE", "TRAIN"]
)
def test_memory_starts_from_the_inputs_size_and_grows_with_the_attempt(name: str) -> None:
    memory = settings("standard")[f"process.withName:{name}.memory"]
    assert ".size()" in memory and memory.endswith("* task.attempt }")


@pytest.mark.parametrize(
    "path", sorted((ROOT / "assets" / "params").glob("*.yml")), ids=lambda path: path.name
)
def test_a_ready_params_file_holds_parameters_that_pass(path: Path) -> None:
    known = parameters(SCHEMA)
    given = yaml.safe_load(path.read_text())
    assert given
    assert {
        name: problem(coerce(value, known[name]), known[name]) for name, value in given.items()
    } == dict.fromkeys(given)


def test_every_parameter_is_in_one_group_and_none_is_made_for_a_secret() -> None:
    names = [name for group in SCHEMA["$defs"].values() for name in group["properties"]]
    assert len(names) == len(set(names))
    assert not [name for name in names if re.search(r"token|secret|password|access|credential", name)]


def test_what_a_profile_has_a_default_of_its_own_for_has_none_in_the_schema() -> None:
    """The form of Seqera Platform sends the schema's defaults, which go before a profile's."""
    own = {
        name
        for profile in ("slurm", "awsbatch", "gpu")
        for name in re.findall(r"params\.(\w+) (?:\?:|=)", (ROOT / f"conf/{profile}.config").read_text())
    }
    assert {"max_cpus", "max_memory", "max_time", "use_gpu"} <= own
    assert not [name for name in own if "default" in parameters(SCHEMA)[name]]


def test_every_group_and_parameter_has_what_a_launch_form_shows() -> None:
    for group in SCHEMA["$defs"].values():
        assert group["title"] and group["description"] and group["type"] == "object"
        for name, part in group["properties"].items():
            assert part["type"] and part["description"], name
