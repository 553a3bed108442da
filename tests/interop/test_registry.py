"""Models published in a real MLflow registry, and loaded from it by their names."""

from __future__ import annotations

import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import anndata
import pytest
from click.testing import CliRunner, Result
from nextflow_runner import NEXTFLOW, Launch, files_with
from small_model import simulate, small_model

from cellscribe.errors import ModelFetchError
from cellscribe.model.manifest import MANIFEST, list_files, model_sha256, verify_model, write_manifest
from cellscribe.registry import downloaded, parse_name, resolve


@pytest.fixture(autouse=True)
def keep_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cellscribe.cli.set_threads", lambda cpus: None)


def command(root: Path, name: str, *arguments: object, **variables: str) -> Result:
    """A command of bin/, with MLflow's environment variables."""
    main = runpy.run_path(str(root / "bin" / name))["main"]
    return CliRunner().invoke(main, [str(argument) for argument in arguments], env=variables)


def published(root: Path, model: Path, url: str, *more: str) -> str:
    result = command(root, "publish_model.py", "--model", model, *more, MLFLOW_TRACKING_URI=url)
    assert result.exit_code == 0, result.output
    return result.stdout.strip()


def bytes_of(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in (MANIFEST, *list_files(folder))}


def other_model(folder: Path) -> Path:
    """A model that differs in its description alone."""
    copy = shutil.copytree(small_model("logistic"), folder)
    write_manifest(copy, verify_model(copy) | {"description": "another"})
    return copy


@pytest.fixture(params=["mlflow_now", "mlflow_2"])
def server(request: pytest.FixtureRequest):
    return request.getfixturevalue(request.param)


def test_what_is_published_comes_back_byte_for_byte_by_each_of_its_names(root: Path, server, tmp_path: Path):
    from mlflow import MlflowClient

    model, new = small_model("logistic"), other_model(tmp_path / "new")
    first = published(root, model, server.url, "--registered-name", "names", "--alias", "champion")
    assert first == "models:/names/1"
    assert published(root, model, server.url, "--registered-name", "names") == first, "the same model twice"
    for name in ("models:/names/1", "models:/names@champion", "models:/names/latest"):
        found = resolve(parse_name(name), server.url)
        assert (found.url, found.sha256) == (first, model_sha256(model))
    with downloaded(found) as folder:
        assert bytes_of(folder) == bytes_of(model)
    assert not folder.exists()

    second = published(root, new, server.url, "--registered-name", "names", "--alias", "champion")
    assert second == "models:/names/2"
    for name, meant in (("models:/names@champion", second), ("models:/names/latest", second), (first, first)):
        assert resolve(parse_name(name), server.url).url == meant

    client = MlflowClient(server.url, server.url)
    version = client.get_model_version("names", "1")
    assert version.tags["sha256"] == model_sha256(model) and version.tags["organism"] == "human"
    run = client.get_run(version.run_id).data
    assert run.metrics["held_out_accuracy"] == verify_model(model)["evaluation"]["accuracy"]
    assert run.params["n_cells"] == "300" and run.tags["model_version"] == "1.0"


def test_the_pipeline_names_cells_with_a_model_of_the_registry(
    root: Path, mlflow_now, tmp_path: Path, monkeypatch
):
    if not NEXTFLOW.exists():
        pytest.skip("there is no .tools/bin/nextflow; `make nextflow` brings it")
    model = small_model("logistic")
    published(root, model, mlflow_now.url, "--registered-name", "piped", "--alias", "champion")
    simulate(60, seed=1).write_h5ad(tmp_path / "cells.h5ad")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", mlflow_now.url)
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "me")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "hunter2")
    query = "--input cells.h5ad --model models:/piped@champion --qc flag --doublets off"
    run = Launch(tmp_path).run(*query.split())
    assert run.returncode == 0, run.output
    kept = tmp_path / ".models_cache" / model_sha256(model)
    assert bytes_of(kept) == bytes_of(model)
    adata = anndata.read_h5ad(run.results / "samples" / "cells" / "cells.annotated.h5ad")
    said = adata.uns["cxg_cell_type_predictions"]
    assert (said["model_url"], said["model_sha256"]) == ("models:/piped/1", kept.name)
    assert "hunter2" not in run.output and files_with(b"hunter2", tmp_path) == []


def test_one_command_names_cells_with_it_and_downloads_it_once(
    root: Path, mlflow_now, tmp_path: Path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    published(root, small_model("logistic"), mlflow_now.url, "--registered-name", "single")
    simulate(9, seed=1).write_h5ad("cells.h5ad")
    arguments = ("cells.h5ad", "-m", "models:/single/latest", "--mlflow-tracking-uri", mlflow_now.url)
    first = command(root, "annotate_one.py", *arguments, "-o", "first.h5ad")
    assert first.exit_code == 0, first.output
    assert "Downloading models:/single/1" in first.output
    again = command(root, "annotate_one.py", *arguments, "-o", "again.h5ad")
    assert again.exit_code == 0 and "Downloading" not in again.output
    said = anndata.read_h5ad("again.h5ad").uns["cxg_cell_type_predictions"]
    assert said["model_url"] == "models:/single/1"
    assert said["model_sha256"] == model_sha256(small_model("logistic"))
    assert [path.name for path in (tmp_path / ".models_cache").iterdir()] == [said["model_sha256"]]


def test_mlflows_own_users_load_it_by_its_name(root: Path, mlflow_now, tmp_path: Path):
    published(root, small_model("logistic"), mlflow_now.url, "--registered-name", "theirs")
    # Too few for a UMAP, which other tests cover.
    simulate(9, seed=1).write_h5ad(tmp_path / "cells.h5ad")
    script = """
import json, mlflow, pandas
model = mlflow.pyfunc.load_model("models:/theirs/1")
request = {"query_dataset_h5ad_path": "cells.h5ad", "output_h5ad_path": "out.h5ad", "annotation_prefix": "mine"}
model.predict(pandas.DataFrame([json.dumps(request)]))
"""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", script],
        cwd=tmp_path,
        env={"PATH": "/usr/bin:/bin", "MLFLOW_TRACKING_URI": mlflow_now.url, "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "mine_predicted" in anndata.read_h5ad(tmp_path / "out.h5ad").obs


def fetched(root: Path, name: str, url: str, folder: Path) -> Result:
    return command(
        root, "fetch_model.py", "--model", name, "--tracking-uri", url, "--output-folder", folder / "models"
    )


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("models:/errors/7", ("'errors' has the versions 1", "champion")),
        ("models:/errors@second", ("'errors' has the versions 1", "champion")),
        ("models:/erors/1", ("did you mean 'errors'",)),
        ("models:/erors/latest", ("did you mean 'errors'",)),
    ],
)
def test_a_name_that_means_nothing_is_told_with_what_there_is(
    root: Path, mlflow_now, tmp_path: Path, name, words
):
    published(
        root, small_model("logistic"), mlflow_now.url, "--registered-name", "errors", "--alias", "champion"
    )
    result = fetched(root, name, mlflow_now.url, tmp_path)
    assert result.exit_code == 6 and name in result.output
    for word in words:
        assert word in result.output
    assert not (tmp_path / "models").exists()


def test_a_server_that_is_away_is_told_in_one_line(root: Path, tmp_path: Path, monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    for result in (
        fetched(root, "models:/any/1", "http://127.0.0.1:9", tmp_path),
        command(
            root,
            "publish_model.py",
            "--model",
            small_model("logistic"),
            "--tracking-uri",
            "http://127.0.0.1:9",
        ),
    ):
        assert result.exit_code == 6
        assert "http://127.0.0.1:9 cannot be reached" in result.output and "Traceback" not in result.output
    assert not (tmp_path / "models").exists()


def test_a_registered_model_of_others_is_refused_as_everywhere(root: Path, mlflow_now, tmp_path: Path):
    from mlflow import MlflowClient

    (tmp_path / "MLmodel").write_text("flavors: {}\n")
    client = MlflowClient(mlflow_now.url, mlflow_now.url)
    run = client.create_run(client.create_experiment("others"))
    client.log_artifacts(run.info.run_id, str(tmp_path), "model")
    client.create_registered_model("others")
    client.create_model_version("others", f"{run.info.artifact_uri}/model", run.info.run_id)
    result = fetched(root, "models:/others/1", mlflow_now.url, tmp_path)
    assert result.exit_code == 6
    assert "models:/others/1" in result.output and "made by others" in result.output
    assert not list((tmp_path / "models").iterdir())


@pytest.mark.parametrize("damage", ["shorter", "missing"])
def test_a_download_that_is_not_whole_leaves_nothing(root: Path, mlflow_now, tmp_path: Path, damage: str):
    model = other_model(tmp_path / "damaged")
    write_manifest(model, verify_model(model) | {"description": damage})
    name = published(root, model, mlflow_now.url, "--registered-name", damage)
    sha256 = resolve(parse_name(name), mlflow_now.url).sha256
    manifest = next(p for p in mlflow_now.artifacts.rglob(MANIFEST) if model_sha256(p.parent) == sha256)
    genes = manifest.with_name("genes.tsv")
    if damage == "shorter":
        genes.write_bytes(genes.read_bytes()[:-10])
    else:
        genes.unlink()
    result = fetched(root, name, mlflow_now.url, tmp_path)
    assert result.exit_code == 6, result.output
    assert f"{name}/genes.tsv" in result.output
    assert not list((tmp_path / "models").iterdir())


def test_a_password_is_never_part_of_an_address(root: Path, tmp_path: Path):
    result = fetched(root, "models:/any/1", "http://me:secret@127.0.0.1:9", tmp_path)
    assert result.exit_code == 3
    assert "MLFLOW_TRACKING_PASSWORD" in result.output and "secret" not in result.output


def test_what_registers_no_whole_model(root: Path, mlflow_now, tmp_path: Path):
    model = other_model(tmp_path / "changed")
    (model / "genes.tsv").write_text("")
    result = command(
        root,
        "publish_model.py",
        "--model",
        model,
        "--registered-name",
        "changed",
        "--tracking-uri",
        mlflow_now.url,
    )
    assert result.exit_code == 6 and "genes.tsv" in result.output
    with pytest.raises(ModelFetchError, match="there is no such model"):
        resolve(parse_name("models:/changed/latest"), mlflow_now.url)
