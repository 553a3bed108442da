#!/opt/venv/bin/python
"""Imports everything that the steps use, and says in which version; fails where something is missing.

cellscribe-check [train [cuda]]
cellscribe-check schema
cellscribe-check census
"""

import importlib
import shutil
import subprocess
import sys
from importlib import metadata

# Each package of pyproject.toml by the name it is imported by.
BASE = {
    "anndata": "anndata",
    "cellxgene-ontology-guide": "cellxgene_ontology_guide.ontology_parser",
    "click": "click",
    "h5py": "h5py",
    "igraph": "igraph",
    "jinja2": "jinja2",
    "jsonschema": "jsonschema",
    "matplotlib": "matplotlib.pyplot",
    "multiqc": "multiqc",
    "numpy": "numpy",
    "pandas": "pandas",
    "pynndescent": "pynndescent",
    "pyyaml": "yaml",
    "rapidfuzz": "rapidfuzz",
    "safetensors": "safetensors.numpy",
    "scanpy": "scanpy",
    "scikit-image": "skimage.filters",
    "scikit-learn": "sklearn.linear_model",
    "scipy": "scipy.sparse",
    "threadpoolctl": "threadpoolctl",
    "tqdm": "tqdm",
    "umap-learn": "umap",
    "xgboost": "xgboost",
    "zarr": "zarr",
}
TRAIN = {
    "mlflow-skinny": "mlflow.pyfunc",
    "scvi-tools": "scvi",
    "torch": "torch",
}
# What the images with versions of their own have instead: what the step imports there.
OWN = {
    "schema": {
        "anndata": "anndata",
        "cellxgene-schema": "cellxgene_schema.validate",
        "click": "click",
        "h5py": "h5py",
        "pandas": "pandas",
        "scipy": "scipy.sparse",
    },
    "census": {
        "anndata": "anndata",
        "cellxgene-census": "cellxgene_census",
        "click": "click",
        "h5py": "h5py",
        "pandas": "pandas",
        "scipy": "scipy.sparse",
        "tiledbsoma": "tiledbsoma",
    },
}
# Nextflow's metrics need ps, its tasks bash, its files on S3 aws.
COMMANDS = ("aws", "bash", "ps")


def main() -> None:
    """Stop at what is missing."""
    own = next((OWN[word] for word in sys.argv[1:] if word in OWN), None)
    packages = own or BASE | (TRAIN if "train" in sys.argv[1:] else {})
    for package, module in packages.items():
        importlib.import_module(module)
        print(f"{package} {metadata.version(package)}")
    if "cuda" in sys.argv[1:]:
        check_cuda()
    for command in COMMANDS if own else (*COMMANDS, "multiqc"):
        if not shutil.which(command):
            raise SystemExit(f"error: there is no {command} on the PATH")
    print(subprocess.run(["aws", "--version"], check=True, capture_output=True, text=True).stdout.strip())


def check_cuda() -> None:
    """Stop at a PyTorch that was built for CPUs alone; say whether a GPU is there."""
    import torch

    if not torch.version.cuda:
        raise SystemExit("error: this PyTorch is without CUDA; build the image with TORCH_INDEX=locked")
    seen = torch.cuda.get_device_name(0) if torch.cuda.is_available() else "no GPU is seen here"
    print(f"CUDA {torch.version.cuda}: {seen}")


if __name__ == "__main__":
    main()
