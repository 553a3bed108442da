"""Cell Ranger's folders and .h5 files, as CONVERT meets them."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anndata as ad
import h5py
import numpy as np
import scipy.sparse as sp
from bad_input.case import Case, Holds, Maker
from tenx_files import GEX, IDS, SYMBOLS, barcodes, small_counts, write_folder, write_h5_v2, write_h5_v3

COUNTS = small_counts()
FILTERED = "filtered_feature_bc_matrix"


def counts_are(counts: np.ndarray, words: str = "the same counts", genes: list[str] | None = None) -> Holds:
    """What CONVERT must have written: counts (n_obs, n_vars), and the names of the genes where they are given."""

    def check(out: Path) -> None:
        data = ad.read_h5ad(out / "s1.counts.h5ad")
        assert np.array_equal(data.X.toarray(), counts)
        assert genes is None or list(data.var_names) == genes
        assert data.obs_names.is_unique and data.var_names.is_unique

    return Holds(words, check)


SAME = counts_are(COUNTS, genes=SYMBOLS)


def shape_is(n_obs: int, n_vars: int) -> Holds:
    def check(out: Path) -> None:
        assert ad.read_h5ad(out / "s1.counts.h5ad").shape == (n_obs, n_vars)

    cells = "1 cell" if n_obs == 1 else f"{n_obs:,} cells"
    return Holds(f"{cells}, {n_vars} gene{'' if n_vars == 1 else 's'}", check)


def folder(
    counts: np.ndarray = COUNTS,
    place: str = FILTERED,
    change: Callable[[Path], None] | None = None,
    options: tuple[object, ...] = (),
    **how: Any,
) -> Maker:
    """A matrix folder, of which `change` makes something else."""

    def make(given: Path) -> list[object]:
        path = write_folder(given / place, counts, **how)
        if change is not None:
            change(path)
        return ["--input", path, *options]

    return make


def h5(
    counts: np.ndarray = COUNTS, *options: object, change: Callable[[Any], None] | None = None, **how: Any
) -> Maker:
    """An .h5 of version 3, of which `change` makes something else while it is open."""

    def make(given: Path) -> list[object]:
        path = write_h5_v3(given / "m.h5", counts, **how)
        if change is not None:
            with h5py.File(path, "r+") as file:
                change(file)
        return ["--input", path, *options]

    return make


def files(where: str, contents: dict[str, bytes], *options: object) -> Maker:
    """Files of one's own; a name that ends in / is a folder."""

    def make(given: Path) -> list[object]:
        for name, content in contents.items():
            path = given / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.mkdir() if name.endswith("/") else path.write_bytes(content)
        return ["--input", given / where, *options]

    return make


def without(name: str) -> Callable[[Path], None]:
    return lambda path: (path / name).unlink()


def cut(name: str, share: float = 0.5) -> Callable[[Path], None]:
    def change(path: Path) -> None:
        whole = (path / name).read_bytes()
        (path / name).write_bytes(whole[: int(len(whole) * share)])

    return change


def written(name: str, content: bytes) -> Callable[[Path], None]:
    return lambda path: (path / name).write_bytes(content)


def mtx(head: str, *lines: str) -> Maker:
    """A folder of version 3, not compressed, with a matrix.mtx of these lines."""
    text = "\n".join((head, *lines)) + "\n"
    return folder(compress=False, change=written("matrix.mtx", text.encode()))


def windows(path: Path) -> None:
    for name in ("barcodes.tsv", "features.tsv"):
        (path / name).write_bytes((path / name).read_bytes().replace(b"\n", b"\r\n"))


def junk(path: Path) -> None:
    for name in ("._matrix.mtx.gz", "._features.tsv.gz", ".DS_Store", "Thumbs.db", "md5.txt"):
        (path / name).write_bytes(b"\0\5\x16\7")


def a_folder_called(name: str) -> Callable[[Path], None]:
    def change(path: Path) -> None:
        (path / name).unlink()
        (path / name).mkdir()

    return change


def dangling(path: Path) -> None:
    (path / "matrix.mtx.gz").unlink()
    (path / "matrix.mtx.gz").symlink_to("/nowhere/matrix.mtx.gz")


def outs(given: Path) -> list[object]:
    """What Space Ranger writes of a slide."""
    write_h5_v3(given / "outs" / f"{FILTERED}.h5", COUNTS)
    (given / "outs" / "spatial").mkdir()
    for name in ("tissue_positions.csv", "scalefactors_json.json", "tissue_hires_image.png"):
        (given / "outs" / "spatial" / name).write_bytes(b"x")
    return ["--input", given]


def binned(given: Path) -> list[object]:
    """What Space Ranger writes of a slide in high definition."""
    for size in ("002", "008", "016"):
        write_h5_v3(given / f"outs/binned_outputs/square_{size}um/{FILTERED}.h5", COUNTS)
    (given / "outs" / "spatial").mkdir()
    return ["--input", given / "outs"]


def several(*places: str) -> Maker:
    def make(given: Path) -> list[object]:
        for place in places:
            write_h5_v3(given / place / f"{FILTERED}.h5", COUNTS)
        return ["--input", given]

    return make


def two_of_geo(given: Path) -> list[object]:
    for prefix in ("GSM1_a_", "GSM2_b_"):
        write_folder(given, COUNTS, prefix=prefix)
    return ["--input", given]


def genomes_v2(*options: object) -> Maker:
    def make(given: Path) -> list[object]:
        for genome in ("hg19", "mm10"):
            write_folder(given / "outs/filtered_gene_bc_matrices" / genome, COUNTS, version=2, compress=False)
        return ["--input", given, *options]

    return make


def droplets(*options: object) -> Maker:
    """An unfiltered matrix: 50 cells among 3,000 empty droplets."""

    def make(given: Path) -> list[object]:
        rng = np.random.default_rng(0)
        parts = [sp.csr_matrix(rng.poisson(rate, (n, 6))) for rate, n in ((300, 50), (0.3, 3000))]
        path = write_h5_v3(given / "raw_feature_bc_matrix.h5", sp.vstack(parts, format="csr"))
        return ["--input", path, *options]

    return make


def v2(given: Path) -> list[object]:
    return ["--input", write_h5_v2(given / "filtered_gene_bc_matrices_h5.h5", {"GRCh38": COUNTS})]


def cut_h5(given: Path) -> list[object]:
    path = write_h5_v3(given / "m.h5", small_counts(2000))
    path.write_bytes(path.read_bytes()[:3000])
    return ["--input", path]


def other_h5(**contents: Any) -> Maker:
    """An HDF5 file of another program: names of data sets, their values."""

    def make(given: Path) -> list[object]:
        with h5py.File(given / "m.h5", "w") as file:
            for name, value in contents.items():
                file[name.replace("__", "/")] = value
        return ["--input", given / "m.h5"]

    return make


def replaced(place: str, values: object) -> Callable[[Any], None]:
    def change(file: Any) -> None:
        del file[place]
        if values is not None:
            file[place] = values

    return change


def two_genomes(*options: object) -> Maker:
    counts = np.zeros((4, 6), dtype=int)
    counts[:3, :3], counts[3, 3:] = 9, 5
    return h5(
        counts,
        *options,
        ids=[*IDS[:3], *(f"ENSMUSG0000000000{i}" for i in range(3))],
        symbols=[*SYMBOLS[:3], "Cd3e", "Lyz2", "Hbb-bs"],
        genomes=["GRCh38"] * 3 + ["mm10"] * 3,
    )


def antibodies_apart(out: Path) -> None:
    data = ad.read_h5ad(out / "s1.counts.h5ad")
    assert data.shape == (5, 4) and data.obsm["peaks"].tolist() == COUNTS[:, 4:].tolist()


def starsolo(given: Path) -> list[object]:
    """What STARsolo writes of one run."""
    for place in ("Gene/raw", "Gene/filtered", "GeneFull/filtered"):
        write_folder(given / "Solo.out" / place, COUNTS, compress=False)
    return ["--input", given / "Solo.out"]


def aggregated(given: Path) -> list[object]:
    """What `cellranger aggr` writes of two libraries of 60 cells each."""
    names = [f"{name[:-1]}{i}" for i in (1, 2) for name in barcodes(60)]
    write_h5_v3(given / "outs/count" / f"{FILTERED}.h5", small_counts(120), names=names)
    (given / "outs/aggregation.csv").write_text("sample_id,molecule_h5\na,a.h5\nb,b.h5\n")
    return ["--input", given]


def bad(what: str, make: Maker, *says: str) -> Case:
    return Case(what, "CONVERT", make, 3, says)


def good(what: str, make: Maker, holds: Holds, *says: str) -> Case:
    return Case(what, "CONVERT", make, 0, says, holds)


HEAD = "%%MatrixMarket matrix coordinate integer general"

FOLDERS = [
    bad("a folder without barcodes.tsv", folder(change=without("barcodes.tsv.gz")),
        "barcodes.tsv (plain or .gz) is missing; the folder holds features.tsv.gz, matrix.mtx.gz"),
    bad("a folder without features.tsv", folder(change=without("features.tsv.gz")),
        "features.tsv or genes.tsv (plain or .gz) is missing"),
    bad("a folder without matrix.mtx", folder(change=without("matrix.mtx.gz")),
        "no Cell Ranger matrix was found in this folder; it holds barcodes.tsv.gz, features.tsv.gz"),
    bad("barcodes of another run", folder(compress=False, change=written("barcodes.tsv", b"AAAC-1\nAAAG-1\n")),
        "6 features and 5 cells, but there are 6 feature names and 2 barcodes",
        "Give matrix, barcodes and features of the same run"),
    bad("a matrix that is turned", folder(small_counts(200), compress=False,
        change=written("matrix.mtx", f"{HEAD}\n200 6 1\n1 1 3\n".encode())),
        "6 feature names and 200 barcodes. The matrix seems to be turned"),
    bad("barcodes of all droplets beside the matrix of cells", folder(small_counts(200), compress=False,
        change=written("matrix.mtx", f"{HEAD}\n6 5 1\n1 1 3\n".encode())), "6 feature names and more than 6 barcodes"),
    bad("matrix.mtx.gz cut short", folder(small_counts(200), change=cut("matrix.mtx.gz")),
        "matrix.mtx.gz", "cut short or damaged", "Copy it again"),
    bad("barcodes.tsv.gz cut short", folder(small_counts(200), change=cut("barcodes.tsv.gz")),
        "barcodes.tsv.gz", "cut short or damaged"),
    bad("features.tsv.gz cut short", folder(change=cut("features.tsv.gz")), "features.tsv.gz", "cut short or damaged"),
    bad("matrix.mtx cut short between two lines", mtx(HEAD, "6 5 3", "1 1 3", "2 1 1"), "matrix.mtx",
        "cut short or damaged"),
    bad("matrix.mtx of no byte", folder(compress=False, change=written("matrix.mtx", b"")), "matrix.mtx", "cut short"),
    bad("barcodes.tsv of no byte", folder(compress=False, change=written("barcodes.tsv", b"")),
        "6 feature names and 0 barcodes"),
    bad("a file called .gz that was unpacked on the way",
        folder(change=written("matrix.mtx.gz", f"{HEAD}\n6 5 1\n1 1 3\n".encode())), "matrix.mtx.gz",
        "Not a gzipped file"),
    bad("a matrix without a single count", folder(np.zeros((5, 6), dtype=int)),
        "the matrix is empty: 5 cells, 6 features"),
    bad("a matrix without cells", folder(np.zeros((0, 6), dtype=int)), "the matrix is empty: 0 cells"),
    good("one cell", folder(COUNTS[:1]), counts_are(COUNTS[:1])),
    good("one gene", folder(COUNTS[:, :1], ids=IDS[:1], symbols=SYMBOLS[:1]), counts_are(COUNTS[:, :1])),
    bad("a matrix.mtx without its header", mtx("6 5 1", "1 1 3"), "matrix.mtx", "cut short or damaged"),
    bad("a dense matrix.mtx", mtx("%%MatrixMarket matrix array integer general", "6 5", *["1"] * 30),
        "no sparse (coordinate) matrix"),
    bad("a matrix.mtx of places without numbers", mtx(HEAD.replace("integer", "pattern"), "6 5 1", "1 1"),
        "holds no counts"),
    bad("a matrix.mtx of complex numbers", mtx(HEAD.replace("integer", "complex"), "6 5 1", "1 1 3 0"),
        "holds no counts"),
    bad("a symmetric matrix.mtx of more features than cells",
        mtx(HEAD.replace("general", "symmetric"), "6 5 1", "6 5 3"), "matrix.mtx", "symmetric, and is of 6 by 5"),
    bad("a place outside of the matrix", mtx(HEAD, "6 5 1", "7 1 3"), "matrix.mtx", "cut short or damaged"),
    bad("words in the matrix", mtx(HEAD, "6 5 1", "1 1 many"), "matrix.mtx", "cut short or damaged"),
    bad("a count that no number holds", mtx(HEAD, "6 5 1", f"1 1 {'9' * 30}"), "matrix.mtx", "cut short or damaged"),
    bad("log-normalised numbers in matrix.mtx", folder(np.log1p(COUNTS)), "does not hold raw counts",
        "log1p-normalised"),
    bad("negative numbers in matrix.mtx", folder(COUNTS - 3), "negative numbers"),
    bad("NaN in matrix.mtx", mtx(HEAD.replace("integer", "real"), "6 5 2", "1 1 3", "2 1 nan"), "missing or infinite"),
    good("barcodes twice", h5(names=["A-1", "A-1", "B-1", "C-1", "D-1"]), SAME,
         "1 barcodes occur more than once"),
    bad("two genomes", two_genomes(), "genes of 2 genomes:", "GRCh38: 3 cells", "mm10: 1 cells", "--genome GRCh38"),
    good("two genomes, one chosen", two_genomes("--genome", "mm10"), shape_is(1, 3)),
    bad("a genome that is not there", two_genomes("--genome", "rn6"), "there is no genome 'rn6'; there are:"),
    bad("two genomes of Cell Ranger 2", genomes_v2(), "hg19: 5 cells", "mm10: 5 cells"),
    bad("antibodies alone", h5(types=["Antibody Capture"] * 6),
        "no Gene Expression features; there are 6 Antibody Capture",
        "give the matrix that holds it"),
    bad("ATAC peaks alone", h5(types=["Peaks"] * 6), "no Gene Expression features; there are 6 Peaks"),
    good("genes and ATAC peaks", h5(types=[GEX] * 4 + ["Peaks"] * 2),
         Holds("the genes as counts, the peaks apart", antibodies_apart)),
    good("Space Ranger's folder of a slide", outs, SAME),
    bad("Space Ranger's folder of bins", binned, "it holds binned_outputs, spatial",
        "binned_outputs/square_002um/filtered_feature_bc_matrix.h5"),
    good("junk files beside the matrix", folder(change=junk), SAME),
    good("unpacked files", folder(compress=False), SAME),
    good("Windows line ends", folder(compress=False, change=windows), SAME),
    good("quotes around names, and genes called NA", folder(quote='"', symbols=["NA", "nan", *SYMBOLS[2:]]),
         counts_are(COUNTS, genes=["NA", "nan", *SYMBOLS[2:]])),
    good("files with a prefix, as GEO has them", folder(prefix="GSM1_"), SAME),
    bad("the files of two samples in one folder", two_of_geo, "2 files named *matrix.mtx", "a folder of its own"),
    bad("a multi run of two samples", several("outs/per_sample_outs/x/count", "outs/per_sample_outs/y/count"),
        "holds 2 samples", "its own row"),
    bad("a folder of two runs", several("x/outs", "y/outs"), "the folder holds 2 samples", "its own row"),
    bad("an empty folder", files("run/", {"run/": b""}),
        "no Cell Ranger matrix was found in this folder; it holds nothing"),
    bad("a folder of FASTQ files", files("run", {"run/a_S1_L001_R1_001.fastq.gz": b"x"}),
        "it holds a_S1_L001_R1_001.fastq.gz"),
    good("what `cellranger aggr` joined", aggregated, shape_is(120, 6),
         "(…-1, …-2) these are cells of 2 libraries", "nextflow run . --sample_key barcode_suffix"),
    bad("a folder of STARsolo", starsolo, "it holds Gene, GeneFull",
        "give the folder of one matrix, Gene/filtered, GeneFull/filtered"),
    bad("a folder of kb", files("kb", {"kb/counts_filtered/cells_x_genes.mtx": b"x"}), "it holds counts_filtered",
        "run `kb count` with --h5ad"),
    bad("a folder of kb with an .h5ad", files("kb", {f"kb/counts_filtered/{name}": b"x" for name in
        ("cells_x_genes.mtx", "adata.h5ad")}), "give counts_filtered/adata.h5ad"),
    bad("a folder of alevin-fry", files("af", {"af/alevin/quants_mat.mtx": b"x"}), "it holds alevin", "pyroe convert"),
    bad("a folder of CellBender", files("cb", {f"cb/s1{name}": b"x" for name in (".h5", "_filtered.h5", ".log")}),
        "it holds s1.h5, s1.log, s1_filtered.h5", "give the counts of its cells, s1_filtered.h5"),
    bad("a matrix of kb", files("cells_x_genes.mtx", {"cells_x_genes.mtx": b"x"}), "no HDF5 file", "kb count --h5ad"),
    bad("matrix.mtx.gz itself", files("matrix.mtx.gz", {"matrix.mtx.gz": gzip.compress(HEAD.encode())}),
        "no HDF5 file", "Give the folder that it lies in"),
    bad("a folder where matrix.mtx.gz should be", folder(change=a_folder_called("matrix.mtx.gz")),
        "no Cell Ranger matrix was found"),
    bad("a folder where barcodes.tsv.gz should be", folder(change=a_folder_called("barcodes.tsv.gz")),
        "barcodes.tsv", "missing"),
    bad("a link that leads nowhere", folder(change=dangling), "no Cell Ranger matrix was found"),
    good("all droplets", droplets(), shape_is(50, 6)),
    good("all droplets, taken for cells", droplets("--call-cells", "false"), shape_is(3050, 6),
        "most of them empty (3,050 barcodes", "Give the filtered matrix"),
    bad("droplets of which none holds a cell", h5(np.ones((600, 6), dtype=int), "--call-cells", "true"),
        "no droplet stands out from the empty ones", "give the filtered matrix"),
    bad("an organism that the genes are not of", h5(COUNTS, "--organism", "mouse"),
        "given as mouse, but the data look like human"),
    bad("genes of another species under human symbols", h5(ids=[name.replace("ENSG", "ENSMMUG") for name in IDS]),
        "the genes are of neither human nor mouse", "begin with ENSMMUG", "rhesus macaque", "one-to-one orthologues"),
    bad("genes of another species, given as human", h5(COUNTS, "--organism", "human",
        ids=[name.replace("ENSG", "ENSSSCG") for name in IDS]), "begin with ENSSSCG", "pig"),
    bad("an organism that is not known", h5(COUNTS, "--organism", "cat"), "organism 'cat' is not known",
        "human, mouse or auto"),
    bad("a gene column that is not there", h5(COUNTS, "--gene-column", "mine"),
        "no column 'mine'; there are: index, gene_ids"),
]  # fmt: skip

H5 = [
    good("an .h5 of Cell Ranger 2", v2, SAME),
    bad("an .h5 with numbers where the genes' names belong", h5(change=replaced("matrix/features/id", [0] * 6)), "m.h5",
        "'/matrix/features/id' holds no names"),
    good("an .h5 of Cell Ranger 3 and later", h5(), SAME),
    bad("a text file called .h5", files("m.h5", {"m.h5": b"gene,cell\n"}), "this is no HDF5 file (10 bytes)"),
    bad("an .h5 of no byte", files("m.h5", {"m.h5": b""}), "this is no HDF5 file (0 bytes)"),
    bad("an .h5 cut short", cut_h5, "cut short or damaged", "Copy it again"),
    bad("a packed .h5ad.gz", files("m.h5ad.gz", {"m.h5ad.gz": gzip.compress(b"x")}), "no HDF5 file", "gunzip"),
    bad("a table of counts", files("m.csv.gz", {"m.csv.gz": gzip.compress(b"gene,A\nCD3E,1\n")}), "no HDF5 file",
        "This seems to be a table: write its counts as an .h5ad"),
    bad("reads", files("a_R1_001.fastq.gz", {"a_R1_001.fastq.gz": gzip.compress(b"@r\nACGT\n")}), "no HDF5 file",
        "give what Cell Ranger makes of them"),
    bad("an R object", files("m.rds", {"m.rds": gzip.compress(b"RDX3\n")}), "no HDF5 file", "R object"),
    bad("molecule_info.h5", other_h5(barcode_idx=[1], feature_idx=[1], umi=[1], count=[1]),
        "no Cell Ranger matrix; it holds barcode_idx, count, feature_idx, umi", "molecule_info.h5 holds molecules"),
    bad("a loom file", other_h5(matrix=COUNTS.T, row_attrs__Gene=np.array(SYMBOLS, "S"),
                                col_attrs__CellID=np.array(barcodes(5), "S")),
        "no Cell Ranger matrix; it holds col_attrs, matrix, row_attrs", "loom"),
    bad("a file of Seurat (.h5Seurat)", other_h5(assays__RNA__counts__data=[1], cell__names=[b"A-1"]),
        "no Cell Ranger matrix; it holds assays, cell", "Seurat"),
    bad("an .h5 without the features' names", h5(change=replaced("matrix/features/name", None)),
        "cut short or damaged", "name"),
    bad("an .h5 whose counts are text", h5(change=replaced("matrix/data", np.array([b"x"] * np.count_nonzero(COUNTS)))),
        "cut short or damaged"),
    bad("an .h5 whose counts are a table", h5(change=replaced("matrix/data", COUNTS)), "do not agree"),
    bad("an .h5 whose matrix is larger than its names", h5(change=replaced("matrix/shape", [6, 9])),
        "6 features and 9 cells, but there are 6 feature names and 5 barcodes"),
    bad("an .h5 that names a gene beyond the last", h5(change=replaced("matrix/indices",
        np.full(np.count_nonzero(COUNTS), 99))), "names feature 99, but there are 6"),
    bad("NaN and infinity in an .h5", h5(change=replaced("matrix/data",
        np.full(np.count_nonzero(COUNTS), np.nan))), "missing or infinite"),
    bad("ambient-corrected fractions in an .h5", h5(change=replaced("matrix/data",
        np.linspace(0.5, 30, np.count_nonzero(COUNTS)))), "corrected for ambient RNA", "as Cell Ranger wrote it"),
    bad("counts in an .h5 that no float holds", h5(change=replaced("matrix/data",
        np.full(np.count_nonzero(COUNTS), 2**40))), "above 16,777,216 are no counts"),
]  # fmt: skip
