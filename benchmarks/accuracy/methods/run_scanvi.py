"""scANVI (Xu et al. 2021, Molecular Systems Biology) with scArches surgery on the query (Lotfollahi et al. 2022).

As in scvi-tools' own tutorial: covariates encoded, scANVI made of scVI and trained 20 epochs, surgery 100 epochs with
no weight decay, so that frozen weights stay as they are. Labels and probabilities are the classifier's own.
Queries that share the same genes with a reference share its model.
"""

import hashlib

import numpy as np
import scvi
from exchange import Exchange
from kept_model import train_once
from scvi_reference import train, variable_genes

UNKNOWN = "no label"
exchange = Exchange("scvi-tools", "torch", options=("--model",))
reference, query = exchange.cells()
kept = variable_genes(reference)
reference, query = reference[:, kept].copy(), query[:, kept].copy()
quiet = {"accelerator": "cpu", "enable_progress_bar": False, "logger": False}
genes = hashlib.sha256(" ".join(reference.var_names).encode()).hexdigest()[:16]
folder = exchange.options.cache / f"{exchange.options.model}-{genes}"


def train_scanvi(folder):
    """Train the model of this reference."""
    model = train(reference, exchange.seed, encode_covariates=True)
    model = scvi.model.SCANVI.from_scvi_model(model, unlabeled_category=UNKNOWN, labels_key="label")
    model.train(max_epochs=20, n_samples_per_label=100, **quiet)
    model.save(folder, overwrite=True)


with exchange.timed("train"):
    before = train_once(folder, train_scanvi)
with exchange.timed("predict"):
    scvi.settings.seed = exchange.seed
    query.obs["label"] = UNKNOWN
    scvi.model.SCANVI.prepare_query_anndata(query, str(folder))
    model = scvi.model.SCANVI.load_query_data(query, str(folder))
    model.train(max_epochs=100, plan_kwargs={"weight_decay": 0.0}, check_val_every_n_epoch=10, **quiet)
    soft = model.predict(soft=True)
    labels, probabilities = soft.columns.to_numpy(), soft.to_numpy()
    exchange.write(
        "scanvi_surgery",
        labels,
        np.asarray(labels)[probabilities.argmax(axis=1)],
        probabilities=probabilities,
    )
exchange.finish(**before)
