"""A model folder as one zip, which CELLxGENE Annotate, MLflow's users and FETCH_MODEL unpack."""

from __future__ import annotations

import zipfile
from collections.abc import Iterable
from pathlib import Path

from cellscribe.io import atomic_path
from cellscribe.model.manifest import MANIFEST, list_files, read_manifest, verify_model

# The earliest date that a zip can hold.
_NO_DATE = (1980, 1, 1, 0, 0, 0)
_UNIX, _PLAIN_FILE = 3, 0o100644


def pack_model(folder: Path, target: Path) -> Path:
    """Write a verified model folder to `target` (.zip), MLmodel at its top; return `target`.

    The same model gives the same bytes on every machine. Raises ModelFetchError where the folder is not what its
    manifest says.
    """
    folder = Path(folder)
    verify_model(folder)
    with atomic_path(Path(target)) as temporary:
        zip_files(folder, (MANIFEST, *list_files(folder)), temporary)
    return Path(target)


def zip_files(folder: Path, names: Iterable[str], target: Path) -> None:
    """Write files of a folder, by their names in it, to a zip whose bytes are the same on every machine: names in
    order, no dates, one mode, and nothing compressed, as that would depend on the version of zlib.
    """
    with zipfile.ZipFile(target, "w") as archive:
        for name in sorted(names):
            member = zipfile.ZipInfo(name, _NO_DATE)
            member.create_system = _UNIX
            member.external_attr = _PLAIN_FILE << 16
            archive.writestr(member, (folder / name).read_bytes())


def archive_name(folder: Path) -> str:
    """`<name>-<version>.zip`: what the model is called, and which one it is."""
    manifest = read_manifest(folder)
    return f"{manifest['name']}-{manifest['version']}.zip"
