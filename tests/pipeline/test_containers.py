"""The pipeline in its own image, beside the same run without one."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pytest
from nextflow_runner import NEXTFLOW, ROOT, Launch, Run

BASE_IMAGE = "python:3.13-slim-trixie"
ENGINES = {"docker", "podman", "singularity", "apptainer", "charliecloud"}
CLOSED = ("--read-only", "--cap-drop ALL", "--security-opt no-new-privileges")
SOCKET = Path("/var/run/docker.sock")
STRANGER = 12345
# Asked for, as each needs minutes to take the image over: CELLSCRIBE_ENGINES=podman,charliecloud
ASKED = os.environ.get("CELLSCRIBE_ENGINES", "").split(",")


@pytest.mark.parametrize("engine", sorted(ENGINES))
def test_a_profile_switches_on_its_engine_and_no_other(engine: str) -> None:
    done = subprocess.run(
        [NEXTFLOW, "config", "-flat", "-profile", f"test,{engine}", ROOT],
        capture_output=True,
        text=True,
        check=True,
    )
    on = set(re.findall(r"^(\w+)\.enabled = true", done.stdout, flags=re.M))
    assert on & ENGINES == {engine}
    if engine in ("docker", "podman"):
        options = re.search(r"^\w+\.runOptions = '(.*)'$", done.stdout, flags=re.M)
        assert options and all(option in options[1] for option in CLOSED)
    assert re.search(r"^process\.container = 'cellscribe/cellscribe:\S+-run'", done.stdout, flags=re.M)
    assert re.search(r"^params\.input = '.*/assets/demo/samplesheet.csv'", done.stdout, flags=re.M)


def docker(*arguments: str, timeout: float = 60) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["docker", *arguments], capture_output=True, text=True, timeout=timeout, check=False
    )


def has_base_image() -> bool:
    if docker("image", "inspect", BASE_IMAGE).returncode == 0:
        return True
    try:
        return docker("pull", BASE_IMAGE, timeout=60).returncode == 0
    except subprocess.TimeoutExpired:
        return False


@pytest.fixture(scope="module")
def image() -> str:
    """The image of the steps without PyTorch, built from this checkout."""
    if not shutil.which("docker") or docker("info").returncode:
        pytest.skip("no Docker engine answers here")
    if not has_base_image():
        pytest.skip(f"{BASE_IMAGE} is not here and cannot be pulled")
    environment = {name: value for name, value in os.environ.items() if name not in ("REGISTRY", "ENGINE")}
    done = subprocess.run(
        [ROOT / "setup" / "images", "build", "run"],
        env=environment | {"BUILD_FLAGS": "--network host"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout.strip()


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """A launch folder of a user without rights: pytest's own folders are closed to all but who started it."""
    path = Path(tempfile.mkdtemp(prefix="cellscribe-docker-"))
    if os.geteuid() == 0:
        os.chown(path, STRANGER, STRANGER)
    yield path
    shutil.rmtree(path)


def offline() -> str:
    """The settings that docs/cloud.md gives for tasks without a network."""
    text = (
        (ROOT / "docs" / "cloud.md").read_text().split("\n## What a container may do\n")[1].split("\n## ")[0]
    )
    one, other = re.findall(r"\n\n((?:    .*\n)+)(?=\n)", text)
    assert "--network none" in one and "--network none" in other
    return str(other)


def run_confined(folder: Path, *arguments: str) -> Run:
    (folder / "confined.config").write_text(offline())
    command = [
        NEXTFLOW,
        "run",
        ROOT,
        "-ansi-log",
        "false",
        "-profile",
        "test,docker",
        "-c",
        "confined.config",
    ]
    if os.geteuid() == 0:
        groups = str(SOCKET.stat().st_gid)
        command = [
            "setpriv",
            "--reuid",
            f"{STRANGER}",
            "--regid",
            f"{STRANGER}",
            "--groups",
            groups,
            *command,
        ]
    done = subprocess.run(
        [*command, *arguments],
        cwd=folder,
        env=os.environ | {"HOME": str(folder), "NXF_HOME": str(folder / ".nextflow-home")},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=600,
        check=False,
    )
    return Run(done.returncode, done.stdout, folder / "results")


@pytest.fixture(scope="module")
def contained(image: str, folder: Path) -> Run:
    """The demo in the image, started by a user whom neither machine nor image knows."""
    return run_confined(folder)


def annotated(run: Run) -> anndata.AnnData:
    return anndata.read_h5ad(run.results / "samples/demo/demo.annotated.h5ad")


def test_an_image_checks_itself_as_any_user_without_network_on_a_read_only_root(image: str) -> None:
    confined = (
        "--rm",
        "--network",
        "none",
        "--read-only",
        "--tmpfs",
        "/tmp",
        "--user",
        f"{STRANGER}:{STRANGER}",
    )
    done = docker("run", *confined, image, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "scanpy 1." in done.stdout and "aws-cli/1." in done.stdout


def test_an_image_can_copy_files_from_a_bucket(image: str) -> None:
    copy = (
        "aws s3 cp s3://bucket/file - --no-sign-request --region eu-west-1 --endpoint-url http://127.0.0.1:9"
    )
    done = docker("run", "--rm", "--network", "none", "--env", "AWS_MAX_ATTEMPTS=1", image, *copy.split())
    assert "Could not connect to the endpoint URL" in done.stderr, "it got as far as the connection"


def test_an_image_has_no_compiler_and_no_installer_and_says_its_version(image: str) -> None:
    done = docker("run", "--rm", image, "bash", "-c", "ls -A /tmp; type -P gcc cc uv; id -u")
    assert done.stdout == "10001\n"
    label = '{{index .Config.Labels "org.opencontainers.image.version"}}'
    assert docker("image", "inspect", "--format", label, image).stdout.strip() in image


def test_the_demo_runs_in_the_image_without_rights_or_network(contained: Run) -> None:
    assert contained.returncode == 0, contained.output
    assert "Done." in contained.output
    assert {path.stat().st_uid for path in contained.results.rglob("*")} == {
        STRANGER if os.geteuid() == 0 else os.geteuid()
    }


def test_docker_and_local_runs_give_the_same_cells(contained: Run, demo: Any) -> None:
    assert_same_cells(annotated(contained), annotated(demo.run))


def assert_same_cells(inside: anndata.AnnData, outside: anndata.AnnData) -> None:
    assert list(inside.obs_names) == list(outside.obs_names)
    for column in ("cxg_cell_type_predicted", "cxg_cell_type_final"):
        assert list(inside.obs[column]) == list(outside.obs[column])
    uncertainty = "cxg_cell_type_predicted_uncertainty"
    np.testing.assert_allclose(inside.obs[uncertainty], outside.obs[uncertainty], atol=1e-4)
    for embedding in ("cxg_cell_type", "cxg_cell_type_umap"):
        np.testing.assert_allclose(inside.obsm[embedding], outside.obsm[embedding], atol=1e-4)


def test_tasks_were_run_without_network_rights_or_a_root_to_write_to(contained: Run, folder: Path) -> None:
    scripts = [path.read_text() for path in folder.glob("work/??/*/.command.run")]
    started = [line for text in scripts for line in text.splitlines() if "docker run -i" in line]
    assert len(started) == len(contained.tasks("Submitted"))
    for line in started:
        for option in ("--network none", *CLOSED):
            assert option in line


def test_an_image_lists_its_packages(image: str) -> None:
    label = '{{index .Config.Labels "cellscribe.sbom"}}'
    place = docker("image", "inspect", "--format", label, image).stdout.strip()
    listed = json.loads(docker("run", "--rm", "--network", "none", image, "cat", place).stdout)
    names = {component["purl"].split("@")[0] for component in listed["components"]}
    wanted = {"pkg:pypi/scanpy", "pkg:pypi/awscli", "pkg:generic/python", "pkg:deb/debian/procps"}
    assert listed["specVersion"] == "1.5" and wanted <= names


def test_a_task_takes_its_compiled_code_from_the_image(contained: Run, folder: Path) -> None:
    scripts = folder.glob("work/??/*/.command.sh")
    [task] = [
        script.parent for script in scripts if re.search(r"^annotate\.py", script.read_text(), flags=re.M)
    ]
    code = list((task / ".numba").rglob("*.nb?"))
    assert code
    assert [path.name for path in code if not path.is_symlink()] == [], "what was compiled anew"


def test_a_finished_run_in_the_image_is_not_run_again(contained: Run, folder: Path) -> None:
    again = run_confined(folder, "-resume")
    assert again.returncode == 0, again.output
    assert again.tasks("Submitted") == []
    assert len(again.tasks("Cached")) == len(contained.tasks("Submitted")) > 0


def load_podman(image: str, _folder: Path) -> list[str]:
    """Give Podman what Docker built; the run's arguments."""
    with subprocess.Popen(["docker", "save", image], stdout=subprocess.PIPE) as saved:
        subprocess.run(["podman", "load", "--quiet"], stdin=saved.stdout, check=True)
    return ["--container_run", f"localhost/{image}"]


def load_charliecloud(image: str, folder: Path) -> list[str]:
    """Give Charliecloud what Docker built, as a folder; the run's arguments."""
    target = folder / "image"
    user = os.environ | {"USER": "someone"}
    subprocess.run(["ch-convert", "-i", "docker", "-o", "dir", image, target], env=user, check=True)
    (target / "sys").mkdir(exist_ok=True)
    # older releases mount no writable layer over an image
    fake = "--write-fake" in subprocess.run(["ch-run", "--help"], capture_output=True, text=True).stdout
    (folder / "fake.config").write_text(f"charliecloud.writeFake = {str(fake).lower()}")
    return ["-c", "fake.config", "--container_run", str(target)]


@pytest.mark.parametrize(
    ("engine", "program", "load"),
    [("podman", "podman", load_podman), ("charliecloud", "ch-run", load_charliecloud)],
)
def test_other_engines_give_the_same_cells(
    image: str,
    demo: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    engine: str,
    program: str,
    load: Any,
) -> None:
    if engine not in ASKED or not shutil.which(program):
        pytest.skip(f"{engine} is not here, or CELLSCRIBE_ENGINES does not name it")
    monkeypatch.setenv("USER", "someone")
    run = Launch(tmp_path).run("-profile", f"test,{engine}", *load(image, tmp_path))
    assert run.returncode == 0, run.output
    assert_same_cells(annotated(run), annotated(demo.run))
