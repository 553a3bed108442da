"""Turn the sample that the package celltypist ships into a Cell Ranger v3 file: the demo sample.

How it was run, and where the data come from: assets/demo/README.md.
"""

import argparse
import csv
import hashlib
from collections import Counter
from pathlib import Path

import h5py
import numpy as np

SOURCES = {
    "counts": "0d729bd7a9e4d8f5a8ccc167f222530f4ece8d334b939d21b796bd77daf967f2",
    "genes": "0a8d9b07cf63f9ef70e65f3c7afc9d2092a7d9890281172df770003827912f53",
}


def read_ids(path: Path) -> dict[str, str]:
    """Symbol to Ensembl id, for symbols that name one gene only."""
    with path.open(newline="") as file:
        rows = list(csv.reader(file))
    times = Counter(symbol for _, symbol in rows)
    return {symbol: gene_id for gene_id, symbol in rows if times[symbol] == 1}


def read_counts(path: Path) -> tuple[list[str], list[str], list[np.ndarray]]:
    """Cells, symbols, and the counts of each cell, int32 of shape (n_genes,)."""
    cells, counts = [], []
    with path.open(newline="") as file:
        reader = csv.reader(file)
        symbols = next(reader)[1:]
        for cell, *values in reader:
            numbers = np.array(values, dtype=float)
            whole = np.rint(numbers)
            # The file has 0.999999999999999 and the like: counts that once went through logarithms.
            if np.abs(numbers - whole).max() > 1e-6 or whole.min() < 0:
                raise SystemExit(f"error: {path}: the values of {cell} are not counts")
            cells.append(cell)
            counts.append(whole.astype(np.int32))
    if len(set(symbols)) != len(symbols) or len(set(cells)) != len(cells):
        raise SystemExit(f"error: {path}: a cell or a gene stands there twice")
    return cells, symbols, counts


def write_h5(
    target: Path, cells: list[str], symbols: list[str], counts: list[np.ndarray], ids: dict[str, str]
) -> None:
    """Write Cell Ranger v3's layout; the same input gives the same bytes."""
    indices = [np.flatnonzero(cell).astype(np.int64) for cell in counts]
    options = {"compression": "gzip", "compression_opts": 9, "shuffle": True, "track_times": False}
    text = {
        "barcodes": cells,
        # As Cell Ranger has it for a reference without ids: the name stands for the id.
        "features/id": [ids.get(symbol, symbol) for symbol in symbols],
        "features/name": symbols,
        "features/feature_type": ["Gene Expression"] * len(symbols),
        "features/genome": ["GRCh38"] * len(symbols),
        "features/_all_tag_keys": ["genome"],
    }
    arrays = {
        "data": np.concatenate([cell[rows] for cell, rows in zip(counts, indices, strict=True)]),
        "indices": np.concatenate(indices),
        "indptr": np.cumsum([0, *map(len, indices)], dtype=np.int64),
        "shape": np.array([len(symbols), len(cells)], dtype=np.int32),
    }
    target.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(target, "w", libver=("earliest", "v108")) as file:
        file.attrs["filetype"] = "matrix"
        file.attrs["version"] = 2
        matrix = file.create_group("matrix")
        for name, values in {
            **arrays,
            **{name: np.array(value, dtype="S") for name, value in text.items()},
        }.items():
            matrix.create_dataset(name, data=values, **options)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("counts", type=Path, help="celltypist/data/samples/sample_cell_by_gene.csv")
    parser.add_argument("genes", type=Path, help="celltypist/data/samples/GENCODEv44_Gene_id2name.csv")
    parser.add_argument("target", type=Path)
    given = parser.parse_args()
    for name, digest in SOURCES.items():
        if hashlib.sha256(getattr(given, name).read_bytes()).hexdigest() != digest:
            raise SystemExit(f"error: {getattr(given, name)} is not the file that celltypist 1.7.1 ships")
    cells, symbols, counts = read_counts(given.counts)
    write_h5(given.target, cells, symbols, counts, read_ids(given.genes))
    print(hashlib.sha256(given.target.read_bytes()).hexdigest(), given.target)


if __name__ == "__main__":
    main()
