"""map.py, and what the two steps of annotation load."""

import os
import subprocess
import sys

import anndata
import pytest
from click.testing import CliRunner
from small_model import (
    as_organism,
    model_of,
    simulate,
    small_counts,
    small_mapping,
    small_model,
    write_counts,
    write_reference,
)


@pytest.fixture(autouse=True)
def keep_threads(monkeypatch):
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "POLARS_MAX_THREADS"):
        monkeypatch.setenv(name, os.environ.get(name, "1"))
    # numba refuses another number of threads once it has run
    monkeypatch.setattr("cellscribe.cli.set_threads", lambda cpus: None)


@pytest.fixture(scope="module")
def command(root):
    import runpy

    return runpy.run_path(str(root / "bin" / "map.py"))["main"]


def run(command, output, *more, counts=None):
    arguments = ["--sample", "s1", "--counts", counts or small_counts(), "--model", small_model("logistic")]
    return CliRunner().invoke(command, [str(a) for a in (*arguments, "--output", output, *more)])


def test_a_sample_is_mapped_and_the_log_says_by_how_many_genes(command, tmp_path):
    result = run(command, tmp_path / "s1.mapping.h5ad", "--pipeline-version", "0.1.0", "--use-gpu", "true")
    assert result.exit_code == 0, result.output
    assert "90 cells mapped by" in result.stderr and "no use for a GPU" in result.stderr
    assert anndata.read_h5ad(tmp_path / "s1.mapping.h5ad").obsm["logistic_scores"].shape == (90, 5)


def test_a_model_of_another_organism_ends_with_code_4_and_writes_nothing(command, tmp_path):
    result = run(command, tmp_path / "m.h5ad", "--organism", "Mus musculus")
    assert result.exit_code == 4
    assert result.stderr.startswith("error: sample 's1', file '")
    assert "filtered.h5ad': the model 'small 1.0' is for human" in result.stderr
    assert not (tmp_path / "m.h5ad").exists()


def test_another_organism_is_mapped_by_orthologues_where_asked(command, tmp_path):
    mouse = write_counts(as_organism(simulate(20, seed=1), "mouse"), tmp_path / "c.h5ad", organism="mouse")
    arguments = [*("--model", model_of("human")), *("--output", tmp_path / "m.h5ad")]
    result = run(command, tmp_path / "m.h5ad", *arguments, counts=mouse)
    assert result.exit_code == 4 and "the sample's genes are mouse" in result.stderr
    result = run(command, tmp_path / "m.h5ad", *arguments, "--orthologs", "true", counts=mouse)
    assert result.exit_code == 0 and "warning: These are mouse cells" in result.stderr


def test_genes_that_do_not_fit_end_with_code_4_unless_the_bar_is_lowered(command, tmp_path):
    counts = write_counts(simulate(20, seed=1)[:, 80:].copy(), tmp_path / "c.h5ad")
    result = run(command, tmp_path / "m.h5ad", counts=counts)
    assert result.exit_code == 4 and "genes are in the data" in result.stderr
    result = run(command, tmp_path / "m.h5ad", "--min-gene-overlap", "0.1", counts=counts)
    assert result.exit_code == 0 and "warning: Only" in result.stderr


def test_a_missing_gene_column_and_a_wrong_file_end_with_code_3(command, tmp_path):
    assert run(command, tmp_path / "m.h5ad", "--gene-column-name", "nowhere").exit_code == 3
    assert run(command, tmp_path / "m.h5ad", counts=small_mapping("logistic")).exit_code == 3


def test_a_folder_that_is_no_model_ends_with_code_6(command, tmp_path):
    arguments = [
        "--sample",
        "s1",
        "--counts",
        small_counts(),
        "--model",
        tmp_path,
        "--output",
        tmp_path / "m",
    ]
    assert CliRunner().invoke(command, [str(a) for a in arguments]).exit_code == 6


def test_no_step_of_annotation_loads_torch_scvi_lightning_or_mlflow(root, tmp_path, monkeypatch):
    # QC writes where it is.
    monkeypatch.chdir(tmp_path)
    write_reference(simulate(90, seed=1), tmp_path / "s1.h5ad")
    model = str(small_model("consensus"))
    given = {
        "convert": "--input s1.h5ad --output c.h5ad --metrics c.json",
        "qc": "--counts c.h5ad --doublets off",
        "map": f"--counts s1.filtered.h5ad --model {model} --output m.h5ad",
        "annotate": f"--counts s1.filtered.h5ad --model {model} --mapping m.h5ad --output a.h5ad "
        "--predictions p.tsv.gz --summary a.json",
        "report": f"--annotated a.h5ad --convert c.json --qc s1.qc.json --annotation a.json --model {model} "
        "--qc-violin s1.qc_violin.png --qc-knee s1.qc_knee.png --qc-scatter s1.qc_scatter.png --output r.html "
        "--markers m.tsv --differential de.tsv.gz --clusters cl.tsv --verdicts v.tsv --verdict-summary v.json "
        "--truth t.tsv --truth-summary t.json",
    }
    steps = {f"{step}.py": ["--sample", "s1", *arguments.split()] for step, arguments in given.items()}
    code = "import runpy, sys\n"
    for name, arguments in steps.items():
        code += f"sys.argv = {[name, *arguments]!r}\n"
        code += f"try: runpy.run_path({str(root / 'bin' / name)!r}, run_name='__main__')\n"
        code += "except SystemExit as stop: assert not stop.code, stop.code\n"
    code += "heavy = {'torch', 'scvi', 'lightning', 'mlflow'} & set(sys.modules)\nassert not heavy, heavy\n"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(root / "bin")},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "cxg_cell_type_umap" in anndata.read_h5ad(tmp_path / "a.h5ad").obsm
