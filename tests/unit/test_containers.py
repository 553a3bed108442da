"""The recipe of the images, what it puts into them, and the script that builds them."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]
RECIPE = (ROOT / "containers" / "Dockerfile").read_text()
OWN_RECIPE = (ROOT / "containers" / "Dockerfile.own").read_text()
TARGETS = ("run", "cpu", "cuda")
OWN = ("schema", "census")


def load(name: str) -> ModuleType:
    path = ROOT / "containers" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(f"containers_{name}", path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def stage(name: str, recipe: str = RECIPE) -> str:
    found = re.search(rf"^FROM \S+ AS {name}\n(.*?)(?=^FROM |\Z)", recipe, flags=re.M | re.S)
    assert found, name
    return found[0]


def names(requirements: list[str]) -> set[str]:
    return {re.split(r"[<>=]", requirement)[0] for requirement in requirements}


def test_the_check_of_an_image_imports_every_package_that_the_project_names() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    check = load("check")
    assert set(check.BASE) == names(project["project"]["dependencies"])
    assert set(check.TRAIN) == names(project["dependency-groups"]["train"])


@pytest.mark.parametrize("target", TARGETS)
def test_an_image_has_no_builder_below_it_runs_as_nobody_special_and_is_checked(target: str) -> None:
    text = stage(target)
    assert text.startswith("FROM base " if target == "run" else "FROM system ")
    assert stage("base").startswith("FROM system ")
    assert "USER 10001:10001\n" in text
    assert re.search(r"USER .*\n(.*\n)*RUN cellscribe-check\b", text), "the check runs as the user"
    for label in ("title", "description", "licenses", "version", "revision"):
        assert f"org.opencontainers.image.{label}=" in text
    assert not re.search(r"apt-get|pip|uv ", text)


@pytest.mark.parametrize("target", TARGETS)
def test_an_image_copies_only_from_stages_that_stand_before_it(target: str) -> None:
    before = RECIPE.split(f" AS {target}\n")[0]
    sources = re.findall(r"COPY --from=(\S+)", stage(target))
    assert sources
    for source in sources:
        assert f" AS {source}\n" in before


def test_everything_is_installed_in_locked_versions_with_hashes() -> None:
    assert "uv sync --quiet --frozen" in stage("builder-run")
    assert "--require-hashes" in stage("builder")


@pytest.mark.parametrize("name", ["aws", *OWN])
def test_a_lock_file_has_a_hash_for_every_package(name: str) -> None:
    lines = (ROOT / "containers" / f"{name}.txt").read_text().splitlines()
    pins = [line for line in lines if line and not line.startswith(("#", " "))]
    assert pins and all(re.match(r"[a-z0-9-]+(\[\w,]+\])?==\S+ .*\\$", line) for line in pins)
    assert all(
        re.search(rf"^{re.escape(pin)}\n    --hash=sha256:", "\n".join(lines), flags=re.M) for pin in pins
    )


def test_the_images_of_other_versions_have_the_same_base_install_with_hashes_and_run_as_nobody_special() -> (
    None
):
    base = stage("system").split("# Code compiled")[0]
    assert base.strip() == stage("system", OWN_RECIPE).split("\n\n\n")[0].strip()
    assert stage("builder", OWN_RECIPE).count("--require-hashes") == 2
    own = stage("own", OWN_RECIPE)
    assert re.search(r"USER 10001:10001\n(.*\n)*RUN cellscribe-check\b", own)
    assert not re.search(r"apt-get|pip|uv ", own)
    assert set(load("check").OWN) == set(OWN)


def test_the_images_that_nextflow_asks_for_are_those_that_are_built() -> None:
    config = (ROOT / "nextflow.config").read_text()
    version = re.search(r"version +?= '(.*)'", config)
    assert version
    for target in (*TARGETS, *OWN):
        assert re.search(rf"container_{target} += 'cellscribe/cellscribe:{version[1]}-{target}'", config)


@pytest.fixture
def warm_files(tmp_path: Path) -> Path:
    folder = tmp_path / "image" / "umap_0123"
    folder.mkdir(parents=True)
    (folder / "layouts.nbi").write_text("index")
    return tmp_path / "image"


def test_a_task_finds_the_images_compiled_code_in_its_own_folder(warm_files: Path, tmp_path: Path) -> None:
    mine = tmp_path / "task" / ".numba"
    load("cellscribe_warm").link(warm_files, mine)
    assert (mine / "umap_0123" / "layouts.nbi").read_text() == "index"


def test_what_a_task_writes_there_leaves_the_image_alone(warm_files: Path, tmp_path: Path) -> None:
    mine = tmp_path / "task" / ".numba"
    load("cellscribe_warm").link(warm_files, mine)
    # as numba does: a new file, put into the place of the old one
    (mine / "umap_0123" / "new").write_text("more")
    (mine / "umap_0123" / "new").replace(mine / "umap_0123" / "layouts.nbi")
    assert (mine / "umap_0123" / "layouts.nbi").read_text() == "more"
    assert (warm_files / "umap_0123" / "layouts.nbi").read_text() == "index"


def test_a_folder_that_is_there_already_is_left_as_it_is(warm_files: Path, tmp_path: Path) -> None:
    (tmp_path / "kept").mkdir()
    load("cellscribe_warm").link(warm_files, tmp_path / "kept")
    assert list((tmp_path / "kept").iterdir()) == []


def test_a_folder_that_cannot_be_made_stops_nothing(
    warm_files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = load("cellscribe_warm")
    monkeypatch.setattr(module, "WARM", {"NUMBA_CACHE_DIR": str(warm_files)})
    (tmp_path / "file").write_text("")
    module.give({"NUMBA_CACHE_DIR": str(tmp_path / "file" / "numba")})
    module.give({"NUMBA_CACHE_DIR": str(tmp_path / "fine")})
    assert (tmp_path / "fine" / "umap_0123" / "layouts.nbi").is_symlink()


def images(
    tmp_path: Path, *arguments: str, engine: str = 'echo "$@" >> "$CALLS"', **environment: str
) -> tuple:
    """setup/images with an engine that writes its arguments down: the process, and those arguments."""
    program = tmp_path / "bin" / "docker"
    program.parent.mkdir(exist_ok=True)
    program.write_text(f"#!/bin/sh\n{engine}\n")
    program.chmod(0o755)
    calls = tmp_path / "calls"
    done = subprocess.run(
        [ROOT / "setup" / "images", *arguments],
        env={"PATH": f"{program.parent}:{os.environ['PATH']}", "CALLS": str(calls), **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    return done, [line for line in calls.read_text().splitlines() if line != "info"] if calls.exists() else []


def test_images_are_named_after_registry_version_and_target(tmp_path: Path) -> None:
    done, calls = images(tmp_path, "build", "run", "cpu", REGISTRY="registry.example/team")
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    built = [f"registry.example/team/cellscribe:{version}-{target}" for target in ("run", "cpu")]
    assert done.stdout.split() == built
    for call, name, target in zip(calls, built, ("run", "cpu"), strict=True):
        assert f"--target {target} --tag {name} " in call
        assert f"VERSION={version} " in call


def test_an_image_of_other_versions_is_built_by_its_own_recipe(tmp_path: Path) -> None:
    _, [schema] = images(tmp_path, "build", "schema")
    assert "--file containers/Dockerfile.own --target own --build-arg NAME=schema --tag " in schema


def test_the_index_of_torch_and_flags_of_the_engine_are_passed_on(tmp_path: Path) -> None:
    _, [plain] = images(tmp_path, "build", "cpu")
    assert "TORCH_INDEX" not in plain and "--network" not in plain
    (tmp_path / "calls").unlink()
    _, [given] = images(
        tmp_path, "build", "cpu", TORCH_INDEX="https://example.org/cpu", BUILD_FLAGS="--network host"
    )
    assert "--build-arg TORCH_INDEX=https://example.org/cpu" in given
    assert "--network host ." in given


def test_the_image_for_gpus_is_made_with_cuda_whatever_index_the_other_one_has(tmp_path: Path) -> None:
    _, [cpu, cuda] = images(tmp_path, "build", "cpu", "cuda", TORCH_INDEX="https://example.org/cpu")
    assert "TORCH_INDEX=https://example.org/cpu" in cpu
    assert "TORCH_INDEX=locked" in cuda and "example.org" not in cuda
    assert "RUN cellscribe-check train cuda " in stage("cuda"), "it stops at a PyTorch without CUDA"


def test_push_sends_what_build_made(tmp_path: Path) -> None:
    built, _ = images(tmp_path, "build", "run", REGISTRY="registry.example/team")
    (tmp_path / "calls").unlink()
    pushed, calls = images(tmp_path, "push", "run", REGISTRY="registry.example/team")
    assert pushed.returncode == 0
    assert calls == [f"push {built.stdout.strip()}"]


@pytest.mark.parametrize(
    ("arguments", "engine", "environment", "told"),
    [
        (["build", "gpu"], "exit 0", {}, "there is no image 'gpu'"),
        (["build"], "exit 0", {}, "usage: setup/images"),
        (["build", "run"], "exit 1", {}, "docker is installed but does not answer"),
        (["build", "run"], "exit 0", {"ENGINE": "no-such-engine"}, "no-such-engine is not here"),
    ],
)
def test_what_cannot_be_built_is_told_with_its_reason(
    tmp_path: Path, arguments: list[str], engine: str, environment: dict[str, str], told: str
) -> None:
    done, calls = images(tmp_path, *arguments, engine=engine, **environment)
    assert done.returncode == 1
    assert told in done.stderr
    assert calls == []


def test_a_failed_build_fails_the_command(tmp_path: Path) -> None:
    done, _ = images(tmp_path, "build", "run", engine='[ "$1" = info ]')
    assert done.returncode != 0
    assert done.stdout == ""


def test_the_check_fails_where_a_package_or_a_command_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    check = load("check")
    monkeypatch.setattr(sys, "argv", ["cellscribe-check"])
    monkeypatch.setattr(check, "BASE", {"click": "click", "no-such-package": "no_such_package"})
    with pytest.raises(ModuleNotFoundError, match="no_such_package"):
        check.main()
    monkeypatch.setattr(check, "BASE", {"click": "click"})
    monkeypatch.setattr(check, "COMMANDS", ("bash", "no-such-command"))
    with pytest.raises(SystemExit, match="there is no no-such-command on the PATH"):
        check.main()


def test_every_image_lists_what_is_in_it_before_it_gives_up_its_rights() -> None:
    for text in (*map(stage, TARGETS), stage("own", OWN_RECIPE)):
        assert re.search(r"RUN python -S /opt/venv/bin/cellscribe-sbom > (\S+)\nUSER 10001", text)
        assert 'cellscribe.sbom="/opt/sbom.cdx.json"' in text
    for recipe in (RECIPE, OWN_RECIPE):
        assert "COPY containers/sbom.py /opt/venv-extra/bin/cellscribe-sbom\n" in recipe


def test_the_list_of_an_image_names_each_package_once_with_its_version() -> None:
    from importlib import metadata

    listed = load("sbom").inventory((sys.prefix, sys.prefix))
    references = [component["bom-ref"] for component in listed["components"]]
    assert references == sorted(set(references))
    for name in ("numpy", "h5py", "click"):
        assert f"pkg:pypi/{name}@{metadata.version(name)}" in references
    assert any(reference.startswith("pkg:generic/python@3.") for reference in references)
    if Path("/var/lib/dpkg/status").exists():
        assert any(reference.startswith("pkg:deb/debian/bash@") for reference in references)


def audit(tmp_path: Path, answer: str) -> tuple[subprocess.CompletedProcess[str], list[str]]:
    """setup/audit with a uv that exports one line, and answers for pip-audit as a shell would."""
    uv = tmp_path / "uv"
    uv.write_text(
        '#!/bin/sh\ncase "$1" in --version) echo uv 0.13.9 ;; export) echo a==1 ;;\n'
        f'tool) echo "$@" >> "{tmp_path}/calls"\n{answer} ;; esac\n'
    )
    uv.chmod(0o755)
    done = subprocess.run(
        [ROOT / "setup" / "audit"],
        env={"PATH": f"{tmp_path}:{Path(sys.executable).parent}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=False,
    )
    return done, (tmp_path / "calls").read_text().splitlines()


def test_the_audit_asks_for_every_lock_and_ends_well_only_where_all_answers_are_good(tmp_path: Path) -> None:
    good, calls = audit(tmp_path, "true")
    assert good.returncode == 0, good.stderr
    asked = {Path(call.split("--requirement ")[1]).name for call in calls}
    assert asked == {"uv.lock.txt", *(path.name for path in (ROOT / "containers").glob("*.txt"))}
    assert all("--strict" in call and "--require-hashes" in call for call in calls)
    bad, _ = audit(tmp_path, 'case "$*" in *census*) exit 1 ;; esac')
    assert bad.returncode == 1 and "could not be asked" in bad.stderr
    assert "No locked version" not in bad.stderr


def test_the_software_of_the_lock_is_listed(tmp_path: Path) -> None:
    uv = tmp_path / "uv"
    uv.write_text(
        '#!/bin/sh\n[ "$1" = --version ] && echo uv 0.13.9 && exit\n'
        'for word in "$@"; do case "$word" in dist/*) echo "{}" > "$word" ;; cyclonedx1.5) kind=1 ;; esac; done\n'
        '[ "$kind" = 1 ]\n'
    )
    uv.chmod(0o755)
    root = tmp_path / "clone"
    (root / "setup").mkdir(parents=True)
    for name in ("sbom", "lib.sh", "get-uv"):
        (root / "setup" / name).symlink_to(ROOT / "setup" / name)
    (root / "nextflow.config").symlink_to(ROOT / "nextflow.config")
    done = subprocess.run(
        [root / "setup" / "sbom"],
        env={"PATH": f"{tmp_path}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=False,
    )
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert done.stdout == f"dist/cellscribe-{version}.cdx.json\n", done.stderr
    assert (root / done.stdout.strip()).read_text() == "{}\n"
