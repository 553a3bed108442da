"""One h5ad annotated as it is, by one JSON request."""

import json

import anndata
import h5py
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from small_model import barnyard, model_of, simulate, small_counts, small_mapping, small_model

from cellscribe import clusters
from cellscribe.errors import InputError, ModelMismatchError
from cellscribe.mapping import map_cells, read_mapping
from cellscribe.model.model import Model
from cellscribe.one_file import CountsInMemory, annotate_file, answer_request, answer_requests


@pytest.fixture(autouse=True)
def flat(monkeypatch):
    """No UMAP, which other tests cover."""
    monkeypatch.setattr(clusters, "umap_layout", lambda embedding, *_, **__: clusters.flat_layout(embedding))


@pytest.fixture
def query(tmp_path):
    simulate(40, seed=1).write_h5ad(tmp_path / "query.h5ad")
    return tmp_path / "query.h5ad"


def request(query, output, **more) -> str:
    return json.dumps({"query_dataset_h5ad_path": str(query), "output_h5ad_path": str(output), **more})


def test_a_request_with_paths_alone_writes_the_file_with_all_defaults(query, tmp_path):
    answer = answer_request(request(query, tmp_path / "out.h5ad"), small_model("consensus"))
    assert answer == str(tmp_path / "out.h5ad")
    adata = anndata.read_h5ad(answer)
    assert (
        adata.obs["cxg_cell_type_predicted"].astype(str) == adata.obs["cell_type"].astype(str)
    ).mean() > 0.95
    assert {"cxg_cell_type", "cxg_cell_type_umap"} <= set(adata.obsm)
    before = anndata.read_h5ad(query)
    assert (adata.X != before.X).nnz == 0
    pd.testing.assert_frame_equal(adata.var, before.var)


def test_it_names_cells_as_map_and_annotate_do(tmp_path):
    adata = anndata.read_h5ad(small_counts())
    counts = CountsInMemory(sp.csr_matrix(adata.X), adata.var)
    mapped = map_cells(counts, Model(small_model("consensus")), chunk_rows=17)
    expected = read_mapping(small_mapping("consensus"))
    np.testing.assert_allclose(mapped.latent, expected.latent, atol=1e-4)
    np.testing.assert_allclose(mapped.logistic_scores, expected.logistic_scores, atol=1e-4)


def test_every_key_of_a_request_is_obeyed(query, tmp_path):
    cells = anndata.read_h5ad(query)
    cells.layers["mine"] = cells.X.copy()
    cells.X = sp.csr_matrix(cells.X.shape, dtype=np.float32)
    cells.var = cells.var.assign(named=cells.var["gene_symbols"], gene_ids="", gene_symbols="").set_axis(
        [f"row{i}" for i in range(400)]
    )
    cells.write_h5ad(query)
    answer = answer_request(
        request(
            query,
            tmp_path / "out.h5ad",
            annotation_prefix="abc_tissue_run",
            counts_layer="mine",
            gene_column_name="named",
            classifier="logistic",
            organism="Homo sapiens",
            use_gpu=True,
            model_url="s3://somewhere",
        ),
        small_model("consensus"),
    )
    adata = anndata.read_h5ad(answer)
    said = adata.uns["abc_tissue_run_predictions"]
    assert said["model_url"] == "s3://somewhere"
    assert said["genes_matched_by"] == "named"
    assert json.loads(said["parameters"])["classifier"] == "logistic"
    assert adata.obs["abc_tissue_run_predicted"].astype(str).tolist() == adata.obs["cell_type"].tolist()


def test_keys_that_are_null_take_their_defaults(query, tmp_path):
    keys = dict.fromkeys(("annotation_prefix", "counts_layer", "gene_column_name", "classifier", "organism"))
    answer = answer_request(request(query, tmp_path / "o.h5ad", **keys), small_model("logistic"))
    assert "cxg_cell_type_predicted" in anndata.read_h5ad(answer).obs


@pytest.mark.parametrize("bad", ["", "no JSON", "[]", "3", "null", '{"query_dataset_h5ad_path": "a"}'])
def test_a_request_that_is_none_says_what_it_needs(bad):
    with pytest.raises(InputError, match="query_dataset_h5ad_path and output_h5ad_path"):
        answer_request(bad, small_model("logistic"))


def test_another_organism_and_a_missing_file_are_refused(query, tmp_path):
    with pytest.raises(InputError, match="given as mouse, but the data look like human"):
        answer_request(request(query, tmp_path / "o.h5ad", organism="Mus musculus"), small_model("logistic"))
    with pytest.raises(ModelMismatchError, match="for mouse, but the sample's genes are human"):
        answer_request(request(query, tmp_path / "o.h5ad"), model_of("mouse"))
    barnyard().write_h5ad(tmp_path / "both.h5ad")
    with pytest.raises(InputError, match="of more than one organism"):
        answer_request(request(tmp_path / "both.h5ad", tmp_path / "o.h5ad"), model_of("mouse"))
    with pytest.raises(InputError):
        answer_request(request(tmp_path / "none.h5ad", tmp_path / "o.h5ad"), small_model("logistic"))
    assert not (tmp_path / "o.h5ad").exists()


def test_what_reading_must_tell_is_said(query, tmp_path, capsys):
    cells = anndata.read_h5ad(query)
    total = np.asarray(cells.X.sum(axis=1)).ravel()
    cells.X = sp.csr_matrix(np.log1p(cells.X.toarray() / total[:, None] * 1e4).astype(np.float32))
    cells.write_h5ad(query)
    annotate_file(query, tmp_path / "out.h5ad", Model(small_model("logistic")))
    assert (
        capsys.readouterr().err.count("warning: The file has no raw counts: they were recovered from X") == 1
    )
    annotate_file(query, tmp_path / "out.h5ad", Model(small_model("logistic")), told=True)
    assert "recovered from X" not in capsys.readouterr().err


def test_genes_of_no_known_name_are_told_before_the_model_is_held_against_them(query, tmp_path, capsys):
    cells = anndata.read_h5ad(query)
    cells.var = pd.DataFrame(index=[str(i) for i in range(cells.n_vars)])
    cells.write_h5ad(query)
    with pytest.raises(ModelMismatchError):
        annotate_file(query, tmp_path / "out.h5ad", Model(small_model("logistic")))
    said = capsys.readouterr().err
    assert "warning: The genes' names are neither Ensembl ids nor symbols" in said
    assert "warning: The organism was taken to be unknown" in said


def test_antibodies_alone_are_refused(query, tmp_path):
    cells = anndata.read_h5ad(query)
    cells.var["feature_types"] = "Antibody Capture"
    cells.write_h5ad(query)
    with pytest.raises(InputError, match="no Gene Expression features; there are Antibody Capture"):
        annotate_file(query, tmp_path / "out.h5ad", Model(small_model("logistic")))


def test_antibodies_of_a_genes_name_are_not_counted_as_the_gene(query, tmp_path):
    cells = anndata.read_h5ad(query)
    genes = cells.var_names[:60]
    rng = np.random.default_rng(0)
    antibodies = anndata.AnnData(
        sp.csr_matrix(rng.poisson(200, (40, 60)).astype(np.float32)),
        obs=cells.obs,
        var=pd.DataFrame({"gene_ids": genes, "gene_symbols": genes}, index=[f"{g}_ab" for g in genes]),
    )
    cells.var["feature_types"], antibodies.var["feature_types"] = "Gene Expression", "Antibody Capture"
    both = anndata.concat([cells, antibodies], axis=1, merge="first")
    both.var = both.var.assign(gene_ids="").set_axis([*cells.var_names, *genes])
    both.write_h5ad(tmp_path / "both.h5ad")
    annotate_file(query, tmp_path / "plain.h5ad", Model(small_model("logistic")))
    annotate_file(tmp_path / "both.h5ad", tmp_path / "out.h5ad", Model(small_model("logistic")))
    plain, got = (anndata.read_h5ad(tmp_path / name) for name in ("plain.h5ad", "out.h5ad"))
    np.testing.assert_allclose(got.obsm["cxg_cell_type"], plain.obsm["cxg_cell_type"], atol=1e-4)
    assert got.n_vars == 460


def test_barcodes_that_occur_twice_keep_their_own_labels(query, tmp_path):
    cells = anndata.read_h5ad(query)
    cells.obs_names = [f"c{i // 2}" for i in range(40)]
    with pytest.warns(UserWarning, match="not unique"):
        cells.write_h5ad(query)
        answer = answer_request(request(query, tmp_path / "o.h5ad"), small_model("logistic"))
        adata = anndata.read_h5ad(answer)
    assert (
        adata.obs["cxg_cell_type_predicted"].astype(str) == adata.obs["cell_type"].astype(str)
    ).mean() > 0.9
    assert adata.n_obs == 40


def test_a_file_without_obsm_and_uns_gets_them(query, tmp_path):
    with h5py.File(query, "r+") as file:
        for part in ("obsm", "uns", "layers", "obsp", "varm", "varp"):
            if part in file:
                del file[part]
    answer = answer_request(request(query, tmp_path / "o.h5ad"), small_model("consensus"))
    adata = anndata.read_h5ad(answer)
    assert "cxg_cell_type_umap" in adata.obsm and "cxg_cell_type_predictions" in adata.uns


def test_mlflows_predict_answers_every_row(query, tmp_path):
    rows = [request(query, tmp_path / f"{i}.h5ad") for i in range(2)]
    expected = [str(tmp_path / f"{i}.h5ad") for i in range(2)]
    assert answer_requests(pd.DataFrame({"any name": rows}), small_model("logistic")).tolist() == expected
    assert answer_requests(rows[:1], small_model("logistic")).tolist() == expected[:1]
