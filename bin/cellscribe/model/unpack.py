"""Unpacking a model's archive, trusting none of it: neither its names nor its sizes nor what kind it says it is."""

from __future__ import annotations

import errno
import gzip
import io
import stat
import struct
import tarfile
import zipfile
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from cellscribe.errors import ModelFetchError
from cellscribe.model.foreign import MLMODEL, is_foreign
from cellscribe.model.manifest import MANIFEST
from cellscribe.words import some

_WHAT_TO_GIVE = "Give a model folder that --mode train made, or a zip, tar.gz or tar of one."
_AGAIN = "Download or pack it again, and compare its size and sha256 with those where it came from."
_BROKEN = (
    tarfile.TarError,
    zipfile.BadZipFile,
    gzip.BadGzipFile,
    zlib.error,
    EOFError,
    NotImplementedError,
    RuntimeError,
    ValueError,
    OverflowError,
    struct.error,
)


@dataclass(frozen=True)
class Limits:
    """What an archive may unpack to. A model has some 15 files and, trained on an atlas, a few gigabytes."""

    n_members: int = 2_000
    total_bytes: int = 20 * 2**30
    ratio: int = 200
    ratio_from_bytes: int = 256 * 2**20
    one_read: int = 16 * 2**20
    headers: int = 2**20


@dataclass
class _Budget:
    """Counts what was really unpacked: the sizes that an archive declares may lie."""

    archive: Path
    limits: Limits
    packed: int
    n_members: int = 0
    n_bytes: int = 0
    seen: dict[str, str] = field(default_factory=dict)

    def add_bytes(self, n: int) -> None:
        self.n_bytes += n
        if self.n_bytes > self.limits.total_bytes:
            raise self._bomb(f"unpacks to more than {self.limits.total_bytes:,} bytes")
        if self.n_bytes > self.limits.ratio_from_bytes and self.n_bytes > self.limits.ratio * self.packed:
            raise self._bomb(
                f"unpacks to more than {self.limits.ratio} times its size ({self.packed:,} bytes)"
            )

    def add_member(self) -> None:
        self.n_members += 1
        if self.n_members > self.limits.n_members:
            raise self._bomb(f"holds more than {self.limits.n_members:,} files and folders")

    def add_name(self, name: str) -> None:
        other = self.seen.get(name.casefold())
        if other is not None:
            raise _refused(
                self.archive, name, "is in it twice" if other == name else f"collides with '{other}'"
            )
        self.seen[name.casefold()] = name

    def _bomb(self, what: str) -> ModelFetchError:
        return ModelFetchError(f"the archive {what}: no model does", _WHAT_TO_GIVE, file=self.archive)


def unpack_model(archive: Path, work: Path, limits: Limits, trust_model_code: bool) -> Path:
    """Unpack an archive below `work`; return the one folder that holds a model.

    trust_model_code: whether an MLflow model made by others is one too. Raises ModelFetchError for an archive that is
    damaged, unpacks to more than `limits` allow, has a member that is no plain file within it, or holds no model alone.
    """
    unpacked = work / "unpacked"
    unpacked.mkdir()
    kind = _archive_kind(archive)
    budget = _Budget(archive, limits, archive.stat().st_size)
    try:
        if kind == "zip":
            _unpack_zip(archive, unpacked, budget)
        else:
            _unpack_tar(archive, unpacked, budget, gzipped=kind == "gzip")
    except (*_BROKEN, OSError) as error:
        # A damaged archive may name an offset that cannot be; a full disk is not the archive's fault.
        if (
            isinstance(error, OSError)
            and not isinstance(error, gzip.BadGzipFile)
            and error.errno != errno.EINVAL
        ):
            raise
        raise ModelFetchError(
            f"the archive is truncated or damaged ({type(error).__name__}: {error})", _AGAIN, file=archive
        ) from None
    return _model_root(unpacked, archive, trust_model_code)


def _archive_kind(path: Path) -> str:
    """`zip`, `gzip` or `tar` by the first bytes; what is none of them is told by what it looks like."""
    if not path.exists():
        raise ModelFetchError("there is no such file or folder", "Check --model.", file=path)
    if not stat.S_ISREG(path.stat().st_mode):
        raise ModelFetchError("this is neither a plain file nor a folder", _WHAT_TO_GIVE, file=path)
    with path.open("rb") as handle:
        head = handle.read(1024)
    start = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if not head:
        raise ModelFetchError("the file is empty", _AGAIN, file=path)
    if head.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        return "zip"
    if head.startswith(b"\x1f\x8b"):
        return "gzip"
    if head[257:262] == b"ustar":
        return "tar"
    if head.startswith(b"\x89HDF\r\n\x1a\n"):
        raise ModelFetchError(
            "this is an AnnData file (HDF5), not a model",
            "Pass it as --input to name its cells, or make a model of it with --mode train --reference.",
            file=path,
        )
    if start.startswith((b"<!doctype", b"<html", b"<?xml", b"<head", b"<body")):
        raise ModelFetchError(
            "this is a web page, not a model: the address answered with a page (a login, an error, "
            "or the page that leads to the download)",
            "Use the address of the file itself, or download it in a browser and give the file.",
            file=path,
        )
    if head[:1] == b"\x80" or path.suffix.lower() in (".pkl", ".pickle", ".joblib", ".pt", ".pth"):
        raise ModelFetchError(
            "this is a pickled Python object, which could run any code when it is read, so it is not read",
            "Train a model from the labelled reference instead: --mode train --reference.",
            file=path,
        )
    raise ModelFetchError(
        f"this is no archive that can be read (its first bytes are {head[:8]!r})", _WHAT_TO_GIVE, file=path
    )


def _unpack_zip(archive: Path, target: Path, budget: _Budget) -> None:
    with zipfile.ZipFile(archive) as opened:
        for member in opened.infolist():
            budget.add_member()
            name = _safe_name(member.orig_filename, archive)
            kind = stat.S_IFMT(member.external_attr >> 16)
            if member.is_dir() or not name:
                continue
            if kind not in (0, stat.S_IFREG):
                raise _refused(archive, name, "is a link or a device, not a file")
            if member.flag_bits & 1:
                raise _refused(archive, name, "is encrypted")
            # Python unpacks other kinds in pieces of any size, before one can look how large they are.
            if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise _refused(archive, name, "is compressed in another way than zip's usual one (deflate)")
            with opened.open(member) as stream:
                _write_member(stream, name, target, budget)


def _unpack_tar(archive: Path, target: Path, budget: _Budget, *, gzipped: bool) -> None:
    with archive.open("rb") as raw:
        plain: Any = gzip.GzipFile(fileobj=raw) if gzipped else raw
        guarded = _Guarded(plain, budget)
        with tarfile.open(fileobj=guarded, mode="r:") as opened:
            for member in opened:
                guarded.header_bytes = 0
                budget.add_member()
                name = _safe_name(member.name, archive)
                if member.isdir():
                    continue
                if not member.isreg() or member.issparse():
                    raise _refused(archive, name, "is a link, a device or a sparse file, not a plain file")
                stream = opened.extractfile(member)
                assert stream is not None
                guarded.in_header = False
                _write_member(stream, name, target, budget)
                guarded.in_header = True


class _Guarded(io.RawIOBase):
    """A decompressed stream that refuses a huge read: only a header that lies about its size asks for it.

    in_header: whether what is read is a member's headers, of which there may be many, each holding the next one's; they
    are all held at once.
    """

    def __init__(self, stream: IO[bytes], budget: _Budget) -> None:
        self._stream, self._budget = stream, budget
        self.in_header, self.header_bytes = True, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        if size < 0 or size > self._budget.limits.one_read:
            raise ModelFetchError(
                f"a header in the archive says that it is {size:,} bytes long",
                _WHAT_TO_GIVE,
                file=self._budget.archive,
            )
        self.header_bytes += size if self.in_header else 0
        if self.header_bytes > self._budget.limits.headers:
            raise ModelFetchError(
                f"a member's headers in the archive take more than {self._budget.limits.headers:,} bytes",
                _WHAT_TO_GIVE,
                file=self._budget.archive,
            )
        return self._stream.read(size)

    def seek(self, offset: int, whence: int = 0) -> int:
        return self._stream.seek(offset, whence)

    def tell(self) -> int:
        return self._stream.tell()


def _safe_name(name: str, archive: Path) -> str:
    """The member's relative path in one spelling; "" for the top folder itself."""
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if (
        name.startswith("/")
        or ".." in parts
        or "\\" in name
        or ":" in name
        or not name.isprintable()
        or len(name) > 500
        or any(len(part.encode(errors="replace")) > 255 for part in parts)
    ):
        raise _refused(
            archive, name[:200], "has a path that leads out of the model, or that not every system can hold"
        )
    return "/".join(parts)


def _write_member(stream: IO[bytes], name: str, target: Path, budget: _Budget) -> None:
    budget.add_name(name)
    path = target / name
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("xb") as out:
            while chunk := stream.read(2**20):
                budget.add_bytes(len(chunk))
                out.write(chunk)
    except (FileExistsError, NotADirectoryError, IsADirectoryError):
        raise _refused(budget.archive, name, "is both a file and a folder") from None


def _model_root(unpacked: Path, archive: Path, trust_model_code: bool) -> Path:
    def is_model(folder: Path) -> bool:
        return (folder / MANIFEST).is_file() or (trust_model_code and is_foreign(folder))

    if is_model(unpacked):
        return unpacked
    entries = sorted(unpacked.iterdir())
    models = [entry for entry in entries if is_model(entry)]
    if len(models) > 1:
        raise ModelFetchError(
            f"the archive holds {len(models)} models: {', '.join(entry.name for entry in models[:10])}",
            "Give one of them.",
            file=archive,
        )
    if not models:
        raise no_manifest(entries[0] if len(entries) == 1 else unpacked, archive)
    if len(entries) > 1:
        beside = next(entry for entry in entries if entry != models[0])
        raise _refused(
            archive, beside.name, f"lies beside the model '{models[0].name}', which should be alone"
        )
    return models[0]


def no_manifest(folder: Path, shown: Path) -> ModelFetchError:
    """What a folder without a manifest seems to be, as an error. shown: the file or folder that the user gave."""
    names = sorted(entry.name for entry in folder.iterdir()) if folder.is_dir() else [folder.name]
    if MLMODEL in names:
        return ModelFetchError(
            f"this is an MLflow model made by others (it holds {MLMODEL}, but no {MANIFEST} of cellscribe): "
            "to use it means to run its code with your rights, on your data",
            "If you trust whoever made it, say so with --trust_model_code (docs/models.md); else use a model that "
            "cellscribe trained, or train one from labelled cells with --mode train.",
            file=shown,
        )
    return ModelFetchError(
        f"there is no {MANIFEST} at its top or in a single top folder (it holds {some(names, 8) or 'no file'})",
        _WHAT_TO_GIVE,
        file=shown,
    )


def _refused(archive: Path, name: str, what: str) -> ModelFetchError:
    return ModelFetchError(f"the archive's member {name!r} {what}", _WHAT_TO_GIVE, file=archive)
