"""Samples mapped in parts, in the real Nextflow."""

from __future__ import annotations

from pathlib import Path

import anndata
import numpy as np
from nextflow_runner import DEMO, Launch
from small_model import simulate, small_model, write_reference

from cellscribe.published import check_results


def same_files(one: Path, other: Path) -> None:
    """Whether two annotated files hold the same cells, embeddings and names; dates and versions apart."""
    first, second = anndata.read_h5ad(one), anndata.read_h5ad(other)
    assert first.obs.equals(second.obs) and first.var.equals(second.var)
    assert (first.X != second.X).nnz == 0
    assert set(first.obsm) == set(second.obsm)
    for key in first.obsm:
        np.testing.assert_array_equal(first.obsm[key], second.obsm[key], err_msg=key)


def test_a_sample_mapped_in_shards_has_the_names_of_one_mapped_at_once(launch: Launch) -> None:
    write_reference(simulate(130, seed=1), launch.folder / "big.h5ad")
    write_reference(simulate(45, seed=2), launch.folder / "little.h5ad")
    launch.write("sheet.csv", "sample,path\nbig,big.h5ad\nlittle,little.h5ad\n")
    options = f"--input sheet.csv --model {small_model('consensus')} --qc flag --doublets off".split()
    at_once = launch.run(*options, "--outdir", "at_once")
    assert at_once.returncode == 0, at_once.output
    sharded = launch.run(*options, "--outdir", "sharded", "--shard_cells", "50", "-resume")
    assert sharded.returncode == 0, sharded.output
    steps = [name for name in sharded.tasks("Submitted") if name.startswith(("MAP", "GATHER"))]
    assert steps == [
        "GATHER (big)",
        "MAP (big cells 0:50)",
        "MAP (big cells 100:130)",
        "MAP (big cells 50:100)",
    ]
    # A sample of fewer cells stays as it was, and so do the steps before.
    assert {"MAP (little)", "ANNOTATE (little)", "QC (big)"} <= set(sharded.tasks("Cached"))
    for name in ("at_once", "sharded"):
        assert [one.problems for one in check_results(launch.folder / name)] == [[], [], []]
    one, other = (launch.folder / name / "samples" / "big" for name in ("at_once", "sharded"))
    same_files(one / "big.annotated.h5ad", other / "big.annotated.h5ad")
    for name in ("big.predictions.tsv.gz", "big.clusters.tsv", "big.verdicts.tsv"):
        assert (one / name).read_bytes() == (other / name).read_bytes(), name


def test_shards_are_gathered_by_sample_and_model_and_resumed_whole(launch: Launch) -> None:
    for name in ("one", "two"):
        (launch.folder / name).mkdir()
    launch.write("sheet.csv", f"sample,path\na,{DEMO}\nb,{DEMO}\n")
    # The stub of QC says that it left 100 cells.
    arguments = ("-stub-run", "--input", "sheet.csv", "--model", "./one,./two", "--shard_cells", "60")
    run = launch.run(*arguments)
    assert run.returncode == 0, run.output
    by_model = [f"{sample} with {model}" for sample in "ab" for model in ("one", "two")]
    expected = [f"GATHER ({who})" for who in by_model]
    expected += [f"MAP ({who} cells {rows})" for who in by_model for rows in ("0:60", "60:100")]
    assert [name for name in run.tasks("Submitted") if name.startswith(("MAP", "GATHER"))] == sorted(expected)
    assert {"ANNOTATE (a)", "ANNOTATE (b)"} <= set(run.tasks("Submitted"))
    again = launch.run(*arguments, "-resume")
    assert again.returncode == 0 and again.tasks("Submitted") == [], again.output


def test_shards_and_fine_tuning_do_not_go_together_which_is_told_before_anything_runs(launch: Launch) -> None:
    run = launch.run("--input", str(DEMO), "--surgery", "--shard_cells", "1000")
    assert run.returncode != 0 and "--shard_cells: --surgery fine-tunes" in run.output
    assert run.tasks("Submitted") == ["CHECK_INPUT"]
