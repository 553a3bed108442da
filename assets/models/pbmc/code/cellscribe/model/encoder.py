"""The encoder of an scVI model as plain matrix products: no torch, no scvi-tools at inference.

Lopez et al. 2018, Nature Methods 15:1053. The mean of the approximate posterior is
`W_mean @ h + b_mean` with `h` a stack of linear layers, batch normalisation (constant at inference, so
folded into the weights here) and ReLU, on `log1p` of the raw counts.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import scipy.sparse as sp


@dataclass(frozen=True)
class Encoder:
    """weights[i]: (n_in, n_out) float32; biases[i]: (n_out,). The last layer has no ReLU."""

    weights: tuple[np.ndarray, ...]
    biases: tuple[np.ndarray, ...]

    @property
    def n_latent(self) -> int:
        """Dimensions of the embedding."""
        return int(self.biases[-1].shape[0])

    def encode(self, counts: sp.csr_matrix) -> np.ndarray:
        """Latent means of raw counts on the model's genes.

        counts: CSR (n_cells, n_genes), missing genes as zeros. Returns float32 (n_cells, n_latent).
        """
        logged = counts.astype(np.float32, copy=True)
        np.log1p(logged.data, out=logged.data)
        hidden = np.asarray(logged @ self.weights[0]) + self.biases[0]
        for weight, bias in zip(self.weights[1:], self.biases[1:], strict=True):
            np.maximum(hidden, 0, out=hidden)
            hidden = hidden @ weight + bias
        return hidden

    def save(self, path: Path) -> None:
        """Write as safetensors."""
        from safetensors.numpy import save_file

        tensors = {}
        for i, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            tensors[f"layer{i}.weight"] = np.ascontiguousarray(weight, dtype=np.float32)
            tensors[f"layer{i}.bias"] = np.ascontiguousarray(bias, dtype=np.float32)
        save_file(tensors, path)

    @classmethod
    def load(cls, path: Path) -> Encoder:
        """Read what `save` wrote."""
        from safetensors.numpy import load_file

        tensors = load_file(path)
        n_layers = len(tensors) // 2
        return cls(
            tuple(tensors[f"layer{i}.weight"] for i in range(n_layers)),
            tuple(tensors[f"layer{i}.bias"] for i in range(n_layers)),
        )


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
