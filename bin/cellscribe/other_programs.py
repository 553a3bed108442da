"""What to do with the folders and files of other programs than Cell Ranger: STARsolo, kb, alevin-fry, CellBender."""

from __future__ import annotations

from pathlib import Path

from cellscribe.words import first_names

WRITE_FROM_R = "Write its counts in R as Cell Ranger has them (DropletUtils::write10xCounts), or as an .h5ad."
# What to do with a file that is no HDF5, by its name.
BY_NAME = (
    (
        r"(matrix\.mtx|(barcodes|features|genes)\.tsv)(\.gz)?$",
        "Give the folder that it lies in, with the two others.",
    ),
    (
        r"(cells_x_\w+|quants_mat)(\.\w+)*\.mtx$",
        "This seems to be a matrix of kb or alevin-fry: give an .h5ad of it (`kb count --h5ad`, `pyroe convert`).",
    ),
    (r"\.(rds|rda|rdata|robj)$", f"This seems to be an R object. {WRITE_FROM_R}"),
    (r"\.(zip|tar|tgz|tar\.gz)$", "This seems to be an archive: unpack it, and give what it holds."),
    (r"\.(csv|tsv|txt|xlsx)(\.gz)?$", "This seems to be a table: write its counts as an .h5ad."),
    (r"\.(fastq|fq)(\.gz)?$|\.bam$", "This seems to be reads: give what Cell Ranger makes of them."),
    (r"\.gz$", "This seems to be a packed file: unpack it (gunzip), and give what comes out."),
)
# What to do with an HDF5 file of another program, by what it holds.
BY_CONTENT = {
    "row_attrs": "This seems to be a loom file: write it as an .h5ad (anndata.io.read_loom, then write_h5ad).",
    "assays": f"This seems to be a file of Seurat. {WRITE_FROM_R}",
}


def of_another_program(path: Path) -> str:
    """What to do with a folder of STARsolo, kb, alevin-fry or CellBender, or with one above it; "" of others.

    What of theirs can be read (a matrix folder, an .h5, an .h5ad) is named where it is there.
    """
    return next(filter(None, (told(path) for told in (_starsolo, _kb, _alevin_fry, _cellbender))), "")


def _below(path: Path, *patterns: str) -> list[str]:
    """The places of these patterns below a folder, or two folders further down, in the order of the patterns."""
    return [
        str(place.relative_to(path))
        for pattern in patterns
        for above in ("", "*/", "*/*/")
        for place in sorted(path.glob(above + pattern))
    ]


def _starsolo(path: Path) -> str:
    matrices = _below(path, *(f"Gene*/{kind}/matrix.mtx*" for kind in ("filtered", "raw")))
    if path.absolute().name.startswith("Gene"):
        matrices += [str(at.relative_to(path)) for at in sorted(path.glob("*/matrix.mtx*"))]
    if not matrices:
        return ""
    folders = [*dict.fromkeys(str(Path(name).parent) for name in matrices)]
    cells = [name for name in folders if Path(name).name != "raw"] or folders
    return (
        f"This seems to be the output of STARsolo: give the folder of one matrix, {first_names(cells)} "
        "(Gene counts exons, GeneFull introns too, as Cell Ranger does from version 7 on)."
    )


def _kb(path: Path) -> str:
    if not _below(path, "cells_x_*.mtx"):
        return ""
    readable = _below(
        path, "counts_filtered/adata.h5ad", "counts_filtered/cellranger", "adata.h5ad", "cellranger"
    )
    if readable:
        return f"This seems to be the output of kb: give {readable[0]}, which lies in it."
    return "This seems to be the output of kb: run `kb count` with --h5ad, and give the adata.h5ad that it writes."


def _alevin_fry(path: Path) -> str:
    if not _below(path, "quants_mat.mtx", "quants_mat.gz"):
        return ""
    if readable := _below(path, "quants.h5ad"):
        return f"This seems to be the output of alevin-fry: give {readable[0]}, which lies in it."
    return (
        "This seems to be the output of alevin-fry: write it as an .h5ad (`pyroe convert --output-structure snRNA "
        "--output-format h5ad FOLDER counts.h5ad`, FOLDER being the one that holds `alevin`), and give that."
    )


def _cellbender(path: Path) -> str:
    cells = [name for name in _below(path, "*_filtered.h5") if not name.endswith("_matrix.h5")]
    if not cells:
        return ""
    return f"This seems to be the output of CellBender: give the counts of its cells, {first_names(cells)}."
