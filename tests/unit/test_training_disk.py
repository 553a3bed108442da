"""Counts of a reference on disk, and which of its cells are drawn."""

import numpy as np
import pytest
import scipy.sparse as sp

from cellscribe import stored
from cellscribe.model.robust import with_copies
from cellscribe.training import disk
from cellscribe.training.disk import blocks_of, draw_cells, on_disk, some_columns
from cellscribe.training.members import copies_on_disk, rows_of_copies


@pytest.fixture
def counts():
    return sp.random(300, 40, density=0.2, format="csr", dtype=np.float32, random_state=0).ceil()


@pytest.fixture
def small_blocks(monkeypatch):
    """So that 300 cells are many blocks."""
    monkeypatch.setattr(stored, "BLOCK", 100)


def same(one, other):
    return one.shape == other.shape and (one != other).nnz == 0


def test_what_went_to_disk_is_read_from_it_and_leaves_no_file(counts, tmp_path):
    read = on_disk((counts[start : start + 70] for start in range(0, 300, 70)), 40, tmp_path)
    assert same(read, counts) and read.dtype == np.float32
    for part in (read.data, read.indices):
        while part.base is not None and not isinstance(part, np.memmap):
            part = part.base
        assert isinstance(part, np.memmap)
    assert not list(tmp_path.iterdir())
    with pytest.raises(ValueError, match="read-only"):
        read.data[0] = 1


@pytest.mark.parametrize("blocks", [[], [sp.csr_matrix((5, 7), dtype=np.float32)]])
def test_nothing_to_keep_is_an_empty_matrix(blocks, tmp_path):
    assert on_disk(blocks, 7, tmp_path).shape == (5 * len(blocks), 7)


def test_more_numbers_than_an_int32_counts_go_the_same_way(counts, tmp_path, monkeypatch):
    monkeypatch.setattr(disk, "LARGEST_INT32", 10)
    monkeypatch.setattr(disk, "_PIECE", 7)
    assert same(on_disk([counts], 40, tmp_path), counts)


def test_blocks_are_the_rows_asked_for_in_their_order(counts, small_blocks):
    rows = np.array([7, 3, *range(100, 290), 0])
    parts = list(blocks_of(counts, rows))
    assert len(parts) > 3
    np.testing.assert_array_equal(np.concatenate([own for own, _ in parts]), rows)
    assert same(sp.vstack([block for _, block in parts]).tocsr(), counts[rows])


def test_some_columns_of_some_rows(counts, small_blocks, tmp_path):
    columns, rows = np.array([1, 5, 39]), np.array([299, 4])
    assert same(some_columns(counts, columns, tmp_path, rows), counts[rows][:, columns])
    assert same(some_columns(counts, columns, tmp_path), counts[:, columns])


def test_copies_on_disk_are_those_in_memory_where_one_block_holds_the_cells(counts, tmp_path):
    inside, source = with_copies(counts, 2, np.random.default_rng(1))
    assert same(copies_on_disk(counts, 2, np.random.default_rng(1), tmp_path), inside)
    rows, cells = rows_of_copies(np.arange(300), 300, 2)
    np.testing.assert_array_equal(cells, source)
    np.testing.assert_array_equal(rows, np.arange(900))


def test_copies_made_by_blocks_have_no_more_counts_than_their_cells(counts, small_blocks, tmp_path):
    copies = copies_on_disk(counts, 1, np.random.default_rng(1), tmp_path)
    rows, cells = rows_of_copies(np.array([3, 250]), 300, 1)
    assert same(copies[rows[:2]], counts[cells[:2]])
    assert (copies[300:] - counts).max() <= 0
    assert 0.2 < copies[300:].sum() / counts.sum() < 0.8


def test_all_cells_are_drawn_where_there_are_not_too_many():
    np.testing.assert_array_equal(draw_cells(np.zeros(9, dtype=int), 9), np.arange(9))


def test_drawn_cells_keep_the_rare_and_the_share_of_the_others():
    codes = np.repeat([0, 1, 2], [70_000, 29_970, 30])
    drawn = draw_cells(codes, 1000, seed=3)
    assert len(drawn) == len(set(drawn.tolist())) == 1000 and (np.diff(drawn) > 0).all()
    numbers = np.bincount(codes[drawn])
    assert numbers[2] == 30
    assert numbers[0] / numbers[1] == pytest.approx(70 / 30, rel=0.15)
    np.testing.assert_array_equal(drawn, draw_cells(codes, 1000, seed=3))
    assert drawn.tolist() != draw_cells(codes, 1000, seed=4).tolist()


def test_more_labels_than_cells_to_draw():
    assert len(draw_cells(np.repeat(np.arange(50), 4), 20)) == 20
