"""The encoder without torch."""

import dataclasses
import itertools

import numpy as np
import pytest
import scipy.sparse as sp

from cellscribe.model.encoder import Encoder, fold_batch_norm


@pytest.fixture
def encoder():
    rng = np.random.default_rng(0)
    sizes = (12, 8, 8, 3)
    return Encoder(
        tuple(rng.normal(size=pair).astype(np.float32) for pair in itertools.pairwise(sizes)),
        tuple(rng.normal(size=n).astype(np.float32) for n in sizes[1:]),
    )


@pytest.fixture
def counts():
    return sp.csr_matrix(np.random.default_rng(1).poisson(1.0, (9, 12)).astype(np.float32))


def test_encoding_is_linear_layers_with_relu_between_on_logged_counts(encoder, counts):
    hidden = np.log1p(counts.toarray().astype(np.float64))
    for layer, (weight, bias) in enumerate(zip(encoder.weights, encoder.biases, strict=True)):
        hidden = hidden @ weight + bias
        if layer < 2:
            hidden = np.where(hidden > 0, hidden, 0)
    np.testing.assert_allclose(encoder.encode(counts), hidden, atol=1e-4)
    assert (hidden < 0).any(), "the last layer has no ReLU"
    assert encoder.encode(counts).dtype == np.float32
    assert encoder.n_latent == 3


def test_encoding_leaves_the_counts_as_they_are_and_never_makes_them_dense(encoder, counts, monkeypatch):
    before = counts.copy()
    monkeypatch.setattr(sp.csr_matrix, "toarray", lambda *_: pytest.fail("densified"))
    encoder.encode(counts)
    assert abs(counts - before).max() == 0


def test_a_saved_encoder_is_the_same_again(encoder, counts, tmp_path):
    encoder.save(tmp_path / "e.safetensors")
    np.testing.assert_array_equal(
        Encoder.load(tmp_path / "e.safetensors").encode(counts), encoder.encode(counts)
    )


@pytest.fixture
def other(encoder):
    """An encoder as other people train them: counts go in, layers are normalised, covariates are encoded."""
    rng = np.random.default_rng(2)
    covariates = tuple(rng.normal(size=(4, len(bias))).astype(np.float32) for bias in encoder.biases)
    default = np.full(4, 0.25, dtype=np.float32)
    return dataclasses.replace(
        encoder, log=False, layer_norm=True, covariates=(*covariates[:2], 0 * covariates[2]), default=default
    )


def test_other_encoders_normalise_layers_and_add_covariates(other, counts):
    of = np.eye(4, dtype=np.float32)[np.arange(9) % 4]
    hidden = counts.toarray().astype(np.float64)
    for layer, (weight, bias) in enumerate(zip(other.weights, other.biases, strict=True)):
        hidden = hidden @ weight + bias + of @ other.covariates[layer]
        if layer < 2:
            centred = hidden - hidden.mean(axis=1, keepdims=True)
            hidden = np.maximum(centred / np.sqrt(centred.var(axis=1, keepdims=True) + 1e-5), 0)
    np.testing.assert_allclose(other.encode(counts, of), hidden, atol=1e-4)


def test_a_cell_of_unknown_batch_has_the_default_covariates(other, counts):
    np.testing.assert_allclose(other.encode(counts), other.encode(counts, np.full((9, 4), 0.25)), atol=1e-5)
    assert np.abs(other.encode(counts) - other.encode(counts, np.eye(4)[[0] * 9])).max() > 0.01


def test_what_another_encoder_has_is_saved_too(other, counts, tmp_path):
    other.save(tmp_path / "e.safetensors")
    again = Encoder.load(tmp_path / "e.safetensors")
    np.testing.assert_array_equal(again.encode(counts), other.encode(counts))
    np.testing.assert_array_equal(
        again.encode(counts, np.eye(4)[[1] * 9]), other.encode(counts, np.eye(4)[[1] * 9])
    )


@pytest.mark.train
def test_folded_batch_normalisation_equals_torchs():
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    linear, norm = torch.nn.Linear(6, 5), torch.nn.BatchNorm1d(5, eps=1e-3)
    with torch.no_grad():
        norm.weight.uniform_(0.5, 2)
        norm.bias.normal_()
        norm.running_mean.normal_()
        norm.running_var.uniform_(0.1, 3)
    norm.eval()
    values = torch.randn(20, 6)
    weight, bias = fold_batch_norm(
        linear.weight.detach().numpy().T,
        linear.bias.detach().numpy(),
        scale=norm.weight.detach().numpy(),
        shift=norm.bias.detach().numpy(),
        mean=norm.running_mean.numpy(),
        variance=norm.running_var.numpy(),
        epsilon=norm.eps,
    )
    expected = norm(linear(values)).detach().numpy()
    np.testing.assert_allclose(values.numpy() @ weight + bias, expected, atol=1e-5)


@pytest.mark.train
@pytest.mark.parametrize("n_layers", [1, 2])
def test_the_encoder_equals_scvi_tools_latent(n_layers):
    scvi = pytest.importorskip("scvi")
    from small_model import simulate

    from cellscribe.surgery import from_scvi

    scvi.settings.seed = 0
    adata = simulate(120)
    scvi.model.SCVI.setup_anndata(adata, batch_key="donor")
    model = scvi.model.SCVI(
        adata,
        n_latent=7,
        n_layers=n_layers,
        n_hidden=16,
        gene_likelihood="nb",
        encode_covariates=False,
    )
    model.train(max_epochs=3, batch_size=32, accelerator="cpu", enable_progress_bar=False, logger=False)
    encoder = from_scvi(model, "SCVI").encoder()
    assert len(encoder.weights) == n_layers + 1
    latent = model.get_latent_representation()
    assert np.abs(latent).max() > 0.1
    np.testing.assert_allclose(encoder.encode(sp.csr_matrix(adata.X)), latent, atol=1e-4)
