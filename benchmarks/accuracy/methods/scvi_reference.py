"""The scVI model that several methods begin with (Lopez et al. 2018, Nature Methods)."""

from exchange import log_normalised


def variable_genes(reference, number=3000):
    """The genes of a reference that vary most within its batches: bool (n_genes,)."""
    import anndata
    import scanpy as sc

    logged = anndata.AnnData(log_normalised(reference), obs=reference.obs, var=reference.var)
    seen = logged.X.getnnz(axis=0) >= 3
    logged = logged[:, seen].copy()
    sc.pp.highly_variable_genes(logged, n_top_genes=min(number, logged.n_vars), batch_key="batch")
    return reference.var_names.isin(logged.var_names[logged.var["highly_variable"]])


def train(reference, seed, *, encode_covariates):
    """scVI with two layers and 30 dimensions, scvi-tools' own number of epochs, stopped early."""
    import scvi

    scvi.settings.seed = seed
    scvi.model.SCVI.setup_anndata(reference, batch_key="batch", labels_key="label")
    model = scvi.model.SCVI(
        reference,
        n_layers=2,
        n_latent=30,
        gene_likelihood="nb",
        encode_covariates=encode_covariates,
        use_layer_norm="both",
        use_batch_norm="none",
    )
    model.train(early_stopping=True, accelerator="cpu", enable_progress_bar=False, logger=False)
    return model
