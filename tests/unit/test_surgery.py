"""Fine-tuning on a query: scvi-tools' own, and nothing where it would change nothing."""

import anndata
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import scvi_models
from small_model import (
    options,
    simulate,
    small_counts,
    small_model,
    write_cl_map,
    write_counts,
    write_reference,
)

from cellscribe import surgery
from cellscribe.counts_file import open_counts
from cellscribe.importing.calibrate import TestCells
from cellscribe.importing.scvi import run_import_scvi
from cellscribe.importing.scvi_reference import ScviOptions
from cellscribe.importing.scvi_saved import read_scvi
from cellscribe.mapping import map_cells, read_mapping, run_map
from cellscribe.model.model import Model
from cellscribe.model.scvi_model import ScviModel
from cellscribe.surgery import NOT_NEEDED, Surgery, epochs_for, fine_tune, load_scvi, query_covariates

EPOCHS, SEED = 3, 4


@pytest.fixture(scope="module")
def trained():
    return scvi_models.trained()


@pytest.fixture(scope="module")
def query():
    return simulate(90, seed=1)


@pytest.mark.parametrize("name", ["covariates", "both_norms", "embedded", "minified", "scanvi_encoded"])
def test_it_gives_the_latent_that_scvi_tools_own_fine_tuning_gives(trained, query, tmp_path, name):
    counts, saved = sp.csr_matrix(query.X), trained / name / "model"
    model, _, _ = read_scvi(saved, trusted=True)
    average = model.covariates(anndata.read_h5ad(trained / "cells.h5ad").obs).mean(axis=0)
    model.save(tmp_path)
    tuned = fine_tune(ScviModel.load(tmp_path), counts, average, EPOCHS, SEED)

    scvi = load_scvi(SEED)
    cells = anndata.AnnData(
        counts, obs=query_covariates(model, counts, average), var=pd.DataFrame(index=model.genes)
    )
    there = getattr(scvi.model, model.kind).load_query_data(cells, str(saved), accelerator="cpu")
    there.train(
        max_epochs=EPOCHS,
        accelerator="cpu",
        train_size=1.0,
        plan_kwargs={"weight_decay": 0.0},
        enable_progress_bar=False,
        logger=False,
    )
    here = tuned.encode(counts)
    np.testing.assert_allclose(here, there.get_latent_representation(), atol=1e-4)
    assert np.abs(here - model.encoder(average).encode(counts)).max() > 1e-3


def test_only_the_weights_of_the_new_batch_change(trained, query):
    model, _, _ = read_scvi(trained / "encoded" / "model", trusted=True)
    tuned = fine_tune(model, sp.csr_matrix(query.X), None, EPOCHS)
    own = model.encoder()
    for before, after in zip(own.weights + own.biases, tuned.weights + tuned.biases, strict=True):
        np.testing.assert_array_equal(after, before)
    for before, after in zip(own.covariates, tuned.covariates, strict=True):
        np.testing.assert_array_equal(after[: len(before)], before)
        assert len(after) == len(before) + 1
    assert tuned.default.tolist() == [0, 0, 0, 1]


def test_a_model_whose_encoder_takes_genes_alone_says_so_and_stays_as_it_is(capsys):
    model, cells = Model(small_model("consensus")), open_counts(small_counts())
    plain, asked = map_cells(cells, model), map_cells(cells, model, surgery=Surgery())
    np.testing.assert_array_equal(asked.latent, plain.latent)
    assert NOT_NEEDED in capsys.readouterr().err
    assert NOT_NEEDED in asked.info["warnings"]
    assert asked.info["surgery_epochs"] == 0


def test_a_model_without_a_batch_in_its_encoder_changes_by_nothing_in_scvi_tools_either(trained, query):
    counts = sp.csr_matrix(query.X)
    model, _, _ = read_scvi(trained / "plain" / "model", trusted=True)
    tuned = fine_tune(model, counts, None, EPOCHS)
    np.testing.assert_array_equal(tuned.encode(counts), model.encoder().encode(counts))


@pytest.fixture(scope="module")
def imported(trained, tmp_path_factory):
    return run_import_scvi(
        ScviOptions(
            trained / "scanvi_linear" / "model",
            tmp_path_factory.mktemp("imported") / "model",
            (trained / "cells.h5ad",),
            name="blood",
            organism="human",
            test=TestCells(label_key="cell_type"),
            trust_model_code=True,
        )
    )


def test_an_imported_model_is_fine_tuned_on_a_sample(imported, tmp_path):
    counts = write_counts(simulate(60, seed=1), tmp_path / "s1.filtered.h5ad")
    run_map(counts, imported, tmp_path / "plain.h5ad")
    run_map(counts, imported, tmp_path / "tuned.h5ad", surgery=Surgery(EPOCHS))
    plain, tuned = read_mapping(tmp_path / "plain.h5ad"), read_mapping(tmp_path / "tuned.h5ad")
    assert tuned.info["surgery_epochs"] == EPOCHS
    assert not tuned.info["warnings"]
    assert 1e-3 < np.abs(tuned.latent - plain.latent).max() < np.abs(plain.latent).max()


def test_a_few_cells_are_mapped_without(imported, tmp_path):
    counts = write_counts(simulate(5, seed=1), tmp_path / "s1.filtered.h5ad")
    mapping = map_cells(open_counts(counts), Model(imported), surgery=Surgery(EPOCHS))
    assert mapping.info["warnings"] == [
        "5 cells are too few to fine-tune the model on: they were mapped by a forward pass."
    ]


def test_a_model_trained_here_with_the_batch_in_its_encoder_can_be_fine_tuned(tmp_path):
    from cellscribe.training.train import run_train

    write_reference(simulate(150), tmp_path / "reference.h5ad")
    write_cl_map(tmp_path / "cl.csv")
    folder = run_train(options(tmp_path, kind="scvi", encode_covariates=True, max_epochs=2))
    model = Model(folder)
    assert model.can_be_tuned
    np.testing.assert_allclose(model.encoder.default, [1 / 3] * 3)
    counts = write_counts(simulate(60, seed=1), tmp_path / "s1.filtered.h5ad")
    mapping = map_cells(open_counts(counts), model, surgery=Surgery(EPOCHS))
    assert mapping.info["surgery_epochs"] == EPOCHS


def test_training_on_one_batch_says_that_there_is_nothing_to_fine_tune(tmp_path, capsys):
    from cellscribe.training.train import run_train

    write_reference(simulate(60), tmp_path / "reference.h5ad")
    write_cl_map(tmp_path / "cl.csv")
    folder = run_train(options(tmp_path, kind="scvi", encode_covariates=True, max_epochs=1, batch_key=None))
    assert not Model(folder).can_be_tuned
    assert "--encode_covariates has no effect" in capsys.readouterr().err


@pytest.mark.parametrize(("n_cells", "epochs"), [(10, 100), (80_000, 100), (160_000, 50), (10**8, 1)])
def test_more_cells_take_fewer_epochs(n_cells, epochs):
    assert epochs_for(n_cells) == epochs


@pytest.mark.parametrize("n_cells", [10, 127, 128, 129, 257, 1000, 12801])
def test_no_cell_is_left_alone_in_a_step(n_cells):
    assert n_cells % surgery._batch_size(n_cells) != 1
