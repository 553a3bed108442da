"""The file for CELLxGENE Discover, and the table of what a curator still has to give."""

from __future__ import annotations

import json
from pathlib import Path

import anndata
import h5py
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from anndata.io import write_elem
from curation_sample import write_annotated_sample

from cellscribe import curation
from cellscribe.contract import OutputNames
from cellscribe.curation import FIELDS, Facts, Todo, Verdict, choose_genes, fill_obs, run_curate, todo_of
from cellscribe.io import read_json
from cellscribe.step_options import CURATE

NAMES = OutputNames.of()
ROOT = Path(__file__).parents[2]


def cells(**columns: list) -> pd.DataFrame:
    return pd.DataFrame(
        {NAMES.final_cl_id: ["CL:0000236", ""], NAMES.cl_id: ["CL:0000236", "CL:0000084"], **columns},
        index=["a", "b"],
    )


def filled(obs: pd.DataFrame, organism: str = "human", **fields: str) -> pd.DataFrame:
    return fill_obs(obs, Facts(fields), NAMES, organism)[0]


def test_a_cell_left_unassigned_has_no_cell_type_though_one_was_predicted() -> None:
    assert list(filled(cells())["cell_type_ontology_term_id"]) == ["CL:0000236", "unknown"]


def test_an_ancestor_that_the_schema_takes_for_no_cell_type_is_unknown() -> None:
    obs = cells()
    obs[NAMES.final_cl_id] = ["CL:0000548", "CL:0000236"]
    assert list(filled(obs)["cell_type_ontology_term_id"]) == ["unknown", "CL:0000236"]


def test_unknown_stands_only_where_the_schema_allows_it_and_is_told() -> None:
    obs, todo = fill_obs(cells(), Facts(), NAMES, "human")
    allowed = {name for name, rule in FIELDS.items() if rule.unknown}
    assert allowed == {name for name in FIELDS if name in obs}
    assert all(set(obs[name]) == {"unknown"} for name in allowed)
    told = {row.field: row.todo for row in todo if row.kind == "unknown"}
    assert set(told) == allowed | {"cell_type_ontology_term_id"}
    assert told["cell_type_ontology_term_id"].startswith("1 of 2 cells")
    assert not {"assay_ontology_term_id", "tissue_type", "disease_ontology_term_id"} & set(obs)


def test_the_sheet_goes_before_the_inputs_own_column_which_goes_before_unknown() -> None:
    obs = cells(donor_id=["d1", ""], suspension_type=["cell", "nucleus"])
    assert list(filled(obs)["donor_id"]) == ["d1", "unknown"]
    assert list(filled(obs)["suspension_type"]) == ["cell", "nucleus"]
    assert list(filled(obs, donor_id="d7")["donor_id"]) == ["d7", "d7"]


def test_ethnicity_is_not_asked_of_a_mouse_nor_a_donor_of_a_cell_line() -> None:
    assert set(filled(cells(), "mouse")["self_reported_ethnicity_ontology_term_id"]) == {"na"}
    line = filled(cells(), tissue_type="cell line")
    for name in ("donor_id", "sex_ontology_term_id", "development_stage_ontology_term_id"):
        assert set(line[name]) == {"na"}, name


def test_a_column_of_a_name_that_the_schema_keeps_for_itself_becomes_the_authors() -> None:
    obs = filled(cells(cell_type=["B", "T"], ethnicity=["x", "y"]))
    assert list(obs["author_cell_type"]) == ["B", "T"]
    assert not {"cell_type", "ethnicity"} & set(obs)


def test_an_authors_own_column_is_kept_beside_one_that_the_schema_renames() -> None:
    obs = filled(cells(cell_type=["B", "T"], author_cell_type=["B memory", "T naive"]))
    assert list(obs["author_cell_type"]) == ["B memory", "T naive"]
    assert list(obs["author_cell_type_2"]) == ["B", "T"]


def test_whether_data_are_primary_is_taken_to_be_so_and_told_or_as_given() -> None:
    obs, todo = fill_obs(cells(), Facts(), NAMES, "human")
    assert obs["is_primary_data"].dtype == bool and obs["is_primary_data"].all()
    assert [row.field for row in todo if row.kind == "check"] == ["is_primary_data"]
    obs, todo = fill_obs(cells(), Facts(is_primary_data=False), NAMES, "human")
    assert not obs["is_primary_data"].any()
    assert not [row for row in todo if row.kind == "check"]


def test_genes_without_a_known_id_go_and_those_that_share_one_are_summed() -> None:
    var = pd.DataFrame(
        {
            "gene_ids": ["ENSG00000000001", "", "ENSG00000000002.4", "ENSG00000000001", "ENSG00000000009"],
            "gene_symbols": ["A", "B", "C", "A-1", "OLD"],
        }
    )
    genes = choose_genes(var, frozenset({"ENSG00000000001", "ENSG00000000002"}))
    assert list(genes.ids) == ["ENSG00000000001", "ENSG00000000002"]
    assert list(genes.symbols) == ["A", "C"]
    assert (genes.n_without_id, genes.n_unknown, genes.unknown) == (1, 1, ["OLD (ENSG00000000009)"])
    counts = sp.csr_matrix(np.array([[1, 5, 2, 3, 7]], dtype=np.float32))
    assert (counts @ genes.selector).toarray().tolist() == [[4, 2]]


@pytest.mark.parametrize(
    ("message", "kind", "field"),
    [
        ("Dataframe 'obs' is missing column 'assay_ontology_term_id'.", "give", "assay_ontology_term_id"),
        ("'organism_ontology_term_id' in 'uns' is not present.", "give", "organism_ontology_term_id"),
        (
            "'EFO:1' in 'assay_ontology_term_id' is not a valid ontology term id of 'EFO'. Only descendant terms",
            "mend",
            "assay_ontology_term_id",
        ),
        (
            "Column 'suspension_type' in dataframe 'obs' contains invalid values '['cell']' when "
            "'assay_ontology_term_id' is EFO:1.",
            "mend",
            "suspension_type",
        ),
        ("Found 2 duplicated raw counts in obs adata.raw.X.", "mend", ""),
    ],
)
def test_a_message_of_the_validator_becomes_what_to_do_with_which_field(
    message: str, kind: str, field: str
) -> None:
    (row,) = todo_of(Verdict(False, "7.1.2", "7.1.0", [message]), [])
    assert (row.kind, row.field, row.message) == (kind, field, message)
    assert row.todo


def test_messages_on_one_field_are_one_row_and_the_needed_stand_first() -> None:
    errors = ["'x' in 'sex_ontology_term_id' is not a.", "'x' in 'sex_ontology_term_id' is not b."]
    noted = [Todo("unknown", "sex_ontology_term_id", "Give it."), Todo("unknown", "donor_id", "Give it.")]
    rows = todo_of(Verdict(False, "7", "7", errors, ["Only 3 genes."]), noted)
    assert [(row.kind, row.field) for row in rows] == [
        ("mend", "sex_ontology_term_id"),
        ("unknown", "donor_id"),
        ("warning", ""),
    ]
    assert rows[0].message == " | ".join(errors)


def test_every_field_that_a_curator_gives_is_a_column_of_the_sheet() -> None:
    columns = json.loads((ROOT / "assets" / "schema_input.json").read_text())["items"]["properties"]
    assert set(CURATE) == {*FIELDS, "title", "is_primary_data"}
    assert set(CURATE) <= set(columns)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What is written where the validator is not there."""
    folder = tmp_path_factory.mktemp("curated")
    annotated, annotation = write_annotated_sample(folder, empty_cells=1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(curation, "validator_version", lambda: "")
        run_curate(
            annotated,
            annotation,
            Facts({"donor_id": "d1"}),
            sample="blood",
            output=folder / "blood.cellxgene.h5ad",
            todo=folder / "todo.tsv",
            summary=folder / "curation.json",
        )
    return folder


def test_the_file_holds_raw_counts_and_expression_by_ensembl_id(written: Path) -> None:
    before = anndata.read_h5ad(written / "blood.annotated.h5ad")
    adata = anndata.read_h5ad(written / "blood.cellxgene.h5ad")
    assert list(adata.var_names) == list(before.var["gene_ids"])
    # One cell had no counts at all.
    assert adata.n_obs == before.n_obs - 1
    kept = before[adata.obs_names]
    assert (adata.raw.X != kept.X).nnz == 0 and adata.raw.X.dtype == adata.X.dtype == np.float32
    np.testing.assert_allclose(np.expm1(adata.X.toarray()).sum(axis=1), 1e4, rtol=1e-4)
    assert not adata.var["feature_is_filtered"].any() and "feature_is_filtered" not in adata.raw.var
    assert adata.uns["organism_ontology_term_id"] == "NCBITaxon:9606"
    assert adata.uns["default_embedding"] == NAMES.umap_explorer
    assert all(name.startswith("X_") for name in adata.obsm)


def test_probabilities_of_every_label_stay_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    annotated, annotation = write_annotated_sample(tmp_path)
    with h5py.File(annotated, "r+") as file:
        keys = [*file["obsm"], NAMES.probabilities]
        write_elem(file["uns"][NAMES.predictions], "obsm_keys", np.array(keys, dtype=object))
        write_elem(file["obsm"], NAMES.probabilities, np.full((file["obsm"][keys[0]].shape[0], 3), 0.3))
    monkeypatch.setattr(curation, "validator_version", lambda: "")
    output = tmp_path / "blood.cellxgene.h5ad"
    run_curate(
        annotated,
        annotation,
        Facts(),
        sample="blood",
        output=output,
        todo=tmp_path / "todo.tsv",
        summary=tmp_path / "curation.json",
    )
    adata = anndata.read_h5ad(output)
    assert not [key for key in adata.obsm if "probabilities" in key]
    assert NAMES.probabilities not in adata.uns[NAMES.predictions]["obsm_keys"]


def test_without_the_validator_the_file_is_written_and_that_is_said(written: Path) -> None:
    said = read_json(written / "curation.json")
    assert said["valid"] is None and any("make schema-env" in note for note in said["notes"])
    left = {(row["kind"], row["field"]) for row in said["todo"]}
    assert ("give", "disease_ontology_term_id") in left and ("warning", "") in left
    table = pd.read_csv(written / "todo.tsv", sep="\t", keep_default_na=False)
    assert list(table.columns) == list(curation.TODO_COLUMNS)
    assert {"title", "sex_ontology_term_id"} <= set(table["field"]) and "donor_id" not in set(table["field"])
