"""Passwords in parameters: refused, and left nowhere by a run that they end."""

from __future__ import annotations

import json
import subprocess

import pytest
from nextflow_runner import NEXTFLOW, Launch, files_with

SECRET = "hunter2"


def test_a_password_in_a_file_of_parameters_ends_the_run_and_is_written_nowhere(
    launch: Launch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://me:{SECRET}@127.0.0.1:9")
    given = {
        "input": f"https://me:{SECRET}@127.0.0.1:9/sheet.csv",
        "catalogue": f"https://127.0.0.1:9/models.csv?token={SECRET}",
        "model": f"models:/a/1,https://127.0.0.1:9/m.zip?X-Amz-Signature={SECRET}",
        "truth_csv": f"s3://KEY:{SECRET}@bucket/truth.csv",
        "mlflow_password": SECRET,
    }
    params = launch.write("params.json", json.dumps(given))
    run = launch.run("-params-file", "params.json")
    assert run.returncode != 0
    for name in given:
        assert f"--{name}: " in run.output
    (failure,) = run.table("summary/failures.tsv")
    assert (failure["step"], failure["exit_code"]) == ("CHECK_INPUT", "3")
    assert SECRET not in run.output
    assert files_with(SECRET.encode(), launch.folder) == [str(params)]


@pytest.mark.parametrize(
    "option", [f"--model=https://me:{SECRET}@host/m.zip", f"--input=https://host/x?sig={SECRET}"]
)
def test_one_on_the_command_line_never_reaches_nextflow(launch: Launch, option: str) -> None:
    for words in ([option], option.split("=", 1)):
        done = subprocess.run(
            [NEXTFLOW, "run", ".", *words], cwd=launch.folder, capture_output=True, text=True, check=False
        )
        assert done.returncode == 1
        assert done.stderr.startswith(f"error: {option.split('=')[0]} holds an address with")
        assert SECRET not in done.stdout + done.stderr
    done = subprocess.run(
        [NEXTFLOW, "run", ".", "--mlflow_password", SECRET],
        cwd=launch.folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr.split(":")[1]) == (1, " there is no --mlflow_password")
    assert SECRET not in done.stdout + done.stderr
    assert list(launch.folder.iterdir()) == []
