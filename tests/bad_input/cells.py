"""Counts, mappings and models, as QC, MAP and ANNOTATE meet them; and one file named by one command."""

from __future__ import annotations

import functools
import json
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import anndata as ad
import h5py
import numpy as np
import pandas as pd
import scipy.sparse as sp
from bad_input.case import Case, Holds, Maker
from bad_input.h5ads import put, strange_uns
from small_model import TYPES, simulate, small_mapping, small_model, write_counts
from small_model import small_counts as ready_counts
from tenx_files import small_counts, write_h5_v3

from cellscribe.mapping import run_map
from cellscribe.model.model import Model

OURS = "cxg_cell_type"


@functools.cache
def simulated(n_cells: int = 90) -> ad.AnnData:
    return simulate(n_cells, seed=1)


def counts(
    change: Callable[[ad.AnnData], Any] | None = None,
    *options: object,
    n_cells: int = 90,
    organism: str = "human",
    then: Callable[[Any], None] | None = None,
) -> Maker:
    """Counts as CONVERT and QC write them, of cells that `change` made something else of, in a file that `then` did."""

    def make(given: Path) -> list[object]:
        cells = simulated(n_cells).copy()
        changed = cells if change is None else change(cells)
        path = write_counts(changed, given / "s1.counts.h5ad", organism=organism)
        if then is not None:
            with h5py.File(path, "r+") as file:
                then(file)
        return ["--counts", path, *options]

    return make


def file(name: str, content: bytes, option: str = "--counts", *options: object) -> Maker:
    def make(given: Path) -> list[object]:
        (given / name).write_bytes(content)
        return [option, given / name, *options]

    return make


def of_cell_ranger(given: Path) -> list[object]:
    return ["--counts", write_h5_v3(given / "m.h5", small_counts())]


def ready_model() -> Path:
    return small_model("logistic")


def ready_mapping() -> Path:
    return small_mapping("logistic")


def all_the_same(cells: ad.AnnData) -> ad.AnnData:
    cells.X = sp.csr_matrix(np.repeat(cells.X[:1].toarray(), cells.n_obs, axis=0))
    return cells


def half_empty(cells: ad.AnnData) -> ad.AnnData:
    cells.X = sp.csr_matrix(cells.X.toarray() * (np.arange(cells.n_obs) % 2)[:, None])
    return cells


def one_gene(cells: ad.AnnData) -> ad.AnnData:
    return cells[:, :1].copy()


def without_ids(cells: ad.AnnData) -> ad.AnnData:
    del cells.var["gene_ids"]
    return cells


def dense(cells: ad.AnnData) -> ad.AnnData:
    cells.X = cells.X.toarray()
    return cells


def kept(n: int) -> Holds:
    def check(out: Path) -> None:
        assert ad.read_h5ad(out / "s1.filtered.h5ad").n_obs == n
        assert json.loads((out / "s1.qc.json").read_text())["n_cells_after"] == n

    return Holds(f"{n} cells are kept", check)


def reasons_are(reason: str, n: int) -> Holds:
    def check(out: Path) -> None:
        table = pd.read_csv(out / "s1.removed.tsv.gz", sep="\t")
        assert (table["reasons"] == reason).sum() == n

    return Holds(f"{n} cells are removed: `{reason}`", check)


def case(step: str, code: int, what: str, make: Maker, *says: str) -> Case:
    return Case(what, step, make, code, says)


def good(step: str, what: str, make: Maker, holds: Holds, *says: str) -> Case:
    return Case(what, step, make, 0, says, holds)


NO_COUNTS = "this is not a counts file that the CONVERT or QC step wrote"

QC = [
    case("QC", 5, "bounds that no cell keeps", counts(None, "--max-counts", 3),
         "0 of 90 cells are left after quality control", "high_counts (90 cells: over 3 counts, set by you",
         "raise max_counts"),
    case("QC", 5, "2 cells", counts(n_cells=2), "2 of 2 cells are left after quality control, fewer than 10",
         "Lower min_cells"),
    case("QC", 5, "9 cells", counts(n_cells=9), "9 of 9 cells are left after quality control, fewer than 10"),
    good("QC", "9 cells that are enough", counts(None, "--min-cells", 5, n_cells=9), kept(9), "Only 9 cells: too few"),
    case("QC", 5, "genes that no cell shares", counts(None, "--min-cells-per-gene", 1000),
         "no gene is seen in 1,000 cells or more", "Lower min_cells_per_gene"),
    good("QC", "120 cells that are all the same", counts(all_the_same, n_cells=120), kept(120)),
    good("QC", "one gene alone", counts(one_gene, "--doublets", "flag", n_cells=120), kept(65)),
    good("QC", "cells without a single count", counts(half_empty), reasons_are("low_counts", 45)),
    case("QC", 3, "the least counts above the most", counts(None, "--min-counts", 500, "--max-counts", 100),
         "the least counts (500) lie above the most (100)", "Swap or correct"),
    case("QC", 3, "a text file as counts", file("s1.counts.h5ad", b"x"), NO_COUNTS, "convert.py first"),
    case("QC", 3, "Cell Ranger's .h5 as counts", of_cell_ranger, NO_COUNTS),
    case("QC", 3, "an h5ad that CONVERT did not write", counts(without_ids), "the genes have no column gene_ids",
         "convert.py first"),
    case("QC", 3, "dense counts", counts(dense), "X is array, not a CSR matrix", "convert.py first"),
    case("QC", 2, "a percentage above 100", counts(None, "--max-pct-mt", 120), "Invalid value for '--max-pct-mt'"),
    case("QC", 2, "a word for a number", counts(None, "--min-cells", "few"), "'few' is not a valid integer"),
    case("QC", 2, "a misspelt option", counts(None, "--min-cell", 5), "No such option", "--min-cells"),
    case("QC", 2, "counts that are not there", lambda given: ["--counts", given / "none.h5ad"],
         "none.h5ad' does not exist"),
]  # fmt: skip


def mapped(make: Maker, *options: object) -> Maker:
    """The same, with the small model of human genes."""
    return lambda given: [*make(given), "--model", ready_model(), *options]


def model_genes(share: float) -> Callable[[ad.AnnData], ad.AnnData]:
    """So much of the model's genes alone, and all the others."""

    def change(cells: ad.AnnData) -> ad.AnnData:
        genes = Model(ready_model()).genes["symbol"].tolist()
        left_out = genes[round(len(genes) * share) :]
        return cells[:, ~cells.var_names.isin(left_out)].copy()

    return change


def renamed(name: Callable[[str], str]) -> Callable[[ad.AnnData], ad.AnnData]:
    def change(cells: ad.AnnData) -> ad.AnnData:
        names = [name(symbol) for symbol in cells.var_names]
        cells.var = pd.DataFrame({"gene_ids": "", "gene_symbols": names}, index=names)
        return cells

    return change


def versions(cells: ad.AnnData) -> ad.AnnData:
    names = [f"{name}.{i % 9 + 1}" for i, name in enumerate(cells.var["gene_ids"])]
    cells.var = pd.DataFrame({"gene_ids": names}, index=[f"G{i}" for i in range(len(names))])
    return cells


def model_of_nothing(given: Path) -> list[object]:
    (given / "model").mkdir()
    return [*counts()(given), "--model", given / "model"]


def scores_of(n: int) -> Holds:
    def check(out: Path) -> None:
        scores = ad.read_h5ad(out / "s1.mapping.h5ad").obsm["logistic_scores"]
        assert scores.shape == (n, len(TYPES)) and np.isfinite(scores).all()

    return Holds(f"{n} cells are mapped", check)


MAP = [
    case("MAP", 4, "genes of which the model has none", mapped(counts(renamed(lambda name: f"GENE{name[3:]}"))),
         "the genes do not fit the model 'small 1.0' (human): 0 of the model's", "look like human symbols (GENE0",
         "--gene_column_name"),
    case("MAP", 4, "symbols in small letters", mapped(counts(renamed(str.lower))), "0 of the model's", "sym0, sym1"),
    case("MAP", 4, "a third of the model's genes", mapped(counts(model_genes(1 / 3))),
         "genes are in the data (33", "at least 50% are needed", "--min_gene_overlap lowers the bar"),
    good("MAP", "half of the model's genes", mapped(counts(model_genes(0.5))), scores_of(90),
         "warning: Only", "labels are less certain"),
    good("MAP", "a third of the model's genes, and a lower bar",
         mapped(counts(model_genes(1 / 3), "--min-gene-overlap", 0.3)), scores_of(90), "warning: Only"),
    good("MAP", "ids with versions", mapped(counts(versions)), scores_of(90)),
    case("MAP", 4, "mouse cells for a human model", mapped(counts(organism="mouse")),
         "the model 'small 1.0' is for human, but the sample's genes are mouse", "--orthologs"),
    case("MAP", 4, "cells that are said to be of another organism than the model",
         mapped(counts(), "--organism", "mouse"),
         "the sample was given as mouse"),
    case("MAP", 3, "a gene column that is not there", mapped(counts(), "--gene-column-name", "mine"),
         "there is no var column 'mine'; there are: gene_ids, gene_symbols"),
    good("MAP", "one cell", mapped(counts(n_cells=1)), scores_of(1)),
    good("MAP", "cells without a single count", mapped(counts(half_empty)), scores_of(90)),
    case("MAP", 3, "a mapping as counts", lambda given: ["--counts", ready_mapping(), "--model", ready_model()],
         NO_COUNTS),
    case("MAP", 6, "an empty folder as a model", model_of_nothing, "the folder holds no manifest.json"),
    case("MAP", 3, "rows that there are not", mapped(counts(), "--rows", "0:91"), "no rows 0:91 in a file of 90 cells"),
    case("MAP", 2, "rows that are none", mapped(counts(), "--rows", "all"), "'all' is not two row numbers"),
    case("MAP", 2, "fine-tuning on a part of the cells", mapped(counts(), "--rows", "0:9", "--surgery", "true"),
         "--surgery fine-tunes on all cells of a sample: leave out --rows"),
]  # fmt: skip


def answered(make: Maker, *options: object) -> Maker:
    """Counts, and their mapping by the small model."""

    def made(given: Path) -> list[object]:
        arguments = list(make(given))
        mapping = given / "s1.mapping.h5ad"
        run_map(Path(str(arguments[1])), ready_model(), mapping)
        return [*arguments, "--mapping", mapping, "--model", ready_model(), *options]

    return made


def ready(*options: object) -> Maker:
    """Counts and their mapping, made once for all tests."""
    given = {"--counts": ready_counts, "--mapping": ready_mapping, "--model": ready_model}
    left = {name: path for name, path in given.items() if name not in options}
    return lambda _: [*(part for name, path in left.items() for part in (name, path())), *options]


def with_mapping(of: Callable[[], Path]) -> Maker:
    return lambda _: ["--counts", ready_counts(), "--mapping", of(), "--model", ready_model()]


def text_as_mapping(given: Path) -> list[object]:
    (given / "s1.mapping.h5ad").write_text("x")
    return with_mapping(lambda: given / "s1.mapping.h5ad")(given)


def ours_before(file: Any) -> None:
    """What an annotation of another model, or of another program, left behind."""
    put(f"obs/{OURS}_predicted", np.arange(90), "array", **{"encoding-version": "0.2.0"})(file)
    put(f"obs/{OURS}_umap", np.arange(90.0), "array", **{"encoding-version": "0.2.0"})(file)
    names = [*file["obs"].attrs["column-order"], f"{OURS}_predicted", f"{OURS}_umap"]
    file["obs"].attrs["column-order"] = names
    put(f"obsm/{OURS}", np.zeros((90, 3)), "array", **{"encoding-version": "0.2.0"})(file)
    put(f"uns/{OURS}_predictions", "theirs", "string", **{"encoding-version": "0.2.0"})(file)


def named_by(
    name: str = "s1.annotated.h5ad", n_cells: int = 90, uns: tuple[str, ...] = ()
) -> Callable[[Path], None]:
    def check(out: Path) -> None:
        with h5py.File(out / name) as file:
            obs = ad.io.read_elem(file["obs"])
            assert len(obs) == n_cells and set(obs[f"{OURS}_predicted"]) <= set(TYPES)
            assert obs[f"{OURS}_predicted_uncertainty"].between(0, 1).all()
            assert file[f"obsm/{OURS}"].shape[0] == n_cells
            assert "model_sha256" in file[f"uns/{OURS}_predictions"]
            assert set(uns) <= set(file["uns"])

    return check


NAMED = Holds("the cells are named", named_by())

ANNOTATE = [
    good("ANNOTATE", "an `obs` that holds our columns already, of another kind", answered(counts(then=ours_before)),
         Holds("they are replaced", named_by())),
    good("ANNOTATE", "`uns` that can neither be read nor written", answered(counts(then=strange_uns)),
         Holds("the cells are named, that `uns` stays", named_by(uns=("future", "a", "gone")))),
    good("ANNOTATE", "one cell", answered(counts(n_cells=1)), Holds("it is named", named_by(n_cells=1))),
    good("ANNOTATE", "2 cells", answered(counts(n_cells=2)), Holds("they are named", named_by(n_cells=2))),
    good("ANNOTATE", "cells that are all the same", answered(counts(all_the_same)), NAMED),
    good("ANNOTATE", "cells without a single count", answered(counts(half_empty)), NAMED),
    case("ANNOTATE", 3, "a classifier that the model does not have", ready("--classifier", "trees"),
         "the model 'small 1.0' has no classifier 'trees'; it has: default, logistic", "--classifier"),
    case("ANNOTATE", 3, "a name for the columns with a `/`", ready("--run-name", "a/b"),
         "'cxg_cell_type_a/b' cannot name the new columns", "--run_name"),
    case("ANNOTATE", 3, "a mapping of more cells", with_mapping(lambda: small_mapping("logistic", 60)),
         "the mapping has 60 cells, the counts have 90", "again on these counts"),
    case("ANNOTATE", 3, "a mapping by another model", with_mapping(lambda: small_mapping("consensus")),
         "the mapping was made with another model than 'small 1.0'"),
    case("ANNOTATE", 3, "counts as a mapping", with_mapping(ready_counts),
         "this is no mapping that the MAP or PREDICT step wrote"),
    case("ANNOTATE", 3, "a text file as a mapping", text_as_mapping, "this is no mapping", "map.py"),
    case("ANNOTATE", 2, "two models and one mapping", lambda given: [*ready()(given), "--model", ready_model()],
         "do not go together"),
]  # fmt: skip


class Answers(BaseHTTPRequestHandler):
    """A web page for every address, an error for those that are gone."""

    def do_GET(self) -> None:
        self.send_response(404 if "gone" in self.path else 200)
        self.end_headers()
        self.wfile.write(b"<!DOCTYPE html><html><body>Please sign in.</body></html>")

    def log_message(self, *_: object) -> None:
        pass


@functools.cache
def address() -> str:
    """A server that lives as long as the tests do."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return f"http://127.0.0.1:{server.server_port}"


def query(
    model: Callable[[Path], object], *options: object, then: Callable[[Any], None] | None = None
) -> Maker:
    def make(given: Path) -> list[object]:
        cells = simulated().copy()
        cells.write_h5ad(given / "query.h5ad")
        if then is not None:
            with h5py.File(given / "query.h5ad", "r+") as file:
                then(file)
        return [given / "query.h5ad", "-m", model(given), *options]

    return make


def the_query(given: Path) -> Path:
    return given / "query.h5ad"


ANNOTATE_ONE = [
    case("ANNOTATE_ONE", 6, "a model's address that answers 404", query(lambda _: f"{address()}/gone.zip"),
         "/gone.zip", "could not be downloaded: HTTP Error 404", "Check the address and the network"),
    case("ANNOTATE_ONE", 6, "a model's address that answers with a web page", query(lambda _: f"{address()}/lung.zip"),
         "lung.zip", "this is a web page, not a model", "Use the address of the file itself"),
    case("ANNOTATE_ONE", 6, "a model's address that nothing answers at", query(lambda _: "http://127.0.0.1:9/lung.zip"),
         "lung.zip", "could not be downloaded", "Check the address"),
    case("ANNOTATE_ONE", 6, "a model in a bucket, without Nextflow", query(lambda _: "s3://models/lung.zip"),
         "s3:// is not read without Nextflow", "nextflow run"),
    case("ANNOTATE_ONE", 3, "a model's name that is misspelt", query(lambda _: "pmbc"),
         "'pmbc' is not in the catalogue; did you mean 'pbmc'?"),
    case("ANNOTATE_ONE", 6, "the cells themselves as a model", query(the_query),
         "query.h5ad", "this is an AnnData file (HDF5), not a model", "--mode train --reference"),
    good("ANNOTATE_ONE", "an .h5ad with `uns` that can neither be read nor written",
         query(lambda _: ready_model(), then=strange_uns),
         Holds("the cells are named, that `uns` stays", named_by("named.h5ad", uns=("future", "a", "gone")))),
    good("ANNOTATE_ONE", "an .h5ad that holds our columns already, of another kind",
         query(lambda _: ready_model(), then=ours_before),
         Holds("they are replaced", named_by("named.h5ad"))),
]  # fmt: skip
