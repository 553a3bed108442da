"""A file of several samples, split by a column of its cells, in the real Nextflow."""

from __future__ import annotations

import json

import anndata
import numpy as np
from nextflow_runner import Launch
from small_model import simulate, small_model, write_reference
from tenx_files import barcodes, write_h5_v3

from cellscribe.published import check_results
from cellscribe.run_samples import read_failures


def test_the_samples_of_a_file_are_named_each_by_itself_and_merged(launch: Launch) -> None:
    cells = simulate(150, seed=1)
    donor = np.array(["b", "a 1", "c"])[np.arange(150) % 3]
    cells.obs["donor"] = donor
    write_reference(cells, launch.folder / "whole.h5ad")
    # The same cells with their counts in a layer, and of one batch.
    other = anndata.read_h5ad(launch.folder / "whole.h5ad")
    other.layers["umis"], other.X = other.X, np.log1p(other.X)
    other.write_h5ad(launch.folder / "layer.h5ad")
    launch.write(
        "sheet.csv",
        "sample,path,sample_key,counts_layer,batch\nw,whole.h5ad,donor,,\nl,layer.h5ad,donor,umis,b1\n"
        "bad,whole.h5ad,donr,,\none,whole.h5ad,,,\n",
    )
    options = f"--input sheet.csv --model {small_model('logistic')} --qc flag --doublets off --merge".split()
    options += ["--cluster_key", "donor", "--min_probability", "0.9", "--reject_novel", "false"]
    run = launch.run(*options)
    names = ["l_a_1", "l_b", "l_c", "one", "w_a_1", "w_b", "w_c"]
    assert {"SPLIT (w)", "SPLIT (l)"} <= set(run.tasks("Submitted"))
    assert [name for name in run.tasks("Submitted") if name.startswith("CONVERT")] == [
        f"CONVERT ({name})" for name in names
    ]
    assert (
        "bad: SPLIT ended with 3 (bad input)" in run.output and "there is no obs column 'donr'" in run.output
    )
    results = launch.folder / "results"
    assert not [one for one in check_results(results) if one.problems]
    table = (results / "summary" / "summary.tsv").read_text().splitlines()
    assert [line.split("\t")[:3] for line in table[1:]] == [
        ["w_b", "done", ""],
        ["w_a_1", "done", ""],
        ["w_c", "done", ""],
        ["l_b", "done", ""],
        ["l_a_1", "done", ""],
        ["l_c", "done", ""],
        ["bad", "failed", "SPLIT"],
        ["one", "done", ""],
    ]
    assert list(read_failures(results / "summary" / "failures.tsv")) == ["bad"]
    part = anndata.read_h5ad(results / "samples" / "w_b" / "w_b.annotated.h5ad")
    assert list(part.obs_names) == list(cells.obs_names[donor == "b"])
    assert set(part.obs["sample"]) == set(part.obs["batch"]) == {"w_b"}
    twin = anndata.read_h5ad(results / "samples" / "l_b" / "l_b.annotated.h5ad")
    assert (part.X != twin.X).nnz == 0 and set(twin.obs["batch"]) == {"b1"}
    values = json.loads((results / "pipeline_info" / "w.split.json").read_text())
    assert {one["sample"]: one["value"] for one in values} == {"w_b": "b", "w_a_1": "a 1", "w_c": "c"}
    whole = anndata.read_h5ad(results / "samples" / "one" / "one.annotated.h5ad")
    # A label depends on its cell alone.
    key = "cxg_cell_type_predicted"
    assert list(part.obs[key]) == list(whole.obs[key][donor == "b"])
    assert list(whole.obs["cxg_cell_type_cluster"]) == list(donor)
    assert set(part.obs["cxg_cell_type_cluster"]) == {"b"}
    parameters = json.loads(whole.uns["cxg_cell_type_predictions"]["parameters"])
    assert (parameters["cluster_key"], parameters["min_probability"]) == ("donor", 0.9)
    assert parameters["reject_novel"] is False
    page = (results / "samples" / "one" / "one.report.html").read_text()
    assert "--sample_key donor" in page
    assert (
        "whose &#39;donor&#39; is &#39;b&#39;"
        in (results / "samples" / "w_b" / "w_b.report.html").read_text()
    )
    assert anndata.read_h5ad(results / "merged" / "merged.annotated.h5ad", backed="r").n_obs == 450
    again = launch.run(*options, "-resume")
    assert again.tasks("Submitted") == ["SPLIT (bad)"], again.output


def test_what_aggr_joined_is_parted_and_called_as_its_table_says(launch: Launch) -> None:
    cells = simulate(120, seed=2)
    library = np.where(np.arange(120) % 3 == 0, 2, 1)
    names = [f"{name[:-1]}{number}" for name, number in zip(barcodes(120), library, strict=True)]
    outs = launch.folder / "AGG1" / "outs"
    genes = {"ids": cells.var["gene_ids"], "symbols": cells.var_names, "names": names}
    write_h5_v3(outs / "count" / "filtered_feature_bc_matrix.h5", cells.X, **genes)
    (outs / "aggregation.csv").write_text("sample_id,molecule_h5\nlung,a.h5\nblood,b.h5\n")
    options = f"--input AGG1/outs --model {small_model('logistic')} --qc flag --doublets off".split()
    run = launch.run(*options, "--sample_key", "barcode_suffix")
    assert run.returncode == 0, run.output
    results = launch.folder / "results"
    for number, name in ((1, "AGG1_lung"), (2, "AGG1_blood")):
        part = anndata.read_h5ad(results / "samples" / name / f"{name}.annotated.h5ad")
        assert list(part.obs_names) == [one for one in names if one.endswith(f"-{number}")]
        page = (results / "samples" / name / f"{name}.report.html").read_text()
        assert f"whose barcodes end in -{number}" in page and "aggregation.csv" in page
    values = json.loads((results / "pipeline_info" / "AGG1.split.json").read_text())
    assert [(one["value"], one["n_cells"]) for one in values] == [("lung", 80), ("blood", 40)]


def test_a_stub_of_several_samples_runs(launch: Launch) -> None:
    (launch.folder / "model").mkdir()
    (launch.folder / "a.h5ad").touch()
    run = launch.run("-stub-run", "--input", "a.h5ad", "--sample_key", "donor", "--model", "./model")
    assert run.returncode == 0 and "REPORT (a_1)" in run.tasks("Submitted"), run.output


def test_a_folder_is_parted_again_where_its_matrix_changed_and_only_there(launch: Launch) -> None:
    (launch.folder / "model").mkdir()
    matrix = launch.folder / "AGG1" / "outs" / "count" / "filtered_feature_bc_matrix.h5"
    matrix.parent.mkdir(parents=True)
    matrix.write_bytes(b"a matrix")
    options = ["-stub-run", "--input", "AGG1/outs", "--sample_key", "barcode_suffix", "--model", "./model"]
    assert launch.run(*options).returncode == 0
    (launch.folder / "AGG1" / "outs" / "a.log").touch()
    again = launch.run(*options, "-resume")
    assert again.returncode == 0 and again.tasks("Submitted") == [], again.output
    matrix.write_bytes(b"another one")
    assert "SPLIT (AGG1)" in launch.run(*options, "-resume").tasks("Submitted")
