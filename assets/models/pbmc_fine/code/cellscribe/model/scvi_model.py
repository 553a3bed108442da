"""A trained model of scvi-tools as arrays and plain values: what its encoder is, and what fine-tuning it takes.

SCVI: Lopez et al. 2018, Nature Methods 15:1053; SCANVI: Xu et al. 2021, Molecular Systems Biology 17:e9620. The names
of the weights and of the registry are those of scvi-tools 1.0 to 1.5.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cellscribe.io import read_json, write_json
from cellscribe.model.encoder import Encoder, fold_batch_norm, read_tensors

if TYPE_CHECKING:
    import pandas as pd

SCVI, SCANVI = "SCVI", "SCANVI"
BATCH_NORM_EPSILON = 1e-3
WEIGHTS, SETTINGS = "scvi.safetensors", "scvi.json"
_CLASSIFIER = "classifier.classifier."
_EMBEDDING = "_embeddings_dict.batch.weight"


@dataclass(frozen=True)
class ScviModel:
    """kind: `SCVI` or `SCANVI`. weights: its state dict. registry: how its cells were set up. init_params: what it was
    made with (`non_kwargs` and `kwargs`). genes: its var_names, in order.
    """

    kind: str
    weights: Mapping[str, np.ndarray]
    registry: Mapping[str, Any]
    init_params: Mapping[str, Any]
    genes: Sequence[str]

    @property
    def version(self) -> str:
        """The release of scvi-tools that it was set up with."""
        return str(self.registry.get("scvi_version", ""))

    @property
    def options(self) -> dict[str, Any]:
        """What the model was made with, without what was left at its default."""
        merged = dict(self.init_params.get("non_kwargs", {}))
        for more in self.init_params.get("kwargs", {}).values():
            merged |= more
        return merged

    def state(self, field: str) -> Mapping[str, Any]:
        """What the registry says of a field (`batch`, `labels`, ...); empty where the model has no such field."""
        found: Mapping[str, Any] = self.registry["field_registries"].get(field, {}).get("state_registry", {})
        return found

    def column(self, field: str) -> str | None:
        """The obs column that the user gave for `batch` or `labels`; None where they gave none."""
        given = self.registry.get("setup_args", {}).get(f"{field}_key")
        return None if given is None else str(given)

    @property
    def batches(self) -> list[str]:
        """Batches that it was trained on."""
        return [str(name) for name in self.state("batch").get("categorical_mapping", ())]

    @property
    def categorical(self) -> dict[str, list[str]]:
        """Categories of each further categorical covariate, by obs column."""
        mappings = self.state("extra_categorical_covs").get("mappings", {})
        return {str(column): [str(name) for name in names] for column, names in mappings.items()}

    @property
    def continuous(self) -> list[str]:
        """Continuous covariates, by obs column."""
        return [str(column) for column in self.state("extra_continuous_covs").get("columns", ())]

    @property
    def unlabelled(self) -> str | None:
        """What SCANVI was told to take for no label."""
        given = self.state("labels").get("unlabeled_category")
        return None if given is None else str(given)

    @property
    def labels(self) -> list[str]:
        """SCANVI's labels, in the order of its classifier; none for SCVI."""
        if self.kind != SCANVI:
            return []
        names = [str(name) for name in self.state("labels")["categorical_mapping"]]
        known = [name for name in names if name != self.unlabelled]
        n_out = len(self._linear(self._classifier_layers()[-1])[1])
        if n_out not in (len(known), len(names)):
            raise ValueError(f"its classifier has {n_out} outputs for {len(known)} labels")
        return known if n_out == len(known) else names

    @property
    def encodes_covariates(self) -> bool:
        """Whether the encoder sees more than genes (`encode_covariates=True`): only then fine-tuning changes it."""
        return self._linear(self._encoder_layers()[0])[0].shape[0] > len(self.genes)

    @property
    def n_covariates(self) -> int:
        """Length of a cell's covariates as `covariates` gives them."""
        return len(self.continuous) + sum(len(names) for _, names in self._one_hot)

    def covariates(self, obs: pd.DataFrame) -> np.ndarray:
        """Each cell's covariates as the encoder takes them: continuous ones, then one-hot batch and categories.

        obs: one row a cell; a category that the model was not trained on, or a column that is not there, is spread
        evenly over the known ones. Returns float32 (n_cells, n_covariates). Raises KeyError where a continuous
        covariate is not in `obs`.
        """
        parts = [np.asarray(obs[column], dtype=np.float32)[:, None] for column in self.continuous]
        for column, names in self._one_hot:
            values = obs[column].astype(str) if column in obs else [""] * len(obs)
            parts.append(one_hot(np.asarray(values, dtype=object), names))
        return np.hstack([np.zeros((len(obs), 0), dtype=np.float32), *parts])

    def encoder(self, default: np.ndarray | None = None) -> Encoder:
        """Its encoder. default: (n_covariates,), the covariates of a cell whose own are not given."""
        weights: list[np.ndarray] = []
        biases: list[np.ndarray] = []
        covariates: list[np.ndarray] = []
        layers = self._encoder_layers()
        for number, layer in enumerate([*layers, "z_encoder.mean_encoder"]):
            weight, bias = self._folded(layer) if layer in layers else self._linear(layer)
            n_in = len(self.genes) if number == 0 else len(biases[-1])
            weights.append(np.ascontiguousarray(weight[:n_in]))
            biases.append(bias)
            covariates.append(self._on_covariates(weight[n_in:], first=number == 0))
        encoded = self.encodes_covariates
        return Encoder(
            tuple(weights),
            tuple(biases),
            log=bool(self.options.get("log_variational", True)),
            layer_norm=self.options.get("use_layer_norm", "none") in ("encoder", "both"),
            covariates=tuple(covariates) if encoded else (),
            default=None if not encoded or default is None else np.asarray(default, dtype=np.float32),
        )

    def classifier(self, labels: Sequence[str]) -> Encoder:
        """SCANVI's classifier, its outputs in the order of `labels`; one that it does not know is ruled out."""
        layers = self._classifier_layers()
        folded = [*map(self._folded, layers[:-1]), self._linear(layers[-1])]
        own = {name: i for i, name in enumerate(self.labels)}
        weight, bias = folded.pop()
        known = np.array([name in own for name in labels])
        of = np.array([own.get(name, 0) for name in labels])
        folded.append((np.where(known, weight[:, of], 0), np.where(known, bias[of], -30.0)))
        given = self.options.get("classifier_parameters") or {}
        norm = self.options.get("use_layer_norm", "none") in ("encoder", "both")
        return Encoder(
            tuple(np.ascontiguousarray(weight, dtype=np.float32) for weight, _ in folded),
            tuple(np.asarray(bias, dtype=np.float32) for _, bias in folded),
            layer_norm=bool(given.get("use_layer_norm", norm)),
        )

    def save(self, folder: Path) -> None:
        """Write what fine-tuning needs, without pickle."""
        from safetensors.numpy import save_file

        save_file(
            {name: np.array(array, order="C") for name, array in self.weights.items()}, folder / WEIGHTS
        )
        write_json(
            {
                "kind": self.kind,
                "registry": plain(self.registry),
                "init_params": plain(self.init_params),
                "genes": [str(gene) for gene in self.genes],
            },
            folder / SETTINGS,
        )

    @classmethod
    def load(cls, folder: Path) -> ScviModel:
        """Read what `save` wrote."""
        settings = read_json(folder / SETTINGS)
        return cls(weights=read_tensors(folder / WEIGHTS)[0], **settings)

    @property
    def _one_hot(self) -> list[tuple[str, list[str]]]:
        """obs column and categories of each covariate that is one-hot; one category alone says nothing."""
        batches = (self.column("batch") or "", self.batches)
        told = [batches] if len(self.batches) > 1 or self._embedding is not None else []
        return told + [(column, names) for column, names in self.categorical.items() if len(names) > 1]

    def _encoder_layers(self) -> list[str]:
        return self._layers("z_encoder.encoder.fc_layers.")

    def _classifier_layers(self) -> list[str]:
        """SCANVI's hidden layers, and the last: a linear layer alone, numbered after the stack of the others."""
        hidden = self._layers(f"{_CLASSIFIER}0.fc_layers.")
        return [*hidden, f"{_CLASSIFIER}{1 if hidden else 0}"]

    def _layers(self, prefix: str) -> list[str]:
        names = {name[len(prefix) :].split(".")[0] for name in self.weights if name.startswith(prefix)}
        return [prefix + name for name in sorted(names, key=lambda name: int(name.split()[-1]))]

    def _linear(self, layer: str) -> tuple[np.ndarray, np.ndarray]:
        """weight (n_in, n_out) and bias (n_out,) of a layer, or of the linear part of a hidden one."""
        name = layer if f"{layer}.weight" in self.weights else f"{layer}.0"
        return self.weights[f"{name}.weight"].T, self.weights[f"{name}.bias"]

    def _folded(self, layer: str) -> tuple[np.ndarray, np.ndarray]:
        """A hidden layer with its batch normalisation, where it has one, folded in."""
        weight, bias = self._linear(layer)
        norm = f"{layer}.1."
        if f"{norm}running_mean" not in self.weights:
            return weight, bias
        return fold_batch_norm(
            weight,
            bias,
            scale=self.weights[f"{norm}weight"],
            shift=self.weights[f"{norm}bias"],
            mean=self.weights[f"{norm}running_mean"],
            variance=self.weights[f"{norm}running_var"],
            epsilon=BATCH_NORM_EPSILON,
        )

    def _on_covariates(self, rows: np.ndarray, *, first: bool) -> np.ndarray:
        """What each covariate adds to a layer, (n_covariates, n_out), from the rows behind those of its input.

        scvi-tools gives continuous covariates, and batches as an embedding, to the first layer alone.
        """
        result = np.zeros((self.n_covariates, rows.shape[1]), dtype=np.float32)
        if not len(rows):
            return result
        start = len(self.continuous)
        if first:
            result[:start], rows = rows[:start], rows[start:]
        embedding = self._embedding
        if embedding is not None:
            if first:
                result[start : start + len(embedding)] = embedding @ rows[: embedding.shape[1]]
                rows = rows[embedding.shape[1] :]
            start += len(embedding)
        result[start : start + len(rows)] = rows
        return result

    @property
    def _embedding(self) -> np.ndarray | None:
        """(n_batches, n_dimensions) where batches are embedded; None where they are one-hot."""
        return self.weights.get(_EMBEDDING)


def one_hot(values: np.ndarray, names: Sequence[str]) -> np.ndarray:
    """float32 (n_cells, n_names): a value that is none of the names is spread evenly over them."""
    position = {name: i for i, name in enumerate(names)}
    codes = np.array([position.get(str(value), -1) for value in values], dtype=int)
    result = np.eye(len(names), dtype=np.float32)[codes]
    result[codes < 0] = 1 / len(names)
    return result


def plain(value: Any) -> Any:
    """A value of a registry as JSON can hold it; what it cannot hold becomes None."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, np.ndarray)):
        return [plain(item) for item in value]
    if isinstance(value, np.generic):
        return value.item()
    return value if isinstance(value, (str, int, float, bool)) else None
