import csv
import hashlib
from pathlib import Path

import h5py
import numpy as np
import pytest

DEMO = Path(__file__).parents[2] / "assets" / "demo"
H5 = DEMO / "filtered_feature_bc_matrix.h5"


@pytest.fixture(scope="module")
def demo():
    import scanpy

    return scanpy.read_10x_h5(H5)


def test_the_demo_has_the_cells_and_genes_it_claims(demo) -> None:
    assert demo.shape == (559, 32_786)
    assert demo.obs_names.is_unique
    assert demo.var_names.is_unique
    assert demo.var["gene_ids"].is_unique
    assert set(demo.var["feature_types"]) == {"Gene Expression"}


def test_the_demo_holds_raw_counts(demo) -> None:
    values = demo.X.data
    assert np.array_equal(values, np.rint(values))
    assert values.min() >= 1
    assert values.sum() == 3_619_954


def test_well_known_genes_have_their_ensembl_ids(demo) -> None:
    ids = demo.var["gene_ids"]
    assert ids["CD3E"] == "ENSG00000198851"
    assert ids["LYZ"] == "ENSG00000090382"
    assert ids["MS4A1"] == "ENSG00000156738"


def test_a_symbol_that_names_two_genes_gets_no_id(demo) -> None:
    assert demo.var["gene_ids"]["MATR3"] == "MATR3"


def test_the_layout_is_that_of_cell_ranger_3() -> None:
    with h5py.File(H5) as file:
        matrix = file["matrix"]
        kinds = {name: matrix[name].dtype for name in ("data", "indices", "indptr", "shape")}
        assert kinds == {"data": "int32", "indices": "int64", "indptr": "int64", "shape": "int32"}
        assert list(matrix["shape"]) == [32_786, 559]
        assert set(matrix["features"]) == {"_all_tag_keys", "feature_type", "genome", "id", "name"}


def test_the_file_is_the_one_that_its_readme_describes() -> None:
    assert hashlib.sha256(H5.read_bytes()).hexdigest() in (DEMO / "README.md").read_text()


def test_the_sheet_names_the_file_beside_it() -> None:
    with (DEMO / "samplesheet.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["sample"] for row in rows] == ["demo"]
    assert (DEMO / rows[0]["path"]).samefile(H5)
