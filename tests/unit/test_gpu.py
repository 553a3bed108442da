"""MAP's products on PyTorch's device: on a GPU where there is one, else on its own processor's device."""

import dataclasses
import sys
import types

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from small_model import small_counts, small_model

from cellscribe import gpu, mapping
from cellscribe.counts_file import open_counts
from cellscribe.gpu import Placer, find_gpu
from cellscribe.mapping import gpu_for, map_cells
from cellscribe.model.model import Model
from cellscribe.model.neighbours import nearest
from cellscribe.surgery import Surgery

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


@pytest.fixture(scope="module")
def model() -> Model:
    return Model(small_model("consensus"))


@pytest.fixture
def counts(model: Model) -> sp.csr_matrix:
    cells = np.random.default_rng(3).poisson(0.5, (200, len(model.genes)))
    return sp.csr_matrix(cells.astype(np.float32))


@pytest.mark.parametrize("log", [True, False])
@pytest.mark.parametrize("layer_norm", [True, False])
def test_it_places_cells_as_numpy_does(model, counts, log, layer_norm, monkeypatch):
    monkeypatch.setattr(gpu, "DISTANCES", 70 * len(model.reference.latent))  # three blocks
    encoder = dataclasses.replace(model.encoder, log=log, layer_norm=layer_norm)
    latent, distances, indices = Placer(encoder, model.reference.latent, DEVICE).place(counts, 30)
    expected = encoder.encode(counts)
    scale = np.abs(expected).max()
    np.testing.assert_allclose(latent, expected, atol=1e-5 * scale)
    near, rows = nearest(latent, model.reference.latent, 30)
    np.testing.assert_allclose(distances, near, atol=2e-3 * scale)
    assert (np.sort(indices) == np.sort(rows)).mean() > 0.99
    assert {latent.dtype, distances.dtype} == {np.dtype("float32")} and indices.dtype == np.int32


def test_covariates_of_an_unknown_batch_are_in_the_bias(model, counts):
    rng = np.random.default_rng(0)
    covariates = tuple(rng.normal(size=(3, len(bias))).astype(np.float32) for bias in model.encoder.biases)
    encoder = dataclasses.replace(
        model.encoder, covariates=covariates, default=np.full(3, 1 / 3, dtype=np.float32)
    )
    latent, _, _ = Placer(encoder, model.reference.latent, DEVICE).place(counts, 30)
    np.testing.assert_allclose(latent, encoder.encode(counts), atol=1e-4)
    assert np.abs(latent - model.encoder.encode(counts)).max() > 0.01


def test_map_uses_it_for_a_large_sample(model, monkeypatch):
    plain = map_cells(open_counts(small_counts()), model)
    monkeypatch.setattr(mapping, "FEWEST_FOR_GPU", 10)
    monkeypatch.setattr(gpu, "find_gpu", lambda **_: DEVICE)
    placed = []
    monkeypatch.setattr(Placer, "place", lambda *a, _own=Placer.place: placed.append(1) or _own(*a))
    there = map_cells(open_counts(small_counts()), model, use_gpu=True)
    assert placed
    np.testing.assert_allclose(there.latent, plain.latent, atol=1e-4)
    np.testing.assert_allclose(there.distances, plain.distances, atol=1e-3)
    np.testing.assert_array_equal(there.logistic_scores, plain.logistic_scores)


def test_a_small_sample_or_a_regression_needs_none_and_fine_tuning_does(monkeypatch, capsys):
    monkeypatch.setattr(gpu, "find_gpu", lambda **_: "cuda")
    assert gpu_for(mapping.FEWEST_FOR_GPU - 1, True, None) is None
    assert "499,999 cells are mapped in seconds" in capsys.readouterr().err
    assert gpu_for(10**6, False, None) is None
    assert "regression alone" in capsys.readouterr().err
    assert gpu_for(100, True, Surgery()) == gpu_for(10**6, True, None) == "cuda"


def test_without_a_gpu_or_pytorch_it_says_so(monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert find_gpu() is None
    assert "no GPU was found" in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "torch", None)
    assert find_gpu() is None
    assert "PyTorch is not installed" in capsys.readouterr().err


def test_who_did_not_ask_for_a_gpu_is_not_told_why_there_is_none(model, monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for has_latent in (True, False):
        assert gpu_for(10, has_latent, None, asked=False) is None
    assert gpu_for(10**6, True, None, asked=False) is None
    monkeypatch.setitem(sys.modules, "torch", None)
    assert gpu_for(10**6, True, None, asked=False) is None
    assert "gpu" not in capsys.readouterr().err.lower()
    for use_gpu, told in ((None, False), (False, False), (True, True)):
        map_cells(open_counts(small_counts()), model, use_gpu=use_gpu)
        assert ("--use_gpu" in capsys.readouterr().err) is told


def test_a_gpu_that_is_there_is_named(monkeypatch, capsys):
    there = types.SimpleNamespace(is_available=lambda: True, get_device_name=lambda: "NVIDIA H100")
    monkeypatch.setattr(torch, "cuda", there)
    assert find_gpu() == "cuda"
    assert "mapping on the GPU (NVIDIA H100)" in capsys.readouterr().err
