"""Other people's programs open what we write: an old anndata, and the server of CELLxGENE."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import anndata
from environments import environment
from explorer_server import annotated, fetch, launched

from cellscribe.contract import OutputNames
from cellscribe.explorer import MOST_EMBEDDINGS, MOST_VALUES
from cellscribe.training.reference import read_reference


def test_an_older_anndata_reads_the_output(tmp_path: Path):
    output = annotated(tmp_path)
    interpreter = environment(tmp_path / "env", sys.executable, "anndata==0.10.9", "pandas<3")
    code = (
        "import anndata, json, sys; a = anndata.read_h5ad(sys.argv[1]);"
        "print(json.dumps([a.n_obs, str(a.obs['cxg_cell_type_final'].dtype), sorted(a.obsm), type(a.X).__name__]))"
    )
    done = subprocess.run([interpreter, "-W", "ignore", "-c", code, output], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    n_obs, dtype, obsm, kind = json.loads(done.stdout)
    assert n_obs > 0
    assert dtype == "category"
    assert {"cxg_cell_type", "cxg_cell_type_umap", "X_cxg_cell_type_umap"} <= set(obsm)
    assert kind == "csr_matrix"


# Run by the Python of cellxgene: what its page sends when a category is made.
PUT = """
import json, sys, urllib.request, zlib
import pandas as pd
from server.common.fbs.matrix import encode_matrix_fbs
labels = pd.DataFrame({"mine": pd.Categorical(json.loads(sys.argv[2]))})
body = zlib.compress(bytes(encode_matrix_fbs(labels, col_idx=labels.columns)))
urllib.request.urlopen(urllib.request.Request(sys.argv[1] + "annotations/obs", body, method="PUT"))
"""


def test_cellxgene_explorer_serves_the_output_and_its_labels_come_back(cellxgene: Path, tmp_path: Path):
    output, labels_csv = annotated(tmp_path), tmp_path / "labels.csv"
    final = anndata.read_h5ad(output, backed="r").obs[OutputNames.of().final].astype(str)
    edited = final.replace("NK cell", "NK cell, checked #1")
    edited.iloc[:3] = "unassigned"
    with launched(cellxgene, output, tmp_path, "--annotations-file", labels_csv) as address:
        api = f"{address}api/v0.2/"
        schema = json.loads(fetch(f"{api}schema"))["schema"]
        sent = json.dumps(edited.tolist())
        subprocess.run([cellxgene / "python", "-W", "ignore", "-c", PUT, api, sent], check=True)
    columns = {column["name"]: column for column in schema["annotations"]["obs"]["columns"]}
    assert columns["cxg_cell_type_final"]["type"] == "categorical"
    assert columns["cxg_cell_type_predicted_uncertainty"]["type"] == "float32"
    layouts = {layout["name"] for layout in schema["layout"]["obs"]}
    assert {"cxg_cell_type_umap", "cxg_cell_type_ref_umap"} <= layouts
    reference = read_reference([output], "mine", label_csv=[labels_csv])
    assert "NK cell, checked #1" in reference.names
    assert reference.labels.tolist() == [label for label in edited if label != "unassigned"]


def test_explorers_limits_are_those_that_we_warn_of(cellxgene: Path):
    code = (
        "from server.common.constants import MAX_LAYOUTS; from server.common.config.app_config import AppConfig;"
        "print(MAX_LAYOUTS, AppConfig().dataset_config.presentation__max_categories)"
    )
    done = subprocess.run([cellxgene / "python", "-W", "ignore", "-c", code], capture_output=True, text=True)
    assert done.stdout.split() == [str(MOST_EMBEDDINGS), str(MOST_VALUES)], done.stderr
