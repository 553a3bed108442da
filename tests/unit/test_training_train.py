"""TRAIN as a whole: what is refused, what the folder says."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from small_model import TYPES, scratch, simulate, small_model, write_reference

from cellscribe.errors import InputError
from cellscribe.io import read_json
from cellscribe.model.manifest import read_manifest, verify_model
from cellscribe.report_models import label_scores
from cellscribe.training import folder, held_out, train


@pytest.fixture
def no_training(monkeypatch):
    """For what must be refused before anything is trained."""
    monkeypatch.setattr(held_out, "train_members", lambda *_, **__: pytest.fail("trained"))


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


def test_a_label_of_one_batch_is_scored_as_untested_and_warnings_stand_in_the_card(ready):
    cells = simulate(300)
    labels, donors = (cells.obs[key].to_numpy(dtype=object) for key in ("cell_type", "donor"))
    donors[labels == "B cell"] = donors[0]
    labels[np.flatnonzero(labels == "NK cell")[:20]] = "nk cells"
    cells.obs["cell_type"], cells.obs["donor"], cells.obs["condition"] = labels, donors, "ctrl"
    write_reference(cells, ready.reference[0])
    folder = train.run_train(dataclasses.replace(ready, batch_key="donor", levels=("condition",)))
    alike, level = verify_model(folder)["training"]["warnings"]
    assert "written almost alike" in alike and "at level 'condition' all labels are 'ctrl'" in level
    for card in ("card.md", "card.html"):
        text = (folder / card).read_text()
        assert "written almost alike" in text
        assert "60 cells of labels that were held out whole (B cell) count as wrong" in text
    (row,) = [line for line in (folder / "card.md").read_text().splitlines() if line.startswith("| B cell |")]
    assert row.endswith("| 60 | 1 | – | – | – |")
    assert "B cell" not in label_scores([folder]) and "Monocyte" in label_scores([folder])


def test_labels_of_which_none_is_in_two_batches_are_told_of(ready):
    cells = simulate(120)
    cells.obs["donor"] = cells.obs["cell_type"]
    write_reference(cells, ready.reference[0])
    folder = train.run_train(dataclasses.replace(ready, batch_key="donor"))
    assert "no label is in two of the parts" in verify_model(folder)["training"]["warnings"][0]


def test_a_level_that_is_the_same_for_all_labels_is_told_of(capsys):
    train.tell_empty_levels(
        [
            {"name": "broad", "labels": {"CD4 T cell": "T cell", "B cell": "B cell"}},
            {"name": "condition", "labels": {"CD4 T cell": "ctrl", "B cell": "ctrl"}},
        ]
    )
    (said,) = capsys.readouterr().err.splitlines()
    assert said.startswith(
        "warning: at level 'condition' all labels are 'ctrl', which every cell will be called"
    )


def test_one_batch_rare_labels_and_given_levels_go_the_whole_way(ready):
    cells = simulate(120)
    labels = cells.obs["cell_type"].to_numpy(dtype=object)
    labels[0] = "<rare>"
    cells.obs["cell_type"] = labels
    cells.obs["broad"] = np.where(cells.obs["cell_type"].str.contains("T cell"), "T cell", "other")
    write_reference(cells, ready.reference[0])
    folder = train.run_train(dataclasses.replace(ready, batch_key=None, levels=("broad",)))
    manifest = verify_model(folder)
    assert manifest["does_not_know"] == ["<rare> (1 cell: too few to learn)"]
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
        ("", "the columns are none; label and cl_id are needed"),
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
    names = [member["name"] for member in manifest["members"]]
    assert names == ["scvi_neighbours", "scvi_trees", "logistic", "likelihood"]
    model, cells = Model(folder), simulate(30, seed=3)
    mapping = map_cells(CountsInMemory(cells.X, cells.var), model)
    probabilities = model.pooled(model.member_probabilities(**mapping.arrays()), "consensus")
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
