"""Progress of long steps: a bar on a terminal, a line every tenth in a log."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from typing import TypeVar

from cellscribe.cli import log

Item = TypeVar("Item")


def progress(items: Iterable[Item], *, total: int, label: str) -> Iterator[Item]:
    """Yield from `items`, and say how far it is. `total`: how many items there are, >= 0."""
    if sys.stderr.isatty():
        from tqdm import tqdm

        yield from tqdm(items, total=total, desc=label)
        return
    said = 0
    for done, item in enumerate(items, start=1):
        yield item
        tenth = done * 10 // max(total, 1)
        if tenth > said:
            said = tenth
            log(f"{label}: {done:,} of {total:,} ({tenth * 10} %)")
