"""Human and mouse in the real Nextflow: which samples a model takes, and by orthologues."""

from __future__ import annotations

import csv
from pathlib import Path

import anndata
from nextflow_runner import Launch
from small_model import as_organism, barnyard, model_of, simulate


def test_a_mouse_model_names_mouse_cells_and_others_only_where_asked(launch: Launch) -> None:
    for organism in ("mouse", "human"):
        as_organism(simulate(60, seed=1), organism).write_h5ad(launch.folder / f"{organism}.h5ad")
    barnyard().write_h5ad(launch.folder / "both.h5ad")
    launch.write("sheet.csv", "sample,path\nmouse,mouse.h5ad\nhuman,human.h5ad\nboth,both.h5ad\n")
    options = ("--model", str(model_of("mouse")), "--doublets", "off", "--truth_key", "cell_type")

    run = launch.run("--input", "sheet.csv", *options)
    assert run.returncode != 0
    failures = {row["sample"]: row for row in rows(run.results / "summary/failures.tsv")}
    assert {name: row["exit_code"] for name, row in failures.items()} == {"human": "4", "both": "3"}
    for words in (
        "sample 'human', file 'human.filtered.h5ad'",
        "the model 'mouse 1.0' is for mouse, but the sample's genes are human",
        "--orthologs",
        "sample 'both', file 'both.h5ad': the matrix holds the genes of 2 genomes",
        "mouse: 30 cells with most of their counts",
    ):
        assert words in run.output
    named = anndata.read_h5ad(run.results / "samples/mouse/mouse.annotated.h5ad")
    assert (
        named.uns["cellscribe"]["organism"] == "mouse"
        and named.var["gene_ids"].str.startswith("ENSMUSG").all()
    )
    assert "orthologs" not in named.uns["cxg_cell_type_predictions"]

    # One of the two organisms is read, and named by the model of the other.
    launch.write("sheet.csv", "sample,path,genome\nboth,both.h5ad,human\n")
    run = launch.run("--input", "sheet.csv", *options, "--orthologs")
    assert run.returncode == 0, run.output
    (summary,) = rows(run.results / "summary/summary.tsv")
    assert (summary["orthologs"], summary["n_cells_read"], summary["gene_overlap"]) == (
        "human to mouse",
        "30",
        "1",
    )
    assert float(summary["truth_accuracy"]) > 0.9
    page = (run.results / "samples/both/both.report.html").read_text()
    assert "These are human cells, named by a model of mouse cells" in page
    assert "markers go up" in page and "Measured on mouse cells, and these are human cells" in page


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file, delimiter="\t"))
