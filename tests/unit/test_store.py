"""Fetching a model: whole ones are kept by their sha256, and no archive gets a file where it should not."""

from __future__ import annotations

import io
import os
import pickle
import re
import signal
import struct
import subprocess
import tarfile
import time
import traceback
import zipfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from model_maker import make_model

from cellscribe.errors import InputError, ModelFetchError
from cellscribe.model.foreign import content_sha256
from cellscribe.model.manifest import MANIFEST, file_sha256, model_sha256, verify_model
from cellscribe.model.store import check_identity, fetch_model
from cellscribe.model.unpack import Limits


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return make_model(tmp_path / "tiny")


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return tmp_path / "store"


def pack_zip(model: Path, target: Path, top: str = "") -> Path:
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(model.rglob("*")):
            archive.write(path, top + path.relative_to(model).as_posix())
    return target


def pack_tar(model: Path, target: Path, top: str = ".") -> Path:
    with tarfile.open(target, "w:" if target.suffix == ".tar" else "w:gz") as archive:
        archive.add(model, top)
    return target


def zip_with(model: Path, target: Path, *members: tuple[str | zipfile.ZipInfo, bytes]) -> Path:
    pack_zip(model, target)
    with zipfile.ZipFile(target, "a", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members:
            archive.writestr(name, content)
    return target


def tar_with(model: Path, target: Path, *members: tarfile.TarInfo) -> Path:
    with tarfile.open(target, "w:gz") as archive:
        archive.add(model, "tiny")
        for member in members:
            archive.addfile(member, io.BytesIO(b"\0" * member.size) if member.isreg() else None)
    return target


def tar_member(name: str, kind: bytes = tarfile.REGTYPE, link: str = "", size: int = 0) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type, member.linkname, member.size = kind, link, size
    return member


def nothing_outside(tmp_path: Path, store: Path) -> bool:
    """Neither the store nor anything beside it holds what an attack would have written."""
    return not list(tmp_path.rglob("evil*")) and not list(store.iterdir())


def refused(source: Path, store: Path, pattern: str, **options: object) -> ModelFetchError:
    with pytest.raises(ModelFetchError, match=pattern) as caught:
        fetch_model(source, store, **options)  # type: ignore[arg-type]
    assert list(store.iterdir()) == [], "something was left behind"
    assert ".fetching-" not in str(caught.value), "a temporary path tells a user nothing"
    assert caught.value.todo
    return caught.value


PACKS: list[Callable[[Path, Path], Path]] = [
    lambda model, folder: model,
    lambda model, folder: pack_zip(model, folder / "m.zip"),
    lambda model, folder: pack_zip(model, folder / "m.zip", "tiny/"),
    lambda model, folder: pack_tar(model, folder / "m.tar.gz"),
    lambda model, folder: pack_tar(model, folder / "m.tgz", "tiny"),
    lambda model, folder: pack_tar(model, folder / "m.tar", "tiny"),
    lambda model, folder: pack_tar(model, folder / "download", ""),
]


@pytest.mark.parametrize("pack", PACKS)
def test_every_way_of_giving_a_model_gives_the_same_folder(
    tmp_path: Path, model: Path, store: Path, pack: Callable[[Path, Path], Path]
) -> None:
    kept = fetch_model(pack(model, tmp_path), store)
    assert kept == store / model_sha256(model)
    assert verify_model(kept) == verify_model(model)
    assert [entry.name for entry in store.iterdir()] == [kept.name]


def test_a_folder_that_is_a_link_is_copied(tmp_path: Path, model: Path, store: Path) -> None:
    (tmp_path / "staged").symlink_to(model)
    kept = fetch_model(tmp_path / "staged", store)
    assert not kept.is_symlink()
    assert not any(path.is_symlink() for path in kept.rglob("*"))


def test_fetching_twice_keeps_what_is_there(model: Path, store: Path) -> None:
    first = fetch_model(model, store)
    inode = first.stat().st_ino
    assert fetch_model(model, store).stat().st_ino == inode


def test_a_damaged_copy_in_the_store_is_replaced(
    model: Path, store: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kept = fetch_model(model, store)
    (kept / "genes.tsv").write_text("damaged")
    assert fetch_model(model, store) == kept
    verify_model(kept)
    assert "damaged and is replaced" in capsys.readouterr().err


def test_ten_runs_at_once_leave_one_whole_model(model: Path, store: Path) -> None:
    with ThreadPoolExecutor(10) as pool:
        kept = list(pool.map(lambda _: fetch_model(model, store), range(10)))
    assert len(set(kept)) == 1
    assert [entry.name for entry in store.iterdir()] == [kept[0].name]
    verify_model(kept[0])


def forked(action: Callable[[], object]) -> int:
    """Start a process that does `action`; its id."""
    child = os.fork()
    if child:
        return child
    try:
        action()
        os._exit(0)
    except BaseException:
        traceback.print_exc()
        os._exit(1)


def ended(*children: int) -> list[int]:
    """The exit codes of these processes; -9 of one that was killed."""
    return [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]


@pytest.mark.parametrize("found", ["nothing", "a damaged copy", "an empty folder"])
def test_ten_processes_at_once_leave_one_whole_model_whatever_they_find(
    model: Path, store: Path, monkeypatch: pytest.MonkeyPatch, found: str
) -> None:
    target = store / model_sha256(model)

    def slowly(*arguments: Any, **options: Any) -> None:
        try:
            check_identity(*arguments, **options)
        except ModelFetchError:
            # So that all see the damage before one has put it away.
            time.sleep(0.2)
            raise

    monkeypatch.setattr("cellscribe.model.store.check_identity", slowly)
    if found == "a damaged copy":
        fetch_model(model, store)
        (target / "genes.tsv").write_text("damaged")
    elif found == "an empty folder":
        target.mkdir(parents=True)
    starting, go = os.pipe()

    def fetch() -> None:
        os.close(go)
        os.read(starting, 1)
        verify_model(fetch_model(model, store))

    children = [forked(fetch) for _ in range(10)]
    os.close(go)
    assert ended(*children) == [0] * 10
    os.close(starting)
    assert [entry.name for entry in store.iterdir()] == [target.name]
    verify_model(target)


@pytest.mark.parametrize("where", ["_verify", "_keep"])
def test_one_that_is_killed_half_way_leaves_nothing_that_harms(
    model: Path, store: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(f"cellscribe.model.store.{where}", lambda *_: os.kill(os.getpid(), signal.SIGKILL))
        assert ended(forked(lambda: fetch_model(model, store))) == [-signal.SIGKILL]
    # What is left has no name that a model could have.
    assert not [entry for entry in store.iterdir() if not entry.name.startswith(".fetching-")]
    verify_model(fetch_model(model, store))


def test_what_a_killed_run_left_goes_after_a_day_and_what_another_is_at_stays(
    model: Path, store: Path
) -> None:
    old, new = store / ".fetching-old", store / ".fetching-new"
    for folder in (old, new):
        folder.mkdir(parents=True)
        (folder / "half").touch()
    os.utime(old, (0, 0))
    fetch_model(model, store)
    assert not old.exists()
    assert (new / "half").exists()


def test_the_sha256_of_the_archive_or_of_the_manifest_is_accepted(
    tmp_path: Path, model: Path, store: Path
) -> None:
    archive = pack_zip(model, tmp_path / "m.zip")
    for sha256 in (file_sha256(archive), file_sha256(archive).upper(), model_sha256(model)):
        assert fetch_model(archive, store, sha256).is_dir()
    assert fetch_model(model, store, model_sha256(model)).is_dir()


def test_a_wrong_sha256_is_shown_beside_what_was_seen(tmp_path: Path, model: Path, store: Path) -> None:
    archive = pack_zip(model, tmp_path / "m.zip")
    message = str(refused(archive, store, "f" * 64, sha256="f" * 64))
    assert file_sha256(archive) in message
    assert model_sha256(model) in message
    assert model_sha256(model) in str(refused(model, store, "f" * 64, sha256="f" * 64))


@pytest.mark.parametrize("sha256", ["abc", "g" * 64, "sha256"])
def test_what_is_no_sha256_is_bad_input(model: Path, store: Path, sha256: str) -> None:
    with pytest.raises(InputError, match="is not a sha256"):
        fetch_model(model, store, sha256)


EVIL_NAMES = [
    "../evil.json",
    "a/../../evil.json",
    "/tmp/evil.json",
    "..\\evil.json",
    "C:evil.json",
    "evil\n.json",
]


@pytest.mark.parametrize("name", EVIL_NAMES)
def test_a_zip_writes_nothing_outside(tmp_path: Path, model: Path, store: Path, name: str) -> None:
    archive = zip_with(model, tmp_path / "m.zip", (name, b"x"))
    refused(archive, store, "a path that leads out of the model")
    assert nothing_outside(tmp_path, store)


@pytest.mark.parametrize("name", [*EVIL_NAMES, "tiny/" + "e" * 300 + ".json"])
def test_a_tar_writes_nothing_outside(tmp_path: Path, model: Path, store: Path, name: str) -> None:
    archive = tar_with(model, tmp_path / "m.tar.gz", tar_member(name, size=1))
    refused(archive, store, "a path that leads out of the model")
    assert nothing_outside(tmp_path, store)


@pytest.mark.parametrize(
    "member",
    [
        tar_member("tiny/l.json", tarfile.SYMTYPE, "/etc/passwd"),
        tar_member("tiny/l.json", tarfile.SYMTYPE, "genes.tsv"),
        tar_member("tiny/l.json", tarfile.LNKTYPE, "tiny/genes.tsv"),
        tar_member("tiny/l.json", tarfile.CHRTYPE),
        tar_member("tiny/l.json", tarfile.FIFOTYPE),
        tar_member("tiny/l.json", tarfile.GNUTYPE_SPARSE),
    ],
)
def test_a_tar_may_hold_no_link_and_no_device(
    tmp_path: Path, model: Path, store: Path, member: tarfile.TarInfo
) -> None:
    refused(tar_with(model, tmp_path / "m.tgz", member), store, r"link, a device|truncated or damaged")


def test_a_zip_may_hold_no_link(tmp_path: Path, model: Path, store: Path) -> None:
    link = zipfile.ZipInfo("l.json")
    link.create_system, link.external_attr = 3, 0o120777 << 16
    refused(zip_with(model, tmp_path / "m.zip", (link, b"/etc/passwd")), store, "is a link or a device")


def test_an_encrypted_zip_says_so(tmp_path: Path, model: Path, store: Path) -> None:
    archive = pack_zip(model, tmp_path / "m.zip")
    data = bytearray(archive.read_bytes())
    for signature, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        for found in re.finditer(re.escape(signature), bytes(data)):
            data[found.start() + offset] |= 1
    archive.write_bytes(data)
    refused(archive, store, "is encrypted")


SMALL = Limits(n_members=20, total_bytes=2**20, ratio=50, ratio_from_bytes=2**16, one_read=2**21)


def test_a_zip_bomb_is_stopped_before_it_fills_the_disk(tmp_path: Path, model: Path, store: Path) -> None:
    bomb = zip_with(model, tmp_path / "m.zip", ("zeros.json", b"\0" * 900_000))
    refused(bomb, store, "more than 50 times its size", limits=SMALL)
    plain = Limits(20, 2**19, 10**9, 2**16, 2**21)
    refused(bomb, store, "more than 524,288 bytes", limits=plain)


def test_a_tar_bomb_is_stopped_before_it_fills_the_disk(tmp_path: Path, model: Path, store: Path) -> None:
    bomb = tar_with(model, tmp_path / "m.tar.gz", tar_member("tiny/zeros.json", size=900_000))
    refused(bomb, store, "more than 50 times its size", limits=SMALL)


@pytest.mark.parametrize("kind", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_a_zip_that_python_unpacks_without_bounds_is_refused(
    tmp_path: Path, model: Path, store: Path, kind: int
) -> None:
    archive = zip_with(model, tmp_path / "m.zip")
    with zipfile.ZipFile(archive, "a", kind) as opened:
        opened.writestr("zeros.json", b"\0" * 100_000)
    refused(archive, store, "compressed in another way", limits=SMALL)


def test_a_chain_of_headers_is_not_held_in_memory(tmp_path: Path, store: Path) -> None:
    body = b"\0" * 2**19
    headers = [
        tar_member("pax", tarfile.XHDTYPE, size=len(body)).tobuf(tarfile.GNU_FORMAT) + body for _ in range(4)
    ]
    (tmp_path / "m.tar").write_bytes(b"".join(headers) + b"\0" * 4096)
    refused(tmp_path / "m.tar", store, "headers in the archive take more than 1,048,576 bytes")


def test_an_archive_of_too_many_members_is_refused(tmp_path: Path, model: Path, store: Path) -> None:
    folders = [tar_member(f"tiny/{i}", tarfile.DIRTYPE) for i in range(30)]
    refused(tar_with(model, tmp_path / "m.tgz", *folders), store, "more than 20 files", limits=SMALL)
    files = [(f"{i}.json", b"") for i in range(30)]
    refused(zip_with(model, tmp_path / "m.zip", *files), store, "more than 20 files", limits=SMALL)


def test_a_header_that_claims_gigabytes_is_not_read(tmp_path: Path, store: Path) -> None:
    header = tar_member("pax", tarfile.XHDTYPE, size=2**33).tobuf(tarfile.GNU_FORMAT)
    (tmp_path / "m.tar").write_bytes(header + b"\0" * 4096)
    refused(tmp_path / "m.tar", store, r"says that it is 8,589,934,592 bytes long")


def test_a_zip_that_lies_about_its_sizes_is_damaged(tmp_path: Path, model: Path, store: Path) -> None:
    archive = zip_with(model, tmp_path / "m.zip", ("zeros.json", b"\0" * 100_000))
    data = archive.read_bytes()
    archive.write_bytes(data.replace(struct.pack("<I", 100_000), struct.pack("<I", 10)))
    refused(archive, store, "truncated or damaged")


def test_names_that_differ_only_in_case_collide(tmp_path: Path, model: Path, store: Path) -> None:
    archive = zip_with(model, tmp_path / "m.zip", ("GENES.tsv", b"x"))
    refused(archive, store, r"collides with 'genes\.tsv'")


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_name_that_is_there_twice_is_refused(tmp_path: Path, model: Path, store: Path) -> None:
    refused(zip_with(model, tmp_path / "m.zip", ("genes.tsv", b"x")), store, "is in it twice")


def test_a_name_that_is_file_and_folder_is_refused(tmp_path: Path, model: Path, store: Path) -> None:
    archive = zip_with(model, tmp_path / "m.zip", ("genes.tsv/a.json", b"x"))
    refused(archive, store, "both a file and a folder")


@pytest.mark.parametrize("name", ["m.zip", "m.tar.gz", "m.tar"])
@pytest.mark.parametrize("share", [0.02, 0.3, 0.6, 0.9])
def test_a_truncated_archive_is_one_clear_error(
    tmp_path: Path, model: Path, store: Path, name: str, share: float
) -> None:
    archive = (pack_zip if name == "m.zip" else pack_tar)(model, tmp_path / name)
    whole = archive.read_bytes()
    # A tar ends in up to 10 kB of padding, which may be lost unharmed.
    end = whole.rstrip(b"\0") if name == "m.tar" else whole
    archive.write_bytes(whole[: int(len(end) * share)])
    refused(
        archive,
        store,
        r"truncated or damaged|no archive that can be read|but it is missing|no manifest\.json",
    )


def test_flipped_bytes_never_end_in_another_error(tmp_path: Path, model: Path, store: Path) -> None:
    import random

    chance = random.Random(0)
    for name in ("m.zip", "m.tar.gz", "m.tar"):
        archive = (pack_zip if name == "m.zip" else pack_tar)(model, tmp_path / name)
        whole = archive.read_bytes()
        for _ in range(150):
            data = bytearray(whole)
            for _ in range(chance.randint(1, 4)):
                data[chance.randrange(len(data))] = chance.randrange(256)
            archive.write_bytes(data)
            try:
                verify_model(fetch_model(archive, store))
            except ModelFetchError as error:
                assert str(error)


@pytest.mark.parametrize(
    ("name", "content", "seen", "todo"),
    [
        ("m.zip", b"", "the file is empty", "Download"),
        ("ref.h5ad", b"\x89HDF\r\n\x1a\n" + b"\0" * 600, "AnnData file", "--mode train --reference"),
        (
            "m.zip",
            b"\n<!DOCTYPE html><html><body>404</body></html>",
            "web page",
            "address of the file itself",
        ),
        ("m.tar.gz", b"<html>Sign in</html>", "web page", "address of the file itself"),
        ("m.zip", b'<?xml version="1.0"?><Error>AccessDenied</Error>', "web page", "address"),
        ("m.pkl", b"\x80\x04\x95", "pickled Python object", "--mode train"),
        ("model.pt", b"whatever", "pickled Python object", "--mode train"),
        ("m.7z", b"7z\xbc\xaf\x27\x1c", "no archive that can be read", "zip, tar.gz or tar"),
        ("m.json", b"{}", "no archive that can be read", "zip, tar.gz or tar"),
        ("m.gz", b"\x1f\x8b\x08\x00garbage", "truncated or damaged", "again"),
    ],
)
def test_what_is_no_model_is_told_by_what_it_is(
    tmp_path: Path, store: Path, name: str, content: bytes, seen: str, todo: str
) -> None:
    (tmp_path / name).write_bytes(content)
    error = refused(tmp_path / name, store, seen)
    assert todo in error.todo
    assert name in str(error)


def test_an_empty_zip_holds_no_model(tmp_path: Path, store: Path) -> None:
    with zipfile.ZipFile(tmp_path / "m.zip", "w"):
        pass
    refused(tmp_path / "m.zip", store, r"no manifest\.json .*\(it holds no file")


@pytest.mark.parametrize("packed", [False, True])
def test_an_mlflow_model_by_others_is_told_apart(tmp_path: Path, store: Path, packed: bool) -> None:
    other = tmp_path / "other"
    other.mkdir()
    for name in ("MLmodel", "conda.yaml", "python_model.pkl"):
        (other / name).write_text(name)
    source = pack_tar(other, tmp_path / "m.tgz", "other") if packed else other
    refused(source, store, "made by others.*run its code")


@pytest.fixture
def theirs(tmp_path: Path) -> Path:
    """A model made by others, whose pickle leaves a trace where it is read."""
    folder = tmp_path / "theirs"
    (folder / "artifacts").mkdir(parents=True)
    (folder / "MLmodel").write_text("flavors:\n  python_function: {python_model: python_model.pkl}\n")
    (folder / "artifacts" / "model.pt").write_bytes(b"weights")
    (folder / "python_model.pkl").write_bytes(pickle.dumps(Trace(str(tmp_path / "evil"))))
    return folder


class Trace:
    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return open, (self.path, "w")


@pytest.mark.parametrize("pack", PACKS)
def test_a_trusted_model_by_others_is_kept_by_what_it_holds_whatever_way_it_comes(
    tmp_path: Path, theirs: Path, store: Path, pack: Callable[[Path, Path], Path]
) -> None:
    kept = fetch_model(pack(theirs, tmp_path), store, trust_model_code=True)
    assert kept == store / content_sha256(theirs)
    assert sorted(p.relative_to(kept).as_posix() for p in kept.rglob("*") if p.is_file()) == [
        "MLmodel",
        "artifacts/model.pt",
        "python_model.pkl",
    ]
    assert not (tmp_path / "evil").exists()


def test_what_names_a_model_by_others_can_be_counted_with_sha256sum(theirs: Path) -> None:
    counted = subprocess.run(
        "find * -type f | LC_ALL=C sort | xargs sha256sum | sha256sum",
        shell=True,
        cwd=theirs,
        capture_output=True,
        text=True,
        check=True,
    )
    assert counted.stdout.split()[0] == content_sha256(theirs)


def test_other_content_under_the_same_name_is_another_model(
    tmp_path: Path, theirs: Path, store: Path
) -> None:
    first = fetch_model(pack_zip(theirs, tmp_path / "m.zip"), store, trust_model_code=True)
    (theirs / "artifacts" / "model.pt").write_bytes(b"others")
    second = fetch_model(pack_zip(theirs, tmp_path / "m.zip"), store, trust_model_code=True)
    assert first != second
    assert (second / "artifacts" / "model.pt").read_bytes() == b"others"


def test_a_model_by_others_is_held_to_a_given_sha256(tmp_path: Path, theirs: Path, store: Path) -> None:
    archive = pack_zip(theirs, tmp_path / "m.zip")
    for sha256 in (file_sha256(archive), content_sha256(theirs)):
        assert fetch_model(archive, store, sha256, trust_model_code=True).is_dir()
    with pytest.raises(ModelFetchError, match="all that it holds has"):
        fetch_model(archive, store, "0" * 64, trust_model_code=True)


def test_a_model_by_others_that_was_trusted_once_is_refused_without_it(theirs: Path, store: Path) -> None:
    kept = fetch_model(theirs, store, trust_model_code=True)
    with pytest.raises(ModelFetchError, match="run its code") as caught:
        fetch_model(kept, store)
    assert "--trust_model_code" in caught.value.todo


def test_a_damaged_copy_of_a_model_by_others_is_replaced(theirs: Path, store: Path, capsys) -> None:
    kept = fetch_model(theirs, store, trust_model_code=True)
    (kept / "artifacts" / "model.pt").write_bytes(b"damaged")
    assert fetch_model(theirs, store, trust_model_code=True) == kept
    assert (kept / "artifacts" / "model.pt").read_bytes() == b"weights"
    assert "damaged" in capsys.readouterr().err


def test_a_trusted_archive_gets_no_file_out_of_its_folder_and_no_link(
    tmp_path: Path, theirs: Path, store: Path
) -> None:
    outside = zip_with(theirs, tmp_path / "m.zip", ("../evil", b"x"))
    refused(outside, store, "leads out of the model", trust_model_code=True)
    linked = tar_with(theirs, tmp_path / "m.tgz", tar_member("tiny/link", tarfile.SYMTYPE, "/etc/passwd"))
    refused(linked, store, "is a link", trust_model_code=True)
    (theirs / "out").symlink_to("/etc/passwd")
    refused(theirs, store, "a link to '/etc/passwd'", trust_model_code=True)


@pytest.mark.parametrize(
    ("text", "pattern"),
    [
        ("flavors: {sklearn: {}}", "no python_function flavour .*sklearn"),
        ("- a list", "no python_function flavour .*none"),
        ("flavors: [", "no YAML"),
        ("flavors: !!python/object/apply:os.system ['touch evil']", "no YAML"),
        ("x" * 2**21, "MLmodel has 2,097,152 bytes"),
    ],
)
def test_what_mlflow_could_not_predict_with_is_told(
    theirs: Path, store: Path, text: str, pattern: str
) -> None:
    (theirs / "MLmodel").write_text(text)
    refused(theirs, store, pattern, trust_model_code=True)


def test_a_model_of_ours_that_is_trusted_is_verified_all_the_same(model: Path, store: Path) -> None:
    (model / "genes.tsv").write_text("changed!!")
    refused(model, store, "was changed", trust_model_code=True)


def test_two_models_in_one_archive_are_named(tmp_path: Path, model: Path, store: Path) -> None:
    make_model(model.parent / "both" / "one")
    make_model(model.parent / "both" / "two")
    refused(pack_zip(model.parent / "both", tmp_path / "m.zip"), store, "holds 2 models: one, two")


def test_junk_beside_the_model_is_named(tmp_path: Path, model: Path, store: Path) -> None:
    archive = pack_zip(model, tmp_path / "m.zip", "tiny/")
    with zipfile.ZipFile(archive, "a") as opened:
        opened.writestr("__MACOSX/._tiny", b"x")
    refused(archive, store, "__MACOSX")


def test_a_pickle_in_an_archive_is_refused_and_never_loaded(tmp_path: Path, model: Path, store: Path) -> None:
    trap = tmp_path / "sprung"
    payload = f"cos\nsystem\n(S'touch {trap}'\ntR.".encode()
    archive = zip_with(model, tmp_path / "m.zip", ("weights.pkl", payload))
    assert "m.zip/weights.pkl" in str(refused(archive, store, "could run code").file)
    assert not trap.exists()


def test_code_in_a_model_is_not_run(tmp_path: Path, store: Path) -> None:
    model = make_model(tmp_path / "tiny")
    from model_maker import FIELDS

    from cellscribe.model.manifest import write_manifest

    trap = tmp_path / "sprung"
    (model / "code" / "model.py").write_text(f"open({str(trap)!r}, 'w')")
    write_manifest(model, FIELDS)
    fetch_model(model, store)
    assert not trap.exists()


def test_a_file_lost_from_the_archive_is_named(tmp_path: Path, model: Path, store: Path) -> None:
    (model / "genes.tsv").unlink()
    error = refused(pack_zip(model, tmp_path / "m.zip"), store, "but it is missing")
    assert str(error.file).endswith("m.zip/genes.tsv")


def test_a_link_out_of_a_folder_is_not_followed(tmp_path: Path, model: Path, store: Path) -> None:
    (tmp_path / "secret").write_text("x")
    (model / "secret.txt").symlink_to(tmp_path / "secret")
    refused(model, store, "is a link to")


def test_a_folder_without_a_manifest_says_what_it_holds(tmp_path: Path, store: Path) -> None:
    (tmp_path / "outs").mkdir()
    (tmp_path / "outs" / "matrix.mtx").write_text("x")
    refused(tmp_path / "outs", store, r"no manifest\.json .*\(it holds matrix\.mtx")


def test_a_newer_model_is_told_apart_in_an_archive(tmp_path: Path, model: Path, store: Path) -> None:
    text = (model / MANIFEST).read_text().replace('"format_version": 1', '"format_version": 9')
    (model / MANIFEST).write_text(text)
    refused(pack_tar(model, tmp_path / "m.tgz"), store, "format version 9, newer")
