"""A model as scvi-tools saved it: read without torch, and refused where no encoder of ours can be made of it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import scipy.sparse as sp

from cellscribe.errors import ModelFetchError
from cellscribe.importing.torch_file import read_torch
from cellscribe.model.scvi_model import SCANVI, SCVI, ScviModel

PROGRAM = "scvi-tools"
WHAT_TO_GIVE = (
    f"Give the folder (or its model.pt) that a SCVI or SCANVI model of {PROGRAM} 1.0 or later saved."
)


def read_scvi(path: Path, *, trusted: bool) -> tuple[ScviModel, Path, str]:
    """Read a model that scvi-tools saved: the model, its file, the file's sha256.

    path: the folder, or the model.pt in it. Raises ModelFetchError for what is none, for other classes of models, and
    for SCVI models of which no encoder can be made.
    """
    file = _model_file(path)
    value, sha256 = read_torch(file, program=PROGRAM, trusted=trusted)
    try:
        attributes, registry = value["attr_dict"], value["attr_dict"]["registry_"]
        kind, weights, genes = registry["model_name"], value["model_state_dict"], value["var_names"]
        registry["field_registries"]["X"]
    except (KeyError, TypeError, AttributeError) as error:
        raise ModelFetchError(
            f"this file is no model that {PROGRAM} saved (there is no {error} in it)", WHAT_TO_GIVE, file=file
        ) from None
    if kind not in (SCVI, SCANVI):
        raise ModelFetchError(
            f"this is a model of the class {kind}; only {SCVI} and {SCANVI} can be imported",
            "Train one of these on the same cells, or train here with --mode train.",
            file=file,
        )
    arrays = {name: array for name, array in weights.items() if isinstance(array, np.ndarray)}
    model = ScviModel(
        kind, arrays, registry, attributes.get("init_params_", {}), [str(name) for name in genes]
    )
    _check_options(model, file)
    try:
        model.encoder(np.zeros(model.n_covariates)).encode(
            sp.csr_matrix((1, len(model.genes)), dtype=np.float32)
        )
        if model.labels:
            model.classifier(model.labels)
    except (KeyError, ValueError, IndexError) as error:
        raise ModelFetchError(
            f"the weights do not fit what the model says of itself ({error})", "Save it again.", file=file
        ) from None
    return model, file, sha256


def _model_file(path: Path) -> Path:
    if path.is_file():
        return path
    found = sorted(path.glob("*model.pt"))
    if len(found) == 1:
        return found[0]
    if found:
        names = ", ".join(file.name for file in found)
        raise ModelFetchError(
            f"the folder holds several models: {names}", "Give one of these files.", file=path
        )
    if any(path.glob("*attr.pkl")):
        raise ModelFetchError(
            f"this model was saved by a {PROGRAM} older than 0.15",
            "Convert it with scvi.model.SCVI.convert_legacy_save, then load and save it with a current one.",
            file=path,
        )
    held = ", ".join(sorted(entry.name for entry in path.iterdir())[:8]) or "nothing"
    raise ModelFetchError(f"the folder holds no model.pt (it holds {held})", WHAT_TO_GIVE, file=path)


def _check_options(model: ScviModel, file: Path) -> None:
    """Raises ModelFetchError for options under which the latent is not what an `Encoder` gives."""
    options = model.options
    wrong = ""
    if options.get("latent_distribution", "normal") != "normal":
        wrong = f"latent_distribution={options['latent_distribution']!r}, whose latent is drawn at random"
    for name in ("extra_encoder_kwargs", "classifier_parameters"):
        if isinstance(options.get(name), Mapping) and "activation_fn" in options[name]:
            wrong = f"an activation function of its own ({name})"
    if wrong:
        raise ModelFetchError(f"the model has {wrong}: it cannot be imported", "Train it without.", file=file)
