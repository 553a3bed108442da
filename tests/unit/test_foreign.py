"""Models made by others: what they write is held to CELLxGENE Annotate's contract."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest
from foreign_model import make_foreign_model
from small_model import TYPES, simulate, small_counts, write_counts

from cellscribe import annotate, clusters
from cellscribe.answer import Strictness
from cellscribe.contract import OutputNames
from cellscribe.counts_file import open_counts
from cellscribe.errors import InputError, ModelFetchError, ModelMismatchError
from cellscribe.foreign import (
    MOST_UNCERTAINTY,
    PredictOptions,
    answer_prediction,
    own_components,
    predict_cells,
    read_prediction,
    read_prediction_mapping,
    request,
    run_predict,
    write_prediction,
)
from cellscribe.model.foreign import ForeignModel, content_sha256, open_foreign

KEY = "cxg_cell_type"
NAMES = OutputNames(KEY)
CELLS = pd.Index([f"CELL{i}" for i in range(40)])
MODEL = ForeignModel(Path("theirs"), "theirs", "1.0", "a" * 64)


def written(path: Path, change=lambda adata: None) -> Path:
    """What a model writes, all as it should be but for `change`."""
    adata = anndata.AnnData(
        X=np.ones((40, 3), dtype=np.float32),
        obs=pd.DataFrame(
            {
                f"{KEY}_predicted": pd.Categorical(["B cell", "T cell"] * 20),
                f"{KEY}_predicted_uncertainty": np.linspace(0, 1, 40),
            },
            index=CELLS,
        ),
    )
    adata.obsm[KEY] = np.arange(120.0).reshape(40, 3)
    adata.obsm[f"{KEY}_umap"] = np.arange(80.0).reshape(40, 2)
    adata.uns[f"{KEY}_predictions"] = {"model_url": "theirs"}
    (change(adata) or adata).write_h5ad(path)
    return path


def test_what_the_contract_asks_for_is_taken_as_it_is(tmp_path):
    got = read_prediction(written(tmp_path / "o.h5ad"), NAMES, CELLS, MODEL)
    assert list(got.predicted[:3]) == ["B cell", "T cell", "B cell"]
    np.testing.assert_allclose(got.uncertainty, np.linspace(0, 1, 40), atol=1e-6)
    assert got.latent.shape == (40, 3) and got.umap.shape == (40, 2)
    assert got.info["model"] == {"name": "theirs", "version": "1.0"}
    assert got.info["trusted_code"] is True
    assert [w for w in got.info["warnings"] if "was not calibrated" in w]
    assert [w for w in got.info["warnings"] if "code was run" in w]
    assert len(got.info["warnings"]) == 2


def test_cells_in_another_order_are_put_back(tmp_path):
    got = read_prediction(written(tmp_path / "o.h5ad", lambda a: a[::-1].copy()), NAMES, CELLS, MODEL)
    assert list(got.barcodes) == list(CELLS)
    np.testing.assert_allclose(got.uncertainty, np.linspace(0, 1, 40), atol=1e-6)
    np.testing.assert_array_equal(got.latent[0], [0, 1, 2])
    np.testing.assert_array_equal(got.umap[1], [2, 3])


def drop(*keys):
    def change(adata):
        for part, key in keys:
            del getattr(adata, part)[key]

    return change


def put(part, key, value):
    def change(adata):
        getattr(adata, part)[key] = value

    return change


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda a: a[4:].copy(), "4 of 40 cells are missing (CELL0, CELL1, CELL2, ...)"),
        (drop(("obs", f"{KEY}_predicted")), f"obs '{KEY}_predicted' is missing"),
        (drop(("obs", f"{KEY}_predicted_uncertainty")), f"obs '{KEY}_predicted_uncertainty' is missing"),
        (put("obs", f"{KEY}_predicted", [np.nan] * 7 + ["T cell"] * 33), "7 cells have no label"),
        (put("obs", f"{KEY}_predicted", ["a\x1b[2J"] * 40), "1 labels are too long or hold characters"),
        (
            put("obs", f"{KEY}_predicted_uncertainty", np.linspace(-0.5, 3, 40)),
            "from -0.5 to 3, not from 0 to 1",
        ),
        (put("obs", f"{KEY}_predicted_uncertainty", [np.nan] + [0.1] * 39), "1 cells have no number"),
        (put("obs", f"{KEY}_predicted_uncertainty", ["high"] * 40), "40 cells have no number"),
        (
            put("obsm", KEY, np.full((40, 3), np.inf)),
            f"obsm '{KEY}': 40 cells have a value that is no number",
        ),
        (put("obsm", f"{KEY}_umap", np.ones((40, 1))), "has the shape (40, 1), not cells by 2 columns"),
    ],
)
def test_what_breaks_the_contract_is_named(tmp_path, change, said):
    with pytest.raises(ModelMismatchError) as caught:
        read_prediction(written(tmp_path / "o.h5ad", change), NAMES, CELLS, MODEL)
    assert said in str(caught.value)
    assert "docs/models.md" in caught.value.todo


def test_cells_that_are_twice_there_or_not_the_samples_are_named(tmp_path):
    def rename(adata):
        adata.obs_names = ["CELL0", "CELL0", "other", *CELLS[3:]]

    with pytest.raises(ModelMismatchError) as caught:
        read_prediction(written(tmp_path / "o.h5ad", rename), NAMES, CELLS, MODEL)
    assert "1 cells are none of the sample's (other)" in str(caught.value)
    assert "cells are there twice (CELL0)" in str(caught.value)
    assert "2 of 40 cells are missing" in str(caught.value)


def test_all_that_is_wrong_is_said_at_once(tmp_path):
    change = drop(("obs", f"{KEY}_predicted"), ("obs", f"{KEY}_predicted_uncertainty"))
    with pytest.raises(ModelMismatchError) as caught:
        read_prediction(written(tmp_path / "o.h5ad", change), NAMES, CELLS, MODEL)
    assert str(caught.value).count("\n  - ") == 2


def test_no_output_is_an_error_that_shows_what_was_said(tmp_path):
    with pytest.raises(ModelMismatchError, match="exit code 0, but wrote no output") as caught:
        read_prediction(tmp_path / "none.h5ad", NAMES, CELLS, MODEL, ["error: Annotation failed!"])
    assert "\n  | error: Annotation failed!" in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"no HDF5 file", None])
def test_an_output_that_cannot_be_read_is_an_error(tmp_path, content):
    path = written(tmp_path / "o.h5ad")
    path.write_bytes(path.read_bytes()[:3000] if content is None else content)
    with pytest.raises(ModelMismatchError, match="no h5ad that can be read"):
        read_prediction(path, NAMES, CELLS, MODEL)


def test_labels_alone_are_enough_and_what_is_missing_is_a_warning(tmp_path):
    change = drop(("obsm", KEY), ("obsm", f"{KEY}_umap"), ("uns", f"{KEY}_predictions"))
    got = read_prediction(written(tmp_path / "o.h5ad", change), NAMES, CELLS, MODEL)
    assert got.latent is None and got.umap is None
    for named in ("no embedding", "no UMAP", "nothing of itself"):
        assert [w for w in got.info["warnings"] if named in w], named


def test_components_stand_in_for_an_embedding(tmp_path):
    counts = small_counts(90)
    got = own_components(counts)
    assert got.shape == (90, 30) and np.isfinite(got).all()
    types = simulate(90, seed=1).obs["cell_type"].to_numpy()
    mono = types == "Monocyte"
    assert np.linalg.norm(got[mono].mean(axis=0) - got[~mono].mean(axis=0)) > 1
    few = write_counts(simulate(2, seed=1), tmp_path / "few.h5ad")
    assert own_components(few).shape == (2, 2)


def test_the_request_is_that_of_the_real_program():
    cells = open_counts(small_counts(90))
    asked = json.loads(request(Path("q"), Path("o"), KEY, cells, PredictOptions(organism="mouse"), None))
    assert asked == {
        "query_dataset_h5ad_path": "q",
        "output_h5ad_path": "o",
        "annotation_prefix": KEY,
        "classifier": "default",
        "organism": "Mus musculus",
        "use_gpu": False,
    }


def test_an_unknown_organism_is_not_told(tmp_path):
    cells = open_counts(write_counts(simulate(20), tmp_path / "c.h5ad", organism="unknown"))
    assert "organism" not in json.loads(request(Path("q"), Path("o"), KEY, cells, PredictOptions(), None))


def test_nothing_is_run_that_is_not_trusted(tmp_path):
    model = make_foreign_model(tmp_path / "m", trace=tmp_path / "trace")
    with pytest.raises(ModelFetchError) as caught:
        predict_cells(open_counts(small_counts(90)), small_counts(90), model, PredictOptions())
    assert "--trust_model_code" in caught.value.todo
    assert not (tmp_path / "trace").exists()


def test_a_gene_column_that_is_not_there_is_told_before_anything_is_run(tmp_path):
    model = make_foreign_model(tmp_path / "m", trace=tmp_path / "trace")
    options = PredictOptions(trust_model_code=True, gene_column_name="feature_name")
    with pytest.raises(InputError, match=r"'feature_name'; there are: gene_ids, gene_symbols\n"):
        predict_cells(open_counts(small_counts(90)), small_counts(90), model, options)
    near = replace(options, gene_column_name="gene_symbol")
    with pytest.raises(InputError, match=r"; did you mean 'gene_symbols'\?\n"):
        predict_cells(open_counts(small_counts(90)), small_counts(90), model, near)
    assert not (tmp_path / "trace").exists()


def test_an_earlier_annotation_in_the_sample_is_not_taken_for_the_models(tmp_path, monkeypatch):
    """A model that ends with 0 and hands back what it was given has named nothing."""
    adata = simulate(40)
    adata.obs[f"{KEY}_predicted"], adata.obs[f"{KEY}_predicted_uncertainty"] = "B cell", 0.1
    counts = write_counts(adata, tmp_path / "c.h5ad")

    def hands_back(model, asked, folder, **_):
        asked = json.loads(asked)
        Path(asked["output_h5ad_path"]).write_bytes(Path(asked["query_dataset_h5ad_path"]).read_bytes())
        return []

    monkeypatch.setattr("cellscribe.foreign.predict_by_mlflow", hands_back)
    model = make_foreign_model(tmp_path / "m")
    with pytest.raises(ModelMismatchError, match="_predicted' is missing"):
        predict_cells(open_counts(counts), counts, model, PredictOptions(trust_model_code=True))


def test_a_model_that_changes_its_own_folder_is_refused(tmp_path, monkeypatch):
    model = make_foreign_model(tmp_path / "m")

    def learns(model, asked, folder, **_):
        written(folder / "output.h5ad")
        (model / "python_model.pkl").write_bytes(b"other")
        return []

    monkeypatch.setattr("cellscribe.foreign.predict_by_mlflow", learns)
    counts = small_counts(90)
    with pytest.raises(ModelMismatchError, match=r"changed its own folder \(python_model.pkl\)"):
        predict_cells(open_counts(counts), counts, model, PredictOptions(trust_model_code=True))


def test_what_mlmodel_calls_a_model_is_its_name(tmp_path):
    model = make_foreign_model(tmp_path / "m", metadata={"name": "lung atlas", "version": 2})
    opened = open_foreign(model)
    assert (opened.name, opened.version) == ("lung atlas", "2")
    assert opened.sha256 == content_sha256(model)
    nameless = open_foreign(make_foreign_model(tmp_path / "n"))
    assert nameless.name == "" and nameless.version.startswith("of 20")


@pytest.fixture(scope="module")
def mapped(tmp_path_factory) -> tuple[Path, Path]:
    """A model and what PREDICT made of a sample with it, its code really run by MLflow."""
    folder = tmp_path_factory.mktemp("foreign")
    model = make_foreign_model(folder / "theirs", trace=folder / "trace")
    run_predict(small_counts(90), model, folder / "s1.mapping.h5ad", PredictOptions(trust_model_code=True))
    assert (folder / "trace").exists()
    return model, folder / "s1.mapping.h5ad"


def test_the_mapping_holds_the_models_answer(mapped):
    model, path = mapped
    adata = anndata.read_h5ad(path)
    assert adata.X is None and list(adata.obs) == ["predicted", "uncertainty"]
    assert adata.obsm["latent"].shape == (90, len(TYPES)) and adata.obsm["umap"].shape == (90, 2)
    info = json.loads(adata.uns["mapping"])
    assert info["kind"] == "mlflow" and info["trusted_code"] is True
    assert info["model_sha256"] == content_sha256(model)
    truth = simulate(90, seed=1).obs["cell_type"].to_numpy()
    assert (adata.obs["predicted"].astype(str).to_numpy() == truth).mean() > 0.9


def test_annotate_makes_the_whole_contract_of_it(mapped, tmp_path, monkeypatch):
    monkeypatch.setattr(clusters, "umap_layout", None)  # the model's own is kept
    model, path = mapped
    annotate.run_annotate(
        small_counts(90),
        [path],
        [model],
        sample="s1",
        output=tmp_path / "s1.h5ad",
        predictions=tmp_path / "p.tsv.gz",
        summary=tmp_path / "s.json",
        names=OutputNames(KEY),
        model_urls=["https://example.org/hlca_20220920.zip?x=1"],
    )
    given, adata = read_prediction_mapping(path), anndata.read_h5ad(tmp_path / "s1.h5ad")
    assert list(adata.obs[f"{KEY}_predicted"].astype(str)) == list(given.predicted)
    np.testing.assert_allclose(adata.obs[f"{KEY}_predicted_uncertainty"], given.uncertainty)
    np.testing.assert_allclose(adata.obsm[KEY], given.latent)
    np.testing.assert_allclose(adata.obsm[f"{KEY}_umap"], given.umap)
    final, reason = (adata.obs[f"{KEY}_{part}"].astype(str) for part in ("final", "reason"))
    doubtful = given.uncertainty > MOST_UNCERTAINTY
    assert (final[~doubtful] == given.predicted[~doubtful]).all() and (reason[~doubtful] == "").all()
    assert (final[doubtful] == "unassigned").all() and (reason[doubtful] == "ambiguous").all()
    ids = dict(zip(given.predicted, adata.obs[f"{KEY}_cl_id"].astype(str), strict=True))
    assert ids["B cell"] == "CL:0000236" and ids["CD4 T cell"] == "CL:0000624"
    assert f"{KEY}_cluster" in adata.obs
    uns = adata.uns[f"{KEY}_predictions"]
    assert uns["model_name"] == "hlca_20220920" and "gene_overlap" not in uns
    summary = json.loads((tmp_path / "s.json").read_text())
    assert summary["model"]["kind"] == "mlflow" and summary["gene_overlap"] is None
    assert [w for w in summary["warnings"] if "code was run" in w]


def test_a_mapping_of_another_model_is_refused(mapped, tmp_path):
    other = make_foreign_model(tmp_path / "other")
    with pytest.raises(InputError, match=r"another model[\s\S]*predict\.py"):
        annotate.sample_answer(open_counts(small_counts(90)), mapped[1], other)


def test_a_label_that_is_an_id_counts_where_the_cell_ontology_has_it(tmp_path):
    prediction = read_prediction(
        written(
            tmp_path / "o.h5ad",
            put("obs", f"{KEY}_predicted", ["CL:0000236", "CL:9999999"] * 20),
        ),
        NAMES,
        CELLS,
        MODEL,
    )
    prediction.info.update(organism="human", classifier="default", mlflow_env_manager="local")
    write_prediction(prediction, tmp_path / "m.h5ad")
    answer = answer_prediction(read_prediction_mapping(tmp_path / "m.h5ad"))
    assert list(answer.cl_ids) == ["CL:0000236", ""]
    assert answer.model["name"] == "theirs"


def test_a_label_of_theirs_is_kept_where_it_is_as_sure_as_the_user_asks(tmp_path):
    shares = np.linspace(0, 1, 40, dtype=np.float32)
    prediction = read_prediction(
        written(tmp_path / "o.h5ad", put("obs", f"{KEY}_predicted_uncertainty", shares)), NAMES, CELLS, MODEL
    )
    prediction.info.update(organism="human", classifier="default", mlflow_env_manager="local")
    write_prediction(prediction, tmp_path / "m.h5ad")
    read = read_prediction_mapping(tmp_path / "m.h5ad")
    for asked, most in ((None, 0.5), (0.7, 0.3), (0.0, 1.0)):
        answer = answer_prediction(read, "", Strictness(asked))
        assert (answer.decision.reason == "").tolist() == (answer.uncertainty <= np.float32(most)).tolist()
        assert answer.parameters["rejection"] == {"most_uncertainty": most}
    assert answer_prediction(read, "", Strictness(novelty_limit=0.9)).warnings and not answer.warnings
