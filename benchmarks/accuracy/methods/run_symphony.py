"""Symphony (Kang et al. 2021, Nature Communications) by symphonypy: PCA, Harmony, and the query mapped into it.

Labels by 15 nearest neighbours (symphonypy's own example has 5, which named no more cells right), probability = share
of their votes. Its per-cell distance (Mahalanobis, weighted over the reference's clusters) serves as novelty.
"""

import sys

import numpy as np
import scanpy as sc
import symphonypy
from exchange import Exchange, log_normalised
from sklearn.neighbors import KNeighborsClassifier

exchange = Exchange("symphonypy", "harmonypy", "scanpy")
reference, query = exchange.cells()
if reference.obs["batch"].nunique() == 1:
    # symphonypy maps into what Harmony made of several batches; onto one it named half of pbmc3k-to-kang_ctrl wrong
    sys.exit("Symphony needs a reference of several batches")
with exchange.timed("train"):
    reference.X = log_normalised(reference, 1e5)
    reference = reference[:, np.asarray((reference.X > 0).sum(axis=0)).ravel() >= 3].copy()
    sc.pp.highly_variable_genes(reference, n_top_genes=min(2000, reference.n_vars), batch_key="batch")
    reference = reference[:, reference.var["highly_variable"].to_numpy()].copy()
    sc.pp.scale(reference, max_value=10)
    sc.pp.pca(reference, n_comps=min(30, reference.n_vars - 1), zero_center=False, random_state=exchange.seed)
    symphonypy.pp.harmony_integrate(reference, key="batch", random_seed=exchange.seed)
with exchange.timed("predict"):
    query.X = log_normalised(query, 1e5)
    symphonypy.tl.map_embedding(query, reference, key="batch")
    symphonypy.tl.per_cell_confidence(query, reference)
    neighbours = KNeighborsClassifier(15).fit(
        reference.obsm["X_pca_harmony"], reference.obs["label"].astype(str)
    )
    probabilities = neighbours.predict_proba(query.obsm["X_pca_harmony"])
    labels = neighbours.classes_
    exchange.write(
        "symphony",
        labels,
        labels[probabilities.argmax(axis=1)],
        probabilities=probabilities,
        novelty=query.obs["symphony_per_cell_dist"].to_numpy(),
    )
exchange.finish()
