"""All samples in one file: genes, cells, embeddings and counts are those of the samples."""

from __future__ import annotations

import json
import re
import tracemalloc
from pathlib import Path
from typing import Any

import anndata
import h5py
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

from cellscribe import clusters, figures, merge
from cellscribe.colours import PALETTE, UNASSIGNED_COLOUR
from cellscribe.contract import OutputNames
from cellscribe.counts_file import CsrWriter
from cellscribe.errors import InputError
from cellscribe.io import read_json, write_h5ad, write_json
from cellscribe.symbols import known_symbols

NAMES = OutputNames.of()
LABELS = np.array(["B cell", "T cell", "NK cell"], dtype=object)


def write_sample(
    folder: Path,
    sample: str,
    n_cells: int = 40,
    n_genes: int = 30,
    *,
    seed: int = 0,
    var: pd.DataFrame | None = None,
    width: int = 5,
    obs: dict[str, object] | None = None,
    labels: list[str] | None = None,
) -> anndata.AnnData:
    """What ANNOTATE leaves of one sample, as far as MERGE reads it."""
    rng = np.random.default_rng(seed)
    codes = np.arange(n_cells) % 3
    latent = rng.normal(0, 0.2, (n_cells, width)).astype(np.float32)
    latent[:, 0] += 3 * codes
    if var is None:
        symbols = [f"SYM{i}" for i in range(n_genes)]
        ids = [f"ENSG{i:011d}" for i in range(n_genes)]
        var = pd.DataFrame({"gene_ids": ids, "gene_symbols": symbols}, index=symbols)
    adata = anndata.AnnData(
        X=sp.random(
            n_cells, len(var), 0.3, "csr", np.float32, rng, data_rvs=lambda n: rng.integers(1, 9, n)
        ).astype(np.float32),
        obs=pd.DataFrame(
            {
                "sample": sample,
                NAMES.predicted: pd.Categorical(LABELS[codes]),
                NAMES.uncertainty: rng.random(n_cells).astype(np.float32),
                NAMES.final: pd.Categorical(np.where(np.arange(n_cells) == 1, "unassigned", LABELS[codes])),
                NAMES.cluster: pd.Categorical(codes.astype(str)),
                **(obs or {}),
            },
            index=[f"AAC{i}-1" for i in range(n_cells)],
        ),
        var=var,
        obsm={
            NAMES.embedding: latent,
            NAMES.umap: latent[:, :2],
            NAMES.umap_explorer: latent[:, :2],
            NAMES.reference_umap: latent[:, :2],
        },
        uns={
            NAMES.predictions: {
                "model_name": "blood",
                "gene_overlap": 0.5 + seed / 10,
                **({"labels": labels} if labels else {}),
            },
            "cellscribe": {"sample": sample, "organism": "human"},
        },
    )
    folder.mkdir(exist_ok=True)
    write_h5ad(adata, folder / f"{sample}.annotated.h5ad")
    write_json(
        {"sample": sample, "names": {"predicted": NAMES.predicted}, "model": {"name": "blood"}},
        folder / f"{sample}.annotation.json",
    )
    return adata


@pytest.fixture(autouse=True)
def flat(monkeypatch: pytest.MonkeyPatch) -> None:
    """No UMAP: the tests of clusters.py are about it."""
    monkeypatch.setattr(clusters, "umap_layout", lambda embedding, *_, **__: clusters.flat_layout(embedding))


def run(folder: Path) -> tuple[anndata.AnnData, merge.Merged, pd.DataFrame, str]:
    out = folder / "out"
    merged = merge.run_merge(
        folder, out / "m.h5ad", out / "c.tsv", out / "s.h5ad", out / "p.html", pipeline_version="0.1.0"
    )
    table = pd.read_csv(out / "c.tsv", sep="\t")
    return anndata.read_h5ad(out / "m.h5ad"), merged, table, (out / "p.html").read_text()


def genes(*rows: tuple[str, str]) -> pd.DataFrame:
    """(id, symbol) of each gene."""
    ids, symbols = zip(*rows, strict=True)
    return pd.DataFrame({"gene_ids": ids, "gene_symbols": symbols}, index=[s or i for i, s in rows])


def test_every_cell_keeps_its_counts_its_columns_and_its_place(tmp_path: Path) -> None:
    parts = {name: write_sample(tmp_path, name, 40 + i, seed=i) for i, name in enumerate(("a", "b", "c"))}
    adata, _, _, _ = run(tmp_path)
    assert list(adata.obs_names[[0, 40]]) == ["a:AAC0-1", "b:AAC0-1"] and adata.obs_names.is_unique
    assert adata.obs["sample"].value_counts().to_dict() == {"a": 40, "b": 41, "c": 42}
    for name, part in parts.items():
        own = adata[adata.obs["sample"] == name]
        assert (own.X != part.X).nnz == 0
        assert own.obs[NAMES.final].tolist() == part.obs[NAMES.final].tolist()
        np.testing.assert_array_equal(own.obsm[NAMES.embedding], part.obsm[NAMES.embedding])
        np.testing.assert_array_equal(own.obsm[NAMES.reference_umap], part.obsm[NAMES.reference_umap])
    assert adata.X.has_sorted_indices and adata.X.dtype == np.float32
    np.testing.assert_array_equal(adata.obsm[NAMES.umap], adata.obsm[NAMES.umap_explorer])


def test_samples_of_the_run_that_got_no_labels_and_limits_that_were_changed_are_named(tmp_path: Path) -> None:
    listed, out = tmp_path / "samples.json", tmp_path / "out"
    write_json([{"id": name} for name in ("a", "lost", "b")], listed)
    for seed, name in enumerate("ab"):
        write_sample(tmp_path / "in", name, seed=seed)
    own = tmp_path / "in" / "a.annotation.json"
    write_json(read_json(own) | {"parameters": {"reject_novel": False}}, own)
    merged = merge.run_merge(
        tmp_path / "in",
        out / "m.h5ad",
        out / "c.tsv",
        out / "s.h5ad",
        out / "p.html",
        listed=listed,
        pipeline_version="0.1.0",
    )
    told = "1 sample of the run got no labels and is not here: lost."
    page = (out / "p.html").read_text()
    assert merged.warnings[0].startswith(told) and told in page
    assert "cells are unassigned. The limits for names were changed: --reject_novel false.</p>" in page


def test_cells_that_two_samples_have_in_common_are_told(tmp_path: Path) -> None:
    """One file under two names, and a third sample with the same barcodes and other cells."""

    def measured(seed: int) -> dict[str, object]:
        counts = np.random.default_rng(seed).integers(500, 5000, 40)
        return {"total_counts": counts, "n_genes_by_counts": counts // 2}

    for sample, seed in (("a", 1), ("b", 2), ("again", 1)):
        write_sample(tmp_path, sample, seed=seed, obs=measured(seed))
    told = [warning for warning in run(tmp_path)[1].warnings if "Each counts twice" in warning]
    (warning,) = told
    assert warning.startswith("Samples 'a' and 'again' have 40 cells in common")


def test_samples_of_too_few_cells_for_novelty_are_named(tmp_path: Path) -> None:
    for seed, name in enumerate("abc"):
        write_sample(tmp_path, name, seed=seed)
        own = tmp_path / f"{name}.annotation.json"
        few = {"parameters": {"novelty_from_cells": 100}}
        spared = {"parameters": {"novelty_from_cells": 100, "reject_novel": False}}
        write_json(read_json(own) | {"a": few, "b": {"models": [few]}, "c": spared}[name], own)
    _, merged, _, page = run(tmp_path)
    told = "Novelty is not judged in 2 samples of too few cells: a, b. Do not compare shares"
    assert merged.warnings[0].startswith(told) and told in page


def test_clusters_and_the_map_are_of_all_cells_together(tmp_path: Path) -> None:
    for seed, name in enumerate("ab"):
        write_sample(tmp_path, name, seed=seed)
    adata, merged, _, page = run(tmp_path)
    assert adata.obsm[NAMES.umap].shape == (80, 2)
    # The three types lie apart in the embedding, and in both samples alike.
    table = pd.crosstab(adata.obs[NAMES.cluster], adata.obs[NAMES.predicted])
    assert ((table > 0).sum(axis=1) == 1).all()
    assert (adata.obs[NAMES.cluster_label].astype(str) == adata.obs[NAMES.predicted].astype(str)).all()
    assert (adata.obs[NAMES.cluster_vote] == 1).all()
    assert merged.warnings == []
    assert "2 samples in one file: 80 cells, 30 genes, 3 labels; 2.5 % of the cells are unassigned." in page
    assert 'src="http' not in page and "<script" not in page


def test_clusters_of_the_file_that_was_parted_are_those_of_all_cells(tmp_path: Path) -> None:
    """Every fourth cell is in none, and has its own labels."""
    for seed, name in enumerate("ab"):
        mine = pd.Categorical(np.where(np.arange(40) % 4, np.arange(40) % 2, None))
        write_sample(tmp_path, name, seed=seed, obs={"mine": mine})
    out = tmp_path / "out"
    merge.run_merge(
        tmp_path, out / "m.h5ad", out / "c.tsv", out / "s.h5ad", out / "p.html", cluster_key="mine"
    )
    obs = anndata.read_h5ad(out / "m.h5ad").obs
    assert obs[NAMES.cluster].astype(str).tolist() == ["no cluster", "1", "0", "1"] * 20
    alone = obs[NAMES.cluster] == "no cluster"
    assert (
        obs.loc[alone, NAMES.cluster_label].astype(str) == obs.loc[alone, NAMES.predicted].astype(str)
    ).all()
    assert (obs.loc[alone, NAMES.cluster_final].astype(str) == obs.loc[alone, NAMES.final].astype(str)).all()
    assert (obs.loc[alone, NAMES.cluster_vote] == 1).all() and (obs.loc[~alone, NAMES.cluster_vote] < 1).all()
    page = (out / "p.html").read_text()
    assert "the column &#39;mine&#39; of obs" in page and "20 of 80 cells have no cluster" in page
    merged = merge.run_merge(
        tmp_path,
        out / "m.h5ad",
        out / "c.tsv",
        out / "s.h5ad",
        out / "p.html",
        cluster_key="gone",
        cluster_resolution=9,
    )
    assert merged.uns["cellscribe"]["clusters"] == "Leiden at a resolution of 9, all samples together"
    assert "there is no such column" in merged.warnings[0] and merged.obs[NAMES.cluster].nunique() > 3


@pytest.mark.parametrize("taken", [True, False])
def test_clusters_of_an_earlier_annotation_are_taken_where_every_sample_took_them(
    tmp_path: Path, taken: bool
) -> None:
    """Where one found its own, they have the column's name all the same."""
    for name, values in (("a", ["x", "y", "no cluster", "x"]), ("b", ["x", "y", "x", "y"])):
        write_sample(tmp_path, name, obs={NAMES.cluster: pd.Categorical(values * 10)})
        place = tmp_path / f"{name}.annotation.json"
        key = {"cluster_key": NAMES.cluster} if taken or name == "a" else {"cluster_resolution": 1}
        told = {
            "parameters": key,
            "in_no_cluster": {"n_cells": 10 if name == "a" else 0, "name": "no cluster"},
        }
        write_json(json.loads(place.read_text()) | told, place)
    merged = merge.merge_samples(merge.read_samples(tmp_path), cluster_key=NAMES.cluster)
    if taken:
        assert merged.obs[NAMES.cluster].tolist()[:3] == ["x", "y", "no cluster"]
        assert merged.no_cluster == "no cluster" and merged.warnings[0].startswith(
            "10 of 80 cells have no cl"
        )
    else:
        assert "in each sample by itself" in merged.warnings[0]
        assert set(merged.obs[NAMES.cluster]) == {"0", "1", "2"} and merged.no_cluster == ""


def test_cells_in_no_cluster_are_none_of_the_clusters_on_the_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They have nothing in common: neither a label, nor a sample with most of them, nor a colour of their own."""
    write_sample(tmp_path, "a", obs={"mine": np.where(np.arange(40) < 30, "", "x")})
    write_sample(tmp_path, "b", obs={"mine": np.where(np.arange(40) < 30, "y", "x")})
    drawn: list[dict[str, str]] = []
    draw = figures.umap_by_category

    def watched(layout: np.ndarray, values: np.ndarray, colours: dict[str, str], **rest: Any) -> bytes:
        drawn.append(colours)
        return draw(layout, values, colours, **rest)

    monkeypatch.setattr(figures, "umap_by_category", watched)
    out = tmp_path / "out"
    merge.run_merge(
        tmp_path, out / "m.h5ad", out / "c.tsv", out / "s.h5ad", out / "p.html", cluster_key="mine"
    )
    page = (out / "p.html").read_text()
    cells = re.findall(r"<tr><th>(\w[\w ]*)</th><td class=\"n\">(\d+)</td>", page)
    assert cells == [("y", "30"), ("x", "20")] and "1 of 2 come to 90 %" in page
    assert "<code>no cluster</code>" in page
    assert drawn[-1]["no cluster"] == UNASSIGNED_COLOUR and {"x", "y"} < set(drawn[-1])


def test_the_page_leads_to_the_pages_of_its_samples_and_of_the_run(tmp_path: Path) -> None:
    for seed, name in enumerate(("a", "b 2")):
        write_sample(tmp_path, name, seed=seed)
    links = re.findall('href="([^"#]+)"', run(tmp_path)[3])
    assert links == [
        "m.h5ad",
        "c.tsv",
        "s.h5ad",
        "../summary/multiqc_report.html",
        "../samples/a/a.report.html",
        "../samples/b%202/b%202.report.html",
    ]


def test_labels_have_the_colours_of_the_samples_own_pages_and_clusters_have_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = ["Monocyte", "NK cell", "B cell", "T cell"]
    for seed, name in enumerate("ab"):
        write_sample(tmp_path, name, seed=seed, labels=known)
    drawn: list[dict[str, str]] = []
    draw = figures.umap_by_category

    def keep(places: Any, values: Any, colours: dict[str, str], **options: Any) -> bytes:
        drawn.append(colours)
        return draw(places, values, colours, **options)

    monkeypatch.setattr(figures, "umap_by_category", keep)
    run(tmp_path)
    by_label, by_cluster = drawn[0], drawn[-1]
    # The sample's page has them in the model's order too (test_report.py).
    assert [by_label[name] for name in known] == list(PALETTE[:4])
    assert by_cluster and not set(by_cluster.values()) & set(by_label.values())


def test_hostile_labels_are_text_on_the_page_and_no_formulas_in_the_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from hostile_names import LABELS as HOSTILE
    from hostile_names import Page, formulas

    monkeypatch.setitem(globals(), "LABELS", np.array(list(HOSTILE.values())[:4][1:], dtype=object))
    write_sample(tmp_path, "a", obs={"<planted>": "=1+1"})
    adata, _, table, _ = run(tmp_path)
    page = Page(tmp_path / "out" / "p.html")
    assert page.faults() == [] and "{{ 7 * 191 }}" in page.text
    assert formulas(tmp_path / "out" / "c.tsv") == []
    assert set(adata.obs[NAMES.predicted]) == set(LABELS)
    assert {name.removeprefix("'") for name in table["label"]} == {*LABELS, "unassigned"}


def test_genes_are_joined_by_id_then_by_a_symbol_that_is_one_genes_alone() -> None:
    var, places = merge.join_genes(
        [
            genes(("ENSG1", "A"), ("ENSG2", "B"), ("", "C"), ("ENSG9", "D"), ("ENSG8", "D")),
            # Renamed; without an id; with the id that was missing; an ambiguous symbol; new; of another release.
            genes(("ENSG1", "A-new"), ("", "B"), ("ENSG3", "C"), ("", "D"), ("ENSG7", "E")),
            genes(("ENSG7", "E"), ("", "C"), ("ENSG5", "B")),
        ]
    )
    assert var["gene_ids"].tolist() == ["ENSG1", "ENSG5", "ENSG9", "ENSG8", "ENSG3", "ENSG7", ""]
    assert var["gene_symbols"].tolist() == ["A", "B", "D", "D", "C", "E", "D"]
    assert var["n_samples"].tolist() == [2, 3, 1, 1, 3, 2, 1]
    assert [place.tolist() for place in places] == [[0, 1, 4, 2, 3], [0, 1, 4, 6, 5], [5, 4, 1]]
    assert var.index.is_unique and {"A", "B", "D_ENSG9"} <= set(var.index)


def test_genes_that_share_an_id_within_a_sample_stay_apart_and_meet_their_like() -> None:
    twice = genes(("ENSG1", "A"), ("ENSG1", "A.1"), ("", "Q"), ("", "Q"))
    var, places = merge.join_genes([twice, twice.iloc[::-1], twice])
    assert len(var) == 4 and var.index.is_unique
    assert places[0].tolist() == places[2].tolist() and len(set(places[1].tolist())) == 4


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("HLA-A", "HLA.A"),  # R's make.names
        ("RP11-34P13.7", "RP11.34P13.7"),
        *(("CXCL8", "IL8"), ("JCHAIN", "IGJ"), ("Adgre1", "Emr1")),  # today and before
    ],
)
@pytest.mark.parametrize("ids", [("", ""), ("ENSG1", ""), ("", "ENSG1")])
def test_genes_are_joined_by_other_spellings_of_their_symbols(
    one: str, other: str, ids: tuple[str, str]
) -> None:
    samples = [genes((ids[0], one), ("", "B")), genes(("", "B"), (ids[1], other))]
    var, places = merge.join_genes(samples)
    assert var["gene_symbols"].tolist() == [one, "B"] and var["n_samples"].tolist() == [2, 2]
    assert var["gene_ids"].tolist() == [ids[0] or ids[1], ""]
    assert [place.tolist() for place in places] == [[0, 1], [1, 0]]
    var, _ = merge.join_genes(samples[::-1])
    assert sorted(var["gene_symbols"]) == sorted(["B", other])


def test_a_gene_of_three_symbols_is_one_in_three_samples_and_apart_where_one_sample_has_two() -> None:
    today, (first, second, *_) = next(
        names for names in known_symbols()[1].values() if len(names[1]) > 1 and "-" not in str(names)
    )
    var, _ = merge.join_genes([genes(("", name)) for name in (first, today, second)])
    assert var["gene_symbols"].tolist() == [first] and var["n_samples"].tolist() == [3]
    var, _ = merge.join_genes([genes(("", today)), genes(("", first), ("", second))])
    assert var["gene_symbols"].tolist() == [today, first, second]


def test_genes_that_lie_side_by_side_in_a_sample_are_two_in_all() -> None:
    samples = [genes(("", "IL8")), genes(("", "CXCL8")), genes(("", "CXCL8"), ("", "IL8"))]
    for order in ((0, 1, 2), (2, 1, 0), (1, 2, 0)):
        var, places = merge.join_genes([samples[i] for i in order])
        assert sorted(var["gene_symbols"]) == ["CXCL8", "IL8"] and var["n_samples"].tolist() == [2, 2]
        assert all(len(set(place.tolist())) == len(place) for place in places)


def test_spellings_do_not_join_genes_of_different_ids_nor_what_two_genes_may_be() -> None:
    different = [genes(("ENSG1", "HLA-A")), genes(("ENSG2", "HLA.A"))]
    assert len(merge.join_genes(different)[0]) == 2
    shared = [genes(("", "HLA-A"), ("", "HLA-A")), genes(("", "HLA.A"))]
    assert len(merge.join_genes(shared)[0]) == 3
    var, _ = merge.join_genes([genes(("", "A-B.C"), ("", "A.B-C")), genes(("", "A.B.C"))])
    assert len(var) == 3


def test_counts_of_genes_in_other_spellings_stand_in_one_column(tmp_path: Path) -> None:
    a = write_sample(tmp_path, "a", var=genes(("", "HLA-A"), ("", "IL8")))
    b = write_sample(tmp_path, "b", var=genes(("", "CXCL8"), ("", "HLA.A")))
    adata, merged, _, _ = run(tmp_path)
    assert adata.var_names.tolist() == ["HLA-A", "IL8"] and merged.warnings == []
    np.testing.assert_array_equal(adata.X.toarray()[:40], a.X.toarray())
    np.testing.assert_array_equal(adata.X.toarray()[40:], b.X.toarray()[:, [1, 0]])


def test_samples_of_different_references_have_the_union_of_their_genes(tmp_path: Path) -> None:
    a = write_sample(tmp_path, "a", var=genes(("ENSG1", "A"), ("ENSG2", "B"), ("ENSG3", "C")))
    b = write_sample(tmp_path, "b", var=genes(("ENSG4", "D"), ("ENSG2", "B2"), ("ENSG1", "A")))
    adata, merged, _, page = run(tmp_path)
    assert adata.var["gene_ids"].tolist() == ["ENSG1", "ENSG2", "ENSG3", "ENSG4"]
    own = adata[adata.obs["sample"] == "b"].X.toarray()
    np.testing.assert_array_equal(own[:, [3, 1, 0]], b.X.toarray())
    assert not own[:, 2].any()
    np.testing.assert_array_equal(adata.X.toarray()[:40, :3], a.X.toarray())
    assert adata.X.has_sorted_indices
    (warning,) = merged.warnings
    assert (
        warning.startswith("2 of 4 genes were not measured in every sample") and warning.split("'")[0] in page
    )


def test_columns_that_a_sample_lacks_are_empty_there(tmp_path: Path) -> None:
    own = {
        "donor": pd.Categorical(["d1"] * 40, categories=["d1", "unused"]),
        "age": np.arange(40),
        "fresh": True,
        "text": "t",
        "mixed": 1.5,
    }
    write_sample(tmp_path, "a", obs=own)
    write_sample(tmp_path, "b", obs={"mixed": "x"})
    adata, _, _, _ = run(tmp_path)
    first, last = adata.obs.iloc[0], adata.obs.iloc[-1]
    assert adata.obs["donor"].cat.categories.tolist() == ["d1", ""]
    assert (first["age"], first["fresh"], first["text"], first["mixed"]) == (0, "True", "t", "1.5")
    assert np.isnan(last["age"]) and (last["donor"], last["fresh"], last["text"]) == ("", "", "")
    assert last["mixed"] == "x" and adata.obs["sample"].iloc[-1] == "b"


def test_a_column_of_numbers_or_of_booleans_stays_one() -> None:
    numbers = [pd.Series([1, 2]), pd.Series([0.5])]
    assert merge.join_column(numbers, [2, 1]).tolist() == [1, 2, 0.5]
    assert merge.join_column([pd.Series([True]), pd.Series([False])], [1, 1]).dtype == bool
    missing = pd.Series(pd.Categorical(["a", None, "b"]))
    assert merge.join_column([missing, pd.Series(["b"])], [3, 1]).tolist() == ["a", "", "b", "b"]


def test_provenance_says_what_is_alike_and_by_sample_what_is_not(tmp_path: Path) -> None:
    for seed, name in enumerate("ab"):
        write_sample(tmp_path, name, seed=seed)
    adata, _, _, _ = run(tmp_path)
    said = adata.uns[NAMES.predictions]
    assert said["model_name"] == "blood"
    assert json.loads(said["by_sample"]) == {"gene_overlap": {"a": 0.5, "b": 0.6}}
    assert list(adata.uns["cellscribe"]["samples"]) == ["a", "b"]


def test_the_composition_has_every_pair_of_sample_and_label(tmp_path: Path) -> None:
    write_sample(tmp_path, "a")
    write_sample(tmp_path, "b", 3)
    _, _, table, _ = run(tmp_path)
    assert len(table) == 2 * 4 and table["n_cells"].sum() == 43
    assert table[table["sample"] == "b"].set_index("label")["n_cells"].to_dict() == {
        "B cell": 1,
        "NK cell": 1,
        "unassigned": 1,
        "T cell": 0,
    }
    assert table.groupby("sample")["share"].sum().round(4).tolist() == [1, 1]


def test_samples_without_a_shared_embedding_are_merged_without_a_map(tmp_path: Path) -> None:
    write_sample(tmp_path, "a")
    write_sample(tmp_path, "b", width=7)
    adata, merged, _, page = run(tmp_path)
    assert NAMES.umap not in adata.obsm and NAMES.embedding not in adata.obsm
    assert NAMES.cluster not in adata.obs
    assert "no UMAP and no cluster of all cells by 'cxg_cell_type'" in merged.warnings[0]
    assert "there is no map of all of them" in page


@pytest.mark.parametrize("n_cells", [1, 4])
def test_one_sample_of_a_few_cells_is_merged_too(tmp_path: Path, n_cells: int) -> None:
    write_sample(tmp_path, "a", n_cells)
    adata, _, _, _ = run(tmp_path)
    assert adata.obsm[NAMES.umap].shape == (n_cells, 2)


def test_a_second_annotation_gets_its_own_map(tmp_path: Path) -> None:
    other = OutputNames.of(run_name="b")
    for seed, name in enumerate(("one", "two")):
        adata = write_sample(tmp_path, name, seed=seed)
        adata.obs[other.predicted] = adata.obs[NAMES.predicted]
        adata.obsm[other.embedding] = adata.obsm[NAMES.embedding] * 2
        adata.obsm[other.umap] = adata.obsm[NAMES.umap]
        adata.uns[other.predictions] = {"model_name": "other"}
        write_h5ad(adata, tmp_path / f"{name}.annotated.h5ad")
    merged, _, _, _ = run(tmp_path)
    assert other.umap_explorer in merged.obsm and merged.uns[other.predictions]["model_name"] == "other"
    assert {NAMES.cluster, other.cluster} <= set(merged.obs)


def test_no_samples_and_half_a_sample_are_errors(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no annotated sample") as caught:
        merge.read_samples(tmp_path)
    assert "S.annotated.h5ad" in caught.value.todo
    write_sample(tmp_path, "a")
    (tmp_path / "a.annotation.json").unlink()
    with pytest.raises(InputError, match=r"a\.annotation\.json is not beside it"):
        merge.read_samples(tmp_path)


def test_the_file_is_as_any_h5ad_of_ours(tmp_path: Path) -> None:
    write_sample(tmp_path, "a")
    run(tmp_path)
    with h5py.File(tmp_path / "out" / "m.h5ad") as file:
        assert file["X"].attrs["encoding-type"] == "csr_matrix"
        assert (file["X/data"].compression, file["X/data"].shuffle) == ("gzip", True)
        found: set[str] = set()
        file.visititems(lambda name, item: found.add(item.attrs.get("encoding-type", "")))
    assert not {kind for kind in found if "nullable" in kind}


def test_memory_does_not_grow_with_the_counts(tmp_path: Path) -> None:
    def peak(n: int) -> int:
        folder = tmp_path / str(n)
        for i in range(n):
            write_sample(folder, f"s{i}", 400, 300, seed=i)
        samples = merge.read_samples(folder)
        var, places = merge.join_genes([one.var for one in samples])
        with h5py.File(folder / "m.h5ad", "w") as file, CsrWriter(file, "X", len(var)) as matrix:
            tracemalloc.start()
            for block in merge.joined_blocks(samples, places, len(var)):
                matrix.append(block)
            _, highest = tracemalloc.get_traced_memory()
            tracemalloc.stop()
        return highest

    few, many = peak(2), peak(8)
    # 2,400 more rows, with 90 counts each: 1.7 MB, were they held.
    assert many - few < 200_000, (few, many)


def test_ids_of_two_releases_are_one_gene(tmp_path: Path) -> None:
    """CCL5 was ENSG00000161570 and is ENSG00000271503."""
    old, new = "ENSG00000161570", "ENSG00000271503"
    one = genes((old, "CCL5"), ("ENSG00000000001", "A"), ("", "B"))
    two = genes(("ENSG00000000001", "A"), (new, "CCL5"), ("ENSG00000000002", "B"))
    var, places = merge.join_genes([one, two])
    assert var["gene_ids"].tolist() == [new, "ENSG00000000001", "ENSG00000000002"]
    assert [place.tolist() for place in places] == [[0, 1, 2], [1, 0, 2]]
    assert var["n_samples"].tolist() == [2, 2, 2]
    # Where a sample has both, they are two.
    var, _ = merge.join_genes([one, two, genes((old, "CCL5"), (new, "CCL5"))])
    assert {old, new} <= set(var["gene_ids"])
