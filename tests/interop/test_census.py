"""References from a small Census on this disk, read by the real cellxgene-census, and a model trained on one."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pandas as pd
import pytest
from environments import environment

LUNG = "tissue_general == 'lung' and is_primary_data == True"


@pytest.fixture(scope="module")
def census_python(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    lock = root / "containers" / "census.txt"
    folder = tmp_path_factory.mktemp("census") / "env"
    return environment(folder, sys.executable, "--require-hashes", "-r", str(lock))


@pytest.fixture(scope="module")
def census(root: Path, census_python: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("soma") / "census"
    subprocess.run([census_python, root / "tests" / "soma_census.py", folder], check=True)
    return folder


def fetch(root: Path, python: Path, folder: Path, **query: Any) -> subprocess.CompletedProcess[str]:
    folder.mkdir(exist_ok=True)
    (folder / "query.json").write_text(json.dumps(query))
    outputs = {"output": "reference.h5ad", "held-out": "held_out.h5ad", "summary": "reference.json"}
    options = [part for name, file in outputs.items() for part in (f"--{name}", folder / file)]
    return subprocess.run(
        [python, root / "bin" / "census.py", "--query", folder / "query.json", *options],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


@pytest.fixture(scope="module")
def fetched(root: Path, census_python: Path, census: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("fetched")
    query = {"filter": LUNG, "uri": str(census), "cells_per_type": 120, "holdout_donors": 1}
    done = fetch(root, census_python, folder, **query)
    assert done.returncode == 0, done.stderr
    return folder


def test_the_reference_holds_the_censuss_own_counts_of_cells_that_match(fetched: Path, census: Path) -> None:
    adata = anndata.read_h5ad(fetched / "reference.h5ad")
    obs = pd.read_csv(census / "obs.csv")
    counts = np.load(census / "counts.npz")["counts"]
    rows = adata.obs_names.astype(int)
    np.testing.assert_array_equal(adata.X.toarray(), counts[rows])
    assert adata.X.format == "csr" and adata.X.dtype == np.float32
    source = obs.iloc[rows]
    assert (source["tissue_general"] == "lung").all() and source["is_primary_data"].all()
    for name in ("cell_type", "cell_type_ontology_term_id", "donor_id", "dataset_id", "assay", "tissue"):
        assert list(adata.obs[name].astype(str)) == list(source[name]), name
    assert list(adata.var_names) == list(adata.var["gene_ids"])
    assert {"ENSG00000187608"} <= set(adata.var_names) and "ISG15" in set(adata.var["gene_symbols"])


def test_types_are_capped_cells_without_one_left_out_and_a_donor_held_out(fetched: Path) -> None:
    reference, held_out = (anndata.read_h5ad(fetched / f"{name}.h5ad") for name in ("reference", "held_out"))
    sizes = reference.obs["cell_type"].value_counts()
    assert set(sizes.index) == {"B cell", "T cell", "monocyte"} and sizes.max() == 120
    assert not set(reference.obs["donor"]) & set(held_out.obs["donor"])
    said = json.loads((fetched / "reference.json").read_text())
    assert said["reference"]["types"] == sizes.to_dict()
    assert said["held_out_donors"] == list(held_out.obs["donor"].unique())
    # of both datasets, which are of one collection
    assert {donor.split("/")[0] for donor in [*reference.obs["donor"], *held_out.obs["donor"]]} == {"both"}


def test_a_model_is_trained_on_it_and_names_the_donor_held_out(root: Path, fetched: Path) -> None:
    options = {
        "reference": fetched / "reference.h5ad",
        "label-key": "cell_type",
        "batch-key": "donor",
        "name": "lung",
        "kind": "logistic",
        "n-top-genes": "100",
        "output": fetched / "lung",
    }
    arguments = [part for name, value in options.items() for part in (f"--{name}", value)]
    done = subprocess.run(
        [sys.executable, root / "bin" / "train.py", *arguments], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    manifest = json.loads((fetched / "lung" / "manifest.json").read_text())
    assert {label["cl_id"] for label in manifest["labels"]} == {"CL:0000236", "CL:0000084", "CL:0000576"}


@pytest.mark.parametrize(
    ("query", "code", "told"),
    [
        ({"filter": "tissue_general == 'moon'"}, 3, "matches no cell"),
        ({"filter": "tissue_generel == 'lung'"}, 3, "tissue_general"),
        ({"filter": LUNG, "organism": "mouse"}, 3, "no cells of mouse"),
        ({"filter": LUNG, "uri": "https://localhost:1/census"}, 6, "needs the network"),
    ],
)
def test_what_cannot_be_fetched_is_told_with_what_to_do(
    root: Path,
    census_python: Path,
    census: Path,
    tmp_path: Path,
    query: dict[str, Any],
    code: int,
    told: str,
) -> None:
    done = fetch(root, census_python, tmp_path, **{"uri": str(census), **query})
    assert done.returncode == code, done.stderr
    assert told in done.stderr
    assert not (tmp_path / "reference.h5ad").exists()


def test_without_the_package_the_command_says_how_to_get_it(root: Path, tmp_path: Path) -> None:
    done = fetch(root, Path(sys.executable), tmp_path, filter=LUNG)
    assert done.returncode == 3 and "make census-env" in done.stderr
