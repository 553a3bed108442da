"""A model folder in memory: what MAP and ANNOTATE need of it."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cellscribe.errors import CellscribeError, InputError, ModelFetchError
from cellscribe.io import read_json
from cellscribe.model.calibration import UNCALIBRATED, pool, softmax
from cellscribe.model.encoder import Encoder
from cellscribe.model.likelihood import FILE as LIKELIHOOD_FILE
from cellscribe.model.likelihood import Likelihood
from cellscribe.model.logistic import Logistic, link
from cellscribe.model.manifest import FETCH_AGAIN, MANIFEST, model_sha256, read_manifest
from cellscribe.model.neighbours import vote
from cellscribe.model.ontology import Ontology
from cellscribe.model.profiles import FILE as PROFILES
from cellscribe.model.profiles import Profiles
from cellscribe.model.reference_counts import FILE as REFERENCE_COUNTS
from cellscribe.model.reference_counts import ReferenceCounts
from cellscribe.model.scvi_model import SETTINGS
from cellscribe.model.trees import load_trees

if TYPE_CHECKING:
    import pandas as pd

NEIGHBOURS, TREES, LOGISTIC, SCANVI = "scvi_neighbours", "scvi_trees", "logistic", "scanvi"
LIKELIHOOD = "likelihood"
MEMBERS = (NEIGHBOURS, TREES, LOGISTIC, LIKELIHOOD, SCANVI)
# The classifiers of a model trained here, the best first; a model's own stand in its manifest, under `calibration`.
CLASSIFIERS: dict[str, tuple[str, ...]] = {
    "consensus": (NEIGHBOURS, TREES, LOGISTIC, LIKELIHOOD),
    "scvi": (NEIGHBOURS, TREES),
    "neighbours": (NEIGHBOURS,),
    "trees": (TREES,),
    "logistic": (LOGISTIC,),
    "scanvi": (SCANVI,),
}


# What `rejection` of a manifest needs.
LIMITS = (
    "least_probability",
    "ancestor_probability",
    "least_unexpected_counts",
    "unexpected_share",
    "least_counts",
)


@dataclass(frozen=True)
class Reference:
    """The reference cells and their altered copies. latent: (n_rows, n_latent); codes: (n_rows,); umap: (n_rows, 2);
    distance_quantiles: (1001,), ascending, of the mean distance to the nearest cells of other batches.
    """

    latent: np.ndarray
    codes: np.ndarray
    umap: np.ndarray
    distance_quantiles: np.ndarray

    def save(self, path: Path) -> None:
        """Write as safetensors; the latent in half precision, which keeps distances to a thousandth."""
        from safetensors.numpy import save_file

        save_file(
            {
                "latent": np.ascontiguousarray(self.latent, dtype=np.float16),
                "codes": np.ascontiguousarray(self.codes, dtype=np.int16),
                "umap": np.ascontiguousarray(self.umap, dtype=np.float16),
                "distance_quantiles": np.ascontiguousarray(self.distance_quantiles, dtype=np.float32),
            },
            path,
        )

    @classmethod
    def load(cls, path: Path) -> Reference:
        """Read what `save` wrote."""
        from safetensors.numpy import load_file

        tensors = load_file(path)
        reference = cls(
            tensors["latent"].astype(np.float32),
            tensors["codes"].astype(np.int64),
            tensors["umap"].astype(np.float32),
            tensors["distance_quantiles"].astype(np.float32),
        )
        n_cells, quantiles = len(reference.latent), reference.distance_quantiles
        if not n_cells or reference.latent.ndim != 2 or reference.codes.shape != (n_cells,):
            raise ValueError("its cells and their labels differ in number")
        if reference.umap.size and reference.umap.shape != (n_cells, 2):
            raise ValueError("its cells and their places on the UMAP differ in number")
        if not len(quantiles) or (np.diff(quantiles, axis=0) < 0).any() or quantiles.ndim != 1:
            raise ValueError("its distances do not ascend")
        if not all(np.isfinite(part).all() for part in (reference.latent, reference.umap, quantiles)):
            raise ValueError("a number is not finite")
        return reference

    def quantile(self, mean_distance: np.ndarray) -> np.ndarray:
        """Where a mean distance lies among the reference's own: 0 nearest, 1 farther than any."""
        positions = np.searchsorted(self.distance_quantiles, mean_distance, side="left")
        return (positions / len(self.distance_quantiles)).astype(np.float32)


class Model:
    """A verified model folder; its parts are read when first used.

    Each raises ModelFetchError, naming its file, where it cannot be read or does not fit the others: that its sha256 is
    the manifest's only says that whoever made the model meant it so.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder)
        self.manifest: dict[str, Any] = read_manifest(self.folder)
        self.sha256 = model_sha256(self.folder)
        with self._part(MANIFEST):
            check_fitted(self.manifest)

    @contextmanager
    def _part(self, name: str) -> Iterator[Path]:
        """The path of a file that the block reads and checks."""
        try:
            yield self.folder / name
        except (CellscribeError, MemoryError):
            raise
        except Exception as error:
            raise ModelFetchError(
                f"this part of the model cannot be used ({type(error).__name__}: {error})",
                FETCH_AGAIN,
                file=self.folder / name,
            ) from error

    def check(self) -> None:
        """Read every part that names cells or is shown on a page. Raises ModelFetchError where one cannot be used."""
        # Here, as models carry this file into environments that have no use for it.
        from cellscribe.markers import read_markers

        parts = [self.genes, self.silent_genes, self.ontology]
        if set(self.members) != {LOGISTIC}:
            parts += [self.encoder, self.reference, self.profiles]
        self.read(self.members)
        parts.append(self.reference_counts)
        with self._part("markers.json"):
            read_markers(self.markers)

    def read(self, members: Iterable[str]) -> None:
        """Read what these members name cells by: threads that share the model would each read it anew."""
        parts = {
            NEIGHBOURS: "reference",
            TREES: "trees",
            LOGISTIC: "logistic",
            LIKELIHOOD: "likelihood",
            SCANVI: "scanvi",
        }
        for member in members:
            getattr(self, parts[member])

    @property
    def name(self) -> str:
        """Name and version, for messages."""
        return f"{self.manifest['name']} {self.manifest['version']}"

    @property
    def labels(self) -> list[str]:
        """Labels, in the order of every probability column."""
        return [label["label"] for label in self.manifest["labels"]]

    @property
    def cl_ids(self) -> list[str]:
        """Cell Ontology id of each label, "" where unknown."""
        return [label["cl_id"] for label in self.manifest["labels"]]

    @property
    def members(self) -> list[str]:
        """Names of the members that this model has."""
        return [member["name"] for member in self.manifest["members"]]

    @property
    def classifiers(self) -> dict[str, tuple[str, ...]]:
        """The members that each classifier pools, the default classifier first."""
        weights = {name: fitted["weights"] for name, fitted in self.manifest["calibration"].items()}
        return {
            name: tuple(member for member in MEMBERS if member in weights[name])
            for name in CLASSIFIERS
            if name in weights
        }

    @functools.cached_property
    def genes(self) -> pd.DataFrame:
        """The model's genes in order: gene_id, symbol, mean, importance."""
        with self._part("genes.tsv") as path:
            genes = _gene_table(path, {"gene_id": str, "symbol": str})
            numbers = genes[["mean", "importance"]].to_numpy(dtype=np.float64)
            if not len(genes) or not np.isfinite(numbers).all():
                raise ValueError("each gene needs its mean and its importance")
            return genes

    @functools.cached_property
    def silent_genes(self) -> pd.DataFrame:
        """Genes that were measured in the reference and that none of its types expresses: gene_id, symbol."""
        with self._part("silent_genes.tsv") as path:
            return _gene_table(path, str)

    @functools.cached_property
    def encoder(self) -> Encoder:
        """The scVI encoder."""
        with self._part("encoder.safetensors") as path:
            encoder = Encoder.load(path)
            _must_be("inputs", encoder.weights[0].shape[0], len(self.genes))
            return encoder

    @property
    def can_be_tuned(self) -> bool:
        """Whether the encoder takes covariates, so that fine-tuning on a query changes it."""
        return SETTINGS in self.manifest["files"]

    @functools.cached_property
    def scanvi(self) -> Encoder:
        """The classifier of a scANVI model: layers on the latent."""
        with self._part("scanvi.safetensors") as path:
            layers = Encoder.load(path)
            _must_be("inputs", layers.weights[0].shape[0], self.encoder.n_latent)
            _must_be("labels", layers.n_latent, len(self.labels))
            return layers

    @functools.cached_property
    def logistic(self) -> Logistic:
        """The logistic regression."""
        with self._part("logistic.safetensors") as path:
            regression = Logistic.load(path)
            _must_be("genes", regression.coefficients.shape[0], len(self.genes))
            _must_be("labels", regression.coefficients.shape[1], len(self.labels))
            return regression

    @functools.cached_property
    def likelihood(self) -> Likelihood:
        """How likely each label makes counts."""
        with self._part(LIKELIHOOD_FILE) as path:
            likelihood = Likelihood.load(path)
            _must_be("genes", likelihood.shares.shape[0], len(self.genes))
            _must_be("labels", likelihood.shares.shape[1], len(self.labels))
            return likelihood

    @functools.cached_property
    def reference_counts(self) -> ReferenceCounts | None:
        """Counts to fit the regression anew from; None where the model holds none."""
        if REFERENCE_COUNTS not in self.manifest["files"]:
            return None
        with self._part(REFERENCE_COUNTS):
            counts = ReferenceCounts.load(self.folder)
            _must_be_codes(counts.codes, len(self.labels))
            return counts

    @functools.cached_property
    def trees(self) -> Any:
        """The gradient-boosted trees, an `xgboost.Booster`."""
        with self._part("trees.ubj") as path:
            return load_trees(path, self.encoder.n_latent, len(self.labels))

    @functools.cached_property
    def reference(self) -> Reference:
        """The reference cells."""
        with self._part("reference.safetensors") as path:
            reference = Reference.load(path)
            _must_be("dimensions", reference.latent.shape[1], self.encoder.n_latent)
            _must_be_codes(reference.codes, len(self.labels))
            return reference

    @functools.cached_property
    def profiles(self) -> Profiles | None:
        """What the labels express; None where the model cannot tell what is strange to it."""
        if PROFILES not in self.manifest["files"]:
            return None
        with self._part(PROFILES) as path:
            profiles = Profiles.load(path)
            _must_be("genes", profiles.means.shape[1], len(self.genes))
            _must_be("labels", profiles.means.shape[0], len(self.labels))
            return profiles

    @property
    def novelty_null(self) -> dict[str, Any] | None:
        """How strange held-out cells were to it; None where it has no `profiles`."""
        return self.manifest.get("novelty") if PROFILES in self.manifest["files"] else None

    @functools.cached_property
    def ontology(self) -> Ontology:
        """The Cell Ontology around the labels."""
        with self._part("ontology.json") as path:
            return Ontology.from_json(read_json(path))

    @property
    def markers(self) -> dict[str, Any]:
        """For each label, the genes that mark it in the reference."""
        with self._part("markers.json") as path:
            return dict(read_json(path))

    def classifier(self, wanted: str = "default") -> str:
        """The classifier meant by `--classifier`. Raises InputError where this model has none of that name."""
        has = list(self.classifiers)
        if wanted == "default":
            return has[0]
        if wanted not in has:
            raise InputError(
                f"the model '{self.name}' has no classifier '{wanted}'; it has: default, {', '.join(has)}",
                "Choose one of these with --classifier.",
            )
        return wanted

    def label_weights(self) -> np.ndarray:
        """How much more a vote for a rare label counts: square root of its rarity among the neighbours that vote."""
        return rarity_weights(np.bincount(self.reference.codes, minlength=len(self.labels)))

    def member_probabilities(
        self,
        *,
        latent: np.ndarray | None,
        distances: np.ndarray | None,
        indices: np.ndarray | None,
        logistic_scores: np.ndarray | None,
        likelihood_scores: np.ndarray | None = None,
        members: tuple[str, ...] | None = None,
    ) -> dict[str, np.ndarray]:
        """Each member's own label probabilities, (n_cells, n_labels)."""
        result: dict[str, np.ndarray] = {}
        for member in members or tuple(self.members):
            if member == NEIGHBOURS and distances is not None and indices is not None:
                result[member] = vote(
                    distances, indices, self.reference.codes, len(self.labels), self.label_weights()
                )
            elif member == TREES and latent is not None:
                result[member] = tree_probabilities(self.trees, latent)
            elif member == LOGISTIC and logistic_scores is not None:
                result[member] = link(logistic_scores, self.parameters(LOGISTIC).get("link", "softmax"))
            elif member == LIKELIHOOD and likelihood_scores is not None:
                result[member] = softmax(likelihood_scores)
            elif member == SCANVI and latent is not None:
                result[member] = softmax(self.scanvi.forward(latent))
        return result

    def parameters(self, member: str) -> dict[str, Any]:
        """What the manifest says of a member; empty where the model has no such member."""
        found: list[dict[str, Any]] = [
            entry["parameters"] for entry in self.manifest["members"] if entry["name"] == member
        ]
        return found[0] if found else {}

    def is_calibrated(self, classifier: str) -> bool:
        """Whether the classifier's probabilities were fitted on cells that it had not seen."""
        return bool(self.manifest["calibration"][classifier]["method"] != UNCALIBRATED)

    def pooled(
        self, members: dict[str, np.ndarray], classifier: str, gene_overlap: float = 1.0
    ) -> np.ndarray:
        """The probabilities of a classifier, (n_cells, n_labels), calibrated where it is.

        gene_overlap: how much of the reference's expression is on genes that the cells have (`expression_overlap`).
        """
        names = self.asked(classifier, gene_overlap)
        if not self.is_calibrated(classifier):
            return members[names[0]]
        return pool(
            [members[name] for name in names],
            self._fitted(classifier, "weights", names, gene_overlap),
            self._label_offsets(classifier),
        )

    def asked(self, classifier: str, gene_overlap: float = 1.0) -> tuple[str, ...]:
        """The members whose word counts for anything in a classifier, for cells with so much of the genes."""
        names = self.classifiers[classifier]
        weights = self._fitted(classifier, "weights", names, gene_overlap)
        return tuple(name for name, weight in zip(names, weights, strict=True) if weight > 0) or names

    def set_limits(self, classifier: str, gene_overlap: float = 1.0) -> np.ndarray | None:
        """The least probability of each label in a cell's set, (n_labels,); None where the classifier has no sets."""
        if "set_limits" not in self.manifest["calibration"][classifier]:
            return None
        return self._fitted(classifier, "set_limits", self.labels, gene_overlap)

    def _label_offsets(self, classifier: str) -> np.ndarray | None:
        """What is added for labels of few cells, (n_labels,); None where the classifier was calibrated without."""
        offsets = self.manifest["calibration"][classifier].get("label_offsets")
        return None if offsets is None else np.array([offsets[label] for label in self.labels])

    def _fitted(self, classifier: str, what: str, names: Sequence[str], gene_overlap: float) -> np.ndarray:
        """What was fitted on held-out cells, between the shares of genes that these had."""
        calibration = self.manifest["calibration"][classifier]
        fitted = sorted(
            [
                (1.0, calibration[what]),
                *((e["gene_overlap"], e[what]) for e in calibration.get("fewer_genes", ())),
            ],
            key=lambda entry: entry[0],
        )
        shares = [share for share, _ in fitted]
        return np.array(
            [np.interp(gene_overlap, shares, [values[name] for _, values in fitted]) for name in names]
        )


def _gene_table(path: Path, kinds: Any) -> pd.DataFrame:
    """A table of genes with ids and symbols. Raises ValueError where it has no such columns."""
    import pandas as pd

    table = pd.read_csv(path, sep="\t", keep_default_na=False, dtype=kinds)
    if missing := [name for name in ("gene_id", "symbol") if name not in table]:
        raise ValueError(f"there is no column {' and no column '.join(missing)}")
    return table


def _must_be(what: str, seen: int, wanted: int) -> None:
    if seen != wanted:
        raise ValueError(f"it has {seen:,} {what}, and the model {wanted:,}")


def _must_be_codes(codes: np.ndarray, n_labels: int) -> None:
    if codes.min() < 0 or codes.max() >= n_labels or codes.min() == codes.max():
        raise ValueError(f"its cells' labels are not those of the model, of which there are {n_labels:,}")


def check_fitted(manifest: dict[str, Any]) -> None:
    """Raise ValueError, KeyError or TypeError unless what was fitted is there, for every label and member."""
    members = {member["name"] for member in manifest["members"]}
    labels = {label["label"] for label in manifest["labels"]}
    only_genes = members == {LOGISTIC}
    calibration = manifest["calibration"]
    if not any(name in calibration for name in CLASSIFIERS):
        raise ValueError(f"calibration: there is none of the classifiers {', '.join(CLASSIFIERS)}")
    for name, fitted in calibration.items():
        if not fitted["weights"].keys() <= members or not fitted["weights"]:
            raise ValueError(f"calibration.{name}: weighs members that the model has not")
        for part in (fitted, *fitted.get("fewer_genes", ())):
            _check_numbers(f"calibration.{name}.weights", part["weights"], fitted["weights"].keys(), 0.0)
            for what in ("set_limits", "label_offsets"):
                if what in fitted and (part is fitted or what == "set_limits"):
                    _check_numbers(f"calibration.{name}.{what}", part[what], labels)
        _check_numbers(
            f"calibration.{name}",
            {str(i): part["gene_overlap"] for i, part in enumerate(fitted.get("fewer_genes", ()))},
        )
        _ = fitted["method"]
    _check_numbers("rejection", {name: manifest["rejection"][name] for name in LIMITS})
    if not only_genes:
        _check_numbers("rejection", {name: manifest["rejection"][name] for name in ("distance_quantile",)})
    novelty = manifest.get("novelty")
    if novelty and PROFILES in manifest["files"]:
        n_signs = 1 + (LOGISTIC in members)
        fitted = [novelty["means"], novelty["deviations"], *novelty["levels"].values()]
        if only_genes or any(len(values) != n_signs for values in fitted):
            raise ValueError("novelty: there is not one number for each sign")
    if "accuracy" in manifest["evaluation"]:
        _check_numbers("evaluation", {"accuracy": manifest["evaluation"]["accuracy"]})


def _check_numbers(what: str, values: Any, names: Any = None, least: float = -np.inf) -> None:
    """Raise ValueError unless `values` has these names, and a finite number of `least` or more under each."""
    if names is not None and values.keys() != set(names):
        raise ValueError(f"{what}: has other names than the model")
    for name, value in values.items():
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if not number or not least <= float(value) < np.inf:
            raise ValueError(f"{what}: '{str(name)[:80]}' has no number that can be")


def tree_probabilities(booster: Any, latent: np.ndarray) -> np.ndarray:
    """Label probabilities of the trees for a latent (n_cells, n_latent)."""
    import xgboost

    return np.asarray(booster.predict(xgboost.DMatrix(latent)), dtype=np.float64)


def rarity_weights(n_cells: np.ndarray) -> np.ndarray:
    """Square root of each label's rarity beside an even share, at most 10. n_cells: (n_labels,) counts."""
    return np.minimum(10.0, np.sqrt(n_cells.sum() / (len(n_cells) * np.maximum(n_cells, 1))))
