"""What each program says: seconds of its parts by the clock, as one line of JSON on standard output."""

import json
import sys
import time
from contextlib import contextmanager

times = {}


@contextmanager
def timed(what):
    """Seconds of a part."""
    start = time.perf_counter()
    yield
    times[what] = round(time.perf_counter() - start, 3)


def finish(**more):
    """Say it."""
    json.dump({**times, **more}, sys.stdout)
    print()
