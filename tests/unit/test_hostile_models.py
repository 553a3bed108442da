"""Models made to do harm: their sha256s are right, as whoever made them wrote the manifest too. None runs anything."""

from __future__ import annotations

import io
import json
import pickle
import random
import shutil
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from fuzz.mutations import to_ubjson
from fuzz.seeds import sign, trees_as_json
from small_model import small_counts, small_model
from traps import forbidden, run_from, watched

from cellscribe.cli import exit_codes
from cellscribe.errors import ModelFetchError
from cellscribe.mapping import run_map
from cellscribe.model.model import Model
from cellscribe.model.store import fetch_model
from cellscribe.model.trees import load_trees
from cellscribe.model.ubjson import parse_ubjson


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return Path(shutil.copytree(small_model("consensus"), tmp_path / "hostile"))


def payload(trap: Path) -> bytes:
    """A pickle that leaves a file where it is read."""
    return f"cposix\nsystem\n(S'touch {trap}'\ntR.".encode()


def use(model: Path, folder: Path) -> None:
    """What FETCH_MODEL and MAP do with a model."""
    kept = fetch_model(model, folder / "store")
    Model(kept).check()
    run_map(small_counts(24), kept, folder / "mapping.h5ad")


def refused(model: Path, folder: Path, pattern: str = r"\S") -> ModelFetchError:
    """That `use` raises our own error, which names a file and says what to do, and ran nothing."""
    with watched() as seen, pytest.raises(ModelFetchError, match=pattern) as caught:
        use(model, folder)
    assert not forbidden(seen) and not run_from(seen, folder)
    assert caught.value.todo and caught.value.file
    return caught.value


def test_no_part_of_a_model_is_imported_or_unpickled(tmp_path: Path, model: Path) -> None:
    trap = tmp_path / "sprung"
    evil = f"open({str(trap)!r}, 'w')\n"
    for place in (
        "model_code.py",
        "code/cellscribe/__init__.py",
        "code/evil.py",
        "evil.py",
        "sitecustomize.py",
    ):
        (model / place).parent.mkdir(exist_ok=True, parents=True)
        (model / place).write_text(evil)
    (model / "notes.txt").write_bytes(payload(trap))
    (model / "MLmodel").write_text("flavors: {python_function: {loader_module: evil, code: code}}\n")
    (model / "conda.yaml").write_text(f"dependencies: !!python/object/apply:os.system ['touch {trap}']\n")
    sign(model)
    with watched() as seen:
        use(model, tmp_path)
    assert not trap.exists()
    assert forbidden(seen) == []
    assert run_from(seen, tmp_path) == []


@pytest.mark.parametrize(
    "name",
    (
        *("manifest.json", "ontology.json", "markers.json", "genes.tsv", "silent_genes.tsv", "trees.ubj"),
        *(
            "encoder.safetensors",
            "likelihood.safetensors",
            "logistic.safetensors",
            "profiles.safetensors",
            "reference.safetensors",
            "reference_counts.safetensors",
        ),
    ),
)
def test_a_pickle_in_the_place_of_any_part_is_refused_unread(tmp_path: Path, model: Path, name: str) -> None:
    (model / name).write_bytes(payload(tmp_path / "sprung"))
    sign(model)
    assert Path(str(refused(model, tmp_path).file)).name == name
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize(
    "name", ["weights.pkl", "x.npz", "x.npy", "model.joblib", "m.pt", "x.so", "x.pth", "a.PKL"]
)
def test_no_model_holds_a_file_that_could_be_code(tmp_path: Path, model: Path, name: str) -> None:
    objects = io.BytesIO()
    np.save(objects, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    if name.endswith("npz"):
        with zipfile.ZipFile(objects, "w", zipfile.ZIP_DEFLATED) as bomb:
            bomb.writestr("a.npy", b"\0" * 50_000_000)
    (model / name).write_bytes(objects.getvalue())
    sign(model)
    refused(model, tmp_path, "could run code when it is read")


# --- safetensors ---


def with_header(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Rewrite the header of a safetensors file; its numbers stay."""
    data = path.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + length])
    change(header)
    packed = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(packed)) + packed + data[8 + length :])


HEADERS: dict[str, Callable[[dict[str, Any]], None]] = {
    "beyond the file": lambda h: h["intercepts"].update(data_offsets=[0, 2**60], shape=[2**58]),
    "overlapping": lambda h: h["intercepts"].update(data_offsets=h["coefficients"]["data_offsets"]),
    "backwards": lambda h: h["intercepts"].update(data_offsets=[20, 0]),
    "of a shape that is not there": lambda h: h["coefficients"].update(shape=[2**32, 2**32]),
    "turned": lambda h: h["coefficients"].update(shape=h["coefficients"]["shape"][::-1]),
    "of another kind": lambda h: h["coefficients"].update(dtype="I32"),
    "of a kind that is none": lambda h: h["coefficients"].update(dtype="PICKLE"),
    "lost": lambda h: h.pop("intercepts"),
    "more": lambda h: h.update(evil=h["intercepts"]),
    "no object": lambda h: h.update(intercepts=[]),
    "of negative size": lambda h: h["intercepts"].update(shape=[-1]),
}


@pytest.mark.parametrize("lie", HEADERS)
def test_a_safetensors_header_that_lies_is_an_error_of_that_file(
    tmp_path: Path, model: Path, lie: str
) -> None:
    with_header(model / "logistic.safetensors", HEADERS[lie])
    sign(model)
    assert str(refused(model, tmp_path).file).endswith("logistic.safetensors")


@pytest.mark.parametrize("length", [2**63, 2**63 - 1, 2**60, 10**9, 0, 3])
def test_a_header_of_eight_exabytes_is_not_read(tmp_path: Path, model: Path, length: int) -> None:
    path = model / "encoder.safetensors"
    path.write_bytes(struct.pack("<Q", length) + path.read_bytes()[8:])
    sign(model)
    assert str(refused(model, tmp_path).file).endswith("encoder.safetensors")


@pytest.mark.parametrize(("name", "part"), [("encoder", "layer0.weight"), ("reference", "latent")])
@pytest.mark.parametrize("number", [np.nan, np.inf])
def test_weights_that_are_no_numbers_are_refused(
    tmp_path: Path, model: Path, number: float, name: str, part: str
) -> None:
    from safetensors.numpy import load_file, save_file

    path = model / f"{name}.safetensors"
    tensors = load_file(path)
    tensors[part] = tensors[part].copy()
    tensors[part].flat[5] = number
    save_file(tensors, path)
    sign(model)
    assert str(refused(model, tmp_path, "finite").file).endswith(path.name)


def test_labels_of_reference_cells_that_the_model_has_not_are_refused(tmp_path: Path, model: Path) -> None:
    from safetensors.numpy import load_file, save_file

    path = model / "reference.safetensors"
    tensors = load_file(path)
    for code in (-1, 5, 30_000):
        save_file({**tensors, "codes": np.full_like(tensors["codes"], code)}, path)
        sign(model)
        refused(model, tmp_path, "labels are not those of the model")


# --- trees ---


def tree_file(value: Any, path: Path) -> Path:
    path.write_bytes(to_ubjson(value))
    return path


def test_a_list_of_values_that_take_no_bytes_is_refused() -> None:
    """Nine bytes that stand for as many values as there are bytes left, over and over."""
    part = b"[$Z#l" + (2000).to_bytes(4, "big")
    with pytest.raises(ValueError, match="takes no bytes"):
        parse_ubjson(b"[" + part * 300 + b"]")


@pytest.fixture(scope="module")
def trees() -> dict[str, Any]:
    return trees_as_json(small_model("consensus") / "trees.ubj")


def parts_of(trees: dict[str, Any]) -> list[dict[str, Any]]:
    return trees["learner"]["gradient_booster"]["model"]["trees"]


def test_trees_are_given_to_xgboost_as_they_were_saved(tmp_path: Path, trees: dict[str, Any]) -> None:
    import xgboost

    plain = xgboost.Booster()
    plain.load_model(small_model("consensus") / "trees.ubj")
    cells = xgboost.DMatrix(np.random.default_rng(0).normal(size=(200, 8)).astype(np.float32))
    for path in (small_model("consensus") / "trees.ubj", tree_file(trees, tmp_path / "trees.ubj")):
        np.testing.assert_array_equal(load_trees(path, 8, 5).predict(cells), plain.predict(cells))


def inner(tree: dict[str, Any]) -> int:
    return next(i for i, left in enumerate(tree["left_children"]) if left != -1)


SPOILED: dict[str, Callable[[dict[str, Any]], None]] = {
    "a loop to the root": lambda t: t["left_children"].__setitem__(inner(t), 0),
    "a loop to itself": lambda t: t["right_children"].__setitem__(inner(t), inner(t)),
    "two ways to a node": lambda t: t["left_children"].__setitem__(inner(t), t["right_children"][inner(t)]),
    "a child that is not there": lambda t: t["left_children"].__setitem__(inner(t), 10**6),
    "a negative child": lambda t: t["left_children"].__setitem__(inner(t), -7),
    "one child": lambda t: t["left_children"].__setitem__(inner(t), -1),
    "a dimension that is not there": lambda t: t["split_indices"].__setitem__(inner(t), 10**6),
    "a negative dimension": lambda t: t["split_indices"].__setitem__(inner(t), -1),
    "a short list": lambda t: t["split_conditions"].pop(),
    "no number": lambda t: t["split_conditions"].__setitem__(0, "x"),
    "splits by category": lambda t: t["split_type"].__setitem__(0, 1),
    "no nodes": lambda t: t["left_children"].clear(),
    "no list": lambda t: t.update(right_children=3),
}


@pytest.mark.parametrize("spoiled", SPOILED)
def test_a_tree_that_is_no_tree_never_reaches_xgboost(
    tmp_path: Path, trees: dict[str, Any], spoiled: str
) -> None:
    changed = json.loads(json.dumps(trees))
    tree = next(one for one in parts_of(changed) if len(one["left_children"]) > 3)
    SPOILED[spoiled](tree)
    with pytest.raises((ValueError, TypeError, KeyError)):
        load_trees(tree_file(changed, tmp_path / "trees.ubj"), 8, 5)


def test_truncated_and_mutated_trees_are_errors_and_end_no_process(tmp_path: Path, model: Path) -> None:
    import xgboost

    whole = (model / "trees.ubj").read_bytes()
    path, chance = tmp_path / "trees.ubj", random.Random(0)
    cells = xgboost.DMatrix(np.zeros((3, 8), dtype=np.float32))
    n_refused = 0
    for share in (0.0, 0.001, 0.1, 0.5, 0.9, 0.999):
        path.write_bytes(whole[: int(share * len(whole))])
        with pytest.raises((ValueError, TypeError, KeyError)):
            load_trees(path, 8, 5)
    for _ in range(40):
        data = bytearray(whole)
        for _ in range(chance.choice((1, 4, 30))):
            data[chance.randrange(len(data))] = chance.randrange(256)
        path.write_bytes(data)
        try:
            # What is read all the same holds other numbers, and can be used.
            load_trees(path, 8, 5).predict(cells)
        except (ValueError, TypeError, KeyError, AttributeError):
            n_refused += 1
    assert n_refused > 10
    (model / "trees.ubj").write_bytes(whole[: len(whole) // 2])
    sign(model)
    assert str(refused(model, tmp_path).file).endswith("trees.ubj")


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[" * 5000,
        b"{L\xff\xff\xff\xff\xff\xff\xff\xffx",
        b"[$Z#l\x7f\xff\xff\xff",
        b"[$d#L\x7f\xff\xff\xff\xff\xff\xff\xff",
        b"SL\x00\x00\x00\x00\x00\x00\x00\x09short",
        b"{i\x01ai\x01i\x01ai\x02}",
        b"i\x01i\x01",
        b'{"learner": {}}',
        b"[$[#i\x02",
    ],
)
def test_ubjson_that_claims_more_than_there_is_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"\S"):
        parse_ubjson(data)


# --- the manifest ---


def change(model: Path, **fields: Any) -> None:
    path = model / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))
    sign(model)


MANIFESTS: dict[str, Any] = {
    "no calibration": {"calibration": {}},
    "an unknown classifier alone": {"calibration": {"x": {"method": "", "weights": {}}}},
    "a weight of a member that is not there": {
        "calibration": {"scvi": {"method": "x", "weights": {"scanvi": 1.0}}}
    },
    "a weight that is text": {"calibration": {"logistic": {"method": "x", "weights": {"logistic": "1"}}}},
    "calibration of a list": {"calibration": {"logistic": [1, 2]}},
    "no thresholds": {"rejection": {}},
    "thresholds of text": {"rejection": {"least_probability": "__import__('os')"}},
    "accuracy of text": {"evaluation": {"accuracy": "<b>all</b>"}},
}


@pytest.mark.parametrize("wrong", MANIFESTS)
def test_a_manifest_whose_fitted_numbers_are_not_there_is_refused(
    tmp_path: Path, model: Path, wrong: str
) -> None:
    change(model, **MANIFESTS[wrong])
    assert str(refused(model, tmp_path).file).endswith("manifest.json")


def test_a_manifest_of_very_many_labels_is_checked_in_seconds(tmp_path: Path, model: Path) -> None:
    import time

    labels = json.loads((model / "manifest.json").read_text())["labels"]
    change(model, labels=[labels[0] | {"label": f"T{i}"} for i in range(20_000)])
    started = time.process_time()
    refused(model, tmp_path)
    assert time.process_time() - started < 8


def test_a_model_that_cannot_be_used_ends_with_6_and_no_traceback(tmp_path: Path, model: Path) -> None:
    import click

    (model / "genes.tsv").write_text("gene_id\n")
    sign(model)
    kept = fetch_model(model, tmp_path / "store")
    main = click.command()(exit_codes(lambda: Model(kept).check()))
    done = CliRunner().invoke(main)
    assert done.exit_code == 6
    assert "genes.tsv" in done.stderr and "Traceback" not in done.stderr


# --- cells ---


def test_what_looks_like_a_pickle_in_an_h5ad_is_never_unpickled(tmp_path: Path) -> None:
    import h5py
    from small_model import simulate

    from cellscribe.one_file import annotate_file

    query = tmp_path / "query.h5ad"
    simulate(24, seed=1).write_h5ad(query)
    evil = payload(tmp_path / "sprung")
    with h5py.File(query, "r+") as file:
        for key, kind in (("cxg_cell_type_predictions", "pickle"), ("model", "rec-array"), ("x", "")):
            file[f"uns/{key}"] = np.void(evil)
            file[f"uns/{key}"].attrs["encoding-type"] = kind
        file["uns"].attrs["pickled"] = np.void(pickle.dumps({"a": 1}))
    # What numba compiled before is kept by pickle: read here, if no test before did.
    annotate_file(query, tmp_path / "before.h5ad", Model(small_model("logistic")))
    with watched() as seen:
        annotate_file(query, tmp_path / "out.h5ad", Model(small_model("logistic")))
    assert not [one for one in forbidden(seen) if "umap" not in str(one) and "numba" not in str(one)]
    assert not (tmp_path / "sprung").exists()
