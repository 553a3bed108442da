"""Other people's programs open what we write: an old anndata, and the server of CELLxGENE."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

from environments import environment
from small_model import small_counts, small_mapping, small_model

from cellscribe.annotation import run_annotate
from cellscribe.contract import OutputNames


def annotated(folder: Path) -> Path:
    """A small sample, annotated."""
    output = folder / "s1.annotated.h5ad"
    run_annotate(
        small_counts(),
        small_mapping(),
        small_model("logistic"),
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


def test_cellxgene_explorer_serves_the_output(cellxgene: Path, tmp_path: Path):
    output = annotated(tmp_path)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [cellxgene / "cellxgene", "launch", output, "--host", "127.0.0.1", "--port", str(port)]
    with (tmp_path / "log").open("w") as log:
        server = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        schema = json.loads(fetch(f"http://127.0.0.1:{port}/api/v0.2/schema", server))["schema"]
    finally:
        server.terminate()
        server.wait(20)
    columns = {column["name"]: column for column in schema["annotations"]["obs"]["columns"]}
    assert columns["cxg_cell_type_final"]["type"] == "categorical"
    assert columns["cxg_cell_type_predicted_uncertainty"]["type"] == "float32"
    layouts = {layout["name"] for layout in schema["layout"]["obs"]}
    assert "cxg_cell_type_umap" in layouts


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
