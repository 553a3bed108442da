"""SingleR (Aran et al. 2019, Nature Immunology) by its Python binding: correlation with the reference's cells.

Markers and fine-tuning as by default. It gives scores, no probabilities; its delta (how far the best label is ahead)
serves as its own sign of doubt.
"""

import numpy as np
import singler
from exchange import Exchange, log_normalised

exchange = Exchange("singler")
reference, query = exchange.cells()
with exchange.timed("train"):
    built = singler.train_single(
        log_normalised(reference).T.tocsc(),
        ref_labels=reference.obs["label"].astype(str).tolist(),
        ref_features=reference.var_names.tolist(),
        test_features=query.var_names.tolist(),
        num_threads=exchange.cpus,
    )
with exchange.timed("predict"):
    result = singler.classify_single(log_normalised(query).T.tocsc(), built, num_threads=exchange.cpus)
    scores = result.column("scores")
    delta = np.asarray(result.column("delta"), dtype=float)
    exchange.write(
        "singler",
        list(scores.get_column_names()),
        [str(label) for label in result.column("best")],
        novelty=-np.nan_to_num(delta),
    )
exchange.finish()
