"""scanpy, so that what it compiles for one process serves the next."""

from __future__ import annotations

from types import ModuleType


def import_scanpy() -> ModuleType:
    """scanpy, its compiled types named first.

    numba keeps what it compiles with the types of the arguments. Those of sparse matrices are not to be found by name
    in the module that makes them (fast-array-utils 1.5): each process takes them for new ones, compiles anew for a
    second or two, and leaves one more file. Named, they are found; but a process that does not name them ends with an
    AttributeError on what another one kept. So every use of scanpy by our steps goes through here, and code of others
    has a cache of its own (mlflow_run.py).
    """
    from importlib import import_module

    try:
        module = import_module("fast_array_utils._plugins.numba_sparse")
    except ImportError:
        return import_module("scanpy")
    for kind in getattr(module, "TYPES", ()):
        kind.__module__ = module.__name__
        setattr(module, kind.__name__, kind)
    return import_module("scanpy")
