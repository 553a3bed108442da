"""The annotation, added to a copy of the file of counts."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from cellscribe.contract import OutputNames
from cellscribe.errors import InputError
from cellscribe.explorer import explorer_warnings
from cellscribe.io import COMPRESSION, plain_columns
from cellscribe.verify import PREDICTIONS, verified_path

if TYPE_CHECKING:
    from cellscribe.annotation import Annotation


def write_annotated(counts: Path, annotation: Annotation, output: Path, *, ours: bool = False) -> list[str]:
    """Copy the filtered counts file and add the annotation to the copy; the matrix is never read.

    What an earlier annotation of the same name added goes, so that nothing of another model stays beside it. Returns
    in sentences what CELLxGENE Explorer will not show of the file. ours: whether `counts` is a counts file of ours,
    which is looked at whole. Raises OutputError where the file, opened again, breaks the output contract; nothing of it
    is kept.
    """
    import anndata
    import h5py
    from anndata.io import read_elem, write_elem

    keys = [key.removesuffix(PREDICTIONS) for key in annotation.uns]
    with (
        verified_path(output, keys, ours=ours) as temporary,
        anndata.settings.override(allow_write_nullable_strings=False),
    ):
        shutil.copyfile(counts, temporary)
        with h5py.File(temporary, "r+") as file:
            earlier = _earlier(file, annotation.names, read_elem)
            if isinstance(file["obs"], h5py.Dataset):
                raise InputError(
                    "this .h5ad is of an anndata before 0.7, and no columns can be added to it",
                    "Read it with a recent anndata and write it again.",
                    file=counts,
                )
            obs = read_elem(file["obs"])
            # A file may have lost what said which columns were an annotation's, and kept these.
            levels = annotation.info["levels"]
            columns = set().union(*(OutputNames(key).columns(levels) for key in keys))
            arrays = set().union(*(OutputNames(key).arrays() for key in keys))
            gone = {*annotation.obs.columns, *earlier.get("obs_keys", ()), *columns}
            obs = obs.drop(columns=[c for c in obs.columns if c in gone])
            obs = pd.concat([obs, annotation.obs.set_axis(obs.index, axis=0)], axis=1)
            plain_columns(obs)
            _replace(file, "obs", obs, write_elem)
            for group in ("obsm", "uns"):
                if group not in file:
                    write_elem(file, group, {})
            for key in {*earlier.get("obsm_keys", ()), *arrays}:
                if key in file["obsm"]:
                    del file["obsm"][key]
            for key in earlier.get("uns_keys", ()):
                if key in file["uns"]:
                    del file["uns"][key]
            for key, array in annotation.obsm.items():
                _replace(file["obsm"], key, array, write_elem)
            for key, said in annotation.uns.items():
                _replace(file["uns"], key, said, write_elem)
            return explorer_warnings(obs, file["obsm"])


def _earlier(file: Any, names: OutputNames, read_elem: Any) -> dict[str, list[str]]:
    """Which keys of obs, obsm and uns an annotation of this name wrote before; empty for another program's."""
    key = f"uns/{names.predictions}"
    try:
        found = read_elem(file[key]) if key in file else {}
    except Exception:
        # What anndata cannot read is none of ours.
        return {}
    if not isinstance(found, dict):
        return {}
    return {
        part: [str(name) for name in found.get(part, ()) if names.key in str(name)]
        for part in ("obs_keys", "obsm_keys", "uns_keys")
    }


def _replace(group: Any, key: str, value: Any, write_elem: Any) -> None:
    if key in group:
        del group[key]
    write_elem(group, key, value, dataset_kwargs={} if isinstance(value, dict) else COMPRESSION)
