"""How a run was started, and which of the paths given there lead anywhere."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cellscribe.io import read_json
from cellscribe.places import absolute, is_uri
from cellscribe.problems import Problems
from cellscribe.schema import shown


@dataclass(frozen=True)
class Launch:
    """What Nextflow knows and a task does not.

    `sees_paths`: whether a task sees the launch folder's files, as it does not in a container. `tracking_uri`: what
    MLFLOW_TRACKING_URI says there.
    """

    params: dict[str, Any]
    launch_dir: str
    project_dir: str
    sees_paths: bool
    tracking_uri: str = ""

    @classmethod
    def read(cls, path: Path) -> Launch:
        """From the JSON that main.nf writes."""
        value = read_json(path)
        return cls(
            value["params"],
            value["launch_dir"],
            value["project_dir"],
            bool(value["sees_paths"]),
            value.get("tracking_uri") or "",
        )

    def visible(self) -> bool:
        """Whether a path that is not here is nowhere."""
        return self.sees_paths and Path(self.launch_dir).is_dir()


def existing_files(name: str, given: Iterable[str], launch: Launch, problems: Problems) -> list[str]:
    """The files of a parameter that are not empty; one that is nowhere, or a folder, is noted."""
    paths = [absolute(part.strip(), launch.launch_dir) for part in given if part.strip()]
    for path in paths:
        if is_uri(path) or not launch.visible():
            continue
        if not is_there(path):
            problems.add(f"--{name}: {shown(path)} does not exist")
        elif Path(path).is_dir():
            problems.add(f"--{name}: {shown(path)} is a folder; give a file")
    return paths


def possible_places(
    path: str,
    folders: Iterable[str],
    where: str,
    launch: Launch,
    problems: Problems,
    *,
    is_file: bool = False,
) -> list[str]:
    """Where a path of a sheet may lie; one that is in none of these is noted. is_file: it must be no folder."""
    folders = list(folders)
    paths = [absolute(path, folder) for folder in folders]
    if launch.visible():
        there = next((place for place in paths if is_uri(place) or is_there(place)), None)
        if there is None:
            looked = "" if len(paths) == 1 else f" (looked in {' and in '.join(folders)})"
            problems.add(f"{where}: {shown(path)} does not exist{looked}")
        elif is_file and not is_uri(there) and Path(there).is_dir():
            problems.add(f"{where}: {shown(path)} is a folder; give a file")
    return list(dict.fromkeys(paths))


def is_there(path: str) -> bool:
    """Whether something is at a path; a name that no disk can hold is nowhere."""
    try:
        return Path(path).exists()
    except (OSError, ValueError):
        return False
