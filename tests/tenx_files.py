"""Write small matrices in the layouts of Cell Ranger."""

from __future__ import annotations

import gzip
from collections.abc import Sequence
from pathlib import Path

import h5py
import numpy as np
import scipy.io
import scipy.sparse as sp

from cellscribe.stored import Stored, blocks

GEX = "Gene Expression"
SYMBOLS = ["CD3E", "MS4A1", "LYZ", "MT-CO1", "RPL10", "HBB"]
IDS = [
    "ENSG00000198851",
    "ENSG00000156738",
    "ENSG00000090382",
    "ENSG00000198804",
    "ENSG00000147403",
    "ENSG00000244734",
]


def small_counts(n_cells: int = 5, n_features: int = 6, seed: int = 0) -> np.ndarray:
    """Integer counts, (n_cells, n_features), no cell without any."""
    counts = np.random.default_rng(seed).poisson(2, (n_cells, n_features))
    counts[:, 0] += 1
    return counts


def whole(matrix: sp.csr_matrix | Stored) -> sp.csr_matrix:
    """All of a matrix that can be walked over."""
    return sp.vstack([block for _, block in blocks(matrix)], format="csr")


def barcodes(n: int) -> list[str]:
    return ["".join("ACGT"[(i >> (2 * k)) & 3] for k in range(16)) + "-1" for i in range(n)]


def write_h5_v3(
    path: Path,
    counts: np.ndarray | sp.csr_matrix,
    ids: Sequence[str] = IDS,
    symbols: Sequence[str] = SYMBOLS,
    types: Sequence[str] | None = None,
    genomes: Sequence[str] | None = None,
    names: Sequence[str] | None = None,
) -> Path:
    matrix = sp.csr_matrix(counts)
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        group = file.create_group("matrix")
        _write_csr(group, matrix, names)
        features = group.create_group("features")
        features["id"] = np.array(ids, dtype="S")
        features["name"] = np.array(symbols, dtype="S")
        features["feature_type"] = np.array(types or [GEX] * len(ids), dtype="S")
        features["genome"] = np.array(genomes or ["GRCh38"] * len(ids), dtype="S")
    return path


def write_h5_v2(path: Path, genomes: dict[str, np.ndarray], ids: Sequence[str] = IDS) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        for name, counts in genomes.items():
            group = file.create_group(name)
            _write_csr(group, sp.csr_matrix(counts), None)
            group["genes"] = np.array(ids, dtype="S")
            group["gene_names"] = np.array(SYMBOLS, dtype="S")
    return path


def _write_csr(group: h5py.Group, matrix: sp.csr_matrix, names: Sequence[str] | None) -> None:
    group["barcodes"] = np.array(names or barcodes(matrix.shape[0]), dtype="S")
    group["data"] = matrix.data.astype(np.int32)
    group["indices"] = matrix.indices.astype(np.int64)
    group["indptr"] = matrix.indptr.astype(np.int64)
    group["shape"] = np.array(matrix.shape[::-1], dtype=np.int32)


def write_folder(
    folder: Path,
    counts: np.ndarray,
    *,
    version: int = 3,
    compress: bool = True,
    ids: Sequence[str] = IDS,
    symbols: Sequence[str] = SYMBOLS,
    types: Sequence[str] | None = None,
    quote: str = "",
    prefix: str = "",
) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    types = types or [GEX] * len(ids)
    rows = zip(ids, symbols, types, strict=True)
    columns = 3 if version == 3 else 2
    features = "".join("\t".join(f"{quote}{v}{quote}" for v in row[:columns]) + "\n" for row in rows)
    scipy.io.mmwrite(folder / "plain.mtx", sp.coo_matrix(counts.T))
    texts = {
        "matrix.mtx": (folder / "plain.mtx").read_text(),
        "barcodes.tsv": "".join(f"{name}\n" for name in barcodes(len(counts))),
        "features.tsv" if version == 3 else "genes.tsv": features,
    }
    (folder / "plain.mtx").unlink()
    for name, text in texts.items():
        if compress:
            (folder / f"{prefix}{name}.gz").write_bytes(gzip.compress(text.encode()))
        else:
            (folder / f"{prefix}{name}").write_text(text)
    return folder
