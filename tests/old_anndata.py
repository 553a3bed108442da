"""What of an HDF5 file the oldest anndata reads that other programs still have."""

# By the attribute encoding-type.
ANNDATA_0_8 = {
    "array",
    "string-array",
    "categorical",
    "dataframe",
    "dict",
    "anndata",
    "csr_matrix",
    "string",
    "numeric-scalar",
}
