"""The real `cellxgene-schema validate` on what CURATE writes, in the environment that the lock file names."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import anndata
import pandas as pd
import pytest
from curation_sample import write_annotated_sample
from environments import environment

from cellscribe.curation import FIELDS, RESERVED_OBS
from cellscribe.io import read_json

GIVEN = {
    "assay_ontology_term_id": "EFO:0009922",
    "tissue_type": "tissue",
    "tissue_ontology_term_id": "UBERON:0000178",
    "disease_ontology_term_id": "PATO:0000461",
    "suspension_type": "cell",
    "donor_id": "donor 1",
    "sex_ontology_term_id": "PATO:0000384",
    "development_stage_ontology_term_id": "HsapDv:0000258",
    "self_reported_ethnicity_ontology_term_id": "unknown",
    "title": "Blood of one donor",
    "is_primary_data": "true",
}


@pytest.fixture(scope="module")
def schema_python(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    lock = root / "containers" / "schema.txt"
    folder = tmp_path_factory.mktemp("schema") / "env"
    return environment(folder, sys.executable, "--require-hashes", "-r", str(lock))


def curate(root: Path, python: Path, folder: Path, name: str, given: dict[str, str]) -> dict:
    annotated, annotation = write_annotated_sample(folder / name)
    options = {
        "sample": name,
        "annotated": annotated,
        "annotation": annotation,
        "output": folder / f"{name}.cellxgene.h5ad",
        "todo": folder / f"{name}.tsv",
        "summary": folder / f"{name}.json",
        **given,
    }
    arguments = [part for key, value in options.items() for part in (f"--{key.replace('_', '-')}", value)]
    done = subprocess.run(
        [python, root / "bin" / "curate.py", *arguments], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return read_json(folder / f"{name}.json")


def test_with_everything_given_the_file_passes(root: Path, schema_python: Path, tmp_path: Path) -> None:
    said = curate(root, schema_python, tmp_path, "whole", GIVEN)
    assert said["valid"] is True, said["todo"]
    left = [row["field"] for row in said["todo"] if row["kind"] != "warning"]
    assert left == ["cell_type_ontology_term_id"], "some cells are unassigned"
    # What Discover then adds.
    program = schema_python.parent / "cellxgene-schema"
    files = (tmp_path / "whole.cellxgene.h5ad", tmp_path / "labelled.h5ad")
    done = subprocess.run([program, "add-labels", *files], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    labelled = anndata.read_h5ad(tmp_path / "labelled.h5ad")
    assert set(labelled.obs["cell_type"]) == {"B cell", "T cell", "monocyte", "unknown"}
    assert "ISG15" in set(labelled.var["feature_name"])


def test_without_it_each_missing_field_is_told_in_plain_words_with_the_validators(
    root: Path, schema_python: Path, tmp_path: Path
) -> None:
    said = curate(root, schema_python, tmp_path, "bare", {"assay_ontology_term_id": "EFO:0000001"})
    assert said["valid"] is False
    table = pd.read_csv(tmp_path / "bare.tsv", sep="\t", keep_default_na=False)
    needed = {name for name, rule in FIELDS.items() if not rule.unknown} - {"assay_ontology_term_id"}
    assert set(table.loc[table["kind"] == "give", "field"]) == needed
    assert list(table.loc[table["kind"] == "mend", "field"]) == ["assay_ontology_term_id"]
    assert (table.loc[table["kind"].isin(["give", "mend"]), "message"] != "").all()


def test_the_names_that_the_schema_keeps_are_those_of_its_own_definition(schema_python: Path) -> None:
    done = subprocess.run([schema_python, "-c", DEFINITION], capture_output=True, text=True, check=True)
    assert set(done.stdout.split()) == RESERVED_OBS


DEFINITION = """
from cellxgene_schema.schema import get_schema_definition
obs = get_schema_definition()["components"]["obs"]
added = [label["to_column"] for column in obs["columns"].values() for label in column.get("add_labels", [])]
print(*added, *obs["reserved_columns"], *obs["deprecated_columns"])
"""
