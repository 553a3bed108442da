"""PREDICT: a sample named by a model that others made to CELLxGENE Annotate's contract.

Its code is run (`mlflow_run`), what it wrote is held to the contract, and becomes a mapping that ANNOTATE reads beside
those of our own models.
"""

from __future__ import annotations

import json
import re
import shutil
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pandas as pd

from cellscribe.answer import (
    AS_THE_MODEL,
    NO_NOVELTY,
    NOT_CALIBRATED,
    Answer,
    Decision,
    Strictness,
)
from cellscribe.cli import log, warn
from cellscribe.contract import UNASSIGNED, OutputNames
from cellscribe.counts_file import CountsFile, open_counts
from cellscribe.errors import InputError, ModelFetchError, ModelMismatchError
from cellscribe.genes import read_organism
from cellscribe.io import write_h5ad
from cellscribe.mapping import no_mapping
from cellscribe.mlflow_run import LOCAL, predict_by_mlflow, shown_lines
from cellscribe.model.foreign import ForeignModel, open_foreign
from cellscribe.model.manifest import plain_files
from cellscribe.model.ontology import build_ontology, find_cl_ids, is_term
from cellscribe.schema import nearest
from cellscribe.words import some

KIND = "mlflow"
# A label that is more uncertain than this is not given: the contract's scale is 0 to 1, and nothing tells better.
MOST_UNCERTAINTY = 0.5

_THEIR_NAMES = {"human": "Homo sapiens", "mouse": "Mus musculus"}
_N_COMPONENTS = 30
_WHO_TO_ASK = (
    "The model does not keep CELLxGENE Annotate's contract (docs/models.md): ask whoever made it, or use "
    "another."
)


@dataclass(frozen=True)
class Prediction:
    """What such a model says; one row a cell. predicted: text (n_cells,); uncertainty: float32 (n_cells,), 0 to 1;
    latent: float32 (n_cells, n_dimensions) and umap: (n_cells, 2), None where the model gave none. info: JSON.
    """

    predicted: np.ndarray
    uncertainty: np.ndarray
    latent: np.ndarray | None
    umap: np.ndarray | None
    info: dict[str, Any]
    barcodes: pd.Index

    @property
    def n_obs(self) -> int:
        """Cells."""
        return len(self.predicted)


@dataclass(frozen=True)
class PredictOptions:
    """Options of `predict.py`; see its --help."""

    classifier: str = "default"
    organism: str = "auto"
    gene_column_name: str | None = None
    use_gpu: bool = False
    mlflow_env_manager: str = LOCAL
    trust_model_code: bool = False
    seed: int = 0


def run_predict(counts: Path, model_folder: Path, output: Path, options: PredictOptions) -> None:
    """Name the cells of a filtered counts file with a model made by others; write mapping.h5ad
    (docs/architecture.md). Raises what `predict_cells` raises.
    """
    prediction = predict_cells(open_counts(counts), counts, model_folder, options)
    write_prediction(prediction, output)
    n_labels = len(np.unique(prediction.predicted))
    log(f"{len(prediction.predicted):,} cells named, with {n_labels} labels")


def predict_cells(cells: CountsFile, counts: Path, model_folder: Path, options: PredictOptions) -> Prediction:
    """Run a model on a copy of `counts`, the file of `cells`, and hold what it writes to the contract.

    Raises ModelFetchError where its code is not trusted or its environment cannot be made, ModelMismatchError where it
    fails, breaks the contract or changes its own folder, InputError where `gene_column_name` is not there.
    """
    if not options.trust_model_code:
        raise ModelFetchError(
            "to use this model means to run its code, made by others",
            "If you trust whoever made it, say so with --trust_model_code (docs/models.md).",
            file=model_folder,
        )
    model = open_foreign(model_folder)
    column = _gene_column(cells, options.gene_column_name)
    names = _free_names(cells)
    with tempfile.TemporaryDirectory(prefix="cellscribe-") as scratch:
        folder = Path(scratch)
        # A copy: the code may write to what it is given, and the sample's counts are needed as they are.
        query, output = folder / "query.h5ad", folder / "output.h5ad"
        shutil.copyfile(counts, query)
        before = _state(model_folder)
        said = predict_by_mlflow(
            model_folder,
            request(query, output, names.key, cells, options, column),
            folder,
            env_manager=options.mlflow_env_manager,
        )
        _check_unchanged(before, model)
        prediction = read_prediction(output, names, cells.obs.index, model, said)
    prediction.info.update(
        mlflow_env_manager=options.mlflow_env_manager,
        classifier=options.classifier,
        organism=_organism(cells, options),
    )
    for warning in prediction.info["warnings"]:
        warn(warning)
    if prediction.latent is None:
        return replace(prediction, latent=own_components(counts, seed=options.seed))
    return prediction


def request(
    query: Path, output: Path, key: str, cells: CountsFile, options: PredictOptions, gene_column: str | None
) -> str:
    """The contract's JSON. Counts are in X; what is not known is absent, as None would be read as a number."""
    asked = {
        "query_dataset_h5ad_path": str(query),
        "output_h5ad_path": str(output),
        "annotation_prefix": key,
        "gene_column_name": gene_column,
        "classifier": options.classifier,
        "organism": _THEIR_NAMES.get(_organism(cells, options)),
        "use_gpu": options.use_gpu,
    }
    return json.dumps({name: value for name, value in asked.items() if value is not None})


def _organism(cells: CountsFile, options: PredictOptions) -> str:
    """human, mouse or unknown."""
    given = read_organism(options.organism)
    return cells.organism if given == "auto" else given


def _gene_column(cells: CountsFile, given: str | None) -> str | None:
    """The var column that names the genes; None for the index."""
    if not given or given == "index":
        return None
    if given not in cells.var:
        raise InputError(
            f"there is no var column '{given}'; there are: {', '.join(map(str, cells.var.columns))}"
            f"{nearest(given, map(str, cells.var.columns))}",
            "Choose one with --gene_column_name, or leave it out for the gene symbols.",
            file=cells.path,
        )
    return given


def _free_names(cells: CountsFile) -> OutputNames:
    """Names that the cells do not carry from an earlier annotation: what is under them, the model wrote."""
    names = OutputNames.of()
    while names.predicted in cells.obs or names.uncertainty in cells.obs:
        names = OutputNames(f"{names.key}_new")
    return names


def _state(folder: Path) -> dict[str, tuple[int, int]]:
    stats = {name: (folder / name).stat() for name in plain_files(folder)}
    return {name: (stat.st_size, stat.st_mtime_ns) for name, stat in stats.items()}


def _check_unchanged(before: dict[str, tuple[int, int]], model: ForeignModel) -> None:
    after = _state(model.folder)
    changed = sorted(name for name in {*before, *after} if before.get(name) != after.get(name))
    if changed:
        raise ModelMismatchError(
            f"the model's code changed its own folder ({', '.join(changed[:5])}): the next sample would be named by "
            "another model",
            "Ask whoever made it. Remove the copy in --model_cache_dir, if it lies there.",
            file=model.folder,
        )


# --- the contract ---


def read_prediction(
    path: Path, names: OutputNames, barcodes: pd.Index, model: ForeignModel, said: list[str] | None = None
) -> Prediction:
    """Read what a model wrote, held to the contract; X is not read.

    barcodes: the cells that it was asked for, in whose order it is given back. said: the code's last lines, for
    messages. Raises ModelMismatchError that names all that is missing or wrong. A missing embedding or UMAP is a
    warning: upstream has logistic models too, and both can be computed.
    """
    if not path.is_file():
        raise ModelMismatchError(
            "the model's code ended with exit code 0, but wrote no output. Its last lines:\n"
            + shown_lines(said or []),
            _WHO_TO_ASK,
            file=model.folder,
        )
    obs, obsm, has_uns = _read_parts(path, names, model)
    problems: list[str] = []
    order = _order(obs.index, barcodes, problems)
    predicted = _labels(obs, names.predicted, problems)
    uncertainty = _uncertainty(obs, names.uncertainty, problems)
    latent = _embedding(obsm, names.embedding, 1, problems)
    umap = _embedding(obsm, names.umap, 2, problems)
    if problems or order is None:
        listed = "\n".join(f"  - {problem}" for problem in problems)
        raise ModelMismatchError(
            f"what the model wrote is not what CELLxGENE Annotate's contract asks for:\n{listed}",
            _WHO_TO_ASK,
            file=model.folder,
        )
    warnings = [
        "The labels are those of a model made by others. Its code was run, as --trust_model_code said to.",
        NOT_CALIBRATED.format("the model"),
    ]
    if latent is None:
        warnings.append(
            f"The model gave no embedding (obsm '{names.embedding}'): principal components of the sample's own "
            "counts stand in its place, in which samples cannot be compared."
        )
    if umap is None:
        warnings.append(f"The model gave no UMAP (obsm '{names.umap}'): it was computed from the embedding.")
    if not has_uns:
        warnings.append(f"The model says nothing of itself (uns '{names.predictions}').")
    return Prediction(
        predicted[order],
        uncertainty[order].astype(np.float32),
        None if latent is None else latent[order],
        None if umap is None else umap[order, :2],
        {
            "kind": KIND,
            "model": {"name": model.name, "version": model.version},
            "model_sha256": model.sha256,
            "trusted_code": True,
            "warnings": warnings,
            # Which genes it looks at, only its code knows.
            **dict.fromkeys(("gene_overlap", "n_model_genes", "n_genes_found", "genes_matched_by")),
            "missing_genes": [],
        },
        barcodes,
    )


def _read_parts(
    path: Path, names: OutputNames, model: ForeignModel
) -> tuple[pd.DataFrame, dict[str, Any], bool]:
    import h5py
    from anndata.io import read_elem

    try:
        with h5py.File(path, "r") as file:
            obsm = {
                key: read_elem(file["obsm"][key])
                for key in (names.embedding, names.umap)
                if key in file.get("obsm", ())
            }
            return read_elem(file["obs"]), obsm, f"uns/{names.predictions}" in file
    # Whatever a file of others holds, reading it must not end as our bug.
    except Exception as error:
        raise ModelMismatchError(
            f"what the model wrote is no h5ad that can be read ({type(error).__name__}: {error})",
            _WHO_TO_ASK,
            file=model.folder,
        ) from None


def _order(given: pd.Index, wanted: pd.Index, problems: list[str]) -> np.ndarray | None:
    """Where each wanted cell stands in what was given, int (n_cells,); None where they are not the same cells."""
    given, wanted = given.astype(str), wanted.astype(str)
    missing, unknown = wanted.difference(given), given.difference(wanted)
    if len(missing):
        problems.append(f"obs: {len(missing):,} of {len(wanted):,} cells are missing ({some(missing, 3)})")
    if len(unknown):
        problems.append(f"obs: {len(unknown):,} cells are none of the sample's ({some(unknown, 3)})")
    if not given.is_unique:
        problems.append(f"obs: cells are there twice ({some(given[given.duplicated()], 3)})")
        return None
    return None if len(missing) or len(unknown) else given.get_indexer(wanted)


def _labels(obs: pd.DataFrame, key: str, problems: list[str]) -> np.ndarray:
    if key not in obs:
        problems.append(f"obs '{key}' is missing: the labels")
        return np.empty(0, dtype=object)
    column = obs[key].astype(object)
    empty = column.isna() | column.astype(str).str.strip().isin(["", "nan", "None"])
    if empty.any():
        problems.append(f"obs '{key}': {int(empty.sum()):,} cells have no label")
    labels = np.array([str(value) for value in column], dtype=object)
    odd = [label for label in np.unique(labels.astype(str)) if not label.isprintable() or len(label) > 200]
    if odd:
        problems.append(
            f"obs '{key}': {len(odd)} labels are too long or hold characters that cannot be shown"
        )
    return labels


def _uncertainty(obs: pd.DataFrame, key: str, problems: list[str]) -> np.ndarray:
    if key not in obs:
        problems.append(f"obs '{key}' is missing: the uncertainty")
        return np.empty(0)
    values = pd.to_numeric(obs[key].astype(object), errors="coerce").to_numpy(dtype=float)
    if not np.isfinite(values).all():
        problems.append(f"obs '{key}': {int((~np.isfinite(values)).sum()):,} cells have no number")
    elif len(values) and (values.min() < 0 or values.max() > 1):
        problems.append(f"obs '{key}': goes from {values.min():.3g} to {values.max():.3g}, not from 0 to 1")
    return values


def _embedding(obsm: dict[str, Any], key: str, fewest: int, problems: list[str]) -> np.ndarray | None:
    if key not in obsm:
        return None
    try:
        values = np.asarray(obsm[key], dtype=np.float32)
    except (TypeError, ValueError):
        problems.append(f"obsm '{key}': is no table of numbers")
        return None
    if values.ndim != 2 or values.shape[1] < fewest:
        problems.append(f"obsm '{key}': has the shape {values.shape}, not cells by {fewest} columns or more")
    elif not np.isfinite(values).all():
        rows = int((~np.isfinite(values)).any(axis=1).sum())
        problems.append(f"obsm '{key}': {rows:,} cells have a value that is no number")
    return values


def own_components(counts: Path, *, seed: int = 0) -> np.ndarray:
    """Principal components of a sample's log-normalised counts, for a model without an embedding: float32
    (n_cells, 30 at most). Sparse: centred implicitly, on the 2,000 most variable genes.
    """
    import anndata

    from cellscribe.compiled import import_scanpy

    scanpy = import_scanpy()

    adata = anndata.read_h5ad(counts)
    scanpy.pp.normalize_total(adata, target_sum=1e4)
    scanpy.pp.log1p(adata)
    _, counted = np.unique(adata.X.indices, return_counts=True)
    if min(adata.n_obs, len(counted)) < 3:
        return np.zeros((adata.n_obs, 2), dtype=np.float32)
    if len(counted) > 2000:
        scanpy.pp.highly_variable_genes(adata, n_top_genes=2000)
        adata = adata[:, adata.var["highly_variable"]].copy()
    n = min(_N_COMPONENTS, adata.n_obs - 1, adata.n_vars - 1)
    scanpy.pp.pca(adata, n_comps=n, svd_solver="arpack", random_state=seed, mask_var=None)
    return np.asarray(adata.obsm["X_pca"], dtype=np.float32)


# --- the mapping file ---


def write_prediction(prediction: Prediction, output: Path) -> None:
    """Write mapping.h5ad."""
    import anndata

    arrays = {"latent": prediction.latent, "umap": prediction.umap}
    write_h5ad(
        anndata.AnnData(
            obs=pd.DataFrame(
                {"predicted": pd.Categorical(prediction.predicted), "uncertainty": prediction.uncertainty},
                index=prediction.barcodes,
            ),
            obsm={key: array for key, array in arrays.items() if array is not None},
            uns={"mapping": json.dumps(prediction.info, sort_keys=True)},
        ),
        output,
    )


def read_prediction_mapping(path: Path) -> Prediction:
    """Read mapping.h5ad as `write_prediction` wrote it. Raises InputError for anything else."""
    import anndata

    try:
        adata = anndata.read_h5ad(path)
        return Prediction(
            adata.obs["predicted"].astype(str).to_numpy(dtype=object),
            adata.obs["uncertainty"].to_numpy(),
            adata.obsm["latent"],
            adata.obsm.get("umap"),
            json.loads(adata.uns["mapping"]),
            adata.obs_names,
        )
    except (OSError, LookupError, ValueError, TypeError) as error:
        raise no_mapping(path, error) from error


def answer_prediction(
    prediction: Prediction, model_url: str = "", strictness: Strictness = AS_THE_MODEL
) -> Answer:
    """What a model made by others says, as ANNOTATE takes it: its labels where it is sure enough.

    Cell Ontology ids are those of the terms that the labels name. 1 - uncertainty stands in a probability's place.
    """
    least = strictness.min_probability
    # Rounded, as 1 - 0.7 is a little less than 0.3.
    most_uncertainty = MOST_UNCERTAINTY if least is None else round(1 - least, 9)
    labels, codes = np.unique(prediction.predicted.astype(str), return_inverse=True)
    names = [str(label) for label in labels]
    cl_ids = find_cl_ids(names)
    ids = np.array([cl_ids[name] if is_term(cl_ids[name]) else "" for name in names], dtype=object)
    # A model may use our word for what it is not sure of.
    kept = (prediction.uncertainty <= np.float32(most_uncertainty)) & (
        prediction.predicted.astype(str) != UNASSIGNED
    )
    assert prediction.latent is not None
    info = prediction.info
    return Answer(
        labels=names,
        cl_ids=list(ids),
        ontology=build_ontology([cl_id for cl_id in ids if cl_id]),
        predicted=codes,
        uncertainty=prediction.uncertainty,
        decision=Decision(
            np.where(kept, labels[codes].astype(object), UNASSIGNED),
            np.where(kept, ids[codes], ""),
            np.where(kept, "", "ambiguous").astype(object),
        ),
        embedding=prediction.latent,
        umap=prediction.umap,
        model={
            "name": info["model"]["name"] or _name_of(model_url),
            "version": info["model"]["version"],
            "sha256": info["model_sha256"],
            "kind": KIND,
            "url": model_url,
            "organism": info["organism"],
        },
        parameters={
            "classifier": info["classifier"],
            "mlflow_env_manager": info["mlflow_env_manager"],
            "rejection": {"most_uncertainty": most_uncertainty},
            **strictness.given,
        },
        mapping=info,
        calibrated=False,
        warnings=[NO_NOVELTY] if strictness.novelty_limit is not None else [],
    )


def _name_of(model_url: str) -> str:
    """What to call a model that does not say: by the name of its file or folder."""
    name = PurePosixPath(model_url.split("?")[0]).name
    return re.sub(r"\.(zip|tgz|tar|tar\.gz|gz)$", "", name, flags=re.I) or "MLflow model"
