"""scanpy's normalisation alone, in memory: what comes before many a classifier. `run_scanpy.py COUNTS`."""

import sys

from timed import finish, timed

with timed("import"):
    import anndata
    import scanpy
with timed("read"):
    adata = anndata.read_h5ad(sys.argv[1])
# Compiled code that scanpy's own first call compiles is not counted.
few = adata[:100].copy()
scanpy.pp.normalize_total(few, target_sum=1e4)
with timed("name"):
    scanpy.pp.normalize_total(adata, target_sum=1e4)
    scanpy.pp.log1p(adata)
finish(n_cells=adata.n_obs)
