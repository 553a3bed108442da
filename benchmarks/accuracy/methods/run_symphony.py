"""Symphony (Kang et al. 2021, Nature Communications) by symphonypy: PCA, Harmony, and the query mapped into it.

Settings of its own tutorial; labels by 15 nearest neighbours, probability = share of their votes. Its per-cell
distance (Mahalanobis, weighted over the reference's clusters) serves as novelty.
"""

import numpy as np
import scanpy as sc
import symphonypy
from exchange import Exchange, log_normalised
from sklearn.neighbors import KNeighborsClassifier

exchange = Exchange("symphonypy", "harmonypy", "scanpy")
reference, query = exchange.cells()
with exchange.timed("train"):
    reference.X = log_normalised(reference, 1e5)
    several = reference.obs["batch"].nunique() > 1
    reference = reference[:, np.asarray((reference.X > 0).sum(axis=0)).ravel() >= 3].copy()
    sc.pp.highly_variable_genes(
        reference, n_top_genes=min(2000, reference.n_vars), batch_key="batch" if several else None
    )
    reference = reference[:, reference.var["highly_variable"].to_numpy()].copy()
    sc.pp.scale(reference, max_value=10)
    sc.pp.pca(reference, n_comps=min(30, reference.n_vars - 1), zero_center=False, random_state=exchange.seed)
    if several:
        symphonypy.pp.harmony_integrate(reference, key="batch", random_seed=exchange.seed)
with exchange.timed("predict"):
    query.X = log_normalised(query, 1e5)
    symphonypy.tl.map_embedding(query, reference, key="batch")
    basis = "X_pca_harmony" if several else "X_pca"
    symphonypy.tl.per_cell_confidence(query, reference, ref_basis_adjusted=basis)
    neighbours = KNeighborsClassifier(15).fit(reference.obsm[basis], reference.obs["label"].astype(str))
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
