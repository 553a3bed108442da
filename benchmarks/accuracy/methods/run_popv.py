"""popV (Ergen et al. 2024, Nature Genetics): the votes of its fast experts, retrained on the reference.

Without the Cell Ontology, whose tables it wants downloaded, OnClass takes no part: scVI + nearest neighbours, scANVI,
support vectors, xgboost and CellTypist remain. Probability = share of the experts that agree. Cells that popV leaves
out (fewer than 30 counts) get its commonest label with probability 0.
"""

import numpy as np
from exchange import Exchange, one_hot_shares
from popv.annotation import AlgorithmsNT, annotate_data
from popv.preprocessing import Process_Query

exchange = Exchange("popv", "scvi-tools", "torch", "scikit-learn")
reference, query = exchange.cells()
names = np.asarray(query.obs_names)
experts = [method for method in AlgorithmsNT.FAST_ALGORITHMS if method != "ONCLASS"]
with exchange.timed("train"):
    processed = Process_Query(
        query,
        reference,
        ref_labels_key="label",
        ref_batch_key="batch",
        query_batch_key="batch",
        cl_obo_folder=False,
        prediction_mode="retrain",
        unknown_celltype_label="unknown",
        save_path_trained_models=str(exchange.output / "trained"),
    ).adata
    annotate_data(processed, methods=experts)
with exchange.timed("predict"):
    obs = processed.obs[processed.obs["_dataset"] == "query"]
    labels = np.unique(reference.obs["label"].astype(str))
    votes = obs[list(processed.uns["prediction_keys"])].astype(str).to_numpy()
    rows = obs.index.get_indexer(names)
    shares = np.zeros((len(names), len(labels)))
    shares[rows >= 0] = one_hot_shares(votes, labels)[rows[rows >= 0]]
    said = obs["popv_prediction"].astype(str)
    predicted = np.full(len(names), said.mode()[0], dtype=object)
    predicted[rows >= 0] = said.to_numpy()[rows[rows >= 0]]
    exchange.write("popv", labels, predicted, probabilities=shares)
exchange.finish()
