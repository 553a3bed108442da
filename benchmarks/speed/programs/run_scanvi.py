"""scANVI with scArches surgery, as scvi-tools' tutorial has it: 100 epochs on the query, then predict. Or `--train`.

`run_scanvi.py COUNTS MODEL OUT`, or `run_scanvi.py --train REFERENCE MODEL`. A model of few epochs is as fast to use
as one of many.
"""

import sys

from timed import finish, timed

with timed("import"):
    import anndata
    import numpy as np
    import scanpy
    import scvi

UNKNOWN = "no label"
QUIET = {"accelerator": "cpu", "enable_progress_bar": False, "logger": False}
scvi.settings.verbosity = 30

if sys.argv[1] == "--train":
    reference = anndata.read_h5ad(sys.argv[2])
    logged = reference.copy()
    scanpy.pp.normalize_total(logged, target_sum=1e4)
    scanpy.pp.log1p(logged)
    scanpy.pp.highly_variable_genes(logged, n_top_genes=3000, batch_key="batch")
    reference = reference[:, logged.var["highly_variable"]].copy()
    scvi.model.SCVI.setup_anndata(reference, batch_key="batch", labels_key="label")
    model = scvi.model.SCVI(
        reference, n_layers=2, n_latent=30, gene_likelihood="nb", use_layer_norm="both", use_batch_norm="none"
    )
    model.train(max_epochs=5, **QUIET)
    model = scvi.model.SCANVI.from_scvi_model(model, unlabeled_category=UNKNOWN, labels_key="label")
    model.train(max_epochs=2, n_samples_per_label=100, **QUIET)
    model.save(sys.argv[3], overwrite=True, save_anndata=True)
else:
    with timed("read"):
        query = anndata.read_h5ad(sys.argv[1])
        query.obs["label"], query.obs["batch"] = UNKNOWN, "query"
        model = scvi.model.SCANVI.load(sys.argv[2], accelerator="cpu")
    with timed("name"):
        scvi.model.SCANVI.prepare_query_anndata(query, model)
        model = scvi.model.SCANVI.load_query_data(query, model, accelerator="cpu")
        model.train(max_epochs=100, plan_kwargs={"weight_decay": 0.0}, check_val_every_n_epoch=10, **QUIET)
        table = model.predict(soft=True)
    with timed("write"):
        table.to_csv(sys.argv[3])
    finish(n_cells=len(table), labels=len(np.unique(table.columns)))
