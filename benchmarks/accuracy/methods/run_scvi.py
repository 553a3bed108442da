"""A frozen scVI model without encoded covariates, and two ways to read labels from its latent.

scvi_xgboost: gradient-boosted trees, xgboost's defaults, as CZ CELLxGENE Annotate's own models are made.
scvi_neighbours: weighted nearest neighbours with the settings of the Human Lung Cell Atlas (Sikkema et al. 2023, Nature
Medicine): 50 of them, uncertainty above 0.2 is unknown.
"""

import numpy as np
import scvi
import xgboost
from exchange import UNASSIGNED, Exchange
from scvi_reference import train, variable_genes
from sklearn.neighbors import NearestNeighbors

exchange = Exchange("scvi-tools", "torch", "xgboost")
reference, query = exchange.cells()
kept = variable_genes(reference)
reference, query = reference[:, kept].copy(), query[:, kept].copy()
labels, codes = np.unique(reference.obs["label"].astype(str), return_inverse=True)
with exchange.timed("train"):
    model = train(reference, exchange.seed, encode_covariates=False)
    latent = model.get_latent_representation()
    trees = xgboost.XGBClassifier(n_jobs=exchange.cpus, random_state=exchange.seed).fit(latent, codes)
with exchange.timed("predict"):
    # Covariates are not encoded, so the name of the batch changes nothing.
    query.obs["batch"] = str(reference.obs["batch"].iloc[0])
    query.obs["label"] = labels[0]
    scvi.model.SCVI.prepare_query_anndata(query, model)
    found = model.get_latent_representation(query)
    probabilities = trees.predict_proba(found)
    exchange.write("scvi_xgboost", labels, labels[probabilities.argmax(axis=1)], probabilities=probabilities)

    near = NearestNeighbors(n_neighbors=min(50, len(latent))).fit(latent)
    distances, indices = near.kneighbors(found)
    deviation = np.maximum(distances.std(axis=1, keepdims=True), 1e-9)
    weights = np.exp(-distances / np.square(2 / deviation))
    weights /= weights.sum(axis=1, keepdims=True)
    votes = np.stack([(weights * (codes[indices] == k)).sum(axis=1) for k in range(len(labels))], axis=1)
    predicted = labels[votes.argmax(axis=1)]
    final = np.where(1 - votes.max(axis=1) > 0.2, UNASSIGNED, predicted)
    exchange.write("scvi_neighbours", labels, predicted, probabilities=votes, final=final)
exchange.finish()
