"""Fetching a model: copy or unpack what Nextflow staged, verify it, keep it by its sha256."""

from __future__ import annotations

import errno
import fcntl
import os
import re
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from cellscribe.cli import warn
from cellscribe.errors import InputError, ModelFetchError
from cellscribe.io import atomic_path
from cellscribe.model.foreign import content_sha256, is_foreign, read_mlmodel
from cellscribe.model.manifest import (
    MANIFEST,
    file_sha256,
    list_files,
    model_sha256,
    plain_files,
    read_manifest,
    verify_model,
)
from cellscribe.model.unpack import Limits, no_manifest, unpack_model

_FETCHING = ".fetching-"
_ABANDONED_AFTER = 24 * 3600


def fetch_model(
    source: Path,
    destination: Path,
    sha256: str | None = None,
    *,
    trust_model_code: bool = False,
    limits: Limits | None = None,
) -> Path:
    """Put the model `source` at `destination`/<model sha256>/, verified; return that folder.

    source: a folder or an archive (zip, tar.gz, tar) on the local disk. sha256: if given, what the archive or
    the model (`identify_model`) must have. trust_model_code: whether an MLflow model made by others, whose code is run
    later, may be fetched too. Nothing is left in `destination` unless all is well, and a folder
    that is there already is kept if it is whole. Raises ModelFetchError (InputError for a wrong `sha256`).
    """
    source, destination = Path(source), Path(destination)
    wanted = _parse_sha256(sha256)
    destination.mkdir(parents=True, exist_ok=True)
    try:
        with _workspace(destination) as work:
            if source.is_dir():
                model, seen = work / "model", {}
                _copy_folder(source, model, trust_model_code)
            else:
                model = unpack_model(source, work, limits or Limits(), trust_model_code)
                seen = {"the archive": file_sha256(source)}
            what, identity = _told_by(model)
            seen[what] = identity
            if wanted and wanted not in seen.values():
                raise _other_sha256(wanted, seen, source)
            try:
                _verify(model)
            except ModelFetchError as error:
                # The temporary name would tell a user nothing.
                if isinstance(error.file, Path) and error.file.is_relative_to(model):
                    error.file = source / error.file.relative_to(model)
                raise
            return _keep(model, destination / identity)
    except PermissionError as error:
        raise ModelFetchError(f"no permission: {error}", "Make it readable.", file=source) from None


def identify_model(folder: Path) -> str:
    """The sha256 that a model is known by, once it is verified: of its manifest.json or, of a model made by others,
    of all that it holds (`content_sha256`). Raises ModelFetchError where it is not whole.
    """
    _verify(folder)
    return _told_by(folder)[1]


def check_identity(folder: Path, sha256: str | None, *, trust_model_code: bool = False) -> None:
    """Check a model where it lies. Raises ModelFetchError as `fetch_model` does."""
    wanted = _parse_sha256(sha256)
    if is_foreign(folder) and not trust_model_code:
        raise no_manifest(folder, folder)
    identity = identify_model(folder)
    if wanted and wanted != identity:
        raise _other_sha256(wanted, {_told_by(folder)[0]: identity}, folder)


def _verify(folder: Path) -> None:
    if is_foreign(folder):
        read_mlmodel(folder)
    else:
        verify_model(folder)


def _told_by(folder: Path) -> tuple[str, str]:
    """What a model's sha256 is that of, in words, and the sha256 itself."""
    if is_foreign(folder):
        return "all that it holds", content_sha256(folder)
    return f"its {MANIFEST}", model_sha256(folder)


def _other_sha256(wanted: str, seen: dict[str, str], source: Path) -> ModelFetchError:
    return ModelFetchError(
        f"expected sha256 {wanted}, but " + ", ".join(f"{what} has {value}" for what, value in seen.items()),
        "If this is the model you mean, give its sha256; else fetch the right one.",
        file=source,
    )


def note_archive(source: Path, kept: Path, folder: Path) -> None:
    """Write `folder`/<sha256 of the archive>.archive, which holds the model's own: a later run finds it by either.

    Nothing is written for a `source` that is a folder.
    """
    if source.is_dir():
        return
    with atomic_path(folder / f"{file_sha256(source)}.archive") as temporary:
        temporary.write_text(f"{kept.name}\n")


def _parse_sha256(text: str | None) -> str | None:
    if not text:
        return None
    if not re.fullmatch(r"[0-9a-fA-F]{64}", text):
        raise InputError(f"'{text}' is not a sha256", "Give 64 hexadecimal digits, as sha256sum prints them.")
    return text.lower()


@contextmanager
def _workspace(destination: Path) -> Iterator[Path]:
    """A folder of the block's own. One that a killed run left, more than a day ago, is removed."""
    for left in destination.glob(f"{_FETCHING}*"):
        with suppress(OSError):
            if time.time() - left.stat().st_mtime > _ABANDONED_AFTER:
                shutil.rmtree(left, ignore_errors=True)
    work = Path(tempfile.mkdtemp(dir=destination.resolve(), prefix=_FETCHING))
    try:
        yield work
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _keep(model: Path, target: Path) -> Path:
    """Rename a verified model to `target`; keep what another run put there first, if that is whole."""
    foreign = is_foreign(model)
    if _put(model, target):
        return target
    with suppress(ModelFetchError, FileNotFoundError):
        check_identity(target, target.name, trust_model_code=foreign)
        return target
    # Damaged, or just being replaced by a run that found it so: else two would put away each other's.
    with _alone_in(target.parent):
        try:
            check_identity(target, target.name, trust_model_code=foreign)
            return target
        except ModelFetchError as error:
            warn(f"the model kept at '{target}' was damaged and is replaced: {error.seen}")
        target.rename(model.parent / "damaged")
        if not _put(model, target):
            check_identity(target, target.name, trust_model_code=foreign)
    return target


def _put(model: Path, target: Path) -> bool:
    """Rename a model to `target`; False where something is there, which a rename does not replace."""
    try:
        model.rename(target)
    except OSError as error:
        if error.errno not in (errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR):
            raise
        return False
    return True


@contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    """Wait until no other process is in this block for `folder`. A process that is killed lets the next one in."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        # Not every file system of a network has locks.
        with suppress(OSError):
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _copy_folder(source: Path, target: Path, trust_model_code: bool) -> None:
    """Copy a model folder's own files, links within it followed."""
    if is_foreign(source) and trust_model_code:
        names = plain_files(source)
    elif not (source / MANIFEST).is_file():
        raise no_manifest(source, source)
    else:
        names = [MANIFEST, *list_files(source)]
        read_manifest(source)
    for name in names:
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source / name, target / name)
