"""Names of samples."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cellscribe.sample_names import clean_name, name_of
from cellscribe.schema import problem

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/runs/lung_3/outs", "lung_3"),
        ("runs/lung_3/outs/", "lung_3"),
        ("lung_3/outs/filtered_feature_bc_matrix.h5", "lung_3"),
        ("lung_3/outs/filtered_feature_bc_matrix", "lung_3"),
        ("lung_3/outs/filtered_gene_bc_matrices_h5.h5", "lung_3"),
        ("lung_3/outs/filtered_gene_bc_matrices/GRCh38", "lung_3"),
        ("lung_3/outs/filtered_gene_bc_matrices/mm10/", "lung_3"),
        ("run/outs/per_sample_outs/S1/count/sample_filtered_feature_bc_matrix.h5", "S1"),
        ("run/outs/per_sample_outs/S1", "S1"),
        ("data/pbmc4k_filtered_feature_bc_matrix.h5", "pbmc4k"),
        ("data/my sample (1).h5ad", "my_sample_1"),
        ("x.h5ad", "x"),
        ("X.H5AD", "X"),
        ("data/multi.h5ad", "multi"),
        ("https://host.org/a/b.h5?x=1", "b"),
        ("s3://bucket/donor-7/outs", "donor-7"),
        ("outs", "outs"),
        ("../..", "sample"),
        ("é.h5ad", "sample"),
        ("v1.2_pbmc.h5ad", "v1.2_pbmc"),
    ],
)
def test_the_name_of_a_sample_comes_from_its_path(path: str, name: str) -> None:
    assert name_of(path) == name


def test_a_name_made_of_any_text_fits_the_rule() -> None:
    rule = json.loads((ROOT / "assets" / "schema_input.json").read_text())["items"]["properties"]["sample"]
    for text in ("", "___", "-x", "a" * 300, "ä ö", "..", "x\ny", "a--b__"):
        assert problem(clean_name(text), rule) is None
