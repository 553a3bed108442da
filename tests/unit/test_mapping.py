"""MAP, against small real models."""

import dataclasses
import json
import shutil

import anndata
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from small_model import gene_names, simulate, small_counts, small_mapping, small_model, write_counts

from cellscribe.counts_file import open_counts
from cellscribe.errors import InputError, ModelMismatchError
from cellscribe.mapping import check_organism, map_cells, read_mapping, run_map
from cellscribe.model.model import Model
from cellscribe.model.neighbours import N_NEIGHBOURS
from cellscribe.model.profiles import N_NUMBERS

ARRAYS = (
    "latent",
    "distances",
    "indices",
    "logistic_scores",
    "likelihood_scores",
    "n_model_counts",
    "n_counts",
    "n_silent_counts",
    "sketches",
    "label_sketches",
)


@pytest.fixture(scope="module")
def model() -> Model:
    return Model(small_model("consensus"))


@pytest.fixture(scope="module")
def mapping(model):
    return map_cells(open_counts(small_counts()), model)


def same(one, other, *, atol: float = 1e-4) -> None:
    for name in ARRAYS:
        np.testing.assert_allclose(getattr(one, name), getattr(other, name), atol=atol, err_msg=name)


def test_the_file_holds_what_the_contract_says(model):
    adata = anndata.read_h5ad(small_mapping("consensus"))
    assert adata.X is None
    assert list(adata.obs_names) == list(open_counts(small_counts()).obs.index)
    shapes = {
        "latent": ((90, 8), np.float32),
        "neighbour_distances": ((90, N_NEIGHBOURS), np.float32),
        "neighbour_indices": ((90, N_NEIGHBOURS), np.int32),
        "logistic_scores": ((90, 5), np.float32),
        "likelihood_scores": ((90, 5), np.float32),
        "sketches": ((90, N_NUMBERS), np.float16),
    }
    assert adata.uns["label_sketches"].shape == (5, N_NUMBERS)
    assert {key: (adata.obsm[key].shape, adata.obsm[key].dtype) for key in adata.obsm} == shapes
    assert (np.diff(adata.obsm["neighbour_distances"], axis=1) >= 0).all()
    info = json.loads(adata.uns["mapping"])
    assert info["gene_overlap"] == 1
    assert info["n_model_genes"] == info["n_genes_found"] == len(model.genes)
    assert info["genes_matched_by"] == "gene_ids"
    assert (info["missing_genes"], info["warnings"]) == ([], [])
    assert info["model_sha256"] == model.sha256


def test_a_logistic_model_maps_without_an_embedding():
    adata = anndata.read_h5ad(small_mapping("logistic"))
    assert list(adata.obsm) == ["logistic_scores"]
    assert read_mapping(small_mapping("logistic")).latent is None


def test_what_is_written_is_read_again(mapping):
    same(read_mapping(small_mapping("consensus")), mapping)


def test_counts_on_the_models_genes_are_those(model, mapping):
    cells = simulate(90, seed=1)
    on_model = cells[:, cells.var["gene_ids"].isin(model.genes["gene_id"])].X
    np.testing.assert_array_equal(mapping.n_model_counts, np.asarray(on_model.sum(axis=1)).ravel())


def test_counts_on_genes_that_no_reference_type_expresses_are_told_apart(model, tmp_path):
    folder = shutil.copytree(model.folder, tmp_path / "model")
    ids, symbols = gene_names()
    unused = [i for i in range(400) if ids[i] not in set(model.genes["gene_id"])][:7]
    table = pd.DataFrame({"gene_id": ids, "symbol": symbols}).iloc[unused]
    table.to_csv(folder / "silent_genes.tsv", sep="\t", index=False)
    cells = simulate(90, seed=1)
    mapped = map_cells(open_counts(small_counts()), Model(folder), chunk_rows=13)
    np.testing.assert_array_equal(mapped.n_counts, np.asarray(cells.X.sum(axis=1)).ravel())
    np.testing.assert_array_equal(mapped.n_silent_counts, np.asarray(cells.X[:, unused].sum(axis=1)).ravel())
    assert mapped.n_silent_counts.max() > 0
    assert mapped.info["n_silent_genes_found"] == 7


@pytest.mark.parametrize("rows", [1, 13, 90])
def test_the_size_of_chunks_does_not_change_results(model, mapping, rows):
    same(map_cells(open_counts(small_counts()), model, chunk_rows=rows), mapping)


def test_the_order_of_genes_does_not_change_results(model, mapping, tmp_path):
    order = np.random.default_rng(0).permutation(400)
    path = write_counts(simulate(90, seed=1)[:, order].copy(), tmp_path / "a.h5ad")
    same(map_cells(open_counts(path), model), mapping)


def test_the_matrix_is_never_made_dense(model, monkeypatch):
    def guarded(dense):
        def refuse_genes(matrix, *rest, **more):
            assert matrix.shape[1] == N_NUMBERS != len(model.genes)
            return dense(matrix, *rest, **more)

        return refuse_genes

    for kind in (sp.csr_matrix, sp.csc_matrix, sp.csr_array, sp.coo_matrix):
        for method in ("toarray", "todense"):
            monkeypatch.setattr(kind, method, guarded(getattr(kind, method)))
    map_cells(open_counts(small_counts()), model)


def test_missing_genes_are_named_the_most_important_first_at_most_fifty(model, tmp_path):
    important = model.genes.sort_values("importance", ascending=False)
    cells = simulate(20, seed=1)
    for n in (3, 55):
        gone = important["gene_id"].head(n)
        path = write_counts(cells[:, ~cells.var["gene_ids"].isin(gone)].copy(), tmp_path / f"{n}.h5ad")
        mapped = map_cells(open_counts(path), model)
        assert mapped.info["missing_genes"] == important["symbol"].head(min(n, 50)).tolist()
        assert mapped.info["n_genes_found"] == len(model.genes) - n
        assert bool(mapped.info["warnings"]) == (n == 55)


def test_too_few_genes_are_refused_and_the_bar_can_be_lowered(model, tmp_path):
    cells = simulate(20, seed=1)
    gone = model.genes["gene_id"].head(len(model.genes) * 3 // 4)
    path = write_counts(cells[:, ~cells.var["gene_ids"].isin(gone)].copy(), tmp_path / "a.h5ad")
    with pytest.raises(ModelMismatchError, match="of the model's"):
        map_cells(open_counts(path), model)
    assert map_cells(open_counts(path), model, min_gene_overlap=0.1).info["gene_overlap"] < 0.3


def test_the_users_gene_column_is_used(model, tmp_path):
    cells = simulate(20, seed=1)
    ids = cells.var["gene_ids"].to_numpy()
    cells.var = cells.var.assign(mine=ids, gene_ids="", gene_symbols="x").set_axis(
        [f"row{i}" for i in range(400)]
    )
    opened = open_counts(write_counts(cells, tmp_path / "a.h5ad"))
    assert map_cells(opened, model, gene_column="mine").info["genes_matched_by"] == "mine"
    with pytest.raises(InputError, match="no var column 'yours'"):
        map_cells(opened, model, gene_column="yours")


def test_another_organism_is_refused_before_anything_is_read(model):
    for given, seen in (
        ("auto", "human"),
        ("auto", "unknown"),
        ("Homo sapiens", "mouse"),
        ("human", "mouse"),
    ):
        check_organism(model, given, seen)
    with pytest.raises(ModelMismatchError, match="is for human, but the sample's genes are mouse") as caught:
        check_organism(model, "auto", "mouse")
    assert "Use a mouse model" in caught.value.todo and "--orthologs" in caught.value.todo
    with pytest.raises(ModelMismatchError, match="is for human, but the sample was given as mouse"):
        check_organism(model, "Mus musculus", "human")


def test_orthologues_are_used_where_they_were_asked_for_and_only_for_another_organism(model):
    assert check_organism(model, "auto", "mouse", orthologs=True) == "mouse"
    assert check_organism(model, "Mus musculus", "unknown", orthologs=True) == "mouse"
    for seen in ("human", "unknown"):
        assert check_organism(model, "auto", seen, orthologs=True) == ""


@pytest.mark.parametrize("n", [1, 2])
def test_one_and_two_cells_are_mapped(n, tmp_path):
    path = write_counts(simulate(n, seed=1), tmp_path / "a.h5ad")
    run_map(path, small_model("consensus"), tmp_path / "m.h5ad")
    assert read_mapping(tmp_path / "m.h5ad").latent.shape == (n, 8)


def test_no_cell_at_all_is_an_error_of_the_input(model):
    nothing = dataclasses.replace(open_counts(small_counts()), obs=open_counts(small_counts()).obs.iloc[:0])
    with pytest.raises(InputError, match="no cell"):
        map_cells(nothing, model)
