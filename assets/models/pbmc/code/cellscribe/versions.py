"""The versions of everything that made a result."""

from __future__ import annotations

import platform
from importlib import metadata

PACKAGES = (
    "anndata",
    "cellxgene-ontology-guide",
    "h5py",
    "igraph",
    "jinja2",
    "matplotlib",
    "multiqc",
    "numpy",
    "pandas",
    "pynndescent",
    "scanpy",
    "scikit-image",
    "scikit-learn",
    "scipy",
    "scvi-tools",
    "torch",
    "umap-learn",
    "xgboost",
)
"""What results depend on. Those that are not installed (torch, where nothing is trained) are left out."""


def versions(nextflow: str, pipeline: str) -> dict[str, dict[str, str]]:
    """Group to name to version: the pipeline and what runs it, then the packages."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return {
        "Workflow": {"cellscribe": pipeline, "Nextflow": nextflow, "Python": platform.python_version()},
        "Packages": found,
    }
