"""Names of samples, made of paths and of text from anywhere."""

from __future__ import annotations

import re

# In the place of an obs column of samples: what `cellranger aggr` numbers libraries by, the end of a barcode.
BARCODE_SUFFIX = "barcode_suffix"
# Folder and file names that say nothing about the sample: Cell Ranger's own.
GENERIC = re.compile(
    r"(outs?|count|multi|(sample_)?(raw|filtered)_(feature|gene)_bc_matri(x|ces)(_h5)?|matrix|per_sample_outs|mtx|h5)$",
    re.I,
)
MATRIX_SUFFIX = re.compile(r"[._-](sample_)?(raw|filtered)_(feature|gene)_bc_matri(x|ces)(_h5)?$", re.I)
GENE_MATRICES = re.compile(r"(raw|filtered)_gene_bc_matrices$", re.I)


def name_of(path: str) -> str:
    """A sample's name from the path of its data: of the folder above Cell Ranger's own, or of the file."""
    parts = [
        part for part in re.sub(r"^[A-Za-z][A-Za-z0-9+.]*://", "", path).split("?")[0].split("/") if part
    ]
    parts = [part for part in parts if part not in (".", "..")]
    if not parts:
        return "sample"
    if parts[-1].lower().endswith(".h5ad"):
        # Cell Ranger writes none: its name is the user's own.
        return clean_name(parts[-1][:-5])
    last = re.sub(r"\.h5$", "", parts[-1], flags=re.I)
    stripped = MATRIX_SUFFIX.sub("", last)
    if stripped != last and not GENERIC.fullmatch(last):
        return clean_name(stripped)
    parts[-1] = last
    if len(parts) > 1 and GENE_MATRICES.search(parts[-2]):
        # Cell Ranger 1 and 2 keep a folder named after the genome below the matrices.
        parts.pop()
    while len(parts) > 1 and GENERIC.fullmatch(parts[-1]):
        parts.pop()
    return clean_name(parts[-1])


def clean_name(text: str) -> str:
    """Text made into a sample's name: letters, digits, `.`, `_` and `-`, at most 100, never empty."""
    cleaned = re.sub(r"[^A-Za-z0-9._-]+", "_", text).lstrip("._-").rstrip("_")
    return cleaned[:100] or "sample"
