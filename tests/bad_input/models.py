"""Models, as FETCH_MODEL meets them."""

from __future__ import annotations

import io
import json
import pickle
import re
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

from bad_input.case import Case, Holds, Maker
from model_maker import make_model
from small_model import small_model

from cellscribe.model.manifest import MANIFEST, file_sha256, model_sha256, verify_model

Change = Callable[[Path], None]


def given_model() -> Path:
    return small_model("logistic")


def model(change: Change | None = None, *options: object) -> Maker:
    """A model folder, of which `change` makes something else; its files hold their own names and nothing more."""

    def make(given: Path) -> list[object]:
        folder = make_model(given / "tiny")
        if change is not None:
            change(folder)
        return ["--model", folder, *options]

    return make


def packed(
    kind: str, change: Change | None = None, *, of: Callable[[], Path] | None = None, top: str = "tiny"
) -> Maker:
    """The same as an archive, of which `change` makes something else. of: another model, to be packed as it is."""

    def make(given: Path) -> list[object]:
        folder, archive = of() if of else make_model(given / "tiny"), given / f"m.{kind}"
        if kind == "zip":
            with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as opened:
                for path in sorted(folder.rglob("*")):
                    opened.write(path, f"{top}/{path.relative_to(folder)}")
        else:
            with tarfile.open(archive, "w:" if kind == "tar" else "w:gz") as opened_tar:
                opened_tar.add(folder, top)
        if change is not None:
            change(archive)
        return ["--model", archive]

    return make


def added(name: str, content: bytes = b"x") -> Change:
    def change(archive: Path) -> None:
        with zipfile.ZipFile(archive, "a", zipfile.ZIP_DEFLATED, compresslevel=1) as opened:
            opened.writestr(name, content)

    return change


def tar_of(*members: tarfile.TarInfo) -> Maker:
    def make(given: Path) -> list[object]:
        folder, archive = make_model(given / "tiny"), given / "m.tar.gz"
        with tarfile.open(archive, "w:gz") as opened:
            opened.add(folder, "tiny")
            for member in members:
                opened.addfile(member, io.BytesIO(b"\0" * member.size) if member.isreg() else None)
        return ["--model", archive]

    return make


def member(name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.size = kind, link, 1 if kind == tarfile.REGTYPE else 0
    return info


def zip_link(archive: Path) -> None:
    link = zipfile.ZipInfo("tiny/l.json")
    link.create_system, link.external_attr = 3, 0o120777 << 16
    with zipfile.ZipFile(archive, "a") as opened:
        opened.writestr(link, "/etc/passwd")


def bomb(archive: Path) -> None:
    """300 MB of zeros, in 1.3 MB."""
    with (
        zipfile.ZipFile(archive, "a", zipfile.ZIP_DEFLATED, compresslevel=1) as opened,
        opened.open("tiny/zeros.json", "w") as out,
    ):
        for _ in range(300):
            out.write(bytes(2**20))


def cut(share: float) -> Change:
    def change(archive: Path) -> None:
        whole = archive.read_bytes()
        archive.write_bytes(whole[: int(len(whole) * share)])

    return change


def without(name: str) -> Change:
    return lambda folder: (folder / name).unlink()


def written(name: str, content: bytes) -> Change:
    return lambda folder: (folder / name).write_bytes(content)


def manifest(**changes: object) -> Change:
    """Change fields of the manifest; None takes one out."""

    def change(folder: Path) -> None:
        whole = {**json.loads((folder / MANIFEST).read_text()), **changes}
        (folder / MANIFEST).write_text(
            json.dumps({name: value for name, value in whole.items() if value is not None})
        )

    return change


def link_out(folder: Path) -> None:
    (folder / "genes.tsv").unlink()
    (folder / "genes.tsv").symlink_to("/etc/passwd")


def encrypted(archive: Path) -> None:
    data = bytearray(archive.read_bytes())
    for signature, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        for found in re.finditer(re.escape(signature), bytes(data)):
            data[found.start() + offset] |= 1
    archive.write_bytes(data)


def one_file(name: str, content: bytes) -> Maker:
    def make(given: Path) -> list[object]:
        (given / name).write_bytes(content)
        return ["--model", given / name]

    return make


def two_models(given: Path) -> list[object]:
    make_model(given / "both" / "one")
    make_model(given / "both" / "two")
    with tarfile.open(given / "m.tar", "w") as opened:
        opened.add(given / "both", "")
    return ["--model", given / "m.tar"]


def outs(given: Path) -> Path:
    (given / "outs").mkdir()
    (given / "outs" / "matrix.mtx").touch()
    return given / "outs"


def theirs(given: Path) -> list[object]:
    (given / "theirs").mkdir()
    (given / "theirs" / "MLmodel").write_text("flavors:\n  python_function: {python_model: m.pkl}\n")
    (given / "theirs" / "m.pkl").write_bytes(pickle.dumps("model"))
    return ["--model", given / "theirs"]


def whole(out: Path) -> None:
    (folder,) = (out / "models").iterdir()
    verify_model(folder)
    assert folder.name == model_sha256(folder)


WHOLE = Holds("the model is kept by its sha256", whole)


def bad(what: str, make: Maker, *says: str, code: int = 6) -> Case:
    return Case(what, "FETCH_MODEL", make, code, says)


def good(what: str, make: Maker) -> Case:
    return Case(what, "FETCH_MODEL", make, 0, ("the model is whole",), WHOLE)


def by_sha256(given: Path) -> list[object]:
    arguments = packed("zip", of=given_model)(given)
    return [*arguments, "--sha256", file_sha256(Path(str(arguments[1]))).upper()]


OUT_OF_IT = "has a path that leads out of the model"

MODELS = [
    good("a model folder", lambda _: ["--model", given_model()]),
    good("a model as a zip", packed("zip", of=given_model)),
    good("a model as a tar.gz", packed("tar.gz", of=given_model)),
    good("an archive and its sha256, in capitals", by_sha256),
    bad("a model that is nowhere", lambda given: ["--model", given / "none"], "there is no such file or folder"),
    bad("a model without one of its files", model(without("genes.tsv")), "genes.tsv",
        "lists this file, but it is missing",
        "Fetch the model again"),
    bad("a model of which a file was changed", model(written("genes.tsv", b"genesXtsv")), "genes.tsv",
        "the file was changed"),
    bad("a model of which a file is cut short", model(written("genes.tsv", b"g")), "says 9 bytes, the file has 1"),
    bad("a model with a file too many", model(written("more.txt", b"x")), "more.txt", "does not list", "Remove it"),
    bad("a model with a pickle in it", model(written("weights.pkl", pickle.dumps(1))), "weights.pkl",
        "it could run code"),
    bad("a model whose files are not what they are called", model(), "manifest.json",
        "this part of the model cannot be used", "ask whoever made it"),
    bad("a wrong sha256", model(None, "--sha256", "f" * 64), f"expected sha256 {'f' * 64}", "manifest.json has",
        "give its sha256"),
    bad("a sha256 that is none", model(None, "--sha256", "abc"), "'abc' is not a sha256",
        "64 hexadecimal digits", code=3),
    bad("a zip cut short", packed("zip", cut(0.6)), "m.zip", "truncated or damaged", "Download or pack it again"),
    bad("a tar.gz cut short", packed("tar.gz", cut(0.6)), "m.tar.gz", "truncated or damaged"),
    bad("an archive with `../`", packed("zip", added("tiny/../../evil.json")), "'tiny/../../evil.json'", OUT_OF_IT),
    bad("an archive with an absolute path", packed("zip", added("/tmp/evil.json")), "'/tmp/evil.json'", OUT_OF_IT),
    bad("an archive with a Windows path", packed("zip", added("C:\\evil.json")), "evil.json", OUT_OF_IT),
    bad("a tar.gz with `../`", tar_of(member("../evil.json")), "'../evil.json'", OUT_OF_IT),
    bad("a tar.gz with an absolute path", tar_of(member("/tmp/evil.json")), "'/tmp/evil.json'", OUT_OF_IT),
    bad("a tar.gz with a link", tar_of(member("tiny/l.json", tarfile.SYMTYPE, "/etc/passwd")), "'tiny/l.json'",
        "is a link"),
    bad("a tar.gz with a hard link", tar_of(member("tiny/l.json", tarfile.LNKTYPE, "tiny/genes.tsv")), "is a link"),
    bad("a zip with a link", packed("zip", zip_link), "'tiny/l.json'", "is a link"),
    bad("a folder with a link out of it", model(link_out), "genes.tsv", "is a link to '/etc/passwd'", "cp -rL"),
    bad("a zip bomb", packed("zip", bomb), "unpacks to more than 200 times its size", "no model does"),
    bad("an encrypted zip", packed("zip", encrypted), "is encrypted"),
    bad("two files by one name", packed("zip", added("tiny/GENES.tsv")), "collides with 'tiny/genes.tsv'"),
    bad("two models in one archive", two_models, "the archive holds 2 models: one, two", "Give one of them"),
    bad("junk beside the model", packed("zip", added("__MACOSX/._tiny")), "'__MACOSX' lies beside the model 'tiny'"),
    bad("an empty file as a model", one_file("m.zip", b""), "the file is empty", "Download"),
    bad("an h5ad as a model", one_file("cells.h5ad", b"\x89HDF\r\n\x1a\n" + bytes(600)),
        "this is an AnnData file (HDF5), not a model", "--mode train --reference"),
    bad("a web page as a model", one_file("m.zip", b"<!DOCTYPE html><html>Sign in</html>"),
        "this is a web page, not a model", "Use the address of the file itself"),
    bad("a bucket's error as a model", one_file("m.zip", b'<?xml version="1.0"?><Error>AccessDenied</Error>'),
        "this is a web page"),
    bad("a pickle as a model", one_file("m.pkl", pickle.dumps(1)), "pickled Python object", "--mode train --reference"),
    bad("an archive of another kind", one_file("m.7z", b"7z\xbc\xaf\x27\x1c"), "no archive that can be read",
        "zip, tar.gz or tar"),
    bad("a folder of Cell Ranger as a model", lambda given: ["--model", outs(given)], "there is no manifest.json",
        "it holds matrix.mtx"),
    bad("a model made by others, not trusted", theirs, "MLflow model made by others", "--trust_model_code"),
    bad("a newer manifest", model(manifest(format_version=9)), "format version 9, newer than this cellscribe reads",
        "Use a newer release of cellscribe"),
    bad("a manifest of another program", model(manifest(format="other")), "is not that of a cellscribe model"),
    bad("a manifest that is no JSON", model(written(MANIFEST, b"{")), "manifest.json is not valid JSON"),
    bad("a manifest in which a name stands twice", model(written(MANIFEST, b'{"format": 1, "format": 2}')),
        "a key stands in it twice"),
    bad("a manifest of 100,000 brackets", model(written(MANIFEST, b"[" * 100_000)), "manifest.json is not valid JSON"),
    bad("a manifest without its labels", model(manifest(labels=None)), "does not describe a model of format 1",
        "labels"),
    bad("a manifest of an organism that there is not", model(manifest(organism="cat")), "organism: 'cat'"),
    bad("no model", lambda given: [], "Missing option '--model'", code=2),
]  # fmt: skip
