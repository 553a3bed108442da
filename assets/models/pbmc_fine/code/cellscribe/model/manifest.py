"""manifest.json: what a model is, and the sha256 of every other file in its folder.

The sha256 of manifest.json is the model's identity. Its schema, `schema_model.json`, lies beside this file,
as only bin/ travels to a task on every executor.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections import Counter
from functools import cache
from pathlib import Path, PurePosixPath
from typing import Any

from cellscribe.errors import ModelFetchError
from cellscribe.io import write_json

FORMAT = "cellscribe-model"
FORMAT_VERSION = 1
MANIFEST = "manifest.json"

# What a model may hold: weights, tables and text that are parsed, never run or unpickled. The .py is MLflow's
# model-from-code, for MLflow's own users; cellscribe never imports it.
ALLOWED_SUFFIXES = frozenset(
    (".json", ".tsv", ".md", ".html", ".png", ".safetensors", ".ubj", ".yaml", ".yml", ".txt", ".py")
)
ALLOWED_NAMES = frozenset(("MLmodel",))

NEEDED_FILES = {
    "scvi_neighbours": ("encoder.safetensors", "reference.safetensors"),
    "scvi_trees": ("encoder.safetensors", "trees.ubj"),
    "logistic": ("logistic.safetensors",),
    "likelihood": ("likelihood.safetensors",),
    "scanvi": ("encoder.safetensors", "scanvi.safetensors"),
}

_MAX_MANIFEST_BYTES = 16 * 2**20
FETCH_AGAIN = "Fetch the model again, or ask whoever made it for a whole copy."


def write_manifest(folder: Path, fields: dict[str, Any]) -> str:
    """Write manifest.json over every file of `folder`; return the model's sha256.

    fields: everything that the schema asks for but `format`, `format_version` and `files`, which are added
    here. Raises ValueError naming every field that does not fit the schema, and ModelFetchError for a file
    that no model may hold (the same rules as `verify_model`: no model is made that could not be read).
    """
    folder = Path(folder)
    files = {
        name: {"sha256": file_sha256(folder / name), "size": (folder / name).stat().st_size}
        for name in list_files(folder)
    }
    manifest = {**fields, "format": FORMAT, "format_version": FORMAT_VERSION, "files": files}
    target = folder / MANIFEST
    write_json(manifest, target)
    problems = manifest_problems(json.loads(target.read_text()))
    if problems:
        target.unlink()
        raise ValueError("this manifest does not fit schema_model.json:\n" + "\n".join(problems))
    return model_sha256(folder)


def read_manifest(folder: Path) -> dict[str, Any]:
    """Read and validate a model's manifest.json.

    Raises ModelFetchError where it is missing, no JSON, of a newer format, or does not fit the schema.
    """
    path = Path(folder) / MANIFEST
    if not path.is_file():
        raise ModelFetchError(
            f"the folder holds no {MANIFEST}", "Give a model folder that --mode train made.", file=folder
        )
    size = path.stat().st_size
    if size > _MAX_MANIFEST_BYTES:
        raise ModelFetchError(
            f"{MANIFEST} has {size:,} bytes; at most {_MAX_MANIFEST_BYTES:,} are read",
            FETCH_AGAIN,
            file=path,
        )
    try:
        manifest = json.loads(
            path.read_bytes(), object_pairs_hook=_unique_keys, parse_constant=_refuse_constant
        )
    except (ValueError, RecursionError) as error:
        raise ModelFetchError(f"{MANIFEST} is not valid JSON: {error}", FETCH_AGAIN, file=path) from None
    _check_format(manifest, path)
    problems = manifest_problems(manifest)
    if problems:
        shown = "\n".join(f"  {problem}" for problem in problems[:10])
        more = f"\n  and {len(problems) - 10} more" if len(problems) > 10 else ""
        raise ModelFetchError(
            f"{MANIFEST} does not describe a model of format {FORMAT_VERSION}:\n{shown}{more}",
            FETCH_AGAIN,
            file=path,
        )
    return manifest


def model_sha256(folder: Path) -> str:
    """The model's identity: the sha256 of its manifest.json, which names every other file's."""
    return file_sha256(Path(folder) / MANIFEST)


def verify_model(folder: Path) -> dict[str, Any]:
    """Check that `folder` is exactly what its manifest says; return the manifest.

    Every listed file is there with its size and sha256, no other file is, none is a link out of the folder or
    of a kind that could hold code. Raises ModelFetchError naming the file, what was expected, what was seen.
    """
    folder = Path(folder)
    manifest = read_manifest(folder)
    listed: dict[str, dict[str, Any]] = manifest["files"]
    found = list_files(folder)
    for name in sorted(set(found) - set(listed)):
        raise ModelFetchError(
            f"the folder holds a file that {MANIFEST} does not list", "Remove it.", file=folder / name
        )
    for name in sorted(listed):
        path = folder / name
        if name not in found:
            raise ModelFetchError(f"{MANIFEST} lists this file, but it is missing", FETCH_AGAIN, file=path)
        expected, size = listed[name], path.stat().st_size
        if size != expected["size"]:
            raise ModelFetchError(
                f"{MANIFEST} says {expected['size']:,} bytes, the file has {size:,}", FETCH_AGAIN, file=path
            )
        seen = file_sha256(path)
        if seen != expected["sha256"]:
            raise ModelFetchError(
                f"the file was changed: {MANIFEST} says sha256 {expected['sha256']}, the file has {seen}",
                FETCH_AGAIN,
                file=path,
            )
    for needed in (
        "genes.tsv",
        "silent_genes.tsv",
        *(name for member in manifest["members"] for name in NEEDED_FILES[member["name"]]),
    ):
        if needed not in listed:
            members = ", ".join(member["name"] for member in manifest["members"])
            raise ModelFetchError(
                f"a model with the members {members} needs '{needed}', which is not in it",
                FETCH_AGAIN,
                file=folder,
            )
    return manifest


def list_files(folder: Path) -> list[str]:
    """Relative POSIX paths of every file under `folder` but the manifest, sorted.

    Raises ModelFetchError for what no model may hold: a link to a folder or out of `folder`, a device, pipe
    or socket, a file of a kind that is not in `ALLOWED_SUFFIXES`.
    """
    names = [name for name in plain_files(folder) if name != MANIFEST]
    for name in names:
        check_kind(name, Path(folder).resolve() / name)
    return names


def plain_files(folder: Path) -> list[str]:
    """Relative POSIX paths of every file under `folder`, sorted.

    Raises ModelFetchError for a link to a folder or out of `folder`, a device, pipe or socket.
    """
    root = Path(folder).resolve()
    names = []
    for parent, folders, files in root.walk():
        for entry in (*folders, *files):
            path = parent / entry
            if path.is_symlink():
                _check_link(path, root)
            elif entry in folders:
                continue
            if not stat.S_ISREG(path.stat().st_mode):
                raise ModelFetchError("this is not a plain file", "Remove it.", file=path)
            names.append(path.relative_to(root).as_posix())
    return sorted(names)


def check_kind(name: str, shown: Path) -> None:
    """Raise ModelFetchError, naming `shown`, unless a file called `name` may be in a model."""
    path = PurePosixPath(name)
    if path.suffix.lower() not in ALLOWED_SUFFIXES and path.name not in ALLOWED_NAMES:
        raise ModelFetchError(
            f"a model may not hold a file ending in '{path.suffix or path.name}': it could run code "
            f"when it is read (allowed: {', '.join(sorted(ALLOWED_SUFFIXES | ALLOWED_NAMES))})",
            "Remove it if the model does not need it; else train the model again with --mode train.",
            file=shown,
        )


def file_sha256(path: Path) -> str:
    """The sha256 of a file's bytes, as 64 hexadecimal digits."""
    with Path(path).open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def manifest_problems(manifest: Any) -> list[str]:
    """Everything about a parsed manifest that does not fit, one sentence each; empty where all is well."""
    problems = [
        f"{_where(error.absolute_path)}: {error.message[:300]}"
        for error in sorted(
            _validator().iter_errors(manifest), key=lambda error: list(map(str, error.absolute_path))
        )
    ]
    return problems or _meaning_problems(manifest)


def _meaning_problems(manifest: dict[str, Any]) -> list[str]:
    """What a schema cannot say: uniqueness, and that one part refers to what another holds."""
    problems = []
    labels = [label["label"] for label in manifest["labels"]]
    levels = [level["name"] for level in manifest["levels"]]
    members = [member["name"] for member in manifest["members"]]
    for what, names in (("labels", labels), ("levels", levels), ("members", members)):
        twice = sorted(name for name, n in Counter(names).items() if n > 1)
        if twice:
            problems.append(f"{what}: named twice: {', '.join(twice)}")
    for level in manifest["levels"]:
        different = set(level["labels"]) ^ set(labels)
        if different:
            problems.append(
                f"levels.{level['name']}: must have exactly the model's labels; these differ: "
                + ", ".join(sorted(different)[:10])
            )
    for name in manifest["files"]:
        parts = name.split("/")
        if (
            name == MANIFEST
            or "\\" in name
            or not name.isprintable()
            or any(p in ("", ".", "..") for p in parts)
        ):
            problems.append(f"files: {name!r} is not a relative path inside the model")
    return problems


def _check_format(manifest: Any, path: Path) -> None:
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        seen = manifest.get("format") if isinstance(manifest, dict) else type(manifest).__name__
        raise ModelFetchError(
            f"this {MANIFEST} is not that of a cellscribe model (format {seen!r}, expected {FORMAT!r})",
            "Give a model folder that --mode train made.",
            file=path,
        )
    version = manifest.get("format_version")
    if isinstance(version, int) and version > FORMAT_VERSION:
        raise ModelFetchError(
            f"the model has format version {version}, newer than this cellscribe reads "
            f"(up to {FORMAT_VERSION})",
            "Use a newer release of cellscribe, or an older release of the model.",
            file=path,
        )


def _check_link(path: Path, root: Path) -> None:
    # Path.resolve raises on a loop of links before Python 3.13.
    target = Path(os.path.realpath(path))
    if not target.is_relative_to(root) or not target.is_file():
        raise ModelFetchError(
            f"this is a link to '{target}', which is not a file of the model",
            "Copy the model with its links followed (cp -rL) and give the copy.",
            file=path,
        )


def _where(path: Any) -> str:
    return ".".join(str(part) for part in path) or "top level"


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    keys = dict(pairs)
    if len(keys) < len(pairs):
        raise ValueError("a key stands in it twice")
    return keys


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


@cache
def _validator() -> Any:
    from jsonschema import Draft202012Validator

    schema = json.loads(Path(__file__).with_name("schema_model.json").read_text())
    return Draft202012Validator(schema)
