"""An h5ad that a step wrote, opened again: is it whole, and does it hold what docs/outputs.md promises?

It is read by blocks: of a sample of any size no more is held than eight bytes a cell. h5py and numpy are all that this
needs.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cellscribe.contract import REASONS, UNASSIGNED, OutputNames, explorer_keys
from cellscribe.errors import OutputError
from cellscribe.io import atomic_path
from cellscribe.model.neighbours import row_blocks

if TYPE_CHECKING:
    import h5py

BLOCK = 1_000_000
"""Numbers that are held at once."""

NAMES = 100_000
"""Names that are held at once."""

SHOWN = 5
"""Problems of one file that a message lists."""

PREDICTIONS = "_predictions"
SAID = ("model_url", "model_name", "model_version", "model_sha256", "pipeline_version", "parameters", "date")
WRITE_AGAIN = (
    "The disk or the memory may be faulty, or the disk full: run again with -resume, on another machine where there is "
    "one. If it says the same, it is a bug in cellscribe: please report it."
)
# What h5py raises for a file that is cut short, changed, or no h5ad at all.
UNREADABLE = (OSError, KeyError, ValueError, TypeError, RuntimeError, AttributeError, IndexError)


@contextmanager
def verified_path(target: Path, keys: Sequence[str] | None = None, *, ours: bool = True) -> Iterator[Path]:
    """As `atomic_path` for an h5ad, which becomes `target` only if, opened again, it is what was promised.

    keys, ours: as `problems_of` takes them. Raises OutputError where it is not.
    """
    with atomic_path(target) as temporary:
        yield temporary
        _check_written(temporary, target, keys, ours)


def _check_written(path: Path, target: Path, keys: Sequence[str] | None, ours: bool) -> None:
    problems = problems_of(path, keys, ours=ours)
    if problems:
        more = f"\n  - and {len(problems) - SHOWN} more" if len(problems) > SHOWN else ""
        lines = "".join(f"\n  - {problem}" for problem in problems[:SHOWN])
        raise OutputError(
            f"the file was written, but opened again it is not what it should be, and was not kept:{lines}{more}",
            WRITE_AGAIN,
            file=target.name,
        )


def problems_of(
    path: Path, keys: Sequence[str] | None = None, *, ours: bool = True, numbers: bool = False
) -> list[str]:
    """What is wrong with an h5ad, a sentence each; [] where nothing is.

    keys: of the annotations that must be in it, as `cxg_cell_type`; None: of those that its uns tells of. ours: the
    whole file was written by us; of another's, the annotation alone is looked at. numbers: read every stored count too.
    """
    import h5py

    found: list[str] = []
    try:
        with h5py.File(path, "r") as file:
            found.extend(_problems(file, keys, ours, numbers))
    except UNREADABLE as error:
        found.append(f"it cannot be read: {' '.join(str(error).split())[:200]}")
    return found


def annotations_of(file: h5py.File) -> list[str]:
    """Keys of the annotations that an open h5ad tells of, as `cxg_cell_type`."""
    found = []
    for name, said in file["uns"].items() if "uns" in file else ():
        # In a file of several samples it is `by_sample` where they differ.
        if (
            name.endswith(PREDICTIONS)
            and hasattr(said, "keys")
            and {"pipeline_version", "by_sample"} & set(said)
        ):
            found.append(name.removesuffix(PREDICTIONS))
    return found


def _problems(file: h5py.File, keys: Sequence[str] | None, ours: bool, numbers: bool) -> Iterator[str]:
    n_obs = len(_index(file["obs"]))
    if ours:
        for name in ("obs", "var"):
            yield from _table_problems(file[name], name)
        counted = "raw/X" if "raw" in file else "X"
        for place, genes in (("X", "var"), ("raw/X", "raw/var")):
            if place in file:
                yield from _matrix_problems(file[place], place, (n_obs, len(_index(file[genes]))))
                if numbers:
                    yield from _number_problems(file[place], place, counts=place == counted)
    # A file of several samples may lack what one of them lacks.
    merged = ours and "n_samples" in file["var"]
    for key in annotations_of(file) if keys is None else keys:
        yield from _annotation_problems(file, OutputNames(key), n_obs, merged)


# --- tables and matrices ---


def _index(table: h5py.Group) -> h5py.Dataset:
    return table[table.attrs["_index"]]


def _table_problems(table: h5py.Group, name: str) -> Iterator[str]:
    n_rows = len(_index(table))
    for column in table:
        length = _length(table[column])
        if length not in (n_rows, None):
            yield f"{name}['{column}'] has {length:,} rows, and the index of {name} {n_rows:,}"
    if twice := _named_twice(_index(table)):
        yield f"the index of {name} has '{twice}' more than once"


def _length(column: Any) -> int | None:
    """Rows of a column; None for a kind that is not ours."""
    for part in ("codes", "values"):
        if hasattr(column, "keys") and part in column:
            return len(column[part])
    return None if hasattr(column, "keys") else len(column)


def _named_twice(names: h5py.Dataset) -> str | None:
    """A name that is there more than once. Hashes are held, and of names no more than a block."""
    hashes = np.empty(len(names), dtype=np.int64)
    for rows in row_blocks(len(names), NAMES):
        hashes[rows] = [hash(name) for name in names[rows]]
    hashes.sort()
    alike = set(hashes[1:][hashes[1:] == hashes[:-1]].tolist())
    seen = set()
    for rows in row_blocks(len(names), NAMES) if alike else ():
        for name in names[rows]:
            if hash(name) in alike:
                if name in seen:
                    return _text(name)
                seen.add(name)
    return None


def _matrix_problems(matrix: Any, place: str, shape: tuple[int, int]) -> Iterator[str]:
    kind = matrix.attrs.get("encoding-type", "array")
    by_rows = {"csr_matrix": shape[0], "csc_matrix": shape[1]}
    said = tuple(int(n) for n in (matrix.attrs["shape"] if kind in by_rows else matrix.shape))
    if said != shape:
        yield f"{place} has the shape {said}, and obs and var have {shape[0]:,} and {shape[1]:,} rows"
        return
    if kind not in by_rows:
        return
    n_stored, pointers = len(matrix["data"]), matrix["indptr"]
    if len(matrix["indices"]) != n_stored:
        yield f"{place} has {n_stored:,} numbers and {len(matrix['indices']):,} indices"
    if len(pointers) != by_rows[kind] + 1:
        yield f"{place} has {len(pointers):,} pointers for {by_rows[kind]:,} rows"
    elif not _rises(pointers, n_stored):
        yield f"the pointers of {place} do not rise from 0 to {n_stored:,}, which is how many numbers it has"


def _rises(pointers: h5py.Dataset, end: int) -> bool:
    """Whether row pointers go from 0 to `end` and never back."""
    last = 0
    for rows in row_blocks(len(pointers), BLOCK):
        values = pointers[rows]
        if values[0] < last or (np.diff(values) < 0).any() or (rows.start == 0 and values[0] != 0):
            return False
        last = int(values[-1])
    return last == end


def _number_problems(matrix: Any, place: str, *, counts: bool) -> Iterator[str]:
    """What is wrong with the numbers that a CSR matrix stores. counts: whole numbers are wanted."""
    if matrix.attrs.get("encoding-type") != "csr_matrix":
        yield f"{place} is no CSR matrix"
        return
    n_columns = int(matrix.attrs["shape"][1])
    outside = unfit = broken = 0
    for part in row_blocks(min(len(matrix["data"]), len(matrix["indices"])), BLOCK):
        columns, values = matrix["indices"][part], matrix["data"][part]
        outside += int(((columns < 0) | (columns >= n_columns)).sum())
        fits = np.isfinite(values) & (values >= 0)
        unfit += int((~fits).sum())
        broken += int((values[fits] % 1 != 0).sum()) if counts else 0
    if outside:
        yield f"{outside:,} numbers of {place} stand in columns that do not exist"
    if unfit:
        yield f"{unfit:,} numbers of {place} are negative, infinite or missing"
    if broken:
        yield f"{broken:,} numbers of {place} are not whole, as counts are"


# --- the annotation ---


def _annotation_problems(file: h5py.File, names: OutputNames, n_obs: int, merged: bool) -> Iterator[str]:
    """How an annotation breaks the output contract."""
    obs, obsm, uns = file["obs"], file["obsm"], file["uns"]
    if names.predictions not in uns:
        yield f"there is no uns['{names.predictions}']"
        return
    said = uns[names.predictions]
    always = {"uns": SAID, "obs": _always(names), "obsm": (names.embedding, names.umap, names.umap_explorer)}
    for place, there in () if merged else (("uns", said), ("obs", obs), ("obsm", obsm)):
        listed = _strings(said[f"{place}_keys"]) if place != "uns" and f"{place}_keys" in said else []
        for key in dict.fromkeys([*always[place], *listed]):
            by_explorer = explorer_keys(key) if "default_embedding" in uns else set()
            if key not in there and not (place == "obsm" and by_explorer & set(there)):
                where = f"{place}['{names.predictions}']" if place == "uns" else place
                yield f"{where} has no '{key}'"

    uncertain = [name for name in _own(said, obs, names) if name.endswith("_uncertainty")]
    shares = (names.cluster_vote, names.reference_distance, names.unexpected, names.novelty)
    for name in (*uncertain, *shares):
        if name in obs and hasattr(obs[name], "keys"):
            yield f"obs['{name}'] is no column of numbers"
        elif name in obs and (wrong := _outside(obs[name], merged)):
            yield f"obs['{name}'] has {wrong:,} values that are not from 0 to 1"
    for key in (names.embedding, names.umap, names.umap_explorer, names.reference_umap):
        if key in obsm:
            yield from _places_problems(obsm[key], key, n_obs, flat=key != names.embedding)
    if all(name in obs for name in _labels(names)):
        yield from _label_problems(obs, names, set(_strings(said["labels"])) if "labels" in said else None)


def _always(names: OutputNames) -> tuple[str, ...]:
    return (
        *(names.predicted, names.uncertainty, names.final, names.reason, names.cl_id, names.final_cl_id),
        *(names.cluster, names.cluster_label, names.cluster_vote),
    )


def _labels(names: OutputNames) -> tuple[str, str, str, str]:
    return names.predicted, names.final, names.reason, names.final_cl_id


def _own(said: h5py.Group, obs: h5py.Group, names: OutputNames) -> list[str]:
    """The annotation's columns: those that it lists; in a file of several samples, those of any."""
    if "obs_keys" in said:
        return [name for name in _strings(said["obs_keys"]) if name in obs]
    return [name for name in (names.uncertainty,) if name in obs]


def _outside(column: h5py.Dataset, missing_allowed: bool) -> int:
    """How many values are not from 0 to 1."""
    wrong = 0
    for rows in row_blocks(len(column), BLOCK):
        values = column[rows]
        fits = (values >= 0) & (values <= 1)
        wrong += int((~(fits | np.isnan(values)) if missing_allowed else ~fits).sum())
    return wrong


def _places_problems(places: h5py.Dataset, key: str, n_obs: int, *, flat: bool) -> Iterator[str]:
    """An embedding, or a map of two columns."""
    shape = places.shape
    if len(shape) != 2 or shape[0] != n_obs or shape[1] < 1 or (flat and shape[1] != 2):
        yield f"obsm['{key}'] has the shape {shape}, for {n_obs:,} cells"
        return
    blocks = row_blocks(n_obs, max(1, BLOCK // shape[1]))
    wrong = sum(int((~np.isfinite(places[rows]).all(axis=1)).sum()) for rows in blocks)
    if wrong:
        yield f"obsm['{key}'] has no finite place for {wrong:,} cells"


def _label_problems(obs: h5py.Group, names: OutputNames, labels: set[str] | None) -> Iterator[str]:
    """Predicted labels are the model's; a final one is the predicted, an ancestor of it with its id, or `unassigned`.

    labels: what the model can say; None where the file does not tell.
    """
    columns = {}
    for name in _labels(names):
        column = obs[name]
        if not hasattr(column, "keys") or "categories" not in column:
            yield f"obs['{name}'] is no categorical"
            return
        columns[name] = _strings(column["categories"])
    predicted, final, reason, final_id = (columns[name] for name in _labels(names))
    if unknown := sorted(set(reason) - set(REASONS)):
        yield f"obs['{names.reason}'] has '{unknown[0]}', which is no reason"
    if labels is not None and (unknown := sorted(set(predicted) - labels)):
        yield f"obs['{names.predicted}'] has '{unknown[0]}', which is no label of the model"

    known = set(predicted) if labels is None else labels
    same = np.array([[one == other for other in final] for one in predicted], dtype=bool)
    is_unassigned = np.array([name == UNASSIGNED for name in final], dtype=bool)
    is_other = np.array([name != UNASSIGNED and name not in known for name in final], dtype=bool)
    has_id = np.array([name != "" for name in final_id], dtype=bool)
    assigned = np.array([name == "" for name in reason], dtype=bool)
    gone = np.array([name in ("novel", "low_information") for name in reason], dtype=bool)
    missing = changed = kept = unfounded = 0
    n_rows = len(obs[names.predicted]["codes"])
    for rows in row_blocks(n_rows, BLOCK):
        p, f, r, i = (obs[name]["codes"][rows] for name in _labels(names))
        there = np.ones(len(p), dtype=bool)
        for codes, categories in ((p, predicted), (f, final), (r, reason), (i, final_id)):
            there &= (codes >= 0) & (codes < len(categories))
        missing += int((~there).sum())
        p, f, r, i = p[there], f[there], r[there], i[there]
        if len(p):
            changed += int((assigned[r] & ~same[p, f]).sum())
            kept += int((gone[r] & ~is_unassigned[f]).sum())
            unfounded += int((~assigned[r] & (is_other[f] & ~has_id[i])).sum())
    if missing:
        yield f"{missing:,} cells have no label, final label, reason or id by '{names.key}'"
    if changed:
        yield f"{changed:,} cells have another label in '{names.final}' than was predicted, and no reason"
    if kept:
        yield f"{kept:,} cells that the model does not know have a label in '{names.final}'"
    if unfounded:
        yield f"{unfounded:,} cells have a label in '{names.final}' that neither the model nor the Cell Ontology has"


def _strings(values: h5py.Dataset) -> list[str]:
    return [_text(value) for value in values[()].ravel()]


def _text(value: Any) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)
