"""Reading counts.h5ad and filtered.h5ad by rows, so that memory grows with the chunk and not with the sample."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse as sp

from cellscribe.errors import InputError
from cellscribe.io import COMPRESSION, write_plain
from cellscribe.verify import verified_path

if TYPE_CHECKING:
    import anndata
    import h5py
    import pandas as pd

# Of more cells, arrays outgrow what the C library keeps for the next chunk (32 MB), and each asks the system for memory
# anew, which takes a fifth of the time.
CHUNK_ROWS = 2048
# Bytes of a dataset that HDF5 holds while a file is written, which goes on from one chunk (256 kB) to the next.
CACHE = 2**20
_CONVERT = "Pass Cell Ranger output or any h5ad to convert.py first."


@dataclass(frozen=True)
class Shard:
    """Rows `start` to `stop`, which is not one of them, of a file of `n_cells`."""

    start: int
    stop: int
    n_cells: int


@dataclass(frozen=True)
class CountsFile:
    """A counts file of ours: its tables, and its matrix by chunks. `uns`: our own part of uns.

    shard: which of the file's rows these are; None for all of them.
    """

    path: Path
    obs: pd.DataFrame
    var: pd.DataFrame
    uns: dict[str, Any]
    shard: Shard | None = None

    @property
    def n_obs(self) -> int:
        """Cells."""
        return len(self.obs)

    @property
    def shape(self) -> tuple[int, int]:
        """Cells and genes."""
        return self.n_obs, len(self.var)

    @property
    def organism(self) -> str:
        """`human`, `mouse` or `unknown`, as CONVERT found it."""
        return str(self.uns.get("organism", "unknown"))

    def chunks(self, rows: int = CHUNK_ROWS) -> Iterator[tuple[slice, sp.csr_matrix]]:
        """Consecutive rows and their counts, CSR float32 (n_rows, n_genes)."""
        import h5py

        first_row = self.shard.start if self.shard else 0
        with h5py.File(self.path, "r") as file:
            group = file["X"]
            indptr = group["indptr"][first_row : first_row + self.n_obs + 1]
            for start in range(0, self.n_obs, rows):
                stop = min(start + rows, self.n_obs)
                first, last = int(indptr[start]), int(indptr[stop])
                yield (
                    slice(start, stop),
                    sp.csr_matrix(
                        (
                            group["data"][first:last].astype(np.float32, copy=False),
                            group["indices"][first:last],
                            indptr[start : stop + 1] - first,
                        ),
                        shape=(stop - start, len(self.var)),
                    ),
                )

    def blocks(self) -> Iterator[tuple[slice, sp.csr_matrix]]:
        """As `chunks`: what walks over any matrix (stored.py) walks over this one."""
        return self.chunks()


def open_counts(path: Path, rows: tuple[int, int] | None = None) -> CountsFile:
    """Open a counts file that CONVERT or QC wrote. Raises InputError for anything else.

    rows: take these alone, first and behind the last; of their obs only the index is read.
    """
    import h5py
    from anndata.io import read_elem

    try:
        with h5py.File(path, "r") as file:
            encoding = file["X"].attrs.get("encoding-type", "")
            if encoding != "csr_matrix":
                raise InputError(
                    f"X is {encoding or 'of an unknown kind'}, not a CSR matrix", _CONVERT, file=path
                )
            uns = read_elem(file["uns/cellscribe"]) if "uns/cellscribe" in file else {}
            if rows is None:
                return CountsFile(path, read_elem(file["obs"]), read_elem(file["var"]), uns)
            shard = Shard(*rows, n_cells=len(file["X/indptr"]) - 1)
            return CountsFile(path, _barcodes(file["obs"], shard, path), read_elem(file["var"]), uns, shard)
    except (OSError, KeyError) as error:
        raise InputError(
            f"this is not a counts file that the CONVERT or QC step wrote ({error})",
            _CONVERT,
            file=path,
        ) from error


def _barcodes(obs: h5py.Group, shard: Shard, path: Path) -> pd.DataFrame:
    """A table of the shard's cells, without columns."""
    import pandas as pd

    if not 0 <= shard.start < shard.stop <= shard.n_cells:
        raise InputError(
            f"there are no rows {shard.start}:{shard.stop} in a file of {shard.n_cells} cells",
            "Give the first row, counted from 0, and the one behind the last, as --rows 0:1000.",
            file=path,
        )
    names = obs[obs.attrs["_index"]].asstr()[shard.start : shard.stop]
    return pd.DataFrame(index=pd.Index(names, dtype=object))


@contextmanager
def new_counts_file(
    tables: anndata.AnnData, target: Path, *, ours: bool = True
) -> Iterator[tuple[h5py.File, CsrWriter]]:
    """An open h5ad and the writer of its X, which the block fills by some rows at a time.

    tables: all but X. ours: whether cells and genes have names of ours, each another. Nothing is left of a file whose
    block fails. Raises OutputError where the file, opened again, is not whole.
    """
    import h5py

    with verified_path(target, ours=ours) as temporary:
        n_vars = tables.n_vars
        write_plain(tables, temporary)
        # Many files may be open at once: none holds its tables, or more than the chunks that it writes to.
        del tables
        with (
            h5py.File(temporary, "r+", rdcc_nbytes=CACHE) as file,
            CsrWriter(file, "X", n_vars) as matrix,
        ):
            yield file, matrix


def new_dense(
    file: h5py.File, place: str, shape: tuple[int, int], dtype: np.dtype | type = np.float32
) -> h5py.Dataset:
    """An empty matrix in an open h5ad, to be filled by rows. place: as `obsm/antibody_capture`."""
    dense = file.create_dataset(place, shape, dtype, **COMPRESSION)
    dense.attrs.update({"encoding-type": "array", "encoding-version": "0.2.0"})
    return dense


class CsrWriter:
    """Writes a CSR float32 matrix into an open h5ad, some rows at a time, so that memory holds no more than these.

    Use it in a `with` block, whose end writes the row pointers; `place` is as `X` or `raw/X`.
    """

    def __init__(self, file: h5py.File, place: str, n_columns: int) -> None:
        self._group = file.create_group(place)
        self._n_columns = n_columns
        self._lengths: list[np.ndarray] = []
        self._parts = {
            name: self._group.create_dataset(
                name, (0,), dtype, maxshape=(None,), chunks=(65536,), **COMPRESSION
            )
            for name, dtype in (("data", np.float32), ("indices", np.int32))
        }

    def append(self, rows: sp.csr_matrix) -> None:
        """Add rows, (n, n_columns). Columns are sorted within each."""
        rows.sort_indices()
        self._lengths.append(np.diff(rows.indptr))
        for name, values in (("data", rows.data), ("indices", rows.indices)):
            part = self._parts[name]
            part.resize(len(part) + len(values), axis=0)
            part[len(part) - len(values) :] = values

    def __enter__(self) -> CsrWriter:
        return self

    def __exit__(self, *error: object) -> None:
        lengths = np.concatenate([np.zeros(1, dtype=np.int64), *self._lengths])
        ends = np.cumsum(lengths, dtype=np.int64)
        # Of the type that indices have, as scanpy's compiled code asks for; a larger matrix has no choice.
        fits = ends[-1] <= np.iinfo(np.int32).max
        self._group.create_dataset("indptr", data=ends.astype(np.int32) if fits else ends)
        self._group.attrs.update(
            {
                "encoding-type": "csr_matrix",
                "encoding-version": "0.1.0",
                "shape": np.array([len(lengths) - 1, self._n_columns], dtype=np.int64),
            }
        )
