"""Traps for code that nobody should run: what Python's audit events tell while a block runs."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import CodeType
from typing import Any

COMMANDS = ("os.system", "os.exec", "os.posix_spawn", "os.spawn", "subprocess.Popen", "pty.spawn")
_seen: list[tuple[str, Any]] | None = None


def _hook(event: str, arguments: tuple[Any, ...]) -> None:
    if _seen is None:
        return
    if event in COMMANDS or event == "pickle.find_class":
        _seen.append((event, arguments))
    elif event == "exec" and isinstance(arguments[0], CodeType):
        _seen.append((event, arguments[0].co_filename))


@contextmanager
def watched() -> Iterator[list[tuple[str, Any]]]:
    """What happened in the block: commands started, names that a pickle had looked up, files whose code was run."""
    global _seen
    # A hook cannot be taken away again.
    if not getattr(sys, "_cellscribe_hook", False):
        sys.addaudithook(_hook)
        sys._cellscribe_hook = True  # type: ignore[attr-defined]
    _seen = []
    try:
        yield _seen
    finally:
        _seen = None


def run_from(seen: list[tuple[str, Any]], folder: Path) -> list[str]:
    """Code of files below `folder` that was run."""
    inside = str(folder.resolve())
    return [name for event, name in seen if event == "exec" and str(name).startswith(inside)]


def forbidden(seen: list[tuple[str, Any]]) -> list[tuple[str, Any]]:
    """Commands and unpickled names."""
    return [one for one in seen if one[0] != "exec"]
