"""Models that scvi-tools saved: what they say there, they say here."""

import pickle
import zipfile

import anndata
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import scvi_models
from click.testing import CliRunner
from small_model import CL_IDS, as_organism, simulate, small_counts, write_cl_map, write_reference

import annotate_one
from cellscribe import clusters
from cellscribe.answer import answer_cells
from cellscribe.counts_file import open_counts
from cellscribe.errors import ModelFetchError
from cellscribe.importing.scvi_saved import read_scvi
from cellscribe.importing.torch_file import read_torch
from cellscribe.mapping import map_cells
from cellscribe.model.calibration import softmax
from cellscribe.model.manifest import verify_model
from cellscribe.model.model import Model
from import_model import main


@pytest.fixture(scope="module")
def trained():
    return scvi_models.trained()


@pytest.fixture(scope="module")
def cells(trained):
    return anndata.read_h5ad(trained / "cells.h5ad")


def imported(model, output, *more, cl_map=None, label_key="cell_type"):
    arguments = [
        *("scvi", str(model), "--output", str(output), "--organism", "human", "--trust_model_code"),
        *(("--cl-map", str(cl_map)) if cl_map else ()),
        *(("--label-key", label_key) if label_key else ()),
        *map(str, more),
    ]
    return CliRunner().invoke(main, arguments)


@pytest.mark.parametrize("name", scvi_models.SETTINGS)
def test_the_latent_is_scvi_tools_own_in_every_setting(trained, cells, name):
    folder = trained / name
    model, _, _ = read_scvi(folder / "model", trusted=True)
    assert model.encodes_covariates == bool(
        scvi_models.SETTINGS[name][1].get("encode_covariates") and name != "no_batch"
    )
    covariates = model.covariates(cells.obs) if model.encodes_covariates else None
    latent = model.encoder().encode(sp.csr_matrix(cells.X), covariates)
    np.testing.assert_allclose(latent, np.load(folder / "latent.npy"), atol=1e-4)


@pytest.mark.parametrize("name", [name for name in scvi_models.SETTINGS if name.startswith("scanvi")])
def test_the_classifier_is_scanvis_own(trained, cells, name):
    there = pd.read_csv(trained / name / "probabilities.csv", index_col=0)
    model, _, _ = read_scvi(trained / name / "model", trusted=True)
    covariates = model.covariates(cells.obs) if model.encodes_covariates else None
    latent = model.encoder().encode(sp.csr_matrix(cells.X), covariates)
    labels = sorted(there.columns, reverse=True)
    here = softmax(model.classifier(labels).forward(latent))
    np.testing.assert_allclose(here, there[labels], atol=1e-4)


def test_weights_without_pickle_give_the_same_encoder_again(trained, cells, tmp_path):
    model, _, _ = read_scvi(trained / "both_norms" / "model", trusted=True)
    model.save(tmp_path)
    again = type(model).load(tmp_path)
    covariates = model.covariates(cells.obs)
    np.testing.assert_array_equal(again.covariates(cells.obs), covariates)
    counts = sp.csr_matrix(cells.X)
    np.testing.assert_array_equal(
        again.encoder().encode(counts, covariates), model.encoder().encode(counts, covariates)
    )


@pytest.fixture(scope="module")
def scanvi_model(trained, tmp_path_factory):
    folder = tmp_path_factory.mktemp("imported")
    done = imported(
        trained / "scanvi_linear" / "model",
        folder / "model",
        *("--reference", trained / "cells.h5ad", "--name", "blood"),
        cl_map=write_cl_map(folder / "cl.csv"),
        label_key=None,
    )
    assert done.exit_code == 0, done.stderr
    return folder / "model"


def test_a_scanvi_model_and_its_cells_become_a_model_of_ours(scanvi_model, cells):
    manifest = verify_model(scanvi_model)
    assert [member["name"] for member in manifest["members"]] == ["scvi_neighbours", "scvi_trees", "scanvi"]
    assert manifest["label_key"] == "label"
    assert [label["label"] for label in manifest["labels"]] == sorted(CL_IDS)
    assert [label["cl_id"] for label in manifest["labels"]] == [CL_IDS[name] for name in sorted(CL_IDS)]
    assert manifest["training"]["n_cells"] == 270
    assert manifest["training"]["n_batches"] == 3
    assert manifest["source"]["program"] == "scvi-tools"
    assert manifest["genes"]["has_ids"]
    model = Model(scanvi_model)
    assert list(model.classifiers) == ["scvi", "neighbours", "trees", "scanvi"]
    assert not model.is_calibrated("scanvi")
    known = cells.obs[cells.obs["label"] != "Unknown"]
    expected = [
        known["age"].mean(),
        *[1 / 3] * 3,
        (known["site"] == "x").mean(),
        (known["site"] == "y").mean(),
    ]
    np.testing.assert_allclose(model.encoder.default, expected, rtol=1e-5)
    assert {"B cell", "Monocyte"} <= set(model.markers)


def test_other_cells_are_named_with_a_warning_of_what_the_encoder_had_seen(scanvi_model):
    model, query = Model(scanvi_model), open_counts(small_counts())
    truth = query.obs["published"].to_numpy()
    answer = answer_cells(map_cells(query, model), model)
    assert (np.array(answer.labels)[answer.predicted] == truth).mean() > 0.6
    assert any("encoder may have been trained on" in warning for warning in answer.warnings)
    card = (scanvi_model / "card.md").read_text()
    assert "from trees, neighbours and the weights of the pool, though not from the encoder" in card
    assert "on new donors expect lower scores" in card


@pytest.mark.parametrize("classifier", ["default", "scanvi"])
def test_one_command_annotates_a_file_with_it(scanvi_model, tmp_path, monkeypatch, classifier):
    monkeypatch.setattr(clusters, "umap_layout", lambda embedding, *_, **__: clusters.flat_layout(embedding))
    simulate(60, seed=1).write_h5ad(tmp_path / "query.h5ad")
    arguments = ["-m", str(scanvi_model), "-o", str(tmp_path / "out.h5ad"), "--classifier", classifier]
    done = CliRunner().invoke(annotate_one.main, [str(tmp_path / "query.h5ad"), *arguments])
    assert done.exit_code == 0, done.stderr
    written = anndata.read_h5ad(tmp_path / "out.h5ad")
    assert written.obsm["cxg_cell_type"].shape == (60, 8)
    assert set(written.obs["cxg_cell_type_predicted"]) <= set(CL_IDS)


def test_cells_that_are_new_to_the_model_calibrate_every_classifier(trained, tmp_path):
    write_reference(simulate(150, seed=5), tmp_path / "test.h5ad")
    done = imported(
        trained / "scanvi" / "model",
        tmp_path / "model",
        *("--reference", trained / "cells.h5ad", "--test", tmp_path / "test.h5ad", "--batch-key", "donor"),
    )
    assert done.exit_code == 0, done.stderr
    model = Model(tmp_path / "model")
    assert list(model.classifiers) == ["consensus", "scvi", "neighbours", "trees", "scanvi"]
    assert all(map(model.is_calibrated, model.classifiers))
    assert "given as new to the model (test.h5ad)" in (tmp_path / "model" / "card.md").read_text()
    assert not answer_cells(map_cells(open_counts(small_counts()), model), model).warnings


def test_a_reference_of_another_organism_is_told_from_the_model(trained, tmp_path):
    write_reference(as_organism(simulate(60), "mouse"), tmp_path / "mouse.h5ad")
    reference = ("--reference", tmp_path / "mouse.h5ad", "--organism", "auto")
    done = imported(trained / "plain" / "model", tmp_path / "model", *reference, "--name", "blood")
    assert done.exit_code == 4
    assert "the genes do not fit the model 'blood' (human): 0 of the model's" in done.stderr
    assert "The data's names look like mouse symbols" in done.stderr
    assert "The model's own look like human symbols (SYM0" in done.stderr
    assert "--orthologs" not in done.stderr and "--gene_column_name" not in done.stderr


def test_a_minified_model_needs_no_counts(trained, tmp_path):
    done = imported(trained / "minified" / "model", tmp_path / "model")
    assert done.exit_code == 0, done.stderr
    manifest = verify_model(tmp_path / "model")
    assert manifest["training"]["n_cells"] == 300
    assert "saved without counts (minified)" in (tmp_path / "model" / "card.md").read_text()
    model = Model(tmp_path / "model")
    np.testing.assert_allclose(
        model.reference.latent, np.load(trained / "minified" / "latent.npy"), rtol=1e-3, atol=1e-3
    )
    assert map_cells(open_counts(small_counts()), model).latent.shape == (90, 8)


def test_labels_that_scanvi_does_not_know_leave_its_classifier_out(trained, tmp_path):
    done = imported(
        trained / "scanvi" / "model",
        tmp_path / "model",
        *("--reference", trained / "cells.h5ad"),
        label_key="broad",
    )
    assert done.exit_code == 0, done.stderr
    assert Model(tmp_path / "model").members == ["scvi_neighbours", "scvi_trees"]
    assert "it does not know the labels T cell" in done.stderr


def test_genes_named_by_a_column_are_found(trained, tmp_path):
    adata = anndata.read_h5ad(trained / "cells.h5ad")
    adata.var["own"] = adata.var_names
    adata.var = adata.var[["own"]].set_axis([f"feature_{i}" for i in range(adata.n_vars)], axis=0)
    adata.write_h5ad(tmp_path / "cells.h5ad")
    reference = ("--reference", tmp_path / "cells.h5ad")
    refused = imported(trained / "plain" / "model", tmp_path / "model", *reference)
    assert refused.exit_code == 4
    assert "0 of the model's 400 genes" in refused.stderr
    done = imported(trained / "plain" / "model", tmp_path / "model", *reference, "--gene-column-name", "own")
    assert done.exit_code == 0, done.stderr


@pytest.mark.parametrize(
    ("name", "more", "code", "says"),
    [
        ("plain", (), 3, "no labelled cells were given"),
        ("plain", ("--reference", "cells.h5ad", "--label-key", "type"), 3, "no obs column 'type'"),
        ("minified", ("--label-key", "lable"), 3, "; did you mean 'label'?"),
        ("covariates", ("--reference", "no_age.h5ad"), 3, "continuous covariate 'age'"),
    ],
)
def test_cells_that_cannot_be_used_are_refused(trained, tmp_path, monkeypatch, name, more, code, says):
    write_reference(anndata.read_h5ad(trained / "cells.h5ad"), tmp_path / "cells.h5ad")
    without = anndata.read_h5ad(trained / "cells.h5ad")
    del without.obs["age"]
    write_reference(without, tmp_path / "no_age.h5ad")
    monkeypatch.chdir(tmp_path)
    done = imported(trained / name / "model", tmp_path / "model", *more)
    assert (done.exit_code, says in done.stderr) == (code, True), done.stderr
    assert not (tmp_path / "model").exists()


def test_without_labels_in_the_model_their_column_must_be_named(trained, tmp_path):
    done = imported(
        trained / "plain" / "model", tmp_path / "model", "--reference", trained / "cells.h5ad", label_key=None
    )
    assert done.exit_code == 3
    assert "Give --label-key" in done.stderr


def test_a_model_is_not_read_unless_trusted(trained):
    with pytest.raises(ModelFetchError, match="--trust_model_code"):
        read_scvi(trained / "plain" / "model", trusted=False)


def changed(source, target, change):
    """A copy of a model.pt whose pickle was changed."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        for entry in old.infolist():
            data = old.read(entry)
            new.writestr(entry, change(data) if entry.filename.endswith("data.pkl") else data)
    return target


@pytest.mark.parametrize("name", ["TOTALVI", "MULTIVI", "PEAKVI"])
def test_other_classes_of_models_are_named_and_refused(trained, tmp_path, name):
    def other(data):
        # 'SCVI' stands in the pickle with its length before it
        return data.replace(b"X\x04\x00\x00\x00SCVI", b"X" + bytes([len(name), 0, 0, 0]) + name.encode())

    path = changed(trained / "plain" / "model" / "model.pt", tmp_path / "model.pt", other)
    with pytest.raises(ModelFetchError, match=f"class {name}"):
        read_scvi(path, trusted=True)


class Evil:
    def __reduce__(self):
        return (exec, ("open('owned', 'w')",))


def test_what_a_model_would_run_is_not_run_even_when_trusted(trained, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = changed(
        trained / "plain" / "model" / "model.pt",
        tmp_path / "model.pt",
        lambda _: pickle.dumps({"attr_dict": Evil()}),
    )
    with pytest.raises(ModelFetchError, match=r"names builtins\.exec"):
        read_scvi(path, trusted=True)
    assert not (tmp_path / "owned").exists()


@pytest.mark.parametrize(
    ("files", "says"),
    [
        ({}, "no model.pt"),
        ({"a_model.pt": b"", "b_model.pt": b""}, "several models"),
        ({"attr.pkl": b""}, "older than 0.15"),
        ({"model.pt": b"text"}, "not a zip file"),
        ({"model.pt": None}, "there is no 'attr_dict' in it"),
    ],
)
def test_what_is_no_saved_model_is_refused_with_the_reason(tmp_path, files, says):
    for name, content in files.items():
        if content is None:
            with zipfile.ZipFile(tmp_path / name, "w") as file:
                file.writestr("model/data.pkl", pickle.dumps({"epochs": 1}))
        else:
            (tmp_path / name).write_bytes(content)
    with pytest.raises(ModelFetchError, match=says):
        read_scvi(tmp_path, trusted=True)


def test_a_latent_drawn_at_random_is_refused(trained, tmp_path):
    def drawn(data):
        return data.replace(b"X\x06\x00\x00\x00normal", b"X\x02\x00\x00\x00ln", 1)

    path = changed(trained / "plain" / "model" / "model.pt", tmp_path / "model.pt", drawn)
    with pytest.raises(ModelFetchError, match="latent_distribution='ln'"):
        read_scvi(path, trusted=True)


def test_tensors_of_every_kind_and_stride_are_read_as_torch_reads_them(tmp_path):
    import torch

    grid = torch.arange(24).reshape(4, 6)
    tensors = {
        "view": grid[1:, ::2],
        "turned": grid.T,
        "empty": torch.zeros(0, 3),
        "scalar": torch.tensor(7),
        **{str(kind): grid.to(kind) for kind in (torch.float16, torch.bfloat16, torch.float64, torch.bool)},
        "parameter": torch.nn.Parameter(torch.ones(2)),
    }
    torch.save(tensors, tmp_path / "tensors.pt")
    read, _ = read_torch(tmp_path / "tensors.pt", program="scvi-tools", trusted=True)
    for name, tensor in tensors.items():
        np.testing.assert_array_equal(read[name], tensor.detach().to(torch.float64).numpy(), err_msg=name)


def test_a_tensor_that_reaches_beyond_its_numbers_is_refused():
    from cellscribe.importing.torch_file import rebuild_tensor

    for offset, size, stride in ((0, (5,), (1,)), (1, (2, 2), (2, 1)), (0, (2,), (-1,)), (9, (1,), (1,))):
        with pytest.raises(ValueError, match="beyond its numbers"):
            rebuild_tensor(np.arange(4), offset, size, stride)
