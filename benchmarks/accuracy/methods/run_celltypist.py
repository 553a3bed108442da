"""CellTypist (Dominguez Conde et al. 2022, Science): logistic regression trained on the reference.

With and without its majority voting over over-clustered cells. `--trainer sgd` or `lbfgs`, all else as by default:
the best match is taken, nothing is left unassigned. Probabilities are its own sigmoids, which need not sum to one.
"""

import celltypist
from exchange import Exchange, log_normalised

exchange = Exchange("celltypist", "scikit-learn", "scanpy", options=("--trainer",))
reference, query = exchange.cells()
sgd = exchange.options.trainer == "sgd"
name = "celltypist_sgd" if sgd else "celltypist"
with exchange.timed("train"):
    reference.X = log_normalised(reference)
    model = celltypist.train(
        reference, labels="label", use_SGD=sgd, n_jobs=exchange.cpus, random_state=exchange.seed
    )
with exchange.timed("predict"):
    query.X = log_normalised(query)
    result = celltypist.annotate(query, model=model, majority_voting=True)
    probabilities = result.probability_matrix.to_numpy()
    labels = result.probability_matrix.columns.to_numpy()
    for method, column in ((name, "predicted_labels"), (f"{name}_voting", "majority_voting")):
        predicted = result.predicted_labels[column].astype(str).to_numpy()
        exchange.write(method, labels, predicted, probabilities=probabilities)
exchange.finish()
