"""scANVI (Xu et al. 2021, Molecular Systems Biology) with scArches surgery on the query (Lotfollahi et al. 2022).

As in scvi-tools' own tutorial: covariates encoded, scANVI made of scVI and trained 20 epochs, surgery 100 epochs with
no weight decay, so that frozen weights stay as they are. Labels and probabilities are the classifier's own.
"""

import numpy as np
import scvi
from exchange import Exchange
from scvi_reference import train, variable_genes

UNKNOWN = "no label"
exchange = Exchange("scvi-tools", "torch")
reference, query = exchange.cells()
kept = variable_genes(reference)
reference, query = reference[:, kept].copy(), query[:, kept].copy()
quiet = {"accelerator": "cpu", "enable_progress_bar": False, "logger": False}
with exchange.timed("train"):
    model = train(reference, exchange.seed, encode_covariates=True)
    model = scvi.model.SCANVI.from_scvi_model(model, unlabeled_category=UNKNOWN, labels_key="label")
    model.train(max_epochs=20, n_samples_per_label=100, **quiet)
with exchange.timed("predict"):
    query.obs["label"] = UNKNOWN
    scvi.model.SCANVI.prepare_query_anndata(query, model)
    model = scvi.model.SCANVI.load_query_data(query, model)
    model.train(max_epochs=100, plan_kwargs={"weight_decay": 0.0}, check_val_every_n_epoch=10, **quiet)
    soft = model.predict(soft=True)
    labels, probabilities = soft.columns.to_numpy(), soft.to_numpy()
    exchange.write(
        "scanvi_surgery",
        labels,
        np.asarray(labels)[probabilities.argmax(axis=1)],
        probabilities=probabilities,
    )
exchange.finish()
