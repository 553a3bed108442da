"""Other people's programs open what we write: an old anndata, and the server of CELLxGENE."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import anndata
from environments import environment
from small_model import small_counts, small_mapping, small_model

from cellscribe.annotation import run_annotate
from cellscribe.contract import OutputNames
from cellscribe.training.reference import read_reference


def annotated(folder: Path) -> Path:
    """A small sample, annotated."""
    output = folder / "s1.annotated.h5ad"
    run_annotate(
        small_counts(),
        small_mapping("consensus"),
        small_model("consensus"),
        sample="s1",
        output=output,
        predictions=folder / "s1.predictions.tsv.gz",
        summary=folder / "s1.annotation.json",
        names=OutputNames.of(),
    )
    return output


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
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [cellxgene / "cellxgene", "launch", output, "--host", "127.0.0.1", "--port", str(port)]
    with (tmp_path / "log").open("w") as log:
        server = subprocess.Popen(
            [*command, "--annotations-file", labels_csv], stdout=log, stderr=log, cwd=tmp_path
        )
    api = f"http://127.0.0.1:{port}/api/v0.2/"
    try:
        schema = json.loads(fetch(f"{api}schema", server))["schema"]
        sent = json.dumps(edited.tolist())
        subprocess.run([cellxgene / "python", "-W", "ignore", "-c", PUT, api, sent], check=True)
    finally:
        server.terminate()
        server.wait(20)
    columns = {column["name"]: column for column in schema["annotations"]["obs"]["columns"]}
    assert columns["cxg_cell_type_final"]["type"] == "categorical"
    assert columns["cxg_cell_type_predicted_uncertainty"]["type"] == "float32"
    layouts = {layout["name"] for layout in schema["layout"]["obs"]}
    assert {"cxg_cell_type_umap", "cxg_cell_type_ref_umap"} <= layouts
    reference = read_reference([output], "mine", label_csv=[labels_csv])
    assert "NK cell, checked #1" in reference.names
    assert reference.labels.tolist() == [label for label in edited if label != "unassigned"]


def fetch(url: str, server: subprocess.Popen[bytes]) -> bytes:
    """The answer of a server that may still be starting."""
    deadline = time.monotonic() + 90
    while True:
        try:
            with urllib.request.urlopen(url, timeout=10) as answer:
                return answer.read()
        except OSError:
            assert server.poll() is None, "the server ended"
            if time.monotonic() > deadline:
                raise
            time.sleep(0.5)
