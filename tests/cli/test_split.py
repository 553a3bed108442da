"""split.py."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import anndata
import pandas as pd
from tenx_files import IDS, SYMBOLS, barcodes, small_counts


def test_each_sample_of_a_file_is_written_or_none(root: Path, tmp_path: Path) -> None:
    obs = pd.DataFrame({"donor": list("ababab")}, index=barcodes(6))
    var = pd.DataFrame({"gene_ids": IDS}, index=SYMBOLS)
    anndata.AnnData(small_counts(6), obs=obs, var=var).write_h5ad(tmp_path / "in.h5ad")
    parts = tmp_path / "parts"
    parts.mkdir()
    command = [sys.executable, root / "bin" / "split.py", "--sample", "s", "--input", tmp_path / "in.h5ad"]
    output = ["--output", parts / "split.json"]
    failed = subprocess.run([*command, "--sample-key", "donors", *output], capture_output=True, text=True)
    assert failed.returncode == 3 and "sample 's', file" in failed.stderr, failed.stderr
    assert "there is no obs column 'donors'; there are: donor" in failed.stderr
    assert not list(parts.iterdir())
    done = subprocess.run([*command, "--sample-key", "donor", *output], capture_output=True, text=True)
    assert done.returncode == 0 and "s: 6 cells of 2 samples by 'donor'" in done.stderr, done.stderr
    listed = json.loads((parts / "split.json").read_text())
    assert [(one["sample"], one["n_cells"]) for one in listed] == [("s_a", 3), ("s_b", 3)]
    assert [anndata.read_h5ad(parts / one["file"]).n_obs for one in listed] == [3, 3]
