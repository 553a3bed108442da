"""check_input.py and versions.py, as Nextflow calls them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[2]


def call(folder: Path, command: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, ROOT / "bin" / command, *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )


def check(folder: Path, params: dict[str, object], *more: str) -> subprocess.CompletedProcess[str]:
    launch = {"params": params, "launch_dir": str(folder), "project_dir": str(ROOT), "sees_paths": True}
    (folder / "launch.json").write_text(json.dumps(launch))
    return call(
        folder,
        "check_input.py",
        "--launch=launch.json",
        f"--schema={ROOT / 'nextflow_schema.json'}",
        f"--input-schema={ROOT / 'assets' / 'schema_input.json'}",
        f"--catalogue={ROOT / 'assets' / 'models.csv'}",
        "--output=samples.json",
        "--settings=settings.json",
        *more,
    )


def test_good_input_gives_samples_and_settings(tmp_path: Path) -> None:
    (tmp_path / "x.h5ad").touch()
    (tmp_path / "s.csv").write_text("sample,path\nx,x.h5ad\n")
    done = check(tmp_path, {"input": "s.csv"}, "--sheet=s.csv")
    assert done.returncode == 0, done.stderr
    (sample,) = json.loads((tmp_path / "samples.json").read_text())
    assert sample["id"] == "x"
    assert json.loads((tmp_path / "settings.json").read_text())["models"][0]["url"] == "assets/models/pbmc"


def test_bad_input_ends_with_3_and_writes_nothing(tmp_path: Path) -> None:
    done = check(tmp_path, {"input": "none.csv", "organism": "cat", "x": 1})
    assert done.returncode == 3
    assert done.stderr.startswith("error: 3 problems") and "Traceback" not in done.stderr
    assert not (tmp_path / "samples.json").exists() and not (tmp_path / "settings.json").exists()


def test_two_samples_of_one_path_are_warned_of(tmp_path: Path) -> None:
    (tmp_path / "x.h5ad").touch()
    (tmp_path / "s.csv").write_text("sample,path\nx,x.h5ad\ny,x.h5ad\n")
    done = check(tmp_path, {"input": "s.csv"}, "--sheet=s.csv")
    assert done.returncode == 0
    assert "warning: line 3: sample 'y' is read from the same path as sample 'x'" in done.stderr


def test_versions_name_what_results_depend_on(tmp_path: Path) -> None:
    done = call(
        tmp_path, "versions.py", "--nextflow-version=24.10.0", "--pipeline-version=0.1.0", "--output=v.yml"
    )
    assert done.returncode == 0, done.stderr
    found = yaml.safe_load((tmp_path / "v.yml").read_text())
    assert found["Workflow"]["Nextflow"] == "24.10.0" and found["Workflow"]["cellscribe"] == "0.1.0"
    assert {"anndata", "numpy", "scanpy", "xgboost"} <= set(found["Packages"])
