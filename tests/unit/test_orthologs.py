"""Genes of the other organism, by one-to-one orthologues."""

from __future__ import annotations

import re
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest
from small_model import as_organism, model_of, options, simulate, write_counts

from cellscribe.counts_file import open_counts
from cellscribe.errors import InputError, ModelMismatchError
from cellscribe.mapping import map_cells
from cellscribe.model.model import Model
from cellscribe.one_file import annotate_file
from cellscribe.orthologs import named_as, ortholog_pairs
from cellscribe.training.train import run_train
from cellscribe.truth import relate


def genes(ids: list[str], symbols: list[str]) -> pd.DataFrame:
    return pd.DataFrame({"gene_ids": ids, "gene_symbols": symbols}, index=[f"g{i}" for i in range(len(ids))])


def test_every_gene_of_the_table_has_one_orthologue() -> None:
    pairs = ortholog_pairs()
    assert len(pairs) > 15_000
    for organism, pattern in (("human", r"ENSG\d{11}"), ("mouse", r"ENSMUSG\d{11}")):
        assert pairs[f"{organism}_gene_id"].is_unique
        assert all(re.fullmatch(pattern, gene_id) for gene_id in pairs[f"{organism}_gene_id"])
        named = pairs[f"{organism}_symbol"][pairs[f"{organism}_symbol"] != ""]
        assert named.is_unique and len(named) > 0.99 * len(pairs)
    mouse = dict(zip(pairs["human_symbol"], pairs["mouse_symbol"], strict=True))
    # These differ in more than capitals; granzyme B has several orthologues in mouse.
    assert (mouse["CD79A"], mouse["HLA-DRA"], mouse["SELL"]) == ("Cd79a", "H2-Ea", "Sell")
    assert "GZMB" not in mouse


def test_genes_are_renamed_by_id_or_symbol_and_those_without_an_orthologue_have_no_name() -> None:
    mouse = genes(["ENSMUSG00000032093.8", "", "ENSMUSG00000015437"], ["x", "Cd79a", "Gzmb"])
    human, by = named_as(mouse, "mouse", "human")
    assert human.to_numpy().tolist() == [["ENSG00000198851", "CD3E"], ["ENSG00000105369", "CD79A"], ["", ""]]
    assert by in ("gene_ids", "gene_symbols") and set(human.index) == {""}
    back, _ = named_as(human, "human", "mouse")
    assert back["gene_symbols"].tolist() == ["Cd3e", "Cd79a", ""]


def test_only_the_column_that_was_named_is_looked_at() -> None:
    mouse = genes(["ENSMUSG00000032093"], ["Cd79a"]).assign(mine=["Ms4a1"])
    renamed, by = named_as(mouse, "mouse", "human", "mine")
    assert (renamed["gene_symbols"].tolist(), by) == (["MS4A1"], "mine")
    with pytest.raises(InputError, match="no var column 'yours'"):
        named_as(mouse, "mouse", "human", "yours")


@pytest.mark.parametrize(("cells", "model"), [("mouse", "human"), ("human", "mouse")])
def test_a_model_scores_cells_of_the_other_organism_as_its_own(
    cells: str, model: str, tmp_path: Path
) -> None:
    drawn = simulate(60, seed=1)
    own, other = (
        open_counts(write_counts(as_organism(drawn, name), tmp_path / f"{name}.h5ad", organism=name))
        for name in (model, cells)
    )
    expected = map_cells(own, Model(model_of(model)))
    mapping = map_cells(other, Model(model_of(model)), orthologs_of=cells)
    np.testing.assert_allclose(mapping.logistic_scores, expected.logistic_scores, atol=1e-5)
    np.testing.assert_array_equal(mapping.n_silent_counts, expected.n_silent_counts)
    assert mapping.info["orthologs"] == {"from": cells, "to": model, "n_genes": 400}
    assert mapping.info["gene_overlap"] == 1 and mapping.info["genes_matched_by"] == "gene_ids"
    (said,) = mapping.info["warnings"]
    assert f"These are {cells} cells, named by a model of {model} cells" in said
    assert f"calibrated on {model} cells; do not trust it as much" in said
    assert expected.info["orthologs"] is None and not expected.info["warnings"]


def test_too_few_orthologues_are_counted_as_such(tmp_path: Path) -> None:
    few = as_organism(simulate(20, seed=1), "mouse")[:, 60:].copy()
    counts = open_counts(write_counts(few, tmp_path / "few.h5ad", organism="mouse"))
    with pytest.raises(ModelMismatchError, match=r"of the model's 1\d\d genes have a one-to-one orthologue"):
        map_cells(counts, Model(model_of("human")), orthologs_of="mouse", min_gene_overlap=0.95)


def agreement(adata: anndata.AnnData, column: str) -> float:
    """Share of cells whose label is the known one, or of its lineage in the Cell Ontology."""
    labels = adata.obs[column].astype(str).to_numpy()
    ids = dict(zip(labels, adata.obs["cxg_cell_type_cl_id"].astype(str), strict=True))
    names, codes = np.unique(adata.obs["cell_type"].astype(str), return_inverse=True)
    relation = relate(list(names), ids)
    position = {label: i for i, label in enumerate(ids)}
    fits = relation.same | relation.compatible
    return float(fits[codes, [position[label] for label in labels]].mean())


def test_real_mouse_cells_are_named_by_the_human_model(root: Path, shared_data: Path, tmp_path: Path) -> None:
    query, target = shared_data / "labelled/actinn_mouse_immune_1000.h5ad", tmp_path / "named.h5ad"
    model = Model(root / "assets/models/pbmc")
    with pytest.raises(ModelMismatchError, match="for human, but the sample's genes are mouse"):
        annotate_file(query, target, model)
    annotate_file(query, target, model, orthologs=True)
    named = anndata.read_h5ad(target)
    assert named.uns["cxg_cell_type_predictions"]["orthologs"] == "mouse to human"
    # Blood has no granulocytes to tell from monocytes, and many monocytes of marrow are called dendritic cells.
    known = named[named.obs["cell_type"] != "Granulocyte"]
    assert agreement(known, "cxg_cell_type_predicted") > 0.9
    assert agreement(known[known.obs["cell_type"] != "Monocyte"], "cxg_cell_type_predicted") > 0.94
    left = named.obs["cxg_cell_type_final"][named.obs["cell_type"] == "Granulocyte"]
    assert (left == "unassigned").mean() > 0.9


def test_a_model_of_real_mouse_cells_names_others(shared_data: Path, tmp_path: Path) -> None:
    cells = anndata.read_h5ad(shared_data / "labelled/actinn_mouse_immune_1000.h5ad")
    held_out = np.random.default_rng(0).permutation(cells.n_obs) < 300
    cells[~held_out].write_h5ad(tmp_path / "reference.h5ad")
    cells[held_out].write_h5ad(tmp_path / "query.h5ad")
    chosen = options(tmp_path, batch_key=None, cl_map=None, n_top_genes=1500)
    model = Model(run_train(chosen))
    assert model.manifest["organism"] == "mouse"
    annotate_file(tmp_path / "query.h5ad", tmp_path / "named.h5ad", model)
    named = anndata.read_h5ad(tmp_path / "named.h5ad")
    assert named.uns["cxg_cell_type_predictions"]["gene_overlap"] == 1
    assert agreement(named, "cxg_cell_type_predicted") > 0.97
