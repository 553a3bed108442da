"""Small valid files, one of each kind that a user may give: what the mutations start from."""

from __future__ import annotations

import gzip
import hashlib
import json
import shutil
import zipfile
from pathlib import Path
from typing import Any

import anndata
import h5py
import numpy as np
import pandas as pd
import scipy.sparse as sp
from small_model import gene_names, simulate, small_counts, small_model
from tenx_files import small_counts as few_counts
from tenx_files import write_folder, write_h5_v2, write_h5_v3

N_CELLS = 24
SHEET = {
    "sample": ("lung_1", "lung_2", "lung_3"),
    "path": ("a.h5ad", "b.h5ad", "folder"),
    "organism": ("human", "", "mouse"),
    "batch": ("one", "two", ""),
    "counts_layer": ("", "counts", ""),
    "gene_column": ("", "symbol", ""),
    "genome": ("", "", "mm10"),
    "min_genes": ("100", "", "50"),
    "max_pct_mt": ("10", "12.5", ""),
    "truth_csv": ("", "truth.csv", ""),
    "truth_key": ("", "label", ""),
    "title": ("Lung of a donor", "", ""),
    "assay_ontology_term_id": ("EFO:0009922", "", ""),
}


def make_seeds(folder: Path) -> dict[str, list[Path]]:
    """Write every seed below `folder`; paths by kind. A seed of kind `mtx` or `model` is a folder."""
    folder.mkdir(parents=True)
    cells = simulate(N_CELLS, seed=1)
    alone = h5ad_files(folder, cells)
    return {
        "h5": h5_files(folder, cells),
        "h5ad": alone,
        "merged": [path for path in alone if path.stem in ("csr", "raw", "csc", "dense")],
        "mtx": mtx_folders(folder, cells),
        "model": (models := [model(folder / kind, kind) for kind in ("logistic", "consensus")]),
        "archive": archives(folder, models[0]),
        "sheet": sheets(folder),
    }


def model(folder: Path, kind: str) -> Path:
    """A small model without MLflow's copy of our code, and with few trees: each takes its time."""
    import xgboost

    shutil.copytree(small_model(kind), folder, ignore=shutil.ignore_patterns("code", "card.*"))
    if (folder / "trees.ubj").exists():
        trees = xgboost.Booster()
        trees.load_model(folder / "trees.ubj")
        trees[:2].save_model(folder / "trees.ubj")
    sign(folder)
    return folder


def query(folder: Path) -> Path:
    """Filtered counts of the seeds' cells, to be named by a mutated model."""
    return shutil.copy(small_counts(N_CELLS), folder / "query.filtered.h5ad")


def h5_files(folder: Path, cells: anndata.AnnData) -> list[Path]:
    ids, symbols = gene_names()
    few = few_counts(4)
    return [
        write_h5_v3(folder / "v3_mapped.h5", cells.X, ids, symbols),
        write_h5_v3(folder / "v3.h5", few),
        _packed(write_h5_v3(folder / "v3_packed.h5", few_counts(40))),
        write_h5_v2(folder / "v2.h5", {"hg19": few}),
        write_h5_v2(folder / "v2_two.h5", {"hg19": few, "mm10": few}),
    ]


def _packed(path: Path) -> Path:
    """The same file with its parts in compressed chunks, as Cell Ranger writes them."""
    with h5py.File(path, "r+") as file:
        group = file["matrix"]
        for name in ("data", "indices", "indptr", "barcodes"):
            values = group[name][:]
            del group[name]
            group.create_dataset(name, data=values, chunks=(16,), compression="gzip", shuffle=True)
    return path


def h5ad_files(folder: Path, cells: anndata.AnnData) -> list[Path]:
    few = anndata.AnnData(
        sp.csr_matrix(few_counts(5), dtype=np.float32),
        obs=pd.DataFrame(
            {
                "kind": pd.Categorical(["a", "b", "a", "b", "a"]),
                "score": [0.5, 1.5, 2.5, 3.5, 4.5],
                "known": pd.array([True, None, False, True, None], dtype="boolean"),
            },
            index=[f"c{i}" for i in range(5)],
        ),
        var=pd.DataFrame(
            {"gene_ids": [f"ENSG{i:011d}" for i in range(6)]}, index=[f"G{i}" for i in range(6)]
        ),
    )
    few.obsm["X_umap"] = np.zeros((5, 2), dtype=np.float32)
    with_raw = few.copy()
    with_raw.raw = few.copy()
    with_raw.X = np.log1p(few.X.toarray())
    with_raw.layers["counts"] = few.X.toarray()
    written = {"mapped": cells, "csr": few, "raw": with_raw}
    for name, kind in (("csc", sp.csc_matrix), ("dense", lambda x: x.toarray())):
        written[name] = few.copy()
        written[name].X = kind(few.X)
    paths = []
    for name, adata in written.items():
        paths.append(folder / f"{name}.h5ad")
        adata.copy().write_h5ad(paths[-1], compression="gzip" if name in ("csr", "dense") else None)
    return [*paths, _old_style(folder / "old.h5ad", few)]


def _old_style(path: Path, adata: anndata.AnnData) -> Path:
    """As anndata wrote before 0.7: tables as structured arrays, categories in uns, raw's parts with a dot."""
    with h5py.File(path, "w") as file:
        counts = sp.csr_matrix(adata.X)
        group = file.create_group("X")
        for name in ("data", "indices", "indptr"):
            group[name] = getattr(counts, name)
        group.attrs.update({"h5sparse_format": "csr", "h5sparse_shape": np.array(counts.shape)})
        obs = np.array(
            [
                (name.encode(), int(code))
                for name, code in zip(adata.obs_names, adata.obs["kind"].cat.codes, strict=True)
            ],
            dtype=[("index", "S8"), ("kind", "i1")],
        )
        file["obs"] = obs
        file["uns/kind_categories"] = np.array([b"a", b"b"])
        file["var"] = np.array([(name.encode(),) for name in adata.var_names], dtype=[("index", "S8")])
        file["raw.X"] = counts.toarray()
        file["raw.var"] = file["var"][:]
    return path


def mtx_folders(folder: Path, cells: anndata.AnnData) -> list[Path]:
    ids, symbols = gene_names()
    few = few_counts(4)
    return [
        write_folder(folder / "mtx_mapped", cells.X.toarray().astype(int), ids=ids, symbols=symbols),
        write_folder(folder / "mtx_v3", few),
        write_folder(folder / "mtx_plain", few, compress=False),
        write_folder(
            folder / "mtx_v2" / "filtered_gene_bc_matrices" / "hg19", few, version=2, compress=False
        ),
    ]


def archives(folder: Path, model: Path) -> list[Path]:
    """A model as a zip, plain and packed, and as tar and tar.gz."""
    stored, packed = folder / "stored.zip", folder / "packed.zip"
    for path, how in ((stored, zipfile.ZIP_STORED), (packed, zipfile.ZIP_DEFLATED)):
        with zipfile.ZipFile(path, "w", how) as archive:
            for part in sorted(model.rglob("*")):
                archive.write(part, part.relative_to(model).as_posix())
    tar = Path(shutil.make_archive(str(folder / "model"), "tar", model))
    (folder / "model.tar.gz").write_bytes(gzip.compress(tar.read_bytes(), mtime=0))
    return [stored, packed, tar, folder / "model.tar.gz"]


def sheets(folder: Path) -> list[Path]:
    rows = [dict(zip(SHEET, values, strict=True)) for values in zip(*SHEET.values(), strict=True)]
    texts = {}
    for name, delimiter in (("sheet.csv", ","), ("sheet.tsv", "\t")):
        texts[name] = "".join(
            delimiter.join(line) + "\n" for line in (SHEET, *zip(*SHEET.values(), strict=True))
        )
    texts["sheet.yaml"] = "".join(
        "- " + "\n  ".join(f"{key}: {value}" for key, value in row.items() if value) + "\n" for row in rows
    )
    texts["samples.yml"] = "samples:\n" + texts["sheet.yaml"]
    for name, text in texts.items():
        (folder / name).write_text(text)
    return [folder / name for name in texts]


def trees_as_json(path: Path) -> dict[str, Any]:
    """What a file of xgboost's trees holds, as its own JSON says it."""
    import xgboost

    booster = xgboost.Booster()
    booster.load_model(path)
    value: dict[str, Any] = json.loads(bytes(booster.save_raw("json")))
    return value


def sign(folder: Path) -> None:
    """Write the sizes and sha256 of all files into the manifest, whatever else it says."""
    manifest = folder / "manifest.json"
    try:
        value = json.loads(manifest.read_text())
        value["files"] = {
            path.relative_to(folder).as_posix(): {
                "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
                "size": path.stat().st_size,
            }
            for path in sorted(folder.rglob("*"))
            if path.is_file() and path != manifest
        }
    except (ValueError, TypeError, OSError):
        return
    manifest.write_text(json.dumps(value))
