"""Whatever is read by blocks of rows gives what reading it whole gives."""

from __future__ import annotations

import errno
from pathlib import Path

import anndata as ad
import h5py
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from tenx_files import (
    GEX,
    IDS,
    SYMBOLS,
    barcodes,
    small_counts,
    whole,
    write_folder,
    write_h5_v2,
    write_h5_v3,
)

from cellscribe import counts_file, doublets, h5ad_input, h5ad_matrix, mtx, stored, tenx, tenx_places
from cellscribe.cell_calling import call_cells
from cellscribe.convert import ConvertOptions, run_convert
from cellscribe.doublets import call_doublets
from cellscribe.errors import InputError
from cellscribe.qc import QcOptions, run_qc
from cellscribe.stored import RowBuckets, SomeColumns, SomeRows, blocks, group_totals, groups_of_rows

N_CELLS = 61
COUNTS = small_counts(N_CELLS) * (np.arange(N_CELLS) % 7 != 3)[:, None]
MATRIX = sp.csr_matrix(COUNTS, dtype=np.float32)


def tiny(patch: pytest.MonkeyPatch) -> None:
    """Let nothing be read whole, and no block hold more than a few numbers."""
    patch.setattr(stored, "BLOCK", 13)
    patch.setattr(stored, "BLOCK_ROWS", 5)
    for module in (h5ad_matrix, mtx):
        patch.setattr(module, "IN_MEMORY", 0)
    for module in (h5ad_matrix, mtx, tenx):
        patch.setattr(module, "BLOCK", 7)
    patch.setattr(counts_file.CountsFile, "blocks", lambda self: self.chunks(4))


def h5ad(path: Path, x: object, **kwargs: object) -> Path:
    obs = pd.DataFrame({"donor": list("ab") * (N_CELLS // 2) + ["a"]}, index=barcodes(N_CELLS))
    data = ad.AnnData(x, obs=obs, var=pd.DataFrame({"gene_ids": IDS}, index=SYMBOLS), **kwargs)
    data.obsm["X_umap"] = np.arange(2.0 * N_CELLS).reshape(-1, 2)
    data.write_h5ad(path)
    return path


def droplets() -> sp.csr_matrix:
    rng = np.random.default_rng(0)
    return sp.vstack(
        [sp.csr_matrix(rng.poisson(rate, (n, 6))) for rate, n in ((300, 40), (0.3, 900))]
    ).tocsr()


TYPES = [GEX, "Antibody Capture", GEX, GEX, "CRISPR Guide Capture", GEX]
GENOMES = ["GRCh38"] * 3 + ["mm10"] * 3
INPUTS = {
    "h5 v3": lambda folder: write_h5_v3(folder / "m.h5", MATRIX),
    "h5 v2": lambda folder: write_h5_v2(folder / "m.h5", {"hg19": COUNTS}),
    "other features": lambda folder: write_h5_v3(folder / "m.h5", MATRIX, types=TYPES),
    "two genomes": lambda folder: write_h5_v3(folder / "m.h5", MATRIX, genomes=GENOMES),
    "all droplets": lambda folder: write_h5_v3(folder / "raw_feature_bc_matrix.h5", droplets(), types=TYPES),
    "mtx.gz v3": lambda folder: write_folder(folder / "m", COUNTS),
    "mtx v2": lambda folder: write_folder(folder / "m", COUNTS, version=2, compress=False),
    "csr": lambda folder: h5ad(folder / "m.h5ad", MATRIX),
    "csr of float64": lambda folder: h5ad(folder / "m.h5ad", MATRIX.astype(np.float64) * (1 + 1e-9)),
    "csc": lambda folder: h5ad(folder / "m.h5ad", MATRIX.tocsc()),
    "dense": lambda folder: h5ad(folder / "m.h5ad", COUNTS.astype(np.int64)),
    "csc in a layer": lambda folder: h5ad(
        folder / "m.h5ad", np.log1p(COUNTS), layers={"counts": MATRIX.tocsc()}
    ),
}


def digest(path: Path) -> dict[str, str]:
    """What stands at each place of an h5ad."""
    found: dict[str, str] = {}

    def add(name: str, node: h5py.Group | h5py.Dataset) -> None:
        text = str(sorted((key, str(value)) for key, value in node.attrs.items()))
        if isinstance(node, h5py.Dataset):
            # chunk sizes and the like are no part of what stands there
            text += f" {node.dtype} {node.shape} {np.asarray(node[()]).tolist()}"
        found[name] = text

    with h5py.File(path) as file:
        file.visititems(add)
    return found


@pytest.mark.parametrize("kind", INPUTS)
def test_convert_by_tiny_blocks_writes_the_same_files(tmp_path, monkeypatch, kind):
    path = INPUTS[kind](tmp_path)
    genome = "GRCh38" if kind == "two genomes" else None
    outputs = []
    for name in ("whole", "blocks"):
        if name == "blocks":
            tiny(monkeypatch)
        folder = tmp_path / name
        run_convert(
            ConvertOptions("S", path, folder / "S.h5ad", folder / "S.json", genome=genome, organism="human")
        )
        outputs.append((digest(folder / "S.h5ad"), (folder / "S.json").read_text()))
        assert sorted(child.name for child in folder.iterdir()) == ["S.h5ad", "S.json"]
    assert outputs[0] == outputs[1]
    assert not list(tmp_path.glob(".cellscribe-*"))


@pytest.mark.parametrize("kind", ["mtx.gz v3", "csc", "dense", "csr"])
def test_what_is_walked_over_is_the_matrix(tmp_path, monkeypatch, kind):
    tiny(monkeypatch)
    path = INPUTS[kind](tmp_path)
    read = tenx.read_tenx(tenx_places.find_input(path)) if "mtx" in kind else h5ad_input.open_h5ad(path)
    parts = list(blocks(read.matrix))
    assert len(parts) > 5 or kind == "csc"
    assert [rows.start for rows, _ in parts] == [0, *(rows.stop for rows, _ in parts[:-1])]
    assert all(part.dtype == np.float32 for _, part in parts)
    assert np.array_equal(whole(read.matrix).toarray(), COUNTS)
    assert np.array_equal(whole(read.matrix).toarray(), COUNTS)
    assert read.matrix.nnz == np.count_nonzero(COUNTS)


def test_views_of_rows_and_columns_are_slices(monkeypatch):
    tiny(monkeypatch)
    rows, columns = np.array([0, 3, 4, 40, 60]), np.array([1, 4])
    assert np.array_equal(whole(SomeRows(MATRIX, rows)).toarray(), COUNTS[rows])
    assert np.array_equal(
        whole(SomeColumns(SomeRows(MATRIX, rows), columns)).toarray(), COUNTS[rows][:, columns]
    )
    assert [part.shape[0] for _, part in groups_of_rows(MATRIX, 25)] == [25, 25, 11]
    assert [part.shape[0] for _, part in groups_of_rows(MATRIX, 1000)] == [61]
    groups = np.array([[1, 1, 0, 0, 0, 0], [0, 1, 1, 1, 0, 0]], dtype=bool).T
    assert np.array_equal(group_totals(MATRIX, groups), COUNTS @ groups)


def test_buckets_take_counts_in_any_order_and_add_up_repeated_ones(monkeypatch):
    monkeypatch.setattr(stored, "BLOCK", 13)
    rng = np.random.default_rng(0)
    rows, columns = rng.integers(0, 50, 400), rng.integers(0, 9, 400)
    buckets = RowBuckets((50, 9), 400)
    for part in np.array_split(rng.permutation(400), 7):
        buckets.add(rows[part], columns[part], np.ones(len(part), dtype=np.int64))
    expected = np.zeros((50, 9))
    np.add.at(expected, (rows, columns), 1)
    assert np.array_equal(whole(buckets).toarray(), expected)


def test_a_matrix_that_is_cut_short_or_names_too_much_is_an_input_error(tmp_path, monkeypatch):
    tiny(monkeypatch)
    path = write_folder(tmp_path / "m", COUNTS, compress=False)
    lines = (path / "matrix.mtx").read_text().splitlines()
    for name, text in (
        ("it holds", lines[:-3]),
        ("is not from", [*lines[:-1], "3 99 1"]),
        ("cut short", [*lines[:-1], "x"]),
    ):
        (path / "matrix.mtx").write_text("\n".join(text) + "\n")
        with pytest.raises(
            InputError, match=rf"(?s)matrix.mtx.*cut short.*{name}" if name != "cut short" else name
        ):
            tenx.read_tenx(tenx_places.find_input(path))


def test_a_gene_that_does_not_exist_is_an_input_error_of_the_h5ad(tmp_path):
    path = h5ad(tmp_path / "m.h5ad", MATRIX)
    with h5py.File(path, "a") as file:
        file["X/indices"][5] = 77
    with pytest.raises(InputError, match=r"this .h5ad cannot be read"):
        run_convert(ConvertOptions("S", path, tmp_path / "S.h5ad", tmp_path / "S.json"))
    assert not (tmp_path / "S.h5ad").exists()


def test_cells_are_called_alike_by_blocks(monkeypatch):
    first = call_cells(droplets().astype(np.float32), seed=1, n_iterations=50)
    tiny(monkeypatch)
    second = call_cells(droplets().astype(np.float32), seed=1, n_iterations=50)
    assert np.array_equal(first[0], second[0])
    assert first[1] == second[1]


@pytest.mark.parametrize("options", [{}, {"mode": "flag", "min_cells_per_gene": 40}], ids=["filter", "flag"])
def test_qc_by_tiny_chunks_writes_the_same_files(tmp_path, monkeypatch, options):
    rng = np.random.default_rng(0)
    profile = rng.gamma(0.5, 1, (4, 300))
    counts = rng.poisson(profile[rng.integers(0, 4, 250)] * rng.uniform(0.2, 4, (250, 1)))
    counts[3], counts[4] = 0, counts[4] * 50
    matrix = sp.csr_matrix(counts, dtype=np.float32)
    matrix.data[::50] = 0
    symbols = ["MT-CO1", *(f"G{i}" for i in range(299))]
    adata = ad.AnnData(
        matrix,
        obs=pd.DataFrame({"donor": pd.Categorical(["a", "b"] * 125)}, index=barcodes(250)),
        var=pd.DataFrame({"gene_ids": "", "gene_symbols": symbols}, index=symbols),
        uns={"cellscribe": {"sample": "s", "organism": "human"}},
        obsm={"antibody_capture": rng.random((250, 3)).astype(np.float32), "X_umap": rng.random((250, 2))},
    )
    adata.write_h5ad(tmp_path / "in.h5ad")
    outputs = []
    for name in ("whole", "blocks"):
        if name == "blocks":
            tiny(monkeypatch)
        run_qc(tmp_path / "in.h5ad", QcOptions("s", **options), folder=tmp_path / name)
        files = sorted((tmp_path / name).iterdir())
        outputs.append([digest(path) if path.suffix == ".h5ad" else path.read_bytes() for path in files])
    assert outputs[0] == outputs[1]


def test_doublets_beyond_the_reference_are_scored_by_groups(monkeypatch):
    rng = np.random.default_rng(0)
    profile = rng.gamma(0.3, 1, (6, 400))
    kinds = rng.integers(0, 6, (900, 2))
    single = np.arange(900) < 840
    rates = profile[kinds[:, 0]] + np.where(single[:, None], 0, profile[kinds[:, 1]])
    counts = sp.csr_matrix(rng.poisson(3 * rates), dtype=np.float32)
    monkeypatch.setattr(doublets, "MAX_REFERENCE", 350)
    first = call_doublets(counts, expected_rate=0.05)
    tiny(monkeypatch)
    second = call_doublets(SomeRows(counts, np.arange(900)), expected_rate=0.05)
    assert np.array_equal(first.scores, second.scores)
    assert first.summary() == second.summary()


def test_a_full_disk_is_known_by_its_number():
    buckets = RowBuckets((50, 9), 400)
    buckets._files = [Path("/dev/full")] * len(buckets._files)
    many = np.zeros(20_000, dtype=np.int64)
    with pytest.raises(OSError) as caught:
        buckets.add(many, many, np.ones(20_000))
    assert caught.value.errno == errno.ENOSPC
