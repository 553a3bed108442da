"""The encoder of an scVI model as plain matrix products: no torch, no scvi-tools at inference.

Lopez et al. 2018, Nature Methods 15:1053. The mean of the approximate posterior is
`W_mean @ h + b_mean` with `h` a stack of linear layers, batch normalisation (constant at inference, so
folded into the weights here), layer normalisation where the model has it, and ReLU, on `log1p` of the raw counts
(or on the counts, where the model says so). A scANVI classifier is a stack of the same layers on the latent.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import scipy.sparse as sp

LAYER_NORM_EPSILON = 1e-5


@dataclass(frozen=True)
class Encoder:
    """weights[i]: (n_in, n_out) float32; biases[i]: (n_out,). The last layer has no ReLU and no normalisation.

    log: log1p of the counts goes in. layer_norm: the other layers' outputs are normalised in each cell, before ReLU.
    covariates[i]: (n_covariates, n_out), what covariates (one-hot, or numbers) add to each layer, or no array at all;
    default: (n_covariates,), the covariates of a cell of unknown batch: their mean over the reference.
    """

    weights: tuple[np.ndarray, ...]
    biases: tuple[np.ndarray, ...]
    log: bool = True
    layer_norm: bool = False
    covariates: tuple[np.ndarray, ...] = ()
    default: np.ndarray | None = None

    @property
    def n_latent(self) -> int:
        """Dimensions of the embedding."""
        return int(self.biases[-1].shape[0])

    def encode(self, counts: sp.csr_matrix, covariates: np.ndarray | None = None) -> np.ndarray:
        """Latent means of raw counts on the model's genes.

        counts: CSR (n_cells, n_genes), missing genes as zeros. covariates: (n_cells, n_covariates), by default
        `default` for every cell. Returns float32 (n_cells, n_latent).
        """
        logged = counts.astype(np.float32, copy=True)
        if self.log:
            np.log1p(logged.data, out=logged.data)
        return self.forward(logged, covariates)

    def forward(self, values: sp.csr_matrix | np.ndarray, covariates: np.ndarray | None = None) -> np.ndarray:
        """The layers alone. values: (n_cells, n_in). Returns float32 (n_cells, n_out)."""
        hidden = np.asarray(values @ self.weights[0]) + self.bias(0, covariates)
        for layer in range(1, len(self.weights)):
            if self.layer_norm:
                hidden = hidden - hidden.mean(axis=1, keepdims=True)
                hidden /= np.sqrt(np.square(hidden).mean(axis=1, keepdims=True) + LAYER_NORM_EPSILON)
            np.maximum(hidden, 0, out=hidden)
            hidden = hidden @ self.weights[layer] + self.bias(layer, covariates)
        return hidden

    def bias(self, layer: int, covariates: np.ndarray | None = None) -> np.ndarray:
        """What a layer adds: (n_out,), or one row a cell where covariates (n_cells, n_covariates) are given."""
        if not self.covariates:
            return self.biases[layer]
        of = self.default if covariates is None else covariates
        return self.biases[layer] + np.asarray(of, dtype=np.float32) @ self.covariates[layer]

    def save(self, path: Path) -> None:
        """Write as safetensors; what differs from an encoder trained here stands in the metadata."""
        from safetensors.numpy import save_file

        tensors = {}
        for i, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            tensors[f"layer{i}.weight"] = np.ascontiguousarray(weight, dtype=np.float32)
            tensors[f"layer{i}.bias"] = np.ascontiguousarray(bias, dtype=np.float32)
        for i, weight in enumerate(self.covariates):
            tensors[f"layer{i}.covariates"] = np.ascontiguousarray(weight, dtype=np.float32)
        if self.default is not None:
            tensors["covariates.default"] = np.ascontiguousarray(self.default, dtype=np.float32)
        metadata = {} if self.log else {"input": "counts"}
        if self.layer_norm:
            metadata["layer_norm"] = "yes"
        save_file(tensors, path, metadata=metadata or None)

    @classmethod
    def load(cls, path: Path) -> Encoder:
        """Read what `save` wrote. Raises ValueError or KeyError where its layers do not fit together."""
        tensors, metadata = read_tensors(path)
        n_layers = sum(name.endswith(".weight") for name in tensors)
        encoder = cls(
            tuple(tensors[f"layer{i}.weight"] for i in range(n_layers)),
            tuple(tensors[f"layer{i}.bias"] for i in range(n_layers)),
            log=metadata.get("input") != "counts",
            layer_norm=metadata.get("layer_norm") == "yes",
            covariates=tuple(tensors[f"layer{i}.covariates"] for i in range(n_layers))
            if "layer0.covariates" in tensors
            else (),
            default=tensors.get("covariates.default"),
        )
        encoder.check()
        return encoder

    def check(self) -> None:
        """Raise ValueError unless each layer takes what the one before gives."""
        if not self.weights or self.weights[0].ndim != 2:
            raise ValueError("there is no layer")
        n_in = self.weights[0].shape[0]
        for weight, bias in zip(self.weights, self.biases, strict=True):
            if weight.ndim != 2 or bias.ndim != 1 or weight.shape != (n_in, len(bias)):
                raise ValueError(f"a layer of {weight.shape} numbers and {bias.shape} behind one of {n_in:,}")
            n_in = len(bias)
        n_covariates = self.covariates[0].shape[:1] if self.covariates else ()
        for weight, bias in zip(self.covariates, self.biases, strict=bool(self.covariates)):
            if weight.shape != (*n_covariates, len(bias)):
                raise ValueError("the covariates of its layers differ in number")
        if self.covariates and (self.default is None or self.default.shape != n_covariates):
            raise ValueError("the covariates of a cell of unknown batch are not there")


def read_tensors(path: Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """The arrays of a safetensors file, and its metadata. Raises ValueError for a number that is not finite."""
    from safetensors import safe_open

    with safe_open(path, framework="numpy") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        metadata = dict(file.metadata() or {})
    for name, values in tensors.items():
        # PyTorch's batch normalisation keeps how many batches it saw.
        is_count = values.dtype.kind in "iu" and not values.ndim
        if not is_count and (values.dtype.kind != "f" or not np.isfinite(values).all()):
            raise ValueError(f"'{name}' holds what are no finite numbers")
    return tensors, metadata


def fold_batch_norm(
    weight: np.ndarray,
    bias: np.ndarray,
    *,
    scale: np.ndarray,
    shift: np.ndarray,
    mean: np.ndarray,
    variance: np.ndarray,
    epsilon: float,
) -> tuple[np.ndarray, np.ndarray]:
    """A linear layer and the batch normalisation after it as one linear layer.

    weight: (n_in, n_out); all others (n_out,).
    """
    factor = scale / np.sqrt(variance + epsilon)
    return (weight * factor).astype(np.float32), ((bias - mean) * factor + shift).astype(np.float32)
