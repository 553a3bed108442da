"""cellscribe: names the cells of new single-cell data with pre-trained models."""
