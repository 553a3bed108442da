"""Reading labelled references."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from small_model import TYPES, simulate

from cellscribe.errors import InputError
from cellscribe.training.reference import Contested, names_of, read_reference
from cellscribe.truth import relate


@pytest.fixture
def write(tmp_path):
    def _write(adata, name="reference.h5ad"):
        adata.write_h5ad(tmp_path / name)
        return tmp_path / name

    return _write


@pytest.fixture
def cells():
    return simulate(60)


def test_counts_genes_labels_and_batches_are_read(write, cells):
    read = read_reference([write(cells)], "cell_type", batch_key="donor")
    assert abs(read.counts - cells.X).max() == 0
    assert read.genes["gene_id"].tolist() == cells.var["gene_ids"].tolist()
    assert read.names == sorted(TYPES)
    assert [read.names[code] for code in read.codes] == cells.obs["cell_type"].tolist()
    assert read.batches.tolist() == cells.obs["donor"].tolist()
    assert (read.organism, read.sources) == ("human", ["reference.h5ad"])


def test_without_a_batch_key_each_file_is_a_batch(write, cells):
    paths = [write(cells, "one.h5ad"), write(simulate(40, seed=2), "two.h5ad")]
    read = read_reference(paths, "cell_type")
    assert pd.Series(read.batches).value_counts().to_dict() == {"one": 60, "two": 40}


def test_files_of_one_name_are_batches_of_their_own(write, cells, tmp_path):
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
    paths = [write(cells, "one/donor.h5ad"), write(simulate(40, seed=2), "two/donor.h5ad")]
    read = read_reference(paths, "cell_type")
    assert pd.Series(read.batches).value_counts().to_dict() == {"donor_1": 60, "donor_2": 40}
    paths = [Path("a/donor.h5ad"), Path("b/donor.h5ad"), Path("c/donor_1.h5ad")]
    assert names_of(paths) == ["donor_2", "donor_3", "donor_1"]


def test_donors_of_one_name_in_two_files_are_told_of(write, cells, capsys):
    one, other = write(cells, "one.h5ad"), write(cells, "other.h5ad")
    read_reference((one, other), "cell_type", batch_key="donor")
    assert "the files share batches of 'donor'" in capsys.readouterr().err
    read_reference((one, other), "cell_type")
    assert "share batches" not in capsys.readouterr().err


def test_cells_that_are_copies_of_others_are_learned_once(write, cells, capsys):
    both = cells[:40].copy()
    both.obs_names = [f"again{i}" for i in range(40)]
    both.obs["note"] = "copied"
    read = read_reference([write(cells, "one.h5ad"), write(both, "two.h5ad")], "cell_type")
    assert len(read.labels) == 60 and set(read.batches) == {"one"}
    assert abs(read.counts - cells.X).max() == 0
    assert "40 of 100 cells in the reference have the counts of an earlier one" in capsys.readouterr().err
    read_reference([write(cells)], "cell_type")
    assert "copies" not in capsys.readouterr().err


def test_poor_cells_of_the_same_counts_are_no_copies(write, cells, capsys):
    cells.X[:10] = 0
    cells.X[:10, 3] = 50
    read = read_reference([write(cells)], "cell_type")
    assert len(read.labels) == 60 and "copies" not in capsys.readouterr().err


def test_a_batch_for_most_cells_is_refused(write, cells):
    cells.obs["cell"] = cells.obs_names
    with pytest.raises(InputError, match="the batch column 'cell' has 60 values for 60 cells"):
        read_reference([write(cells)], "cell_type", batch_key="cell")


def test_cells_without_a_batch_are_left_out_with_a_warning(write, cells, capsys):
    donors = cells.obs["donor"].to_numpy(dtype=object)
    donors[:7] = None
    cells.obs["donor"] = donors
    read = read_reference([write(cells)], "cell_type", batch_key="donor")
    assert len(read.labels) == 53 and "" not in read.batches
    assert (
        "reference.h5ad: 7 cells without a value in batch column 'donor' left out" in capsys.readouterr().err
    )


def test_labels_that_differ_in_how_they_are_written_are_told_of(write, cells, capsys):
    labels = cells.obs["cell_type"].to_numpy(dtype=object)
    some = np.flatnonzero(labels == "B cell")[:6]
    labels[some] = "b cells"
    cells.obs["cell_type"] = labels
    read = read_reference([write(cells)], "cell_type")
    assert {"B cell", "b cells"} <= set(read.names)
    assert "'B cell' (6), 'b cells' (6). Write them alike" in capsys.readouterr().err


@pytest.mark.parametrize(
    "pair",
    [
        *(("CD4+ T", "CD4- T"), ("αβ T", "γδ T"), ("HLA-DR+", "HLA-DR-"), ("T1", "T 1")),
        *(("CD4− T", "CD4 T"), ("上皮", "间质"), ("?!", "!?")),
    ],
)
def test_labels_that_differ_in_what_they_say_are_not_taken_for_one(write, cells, capsys, pair):
    cells.obs["cell_type"] = np.array(pair)[np.arange(60) % 2]
    read_reference([write(cells)], "cell_type")
    assert "almost alike" not in capsys.readouterr().err


@pytest.mark.parametrize("pair", [("CD4− T", "CD4- T"), ("γδ T", "gamma-delta T"), ("CD4+T", "CD4⁺ T")])
def test_labels_are_almost_alike_where_a_comparison_takes_them_for_one(write, cells, capsys, pair):
    assert relate(pair[:1], {pair[1]: ""}).same.all()
    cells.obs["cell_type"] = np.array(pair)[np.arange(60) % 2]
    read_reference([write(cells)], "cell_type")
    assert "almost alike" in capsys.readouterr().err


def test_a_file_without_any_batch_is_refused(write, cells):
    other = simulate(40, seed=2)
    other.obs["donor"] = pd.Categorical([None] * 40, categories=["a"])
    with pytest.raises(InputError, match=r"two.*no labelled cell has a value in batch column 'donor'"):
        read_reference([write(cells, "one.h5ad"), write(other, "two.h5ad")], "cell_type", batch_key="donor")


def test_labels_that_are_numbers_are_told_of(write, cells, capsys):
    cells.obs["cluster"] = np.arange(60) % 3
    read_reference([write(cells)], "cluster")
    assert "all labels are numbers (0, 1, 2)" in capsys.readouterr().err


def test_numbers_of_a_column_with_gaps_are_written_as_whole_ones(write, cells):
    numbers = np.arange(60) % 3.0
    cells.obs["leiden"] = np.where(np.arange(60) < 6, np.nan, numbers)
    cells.obs["run"], cells.obs["coarse"] = numbers + 1, np.where(numbers == 2, 1.0, 0.0)
    read = read_reference([write(cells)], "leiden", batch_key="run", levels=["coarse"])
    assert read.names == ["0", "1", "2"] and set(read.batches) == {"1", "2", "3"} and len(read.labels) == 54
    assert read.levels == {"coarse": {"0": "0", "1": "0", "2": "1"}}


def test_counts_that_were_recovered_are_told_of_with_their_file(write, cells, capsys):
    totals = np.asarray(cells.X.sum(axis=1))
    cells.X = sp.csr_matrix(np.log1p(cells.X.toarray() / totals * 1e4))
    read = read_reference([write(cells)], "cell_type")
    assert (
        "warning: reference.h5ad: The file has no raw counts: they were recovered" in capsys.readouterr().err
    )
    assert (read.counts.sum(axis=1) == totals).all()


@pytest.mark.parametrize("word", ["?", "Low quality", "other", "Doublets", "N/A"])
def test_words_that_name_no_type_are_no_label(write, cells, word):
    labels = cells.obs["cell_type"].to_numpy(dtype=object)
    labels[:9] = word
    cells.obs["cell_type"] = labels
    read = read_reference([write(cells)], "cell_type")
    assert word not in read.names and read.n_unlabelled == 9


def test_cells_without_a_label_are_left_out(write, cells):
    labels = cells.obs["cell_type"].to_numpy(dtype=object)
    for i, nothing in enumerate(["", "nan", "Unknown", "unlabelled", "UNASSIGNED", "doublet", None]):
        labels[i] = nothing
    cells.obs["cell_type"] = labels
    read = read_reference([write(cells)], "cell_type")
    assert len(read.labels) == read.counts.shape[0] == 53
    assert read.n_unlabelled == 7
    assert abs(read.counts - cells.X[7:]).max() == 0


def test_labels_of_fewer_than_five_cells_are_left_out_and_named(write, cells, capsys):
    labels = cells.obs["cell_type"].to_numpy(dtype=object)
    labels[:4], labels[4:9], labels[9] = "rare", "five", "one"
    cells.obs["cell_type"] = labels
    read = read_reference([write(cells)], "cell_type")
    assert read.left_out == {"rare": 4, "one": 1}
    assert "five" in read.names and "rare" not in read.names
    assert len(read.labels) == 55
    said = capsys.readouterr().err
    assert "'rare' is left out: 4 cells, too few to learn it" in said and "'one' is left out: 1 cell," in said


def test_one_contested_cell_is_told_of_as_one():
    one = Contested("CD4 T cell", n_cells=9, n_contested=1, n_renamed=1)
    assert "1 of the 9 cells called CD4 T cell has counts" in one.sentence()
    assert "none of its own's: 1 was renamed and 0 taught nothing" in one.sentence()
    several = Contested("CD4 T cell", n_cells=9, n_contested=3, n_renamed=2, n_left_out=1)
    assert "cells called CD4 T cell have counts" in several.sentence()
    assert "none of their own's: 2 were renamed and 1 taught nothing" in several.sentence()


def test_two_references_are_joined_by_ids_on_the_genes_of_both(write, cells):
    other = simulate(40, seed=2)[:, ::-1][:, 50:].copy()
    other.var_names = [f"renamed{i}" for i in range(other.n_vars)]
    other.var["gene_symbols"] = other.var_names
    read = read_reference([write(cells, "a.h5ad"), write(other, "b.h5ad")], "cell_type")
    shared = [gene for gene in cells.var["gene_ids"] if gene in set(other.var["gene_ids"])]
    assert read.genes["gene_id"].tolist() == shared and len(shared) == 350
    assert read.genes["symbol"].tolist() == cells.var_names[:350].tolist()
    by_id = other[:, [list(other.var["gene_ids"]).index(gene) for gene in shared]]
    assert abs(read.counts[60:] - by_id.X).max() == 0


def test_references_without_ids_are_joined_by_symbols(write, cells):
    for adata, name in ((cells, "a.h5ad"), (simulate(40, seed=2), "b.h5ad")):
        adata.var = pd.DataFrame(index=[f"CD{i}" for i in range(400)])
        write(adata, name)
    parent = write(cells, "a.h5ad").parent
    read = read_reference([parent / "a.h5ad", parent / "b.h5ad"], "cell_type", organism="human")
    assert len(read.genes) == 400 and read.genes["symbol"].iloc[7] == "CD7"


def test_genes_that_are_one_under_two_names_are_added_up(write, cells, capsys):
    twice = cells.copy()
    ids = twice.var["gene_ids"].tolist()
    ids[7] = ids[3]
    twice.var["gene_ids"] = ids
    read = read_reference([write(twice)], "cell_type")
    assert len(read.genes) == 399 and not read.genes["gene_id"].duplicated().any()
    place = read.genes["gene_id"].tolist().index(ids[3])
    both = np.asarray(cells.X[:, [3, 7]].sum(axis=1)).ravel()
    np.testing.assert_array_equal(read.counts[:, [place]].toarray().ravel(), both)
    others = [place for place in range(399) if place != 3]
    assert abs(read.counts[:, others] - cells.X[:, [i for i in range(400) if i not in (3, 7)]]).max() == 0
    assert (
        "1 gene under several names, by id or symbol, added up each: SYM3 and SYM7" in capsys.readouterr().err
    )


def test_symbols_that_a_file_has_twice_are_added_up(write, cells, capsys):
    named = cells.copy()
    names = [f"CD{i}" for i in range(400)]
    names[9] = "CD2"
    named.var = pd.DataFrame(index=names)
    read = read_reference([write(named)], "cell_type", organism="human")
    assert len(read.genes) == 399 and read.counts.sum() == cells.X.sum()
    assert "added up each: CD2" in capsys.readouterr().err


def test_a_gene_without_an_id_is_that_of_its_symbol(write, cells):
    other = simulate(40, seed=2)
    other.var["gene_ids"] = [gene if i % 5 else "" for i, gene in enumerate(other.var["gene_ids"])]
    for order in (("a", "b"), ("b", "a")):
        files = {"a": write(cells, "a.h5ad"), "b": write(other, "b.h5ad")}
        read = read_reference([files[name] for name in order], "cell_type")
        assert read.genes["gene_id"].tolist() == cells.var["gene_ids"].tolist()
        assert read.counts.sum() == cells.X.sum() + other.X.sum()
        assert read.named_alone.tolist() == [i % 5 == 0 for i in range(400)]
        assert read_reference([files["a"]], "cell_type").named_alone is None


def test_ids_of_two_releases_are_one_gene_by_their_symbol(write, cells):
    """CCL5 was ENSG00000161570 and is ENSG00000271503."""
    other = simulate(40, seed=2)
    ids = other.var["gene_ids"].tolist()
    ids[5] = "ENSG00000999999"
    other.var["gene_ids"] = ids
    read = read_reference([write(cells, "a.h5ad"), write(other, "b.h5ad")], "cell_type")
    assert len(read.genes) == 400 and read.counts.sum() == cells.X.sum() + other.X.sum()
    # Where a file has both side by side they are two.
    ids[6] = cells.var["gene_ids"].iloc[5]
    other.var["gene_ids"] = ids
    read = read_reference([write(cells, "a.h5ad"), write(other, "b.h5ad")], "cell_type")
    assert len(read.genes) == 399


def test_references_that_share_too_few_genes_are_refused(write, cells):
    other = simulate(40, seed=2)[:, :90].copy()
    with pytest.raises(InputError, match="share only 90 genes by Ensembl id"):
        read_reference([write(cells, "a.h5ad"), write(other, "b.h5ad")], "cell_type")


@pytest.mark.parametrize("missing", ["label", "batch", "level"])
def test_a_missing_column_is_an_error_that_lists_the_columns(write, cells, missing):
    names = {"label": "cell_type", "batch": "donor", "level": "broad"} | {missing: "nowhere"}
    with pytest.raises(
        InputError, match="no obs column 'nowhere'; there are: cell_type, broad, donor"
    ) as caught:
        read_reference([write(cells)], names["label"], batch_key=names["batch"], levels=[names["level"]])
    assert "reference.h5ad" in str(caught.value)


def test_levels_are_read_as_the_parent_of_each_label(write, cells):
    read = read_reference([write(cells)], "cell_type", levels=["broad"])
    assert read.levels["broad"]["CD4 T cell"] == read.levels["broad"]["CD8 T cell"] == "T cell"
    assert read.levels["broad"]["B cell"] == "B cell"


def test_a_label_under_two_parents_is_an_error_that_names_both(write, cells):
    cells.obs.iloc[0, cells.obs.columns.get_loc("broad")] = "plasma"
    with pytest.raises(
        InputError, match=r"'B cell' has several labels at level 'broad': B cell \(11\), plasma \(1\)"
    ):
        read_reference([write(cells)], "cell_type", levels=["broad"])


def test_references_that_disagree_on_a_level_are_an_error(write, cells):
    other = simulate(40, seed=2)
    other.obs["broad"] = other.obs["broad"].replace("T cell", "lymphocyte")
    with pytest.raises(InputError, match="'CD4 T cell' is 'T cell' in one reference and 'lymphocyte' in 'b"):
        read_reference([write(cells, "a.h5ad"), write(other, "b.h5ad")], "cell_type", levels=["broad"])


def test_a_label_without_a_parent_is_an_error_before_any_training(write, cells):
    cells.obs["broad"] = cells.obs["broad"].where(cells.obs["cell_type"] != "B cell", "")
    with pytest.raises(InputError, match="'B cell' has no label at level 'broad'"):
        read_reference([write(cells)], "cell_type", levels=["broad"])


def test_fewer_than_two_labels_are_an_error(write, cells):
    cells.obs["one"] = "B cell"
    with pytest.raises(InputError, match="holds 1 label with at least 5 cells"):
        read_reference([write(cells)], "one")


def test_references_of_several_organisms_are_refused(write, cells):
    mouse = simulate(40, seed=2)
    mouse.var["gene_ids"] = [f"ENSMUSG{i:011d}" for i in range(400)]
    with pytest.raises(InputError, match="several organisms: human, mouse"):
        read_reference([write(cells, "a.h5ad"), write(mouse, "b.h5ad")], "cell_type")


def test_an_organism_that_cannot_be_told_must_be_given(write, cells):
    cells.var = pd.DataFrame(index=[f"thing-{i}" for i in range(400)])
    with pytest.raises(InputError, match="organism cannot be told"):
        read_reference([write(cells)], "cell_type")
    assert read_reference([write(cells)], "cell_type", organism="Mus musculus").organism == "mouse"


def test_antibodies_are_left_out(write, cells):
    cells.var["feature_types"] = np.where(np.arange(400) < 390, "Gene Expression", "Antibody Capture")
    assert len(read_reference([write(cells)], "cell_type").genes) == 390


def test_labels_that_are_hostile_text_are_kept_as_they_are(write, cells):
    cells.obs["cell_type"] = cells.obs["cell_type"].replace("B cell", "<script>|$x_$\\")
    assert "<script>|$x_$\\" in read_reference([write(cells)], "cell_type").names


def test_counts_stored_twice_for_one_place_are_added_up(write, cells):
    half = cells.X.tocoo()
    twice = sp.coo_matrix(
        (np.repeat(half.data, 2), (np.repeat(half.row, 2), np.repeat(half.col, 2))), shape=half.shape
    )
    order = np.argsort(twice.row, kind="stable")
    pointers = np.append(0, np.cumsum(np.bincount(twice.row, minlength=60)))
    doubled = cells.copy()
    doubled.X = sp.csr_matrix((twice.data[order], twice.col[order], pointers), shape=half.shape)
    read = read_reference([write(doubled)], "cell_type")
    assert read.counts.nnz == cells.X.nnz
    assert abs(read.counts - 2 * cells.X).max() == 0


def test_labels_of_several_references_are_joined_under_new_names(write, cells, tmp_path, capsys):
    other = simulate(60, seed=3)
    other.obs["cell_type"] = [f"{label}s" for label in other.obs["cell_type"]]
    dropped, *kept = sorted(TYPES)
    table = tmp_path / "names.csv"
    rows = [f"{label}s,{label}" for label in kept] + [f"{dropped},", f"{dropped}s,", "never,x"]
    table.write_text("\n".join(["label,name", *rows]) + "\n")
    paths = [write(cells, "one.h5ad"), write(other, "two.h5ad")]
    read = read_reference(paths, "cell_type", label_map=table)
    assert read.names == kept
    given = [*cells.obs["cell_type"], *(label[:-1] for label in other.obs["cell_type"])]
    assert read.labels.tolist() == [label for label in given if label != dropped]
    assert read.n_unlabelled == given.count(dropped)
    assert read.sources == ["one.h5ad", "two.h5ad", "names.csv"]
    said = capsys.readouterr().err
    assert "no cell has the label 'never'" in said and "without a label in" not in said


def test_coarser_labels_are_held_against_the_new_names(write, cells, tmp_path):
    table = tmp_path / "names.csv"
    one, *_, two = cells.obs.sort_values("broad")["cell_type"]
    table.write_text(f"label,name\n{one},both\n{two},both\n")
    with pytest.raises(InputError, match="both"):
        read_reference([write(cells)], "cell_type", label_map=table, levels=["broad"])
