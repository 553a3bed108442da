"""Reading and writing files so that nothing half-written is ever left."""

from __future__ import annotations

import gzip
import json
import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from cellscribe.errors import FULL, InputError, number_of

if TYPE_CHECKING:
    import anndata
    import numpy as np
    import pandas as pd

# So many rows of a table as text take little memory.
ROWS_AT_A_TIME = 100_000
# Of every h5ad: a part of HDF5 itself, which readers in R and Java have too; bytes of like weight lie side by side.
COMPRESSION: Final[dict[str, Any]] = {"compression": "gzip", "compression_opts": 1, "shuffle": True}
# What spreadsheets take for the start of a formula. Source: OWASP, CSV injection; the wide ones are East Asian.
FORMULA = tuple("=+-@＝＋－＠\t\r\n")


@contextmanager
def atomic_path(target: Path) -> Iterator[Path]:
    """Give a temporary name beside `target`; rename it to `target` only if the block ends well.

    Raises InputError where `target` is there and is no plain file; an OSError of a full disk names `target`.
    """
    target = Path(target)
    if not _may_be_replaced(target):
        raise InputError(
            "this is no plain file and will not be written over", "Give another name.", file=target
        )
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.", suffix=target.suffix)
    except OSError as error:
        error.filename = str(target)
        raise
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        temporary.chmod(0o666 & ~umask())
        temporary.replace(target)
    except (OSError, RuntimeError) as error:
        # What wrote the file knows only its temporary name, or none.
        if number_of(error) in FULL:
            error.filename = str(target)  # type: ignore[union-attr]
        raise
    finally:
        temporary.unlink(missing_ok=True)


def scratch_beside(output: Path) -> Path:
    """The folder in which `output` will stand, or the nearest one above that is there: it has room."""
    return next(folder for folder in output.absolute().parents if folder.is_dir())


def _may_be_replaced(target: Path) -> bool:
    """Whether `target` is not there, or a plain file or a link to one. /dev/stdout is a link to whatever is open."""
    try:
        mode = target.stat().st_mode
    except OSError:
        return True
    return stat.S_ISREG(mode) and not (target.is_symlink() and str(target.readlink()).startswith("/proc/"))


def umask() -> int:
    """The process's file mode mask: temporary files are private, what is kept is as the user wants files."""
    mask = os.umask(0)
    os.umask(mask)
    return mask


def write_json(value: Any, target: Path) -> None:
    """Write `value` as JSON with sorted keys; NaN and infinities are refused."""
    with atomic_path(target) as temporary:
        temporary.write_text(
            json.dumps(value, indent=2, sort_keys=True, allow_nan=False, default=_plain) + "\n"
        )


def _plain(value: Any) -> Any:
    """numpy scalars and arrays, and paths, as plain Python."""
    if hasattr(value, "tolist"):
        return value.tolist()
    if isinstance(value, Path):
        return str(value)
    raise TypeError(f"{type(value).__name__} does not fit into JSON")


def read_json(path: Path) -> Any:
    """Read a JSON file."""
    return json.loads(Path(path).read_text())


def write_table(table: pd.DataFrame, target: Path) -> None:
    """Write a table as tab-separated text, gzipped where the name ends in .gz (with no time and no name inside:
    the same table gives the same bytes). Its text is safe to open in a spreadsheet (`as_cell`).
    """
    with atomic_path(target) as temporary, temporary.open("wb") as file:
        if target.suffix == ".gz":
            # The highest level takes three times as long, and saves four percent.
            with gzip.GzipFile("", "wb", compresslevel=6, fileobj=file, mtime=0) as packed:
                _write_rows(table, packed)
        else:
            _write_rows(table, file)


def as_cell(text: str) -> str:
    """Text that no spreadsheet runs: with a single quote before it where it would be a formula."""
    return f"'{text}" if text.startswith(FORMULA) or text.lstrip().startswith(FORMULA) else text


def safe_table(table: pd.DataFrame) -> pd.DataFrame:
    """A table with `as_cell` of its text and of its columns' names; numbers stay, and so does the given table."""
    import pandas as pd

    columns: list[pd.Series] = []
    for place in range(table.shape[1]):
        column = table.iloc[:, place]
        if isinstance(column.dtype, pd.CategoricalDtype):
            names = {name: as_cell(name) for name in column.cat.categories if isinstance(name, str)}
            if any(name != cell for name, cell in names.items()):
                column = column.astype(object).map(lambda value, names=names: names.get(value, value))
        elif column.dtype == object or pd.api.types.is_string_dtype(column.dtype):
            # Few texts are looked at twice: most columns hold none that begins with any of these.
            first = {value[:1] for value in column if isinstance(value, str)}
            if first & {*FORMULA, " "} or any(one.isspace() for one in first):
                column = column.map(lambda value: as_cell(value) if isinstance(value, str) else value)
        columns.append(column)
    safe = pd.concat(columns, axis=1) if columns else table
    return safe.set_axis([as_cell(str(name)) for name in table.columns], axis=1)


def _write_rows(table: pd.DataFrame, file: Any) -> None:
    for start in range(0, max(len(table), 1), ROWS_AT_A_TIME):
        part = safe_table(table.iloc[start : start + ROWS_AT_A_TIME])
        file.write(part.to_csv(sep="\t", index=False, header=start == 0, lineterminator="\n").encode())


def write_h5ad(adata: anndata.AnnData, target: Path) -> None:
    """Write an h5ad that older readers open too: plain strings, no nullable columns, no filter but HDF5's own.

    Nullable strings, integers and booleans become plain ones (missing text becomes ""), as readers before
    anndata 0.11 know neither.
    """
    with atomic_path(target) as temporary:
        write_plain(adata, temporary)


def write_plain(adata: anndata.AnnData, path: Path) -> None:
    """As `write_h5ad`, to a file that is not finished by that."""
    import anndata

    for frame in (adata.obs, adata.var):
        plain_columns(frame)
    with anndata.settings.override(allow_write_nullable_strings=False):
        adata.write_h5ad(
            path, compression=COMPRESSION["compression"], compression_opts=COMPRESSION["compression_opts"]
        )


def plain_columns(frame: pd.DataFrame) -> None:
    """Turn a table's index and columns, in place, into types that every reader of h5ad knows."""
    import numpy as np
    import pandas as pd

    frame.index = pd.Index(
        without_nul(frame.index.astype(str).to_numpy(dtype=object)), dtype=object, name=None
    )
    for name in list(frame.columns):
        column = frame[name]
        if isinstance(column.dtype, pd.CategoricalDtype):
            kind = column.cat.categories.dtype
            if isinstance(kind, np.dtype) and kind.kind in "biuf":
                continue
            plain = without_nul(np.array([str(category) for category in column.cat.categories], dtype=object))
            if len(set(plain)) < len(plain):
                # Names that differed in what a file cannot hold: codes of the same text become one.
                frame[name] = pd.Categorical(column.map(dict(zip(column.cat.categories, plain, strict=True))))
            else:
                frame[name] = column.cat.rename_categories(pd.Index(plain, dtype=object))
        elif pd.api.types.is_string_dtype(column.dtype) or column.dtype == object:
            text = column.astype(object).where(column.notna(), "").astype(str).to_numpy(dtype=object)
            frame[name] = without_nul(text)
        elif pd.api.types.is_extension_array_dtype(column.dtype):
            frame[name] = column.to_numpy(
                dtype="float64" if column.isna().any() else column.dtype.numpy_dtype,
                na_value=float("nan") if column.isna().any() else None,
            )


def without_nul(texts: np.ndarray) -> np.ndarray:
    """Texts (n,) without NUL, at which HDF5 takes a text to end; the same array where there is none."""
    import numpy as np

    if not any("\0" in text for text in texts):
        return texts
    return np.array([text.replace("\0", "") for text in texts], dtype=object)
