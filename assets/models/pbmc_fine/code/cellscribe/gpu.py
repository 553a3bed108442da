"""The two products of matrices of MAP on a GPU, by PyTorch: the encoder's layers, and the nearest reference cells.

Everything else of naming is reading, picking and counting, which a GPU does no faster.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse as sp

from cellscribe.cli import log
from cellscribe.model.encoder import LAYER_NORM_EPSILON, Encoder
from cellscribe.model.neighbours import row_blocks

if TYPE_CHECKING:
    import torch

# Distances held at a time: 1 GB.
DISTANCES = 250_000_000


def find_gpu(*, asked: bool = True) -> str | None:
    """The device's name for PyTorch; None where there is none to use, saying why to who `asked` for it."""
    try:
        import torch
    except ImportError:
        if asked:
            log(
                "--use_gpu: PyTorch is not installed here, so the processor does the work (the image cuda has it)"
            )
        return None
    if not torch.cuda.is_available():
        if asked:
            log("--use_gpu: no GPU was found, so the processor does the work")
        return None
    log(f"mapping on the GPU ({torch.cuda.get_device_name()})")
    return "cuda"


class Placer:
    """An encoder and reference cells in a device's memory.

    device: as PyTorch names it. reference: (n_reference, n_latent).
    """

    def __init__(self, encoder: Encoder, reference: np.ndarray, device: str) -> None:
        import warnings

        import torch

        warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta")
        self.device, self.encoder = device, encoder
        self.weights = [self._there(weight) for weight in encoder.weights]
        # a query's cells are of an unknown batch: the default covariates are a part of the bias
        self.biases = [self._there(encoder.bias(layer)) for layer in range(len(encoder.weights))]
        self.reference = self._there(reference)
        self.squares = torch.einsum("ij,ij->i", self.reference, self.reference)

    def place(self, counts: sp.csr_matrix, k: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Latent means of raw counts on the model's genes, and their nearest reference cells.

        counts: CSR (n_cells, n_genes). Returns float32 (n_cells, n_latent), and distances float32 and indices int32,
        (n_cells, k), as `Encoder.encode` and `nearest` do; cells at equal distances come in any order.
        """
        import torch

        with torch.inference_mode():
            latent = self._encode(counts)
            distances, indices = self._nearest(latent, min(k, len(self.reference)))
            return latent.cpu().numpy(), distances.cpu().numpy(), indices.cpu().numpy().astype(np.int32)

    def _there(self, array: np.ndarray) -> torch.Tensor:
        import torch

        return torch.as_tensor(np.ascontiguousarray(array, dtype=np.float32), device=self.device)

    def _encode(self, counts: sp.csr_matrix) -> torch.Tensor:
        import torch

        values: Any = torch.sparse_csr_tensor(
            torch.as_tensor(counts.indptr.astype(np.int64)),
            torch.as_tensor(counts.indices.astype(np.int64)),
            torch.as_tensor(np.log1p(counts.data) if self.encoder.log else counts.data),
            size=counts.shape,
            dtype=torch.float32,
            device=self.device,
            check_invariants=False,
        )
        hidden = values @ self.weights[0] + self.biases[0]
        for weight, bias in zip(self.weights[1:], self.biases[1:], strict=True):
            if self.encoder.layer_norm:
                hidden = torch.nn.functional.layer_norm(hidden, hidden.shape[1:], eps=LAYER_NORM_EPSILON)
            hidden = torch.addmm(bias, hidden.relu_(), weight)
        return hidden

    def _nearest(self, latent: torch.Tensor, k: int) -> tuple[torch.Tensor, torch.Tensor]:
        import torch

        found = []
        for rows in row_blocks(len(latent), max(1, DISTANCES // len(self.reference))):
            cells = latent[rows]
            # squared distances less the cell's own square, which is the same for all
            ranked = torch.addmm(self.squares, cells, self.reference.T, alpha=-2)
            least, columns = ranked.topk(k, largest=False, sorted=True)
            squares = least + torch.einsum("ij,ij->i", cells, cells)[:, None]
            found.append((squares.clamp_(min=0).sqrt_(), columns))
        distances, indices = zip(*found, strict=True)
        return torch.cat(distances), torch.cat(indices)
