"""bin/annotate_one.py: one command, no Nextflow."""

from __future__ import annotations

import functools
import json
import runpy
import shutil
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace

import anndata
import click
import h5py
import numpy as np
import pytest
from click.testing import CliRunner
from foreign_model import make_foreign_model
from small_model import as_organism, barnyard, model_of, simulate, small_model

from cellscribe import clusters, obtain
from cellscribe.errors import ModelFetchError
from cellscribe.model.archive import pack_model
from cellscribe.model.foreign import content_sha256
from cellscribe.model.manifest import model_sha256, verify_model, write_manifest
from cellscribe.obtain import obtained_model

# `cellxgene annotate --help` of version 1.3.0.
THEIRS = {
    "counts_layer": (("-l", "--counts-layer"), None),
    "gene_column_name": (("-g", "--gene-column-name"), None),
    "model_url": (("-m", "--model-url"), None),
    "output_h5ad_file": (("-o", "--output-h5ad-file"), None),
    "overwrite": (("--overwrite",), False),
    "annotation_type": (("-a", "--annotation-type"), "cell_type"),
    "annotation_prefix": (("-c", "--annotation-prefix"), "cxg"),
    "run_name": (("-n", "--run-name"), None),
    "use_model_cache": (("--use-model-cache",), True),
    "use_gpu": (("--use-gpu",), True),
    "classifier": (("--classifier",), "default"),
    "organism": (("--organism",), "Homo sapiens"),
    "model_cache_dir": (("--model-cache-dir",), ".models_cache"),
    "mlflow_env_manager": (("--mlflow-env-manager",), "virtualenv"),
}


@pytest.fixture(scope="module")
def command(root: Path) -> click.Command:
    return runpy.run_path(str(root / "bin" / "annotate_one.py"))["main"]


@pytest.fixture(autouse=True)
def flat(monkeypatch):
    """No UMAP, which other tests cover."""
    monkeypatch.setattr(clusters, "umap_layout", lambda embedding, *_, **__: clusters.flat_layout(embedding))


@pytest.fixture
def query(tmp_path: Path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    simulate(60, seed=1).write_h5ad(tmp_path / "query.h5ad")
    return tmp_path / "query.h5ad"


def run(command: click.Command, *arguments: object):
    return CliRunner().invoke(command, [str(argument) for argument in arguments])


@pytest.mark.parametrize("name", THEIRS)
def test_an_option_of_theirs_has_the_same_names_and_default(command, name):
    option = {parameter.name: parameter for parameter in command.params}[name]
    opts, default = THEIRS[name]
    assert set(opts) <= set(option.opts)
    got = command.make_context("x", [__file__, "-m", "pbmc"]).params[name]
    assert name == "model_url" or got in (default, Path(str(default)))


def test_the_documented_table_names_every_option(root, command):
    text = (root / "docs" / "usage.md").read_text()
    section = text.split("## From CELLxGENE Annotate")[1].split("\n## ")[0]
    for parameter in command.params:
        if isinstance(parameter, click.Option) and parameter.name not in ("help", "pipeline_version"):
            assert f"`{parameter.opts[-1]}" in section or f"{parameter.opts[-1]}`" in section, parameter.opts


def test_it_names_the_cells_of_an_h5ad_and_keeps_what_it_held(command, query):
    before = anndata.read_h5ad(query)
    result = run(command, query, "-m", small_model("consensus"), "-o", "out.h5ad", "-n", "day1")
    assert result.exit_code == 0, result.output
    after = anndata.read_h5ad("out.h5ad")
    right = after.obs["cxg_cell_type_day1_predicted"].astype(str) == after.obs["cell_type"].astype(str)
    assert right.mean() > 0.95
    assert list(after.obs_names) == list(before.obs_names) and (after.X != before.X).nnz == 0
    assert "mapping: 1 of 1 (100 %)" in result.output
    assert "use_gpu" not in result.output
    asked = run(command, query, "-m", small_model("consensus"), "-o", "asked.h5ad", "--use-gpu")
    assert "--use_gpu: 60 cells are mapped in seconds" in asked.output


def test_clusters_and_strictness_are_the_users(command, query):
    more = ("--cluster-key", "cell_type", "--min-probability", 1, "--reject-novel", "false")
    result = run(command, query, "-m", small_model("consensus"), "-o", "out.h5ad", *more)
    assert result.exit_code == 0, result.output
    adata = anndata.read_h5ad("out.h5ad")
    assert (adata.obs["cxg_cell_type_cluster"].astype(str) == adata.obs["cell_type"].astype(str)).all()
    parameters = json.loads(adata.uns["cxg_cell_type_predictions"]["parameters"])
    assert (parameters["cluster_key"], parameters["reject_novel"]) == ("cell_type", False)
    assert parameters["rejection"]["least_probability"] == 1
    gone = run(command, query, "-m", small_model("consensus"), "-o", "o.h5ad", "--cluster-key", "cell_typ")
    assert gone.exit_code == 0 and "there is no such column" in gone.output and "cell_type" in gone.output


def as_before_0_7(query: Path) -> None:
    """Write obs and var as one structured array each, as anndata did before 0.7."""
    cells = anndata.read_h5ad(query)
    obs = np.array([(name.encode(),) for name in cells.obs_names], dtype=[("index", "S40")])
    genes = zip(cells.var_names, cells.var["gene_ids"], strict=True)
    var = np.array(
        [(name.encode(), gene.encode()) for name, gene in genes],
        dtype=[("index", "S40"), ("gene_ids", "S20")],
    )
    with h5py.File(query, "r+") as file:
        for name, table in (("obs", obs), ("var", var)):
            del file[name]
            file[name] = table


def test_a_file_from_before_anndata_0_7_gets_its_names_in_a_file_of_today(command, query):
    as_before_0_7(query)
    result = run(command, query, "-m", small_model("logistic"), "-o", "out.h5ad")
    assert result.exit_code == 0, result.output
    assert "cxg_cell_type_predicted" in anndata.read_h5ad("out.h5ad").obs


def test_the_other_organism_and_a_mixture_are_named_only_where_asked(command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    as_organism(simulate(60, seed=1), "mouse").write_h5ad("mouse.h5ad")
    barnyard().write_h5ad("both.h5ad")
    human = ("-m", model_of("human"), "-o", "out.h5ad", "--organism", "auto")
    for query, code, said in (("mouse.h5ad", 4, "--orthologs"), ("both.h5ad", 3, "--genome mouse")):
        result = run(command, query, *human)
        assert result.exit_code == code and said in result.stderr
    for arguments in (("mouse.h5ad", *human), ("both.h5ad", *human, "--genome", "mouse")):
        result = run(command, *arguments, "--orthologs", "--overwrite")
        assert result.exit_code == 0 and "These are mouse cells" in result.stderr, result.output
        named = anndata.read_h5ad("out.h5ad")
        right = named.obs["cxg_cell_type_predicted"].astype(str) == named.obs["cell_type"].astype(str)
        assert right.mean() > 0.9


@pytest.mark.parametrize("more", [(), ("--qc", "flag")])
def test_an_organism_that_nobody_gave_is_not_held_against_the_genes(command, tmp_path, monkeypatch, more):
    monkeypatch.chdir(tmp_path)
    as_organism(simulate(60, seed=1), "mouse").write_h5ad("mouse.h5ad")
    human = ("mouse.h5ad", "-m", model_of("human"), "-o", "out.h5ad", *more)
    result = run(command, *human)
    assert result.exit_code == 4, result.output
    assert (
        "is for human, but the sample's genes are mouse" in result.stderr and "--orthologs" in result.stderr
    )
    given = run(command, *human, "--organism", "Homo sapiens")
    assert given.exit_code == 3 and "given as human, but the data look like mouse" in given.stderr
    for model, options in ((model_of("mouse"), ()), (model_of("human"), ("--orthologs",))):
        result = run(command, "mouse.h5ad", "-m", model, "-o", "out.h5ad", "--overwrite", *more, *options)
        assert result.exit_code == 0, result.output


@pytest.mark.parametrize("more", [(), ("--qc", "flag")])
def test_what_reading_must_tell_is_said_once(command, query, more):
    cells = anndata.read_h5ad(query)
    cells.var_names = [*cells.var_names[:-2], "CD3_TotalSeqB", "CD4_TotalSeqB"]
    cells.write_h5ad(query)
    result = run(command, query, "-m", small_model("logistic"), "-o", "out.h5ad", *more)
    assert result.exit_code == 0, result.output
    assert result.stderr.count("2 of 400 features are named like antibodies") == 1


def test_nothing_is_written_over_unasked(command, query):
    model = small_model("logistic")
    content = query.read_bytes()
    for arguments in ((query, "-m", model), (query, "-m", model, "-o", query)):
        result = run(command, *arguments)
        assert result.exit_code == 2 and "--overwrite" in result.output
    assert query.read_bytes() == content
    result = run(command, query, "-m", model, "--overwrite")
    assert result.exit_code == 0, result.output
    assert "cxg_cell_type_predicted" in anndata.read_h5ad(query).obs


def test_cell_ranger_output_is_read_and_checked_as_the_pipeline_does(command, root, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    demo = root / "assets" / "demo" / "filtered_feature_bc_matrix.h5"
    result = run(command, demo, "-m", "pbmc", "--overwrite")
    assert result.exit_code == 2, "a Cell Ranger file is never written over"
    result = run(command, demo, "-m", "pbmc", "-o", "out.h5ad", "--qc", "filter")
    assert result.exit_code == 0, result.output
    adata = anndata.read_h5ad("out.h5ad")
    assert {"cxg_cell_type_final", "qc_pass"} <= set(adata.obs)
    assert adata.uns["cxg_cell_type_predictions"]["model_name"] == "pbmc"


def test_a_model_that_is_nowhere_is_told_before_anything_is_read(command, query):
    result = run(command, query, "-m", "pmbc", "-o", "out.h5ad")
    assert result.exit_code == 3 and "'pmbc'" in result.output and "pbmc" in result.output
    assert run(command, query, "-m", "no.zip", "-o", "out.h5ad").exit_code == 6
    assert run(command, query, "-m", "s3://bucket/no.zip", "-o", "out.h5ad").exit_code == 6


def test_several_models_are_left_to_the_pipeline(command, query):
    result = run(command, query, "-m", "pbmc,lung", "-o", "out.h5ad")
    assert result.exit_code == 2 and "nextflow run . --model pbmc,lung" in " ".join(result.output.split())


def other_model(folder: Path) -> Path:
    """A model that differs in its description alone."""
    copy = shutil.copytree(small_model("logistic"), folder)
    write_manifest(copy, verify_model(copy) | {"description": "another"})
    return copy


def sha256_of(place: str, **options: str) -> str:
    with obtained_model(place, cache=Path("cache"), **options) as folder:
        return model_sha256(folder)


@pytest.mark.parametrize("scheme", ["", "file://"])
def test_another_model_behind_the_same_name_is_never_taken_from_the_cache(scheme, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    old, new = small_model("logistic"), other_model(tmp_path / "other")
    place = f"{scheme}{tmp_path}/model.zip"
    pack_model(old, tmp_path / "model.zip")
    assert sha256_of(place) == model_sha256(old)
    pack_model(new, tmp_path / "model.zip")
    assert sha256_of(place) == model_sha256(new) != model_sha256(old)


def test_a_model_of_known_content_is_downloaded_once(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    archive = pack_model(small_model("logistic"), tmp_path / "model.zip")
    place, known = f"file://{archive}", model_sha256(small_model("logistic"))
    assert sha256_of(place) == known
    archive.unlink()
    assert sha256_of(place, sha256=known) == known
    (tmp_path / "cache" / known / "genes.tsv").write_text("")
    with pytest.raises(ModelFetchError, match="could not be downloaded"):
        sha256_of(place, sha256=known)


@pytest.mark.parametrize(
    "place", ["http://host/my model.zip", "http://host/модель.zip", "http://host:abc/m.zip"]
)
def test_an_address_that_is_none_is_told_as_one(place, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelFetchError, match="could not be downloaded"):
        sha256_of(place)


def test_a_version_with_another_sha256_is_refused_where_the_one_asked_for_is_kept(tmp_path, monkeypatch):
    """An alias that has moved on: what is kept would be credited to the version that it means now."""
    monkeypatch.chdir(tmp_path)
    archive, known = (
        pack_model(small_model("logistic"), tmp_path / "m.zip"),
        model_sha256(small_model("logistic")),
    )
    assert sha256_of(f"file://{archive}", sha256=known) == known
    version = SimpleNamespace(url="models:/lung/4", sha256="ab" * 32)
    monkeypatch.setattr(obtain, "resolve", lambda *_: version)
    with pytest.raises(ModelFetchError, match="models:/lung/4 has the sha256 abab"):
        sha256_of("models:/lung@champion", sha256=known)


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


def test_the_signature_of_an_address_is_used_and_neither_said_nor_written(command, query, tmp_path):
    handler = functools.partial(Quiet, directory=str(tmp_path / "served"))
    (tmp_path / "served").mkdir()
    pack_model(small_model("logistic"), tmp_path / "served" / "model.zip")
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        host = f"127.0.0.1:{server.server_port}"
        address = f"http://{host}/model.zip?X-Amz-Signature=hunter2"
        good = run(command, query, "-m", address, "-o", "out.h5ad")
        nowhere = run(command, query, "-m", address.replace("model.zip", "none.zip"), "-o", "no.h5ad")
        refused = run(command, query, "-m", f"http://me:hunter2@{host}/model.zip", "-o", "no.h5ad")
        server.shutdown()
    assert (good.exit_code, nowhere.exit_code, refused.exit_code) == (0, 6, 3), good.output + nowhere.output
    assert "holds a user name or a password" in refused.output
    assert "hunter2" not in good.output + nowhere.output + refused.output
    said = anndata.read_h5ad("out.h5ad").uns["cxg_cell_type_predictions"]
    assert said["model_url"] == f"http://{host}/model.zip?X-Amz-Signature=***"
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and b"hunter2" in path.read_bytes()]


def test_a_model_made_by_others_names_the_cells_only_where_it_is_trusted(command, query, tmp_path):
    trace = tmp_path / "trace"
    pack = shutil.make_archive("theirs", "zip", make_foreign_model(tmp_path / "m", trace=trace))
    asked = (query, "-m", pack, "-o", "out.h5ad", "--mlflow-env-manager", "local", "-n", "day1")
    refused = run(command, *asked)
    assert refused.exit_code == 6 and "--trust_model_code" in refused.output
    assert not trace.exists() and not Path("out.h5ad").exists()

    result = run(command, *asked, "--trust-model-code")
    assert result.exit_code == 0, result.output
    assert trace.exists()
    before, after = anndata.read_h5ad(query), anndata.read_h5ad("out.h5ad")
    assert (before.X != after.X).nnz == 0 and list(before.var_names) == list(after.var_names)
    key = "cxg_cell_type_day1"
    right = after.obs[f"{key}_predicted"].astype(str) == before.obs["cell_type"].astype(str)
    assert right.mean() > 0.9
    assert {key, f"{key}_umap", f"X_{key}_umap"} <= set(after.obsm)
    assert after.uns[f"{key}_predictions"]["model_url"] == pack

    # What is kept is kept by what it holds, and is not trusted another time.
    kept = [folder for folder in Path(".models_cache").iterdir() if folder.is_dir()]
    assert [folder.name for folder in kept] == [content_sha256(kept[0])]
    assert run(command, *asked, "--overwrite").exit_code == 6
