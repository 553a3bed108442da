"""Reference cells whose coreceptor contradicts their label: found, said, and corrected where that is asked for."""

import dataclasses

import anndata
import numpy as np
import pytest
from small_model import simulate, write_reference

from cellscribe.errors import InputError
from cellscribe.model.manifest import verify_model
from cellscribe.training import held_out, members, train
from cellscribe.training.coreceptors import check_coreceptors, contested_cells
from cellscribe.training.folder import place_labels
from cellscribe.training.reference import read_reference

CD4_GENE, CD8_GENE = 300, 301


def with_coreceptors(
    cells: anndata.AnnData, names: tuple[str, str] = ("CD4", "CD8A"), *, column: str = "gene_symbols"
) -> anndata.AnnData:
    """Simulated cells whose T cells have three counts of their own coreceptor, and the others none."""
    counts = cells.X.tolil()
    label = cells.obs["cell_type"].to_numpy()
    counts[:, CD4_GENE] = np.where(label == "CD4 T cell", 3, 0)[:, None]
    counts[:, CD8_GENE] = np.where(label == "CD8 T cell", 3, 0)[:, None]
    cells.X = counts.tocsr()
    found = cells.var[column].to_numpy(dtype=object)
    found[[CD4_GENE, CD8_GENE]] = names
    cells.var[column] = found
    if column == "gene_symbols":
        cells.var_names = found
    return cells


def with_ambient_cd8(cells: anndata.AnnData, n: int = 4) -> np.ndarray:
    """Let the last CD4 T cells have a count of CD8 and none of CD4; returns which rows these are."""
    rows = np.flatnonzero(cells.obs["cell_type"] == "CD4 T cell")[-n:]
    counts = cells.X.tolil()
    counts[rows, CD4_GENE], counts[rows, CD8_GENE] = 0, 1
    cells.X = counts.tocsr()
    return rows


def mistaken(cells: anndata.AnnData, n: int = 6) -> np.ndarray:
    """Call the first CD8 T cells CD4 T cells; returns which rows these are."""
    rows = np.flatnonzero(cells.obs["cell_type"] == "CD8 T cell")[:n]
    labels = cells.obs["cell_type"].to_numpy(dtype=object)
    labels[rows] = "CD4 T cell"
    cells.obs["cell_type"] = labels
    return rows


def test_labels_that_the_ontology_does_not_know_are_told_of(ready, capsys):
    cells = with_coreceptors(simulate(150))
    mistaken(cells)
    cells.obs["cell_type"] = cells.obs["cell_type"].replace("CD8 T cell", "my CD8 ones")
    _, found = checked(ready, cells, cl_map=None)
    assert not found.contested
    assert "not held against CD4 and CD8, as the Cell Ontology does not know these: my CD8 ones" in (
        capsys.readouterr().err
    )


def checked(ready, cells, **changes):
    """What `check_coreceptors` makes of these cells."""
    options = dataclasses.replace(ready, **changes)
    write_reference(cells, options.reference[0])
    read = read_reference(options.reference, "cell_type", batch_key="donor")
    return read, check_coreceptors(read, *place_labels(read.names, options.cl_map), options)


@pytest.mark.parametrize(
    ("names", "column"),
    [
        (("CD4", "CD8A"), "gene_symbols"),
        (("CD4", "CD8B"), "gene_symbols"),
        (("Cd4", "Cd8b1"), "gene_symbols"),
        (("ENSG00000010610", "ENSG00000172116"), "gene_ids"),
    ],
)
def test_cells_with_the_other_coreceptor_alone_are_contested(ready, names, column, capsys):
    cells = with_coreceptors(simulate(150), names, column=column)
    rows = mistaken(cells)
    # one that has both is not contested, nor is one that has neither
    counts = cells.X.tolil()
    both, neither = np.flatnonzero(cells.obs["cell_type"] == "CD4 T cell")[-2:]
    counts[both, CD8_GENE], counts[neither, CD4_GENE] = 2, 0
    cells.X = counts.tocsr()
    read, found = checked(ready, cells, correct_labels=False)
    assert [(one.label, one.n_cells, one.n_contested) for one in found.contested] == [("CD4 T cell", 36, 6)]
    assert not found.contested[0].is_corrected and found.renamed is None
    assert (found.labels == read.labels).all() and found.counts is read.counts
    kinds = np.select([read.labels == "CD4 T cell", read.labels == "CD8 T cell"], [0, 1], -1)
    assert np.flatnonzero(contested_cells(read, kinds)).tolist() == rows.tolist()
    assert "6 of the 36 cells called CD4 T cell" in capsys.readouterr().err


def test_a_cd8_label_is_contested_by_cd4(ready):
    cells = with_coreceptors(simulate(150))
    counts = cells.X.tolil()
    row = np.flatnonzero(cells.obs["cell_type"] == "CD8 T cell")[0]
    counts[row, CD4_GENE], counts[row, CD8_GENE] = 1, 0
    cells.X = counts.tocsr()
    _, found = checked(ready, cells, correct_labels=False)
    assert [(one.label, one.n_contested) for one in found.contested] == [("CD8 T cell", 1)]


def test_nothing_is_said_without_both_kinds_or_without_their_genes(ready, capsys):
    cells = with_coreceptors(simulate(150))
    mistaken(cells)
    _, found = checked(ready, cells[cells.obs["cell_type"] != "CD8 T cell"].copy())
    assert found.contested == []
    plain = simulate(150)
    mistaken(plain)
    _, found = checked(ready, plain)
    assert found.contested == [] and found.renamed is None
    assert "coreceptor" not in capsys.readouterr().err


def test_contested_cells_are_renamed_where_the_rest_of_their_genes_agree_and_left_out_where_not(ready):
    cells = with_coreceptors(simulate(300))
    wrong = mistaken(cells)
    ambient = with_ambient_cd8(cells)
    read, found = checked(ready, cells)
    (one,) = found.contested
    assert (one.label, one.n_contested, one.n_renamed, one.n_left_out) == ("CD4 T cell", 10, 6, 4)
    rows = np.arange(300)
    assert np.flatnonzero(found.renamed).tolist() == wrong.tolist()
    assert np.flatnonzero(found.doubtful).tolist() == ambient.tolist()
    assert found.labels.tolist() == np.where(np.isin(rows, wrong), "CD8 T cell", read.labels).tolist()
    # as they came
    assert (read.labels[wrong] == "CD4 T cell").all()


def test_some_cells_keep_what_is_theirs(ready):
    _, found = checked(ready, with_coreceptors(simulate(150)))
    assert found.contested == [] and found.renamed is None and found.doubtful is None
    found.renamed, found.doubtful = np.arange(150) % 2 == 0, np.arange(150) % 3 == 0
    some = found.of_cells(~found.doubtful)
    kept = np.flatnonzero(~found.doubtful)
    assert (some.counts.toarray() == found.counts.toarray()[kept]).all()
    assert some.labels.tolist() == found.labels[kept].tolist()
    assert some.batches.tolist() == found.batches[kept].tolist()
    assert some.renamed.tolist() == found.renamed[kept].tolist() and not some.doubtful.any()
    assert some.names == found.names


def test_cells_in_doubt_are_named_by_the_test_and_teach_nothing(ready, monkeypatch):
    cells = with_coreceptors(simulate(150))
    mistaken(cells)
    _, found = checked(ready, cells)
    found.doubtful = np.arange(150) % 5 == 1
    taught = []
    monkeypatch.setattr(
        held_out,
        "train_members",
        lambda counts, codes, *rest: taught.append(len(codes)) or members.train_members(counts, codes, *rest),
    )
    held = held_out.hold_out(found, ready)
    folds = held_out.folds_of(found.batches, found.codes)
    assert taught == [int(((folds != fold) & ~found.doubtful).sum()) for fold in range(3)]
    assert sorted(held.rows[~held.altered].tolist()) == list(range(150))


def test_nothing_is_renamed_where_other_batches_lack_the_cells_own_kind(ready):
    cells = with_coreceptors(simulate(300))
    cells = cells[(cells.obs["cell_type"] != "CD4 T cell") | (cells.obs["donor"] == "donor_1")].copy()
    ambient = with_ambient_cd8(cells)
    _, found = checked(ready, cells)
    assert found.renamed is None
    assert np.flatnonzero(found.doubtful).tolist() == ambient.tolist()


def test_batches_of_one_label_each_are_refused_by_the_test_and_not_before(ready):
    cells = with_coreceptors(simulate(300))
    cells = cells[cells.obs["cell_type"].isin(["CD4 T cell", "CD8 T cell"])].copy()
    cells.obs["donor"] = cells.obs["cell_type"].to_numpy()
    with_ambient_cd8(cells)
    _, found = checked(ready, cells)
    assert found.renamed is None and found.doubtful.sum() == 4
    with pytest.raises(InputError, match="held out for the test"):
        held_out.hold_out(found, ready)


def test_one_batch_is_corrected_by_its_other_cells(ready):
    cells = with_coreceptors(simulate(300))
    cells.obs["donor"] = "one"
    wrong = mistaken(cells)
    _, found = checked(ready, cells)
    assert np.flatnonzero(found.renamed).tolist() == wrong.tolist() and found.doubtful is None


@pytest.mark.parametrize(("of", "n_contested"), [("all", 30), ("few", 2)])
def test_a_label_that_would_keep_too_few_cells_is_left_with_a_warning(ready, capsys, of, n_contested):
    cells = with_coreceptors(simulate(150))
    labels = cells.obs["cell_type"].to_numpy(dtype=object)
    if of == "all":
        cells.obs["cell_type"] = np.where(labels == "CD4 T cell", "CD8 T cell", labels)
        cells.obs.loc[labels == "CD8 T cell", "cell_type"] = "CD4 T cell"
    else:
        kept = np.r_[np.flatnonzero(labels != "CD4 T cell"), np.flatnonzero(labels == "CD4 T cell")[:6]]
        cells = cells[np.sort(kept)].copy()
        with_ambient_cd8(cells, 2)
    read, found = checked(ready, cells)
    one = found.contested[0]
    assert (one.label, one.n_contested, one.is_corrected) == ("CD4 T cell", n_contested, False)
    assert found.renamed is None and found.doubtful is None and (found.labels == read.labels).all()
    said = capsys.readouterr().err
    assert "CL:0000624" in said and "--cl_map" in said


def test_the_model_and_its_card_tell_what_was_contested(ready):
    cells = with_coreceptors(simulate(150))
    mistaken(cells)
    with_ambient_cd8(cells)
    write_reference(cells, ready.reference[0])
    as_given = verify_model(train.run_train(dataclasses.replace(ready, correct_labels=False)))
    assert as_given["training"]["contested"] == [
        {"label": "CD4 T cell", "n_cells": 36, "n_contested": 10, "n_renamed": 0, "n_left_out": 0}
    ]
    assert "10 of the 36 cells called CD4 T cell" in as_given["does_not_know"][0]
    assert "10 of the 36 cells called CD4 T cell" in (ready.output / "card.md").read_text()
    assert as_given["evaluation"]["n_cells"] == 150
    corrected = dataclasses.replace(ready, output=ready.output.parent / "corrected")
    manifest = verify_model(train.run_train(corrected))
    (one,) = manifest["training"]["contested"]
    assert one["n_renamed"] > 0 and one["n_left_out"] > 0 and one["n_renamed"] + one["n_left_out"] == 10
    assert manifest["does_not_know"] == []
    assert manifest["training"]["n_cells"] == 150 - one["n_left_out"]
    numbers = {label["label"]: label["n_cells"] for label in manifest["labels"]}
    assert numbers["CD4 T cell"] == 26 and numbers["CD8 T cell"] == 24 + one["n_renamed"]
    # neither a label in doubt nor one that a regression gave is scored
    assert manifest["evaluation"]["n_cells"] == 140
    for page in ("card.md", "card.html"):
        assert (
            f"{one['n_renamed']} were renamed and {one['n_left_out']}"
            in (corrected.output / page).read_text()
        )
