"""Files of AnnData, as CONVERT meets them."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anndata as ad
import h5py
import numpy as np
import pandas as pd
import scipy.sparse as sp
from bad_input.case import Case, Holds, Maker
from bad_input.cellranger import bad, counts_are, files, good
from tenx_files import IDS, SYMBOLS, barcodes, small_counts

COUNTS = small_counts(8)
# Corrected by gene first, so that no counts can be recovered.
LOGGED = np.log1p(COUNTS * np.linspace(0.8, 1.3, 6)).astype(np.float32)
WITH_ONES = COUNTS.copy()
WITH_ONES[np.arange(8), np.arange(8) % 6] = 1
CORRECTED = COUNTS * np.linspace(31.3, 35.7, 6)
PER_10K = WITH_ONES / WITH_ONES.sum(1, keepdims=True) * 1e4
LOG_10K = np.log1p(PER_10K).astype(np.float32)
RECOVERED = counts_are(WITH_ONES, genes=SYMBOLS)
SCALED = ((COUNTS - COUNTS.mean(0)) / COUNTS.std(0)).astype(np.float32)
SAME = counts_are(COUNTS, genes=SYMBOLS)


def cells(x: Any, names: list[str] | pd.Index | None = None, **more: Any) -> ad.AnnData:
    """Eight cells and six genes, by symbols, with their ids."""
    n = 8 if x is None else x.shape[0]
    obs = pd.DataFrame({"donor": ["a"] * n}, index=names if names is not None else barcodes(n))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return ad.AnnData(x, obs=obs, var=pd.DataFrame({"gene_ids": IDS}, index=SYMBOLS), **more)


def h5ad(
    data: ad.AnnData | Callable[[], ad.AnnData], *options: object, change: Callable[[Any], None] | None = None
) -> Maker:
    """An .h5ad, of which `change` makes something else while it is open."""

    def make(given: Path) -> list[object]:
        path = given / "in.h5ad"
        with ad.settings.override(allow_write_nullable_strings=True, disallow_forward_slash_in_h5ad=False):
            (data() if callable(data) else data).write_h5ad(path)
        if change is not None:
            with h5py.File(path, "r+") as file:
                change(file)
        return ["--input", path, *options]

    return make


def put(place: str, values: Any, encoding: str = "", **attributes: Any) -> Callable[[Any], None]:
    """Replace an element of the file, as some other writer would have it."""

    def change(file: Any) -> None:
        if place in file:
            del file[place]
        if values is not None:
            file[place] = values
            file[place].attrs.update({"encoding-type": encoding, "encoding-version": "9.0.0", **attributes})

    return change


def in_raw(x: Any, raw: Any) -> ad.AnnData:
    data = cells(x)
    data.raw = cells(raw)
    return data


def some_genes(n: int, raw: Any) -> ad.AnnData:
    """Counts of some genes, and in raw numbers of all."""
    data = cells(sp.csr_matrix(WITH_ONES))[:, :n].copy()
    data.raw = cells(raw)
    return data


def typed(**columns: Any) -> ad.AnnData:
    data = cells(sp.csr_matrix(COUNTS))
    for name, values in columns.items():
        data.var[name] = values
    return data


VELOCITY = {name: sp.csr_matrix(COUNTS // 2 + more) for more, name in ((1, "spliced"), (0, "unspliced"))}


def named(symbols: list[str], ids: list[str] | None = None) -> ad.AnnData:
    data = cells(sp.csr_matrix(COUNTS))
    data.var = pd.DataFrame({} if ids is None else {"gene_ids": ids}, index=symbols)
    return data


def columns() -> ad.AnnData:
    """Columns of every kind, by names that a file of ours takes for itself or that no file can have."""
    data = cells(sp.csr_matrix(COUNTS))
    data.obs["sample"] = "theirs"
    data.obs["input_sample"] = "theirs before"
    data.obs["batch"] = pd.Categorical(list("ab") * 4)
    data.obs["input_batch"] = 1
    data.obs["n/a"], data.obs["n_a"] = 1, 2
    data.obs["passed"] = pd.array([True, None] * 4, dtype="boolean")
    data.obs["age"] = pd.array([1, None] * 4, dtype="Int64")
    data.obs["note"] = pd.array([*"abcdefg", None], dtype="string")
    data.obs["cxg_cell_type_predicted"] = "B cell"
    data.obs["total_counts"] = -1.0
    data.var["n/a"], data.var["n_a"], data.var["gene_symbols"] = 1, 2, "x"
    return data


def columns_are_kept(out: Path) -> None:
    obs = ad.read_h5ad(out / "s1.counts.h5ad").obs
    assert set(obs["sample"]) == set(obs["batch"]) == {"s1"}
    values = {frozenset(obs[name].astype(object).fillna("").astype(str)) for name in obs}
    for kept in (["theirs"], ["theirs before"], ["1"], ["2"], ["B cell"], ["a", "b"], [*"abcdefg", ""]):
        assert frozenset(kept) in values, (kept, values)


def names_are(*names: str) -> Holds:
    def check(out: Path) -> None:
        data = ad.read_h5ad(out / "s1.counts.h5ad")
        assert np.array_equal(data.X.toarray(), COUNTS)
        assert list(data.obs_names) == list(names)

    return Holds("the same counts; the cells as text", check)


def ids_are(ids: list[str]) -> Holds:
    def check(out: Path) -> None:
        data = ad.read_h5ad(out / "s1.counts.h5ad")
        assert np.array_equal(data.X.toarray(), COUNTS)
        assert list(data.var["gene_ids"]) == ids

    return Holds("the same counts; ids without their version", check)


def only_uns_of_ours(out: Path) -> None:
    assert set(ad.read_h5ad(out / "s1.counts.h5ad").uns) == {"cellscribe"}


def strange_uns(file: Any) -> None:
    """What no anndata of today reads, and what none can write again."""
    put("uns/future", np.arange(3), "tensor")(file)
    put("uns/cxg_cell_type_predictions", np.arange(3), "tensor")(file)
    put("uns/a/b/c", np.array([(1, 2.0)], dtype=[("x", "i4"), ("y", "f8")]), "unknown")(file)
    file["uns/loop"] = h5py.SoftLink("/uns")
    file["uns/gone"] = h5py.SoftLink("/nowhere")


def link_out(file: Any) -> None:
    file["uns/gone"] = h5py.ExternalLink("other.h5ad", "/uns")


def shape_of(place: str, *shape: int) -> Callable[[Any], None]:
    return lambda file: file[place].attrs.update({"shape": np.array(shape)})


def blocks(file: Any) -> None:
    """A sparse matrix in blocks."""
    del file["X"]
    file["X/blocks"] = COUNTS
    file["X"].attrs.update({"encoding-type": "bsr_matrix", "encoding-version": "0.1.0"})


def zarr(given: Path) -> list[object]:
    """What `write_zarr` leaves, as far as it matters here."""
    for name in (".zgroup", ".zattrs", "X/.zarray", "obs/.zgroup", "var/.zgroup"):
        (given / "in.zarr" / name).parent.mkdir(parents=True, exist_ok=True)
        (given / "in.zarr" / name).write_text('{"zarr_format": 2}')
    return ["--input", given / "in.zarr"]


def cut(given: Path) -> list[object]:
    (_, path) = h5ad(cells(sp.csr_matrix(COUNTS)))(given)
    Path(str(path)).write_bytes(Path(str(path)).read_bytes()[:5000])
    return ["--input", path]


def ten_times(name: str, at: int) -> pd.Index:
    names = barcodes(8)
    names[at] = names[0] if name == "twice" else name
    return pd.Index(names)


H5AD = [
    good("counts as a dense matrix", h5ad(cells(COUNTS.astype(np.float32))), SAME),
    good("counts by columns (CSC)", h5ad(cells(sp.csc_matrix(COUNTS))), SAME),
    good("counts as int64", h5ad(cells(sp.csr_matrix(COUNTS.astype(np.int64)))), SAME),
    good("counts as float64 with the noise of rounding", h5ad(cells(sp.csr_matrix(COUNTS * (1 + 1e-12)))), SAME),
    good("counts in raw, log-normalised numbers in X", h5ad(in_raw(LOGGED, sp.csr_matrix(COUNTS))), SAME),
    good("counts in a layer, scaled numbers in X", h5ad(cells(SCALED, layers={"counts": sp.csr_matrix(COUNTS)})), SAME),
    good("counts in a layer and no X", h5ad(cells(None, layers={"umis": sp.csr_matrix(COUNTS)})), SAME),
    bad("no counts: log-normalised and scaled numbers", h5ad(in_raw(SCALED, LOGGED)),
        "no raw counts were found:", "raw.X (min", "log1p-normalised", "X (min", "negative numbers: scaled",
        "Give the file with the counts"),
    good("log-normalised counts alone", h5ad(cells(LOG_10K)), RECOVERED),
    good("log-normalised counts by columns", h5ad(cells(sp.csc_matrix(LOG_10K))), RECOVERED),
    good("log2 of normalised counts", h5ad(cells(sp.csr_matrix(np.log2(PER_10K + 1).astype(np.float32)))), RECOVERED),
    good("counts normalised to a common total", h5ad(cells(PER_10K.astype(np.float32))), RECOVERED),
    good("counts of variable genes, log-normalised numbers of all in raw", h5ad(some_genes(2, sp.csr_matrix(LOG_10K))),
         RECOVERED, "X holds raw counts of 2 genes alone: those of 6 genes were recovered from raw.X"),
    good("counts of variable genes, corrected numbers of all in raw", h5ad(some_genes(2, sp.csr_matrix(LOGGED))),
         counts_are(WITH_ONES[:, :2], "the counts of these genes", SYMBOLS[:2]),
         "raw.X has 6 genes, but no counts that agree with these can be recovered",
         "give a file with the counts of all genes"),
    good("counts of variable genes, other cells' log-normalised numbers in raw",
         h5ad(some_genes(2, sp.csr_matrix(LOG_10K[:, ::-1]))),
         counts_are(WITH_ONES[:, :2], "the counts of these genes", SYMBOLS[:2]), "no counts that agree with these"),
    good("spliced counts as X too", h5ad(cells(VELOCITY["spliced"], layers=VELOCITY)),
         counts_are(COUNTS // 2 + 1, "the spliced counts", genes=SYMBOLS),
         "X holds the same as layers/spliced", "--counts_layer X"),
    bad("logarithms of corrected counts", h5ad(cells(LOGGED)), "small fractions: log1p-normalised"),
    bad("corrected counts", h5ad(cells(CORRECTED)), "fractions: normalised to a common total"),
    bad("scaled numbers", h5ad(cells(SCALED)), "negative numbers: scaled or regressed, not counts"),
    bad("counts of which one is negative", h5ad(cells(sp.csr_matrix(COUNTS - 9 * (COUNTS.max() == COUNTS)))),
        "negative numbers"),
    bad("counts of which one is NaN", h5ad(lambda: cells(np.where(np.arange(48).reshape(8, 6) == 7, np.nan, COUNTS))),
        "1 of its numbers are missing or infinite"),
    bad("counts of which one is infinite",
        h5ad(lambda: cells(np.where(np.arange(48).reshape(8, 6) == 7, np.inf, COUNTS))),
        "1 of its numbers are missing or infinite"),
    bad("counts corrected for ambient RNA", h5ad(cells(np.maximum(COUNTS * 9 - 0.37, 0))), "corrected for ambient RNA"),
    bad("counts of which a few are corrected", h5ad(lambda: cells(COUNTS + 0.5 * (np.arange(48).reshape(8, 6) == 7))),
        "a few fractions among integers: corrected for ambient RNA"),
    bad("zeros alone", h5ad(cells(sp.csr_matrix((8, 6), dtype=np.float32))), "it holds nothing but zeros"),
    bad("counts that no float holds", h5ad(cells(sp.csr_matrix(COUNTS.astype(np.int64) * 2**30))), "above 16,777,216"),
    bad("a layer that is not there", h5ad(cells(COUNTS, layers={"spliced": COUNTS}), "--counts-layer", "umis"),
        "there is no counts layer 'umis'; there are: X, layers/spliced"),
    bad("a layer without counts", h5ad(cells(COUNTS, layers={"norm": LOGGED}), "--counts-layer", "norm"),
        "the counts layer 'norm' does not hold raw counts", "Use counts_layer X"),
    bad("a file without a matrix", h5ad(cells(None)), "the file has no X, no raw and no layers"),
    bad("a file of several assays (.h5mu)", h5ad(cells(None), change=put("mod/rna", np.arange(3))), "no X, no raw",
        "MuData", "rna"),
    bad("no cell", h5ad(cells(sp.csr_matrix((0, 6), dtype=np.float32))), "nothing but zeros"),
    bad("a text file called .h5ad", files("in.h5ad", {"in.h5ad": b"404: Not Found"}),
        "this is no HDF5 file (14 bytes)"),
    bad("an .h5ad cut short", cut, "cut short or damaged"),
    bad("a zarr store", zarr, "no Cell Ranger matrix", "write it as an .h5ad (anndata.read_zarr"),
    bad("a folder called .h5ad", files("in.h5ad/", {"in.h5ad/": b""}),
        "no Cell Ranger matrix was found in this folder; it holds nothing"),
    bad("a matrix of one dimension", h5ad(cells(COUNTS), change=put("X", np.arange(8.0), "array")),
        "X has 8 numbers, but there are 8 cells and 6 genes"),
    bad("a matrix of text", h5ad(cells(COUNTS), change=put("X", np.full((8, 6), b"x"), "array")), "cannot be read"),
    bad("a matrix of complex numbers", h5ad(cells(COUNTS), change=put("X", COUNTS + 1j, "array")), "cannot be read"),
    bad("a matrix of more cells than names", h5ad(cells(COUNTS), change=put("X", np.ones((9, 6)), "array")),
        "X has 9 x 6 numbers, but there are 8 cells and 6 genes"),
    bad("a sparse matrix without its size", h5ad(cells(sp.csr_matrix(COUNTS)),
        change=lambda file: file["X"].attrs.__delitem__("shape")), "cannot be read"),
    bad("a sparse matrix larger than it says", h5ad(cells(sp.csr_matrix(COUNTS)), change=shape_of("X", 8, 3)),
        "X has 8 x 3 numbers, but there are 8 cells and 6 genes"),
    bad("a sparse matrix without its pointers", h5ad(cells(sp.csr_matrix(COUNTS)), change=put("X/indptr", None)),
        "cannot be read"),
    bad("a matrix of a kind that is yet to come", h5ad(cells(COUNTS), change=blocks), "cannot be read", "data"),
    bad("a file without the cells' names", h5ad(cells(COUNTS), change=put("obs/_index", None)), "cannot be read"),
    bad("a column of a kind that is yet to come", h5ad(cells(COUNTS), change=put("obs/donor", np.arange(8), "ragged")),
        "cannot be read", "/obs", "ragged", "donor"),
    good("cells with categories for names", h5ad(cells(sp.csr_matrix(COUNTS)),
         change=lambda file: ad.io.write_elem(file, "obs", pd.DataFrame(index=pd.CategoricalIndex(barcodes(8))))),
         names_are(*barcodes(8))),
    good("cells with nullable text for names",
         h5ad(lambda: cells(sp.csr_matrix(COUNTS), names=pd.Index(barcodes(8), dtype="string"))),
         names_are(*barcodes(8))),
    good("cells with numbers for names", h5ad(cells(sp.csr_matrix(COUNTS)),
         change=put("obs/_index", np.arange(8), "array", **{"encoding-version": "0.2.0"})), names_are(*"01234567")),
    good("cells twice", h5ad(cells(sp.csr_matrix(COUNTS), names=ten_times("twice", 5))), SAME,
         "1 barcodes occur more than once"),
    good("a cell without a name", h5ad(cells(sp.csr_matrix(COUNTS), names=ten_times("", 5))), SAME),
    good("genes twice", h5ad(named([*SYMBOLS[:5], SYMBOLS[0]])),
         counts_are(COUNTS, "the same counts, the genes' names unique")),
    good("ids with versions", h5ad(named([f"{name}.{i}" for i, name in enumerate(IDS)])), ids_are(IDS)),
    good("an id and a symbol in one name, with `_`", h5ad(named([*map("{}_{}".format, IDS, SYMBOLS)])),
         ids_are(IDS)),
    good("an id and a symbol in one name, with `|`", h5ad(named([*map("{}|{}.4".format, SYMBOLS, IDS)])),
         ids_are(IDS)),
    good("symbols with dots", h5ad(named(["HLA.DRA", "AC002321.1", "MT.CO1", "RPL10", "NKX2.5", "Y_RNA.5"])),
         counts_are(COUNTS, genes=["HLA.DRA", "AC002321.1", "MT.CO1", "RPL10", "NKX2.5", "Y_RNA.5"])),
    good("symbols in small letters", h5ad(named([name.lower() for name in SYMBOLS])),
         counts_are(COUNTS, genes=[name.lower() for name in SYMBOLS]), "The organism was taken to be unknown"),
    good("symbols in mixed case", h5ad(named(["CD3E", "Ms4a1", "lyz", "MT-CO1", "Rpl10", "HBB"])),
         counts_are(COUNTS, genes=["CD3E", "Ms4a1", "lyz", "MT-CO1", "Rpl10", "HBB"])),
    good("genes with numbers for names", h5ad(named(["1", "2", "3", "4", "5", "6"])), counts_are(COUNTS),
         "neither Ensembl ids nor symbols"),
    bad("a gene column that this file does not have", h5ad(named(SYMBOLS), "--gene-column", "feature_name"),
        "the genes have no column 'feature_name'; there are: index"),
    good("antibodies among the genes, in the words of other programs", h5ad(typed(modality=["RNA"] * 4 + ["ADT"] * 2)),
         counts_are(COUNTS[:, :4], "the counts of the genes", genes=SYMBOLS[:4])),
    good("kinds of features in words of their own", h5ad(typed(feature_types=["one"] * 4 + ["two"] * 2)), SAME,
         "'feature_types' does not say in known words", "(one, two)"),
    good("genes that are named like antibodies", h5ad(named([*SYMBOLS[:5], "CD3_TotalSeqB"])),
         counts_are(COUNTS), "1 of 6 features are named like antibodies or hashtags (CD3_TotalSeqB)"),
    bad("antibodies alone, as .h5ad", h5ad(typed(feature_types="Antibody Capture")), "no Gene Expression features"),
    good("columns by the names of ours, and by names that no file can have", h5ad(columns),
         Holds("every column kept, by a name of its own", columns_are_kept)),
    good("`uns` that can neither be read nor written", h5ad(cells(sp.csr_matrix(COUNTS)), change=strange_uns),
         Holds("the same counts; that `uns` is left out", only_uns_of_ours)),
    bad("a link to another file", h5ad(cells(sp.csr_matrix(COUNTS)), change=link_out),
        "cut short or damaged", "'uns/gone' is a link to another file"),
    good("two cells", h5ad(cells(sp.csr_matrix(COUNTS[:2]))), counts_are(COUNTS[:2])),
]  # fmt: skip


def donors(*values: Any, x: Any = COUNTS) -> Callable[[], ad.AnnData]:
    def make() -> ad.AnnData:
        data = cells(x)
        data.obs["donor"] = values
        return data

    return make


def parts_are(**sizes: int) -> Holds:
    def check(out: Path) -> None:
        assert {
            path.stem.removeprefix("s1_"): len(ad.read_h5ad(path)) for path in out.glob("*.h5ad")
        } == sizes

    listed = ", ".join(f"`{name}` of {n} cells" for name, n in sizes.items())
    return Holds(f"samples by what may be a file's name: {listed}", check)


BY_DONOR = ("--sample-key", "donor")
SPLIT = [
    Case("a column that is not there", "SPLIT", h5ad(cells(COUNTS), "--sample-key", "sample"), 3,
         ("there is no obs column 'sample'; there are: donor", "Give the column that tells the samples apart")),
    Case("a column of numbers, another for each cell", "SPLIT", h5ad(donors(*np.linspace(0, 1, 8)), *BY_DONOR), 3,
         ("the obs column 'donor' has 8 values for 8 cells", "one value for each sample")),
    Case("samples of logarithms", "SPLIT", h5ad(donors(*"aabbccdd", x=LOGGED), *BY_DONOR), 3,
         ("no raw counts were found", "log1p-normalised")),
    Case("names of samples that no file can have", "SPLIT",
         h5ad(donors(*["../x", "=1+1", "a\nb", "$(touch y)"] * 2), *BY_DONOR), 0, (),
         parts_are(x=2, **{"1_1": 2, "a_b": 2, "touch_y": 2})),
    Case("cells without a sample, in different words", "SPLIT",
         h5ad(donors("a", "nan", "", "none", "a", "NA", "a", "unknown"), *BY_DONOR), 0, (),
         parts_are(a=3, unnamed=4, unknown=1)),
    Case("names that differ in capitals alone", "SPLIT", h5ad(donors(*"AaAaAAaa"), *BY_DONOR), 0, (),
         parts_are(A=4, a_2=4)),
    Case("a column of yes and no", "SPLIT", h5ad(donors(*[True, False] * 4), *BY_DONOR), 0, (),
         parts_are(**{"True": 4, "False": 4})),
]  # fmt: skip
