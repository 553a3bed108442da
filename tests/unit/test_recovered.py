"""Counts that were scaled in each cell, and logged, are recovered to the digit; what was corrected is not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from small_model import simulate

from cellscribe import h5ad_matrix
from cellscribe.errors import InputError
from cellscribe.h5ad_input import open_h5ad, read_h5ad
from cellscribe.recovered import how_made, recovered
from cellscribe.stored import blocks

Maker = Callable[[np.ndarray], np.ndarray]
MADE: dict[str, Maker] = {
    "log1p": np.log1p,
    "log2": lambda values: np.log2(values + 1),
    "scaled": np.asarray,
}


@pytest.fixture(scope="module")
def counts() -> sp.csr_matrix:
    return sp.csr_matrix(simulate(60, seed=3).X).astype(np.float32)


def scaled(counts: sp.csr_matrix, make: Maker, total: float = 1e4) -> sp.csr_matrix:
    """As float32, the way a file holds it."""
    result = counts.astype(np.float64)
    factors = total / np.asarray(result.sum(axis=1)).ravel()
    result.data = make(result.data * np.repeat(factors, np.diff(result.indptr)))
    return result.astype(np.float32)


def written(folder: Path, matrix: object, **layers: object) -> Path:
    ad.AnnData(matrix, layers=layers).write_h5ad(folder / "in.h5ad")
    return folder / "in.h5ad"


@pytest.mark.parametrize("kind", [sp.csr_matrix, sp.csc_matrix, lambda matrix: matrix.toarray()])
@pytest.mark.parametrize("made", MADE)
def test_they_are_the_counts_however_they_were_made_and_kept(
    counts: sp.csr_matrix, made: str, kind: Callable[[sp.csr_matrix], object], tmp_path: Path
) -> None:
    path = written(tmp_path, kind(scaled(counts, MADE[made], 1_234.5)))
    read = read_h5ad(path)
    assert (read.matrix != counts).nnz == 0 and read.matrix.dtype == np.float32
    assert len(read.warnings) == 1 and "recovered from X" in read.warnings[0]
    assert made in read.recovered_from
    stored = sp.vstack([block for _, block in blocks(open_h5ad(path, scratch=tmp_path).matrix)])
    assert (stored != counts).nnz == 0


def test_real_counts_come_first_and_a_named_place_is_kept_to(counts: sp.csr_matrix, tmp_path: Path) -> None:
    path = written(tmp_path, scaled(counts, np.log1p), umis=counts)
    assert read_h5ad(path).counts_from == "layers/umis" and not read_h5ad(path).warnings
    assert read_h5ad(path).recovered_from == ""
    named = read_h5ad(path, "X")
    assert named.counts_from == "X" and named.warnings and (named.matrix != counts).nnz == 0


def few_beside_all(folder: Path, few: ad.AnnData, every: sp.csr_matrix) -> Path:
    """A file as scanpy leaves it: some genes, and in raw the numbers of all."""
    few.raw = ad.AnnData(every, var=pd.DataFrame(index=[f"gene{i}" for i in range(every.shape[1])]))
    few.var_names = [f"gene{i}" for i in range(few.n_vars)]
    few.write_h5ad(folder / "few.h5ad")
    return folder / "few.h5ad"


def test_counts_of_few_genes_give_way_to_what_all_were_made_into(
    counts: sp.csr_matrix, tmp_path: Path
) -> None:
    logged = scaled(counts, np.log1p)
    few = ad.AnnData(logged[:, :40], layers={"counts": counts[:, :40]})
    path = few_beside_all(tmp_path, few, logged)
    read = read_h5ad(path)
    assert read.counts_from == "raw.X" and (read.matrix != counts).nnz == 0
    assert len(read.var) == counts.shape[1]
    (warning,) = read.warnings
    assert "layers/counts holds raw counts of 40 genes alone: those of 400 genes were recovered" in warning
    assert "counts_layer counts" in warning
    assert any("layers/counts was passed over" in note and "40 genes" in note for note in read.notes)
    stored = sp.vstack([block for _, block in blocks(open_h5ad(path, scratch=tmp_path).matrix)])
    assert (stored != counts).nnz == 0
    asked = read_h5ad(path, "counts")
    assert asked.matrix.shape == (60, 40) and not asked.warnings


def test_counts_without_the_genes_that_hardly_any_cell_has_are_enough(
    counts: sp.csr_matrix, tmp_path: Path
) -> None:
    cells_of = np.asarray((counts > 0).sum(axis=0)).ravel()
    order = np.argsort(-cells_of, kind="stable")
    shares = np.cumsum(cells_of[order]) / counts.nnz
    sorted_counts = counts[:, order]
    n_kept = int(np.searchsorted(shares, 0.95))
    assert n_kept < 0.9 * counts.shape[1]
    for n, place in ((n_kept, "X"), (n_kept // 2, "raw.X")):
        few = ad.AnnData(sorted_counts[:, :n])
        read = read_h5ad(few_beside_all(tmp_path, few, scaled(sorted_counts, np.log1p)))
        assert read.counts_from == place and bool(read.warnings) == (place == "raw.X")


def test_counts_of_few_genes_are_told_where_those_of_all_cannot_be_had_back(
    counts: sp.csr_matrix, tmp_path: Path
) -> None:
    corrected = scaled(counts, np.log1p)
    corrected.data += np.random.default_rng(0).uniform(0, 0.1, corrected.nnz).astype(np.float32)
    read = read_h5ad(few_beside_all(tmp_path, ad.AnnData(counts[:, :40]), corrected))
    assert read.counts_from == "X" and read.matrix.shape == (60, 40)
    (warning,) = read.warnings
    for part in ("X holds raw counts of 40 genes alone", "raw.X has 400 genes", "log1p", "all genes"):
        assert part in warning


@pytest.mark.parametrize("share", [0.01, 1.0])
def test_corrected_numbers_are_refused(counts: sp.csr_matrix, share: float, tmp_path: Path) -> None:
    corrected = counts.copy()
    rng = np.random.default_rng(0)
    corrected.data += rng.uniform(0.05, 0.4, corrected.nnz) * (rng.random(corrected.nnz) < share)
    with pytest.raises(InputError, match="no raw counts were found"):
        read_h5ad(written(tmp_path, scaled(corrected, np.log1p)))


@pytest.mark.parametrize("made", MADE)
@pytest.mark.parametrize("total", [100, 500, 2_000])
def test_cells_of_few_counts_are_told_from_logarithms(made: str, total: int) -> None:
    rng = np.random.default_rng(1)
    shares = rng.gamma(0.3, 1, 200)
    few = sp.csr_matrix(rng.poisson(total * shares / shares.sum(), (300, 200))).astype(np.float32)
    few = few[np.asarray(few.sum(axis=1)).ravel() > 0]
    # A cell without a single count of one says nothing of what its least number is.
    few = few[[1 in row.data for row in few]]
    block = scaled(few, MADE[made])
    assert (recovered(block, how_made([block])) != few).nnz == 0


def test_what_was_rounded_or_denoised_is_no_count() -> None:
    rng = np.random.default_rng(2)
    tpm = rng.lognormal(2, 2, (200, 300)) * (rng.random((200, 300)) < 0.4)
    assert how_made([sp.csr_matrix(np.round(tpm, 1))]) == ""
    assert how_made([sp.csr_matrix(np.log2(np.round(tpm, 1) + 1).astype(np.float32))]) == ""
    denoised = rng.gamma(0.5, 1, (200, 300))
    denoised[:, 0] = 1e-12
    assert how_made([sp.csr_matrix(denoised)]) == ""
    assert how_made([sp.csr_matrix(np.log1p(denoised))]) == ""


def test_some_of_each_cells_molecules_are_not_taken_for_all(counts: sp.csr_matrix, tmp_path: Path) -> None:
    path = written(tmp_path, -scaled(counts, np.log1p), spliced=scaled(counts, np.log1p))
    with pytest.raises(InputError, match="no raw counts were found"):
        read_h5ad(path)


def test_a_large_matrix_by_columns_is_sorted_only_where_its_first_cells_are_counts(
    counts: sp.csr_matrix, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(h5ad_matrix, "IN_MEMORY", 10)
    path = written(tmp_path, scaled(counts, np.log1p).tocsc())
    opened = open_h5ad(path, scratch=tmp_path)
    assert (sp.vstack([block for _, block in blocks(opened.matrix)]) != counts).nnz == 0
    monkeypatch.setattr(h5ad_matrix, "_by_rows", lambda *_, **__: pytest.fail("all of it was sorted"))
    other = scaled(counts, np.log1p)
    other.data += np.random.default_rng(0).uniform(0, 0.1, other.nnz).astype(np.float32)
    with pytest.raises(InputError, match="no raw counts were found"):
        open_h5ad(written(tmp_path, other.tocsc()), scratch=tmp_path)


def test_numbers_that_are_all_the_same_in_a_cell_are_no_counts() -> None:
    same = sp.csr_matrix(np.full((5, 4), 0.7) * np.arange(1, 6)[:, None])
    assert how_made([same]) == ""
    assert how_made([]) == ""


def test_cells_without_counts_stay_so() -> None:
    block = sp.csr_matrix(np.log1p([[0, 0, 0], [2.5, 5, 0]]))
    assert recovered(block, how_made([block])).toarray().tolist() == [[0, 0, 0], [1, 2, 0]]
