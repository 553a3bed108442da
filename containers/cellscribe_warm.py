"""Gives a task the image's compiled code and list of fonts. Runs at Python's start, by cellscribe_warm.pth.

numba and matplotlib want folders that they can write to. Each task has its own, made here of links to the files of
/opt/warm, as an image may be read-only (it always is with Singularity and Apptainer).
"""

import os
from pathlib import Path

WARM = {"NUMBA_CACHE_DIR": "/opt/warm/numba", "MPLCONFIGDIR": "/opt/warm/matplotlib"}
"""The variable that names a task's folder: what the image has for it."""


def link(source: Path, target: Path) -> None:
    """Make `target` of links to the files below `source`; nothing where it is there already."""
    if target.exists():
        return
    for folder, _, names in source.walk():
        mine = target / folder.relative_to(source)
        mine.mkdir(parents=True, exist_ok=True)
        for name in names:
            try:
                (mine / name).symlink_to(folder / name)
            except FileExistsError:  # another process of this task made it
                continue


def give(environment: dict[str, str]) -> None:
    """Fill each folder that the environment names. Without it all goes on, more slowly."""
    for variable, source in WARM.items():
        if environment.get(variable) and Path(source).is_dir():
            try:
                link(Path(source), Path(environment[variable]))
            except OSError:
                continue


give(dict(os.environ))
