"""CellTypist: normalise, annotate without voting. Or `--train`.

`run_celltypist.py COUNTS MODEL OUT`, or `run_celltypist.py --train REFERENCE MODEL`
"""

import sys

from timed import finish, timed

with timed("import"):
    import anndata
    import celltypist
    import scanpy


def normalised(path):
    """Counts as CellTypist wants them."""
    adata = anndata.read_h5ad(path)
    with timed("normalise"):
        scanpy.pp.normalize_total(adata, target_sum=1e4)
        scanpy.pp.log1p(adata)
    return adata


if sys.argv[1] == "--train":
    reference = normalised(sys.argv[2])
    # On all genes it makes the cells dense, and needs more than 24 GB for 100,000.
    celltypist.train(
        reference, labels="label", use_SGD=True, feature_selection=True, n_jobs=2, random_state=0
    ).write(sys.argv[3])
else:
    adata = normalised(sys.argv[1])
    with timed("annotate"):
        result = celltypist.annotate(adata, model=celltypist.Model.load(sys.argv[2]), majority_voting=False)
    with timed("write"):
        table = result.predicted_labels[["predicted_labels"]].copy()
        table["probability"] = result.probability_matrix.max(axis=1)
        table.to_csv(sys.argv[3])
    finish(n_cells=adata.n_obs)
