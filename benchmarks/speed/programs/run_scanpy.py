"""scanpy's normalisation alone, in memory: what comes before many a classifier.

`run_scanpy.py COUNTS [again]`

With `again` the same cells were normalised once in this process, untimed: the memory that it needs is there.
"""

import sys
from pathlib import Path

from timed import finish, timed

sys.path.insert(0, str(Path(__file__).resolve().parents[3] / "bin"))

with timed("import"):
    import anndata

    from cellscribe.compiled import import_scanpy

    scanpy = import_scanpy()
with timed("read"):
    adata = anndata.read_h5ad(sys.argv[1])


def normalise(cells):
    """Scale to 10,000 counts a cell and take the logarithm, in place."""
    scanpy.pp.normalize_total(cells, target_sum=1e4)
    scanpy.pp.log1p(cells)


# What scanpy's first call in a process compiles is counted apart.
few = adata[:100].copy()
with timed("compile"):
    normalise(few)
if sys.argv[2:] == ["again"]:
    normalise(adata.copy())
with timed("name"):
    normalise(adata)
finish(n_cells=adata.n_obs)
