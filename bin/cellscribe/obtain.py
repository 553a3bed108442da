"""FETCH_MODEL, and a model for one command without Nextflow: by its name in the catalogue or an MLflow registry, from a
path, or from an address.

A model is known by the sha256 of what it holds, never by the name of its file: a new version behind an old name is a
new model.
"""

from __future__ import annotations

import shutil
import tempfile
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPException
from pathlib import Path, PurePosixPath
from typing import IO
from urllib.error import URLError

from cellscribe.catalogue import NotInCatalogueError, find_entry, read_catalogue
from cellscribe.cli import log
from cellscribe.errors import CellscribeError, InputError, ModelFetchError
from cellscribe.model.foreign import is_foreign
from cellscribe.model.manifest import file_sha256
from cellscribe.model.store import check_identity, fetch_model, note_archive
from cellscribe.places import hidden, is_registered, is_uri
from cellscribe.progress import progress
from cellscribe.registry import downloaded, parse_name, resolve

CATALOGUE = Path(__file__).resolve().parents[2] / "assets" / "models.csv"
ARCHIVES = (".zip", ".gz", ".tgz", ".tar")
_CHUNK = 2**20


@contextmanager
def obtained_model(
    named: str,
    *,
    sha256: str = "",
    cache: Path = Path(".models_cache"),
    use_cache: bool = True,
    trust_model_code: bool = False,
    tracking_uri: str = "",
) -> Iterator[Path]:
    """Give the verified folder of the model `named`: a name of the catalogue or of an MLflow registry (`models:/...`),
    a folder, an archive or an address.

    sha256: what the archive or the model (`identify_model`) must have. trust_model_code: whether it may be one made by
    others, whose code is run later. tracking_uri: the registry's server. A folder is used where it lies; what an
    archive or a registry holds is kept at `cache`/<model's sha256>, and taken from there when it is asked for again;
    without `use_cache` it is kept nowhere. Raises ModelFetchError, and InputError for a name that is not in the
    catalogue.
    """
    source, wanted = _place(named, sha256)
    if not is_uri(source) and Path(source).is_dir():
        check_identity(Path(source), wanted, trust_model_code=trust_model_code)
        yield Path(source)
        return
    with tempfile.TemporaryDirectory() as scratch:
        store = cache if use_cache else Path(scratch) / "models"
        if is_registered(source):
            yield _registered(source, tracking_uri, wanted, store, trust_model_code)
            return
        # An archive of this disk is read again each time, as only what it holds tells which model it is.
        known = wanted if is_uri(source) else wanted or _sha256_of(Path(source))
        model = _kept(store, known, trust_model_code)
        if model is None:
            archive = _download(source, Path(scratch)) if is_uri(source) else Path(source)
            log(f"Unpacking and verifying {archive.name}")
            model = fetch_model(archive, store, wanted, trust_model_code=trust_model_code)
            note_archive(archive, model, store)
            if is_uri(source) and not wanted and use_cache:
                log(f"Nothing is downloaded again with --model-sha256 {model.name}")
        else:
            log(f"Using the model kept at {model}")
        yield model


def put_into_store(
    named: str,
    store: Path,
    *,
    sha256: str = "",
    archives: Path | None = None,
    trust_model_code: bool = False,
    tracking_uri: str = "",
) -> Path:
    """Keep the model `named` at `store`/<its sha256>, verified and read; return that folder.

    named: a folder, an archive or a name of an MLflow registry (`models:/...`), whose server is tracking_uri. sha256:
    what the archive or the model (`identify_model`) must have, "" for any. archives: where it is noted which archive
    holds which model; None for nowhere. trust_model_code: whether it may be one made by others, which is not read here,
    as that runs its code. Raises ModelFetchError where the model is not whole or cannot be used, InputError for what is
    no sha256; nothing is left of it in `store` then.
    """
    if is_registered(named):
        with downloaded(resolve(parse_name(named), tracking_uri)) as folder:
            kept = fetch_model(folder, store, sha256, trust_model_code=trust_model_code)
    else:
        kept = fetch_model(Path(named), store, sha256, trust_model_code=trust_model_code)
    if not is_foreign(kept):
        _check_use(kept, Path(named))
    if archives is not None and not is_registered(named):
        note_archive(Path(named), kept, archives)
    return kept


def _check_use(kept: Path, source: Path) -> None:
    """Read a model of ours; one that cannot be used is removed, and the error names its file in `source`."""
    from cellscribe.model.model import Model

    try:
        Model(kept).check()
    except CellscribeError as error:
        # Nothing is left of it, and the name of the copy would tell a user nothing.
        if isinstance(error.file, Path) and error.file.is_relative_to(kept):
            error.file = source / error.file.relative_to(kept)
        shutil.rmtree(kept)
        raise


def _registered(source: str, tracking_uri: str, wanted: str, store: Path, trust_model_code: bool) -> Path:
    """A model of an MLflow registry, in `store`; a version that says what it holds is not downloaded twice."""
    version = resolve(parse_name(source), tracking_uri)
    if wanted and version.sha256 and wanted != version.sha256:
        raise ModelFetchError(
            f"{version.url} has the sha256 {version.sha256}, not {wanted}",
            "Name the version that has it, or correct the sha256.",
            file=source,
        )
    model = _kept(store, wanted or version.sha256, trust_model_code)
    if model is not None:
        log(f"Using the model kept at {model}, which is {version.url}")
        return model
    with downloaded(version) as folder:
        return fetch_model(folder, store, wanted or version.sha256, trust_model_code=trust_model_code)


def _place(named: str, sha256: str) -> tuple[str, str]:
    """Where the model lies and the sha256 that it must have, "" for any."""
    if is_uri(named) or "/" in named or named.lower().endswith(ARCHIVES) or Path(named).exists():
        return named, sha256.lower()
    entries = read_catalogue(CATALOGUE, str(CATALOGUE.parent), problem=log)
    try:
        entry = find_entry(named, entries)
    except NotInCatalogueError as error:
        raise InputError(
            f"--model-url: {error}, and there is no file or folder of that name", "Correct it."
        ) from None
    return entry.source, (sha256 or entry.sha256).lower()


def _sha256_of(path: Path) -> str:
    return file_sha256(path) if path.is_file() else ""


def _kept(store: Path, sha256: str, trust_model_code: bool) -> Path | None:
    """The whole model in `store` that has this sha256, or that came from the archive that has it."""
    note = store / f"{sha256}.archive"
    folder = store / (note.read_text().strip() if sha256 and note.is_file() else sha256)
    if not sha256 or not folder.is_dir():
        return None
    try:
        check_identity(folder, folder.name, trust_model_code=trust_model_code)
    except (ModelFetchError, InputError):
        return None
    return folder


def _download(url: str, folder: Path) -> Path:
    """Fetch `url` (https, http, ftp or file) into `folder`, and say how far it is."""
    scheme = url.partition("://")[0].lower()
    if scheme not in ("https", "http", "ftp", "file"):
        raise ModelFetchError(
            f"{scheme}:// is not read without Nextflow",
            "Download the model and give the file, give its https address, or use `nextflow run`.",
            file=hidden(url),
        )
    target = folder / (PurePosixPath(url.split("?")[0]).name or "model")
    try:
        with urllib.request.urlopen(url, timeout=60) as answer, target.open("wb") as out:
            length = int(answer.headers.get("Content-Length") or 0)
            log(f"Downloading {target.name}" + (f" ({length / 1e6:,.1f} MB)" if length else ""))
            _copy(answer, out, length)
    # The last two: an address with a space, a port that is no number, letters beyond ASCII.
    except (URLError, OSError, HTTPException, ValueError) as error:
        raise ModelFetchError(
            f"could not be downloaded: {hidden(str(error))}",
            "Check the address and the network.",
            file=hidden(url),
        ) from None
    return target


def _copy(answer: IO[bytes], out: IO[bytes], length: int) -> None:
    """Copy in chunks of 1 MB. length: in bytes, 0 where the server did not tell."""
    chunks = iter(lambda: answer.read(_CHUNK), b"")
    if length:
        chunks = progress(chunks, total=-(-length // _CHUNK), label="MB")
    for chunk in chunks:
        out.write(chunk)
