"""The pipeline as a user runs it."""

from __future__ import annotations

import functools
import hashlib
import http.server
import json
import re
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anndata
import h5py
import numpy as np
import pandas as pd
import pytest
import yaml
import zarr
from foreign_model import make_foreign_model
from nextflow_runner import DEMO, ROOT, Launch, Run
from small_model import simulate, small_model, write_reference

from cellscribe.checksums import read_list
from cellscribe.contract import OutputNames
from cellscribe.model.archive import pack_model
from cellscribe.model.manifest import model_sha256, write_manifest
from cellscribe.published import check_results

SAMPLE_FILES = [
    "annotated.h5ad",
    "clusters.tsv",
    "de.tsv.gz",
    "markers.tsv",
    "predictions.tsv.gz",
    "qc.json",
    "removed.tsv.gz",
    "report.html",
    "sha256",
    "verdicts.tsv",
]
RUN_FILES = {
    "summary/composition.tsv",
    "summary/summary.tsv",
    "summary/summary.sha256",
    "summary/failures.tsv",
    "summary/multiqc_report.html",
    "pipeline_info/report.html",
    "pipeline_info/timeline.html",
    "pipeline_info/trace.txt",
    "pipeline_info/versions.yml",
    "pipeline_info/params.json",
}
MERGED = {
    f"merged/{name}"
    for name in (
        "merged.annotated.h5ad",
        "merged.sha256",
        "composition.tsv",
        "merged.pseudobulk.h5ad",
        "merged.report.html",
    )
}
ONCE = ["CHECK_INPUT", "FETCH_MODEL", "MULTIQC", "SUMMARY", "VERSIONS"]
PER_SAMPLE = ["ANNOTATE", "CONVERT", "MAP", "QC", "REPORT"]


def sample_files(*samples: str) -> set[str]:
    return {f"samples/{sample}/{sample}.{name}" for sample in samples for name in SAMPLE_FILES}


def verified(run: Run) -> dict[str, str]:
    """What `make verify-output` says of each folder; nothing may be wrong."""
    checked = check_results(run.results)
    assert [str(one) for one in checked if one.problems] == []
    return {one.name: one.said for one in checked}


def every_task(*samples: str) -> list[str]:
    return sorted(ONCE + [f"{step} ({sample})" for step in PER_SAMPLE for sample in samples])


# --- the demo: real cells, the embedded model ---


def test_the_demo_ends_well_with_every_file_of_a_run_and_no_other(demo: Any) -> None:
    assert demo.run.returncode == 0, demo.run.output
    assert demo.run.files() == RUN_FILES | sample_files("demo")
    assert "Done." in demo.run.output and "results/summary/multiqc_report.html" in demo.run.output


def test_the_demos_cells_have_every_part_of_the_output_contract(demo: Any) -> None:
    adata = anndata.read_h5ad(demo.run.results / "samples/demo/demo.annotated.h5ad")
    names = OutputNames.of()
    assert 400 < adata.n_obs <= 559
    assert adata.obs[names.predicted].notna().all() and adata.obs[names.predicted].nunique() > 1
    assert adata.obs[names.uncertainty].between(0, 1).all()
    assert {names.final, names.reason, names.cl_id, names.cluster, names.reference_distance} <= set(adata.obs)
    for key in (names.embedding, names.umap, names.umap_explorer, names.reference_umap):
        assert np.isfinite(np.asarray(adata.obsm[key])).all()
    assert np.asarray(adata.obsm[names.umap]).shape == (adata.n_obs, 2)
    assert names.predictions in adata.uns
    assert set(np.unique(adata.X.data % 1)) == {0}


def test_the_demos_file_holds_plain_strings(demo: Any) -> None:
    with h5py.File(demo.run.results / "samples/demo/demo.annotated.h5ad") as file:
        found: set[str] = set()
        file.visititems(lambda name, item: found.add(item.attrs.get("encoding-type", "")))
    assert not {kind for kind in found if "nullable" in kind}


def test_the_demos_table_page_and_summary_agree_with_its_cells(demo: Any) -> None:
    folder = demo.run.results / "samples" / "demo"
    adata = anndata.read_h5ad(folder / "demo.annotated.h5ad", backed="r")
    predictions = pd.read_csv(folder / "demo.predictions.tsv.gz", sep="\t")
    qc = json.loads((folder / "demo.qc.json").read_text())
    (row,) = demo.run.table("summary/summary.tsv")
    assert len(predictions) == adata.n_obs == qc["n_cells_after"] == int(row["n_cells_kept"])
    assert row["status"] == "done" and row["sample"] == "demo"
    verdicts = pd.read_csv(folder / "demo.verdicts.tsv", sep="\t")
    assert verdicts["n_cells"].sum() == adata.n_obs and len(verdicts) == int(row["n_clusters"])
    given = verdicts.loc[verdicts["label"] != "unassigned", "verdict"].value_counts()
    assert given.sum() == int(row["n_clusters_named"])
    for verdict in ("supported", "weak", "contradicted"):
        assert given.get(verdict, 0) == int(row[f"n_clusters_{verdict}"])
    assert given["supported"] >= 4 and "contradicted" not in given
    page = (folder / "demo.report.html").read_text()
    assert "demo" in page and len(page) < 8_000_000
    assert 'src="http' not in page and 'href="http://' not in page


def test_the_demo_records_parameters_versions_and_no_failure(demo: Any) -> None:
    info = demo.run.results / "pipeline_info"
    settings = json.loads((info / "params.json").read_text())
    assert settings["params"]["model"] == "pbmc" and settings["mode"] == "annotate"
    assert yaml.safe_load((info / "versions.yml").read_text())["Workflow"]["cellscribe"].startswith("0.1.0+")
    assert (demo.run.results / "summary" / "failures.tsv").read_text().splitlines() == [
        "sample\tstep\texit_code\tmeaning\tmessage"
    ]


def test_with_resume_nothing_runs_again(demo: Any) -> None:
    again = demo.launch.run("-profile", "test", "-resume")
    assert again.returncode == 0, again.output
    assert again.tasks("Submitted") == []
    assert again.tasks("Cached") == every_task("demo")
    assert again.files() == RUN_FILES | sample_files("demo")


def test_asking_for_the_file_for_cellxgene_makes_it_and_the_page_anew_and_names_no_cell_again(
    demo: Any,
) -> None:
    run = demo.launch.run("-profile", "test", "-resume", "--cellxgene_schema")
    assert run.returncode == 0, run.output
    assert {"CURATE (demo)", "REPORT (demo)"} <= set(run.tasks("Submitted"))
    assert "ANNOTATE (demo)" in run.tasks("Cached")
    folder = run.results / "samples" / "demo"
    before, after = (anndata.read_h5ad(folder / f"demo.{name}.h5ad") for name in ("annotated", "cellxgene"))
    assert list(after.obs_names) == list(before.obs_names)
    assert after.var_names.str.startswith("ENSG").all()
    table = pd.read_csv(folder / "demo.cellxgene_todo.tsv", sep="\t", keep_default_na=False)
    assert "donor_id" in set(table["field"])
    assert "For CELLxGENE Discover" in (folder / "demo.report.html").read_text()
    # Said at the start, where the validator is not there.
    assert "make schema-env" in run.output or (ROOT / ".tools" / "schema" / "made").exists()


def test_the_demo_is_as_it_was_published(demo: Any) -> None:
    folder = demo.run.results / "samples" / "demo"
    assert verified(demo.run)["demo"] == f"{len(list(folder.iterdir())) - 1} files as listed"
    assert verified(demo.run)["summary"] == "3 files as listed"
    assert set(read_list(folder / "demo.sha256")) == {path.name for path in folder.iterdir()} - {
        "demo.sha256"
    }


# --- a model of one's own, and a bad sample ---


def test_training_leaves_a_model_with_its_card(trained: Any) -> None:
    assert trained.train.returncode == 0, trained.train.output
    model = trained.train.results / "models" / "small"
    manifest = json.loads((model / "manifest.json").read_text())
    assert (manifest["name"], manifest["label_key"]) == ("small", "edited")
    assert manifest["citation"] == trained.citation
    told = trained.train.output
    assert re.search(r"small 1\.0: \d+\.\d % of its labels were right \(whole batches held out\)", told)
    assert "its card    results/models/small/card.html" in told
    assert manifest["training"]["sources"] == ["reference.h5ad", "labels.csv", "names.csv"]
    assert "B cell" in {label["label"] for label in manifest["labels"]}
    assert {"MLmodel", "card.md", "card.html", "evaluation.json"} <= {path.name for path in model.iterdir()}


def test_a_trained_model_names_new_cells_as_they_are(trained: Any) -> None:
    adata = anndata.read_h5ad(trained.annotate.results / "samples/good/good.annotated.h5ad")
    names = OutputNames.of(run_name="day1")
    right = adata.obs[names.predicted].astype(str) == adata.obs["cell_type"].astype(str)
    assert right.mean() > 0.9
    assert names.level("broad") in adata.obs


def test_the_zarr_that_was_asked_for_is_published_and_listed_with_the_h5ad(trained: Any) -> None:
    folder = trained.annotate.results / "samples/good"
    assert {"good.annotated.zarr.zip", "good.annotated.h5ad"} <= set(read_list(folder / "good.sha256"))
    with zarr.storage.ZipStore(folder / "good.annotated.zarr.zip", mode="r") as store:
        cells = anndata.read_zarr(store)
    assert cells.obs.equals(anndata.read_h5ad(folder / "good.annotated.h5ad").obs)


def test_one_bad_sample_leaves_the_others_alone_and_is_told(trained: Any) -> None:
    run = trained.annotate
    assert run.returncode != 0
    assert sample_files("good") <= run.files() and not any("samples/bad" in name for name in run.files())
    (failure,) = run.table("summary/failures.tsv")
    assert (failure["sample"], failure["step"], failure["exit_code"]) == ("bad", "CONVERT", "3")
    assert "bad.h5ad" in failure["message"] and "HDF5" in failure["message"]
    assert "bad: CONVERT ended with 3 (bad input)" in run.output
    assert "Samples that are not listed went on." in run.output and "exit code is 0" not in run.output
    good, bad = run.table("summary/summary.tsv")
    assert (good["status"], good["message"]) == ("done", "")
    assert (bad["status"], bad["failed_step"], bad["exit_code"]) == ("failed", "CONVERT", "3")
    assert bad["message"] == failure["message"]
    page = (run.results / "summary/multiqc_report.html").read_text()
    assert "1 of 2 samples were not finished" in page and "HDF5" in page


def test_the_labels_of_a_table_are_the_truth_that_the_new_ones_are_held_against(trained: Any) -> None:
    table = pd.read_csv(trained.annotate.results / "samples/good/good.truth.tsv", sep="\t")
    assert table["n_cells"].sum() == 50 and (table["known_to_model"] == "yes").all()
    good, bad = trained.annotate.table("summary/summary.tsv")
    assert good["truth_n_cells"] == "50" and float(good["truth_accuracy"]) > 0.9
    assert bad["truth_accuracy"] == ""
    assert (
        "cells are named in truth.csv"
        in (trained.annotate.results / "samples/good/good.report.html").read_text()
    )


def test_the_samples_that_did_not_fail_are_in_one_file(trained: Any) -> None:
    folder = trained.annotate.results / "merged"
    one = anndata.read_h5ad(trained.annotate.results / "samples/good/good.annotated.h5ad")
    whole = anndata.read_h5ad(folder / "merged.annotated.h5ad")
    assert whole.obs_names.tolist() == [f"good:{barcode}" for barcode in one.obs_names]
    assert (whole.X != one.X).nnz == 0
    assert whole.obsm[OutputNames.of(run_name="day1").umap_explorer].shape == (one.n_obs, 2)
    assert pd.read_csv(folder / "composition.tsv", sep="\t")["n_cells"].sum() == one.n_obs
    sums = anndata.read_h5ad(folder / "merged.pseudobulk.h5ad")
    assert sums.obs["n_cells"].sum() == one.n_obs and sums.X.sum() == one.X.sum()
    assert "1 sample in one file" in (folder / "merged.report.html").read_text()


def test_what_a_run_with_a_failed_sample_published_can_be_verified(trained: Any) -> None:
    told = verified(trained.annotate)
    assert told["bad"] == "failed at CONVERT (summary/failures.tsv)"
    more = {"truth.tsv", "annotated.zarr.zip"}
    assert told["good"] == f"{len({*SAMPLE_FILES, *more} - {'sha256'})} files as listed"
    assert told["merged"] == "4 files as listed"
    assert "models/small" in told


# --- several models ---


def test_several_models_name_the_cells_each_and_together(by_two: Any) -> None:
    adata = anndata.read_h5ad(by_two.results / "samples/whole/whole.annotated.h5ad")
    names = OutputNames.of()
    truth = adata.obs["cell_type"].astype(str)
    assert (adata.obs[names.predicted].astype(str) == truth).mean() > 0.9
    assert (adata.obs[names.of_model("small").predicted].astype(str) == truth).mean() > 0.9
    coarse = adata.obs[names.of_model("coarse").predicted].astype(str)
    assert (coarse == adata.obs["broad"].astype(str)).mean() > 0.9 and "T cell" in set(coarse)
    assert (adata.obs[names.agreeing] == 2).mean() > 0.9
    (row,) = [row for row in by_two.table("summary/summary.tsv") if row["status"] == "done"]
    assert row["sample"] == "whole" and row["model"] == "small 1.0 + coarse 1.0"
    assert "What each model says" in (by_two.results / "samples/whole/whole.report.html").read_text()


def test_a_sample_that_one_of_several_models_does_not_fit_is_dropped_and_told(by_two: Any) -> None:
    assert by_two.returncode != 0
    assert sample_files("whole") <= by_two.files() and not any(
        "poor/poor.ann" in name for name in by_two.files()
    )
    (failure,) = by_two.table("summary/failures.tsv")
    assert (failure["sample"], failure["step"], failure["exit_code"]) == ("poor", "MAP", "4")
    assert "small 1.0" in failure["message"]


def test_what_several_models_gave_can_be_verified(by_two: Any) -> None:
    told = verified(by_two)
    assert told["whole"] == f"{len(SAMPLE_FILES) - 1} files as listed"
    assert told["poor"] == "2 files, and no list; failed at MAP (summary/failures.tsv)"


# --- a model made by others ---


def test_the_code_of_a_model_made_by_others_is_run_where_it_is_trusted_and_nowhere_else(
    launch: Launch,
) -> None:
    here = launch.folder
    make_foreign_model(here / "theirs", trace=here / "trace")
    write_reference(simulate(90, seed=1), here / "s1.h5ad")
    launch.write("mine.csv", f"name,version,url\nmouse,2.0,{small_model('logistic')}\n")
    models = ("--model", "mouse==2.0,./theirs", "--catalogue", "mine.csv")
    arguments = ("--input", "s1.h5ad", *models, "--doublets", "off")

    refused = launch.run(*arguments)
    assert refused.returncode != 0
    (failure,) = refused.table("summary/failures.tsv")
    assert (failure["step"], failure["exit_code"]) == ("FETCH_MODEL", "6")
    assert "--trust_model_code" in failure["message"]
    assert not (here / "trace").exists()

    run = launch.run(*arguments, "--trust_model_code", "-resume")
    assert run.returncode == 0, run.output
    assert (here / "trace").exists()
    assert {"PREDICT (s1 with theirs)", "MAP (s1 with mouse_2.0)"} <= set(run.tasks("Submitted"))
    assert "MAP (s1 with theirs)" not in run.tasks("Submitted")
    assert sample_files("s1") <= run.files()
    adata = anndata.read_h5ad(run.results / "samples/s1/s1.annotated.h5ad")
    truth = adata.obs["cell_type"].astype(str)
    for names in (OutputNames.of(), OutputNames.of().of_model("theirs"), OutputNames.of().of_model("small")):
        assert (adata.obs[names.predicted].astype(str) == truth).mean() > 0.8, names.key
    assert adata.uns[OutputNames.of().of_model("theirs").predictions]["model_url"] == "./theirs"
    page = (run.results / "samples/s1/s1.report.html").read_text()
    assert "Code that was run" in page and "made by others" in page
    # The model is another than its row of the catalogue says.
    assert "mouse==2.0" in page and "by its own manifest it is" in page and "small==1.0" in page


# --- another study's cells, from their matrix ---


def test_cells_of_a_study_that_the_model_has_not_seen_get_their_names(
    launch: Launch, shared_data: Path
) -> None:
    matrix = shared_data / "cellranger" / "pbmc4k" / "filtered_feature_bc_matrix.h5"
    run = launch.run("--input", str(matrix))
    assert run.returncode == 0, run.output
    assert sample_files("pbmc4k") <= run.files()
    found = anndata.read_h5ad(run.results / "samples/pbmc4k/pbmc4k.annotated.h5ad", backed="r").obs
    truth = anndata.read_h5ad(shared_data / "labelled" / "pbmc4k_labelled.h5ad", backed="r").obs
    known = truth["cell_type_harmonized"].astype(str).to_dict()
    labels = [known[barcode.removesuffix("-1")] for barcode in found.index]
    pairs = [
        pair
        for pair in zip(labels, found[OutputNames.of().predicted].astype(str), strict=True)
        if pair[0] != "unlabelled"
    ]
    assert len(pairs) > 2000
    share = sum(one == other for one, other in pairs) / len(pairs)
    print(f"named right: {share:.4f}")
    # 0.867 when the model was made; two points for other versions of libraries.
    assert share >= 0.847


# --- what happens to every run, on files of no content ---


@pytest.fixture(scope="module")
def stub(tmp_path_factory: pytest.TempPathFactory) -> tuple[Launch, Run]:
    launch = Launch(tmp_path_factory.mktemp("stub"))
    (launch.folder / "my data (1)").mkdir()
    shutil.copy(DEMO, launch.folder / "my data (1)")
    (launch.folder / "b" / "outs").mkdir(parents=True)
    (launch.folder / "model").mkdir()
    launch.write(
        "sheet.tsv",
        f"sample\tpath\na\tmy data (1)/{DEMO.name}\nb\tb/outs\nc.1\t{DEMO}\n".replace("\n", "\r\n"),
    )
    return launch, launch.run("-stub-run", "--input", "sheet.tsv", "--model", "./model", "--merge")


def test_a_stub_run_makes_every_file(stub: tuple[Launch, Run]) -> None:
    _, run = stub
    assert run.returncode == 0, run.output
    assert run.files() == RUN_FILES | MERGED | sample_files("a", "b", "c.1")
    assert run.tasks("Submitted") == sorted([*every_task("a", "b", "c.1"), "MERGE"])


def test_a_stub_run_with_several_models_maps_by_each_and_resumes_whole(launch: Launch) -> None:
    for name in ("one", "two"):
        (launch.folder / name).mkdir()
    arguments = ("-stub-run", "--input", str(DEMO), "--model", "./one,./two")
    run = launch.run(*arguments)
    assert run.returncode == 0, run.output
    sample = DEMO.parent.name
    steps = [f"{step} ({sample})" for step in PER_SAMPLE if step != "MAP"]
    steps += [f"MAP ({sample} with {model})" for model in ("one", "two")]
    steps += ["FETCH_MODEL (one)", "FETCH_MODEL (two)", *(name for name in ONCE if name != "FETCH_MODEL")]
    assert run.tasks("Submitted") == sorted(steps)
    again = launch.run(*arguments, "-resume")
    assert again.returncode == 0 and again.tasks("Submitted") == [], again.output


@pytest.mark.parametrize(
    ("option", "again"),
    [
        (("--run_name", "7"), {"ANNOTATE", "MERGE", "REPORT", "SUMMARY", "MULTIQC"}),
        (("--min_genes", "10"), {"QC", "MAP", "ANNOTATE", "MERGE", "REPORT", "SUMMARY", "MULTIQC"}),
        (("--truth_key", "author"), {"REPORT", "SUMMARY", "MULTIQC"}),
        (("--truth_key", "author", "--truth_map", "map.csv"), {"REPORT", "SUMMARY", "MULTIQC"}),
    ],
)
def test_a_changed_option_repeats_only_the_steps_that_it_touches(
    stub: tuple[Launch, Run], option: tuple[str, str], again: set[str]
) -> None:
    launch, _ = stub
    again_with = ("--input", "sheet.tsv", "--model", "./model", "--merge", "-resume")
    left = launch.folder / "results" / "samples" / "a" / "a.removed.tsv.gz"
    left.write_text("of a run with other options")
    launch.write("map.csv", "label,meaning\nMNP,Monocyte\n")
    run = launch.run("-stub-run", *again_with, *option)
    assert run.returncode == 0, run.output
    assert left.read_text() == "", "what is taken from the cache is published again"
    steps = {name.split(" ")[0] for name in run.tasks("Submitted")}
    # SUMMARY and MULTIQC follow only where a file that they read has changed.
    assert steps - {"CHECK_INPUT", "SUMMARY", "MULTIQC"} == again - {"SUMMARY", "MULTIQC"}


def test_a_file_that_changed_in_a_folder_is_read_again(launch: Launch) -> None:
    """Of a folder Nextflow itself looks at no more than its own name, size and time."""
    matrix = launch.folder / "lung" / "outs" / "filtered_feature_bc_matrix"
    matrix.mkdir(parents=True)
    (launch.folder / "model").mkdir()
    for name in ("matrix.mtx", "barcodes.tsv", "features.tsv"):
        (matrix / name).write_text("as it was")
    arguments = ("-stub-run", "--input", "lung/outs", "--model", "./model")
    first = launch.run(*arguments)
    assert first.returncode == 0, first.output
    (matrix / "matrix.mtx").write_text("another matrix")
    again = launch.run(*arguments, "-resume")
    assert "CONVERT (lung)" in again.tasks("Submitted"), again.output
    (launch.folder / "model" / "genes.tsv").write_text("another model")
    other = launch.run(*arguments, "-resume")
    submitted = other.tasks("Submitted")
    assert any(name.startswith("MAP") for name in submitted) and "CONVERT (lung)" not in submitted, (
        other.output
    )


CODE = """
workflow {
    def here = file('.')
    ['ours', 'clone', 'newer', 'renamed'].each { name ->
        println("${name}: ${CodeVersion.of(here.resolve(name), '1.0')}")
    }
}
"""


def test_the_version_in_every_command_changes_with_the_library_and_not_with_its_times(launch: Launch) -> None:
    """By it -resume does anew what older code did."""
    here = launch.folder
    (here / "lib").symlink_to(ROOT / "lib")
    for name in ("ours", "clone", "newer", "renamed"):
        library = here / name / "bin" / "cellscribe"
        (library / "__pycache__").mkdir(parents=True)
        (library / ("qc.py" if name != "renamed" else "qcs.py")).write_text(
            "x = " + ("2" if name == "newer" else "1")
        )
        (library / "__pycache__" / "qc.cpython-313.pyc").write_text(name)
    launch.write("main.nf", CODE)
    run = launch.run(script=here / "main.nf")
    assert run.returncode == 0, run.output
    found = dict(re.findall(r"^(\w+): (1\.0\+[0-9a-f]{12})$", run.output, flags=re.M))
    assert len(found) == 4 and found["ours"] == found["clone"], run.output
    assert len({found["ours"], found["newer"], found["renamed"]}) == 3


# What stands for a folder's files where -resume compares.
FOLDERS = """
include {{ contentsOf ; modelContents ; writtenTo }} from '{root}/workflows/inputs'

workflow {{
    def here    = file('.')
    def written = writtenTo([outdir: 'results', model_cache_dir: 'kept'])
    println("copy: ${{modelContents(file('ours')) == modelContents(file('clone'))}}")
    def models  = {{ -> ['ours', 'theirs'].collectEntries {{ name -> [name, modelContents(file(name))] }} }}
    def said    = {{ -> [sample: contentsOf(here, written)] + models.call() }}
    params.changes.tokenize(',').each {{ name ->
        def before = said.call()
        file(name).parent.mkdirs()
        file(name).text = 'written'
        def after  = said.call()
        println("${{name}}: ${{after.keySet().findAll {{ of -> after[of] != before[of] }}}}")
    }}
}}
"""


def test_a_folder_is_told_by_its_own_data_alone_and_a_model_by_its_manifest_or_all_its_files(
    launch: Launch,
) -> None:
    """A folder that runs are started in holds the tasks, whose links lead back to it: to follow them takes for ever."""
    here = launch.folder
    for name in ("loop", "again", "once_more"):
        (here / name).symlink_to(here)
    for name in ("ours", "clone"):
        (here / name).mkdir()
        (here / name / "manifest.json").write_text("{}")
        (here / name / "genes.tsv").write_text(name)
    (here / "theirs" / "code").mkdir(parents=True)
    (here / "theirs" / "MLmodel").write_text("flavors: {}")
    (here / "elsewhere.h5").write_text("as it was")
    (here / "linked.h5").symlink_to("elsewhere.h5")
    expected = {
        "outs/filtered/matrix.mtx": "[sample]",
        "elsewhere.h5": "[sample]",
        "results/x.tsv": "[]",
        "kept/x.tsv": "[]",
        "work/ab/cd/x.h5": "[]",
        ".nextflow/x.csv": "[]",
        "theirs/code/predict.py": "[theirs]",
        "theirs/python_model.pkl": "[theirs]",
        "ours/manifest.json": "[sample, ours]",
    }
    launch.write("main.nf", FOLDERS.format(root=ROOT))
    run = launch.run("--changes", ",".join(expected), script=here / "main.nf")
    assert run.returncode == 0, run.output
    assert dict(re.findall(r"^(\S+): (\[.*\])$", run.output, flags=re.M)) == expected
    assert "copy: true" in run.output


def test_the_folder_that_a_run_is_started_in_is_done_again_only_where_its_data_changed(
    launch: Launch,
) -> None:
    (launch.folder / "model").mkdir()
    matrix = launch.folder / "filtered_feature_bc_matrix.h5"
    matrix.write_bytes(b"a matrix")
    arguments = ("-stub-run", "--input", ".", "--model", "./model")
    assert launch.run(*arguments).returncode == 0
    again = launch.run(*arguments, "-resume")
    assert again.returncode == 0 and again.tasks("Submitted") == [], again.output
    matrix.write_bytes(b"another one")
    changed = launch.run(*arguments, "-resume").tasks("Submitted")
    assert [name for name in changed if name.startswith("CONVERT")], changed


def test_what_a_bigger_machine_can_mend_is_tried_again_with_more_up_to_the_sites_own_limits(
    launch: Launch,
) -> None:
    launch.write(
        "site.config",
        "params { max_memory = 3.GB; max_time = 36.h; config_profile_description = 'a site'\n"
        "config_profile_url = 'https://example.org'; custom_config_version = 'master' }\n"
        "trace.fields = 'name,process,tag,status,exit,attempt,memory,time,workdir'\n"
        "process { withName: QC { memory = { 2.GB * task.attempt }\n"
        "beforeScript = { task.attempt < 4 ? 'exit 137' : 'true' } } }\n",
    )
    run = launch.run("-stub-run", "-c", "site.config", "--input", str(DEMO))
    assert run.returncode == 0, run.output
    tries = [row for row in run.table("pipeline_info/trace.txt") if row["process"].endswith(":QC")]
    assert [(row["status"], row["exit"], row["attempt"], row["memory"], row["time"]) for row in tries] == [
        ("FAILED", "137", "1", "2 GB", "8h"),
        ("FAILED", "137", "2", "3 GB", "16h"),
        ("FAILED", "137", "3", "3 GB", "1d"),
        ("COMPLETED", "0", "4", "3 GB", "1d 8h"),
    ]
    assert run.table("summary/failures.tsv") == []
    said = json.loads((run.results / "pipeline_info/params.json").read_text())["params"]
    assert (said["max_memory"], said["max_time"], said["max_cpus"]) == ("3 GB", "1d 12h", None)


def test_an_exit_that_may_be_a_lost_machine_is_none_on_this_one(launch: Launch) -> None:
    launch.write("fail.config", "process { withName: QC { beforeScript = 'exit 1' } }\n")
    run = launch.run("-stub-run", "-c", "fail.config", "-profile", "test")
    tries = [row for row in run.table("pipeline_info/trace.txt") if row["process"].endswith(":QC")]
    assert [(row["exit"], row["attempt"]) for row in tries] == [("1", "1")]


def test_where_every_sample_fails_the_run_still_sums_up(launch: Launch) -> None:
    (launch.folder / "model").mkdir()
    launch.write(
        "fail.config", "process { withName: CONVERT { beforeScript = 'echo error: no cells >&2; exit 5' } }\n"
    )
    where = ("-with-trace", "trace of mine.txt")
    run = launch.run("-stub-run", "-c", "fail.config", "-profile", "test", "--model", "./model", *where)
    assert run.returncode != 0
    assert {"summary/summary.tsv", "summary/multiqc_report.html"} <= run.files()
    (failure,) = run.table("summary/failures.tsv")
    assert (failure["sample"], failure["step"], failure["exit_code"]) == ("demo", "CONVERT", "5")
    assert failure["meaning"] == "nothing left after quality control"


def test_without_a_trace_the_run_says_that_it_cannot_list_what_failed(launch: Launch) -> None:
    launch.write(
        "off.config", "trace.enabled = false\nprocess { withName: CONVERT { beforeScript = 'exit 5' } }\n"
    )
    run = launch.run("-stub-run", "-c", "off.config", "-profile", "test")
    assert run.returncode != 0 and run.table("summary/failures.tsv") == []
    assert "What failed is not listed, as the trace is off" in run.output


def test_a_preview_says_nothing_of_results_and_lists_no_failures(launch: Launch) -> None:
    run = launch.run("-preview", "-profile", "test")
    assert run.returncode == 0, run.output
    assert "Done." not in run.output and "summary/failures.tsv" not in run.files()


@pytest.mark.parametrize("empty", [None, ""])
def test_an_empty_outdir_is_one_not_given_and_help_may_be_told_not_to_come(
    launch: Launch, empty: str | None
) -> None:
    (launch.folder / "model").mkdir()
    given = {"outdir": empty, "model_cache_dir": empty, "help": "false"}
    launch.write("given.json", json.dumps(given))
    run = launch.run("-stub-run", "-params-file", "given.json", "-profile", "test", "--model", "./model")
    assert run.returncode == 0, run.output
    assert run.files() == RUN_FILES | sample_files("demo")
    assert {path.name for path in launch.folder.iterdir() if not path.name.startswith(".")} == {
        *("given.json", "model", "results", "work")
    }


@pytest.fixture
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, str]]:
    """A folder, and the address of a server that hands out what lies in it."""
    folder = tmp_path_factory.mktemp("served")
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield folder, f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_another_model_behind_the_same_address_is_never_taken_for_the_first(
    launch: Launch, served: tuple[Path, str]
) -> None:
    folder, address = served
    launch.write("bad.h5ad", "no cells, as the model alone matters here")
    seen = []
    for name in ("first", "later"):
        model = Path(shutil.copytree(small_model("logistic"), launch.folder / name))
        fields = json.loads((model / "manifest.json").read_text())
        for written_anew in ("format", "format_version", "files"):
            del fields[written_anew]
        write_manifest(model, fields | {"description": name})
        pack_model(model, folder / "model.zip")
        run = launch.run("--input", "bad.h5ad", "--model", f"{address}/model.zip", "-resume")
        assert "FETCH_MODEL" in " ".join(run.tasks("Submitted")), run.output
        seen.append(model_sha256(model))
        kept = {path.name for path in (launch.folder / ".models_cache").iterdir() if path.is_dir()}
        assert kept == set(seen)
    assert seen[0] != seen[1]
    # A copy that was damaged without a change of its size is made good by the one that was fetched and verified.
    kept = launch.folder / ".models_cache" / seen[1] / "genes.tsv"
    whole = kept.read_bytes()
    kept.write_bytes(b"x" + whole[1:])
    launch.run("--input", "bad.h5ad", "--model", f"{address}/model.zip", "-resume")
    assert kept.read_bytes() == whole


def test_a_model_in_the_cache_is_not_fetched_again(launch: Launch) -> None:
    sha256 = hashlib.sha256(b"{}").hexdigest()
    kept = launch.folder / "cache" / sha256
    kept.mkdir(parents=True)
    (kept / "manifest.json").write_text("{}")
    gone = "--model file:///none/model.zip --model_cache_dir cache --model_sha256"
    found = launch.run("-stub-run", "-profile", "test", *gone.split(), sha256)
    assert found.returncode == 0, found.output
    # By the sha256 of the archive that it came from, too.
    (launch.folder / "cache" / f"{'ef' * 32}.archive").write_text(f"{sha256}\n")
    by_archive = launch.run("-stub-run", "-profile", "test", *gone.split(), "ef" * 32)
    assert by_archive.returncode == 0, by_archive.output
    other = launch.run("-stub-run", "-profile", "test", *gone.split(), "cd" * 32)
    assert other.returncode != 0 and "/none/model.zip" in other.output


def test_a_downloaded_model_is_the_same_model_to_the_steps_after_resume(
    launch: Launch, served: tuple[Path, str]
) -> None:
    folder, address = served
    pack_model(small_model("logistic"), folder / "same.zip")
    write_reference(simulate(120, seed=1), launch.folder / "s.h5ad")
    known = model_sha256(small_model("logistic"))
    arguments = f"--input s.h5ad --model {address}/same.zip --model_sha256 {known} --doublets off".split()
    run = launch.run(*arguments)
    assert run.returncode == 0, run.output
    again = launch.run(*arguments, "-resume")
    assert again.returncode == 0, again.output
    assert again.tasks("Submitted") == ["FETCH_MODEL"], "it is verified once more where it is kept"


class BreaksOff(http.server.BaseHTTPRequestHandler):
    """A server that promises a thousand bytes and gives ten."""

    def do_HEAD(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "1000")
        self.end_headers()

    def do_GET(self) -> None:
        self.do_HEAD()
        self.wfile.write(b"x" * 10)

    def log_message(self, *_: object) -> None:
        pass


def test_a_sample_that_breaks_off_while_it_is_fetched_ends_the_run_and_is_named(launch: Launch) -> None:
    """Passed over as other failures are, Nextflow would wait for it for ever."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), BreaksOff) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}/x.h5ad"
        launch.write("sheet.csv", f"sample,path\na,{DEMO}\nx,{address}\n")
        run = launch.run("-stub-run", "--input", "sheet.csv")
        server.shutdown()
    assert run.returncode != 0
    assert f"Can't stage file {address}" in run.output


# --- parameters ---


def test_all_wrong_parameters_and_rows_are_told_at_once_and_nothing_runs(launch: Launch) -> None:
    launch.write("s.csv", "sample,path\na,none.h5ad\na b,none.h5\n")
    wrong = "--input s.csv --organism humen --doubletss off --n_mads many --min-genes 5 --model pmbc"
    wrong += " --model_version 1.10 --slurm_account 00123 --seed 07"
    run = launch.run(*wrong.split())
    assert run.returncode != 0
    for words in (
        "did you mean 'human'?",
        "did you mean 'doublets'?",
        "'many' is not a number",
        "did you mean 'min_genes'?",
        "did you mean 'pbmc'?",
        "line 2, path: 'none.h5ad' does not exist",
        "line 3, sample: 'a b'",
        "--model_version was read as the number 1.1: zeros before or behind it are lost",
        "--slurm_account was read as the number 123:",
    ):
        assert words in run.output
    assert run.output.count("was read as the number") == 2, "--seed is one"
    assert run.tasks("Submitted") == ["CHECK_INPUT"]


def test_paths_that_a_task_cannot_see_are_told_at_once_too(launch: Launch) -> None:
    # As in a container or a bucket: CHECK_INPUT leaves what is no plain path to Nextflow.
    (launch.folder / "model").mkdir()
    launch.write("s.csv", "sample,path\nx,file:///none/x.h5ad\ny,file:///none/y.h5ad\n")
    run = launch.run("-stub-run", "--input", "s.csv", "--model", "./model")
    assert run.returncode != 0
    assert "2 of 2 samples have a path that does not exist" in run.output
    assert "'x': file:///none/x.h5ad" in run.output and "'y': file:///none/y.h5ad" in run.output


def test_the_models_of_the_catalogues_are_listed_and_nothing_runs(launch: Launch) -> None:
    launch.write("mine.csv", 'name,version,url,types\nlung,2.0,lung.zip,"AT1 cell, AT2 cell"\n')
    run = launch.run("--model", "list", "--catalogue", "mine.csv")
    assert run.returncode == 0, run.output
    assert "pbmc 1.3\n      human, blood; held-out accuracy 0.929" in run.output
    assert "lung 2.0\n      AT1 cell, AT2 cell\n      lung.zip" in run.output
    assert run.tasks("Submitted") == [] and not Path(launch.folder / "results").exists()


def test_help_lists_the_parameters_and_leaves_nothing(launch: Launch) -> None:
    short, full = launch.run("--help"), launch.run("--help", "full")
    assert short.returncode == full.returncode == 0
    assert "--input" in short.output and "[annotate, train, reference; default: annotate]" in short.output
    assert "--n_latent" not in short.output and "--n_latent" in full.output
    assert not Path(launch.folder / "results").exists()


def test_a_filter_for_the_census_reaches_its_task_as_it_was_written_and_no_shell(launch: Launch) -> None:
    said = "tissue_general in ['lung', \"Crohn's\"] and (is_primary_data == True)"
    run = launch.run("-stub-run", "--mode", "reference", "--census", said, "--census_holdout_donors", "2")
    assert run.returncode == 0, run.output
    assert {"reference/reference.h5ad", "reference/held_out.h5ad", "reference/reference.json"} <= run.files()
    (query,) = {path.resolve() for path in (launch.folder / "work").glob("*/*/query.json")}
    asked = json.loads(query.read_text())
    assert (asked["filter"], asked["holdout_donors"], asked["organism"]) == (said, 2, "human")


def test_a_filter_that_is_none_is_refused_before_anything_runs(launch: Launch) -> None:
    run = launch.run("--mode", "reference", "--census", "tissue == $(touch hacked)")
    assert run.returncode != 0 and "--census" in run.output and "as tissue_general ==" in run.output
    assert not list(launch.folder.rglob("hacked"))
