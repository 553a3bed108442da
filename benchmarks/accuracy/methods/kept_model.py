"""A model that serves every query of one reference: made once, and what that cost is counted for each query."""

from __future__ import annotations

import json
import resource
import time


def train_once(folder, train):
    """Call `train(folder)`, which writes the model there, unless it has been written before.

    Returns what an earlier training cost, for `Exchange.finish`; nothing where it was done now, in this process, whose
    own time is measured from outside.
    """
    cost = folder.with_suffix(".json")
    if cost.is_file() and folder.is_dir():
        return json.loads(cost.read_text())
    start = time.perf_counter()
    train(folder)
    used = resource.getrusage(resource.RUSAGE_SELF)
    spent = {
        "seconds_before": time.perf_counter() - start,
        "cpu_seconds_before": used.ru_utime + used.ru_stime,
        "peak_kib_before": used.ru_maxrss,
    }
    cost.write_text(json.dumps(spent))
    return {}
