"""An annotated h5ad as zarr: all that is in it, read as anndata reads it, and nothing half-written."""

from __future__ import annotations

import zipfile
from pathlib import Path

import anndata
import h5py
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import zarr

from cellscribe import zarr_output
from cellscribe.errors import OutputError
from cellscribe.io import write_h5ad
from cellscribe.zarr_output import write_zarr, zarr_path


@pytest.fixture
def h5ad(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    counts = sp.csr_matrix(rng.poisson(0.5, (40, 12)).astype(np.float32))
    cells = anndata.AnnData(
        counts,
        obs=pd.DataFrame(
            {
                "label": pd.Categorical(["B cell", "T cell, α/β"] * 20),
                "score": rng.random(40),
                "kept": [True, False] * 20,
                "text": [f"a{i}" for i in range(40)],
            },
            index=[f"c{i}" for i in range(40)],
        ),
        var=pd.DataFrame(
            {"gene_ids": [f"ENSG{i:011d}" for i in range(12)]}, index=[f"g{i}" for i in range(12)]
        ),
        obsm={"X_umap": rng.random((40, 2)).astype(np.float32)},
        uns={"model": {"name": "m", "labels": np.array(["B cell", "T cell"], dtype=object), "n": 3}},
        layers={"columns": counts.tocsc()},
    )
    cells.raw = cells.copy()
    path = tmp_path / "s.annotated.h5ad"
    write_h5ad(cells, path)
    return path


def read(path: Path) -> anndata.AnnData:
    with zarr.storage.ZipStore(path, mode="r") as store:
        return anndata.read_zarr(store)


@pytest.mark.parametrize("block", [7, 1_000_000])
def test_all_that_an_h5ad_holds_is_in_the_zarr(
    h5ad: Path, monkeypatch: pytest.MonkeyPatch, block: int
) -> None:
    monkeypatch.setattr(zarr_output, "BLOCK", block)
    write_zarr(h5ad, zarr_path(h5ad))
    there, given = read(zarr_path(h5ad)), anndata.read_h5ad(h5ad)
    pd.testing.assert_frame_equal(there.obs, given.obs)
    pd.testing.assert_frame_equal(there.var, given.var)
    assert isinstance(there.X, sp.csr_matrix) and there.X.dtype == np.float32
    assert (there.X != given.X).nnz == 0 and (there.raw.X != given.raw.X).nnz == 0
    assert (there.layers["columns"] != given.layers["columns"]).nnz == 0
    np.testing.assert_array_equal(there.obsm["X_umap"], given.obsm["X_umap"])
    assert there.uns["model"]["n"] == 3 and list(there.uns["model"]["labels"]) == ["B cell", "T cell"]


def test_unzipped_it_is_the_folder_that_anndata_reads_by_its_path(h5ad: Path, tmp_path: Path) -> None:
    write_zarr(h5ad, zarr_path(h5ad))
    with zipfile.ZipFile(zarr_path(h5ad)) as archive:
        assert archive.testzip() is None and len(set(archive.namelist())) == len(archive.namelist())
        archive.extractall(tmp_path / "folder.zarr")
    assert anndata.read_zarr(tmp_path / "folder.zarr").shape == (40, 12)


def test_the_same_cells_give_the_same_bytes(h5ad: Path) -> None:
    write_zarr(h5ad, zarr_path(h5ad))
    before = zarr_path(h5ad).read_bytes()
    write_zarr(h5ad, zarr_path(h5ad))
    assert zarr_path(h5ad).read_bytes() == before


def test_counts_that_are_not_those_of_the_h5ad_are_not_kept(
    h5ad: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = zarr_output._copy_matrix

    def spoil(source: h5py.Group, target: zarr.Group) -> None:
        copy(source, target)
        target["data"][3] = 99

    monkeypatch.setattr(zarr_output, "_copy_matrix", spoil)
    with pytest.raises(OutputError, match="is not that of the h5ad") as raised:
        write_zarr(h5ad, zarr_path(h5ad))
    assert "s.annotated.zarr.zip" in str(raised.value)
    assert [path.name for path in h5ad.parent.iterdir()] == [h5ad.name]


def test_no_cells_are_written_too(tmp_path: Path) -> None:
    path = tmp_path / "none.annotated.h5ad"
    write_h5ad(anndata.AnnData(sp.csr_matrix((0, 3), dtype=np.float32)), path)
    write_zarr(path, zarr_path(path))
    assert read(zarr_path(path)).shape == (0, 3)
