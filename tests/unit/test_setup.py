"""The set-up on machines that lack things: each test has a PATH of its own, with only what it names."""

import importlib.util
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TOOLS = ["bash", "cat", "chmod", "cksum", "cp", "cut", "dirname", "env", "find"]
TOOLS += ["head", "make", "mkdir", "mv", "rm", "sed", "tail", "awk"]


class Machine:
    """A copy of the project in a folder with a space in its name, and a PATH that is empty at first."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / "a clone"
        self.bin = folder / "bin"
        self.home = folder / "home"
        self.bin.mkdir()
        self.home.mkdir()
        shutil.copytree(ROOT / "setup", self.root / "setup", ignore=shutil.ignore_patterns("__pycache__"))
        for name in ("Makefile", "pyproject.toml", "uv.lock"):
            shutil.copy(ROOT / name, self.root)
        for tool in TOOLS:
            found = shutil.which(tool)
            assert found, tool
            (self.bin / tool).symlink_to(found)

    def program(self, name: str, script: str, folder: Path | None = None) -> Path:
        path = (folder or self.bin) / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)
        return path

    def python(self, name: str, folder: Path | None = None) -> Path:
        """A shim, as version managers make them, of the Python that runs the tests."""
        return self.program(name, f'exec "{sys.executable}" "$@"', folder)

    def run(self, *command: str, cwd: Path | None = None, **env: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command,
            cwd=cwd or self.root,
            env={"PATH": str(self.bin), "HOME": str(self.home), **env},
            capture_output=True,
            text=True,
            timeout=60,
        )

    def ask(self, function: str, **env: str) -> subprocess.CompletedProcess[str]:
        return self.run("bash", "-c", f". setup/lib.sh; {function}", **env)


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def test_make_alone_lists_every_target(machine: Machine) -> None:
    listed = machine.run("make")
    assert listed.returncode == 0, listed.stderr
    targets = re.search(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert targets
    assert [line.split()[1] for line in listed.stdout.splitlines()] == targets.group(1).split()


# -- Python


def test_a_fitting_python_is_found_behind_a_shim(machine: Machine) -> None:
    machine.program("python3", "exit 1")
    machine.python("python3.13")
    found = machine.run("setup/find-python")
    assert found.stdout.strip() == sys.executable


def test_the_python_that_the_user_names_comes_first(machine: Machine) -> None:
    machine.program("python3.13", "echo /wrong")
    named = machine.python("mine", machine.home)
    assert machine.run("setup/find-python", PYTHON=str(named)).stdout.strip() == sys.executable


def test_a_named_python_that_does_not_fit_is_said_and_another_is_used(machine: Machine) -> None:
    machine.python("python3.12")
    found = machine.run("setup/find-python", PYTHON="python2.7")
    assert found.stdout.strip() == sys.executable
    assert "PYTHON=python2.7 is not a working Python >=3.12,<3.14" in found.stderr


@pytest.mark.parametrize("where", ["", "elsewhere"])
def test_pyenvs_versions_are_looked_at(machine: Machine, where: str) -> None:
    pyenv = machine.home / (where or ".pyenv")
    machine.program("python3", "exit 1")
    machine.program("python", "echo /wrong", pyenv / "versions" / "3.11.7" / "bin")
    machine.python("python", pyenv / "versions" / "3.12.1" / "bin")
    found = machine.run("setup/find-python", **({"PYENV_ROOT": str(pyenv)} if where else {}))
    assert found.stdout.strip() == sys.executable


def test_without_a_fitting_python_the_message_says_what_is_here_and_what_to_do(machine: Machine) -> None:
    machine.program("python3", '[ "$1" = --version ] && echo Python 3.9.2 || exit 1')
    machine.program("uv", 'case "$1" in --version) echo uv 0.13.9;; *) exit 2;; esac')
    found = machine.run("setup/find-python")
    assert found.returncode == 1
    assert found.stdout == ""
    assert "cellscribe needs Python >=3.12,<3.14; here is Python 3.9.2" in found.stderr
    assert "make demo PYTHON=/path/to/python3.13" in found.stderr


def test_uv_brings_a_python_only_where_none_fits(machine: Machine) -> None:
    log = machine.home / "asked"
    shim = machine.python("shim", machine.home)
    machine.program(
        "uv",
        f"""echo "$*" >>'{log}'
case "$1 $2" in
  --version*) echo uv 0.13.9;;
  "python install") mkdir -p .tools/python/3.13/bin; cp '{shim}' .tools/python/3.13/bin/python3;;
  *) exit 2;;
esac""",
    )
    found = machine.run("setup/find-python")
    assert found.stdout.strip() == sys.executable, found.stderr
    assert "python install" in log.read_text()
    log.unlink()
    machine.python("python3")
    assert machine.run("setup/find-python").stdout.strip() == sys.executable
    assert not log.exists()


# -- uv and .venv


def test_the_paths_uv_is_used_where_it_is_new_enough(machine: Machine) -> None:
    uv = machine.program("uv", "echo uv 0.13.9")
    assert machine.run("setup/get-uv").stdout.strip() == str(uv)


@pytest.mark.parametrize("venv_works", [True, False], ids=["venv", "pip only"])
def test_uv_is_brought_with_pip_where_it_is_missing_or_too_old(machine: Machine, venv_works: bool) -> None:
    machine.program("uv", "echo uv 0.4.1")
    target = machine.root / ".tools" / "uv"
    brought = machine.program("brought", "echo uv 0.13.9", machine.home)
    machine.program(
        "python3",
        f"""case "$1 $2" in
  "-m venv") {"true" if venv_works else "exit 1"}; mkdir -p '{target}/bin'; cp "$0" '{target}/bin/python';;
  "-m pip") mkdir -p '{target}/bin'; cp '{brought}' '{target}/bin/uv';;
esac""",
    )
    found = machine.run("setup/get-uv")
    assert found.stdout.strip() == str(target / "bin" / "uv"), found.stderr


def test_where_uv_cannot_be_brought_the_message_says_what_to_install(machine: Machine) -> None:
    machine.program("python3", "[ \"$1\" = -c ] && exit 0; echo 'no network' >&2; exit 1")
    found = machine.run("setup/get-uv")
    assert found.returncode == 1
    assert "no network" in found.stderr
    assert "apt install python3-venv" in found.stderr


def test_the_venv_is_made_again_only_when_the_lock_changes(machine: Machine) -> None:
    log = machine.home / "asked"
    shim = machine.python("python3")
    machine.program(
        "uv",
        f"""[ "$1" = --version ] && {{ echo uv 0.13.9; exit 0; }}
echo "$*" >>'{log}'; mkdir -p .venv/bin; cp '{shim}' .venv/bin/python""",
    )

    def asked(kind: str) -> list[str]:
        log.unlink(missing_ok=True)
        made = machine.run("setup/make-venv", kind)
        assert made.returncode == 0, made.stderr
        return log.read_text().splitlines() if log.exists() else []

    first = asked("base")
    assert len(first) == 1
    assert "sync --frozen" in first[0]
    assert "--inexact" in first[0]
    assert "--all-groups" not in first[0]
    assert asked("base") == []
    assert "--all-groups" in asked("all")[0]
    assert asked("base") == [], "a full .venv has what the demo needs"
    with (machine.root / "uv.lock").open("a") as file:
        file.write("\n")
    assert len(asked("base")) == 1
    assert len(asked("all")) == 1


# -- Nextflow and Java


@pytest.mark.parametrize(
    ("needed", "version", "enough"),
    [
        ("24.10", "24.10.0", True),
        ("24.10", "24.10", True),
        ("24.10", "25.04.4", True),
        ("24.10", "24.09.9", False),
        ("24.10", "23.10.1", False),
        ("0.7", "0.13.9", True),
        ("0.7", "0.08.1", True),
        ("24.10", "", False),
    ],
)
def test_versions_are_compared_as_numbers(machine: Machine, needed: str, version: str, enough: bool) -> None:
    assert (machine.ask(f"at_least {needed} '{version}'").returncode == 0) is enough


@pytest.mark.parametrize(
    ("version", "fits"),
    [("1.8.0_292", False), ("11.0.2", False), ("17.0.15", True), ("21", True), ("25.0.2", False)],
)
def test_only_a_java_that_nextflow_runs_on_is_taken(machine: Machine, version: str, fits: bool) -> None:
    machine.program("java", f"echo 'openjdk version \"{version}\" 2025-04-15' >&2")
    assert (machine.ask("find_java").returncode == 0) is fits


def test_java_home_comes_before_the_path_where_it_fits(machine: Machine) -> None:
    other = machine.program("java", "echo 'openjdk version \"17.0.1\"' >&2")
    good = machine.program("java", "echo 'openjdk version \"21.0.1\"' >&2", machine.home / "21" / "bin")
    machine.program("java", "echo 'openjdk version \"25.0.1\"' >&2", machine.home / "25" / "bin")
    assert machine.ask("find_java", JAVA_HOME=str(machine.home / "21")).stdout.strip() == str(good)
    assert machine.ask("find_java", JAVA_HOME=str(machine.home / "25")).stdout.strip() == str(other)


NEXTFLOW = 'if [ "$1" = -version ]; then echo "version {} build 1"; else echo "$PATH"; printf "%s|" "$@"; fi'


def test_the_paths_nextflow_is_used_from_any_folder_with_the_venv_first(machine: Machine) -> None:
    machine.program("nextflow", NEXTFLOW.format("25.04.4"))
    made = machine.run("make", "nextflow")
    launcher = machine.root / ".tools" / "bin" / "nextflow"
    assert made.stdout.strip() == str(launcher), made.stderr
    # With the launcher itself first on the PATH, it must not start itself.
    path = f"{launcher.parent}:{machine.bin}"
    for _ in range(2):
        assert machine.run("setup/get-nextflow", PATH=path).stdout.strip() == str(launcher)
    started = machine.run(str(launcher), "run", "a b", "*", cwd=machine.home, PATH=path)
    where, arguments = started.stdout.split("\n", 1)
    assert where.startswith(f"{machine.root}/.venv/bin:")
    assert arguments == "run|a b|*|"
    for secret in ("https://me:hunter2@host/x.h5ad", "https://host/x.h5ad?X-Amz-Signature=hunter2"):
        refused = machine.run(str(launcher), "run", ".", "--input", secret, cwd=machine.home, PATH=path)
        assert (refused.returncode, refused.stdout) == (1, ""), "Nextflow's log would keep it"
        assert "--input holds an address" in refused.stderr and "hunter2" not in refused.stderr


def test_an_old_nextflow_is_said_and_not_used(machine: Machine) -> None:
    machine.program("nextflow", NEXTFLOW.format("23.10.1"))
    machine.program("java", "echo 'openjdk version \"17.0.1\"' >&2")
    machine.python("python3")
    machine.program("uv", '[ "$1" = --version ] && echo uv 0.13.9 || exit 7')
    made = machine.run("setup/get-nextflow")
    assert "nextflow is 23.10.1; cellscribe needs Nextflow 24.10 or later" in made.stderr
    assert "Bringing Nextflow 24.10.0" in made.stderr
    assert made.returncode == 7
    assert not (machine.root / ".tools" / "bin" / "nextflow").exists()


def test_java_is_brought_only_where_none_fits(machine: Machine) -> None:
    log = machine.home / "asked"
    machine.python("python3")
    machine.program("uv", f"""[ "$1" = --version ] && echo uv 0.13.9 || {{ echo "$*" >>'{log}'; exit 7; }}""")
    machine.run("setup/get-nextflow")
    assert "java.txt" in log.read_text()
    log.unlink()
    machine.program("java", "echo 'openjdk version \"17.0.1\"' >&2")
    machine.run("setup/get-nextflow")
    assert "java.txt" not in log.read_text()
    assert "jgo.txt" in log.read_text()


def test_the_brought_launcher_says_what_to_do_when_something_is_gone(machine: Machine) -> None:
    started = machine.run(str(machine.root / "setup" / "run-nextflow"), "-version", cwd=machine.home)
    assert started.returncode == 1
    assert "Run: make nextflow" in started.stderr


def test_the_brought_launcher_starts_java_with_the_users_options(machine: Machine) -> None:
    (machine.root / ".tools" / "nextflow").mkdir(parents=True)
    (machine.root / ".tools" / "nextflow" / "nextflow-24.10.0.jar").touch()
    machine.program(
        "java",
        """[ "$1" = -version ] && { echo 'openjdk version "17.0.1"' >&2; exit 0; }
echo "$NXF_OFFLINE|$NXF_HOME|$NXF_CLI"; printf '%s\\n' "$@\"""",
    )
    launcher = str(machine.root / "setup" / "run-nextflow")
    started = machine.run(
        launcher, "run", "a b", cwd=machine.home, NXF_OPTS="-Xmx2g -Da=b", NXF_JVM_ARGS="-Dc=d"
    )
    environment, *options = started.stdout.splitlines()
    assert environment == f"true|{machine.root}/.tools/nextflow-home|nextflow run a b"
    assert (machine.root / ".tools" / "nextflow-home").is_dir(), "of two first runs neither is to make it"
    assert options.index("-Xmx1g") < options.index("-Xmx2g"), "the last one counts"
    assert {"-Da=b", "-Dc=d", "--add-opens=java.base/java.lang=ALL-UNNAMED"} <= set(options)
    assert options[-4:] == [
        f"{machine.root}/.tools/nextflow/nextflow-24.10.0.jar:",
        "nextflow.cli.Launcher",
        "run",
        "a b",
    ]
    (machine.home / "file").touch()
    refused = machine.run(launcher, "run", cwd=machine.home, NXF_HOME=str(machine.home / "file" / "home"))
    assert refused.returncode == 1
    assert f"cannot make the folder {machine.home}/file/home" in refused.stderr


def fetch_nextflow():
    specification = importlib.util.spec_from_file_location(
        "fetch_nextflow", ROOT / "setup" / "fetch_nextflow.py"
    )
    assert specification
    assert specification.loader
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


def test_every_jar_of_nextflow_is_locked_by_its_sha256() -> None:
    locked = fetch_nextflow().locked()
    assert "io.nextflow:nextflow:24.10.0" in locked
    assert len(locked) == 54
    assert all(re.fullmatch(r"[0-9a-f]{64}", digest) for digest in locked.values())


def test_changed_missing_and_foreign_jars_are_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = fetch_nextflow()
    for name in ("good-1.jar", "changed-1.jar"):
        (tmp_path / name).write_text(name)
    digest = module.sha256(tmp_path / "good-1.jar")
    monkeypatch.setattr(module, "locked", lambda: {"org:good:1": digest})
    assert module.wrong(tmp_path) == ["changed-1.jar"]
    monkeypatch.setattr(
        module, "locked", lambda: {"org:good:1": digest, "org:changed:1": digest, "org:gone:1": digest}
    )
    assert module.wrong(tmp_path) == ["changed-1.jar", "gone-1.jar"]


def test_the_setup_names_no_folder_of_one_machine() -> None:
    one_machine = re.compile(r"(?<![\w.$}])/(home|root|work|opt|Users|usr)/(?!bin/env)")
    for script in [*(ROOT / "setup").glob("*"), ROOT / "Makefile", ROOT / ".ci" / "run"]:
        if script.is_file():
            assert not one_machine.search(script.read_text()), script
