"""Environments of their own for other people's programs."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

UV = shutil.which("uv") or next(
    (str(path) for path in Path(__file__).parents[1].glob(".tools/uv/bin/uv")), None
)


def environment(folder: Path, python: str, *packages: str) -> Path:
    """The interpreter of a new environment; skips where the packages cannot be had."""
    if UV is None:
        pytest.skip("uv is not on the PATH, so no second environment can be made")
    made = subprocess.run([UV, "venv", "-q", "--python", python, folder], capture_output=True, text=True)
    if made.returncode:
        pytest.skip(f"there is no Python {python} here: {made.stderr.strip().splitlines()[-1]}")
    interpreter = folder / "bin" / "python"
    got = subprocess.run(
        [UV, "pip", "install", "-q", "--python", interpreter, *packages], capture_output=True, text=True
    )
    if got.returncode:
        pytest.skip(f"{packages} cannot be installed here: {got.stderr.strip().splitlines()[-1]}")
    return interpreter


def python_3_11() -> str:
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    found = sorted(pyenv.glob("3.11.*/bin/python"))
    return str(found[0]) if found else "3.11"
