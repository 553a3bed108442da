"""A CellTypist model made into one of ours.

Domínguez Conde et al. 2022, Science 376:eabl5197. CellTypist scales log-normalised genes by their mean and deviation,
clips them at ten deviations, and gives each label the sigmoid of a linear score. The scaling is folded into the weights
here; a gene that is not seen in a cell lies below its mean and is never clipped, so that the counts stay sparse.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from cellscribe import genes as gene_names
from cellscribe.cli import log
from cellscribe.errors import ModelFetchError
from cellscribe.importing.calibrate import TestCells, calibrate
from cellscribe.importing.organism import organism_of
from cellscribe.importing.pickles import read_pickle
from cellscribe.model.calibration import UNCALIBRATED
from cellscribe.model.logistic import Logistic
from cellscribe.model.model import LOGISTIC
from cellscribe.training.folder import (
    check_names,
    finish_model,
    gene_entry,
    lineage_levels,
    manifest_fields,
    new_model,
    place_labels,
    write_genes,
)
from cellscribe.training.options import ModelOptions
from cellscribe.training.train import REJECTION

PROGRAM = "CellTypist"
CLIP = 10.0


@dataclass(frozen=True)
class Parts:
    """What a CellTypist model is. features: (n_genes,); labels: (n_labels,); coefficients: (n_labels, n_genes), on
    scaled genes; intercepts: (n_labels,); means, deviations: (n_genes,); description: its own.
    """

    features: np.ndarray
    labels: list[str]
    coefficients: np.ndarray
    intercepts: np.ndarray
    means: np.ndarray
    deviations: np.ndarray
    description: dict[str, str]
    sha256: str


def read_celltypist(path: Path, *, trusted: bool) -> Parts:
    """Read a CellTypist `.pkl`. Raises ModelFetchError for what is none."""
    value, sha256 = read_pickle(path, program=PROGRAM, trusted=trusted)
    try:
        classifier, scaler = value["Model"], value["Scaler_"]
        coefficients = np.asarray(classifier.coef_, dtype=np.float64)
        intercepts = np.broadcast_to(
            np.asarray(classifier.intercept_, dtype=np.float64).ravel(), len(coefficients)
        )
        labels = gene_names.column_text(classifier.classes_).tolist()
        features = np.array([str(name) for name in classifier.features], dtype=object)
        deviations = np.asarray(scaler.scale_, dtype=np.float64)
        means = np.zeros(len(deviations))
        if getattr(scaler, "with_mean", True):
            means = np.asarray(scaler.mean_, dtype=np.float64)
    except (TypeError, KeyError, AttributeError, ValueError) as error:
        raise ModelFetchError(
            f"this pickle is no {PROGRAM} model: {error}",
            f"Give a .pkl that {PROGRAM}'s train() or models.download_models() wrote.",
            file=path,
        ) from None
    if len(labels) == 2 and len(coefficients) == 1:
        coefficients = np.vstack([-coefficients, coefficients])
        intercepts = np.concatenate([-intercepts, intercepts])
    shapes = {coefficients.shape, (len(labels), len(features)), (len(intercepts), len(means))}
    if len(shapes) > 1 or len(set(features)) < len(features) or not np.isfinite(coefficients).all():
        raise ModelFetchError(
            f"the model does not fit together: {len(labels)} labels, {len(features)} genes ({len(set(features))} "
            f"different), coefficients {coefficients.shape}, {len(means)} scaled genes",
            f"Train it again with {PROGRAM}.",
            file=path,
        )
    given = value.get("description")
    description = {str(k): str(v) for k, v in given.items()} if isinstance(given, dict) else {}
    return Parts(features, labels, coefficients, intercepts, means, deviations, description, sha256)


def logistic_of(parts: Parts) -> Logistic:
    """The model's regression on log-normalised counts, in double precision, the scaling folded in."""
    return Logistic(
        coefficients=(parts.coefficients / parts.deviations).T,
        intercepts=parts.intercepts,
        ceilings=parts.means + CLIP * parts.deviations,
        means=parts.means,
        all_genes=True,
    )


@dataclass(frozen=True)
class CellTypistOptions(ModelOptions):
    """Options of `import_model.py celltypist`; see its --help."""

    model: Path
    output: Path
    name: str | None = None
    test: TestCells = field(default_factory=TestCells)
    trust_model_code: bool = False


def gene_table(parts: Parts) -> pd.DataFrame:
    """genes.tsv: gene_id, symbol, mean (log-normalised), importance (share of the weights)."""
    ids = gene_names.ensembl_ids(parts.features)
    weight = np.abs(parts.coefficients).sum(axis=0)
    return pd.DataFrame(
        {
            "gene_id": ids,
            "symbol": np.where(ids == "", parts.features, gene_names.looked_up_symbols(ids)).astype(object),
            "mean": parts.means.round(5),
            "importance": (weight / max(weight.sum(), 1e-12)).round(9),
        }
    )


def run_import_celltypist(options: CellTypistOptions) -> Path:
    """Write a model folder from a CellTypist model; returns it.

    Raises ModelFetchError for a file that is none, InputError for options and test cells that do not fit it.
    """
    name = options.name or options.model.stem
    check_names(name, options.version, options.output)
    parts = read_celltypist(options.model, trusted=options.trust_model_code)
    genes, described = gene_table(parts), parts.description
    organism = organism_of(options.organism, genes, parts.features, options.model)
    cl_ids, ontology = place_labels(parts.labels, options.cl_map)
    fields = manifest_fields(
        options,
        parts.labels,
        cl_ids,
        ontology,
        genes,
        None,
        name=name,
        kind="logistic",
        organism=organism,
        description=options.description or described.get("details", ""),
        citation=options.citation or described.get("source", ""),
        label_key=options.test.label_key or "labels",
        levels=lineage_levels(ontology, parts.labels, cl_ids),
        genes=gene_entry(genes) | {"numbered": True},
        members=[{"name": LOGISTIC, "parameters": {"link": "one_vs_rest"}}],
        calibration={"logistic": {"method": UNCALIBRATED, "weights": {LOGISTIC: 1.0}}},
        rejection=REJECTION | {"unexpected_share": 1.0},
        training={"batch_key": None, "parameters": {}, "seed": 0},
        source={
            "program": PROGRAM,
            "version": described.get("version", ""),
            "file": options.model.name,
            "sha256": parts.sha256,
            "details": {key: described[key] for key in ("date", "url", "source") if described.get(key)},
        },
        evaluation={},
        libraries=("numpy", "scipy"),
    )
    with new_model(options.output) as folder:
        write_genes(folder, genes, genes[["gene_id", "symbol"]].iloc[:0])
        logistic_of(parts).save(folder / "logistic.safetensors")
        fields, evaluation = calibrate(folder, fields, options.test)
        sha256 = finish_model(folder, fields, ontology, evaluation)
    log(
        f"model '{name} {options.version}' written to {options.output}: {len(parts.labels)} labels, "
        f"{len(genes):,} genes, {'calibrated on test cells' if evaluation else 'not calibrated'} (sha256 {sha256[:12]})"
    )
    return options.output
