"""cellscribe: align genes, encode, find neighbours, classify, calibrate.

`run_cellscribe.py COUNTS MODEL OUT CPUS [memory [again]]`

By chunks from the file, as the steps do it, or, with `memory`, from a matrix that is in memory already; with `again`
after the same cells were named once in this process, untimed. OUT: a table of labels and probabilities, as the others
write it.
"""

import os
import sys
from pathlib import Path

from timed import finish, timed

counts, model_folder, out, cpus = *map(Path, sys.argv[1:4]), int(sys.argv[4])
for name in ("OMP", "OPENBLAS"):
    os.environ[f"{name}_NUM_THREADS"] = str(cpus)
sys.path.insert(0, str(Path(__file__).resolve().parents[3] / "bin"))

with timed("import"):
    import anndata
    import numpy as np
    import pandas as pd
    import xgboost  # noqa: F401

    from cellscribe.answer import best_two, classify
    from cellscribe.counts_file import open_counts
    from cellscribe.mapping import map_cells
    from cellscribe.model.model import Model
    from cellscribe.one_file import CountsInMemory
with timed("read"):
    if "memory" in sys.argv[5:]:
        adata = anndata.read_h5ad(counts)
        cells, barcodes = CountsInMemory(adata.X, adata.var), adata.obs_names
    else:
        cells = open_counts(counts)
        barcodes = cells.obs.index


def name_cells():
    """Their most probable labels' positions, all probabilities, and the model's labels."""
    model = Model(model_folder)
    mapping = map_cells(cells, model, cpus=cpus)
    probabilities = classify(mapping, model, model.classifier(), cpus)
    best, _ = best_two(probabilities)
    if mapping.distances is not None:
        model.reference.quantile(mapping.distances.mean(axis=1))
    return best, probabilities, model


if "again" in sys.argv[5:]:
    name_cells()
with timed("name"):
    best, probabilities, model = name_cells()
with timed("write"):
    pd.DataFrame(
        {"label": np.array(model.labels)[best], "probability": probabilities.max(axis=1)}, barcodes
    ).to_csv(out)
finish(n_cells=len(best), classifier=model.classifier())
