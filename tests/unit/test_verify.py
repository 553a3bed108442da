"""What a step wrote, opened again: every way in which a file can break its promise is seen, and none of it is kept."""

from __future__ import annotations

import shutil
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import anndata
import h5py
import numpy as np
import pytest
import scipy.sparse as sp
from small_model import simulate, small_counts, small_mapping, small_model, write_counts

from cellscribe import annotate, clusters, verify
from cellscribe.contract import OutputNames
from cellscribe.counts_file import new_counts_file
from cellscribe.errors import OutputError
from cellscribe.verify import problems_of

NAMES = OutputNames.of()
KINDS = ("logistic", "consensus", "logistic+consensus")


@pytest.fixture(scope="module", autouse=True)
def flat() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(clusters, "umap_layout", lambda embedding, *_, **__: clusters.flat_layout(embedding))
        yield


def annotated(folder: Path, kind: str, counts: Path | None = None, **changes: Any) -> Path:
    """An annotated file by one model, or by several with a + between them."""
    kinds = kind.split("+")
    annotate.run_annotate(
        counts or small_counts(),
        [small_mapping(one) for one in kinds],
        [small_model(one) for one in kinds],
        sample="s1",
        output=folder / "s1.annotated.h5ad",
        predictions=folder / "p.tsv.gz",
        summary=folder / "a.json",
        names=NAMES,
        **changes,
    )
    return folder / "s1.annotated.h5ad"


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {kind: annotated(tmp_path_factory.mktemp("whole"), kind) for kind in KINDS}


@pytest.mark.parametrize("kind", KINDS)
def test_what_annotate_writes_is_what_was_promised(whole: dict[str, Path], kind: str) -> None:
    assert problems_of(whole[kind], numbers=True) == []
    with h5py.File(whole[kind]) as file:
        keys = verify.annotations_of(file)
    assert len(keys) == (3 if "+" in kind else 1) and NAMES.key in keys


def of_codes(name: str, value: int) -> Callable[[h5py.File], None]:
    def damage(file: h5py.File) -> None:
        file[f"obs/{name}/codes"][0] = value

    return damage


def value(place: str, number: float, row: Any = 0) -> Callable[[h5py.File], None]:
    def damage(file: h5py.File) -> None:
        file[place][row] = number

    return damage


def gone(place: str) -> Callable[[h5py.File], None]:
    def damage(file: h5py.File) -> None:
        del file[place]

    return damage


def cut(place: str) -> Callable[[h5py.File], None]:
    """One row less."""

    def damage(file: h5py.File) -> None:
        kept, said = file[place][:-1], dict(file[place].attrs)
        del file[place]
        file[place] = kept
        file[place].attrs.update(said)

    return damage


def renamed(name: str, old: str, new: str) -> Callable[[h5py.File], None]:
    """Another name for a category."""

    def damage(file: h5py.File) -> None:
        names = [text.decode() for text in file[f"obs/{name}/categories"][()]]
        said = dict(file[f"obs/{name}/categories"].attrs)
        del file[f"obs/{name}/categories"]
        # A category that is in use, where the one that is asked for is not there.
        place = names.index(old) if old in names else int(file[f"obs/{name}/codes"][0])
        names[place] = new
        file[f"obs/{name}/categories"] = names
        file[f"obs/{name}/categories"].attrs.update(said)

    return damage


def same_barcode(file: h5py.File) -> None:
    index = file["obs"][file["obs"].attrs["_index"]]
    index[5] = index[4]


def all_novel(file: h5py.File) -> None:
    codes = file[f"obs/{NAMES.reason}/codes"]
    names = [text.decode() for text in file[f"obs/{NAMES.reason}/categories"][()]]
    del file[f"obs/{NAMES.reason}/categories"]
    file[f"obs/{NAMES.reason}/categories"] = [*names, "novel"]
    codes[...] = len(names)


DAMAGES: dict[str, tuple[Callable[[h5py.File], None], str]] = {
    "a share above one": (value(f"obs/{NAMES.uncertainty}", 1.5), "1 values that are not from 0 to 1"),
    "a share that is missing": (value(f"obs/{NAMES.uncertainty}", np.nan), "not from 0 to 1"),
    "a vote below zero": (value(f"obs/{NAMES.cluster_vote}", -0.1), "not from 0 to 1"),
    "a distance above one": (value(f"obs/{NAMES.reference_distance}", 7), "not from 0 to 1"),
    "an unexpected share above one": (value(f"obs/{NAMES.unexpected}", 2), "not from 0 to 1"),
    "a level's uncertainty": (value(f"obs/{NAMES.level_uncertainty('lineage')}", 2), "lineage_uncertainty"),
    "an infinite place": (value(f"obsm/{NAMES.umap}", np.inf, (3, 1)), "no finite place for 1 cells"),
    "an infinite embedding": (value(f"obsm/{NAMES.embedding}", np.nan, (3, 1)), "no finite place"),
    "no map": (gone(f"obsm/{NAMES.umap_explorer}"), f"obsm has no '{NAMES.umap_explorer}'"),
    "a shorter map": (cut(f"obsm/{NAMES.umap}"), "has the shape (89, 2), for 90 cells"),
    "no column": (gone(f"obs/{NAMES.final_cl_id}"), f"obs has no '{NAMES.final_cl_id}'"),
    "no level": (gone(f"obs/{NAMES.level('lineage')}"), f"obs has no '{NAMES.level('lineage')}'"),
    "a shorter column": (cut(f"obs/{NAMES.uncertainty}"), "has 89 rows, and the index of obs 90"),
    "no provenance": (gone(f"uns/{NAMES.predictions}/model_sha256"), "has no 'model_sha256'"),
    "no label": (of_codes(NAMES.predicted, -1), "have no label"),
    "a label that is none": (of_codes(NAMES.final, 99), "have no label"),
    "an unknown label": (renamed(NAMES.predicted, "B cell", "Unicorn"), "'Unicorn', which is no label"),
    "an unknown final label": (renamed(NAMES.final, "B cell", "Unicorn"), "and no reason"),
    "an unknown reason": (renamed(NAMES.reason, "", "bored"), "'bored', which is no reason"),
    "a name for what is novel": (all_novel, "that the model does not know have a label"),
    "a name twice": (same_barcode, "the index of obs has 'CELL0004-1' more than once"),
    "pointers back": (value("X/indptr", 0, 40), "do not rise from 0 to"),
    "pointers beyond": (value("X/indptr", 10**7, 90), "do not rise from 0 to"),
    "pointers from one": (value("X/indptr", 1, 0), "do not rise from 0 to"),
    "a pointer less": (cut("X/indptr"), "90 pointers for 90 rows"),
    "an index less": (cut("X/indices"), "numbers and"),
    "a shape that is another": (
        lambda file: file["X"].attrs.modify("shape", (90, 3)),
        "has the shape (90, 3)",
    ),
    "a column that is none": (value("X/indices", 10**6), "in columns that do not exist"),
    "a negative count": (value("X/data", -1), "negative, infinite or missing"),
    "half a count": (value("X/data", 0.5), "not whole, as counts are"),
    "no obs": (gone("obs"), "it cannot be read"),
}


@pytest.mark.parametrize("what", DAMAGES)
def test_every_damage_is_seen_and_named(whole: dict[str, Path], tmp_path: Path, what: str) -> None:
    damage, told = DAMAGES[what]
    path = Path(shutil.copy(whole["consensus"], tmp_path))
    with h5py.File(path, "r+") as file:
        damage(file)
    found = problems_of(path, numbers=True)
    assert any(told in problem for problem in found), found


def test_a_file_that_is_cut_short_or_none_at_all_is_told(whole: dict[str, Path], tmp_path: Path) -> None:
    for name, content in (
        ("cut", whole["logistic"].read_bytes()[:-2000]),
        ("text", b"no HDF5"),
        ("empty", b""),
    ):
        (tmp_path / name).write_bytes(content)
        (problem,) = problems_of(tmp_path / name)
        assert problem.startswith("it cannot be read"), name


def test_annotate_keeps_nothing_that_breaks_its_promise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = annotate.annotate_by_models

    def broken(*arguments: Any, **options: Any) -> annotate.Annotation:
        made = real(*arguments, **options)
        made.obs[NAMES.uncertainty] += 3
        return made

    monkeypatch.setattr(annotate, "annotate_by_models", broken)
    with pytest.raises(OutputError, match="not from 0 to 1") as raised:
        annotated(tmp_path, "logistic")
    assert raised.value.exit_code == 70 and raised.value.file == "s1.annotated.h5ad"
    assert list(tmp_path.iterdir()) == []


def test_a_counts_file_that_was_not_written_whole_is_not_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counts = simulate(20)
    tables = anndata.AnnData(obs=counts.obs, var=counts.var)
    with new_counts_file(tables, tmp_path / "good.h5ad") as (_, matrix):
        matrix.append(sp.csr_matrix(counts.X))
    with (
        pytest.raises(OutputError, match="has the shape"),
        new_counts_file(tables, tmp_path / "bad.h5ad") as (_, matrix),
    ):
        matrix.append(sp.csr_matrix(counts.X[:19]))
    assert [path.name for path in tmp_path.iterdir()] == ["good.h5ad"]


def test_files_of_others_are_held_to_the_annotation_alone(tmp_path: Path) -> None:
    cells = simulate(90, seed=1)
    cells.obs_names = ["twice", "twice", *cells.obs_names[2:]]
    path = write_counts(cells, tmp_path / "theirs.h5ad")
    assert any("'twice'" in problem for problem in problems_of(path))
    assert problems_of(path, keys=(), ours=False) == []


def test_it_is_read_by_blocks(
    whole: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verify, "BLOCK", 7)
    monkeypatch.setattr(verify, "NAMES", 7)
    assert problems_of(whole["consensus"], numbers=True) == []
    for what in (
        "a share above one",
        "a name twice",
        "pointers back",
        "an unknown final label",
        "half a count",
    ):
        path = Path(shutil.copy(whole["consensus"], tmp_path))
        damage, told = DAMAGES[what]
        with h5py.File(path, "r+") as file:
            damage(file)
        assert any(told in problem for problem in problems_of(path, numbers=True)), what


def test_memory_does_not_grow_with_the_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verify, "BLOCK", 50_000)

    def peak(n: int) -> int:
        path = tmp_path / f"{n}.h5ad"
        rows = sp.csr_matrix(np.ones((n, 400), dtype=np.float32))
        names = [f"CELL{i}" for i in range(n)]
        tables = anndata.AnnData(obs={"name": names}, var=simulate(5).var)
        tables.obs_names = names
        with new_counts_file(tables, path) as (_, matrix):
            matrix.append(rows)
        del rows, tables
        tracemalloc.start()
        assert problems_of(path, numbers=True) == []
        highest = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return highest

    small, large = peak(500), peak(5000)
    # 1.8 million more numbers of eight bytes each are held nowhere.
    assert large - small < 2_000_000
