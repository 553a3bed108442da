"""Ways to spoil a file: blindly by its bytes, and knowing what it is. The same chance gives the same file."""

from __future__ import annotations

import gzip
import io
import json
import random
import shutil
import struct
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from fuzz.seeds import sign, trees_as_json

Chance = random.Random
# fmt: off
HOSTILE_TEXT = (
    *("", " ", "\x00", "\n", "\t=1+1", "'", '"', "$(touch sprung)", "`touch sprung`", ";touch sprung;", "-rf", "../.."),
    *("<script>alert(1)</script>", "=HYPERLINK(\"x\")", "@SUM(A1)", "\u202egnp", "a" * 70_000, "é" * 300, "#x"),
    *("nan", "NaN", "inf", "-1", "1e999", "9" * 5000, "0x10", "true", "null", "1_000", "\ufeff", "\ud7ff", "%00", "{}"),
)
# fmt: on
HOSTILE_NUMBERS = (
    -1,
    -(2**63),
    2**31 - 1,
    2**31,
    2**63 - 1,
    0,
    1,
    10**12,
    0.5,
    float("nan"),
    float("inf"),
    1e300,
)
# fmt: off
ENCODINGS = (
    *("dict", "dataframe", "csr_matrix", "csc_matrix", "array", "categorical", "string-array", "nullable-integer"),
    *("nullable-boolean", "nullable-string-array", "awkward-array", "rec-array", "string", "numeric-scalar", "null"),
    *("anndata", "raw", "", "no-such", "h5sparse"),
)
# fmt: on


# --- bytes ---


def spoil_bytes(data: bytes, chance: Chance) -> bytes:
    """Flip, replace, cut, double, insert or remove some bytes, once to four times."""
    spoiled = bytearray(data)
    for _ in range(chance.choice((1, 1, 1, 2, 4))):
        if not spoiled:
            break
        chance.choice((_flip, _flip, _replace, _replace, _cut, _double, _insert, _remove))(spoiled, chance)
    return bytes(spoiled)


def _span(data: bytearray, chance: Chance, longest: int = 64) -> tuple[int, int]:
    start = chance.randrange(len(data))
    return start, min(len(data), start + chance.randint(1, longest))


def _flip(data: bytearray, chance: Chance) -> None:
    for _ in range(chance.choice((1, 1, 8))):
        data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)


def _replace(data: bytearray, chance: Chance) -> None:
    start, stop = _span(data, chance, chance.choice((4, 8, 64, 2000)))
    filler = chance.choice((b"\x00", b"\xff", b"\x7f", b""))
    data[start:stop] = filler * (stop - start) if filler else chance.randbytes(stop - start)


def _cut(data: bytearray, chance: Chance) -> None:
    del data[chance.randrange(len(data)) :]


def _double(data: bytearray, chance: Chance) -> None:
    start, stop = _span(data, chance, 4096)
    data[start:start] = data[start:stop] * chance.choice((1, 2, 50))


def _insert(data: bytearray, chance: Chance) -> None:
    start = chance.randrange(len(data))
    data[start:start] = chance.randbytes(chance.choice((1, 7, 512)))


def _remove(data: bytearray, chance: Chance) -> None:
    start, stop = _span(data, chance, 512)
    del data[start:stop]


# --- HDF5 ---


def spoil_h5(path: Path, chance: Chance) -> str:
    """Change one to three things of an HDF5 file in place; returns what was done, in words."""
    done = []
    damage: list[tuple[int, int]] = []
    with h5py.File(path, "r+") as file:
        for _ in range(chance.choice((1, 1, 1, 2, 3))):
            names: list[str] = []
            file.visit(names.append)
            if not names:
                break
            name = chance.choice(names)
            change = chance.choice(H5_CHANGES)
            try:
                change(file, name, chance, damage)
            except Exception as error:
                done.append(f"{change.__name__}({name}) was not possible: {type(error).__name__}")
            else:
                done.append(f"{change.__name__}({name})")
            if change is doubling:
                # To copy what doubles would never end.
                break
    if damage:
        data = bytearray(path.read_bytes())
        for start, size in damage:
            for _ in range(3):
                data[start + chance.randrange(size)] ^= 1 << chance.randrange(8)
        path.write_bytes(data)
    return ", ".join(done)


def _put(file: h5py.File, name: str, value: Any, **how: Any) -> None:
    """A dataset in the place of what is there; its attributes stay."""
    attributes = dict(file[name].attrs) if name in file else {}
    if name in file:
        del file[name]
    made = file.create_dataset(name, data=value, **how)
    for key, kept in attributes.items():
        made.attrs[key] = kept


MOST_SPOILED = 100_000


def _values(file: h5py.File, name: str) -> np.ndarray:
    node = file[name]
    if not isinstance(node, h5py.Dataset):
        return np.arange(5)
    # What `bomb` left is not made a text of each of its millions of zeros.
    return np.atleast_1d(node[:MOST_SPOILED] if node.ndim else node[()])


def drop(file: h5py.File, name: str, chance: Chance, _: Any) -> None:
    del file[name]


def rename(file: h5py.File, name: str, chance: Chance, _: Any) -> None:
    parent = name.rpartition("/")[0]
    new = chance.choice(("x", "obs", "é", "a" * 2000, "X", "_index", "matrix", "data"))
    file.move(name, f"{parent}/{new}")


def other_type(file: h5py.File, name: str, chance: Chance, _: Any) -> None:
    values = _values(file, name)
    how = chance.randrange(9)
    if how == 0:
        _put(file, name, np.array([str(v)[:20] for v in values.ravel()], dtype="S20"))
    elif how == 1:
        _put(file, name, [str(v) for v in values.ravel()], dtype=h5py.string_dtype())
    elif how == 2:
        _put(file, name, np.zeros(values.shape, dtype=[("a", "f4"), ("b", "S3")]))
    elif how == 3:
        _put(file, name, np.full(values.shape, b"\xff\xfe\x80\x00x", dtype="S5"))
    elif how == 4:
        _put(file, name, np.zeros(values.shape, dtype=bool))
    elif how == 5:
        _put(file, name, np.zeros(values.shape, dtype=np.dtype("V7")))
    elif how == 6:
        _put(file, name, h5py.Empty(chance.choice(("f4", "i8", "S3"))))
    elif how == 7:
        made = np.empty(values.size, dtype=object)
        made[:] = [np.arange(3)] * values.size
        _put(file, name, made, dtype=h5py.vlen_dtype(np.int32))
    else:
        _put(file, name, np.zeros(values.shape, dtype=chance.choice(("f2", "i1", "u8", "c8", "f8"))))


def other_shape(file: h5py.File, name: str, chance: Chance, _: Any) -> None:
    values = _values(file, name).ravel()
    shape = chance.randrange(6)
    if shape == 0:
        _put(file, name, values[:0])
    elif shape == 1:
        _put(file, name, values[0])
    elif shape == 2:
        _put(file, name, values[None, :])
    elif shape == 3:
        _put(file, name, values[:, None, None])
    elif shape == 4:
        _put(file, name, values[: max(1, len(values) - 1)])
    else:
        _put(file, name, np.concatenate([values, values]))


def bad_numbers(file: h5py.File, name: str, chance: Chance, _: Any) -> None:
    node = file[name]
    if not isinstance(node, h5py.Dataset) or node.dtype.kind not in "iuf" or not node.size:
        raise ValueError("no numbers")
    values = node[()].reshape(-1)
    if chance.random() < 0.4:
        values = values.astype(np.float64 if chance.random() < 0.5 else np.int64)
    for _ in range(chance.choice((1, 1, 5))):
        number = chance.choice(HOSTILE_NUMBERS)
        with np.errstate(all="ignore"):
            values[chance.randrange(len(values))] = np.array(number).astype(values.dtype)
    if chance.random() < 0.2:
        values = values[::-1]
    _put(file, name, values.reshape(node.shape))


def bad_text(file: h5py.File, name: str, chance: Chance, _: Any) -> None:
    values = _values(file, name).ravel()
    text = [str(value) for value in values]
    for _ in range(chance.choice((1, 3, 50))):
        text[chance.randrange(len(text))] = chance.choice(HOSTILE_TEXT).replace("\x00", "")
    _put(file, name, text, dtype=h5py.string_dtype(chance.choice(("utf-8", "ascii"))))


def huge(file: h5py.File, name: str, chance: Chance, _: Any) -> None:
    """A shape that nothing was written for: the file stays small."""
    kind = chance.choice(("f4", "i8", "S100", "u1"))
    shape = chance.choice(((2**40,), (2**31,), (10**8,), (10**7, 30_000), (5, 2**40), (2**40, 6), (2**62,)))
    attributes = dict(file[name].attrs)
    del file[name]
    made = file.create_dataset(name, shape, kind, chunks=tuple(min(n, 1000) for n in shape))
    for key, value in attributes.items():
        made.attrs[key] = value


def bomb(file: h5py.File, name: str, chance: Chance, _: Any) -> None:
    """Zeros that pack a thousand to one."""
    attributes = dict(file[name].attrs)
    del file[name]
    made = file.create_dataset(name, (20_000_000,), "u1", chunks=(5_000_000,), compression="gzip")
    made[:] = np.zeros(20_000_000, dtype="u1")
    for key, value in attributes.items():
        made.attrs[key] = value


def link(file: h5py.File, name: str, chance: Chance, _: Any) -> None:
    kind = chance.randrange(6)
    others: list[str] = []
    file.visit(others.append)
    other = chance.choice(others)
    parent = name.rpartition("/")[0] or "/"
    target = file[other] if kind in (4, 5) else None
    if kind != 5:
        del file[name]
    if kind == 0:
        file[name] = h5py.SoftLink(chance.choice(("/nowhere", f"/{name}", "/", f"/{other}", "..")))
    elif kind == 1:
        file[name] = h5py.ExternalLink(chance.choice(("/etc/passwd", "none.h5", file.filename)), "/")
    elif kind == 2:
        file.create_dataset(name, (64,), "u1", external=[("/etc/passwd", 0, 64)])
    elif kind == 3:
        layout = h5py.VirtualLayout((8,), "i4")
        layout[:] = h5py.VirtualSource(chance.choice((".", "none.h5")), f"/{other}", (8,))
        file.create_virtual_dataset(name, layout)
    elif kind == 4:
        file[name] = target
    else:
        file[f"{name}/loop" if isinstance(file[name], h5py.Group) else f"{parent}/loop"] = file[parent]


def doubling(file: h5py.File, name: str, chance: Chance, _: Any) -> None:
    """Groups that hold the next one twice, forty deep: a trillion paths."""
    attributes = dict(file[name].attrs)
    del file[name]
    below = file.create_group("_bottom")
    for _level in range(40):
        above = file.create_group(f"_{_level}")
        above["a"] = below
        above["b"] = below
        below = above
    file[name] = below
    for key, value in attributes.items():
        below.attrs[key] = value


def group_for_data(file: h5py.File, name: str, chance: Chance, _: Any) -> None:
    if isinstance(file[name], h5py.Dataset):
        attributes = dict(file[name].attrs)
        del file[name]
        made = file.create_group(name)
        for key, value in attributes.items():
            made.attrs[key] = value
    else:
        _put(file, name, chance.choice((np.arange(4), "text", 3.5, np.zeros((2, 2)))))


def attribute(file: h5py.File, name: str, chance: Chance, _: Any) -> None:
    node = file[name]
    keys = [*node.attrs, "encoding-type", "shape", "column-order", "_index", "encoding-version"]
    key = chance.choice(keys)
    how = chance.randrange(8)
    if how == 0:
        del node.attrs[key]
    elif how == 1:
        node.attrs[key] = chance.choice(ENCODINGS)
    elif how == 2:
        node.attrs[key] = np.array(
            chance.choice(((2**40, 2**40), (-1, 5), (5,), (5, 6, 7), (0, 0), (2**62, 6)))
        )
    elif how == 3:
        node.attrs[key] = chance.choice((1, 2.5, True, float("nan"), b"\xff\xfe"))
    elif how == 4:
        node.attrs[key] = h5py.Empty("f4")
    elif how == 5:
        node.attrs[key] = file[name].ref
    elif how == 6:
        node.attrs[key] = ["x", "kind", "score", "kind", "../obs", "/X/data", ""]
    else:
        node.attrs[key] = chance.choice(HOSTILE_TEXT).replace("\x00", "")[:60_000]


def damage_chunk(file: h5py.File, name: str, chance: Chance, damage: list[tuple[int, int]]) -> None:
    """Bits of compressed data, which a checksum or the unpacking may find, or not."""
    packed: list[Any] = []
    file.visititems(
        lambda _name, node: packed.append(node) if isinstance(node, h5py.Dataset) and node.chunks else None
    )
    node = chance.choice(packed) if packed else None
    if node is not None and node.id.get_num_chunks():
        info = node.id.get_chunk_info(chance.randrange(node.id.get_num_chunks()))
        damage.append((info.byte_offset, info.size))
    else:
        raise ValueError("not in chunks")


def shuffle(file: h5py.File, name: str, chance: Chance, _: Any) -> None:
    values = _values(file, name).ravel()
    order = list(range(len(values)))
    chance.shuffle(order)
    _put(file, name, values[order])


def copy_over(file: h5py.File, name: str, chance: Chance, _: Any) -> None:
    others: list[str] = []
    file.visit(others.append)
    other = chance.choice(others)
    file.copy(other, "_copy")
    del file[name]
    file.move("_copy", name)


# fmt: off
H5_CHANGES: tuple[Callable[[h5py.File, str, Chance, list[tuple[int, int]]], None], ...] = (
    *(drop, rename, other_type, other_type, other_shape, other_shape, bad_numbers, bad_numbers, bad_numbers),
    *(bad_text, huge, bomb, link, link, doubling, group_for_data, attribute, attribute, attribute),
    *(damage_chunk, shuffle, copy_over),
)
# fmt: on


# --- matrix.mtx and its tables ---


def spoil_folder(folder: Path, chance: Chance) -> str:
    """Spoil one file of a matrix folder."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    path = chance.choice(files)
    how = chance.randrange(10)
    if how == 0:
        path.unlink()
        return f"no {path.name}"
    if how == 1:
        other = chance.choice(files)
        shutil.copyfile(other, folder.parent / "swapped")
        shutil.move(folder.parent / "swapped", path)
        return f"{other.name} as {path.name}"
    if how == 2:
        path.unlink()
        path.mkdir()
        return f"{path.name} is a folder"
    packed = path.suffix == ".gz"
    if how == 3:
        path.rename(path.with_suffix("") if packed else Path(f"{path}.gz"))
        return f"{path.name} by another suffix"
    if how == 4 and packed:
        path.write_bytes(spoil_bytes(path.read_bytes(), chance))
        return f"bytes of {path.name}, packed"
    text = gzip.decompress(path.read_bytes()) if packed else path.read_bytes()
    if how in (5, 6, 7) and b"MatrixMarket" in text:
        text, done = _spoil_mtx(text.decode(), chance)
    elif how in (5, 6, 7):
        text, done = _spoil_table(text.decode(), chance)
    elif how == 8 and packed:
        text, done = text + b"\n" * 5_000_000, "a bomb"
    else:
        text, done = spoil_bytes(text, chance), "bytes"
    path.write_bytes(gzip.compress(text, compresslevel=1) if packed else text)
    return f"{done} in {path.name}"


def _spoil_mtx(text: str, chance: Chance) -> tuple[bytes, str]:
    lines = text.splitlines()
    sizes = next(i for i, line in enumerate(lines) if not line.startswith("%"))
    how = chance.randrange(6)
    if how == 0:
        words = lines[0].split()
        words[chance.randrange(1, 5)] = chance.choice(
            [
                "array",
                "coordinate",
                "pattern",
                "complex",
                "real",
                "integer",
                "unsigned-integer",
                "symmetric",
                "hermitian",
                "x",
            ]
        )
        lines[0] = " ".join(words)
    elif how == 1:
        words = lines[sizes].split()
        words[chance.randrange(len(words))] = str(
            chance.choice((-1, 0, 1, 2**31, 2**40, 2**63, 10**30, 10**9, 3.5, "x"))
        )
        lines[sizes] = " ".join(words)
    elif how == 2:
        lines[sizes] = " ".join(str(chance.choice((2**40, 10**9, 5, 6))) for _ in range(3))
    elif how == 3:
        row = chance.randrange(sizes + 1, len(lines))
        words = lines[row].split()
        words[chance.randrange(3)] = str(
            chance.choice((0, -1, 2**31, 2**63, 7, "nan", "1e400", "x", "", "2.5"))
        )
        lines[row] = " ".join(words)
    elif how == 4:
        del lines[chance.randrange(len(lines)) :]
    else:
        lines.insert(
            chance.randrange(len(lines)), chance.choice(("", "% ", "1 1 1 1", "1", "\x00", "9 " * 10_000))
        )
    return ("\n".join(lines) + "\n").encode(), "matrix"


def _spoil_table(text: str, chance: Chance) -> tuple[bytes, str]:
    lines = text.splitlines()
    how = chance.randrange(5)
    row = chance.randrange(len(lines))
    if how == 0:
        del lines[row:]
    elif how == 1:
        words = lines[row].split("\t")
        words[chance.randrange(len(words))] = chance.choice(HOSTILE_TEXT)
        lines[row] = "\t".join(words)
    elif how == 2:
        lines[row] += "\tmore" * chance.choice((1, 5, 2000))
    elif how == 3:
        lines = [line.replace("\t", chance.choice((",", " ", "\t\t"))) for line in lines]
    else:
        lines = [lines[row]] * len(lines)
    return "\n".join(lines).encode(errors="surrogatepass"), "table"


# --- models ---


def spoil_model(folder: Path, chance: Chance) -> str:
    """Spoil one file of a model and, mostly, write the manifest anew, as whoever made the model could."""
    names = [
        path.relative_to(folder).as_posix()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.suffix not in (".html", ".md", ".txt", ".py")
    ]
    used = (".safetensors", ".ubj", "genes.tsv", "ontology.json", "manifest.json")
    weights = [name for name in names if name.endswith(used)]
    done = []
    for _ in range(chance.choice((1, 1, 2))):
        name = chance.choice(weights if chance.random() < 0.8 else names)
        try:
            done.append(f"{name}: {_spoil_part(folder / name, chance)}")
        except Exception as error:
            # It was spoiled before, or is gone.
            done.append(f"{name}: not possible ({type(error).__name__})")
    if chance.random() < 0.9:
        sign(folder)
        done.append("signed")
    return ", ".join(done)


def _spoil_part(path: Path, chance: Chance) -> str:
    how = chance.random()
    if how < 0.05:
        path.unlink()
        return "gone"
    if how < 0.3 or path.suffix not in (".json", ".safetensors", ".tsv", ".ubj"):
        path.write_bytes(spoil_bytes(path.read_bytes(), chance))
        return "bytes"
    if path.suffix == ".json":
        value = json.loads(path.read_text())
        where = spoil_json(value, chance)
        path.write_text(json.dumps(value))
        return where
    if path.suffix == ".safetensors":
        return spoil_tensors(path, chance)
    if path.suffix == ".ubj":
        return spoil_trees(path, chance)
    path.write_bytes(_spoil_table(path.read_text(), chance)[0])
    return "lines"


def spoil_json(value: Any, chance: Chance) -> str:
    """Change, remove or double one value somewhere inside; returns where."""
    path: list[str] = []
    node = value
    while isinstance(node, (dict, list)) and node:
        keys = list(node) if isinstance(node, dict) else list(range(len(node)))
        key = chance.choice(keys)
        path.append(str(key))
        child = node[key]
        if not isinstance(child, (dict, list)) or not child or chance.random() < 0.25:
            how = chance.randrange(8)
            if how == 0 and isinstance(node, dict):
                del node[key]
            elif how == 1 and isinstance(node, list):
                node.append(child)
            elif how == 2:
                node[key] = [child, child]
            elif how == 3:
                node[key] = {"x": child}
            elif how == 4:
                node[key] = chance.choice([n for n in HOSTILE_NUMBERS if n == n and abs(n) != float("inf")])
            elif how == 5:
                node[key] = chance.choice((None, True, [], {}, ""))
            else:
                node[key] = chance.choice(HOSTILE_TEXT)
            break
        node = child
    return ".".join(path)


def spoil_tensors(path: Path, chance: Chance) -> str:
    """Change what the header of a safetensors file says, or its numbers."""
    data = path.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    header, body = json.loads(data[8 : 8 + length]), bytearray(data[8 + length :])
    names = [name for name in header if name != "__metadata__"]
    name = chance.choice(names)
    entry = header[name]
    how = chance.randrange(11)
    if how == 0:
        length = chance.choice((2**63, 2**60, 0, len(data), 10**9))
        path.write_bytes(struct.pack("<Q", length) + data[8:])
        return f"a header of {length} bytes"
    if how == 1:
        own = entry["shape"]
        entry["shape"] = chance.choice(([2**40, 2**40], [-1], [0], [], [2**63], [1], own[::-1], [*own, 1]))
    elif how == 2:
        entry["dtype"] = chance.choice(("F64", "I8", "BOOL", "F16", "X", "BF16", "U64", ""))
    elif how == 3:
        other = header[names[0]]["data_offsets"]
        entry["data_offsets"] = chance.choice(([0, 2**60], [2**60, 0], [0, 0], [-4, 4], [4, 2], other))
    elif how == 4:
        header[chance.choice(("x", "latent", "é", "layer9.weight"))] = header.pop(name)
    elif how == 5:
        del header[name]
    elif how == 6:
        said = ({"totals": "all genes"}, {"input": "counts"}, {"x": "y" * 100_000}, {"a": 1}, [])
        header["__metadata__"] = chance.choice(said)
    else:
        tensors = _read_tensors(header, body)
        values = tensors[name]
        if how == 7:
            tensors[name] = values[:-1] if values.ndim else values
        elif how == 8:
            tensors[name] = np.concatenate([values, values])
        elif how == 9 and values.size:
            flat = values.reshape(-1).copy()
            with np.errstate(all="ignore"):
                flat[chance.randrange(len(flat))] = np.array(chance.choice(HOSTILE_NUMBERS)).astype(
                    flat.dtype
                )
            tensors[name] = flat.reshape(values.shape)
        else:
            tensors[name] = values.astype(chance.choice(("f8", "i1", "f2", "i8"))).T.copy()
        from safetensors.numpy import save_file

        metadata = header.get("__metadata__")
        path.unlink()
        save_file(tensors, path, metadata=metadata)
        return f"numbers of {name}"
    packed = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(packed)) + packed + body)
    return f"the header of {name}"


KINDS = {"F32": "f4", "F64": "f8", "F16": "f2", "I64": "i8", "I32": "i4", "I16": "i2", "U16": "u2"}


def _read_tensors(header: dict[str, Any], body: bytearray) -> dict[str, np.ndarray]:
    return {
        name: np.frombuffer(
            bytes(body[entry["data_offsets"][0] : entry["data_offsets"][1]]), KINDS[entry["dtype"]]
        ).reshape(entry["shape"])
        for name, entry in header.items()
        if name != "__metadata__"
    }


def spoil_trees(path: Path, chance: Chance) -> str:
    """Change one thing of xgboost's trees, as its own JSON says them."""
    value = trees_as_json(path)
    trees = value["learner"]["gradient_booster"]["model"]["trees"]
    tree = chance.choice(trees)
    if chance.random() < 0.6:
        key = chance.choice(
            [
                "left_children",
                "right_children",
                "parents",
                "split_indices",
                "split_conditions",
                "base_weights",
                "default_left",
            ]
        )
        numbers = tree[key]
        how = chance.randrange(4)
        if how == 0 and numbers:
            numbers[chance.randrange(len(numbers))] = chance.choice((0, 1, -2, 2**31 - 1, 10**6, 2))
        elif how == 1:
            tree[key] = numbers[:-1]
        elif how == 2:
            tree[key] = [0] * len(numbers)
        else:
            tree[key] = numbers + numbers
        where = key
    else:
        where = spoil_json(value, chance)
    path.write_bytes(to_ubjson(value) if chance.random() < 0.7 else json.dumps(value).encode())
    return where


def to_ubjson(value: Any) -> bytes:
    """A JSON value as plain UBJSON."""
    if isinstance(value, dict):
        parts = (
            struct.pack(">cq", b"L", len(k.encode())) + k.encode() + to_ubjson(v) for k, v in value.items()
        )
        return b"{" + b"".join(parts) + b"}"
    if isinstance(value, list):
        return b"[" + b"".join(to_ubjson(item) for item in value) + b"]"
    if isinstance(value, str):
        return b"S" + struct.pack(">cq", b"L", len(value.encode())) + value.encode()
    if value is None or isinstance(value, bool):
        return b"Z" if value is None else b"T" if value else b"F"
    if isinstance(value, int) and abs(value) < 2**63:
        return struct.pack(">cq", b"L", value)
    return struct.pack(">cd", b"D", float(value))


# --- archives ---

# fmt: off
EVIL_NAMES = (
    *("../evil.json", "/evil.json", "a/../../evil.json", "..\\evil", "C:evil", "manifest.json", "MANIFEST.json"),
    *("", ".", "a" * 400, "\u202e.json", "evil\n.json", "code/evil.py", "x.pkl", "genes.tsv/x.json", "é.json"),
    *("nul\x00.json", "x.npz"),
)
# fmt: on


def spoil_archive(path: Path, chance: Chance) -> str:
    """Spoil an archive's bytes, or add a member that no model has."""
    how = chance.random()
    if how < 0.45:
        path.write_bytes(spoil_bytes(path.read_bytes(), chance))
        return "bytes"
    name = chance.choice(EVIL_NAMES)
    if path.suffix == ".zip":
        if how < 0.6:
            return _spoil_directory(path, chance)
        member = zipfile.ZipInfo("x")
        member.filename = member.orig_filename = name
        if how < 0.7:
            member.create_system, member.external_attr = (
                3,
                chance.choice((0o120777, 0o020666, 0o010666)) << 16,
            )
        content = b"\0" * 30_000_000 if how > 0.95 else b"/etc/passwd"
        with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr(member, content)
            if how < 0.75:
                nested = io.BytesIO()
                with zipfile.ZipFile(nested, "w") as inner:
                    inner.writestr("evil.json", "{}")
                archive.writestr("nested.zip", nested.getvalue())
        return f"a member {name[:20]!r}"
    packed = path.suffix == ".gz"
    data = gzip.decompress(path.read_bytes()) if packed else path.read_bytes()
    member = tarfile.TarInfo(name[:90].replace("\x00", "") or "x")
    member.type = chance.choice(
        (
            tarfile.REGTYPE,
            tarfile.SYMTYPE,
            tarfile.LNKTYPE,
            tarfile.CHRTYPE,
            tarfile.FIFOTYPE,
            tarfile.XHDTYPE,
            tarfile.GNUTYPE_LONGNAME,
        )
    )
    member.linkname = chance.choice(("/etc/passwd", "manifest.json", "../x", "x" * 50))
    member.size = chance.choice((0, 0, 10, 2**33, 2**62)) if member.type != tarfile.REGTYPE else 0
    spoiled = member.tobuf(tarfile.GNU_FORMAT, "utf-8", "surrogateescape") + data
    if chance.random() < 0.3:
        spoiled = spoil_bytes(spoiled, chance)
    path.write_bytes(gzip.compress(spoiled, mtime=0) if packed else spoiled)
    return f"a member of type {member.type!r}"


def _spoil_directory(path: Path, chance: Chance) -> str:
    """Numbers of the zip's own tables: sizes, offsets, checksums, kinds of packing."""
    data = bytearray(path.read_bytes())
    signature, fields = chance.choice(
        (
            (b"PK\x01\x02", ((8, 2), (10, 2), (16, 4), (20, 4), (24, 4), (28, 2), (30, 2), (42, 4))),
            (b"PK\x03\x04", ((6, 2), (8, 2), (14, 4), (18, 4), (22, 4), (26, 2), (28, 2))),
            (b"PK\x05\x06", ((4, 2), (8, 2), (10, 2), (12, 4), (16, 4), (20, 2))),
        )
    )
    places = [i for i in range(len(data) - 4) if data[i : i + 4] == signature]
    place = chance.choice(places)
    offset, size = chance.choice(fields)
    data[place + offset : place + offset + size] = chance.choice(
        (b"\xff" * size, b"\0" * size, chance.randbytes(size))
    )
    path.write_bytes(data)
    return f"{signature!r} at +{offset}"


# --- sheets ---


def _chain(line: str) -> str:
    """Ten anchors, each of nine of the one before: some kilobytes that mean a billion values."""
    pairs = zip("abcdefghij", "bcdefghijk", strict=True)
    return "".join(line.format(new=new, old=",".join([f"*{old}"] * 9)) for old, new in pairs)


# fmt: off
YAML_TRICKS = (
    "a: &a [x,x,x,x,x,x,x,x,x]\n" + _chain("{new}: &{new} [{old}]\n"),
    "- &a {sample: a, path: a.h5ad}\n- *a\n",
    "- sample: &a [*a]\n  path: x\n",
    "- &a {k0: 1, k1: 2, k2: 3}\n" + _chain("- &{new} {{<<: [{old}]}}\n"),
    "- sample: !!python/object/apply:os.system ['touch sprung']\n  path: x\n",
    "- !!python/object/new:os.system ['touch sprung']\n",
    "- sample: !!python/name:os.system\n  path: x\n",
    "[" * 5000,
    "- " * 3000 + "x",
    "{" * 3000,
    "- sample: 2001-99-99\n  path: 2020-01-01\n",
    "- sample: !!timestamp x\n  path: !!int x\n",
    "- sample: !!float x\n  path: !!binary ====\n",
    "- ? [1, 2]\n  : x\n  sample: a\n  path: b\n",
    "- {? {a: b} : c}\n",
    "- sample: 190:20:30\n  path: 0b11\n",
    "- sample: " + "9" * 6000 + "\n  path: x\n",
    "--- a\n--- b\n",
    "%YAML 9.9\n---\n- a\n",
    "- sample: .nan\n  path: .inf\n",
    "- sample: a\n  path: a.h5ad\n  <<: {organism: human}\n",
    "- sample: ~\n  path: [a.h5ad]\n  qc: {a: b}\n",
    "!!set {a, b}\n",
    "- !!omap [a: 1]\n- !!pairs [a: 1]\n",
    "- sample: \"\\ud800\"\n  path: \"\\x00\"\n",
    "samples: 5\n",
    "- 5\n- x\n",
    "- sample: a\n  path: !!seq {a: b}\n",
    "- sample: !!null x\n  path: !!bool x\n",
)
# fmt: on


def spoil_sheet(path: Path, chance: Chance) -> str:
    """Spoil a sample sheet's bytes, encoding, cells, or rows."""
    data = path.read_bytes()
    how = chance.randrange(10)
    if how in (0, 1):
        path.write_bytes(spoil_bytes(data, chance))
        return "bytes"
    if how == 2:
        encoding = chance.choice(("utf-16", "utf-16-le", "utf-32", "utf-7", "cp037", "utf-8-sig"))
        path.write_bytes(data.decode().encode(encoding))
        return encoding
    if how == 3:
        path.write_bytes(chance.randbytes(chance.choice((0, 1, 10, 5000))))
        return "random bytes"
    if path.suffix in (".yaml", ".yml") and how < 8:
        trick = chance.randrange(len(YAML_TRICKS))
        path.write_text(
            YAML_TRICKS[trick] if chance.random() < 0.7 else path.read_text() + YAML_TRICKS[trick]
        )
        return f"trick {trick}"
    text = data.decode()
    lines = text.splitlines()
    row = chance.randrange(len(lines))
    if how in (4, 5):
        delimiter = "\t" if path.suffix == ".tsv" else ","
        fields = lines[row].split(delimiter)
        value = chance.choice(HOSTILE_TEXT)
        fields[chance.randrange(len(fields))] = f'"{value}"' if chance.random() < 0.3 else value
        lines[row] = delimiter.join(fields)
        done = "a cell"
    elif how == 6:
        lines = lines * chance.choice((2, 3000))
        done = "rows again"
    elif how == 7:
        lines[0] += "".join(f",c{i}" for i in range(chance.choice((3, 20_000))))
        done = "columns"
    elif how == 8:
        lines += [f"{chance.choice(HOSTILE_TEXT[:12])},x" for _ in range(chance.choice((1, 20_000)))]
        done = "bad rows"
    else:
        lines[row] = chance.choice(('"', "a" * 200_000, ",,,,,,", "\x00\x00", '"a\n\n"b', "\r\r\r"))
        done = "a line"
    path.write_bytes("\n".join(lines).encode(errors="surrogatepass"))
    return done
