"""Reading counts files by rows."""

import anndata
import anndata.io
import h5py
import numpy as np
import pytest
import scipy.sparse as sp
from small_model import simulate, write_counts

from cellscribe.counts_file import CsrWriter, open_counts
from cellscribe.errors import InputError


@pytest.fixture(scope="module")
def cells():
    return simulate(23)


@pytest.fixture(scope="module")
def path(cells, tmp_path_factory):
    return write_counts(cells, tmp_path_factory.mktemp("counts") / "s1.filtered.h5ad")


@pytest.mark.parametrize("rows", [1, 7, 23, 1000])
def test_chunks_stacked_are_the_matrix(cells, path, rows):
    opened = open_counts(path)
    parts = list(opened.chunks(rows))
    assert abs(sp.vstack([part for _, part in parts]) - cells.X).max() == 0
    assert all(part.dtype == np.float32 and sp.issparse(part) for _, part in parts)
    assert [(rows_.start, rows_.stop) for rows_, _ in parts][-1][1] == opened.n_obs == 23


def test_tables_and_organism_are_read(cells, path):
    opened = open_counts(path)
    assert list(opened.obs.index) == list(cells.obs_names)
    assert list(opened.var["gene_ids"]) == list(cells.var["gene_ids"])
    assert opened.organism == "human"


def test_an_empty_row_stays_empty(cells, tmp_path):
    cells = cells.copy()
    cells.X = (sp.diags((np.arange(23) != 3).astype(np.float32)) @ cells.X).tocsr()
    cells.X.eliminate_zeros()
    opened = open_counts(write_counts(cells, tmp_path / "a.h5ad"))
    assert [part.nnz == 0 for _, part in opened.chunks(1)] == [i == 3 for i in range(23)]


def test_what_convert_did_not_write_is_refused_with_its_name(cells, tmp_path):
    dense = cells.copy()
    dense.X = dense.X.toarray()
    dense.write_h5ad(tmp_path / "dense.h5ad")
    anndata.AnnData(obs=cells.obs).write_h5ad(tmp_path / "no_x.h5ad")
    (tmp_path / "text.h5ad").write_text("not HDF5")
    for name in ("dense.h5ad", "no_x.h5ad", "text.h5ad"):
        with pytest.raises(InputError, match=name):
            open_counts(tmp_path / name)


def test_a_matrix_that_was_written_by_rows_has_indices_of_one_type(cells, tmp_path):
    """scanpy.pp.normalize_total refuses others."""
    with h5py.File(tmp_path / "a.h5", "w") as file, CsrWriter(file, "X", cells.n_vars) as matrix:
        for first in range(0, cells.n_obs, 7):
            matrix.append(cells.X[first : first + 7].tocsr())
    with h5py.File(tmp_path / "a.h5") as file:
        read = anndata.io.read_elem(file["X"])
        assert file["X/indptr"].dtype == file["X/indices"].dtype == np.int32
    assert read.indptr.dtype == read.indices.dtype and abs(read - cells.X).max() == 0


def test_row_pointers_beyond_what_32_bits_hold_do_not_wrap(tmp_path):
    """A merged atlas stores more numbers; what a row stores is made up here, as the test cannot write so many."""
    with h5py.File(tmp_path / "a.h5", "w") as file:
        with CsrWriter(file, "X", 3) as matrix:
            matrix.append(sp.csr_matrix((2, 3), dtype=np.float32))
            matrix._lengths.append(np.full(2, 2**31 - 1, dtype=np.int32))
        assert file["X/indptr"].dtype == np.int64
        assert file["X/indptr"][:].tolist() == [0, 0, 0, 2**31 - 1, 2**32 - 2]
