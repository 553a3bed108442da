"""TRAIN as a whole: what is held out, what is refused, what the folder says."""

import dataclasses
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from small_model import BATCHES, TYPES, options, scratch, simulate, small_model, write_cl_map, write_reference

from cellscribe.errors import InputError
from cellscribe.io import read_json
from cellscribe.model.manifest import read_manifest, verify_model
from cellscribe.training import calibrate, folder, held_out, members, train
from cellscribe.training.reference import read_reference


@pytest.fixture
def ready(tmp_path):
    """A folder with a reference and ids, and the options of a training that takes seconds."""
    write_reference(simulate(120), tmp_path / "reference.h5ad")
    write_cl_map(tmp_path / "cl.csv")
    return options(tmp_path)


@pytest.fixture
def no_training(monkeypatch):
    """For what must be refused before anything is trained."""
    monkeypatch.setattr(held_out, "train_members", lambda *_, **__: pytest.fail("trained"))


# Held-out folds ----------------------------------------------------------------------------------


@pytest.mark.parametrize("n_batches", [2, 3, 7])
def test_folds_never_split_a_batch_and_every_cell_is_held_out_once(n_batches):
    rng = np.random.default_rng(n_batches)
    batches = rng.integers(0, n_batches, 500).astype(str).astype(object)
    folds = held_out.folds_of(batches, rng.integers(0, 4, 500))
    assert pd.Series(folds).groupby(batches.astype(str)).nunique().max() == 1
    assert sorted(set(folds)) == list(range(min(3, n_batches)))


def test_folds_are_of_about_the_same_size():
    batches = np.repeat(list("abcdef"), [60, 50, 40, 30, 20, 10]).astype(object)
    assert np.bincount(held_out.folds_of(batches, np.zeros(210, int))).max() <= 80


def test_one_batch_is_split_within_labels():
    codes = np.tile([0, 1, 1], 33)
    folds = held_out.folds_of(np.full(99, "one", dtype=object), codes)
    for code in (0, 1):
        assert len(set(np.bincount(folds[codes == code]))) == 1
    np.testing.assert_array_equal(folds, held_out.folds_of(np.full(99, "one", dtype=object), codes))


def test_no_cell_of_a_held_out_batch_is_seen_in_training_not_even_for_its_genes(ready, monkeypatch):
    cells = read_reference(ready.reference, "cell_type", batch_key="donor")
    seen: dict[str, list] = {"genes": [], "members": []}
    choose, trained = held_out.choose_genes, held_out.train_members

    def spy_genes(cells_, rows, options_):
        seen["genes"].append(set(cells_.batches[rows]))
        return choose(cells_, rows, options_)

    def spy_members(counts, codes, batches, n_labels, options_):
        seen["members"].append(set(batches))
        return trained(counts, codes, batches, n_labels, options_)

    for module in (held_out, members):
        monkeypatch.setattr(module, "choose_genes", spy_genes)
    monkeypatch.setattr(held_out, "train_members", spy_members)
    held = held_out.hold_out(cells, ready)
    # genes are chosen twice: for the members, and for the counts to fit the regression anew from
    assert seen["genes"][::2] == seen["genes"][1::2] == seen["members"]
    assert [set(BATCHES) - used for used in seen["members"]] == [{name} for name in BATCHES]
    for altered in (False, True):
        assert sorted(held.rows[held.altered == altered].tolist()) == list(range(120))
    for part in held.fewer_genes.values():
        assert sorted(part.rows.tolist()) == list(range(120))


def test_scores_come_from_weights_that_were_fitted_on_other_batches():
    """A member that is right in one batch alone: the other batch's cells are scored as if it were always right."""
    truth, folds = np.tile([0, 1], 50), np.repeat([0, 1], 50)
    sure = np.where(np.arange(2) == truth[:, None], 0.99, 0.01)
    members = {"logistic": np.where((folds == 0)[:, None], sure, sure[:, ::-1])}
    scored = calibrate.pooled_across(members, ["logistic"], truth, np.ones(100), folds, np.zeros(2))
    alone = [
        calibrate.fit_pool([members["logistic"][folds == fold]], truth[folds == fold]) for fold in (0, 1)
    ]
    for fold in (0, 1):
        expected = calibrate.pool([members["logistic"][folds == fold]], alone[1 - fold], np.zeros(2))
        np.testing.assert_allclose(scored[folds == fold], expected)


def test_a_label_of_one_batch_spoils_no_limits(ready):
    """Held out, its cells look like nothing that was trained on: they say nothing of cells of known labels."""
    adata = simulate(240)
    alone = (adata.obs["donor"] == BATCHES[0]) | (adata.obs["cell_type"] != TYPES[0])
    write_reference(adata[alone.to_numpy()].copy(), ready.reference[0])
    cells = read_reference(ready.reference, "cell_type", batch_key="donor", scratch=scratch())
    held = held_out.hold_out(cells, ready)
    label = cells.names.index(TYPES[0])
    assert (held.taught == (cells.codes != label)).all()
    fitted = calibrate.fit_calibration(held, cells.codes, cells.batches, cells.names)["logistic"]
    assert min(fitted["set_limits"].values()) > 0.1
    own = cells.codes[held.rows[~held.altered]] == label
    assert calibrate.unexpected_limit(dataclasses.replace(held, unexpected=np.where(own, 0.5, 0.01))) == 0.01


def test_cells_are_drawn_for_the_test_as_frequent_as_they_are(monkeypatch):
    monkeypatch.setattr(held_out, "MOST_TESTED", 1000)
    codes = np.repeat([0, 1], [99_000, 1_000])
    drawn = held_out.tested_cells(np.arange(100_000), 0)
    assert len(set(drawn.tolist())) == 1000 and (np.diff(drawn) > 0).all()
    assert codes[drawn].mean() < 0.025
    assert held_out.tested_cells(np.arange(5), 0).tolist() == [0, 1, 2, 3, 4]


def test_sets_are_scored_by_limits_of_other_folds_with_one_batch_too():
    """Two folds that differ: by its own limits each would be covered to nine tenths."""
    rng = np.random.default_rng(0)
    own = np.concatenate([rng.uniform(0.9, 1.0, 200), rng.uniform(0.1, 0.2, 200)])
    probabilities = np.stack([own, 1 - own], axis=1)
    folds = np.repeat([0, 1], 200)
    found = calibrate.held_out_sets(
        probabilities, np.zeros(400, int), folds, np.ones(400), np.ones(400, bool)
    )
    assert found["coverage"] == 0.5


def test_labels_that_are_batches_are_refused(ready):
    cells = read_reference(ready.reference, "cell_type", batch_key="donor")
    cells = dataclasses.replace(cells, batches=np.where(cells.labels == "B cell", "x", "y").astype(object))
    cells = dataclasses.replace(
        cells, labels=np.where(cells.batches == "x", "B cell", "T cell").astype(object)
    )
    with pytest.raises(InputError, match="is the only label left"):
        held_out.hold_out(cells, ready)


# What the folder says ----------------------------------------------------------------------------


def test_the_folder_passes_verification_and_its_manifest_tells_the_training():
    manifest = verify_model(small_model("logistic"))
    assert manifest["kind"] == "logistic" and manifest["organism"] == "human"
    assert [label["n_cells"] for label in manifest["labels"]] == [60] * 5
    assert [label["n_batches"] for label in manifest["labels"]] == [3] * 5
    assert manifest["training"]["sources"] == ["reference.h5ad"]
    assert manifest["training"]["n_batches"] == 3
    assert manifest["levels"][0]["labels"]["CD4 T cell"] == "T cell"
    assert manifest["evaluation"]["split"] == "whole batches held out, from the weights of the pool too"
    assert str(scratch()) not in (small_model("logistic") / "manifest.json").read_text()


def test_evaluation_is_the_same_in_manifest_and_file_and_covers_all_cells():
    said = read_json(small_model("consensus") / "evaluation.json")
    manifest = read_manifest(small_model("consensus"))
    assert manifest["evaluation"] == said["headline"]
    assert said["headline"]["n_cells"] == np.sum(said["confusion"]["cells"]) == 300
    assert said["headline"]["accuracy"] > 0.9
    assert set(said["classifiers"]) == set(manifest["calibration"])
    for calibration in manifest["calibration"].values():
        assert min(calibration["weights"].values()) >= 0


def test_markers_of_a_label_are_stronger_inside_it():
    markers = read_json(small_model("consensus") / "markers.json")
    assert set(markers) == set(TYPES)
    for rows in markers.values():
        assert 10 <= len(rows) <= 20
        assert all(row["mean"] > row["mean_rest"] and row["share"] >= 0.1 for row in rows)
        assert [row["score"] for row in rows] == sorted((row["score"] for row in rows), reverse=True)


def test_the_same_seed_makes_the_same_weights(ready):
    for name in ("one", "two"):
        train.run_train(dataclasses.replace(ready, output=ready.output.parent / name))
    one, two = (ready.output.parent / name for name in ("one", "two"))
    for name in ("logistic.safetensors", "genes.tsv", "evaluation.json", "markers.json", "card.html"):
        assert (one / name).read_bytes() == (two / name).read_bytes(), name


def test_one_batch_rare_labels_and_given_levels_go_the_whole_way(ready):
    cells = simulate(120)
    labels = cells.obs["cell_type"].to_numpy(dtype=object)
    labels[:3] = "<rare>"
    cells.obs["cell_type"] = labels
    cells.obs["broad"] = np.where(cells.obs["cell_type"].str.contains("T cell"), "T cell", "other")
    write_reference(cells, ready.reference[0])
    folder = train.run_train(dataclasses.replace(ready, batch_key=None, levels=("broad",)))
    manifest = verify_model(folder)
    assert manifest["does_not_know"] == ["<rare> (3 cells: too few to learn)"]
    assert "<rare>" not in {label["label"] for label in manifest["labels"]}
    assert "one batch only" in manifest["evaluation"]["split"]
    assert manifest["levels"][0]["name"] == "broad"
    assert set(manifest["levels"][0]["labels"].values()) == {"T cell", "other"}
    assert "&lt;rare&gt;" in (folder / "card.html").read_text()
    assert "one batch only" in (folder / "card.md").read_text()


# What is refused, before anything is trained -----------------------------------------------------


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ("label,cl_id\nB cell,CL:9999999\n", "CL:9999999 is not in the Cell Ontology"),
        ("label,cl_id\nB cell,CL_0000236\n", "'CL_0000236', given for 'B cell', is neither an id"),
        ("name,id\nB cell,CL:0000236\n", "label and cl_id are needed"),
        ("", "this is no table"),
    ],
)
def test_a_bad_table_of_ids_is_refused(ready, no_training, table, said):
    ready.cl_map.write_text(table)
    with pytest.raises(InputError, match=said):
        train.run_train(ready)


@pytest.mark.parametrize(
    "changes",
    [{"name": "my model"}, {"name": "../up"}, {"version": "1 0"}, {"version": ""}, {"levels": ("a-b",)}],
)
def test_names_that_the_manifest_would_refuse_are_refused_at_once(ready, no_training, changes):
    with pytest.raises(InputError, match="may hold only"):
        train.run_train(dataclasses.replace(ready, **changes))


@pytest.mark.parametrize("level", ["final", "cluster", "predicted", "ref_distance", "umap"])
def test_levels_that_would_hide_a_column_of_the_contract_are_refused(ready, no_training, level):
    with pytest.raises(InputError, match=f"a level cannot be called '{level}'"):
        train.run_train(dataclasses.replace(ready, levels=(level,)))


def test_a_folder_that_is_no_model_is_never_replaced(ready, no_training):
    ready.output.mkdir()
    (ready.output / "thesis.docx").write_text("years of work")
    with pytest.raises(InputError, match="is no model folder"):
        train.run_train(ready)
    assert (ready.output / "thesis.docx").read_text() == "years of work"


def test_a_failed_training_leaves_nothing_behind(ready, monkeypatch):
    def fail(*_, **__):
        raise RuntimeError

    monkeypatch.setattr(folder, "write_manifest", fail)
    before = sorted(path.name for path in ready.output.parent.iterdir())
    with pytest.raises(RuntimeError):
        train.run_train(ready)
    assert sorted(path.name for path in ready.output.parent.iterdir()) == before


# With scVI ---------------------------------------------------------------------------------------


@pytest.mark.train
def test_a_consensus_model_with_a_real_encoder_is_made_and_annotates(ready, tmp_path):
    pytest.importorskip("scvi")
    from cellscribe.mapping import map_cells
    from cellscribe.model.model import Model
    from cellscribe.one_file import CountsInMemory

    folder = train.run_train(dataclasses.replace(ready, kind="consensus", max_epochs=2, batch_key=None))
    manifest = verify_model(folder)
    assert [member["name"] for member in manifest["members"]] == ["scvi_neighbours", "scvi_trees", "logistic"]
    model, cells = Model(folder), simulate(30, seed=3)
    mapping = map_cells(CountsInMemory(cells.X, cells.var), model)
    probabilities = model.pooled(
        model.member_probabilities(
            latent=mapping.latent,
            distances=mapping.distances,
            indices=mapping.indices,
            logistic_scores=mapping.logistic_scores,
        ),
        "consensus",
    )
    named = np.array(model.labels)[probabilities.argmax(axis=1)]
    assert (named == cells.obs["cell_type"].to_numpy()).mean() > 0.8


def test_a_model_goes_into_the_folder_that_a_link_leads_to(tmp_path):
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "old").write_text("")
    (tmp_path / "link").symlink_to("kept")
    with folder.new_model(tmp_path / "link") as made:
        (made / "new").write_text("")
    assert (tmp_path / "link").is_symlink()
    assert [path.name for path in (tmp_path / "kept").iterdir()] == ["new"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["kept", "link"]


def test_the_current_folder_is_not_replaced_by_a_model(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="current folder"):
        folder.check_names("m", "1", Path())
