"""Labels that are known: how they are found, matched with the model's, and counted."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import accuracy_score, f1_score

from cellscribe.contract import UNASSIGNED
from cellscribe.errors import InputError
from cellscribe.model.calibration import expected_calibration_error
from cellscribe.qc import METRICS
from cellscribe.truth import COLUMNS, Agreement, compare, read_truth
from cellscribe.truth_match import relate

MODEL = {"B cell": "CL:0000236", "CD4 T cell": "CL:0000624", "NK cell": "CL:0000623", "blob": ""}


@pytest.fixture
def obs() -> pd.DataFrame:
    labels = ["B cell", "unknown", "", "NK cell"]
    return pd.DataFrame({"author": pd.Categorical(labels)}, index=[f"AAC{i}-1" for i in range(4)])


# As a coarse and a fine model give them together.
NESTED = {
    "Monocyte": "CL:0000576",
    "CD14+ Monocyte": "CL:0001054",
    "FCGR3A+ Monocyte": "CL:0000875",
    "B cell": "CL:0000236",
    "Other T cell": "CL:0000084",
    "CD4 T cell": "CL:0000624",
    "CD4 cm": "CL:0000624",
}


def agreement(
    truth: list[str],
    predicted: list[str],
    final: list[str] | None = None,
    model: dict[str, str] = MODEL,
) -> Agreement:
    def text(values: list[str]) -> np.ndarray:
        return np.array(values, dtype=object)

    labels = {**dict.fromkeys([*predicted, *(final or [])], ""), "T cell": "CL:0000084", **model}
    return compare(
        text(truth),
        text(predicted),
        text(final or predicted),
        np.linspace(0, 1, len(truth)),
        labels,
        list(model),
        key="author",
        source="obs",
    )


def related(truth: str) -> tuple[str, list[str], list[str]]:
    found = relate([truth], MODEL)
    names = np.array(list(MODEL))
    return found.cl_ids[0], names[found.same[0]].tolist(), names[found.compatible[0]].tolist()


@pytest.mark.parametrize(
    ("truth", "expected"),
    [
        ("B cell", ("CL:0000236", ["B cell"], [])),
        ("  b  CELL ", ("CL:0000236", ["B cell"], [])),
        ("B-cells", ("CL:0000236", ["B cell"], [])),
        ("CL:0000236", ("CL:0000236", ["B cell"], [])),
        ("CD4-positive, alpha-beta T cell", ("CL:0000624", ["CD4 T cell"], [])),
        ("T cell", ("CL:0000084", [], ["CD4 T cell"])),
        ("naive B cell", ("CL:0000788", [], ["B cell"])),
        ("lymphocyte", ("CL:0000542", [], ["B cell", "CD4 T cell", "NK cell"])),
        ("BLOB", ("", ["blob"], [])),
        ("CD4 T cells", ("CL:0000624", ["CD4 T cell"], [])),
        ("CD4+ T cell", ("CL:0000624", ["CD4 T cell"], [])),
        ("cell", ("", [], [])),
        ("CL:9999999", ("CL:9999999", [], [])),
        ("cluster 7", ("", [], [])),
    ],
)
def test_a_known_label_finds_its_like_and_its_kin_in_the_model(
    truth: str, expected: tuple[str, list[str], list[str]]
) -> None:
    assert related(truth) == expected


@pytest.mark.parametrize(
    "labels",
    [
        *(
            ["α cell", "β cell", "δ cell"],
            ["上皮细胞", "成纤维细胞", "T细胞"],
            ["Т-клетки", "В-клетки", "моноциты"],
        ),
        *(["CD4- T cell", "CD4 T cell"], ["CD4− T cell", "CD4+ T cell"], ["CD16- NK", "CD16 NK"], ["?", "!"]),
        *(["T NK", "NK T"], ["αβ T", "γδ T"], ["単球", "マクロファージ"]),
    ],
)
def test_a_label_of_any_script_is_its_like_alone(labels: list[str]) -> None:
    assert relate(labels, dict.fromkeys(labels, "")).same.tolist() == np.eye(len(labels), dtype=bool).tolist()


def test_a_label_is_known_again_whatever_its_accents_signs_and_greek_letters() -> None:
    truth = ["gamma-delta T cells", "CD4⁻ T", "Müller glia", "КЛЕТКА"]
    labels = ["γδ T cell", "CD4- T", "Mu\u0308ller glia", "клетка"]
    assert relate(truth, dict.fromkeys(labels, "")).same.tolist() == np.eye(4, dtype=bool).tolist()


def test_labels_of_one_term_are_told_apart_where_the_truth_has_their_words() -> None:
    found = relate(["naive B", "B cell"], {"naive B": "CL:0000236", "memory B": "CL:0000236"})
    assert found.same.tolist() == [[True, False], [True, True]]


@pytest.mark.parametrize("truth", ["T cells", "Other T cell"])
def test_a_broader_name_that_some_cells_got_changes_nothing_for_the_label_of_its_term(truth: str) -> None:
    """Both of one term: the one is what the model can predict, the other what a cell between two T cells is called."""
    alone = relate([truth], {"Other T cell": "CL:0000084"})
    beside = relate([truth], {"T cell": "CL:0000084", "Other T cell": "CL:0000084"}, ["Other T cell"])
    assert alone.same.tolist() == [[True]] and beside.same.tolist() == [[True, True]]


def test_the_scores_are_those_of_scikit_learn_where_the_words_are_the_models() -> None:
    generator = np.random.default_rng(0)
    names = np.array(list(MODEL), dtype=object)
    truth = names[generator.integers(0, 4, 500)]
    predicted = np.where(generator.random(500) < 0.8, truth, names[generator.integers(0, 4, 500)])
    head = agreement(truth.tolist(), predicted.tolist()).headline
    assert head["accuracy"] == pytest.approx(accuracy_score(truth, predicted), abs=1e-4)
    assert head["macro_f1"] == pytest.approx(f1_score(truth, predicted, average="macro"), abs=1e-4)
    error = expected_calibration_error(1 - np.linspace(0, 1, 500), truth == predicted)
    assert head["calibration_error"] == pytest.approx(error, abs=1e-4)


def test_what_the_model_cannot_know_is_told_and_does_not_count_as_wrong() -> None:
    found = agreement(
        truth=["B cell", "B cell", "NK_7", "T cell", "T cell", "platelet", ""],
        predicted=["B cell", "NK cell", "NK cell", "CD4 T cell", "B cell", "B cell", "B cell"],
        final=["B cell", UNASSIGNED, "NK cell", "T cell", "B cell", UNASSIGNED, "B cell"],
    )
    head = found.headline
    assert (head["n_cells"], head["n_unlabelled"], head["n_known"]) == (6, 1, 2)
    # "NK_7" is no name of the ontology, and not the model's word.
    assert head["unknown_labels"] == {"T cell": 2, "platelet": 1}
    assert head["not_understood"] == {"NK_7": 1}
    assert (head["accuracy"], head["accuracy_assigned"]) == (0.5, 1.0)
    # The T cell that was called T cell in the end, though the model has no such label.
    shares = ("same", "compatible", "unassigned", "different", "not_understood")
    assert [head[f"share_{name}"] for name in shares] == [round(n / 6, 4) for n in (2, 0, 2, 1, 1)]


def test_a_label_below_one_of_the_models_scores_as_that() -> None:
    found = agreement(
        truth=["naive B cell"] * 4 + ["memory B cell"] * 2 + ["NK cell"] * 2,
        predicted=["B cell"] * 3 + ["NK cell"] + ["B cell"] * 2 + ["NK cell", "B cell"],
        final=["B cell"] * 3 + [UNASSIGNED] + ["B cell"] * 2 + ["NK cell", "B cell"],
    )
    head, table = found.headline, found.table.set_index("truth")
    assert (head["n_known"], head["accuracy"], head["unknown_labels"]) == (8, 0.75, {})
    assert head["scored_as"] == {"naive B cell": "B cell", "memory B cell": "B cell"}
    assert table["scored_as"].to_dict() == {
        "naive B cell": "B cell",
        "memory B cell": "B cell",
        "NK cell": "NK cell",
    }
    assert table["known_to_model"].tolist() == ["broader", "yes", "broader"]
    assert table.loc["naive B cell", ["recall", "recall_final"]].tolist() == [0.75, 0.75]
    # Macro-F1 is of the classes that are scored, as if the words had been the model's: both kinds of B cell are one.
    scored = ["B cell"] * 6 + ["NK cell"] * 2
    predicted = ["B cell"] * 3 + ["NK cell"] + ["B cell"] * 2 + ["NK cell", "B cell"]
    assert head["macro_f1"] == pytest.approx(f1_score(scored, predicted, average="macro"), abs=1e-4)
    # By its words the final label is not the known one, but its ancestor.
    assert (head["share_same"], head["share_compatible"]) == (0.125, 0.625)


def test_a_label_that_has_types_in_the_model_is_right_by_these() -> None:
    found = agreement(
        truth=["Monocyte"] * 5 + ["B cell"] * 3,
        predicted=[
            "Monocyte",
            *["CD14+ Monocyte"] * 2,
            "FCGR3A+ Monocyte",
            *["B cell"] * 3,
            "CD14+ Monocyte",
        ],
        final=["Monocyte", "CD14+ Monocyte", UNASSIGNED, "FCGR3A+ Monocyte", *["B cell"] * 4],
        model=NESTED,
    )
    head, table = found.headline, found.table.set_index("truth")
    assert table["scored_as"].tolist() == ["Monocyte or CD14+ Monocyte or FCGR3A+ Monocyte", "B cell"]
    assert head["types_of"] == {"Monocyte": ["CD14+ Monocyte", "FCGR3A+ Monocyte"]}
    assert head["scored_as"] == {} and table["known_to_model"].tolist() == ["yes", "yes"]
    assert table.loc["Monocyte", ["recall", "recall_final", "precision"]].tolist() == [0.8, 0.6, 0.8]
    # As if each type had been called by the known label.
    scored = ["Monocyte"] * 5 + ["B cell"] * 3
    predicted = ["Monocyte"] * 4 + ["B cell"] * 3 + ["Monocyte"]
    assert head["accuracy"] == 0.75
    assert head["macro_f1"] == pytest.approx(f1_score(scored, predicted, average="macro"), abs=1e-4)
    right = np.array(scored) == np.array(predicted)
    error = expected_calibration_error(1 - np.linspace(0, 1, 8), right)
    assert head["calibration_error"] == pytest.approx(error, abs=1e-4)
    # By its words the final label is another one; in the figure it stays what it is, beside its like.
    assert (head["share_same"], head["share_compatible"]) == (0.5, 0.25)
    assert list(found.confusion) == ["CD14+ Monocyte", "Monocyte", "FCGR3A+ Monocyte", "B cell"]


def test_a_type_that_another_known_label_means_is_right_for_that_one_alone() -> None:
    found = agreement(
        truth=["Monocyte"] * 2 + ["CD14+ Monocytes"] * 2,
        predicted=["CD14+ Monocyte", "FCGR3A+ Monocyte", "CD14+ Monocyte", "Monocyte"],
        model=NESTED,
    )
    assert found.table["scored_as"].tolist() == ["CD14+ Monocyte", "Monocyte or FCGR3A+ Monocyte"]
    assert found.table["recall"].tolist() == [0.5, 0.5]
    # Nor is one of a known label between the two.
    types = agreement(
        truth=["lymphocyte", "T cell"],
        predicted=["CD4 T cell"] * 2,
        model={"lymphocyte": "CL:0000542", "T cell": "CL:0000084", **NESTED},
    ).headline["types_of"]
    assert types == {"T cell": ["CD4 T cell", "Other T cell", "CD4 cm"], "lymphocyte": ["B cell"]}
    # Not even of one that the model cannot give itself.
    found = agreement(
        truth=["lymphocyte"] * 4 + ["T cell"],
        predicted=["CD4 T cell", "CD4 T cell", "CD8 T cell", "B cell", "CD8 T cell"],
        model={
            "lymphocyte": "CL:0000542",
            "CD4 T cell": "CL:0000624",
            "CD8 T cell": "CL:0000625",
            "B cell": "CL:0000236",
        },
    )
    assert found.table.set_index("truth").loc["lymphocyte", "scored_as"] == "lymphocyte or B cell"


def test_labels_that_share_an_id_are_types_of_the_term_and_of_no_other_words() -> None:
    found = agreement(
        truth=["CD4 T cell"] * 3 + ["Monocyte"],
        predicted=["CD4 cm", "CD4 T cell", "Monocyte", "Monocyte"],
        model=NESTED,
    )
    table = found.table.set_index("truth")
    assert table.loc["CD4 T cell", "scored_as"] == "CD4 T cell or CD4 cm"
    shares = ["recall", "predicted_same_or_compatible", "share_same_or_compatible"]
    assert table.loc["CD4 T cell", shares].tolist() == [0.6667] * 3
    alone = agreement(truth=["CD4 cm"], predicted=["CD4 T cell"], model=NESTED)
    assert alone.table["scored_as"].tolist() == ["CD4 cm"] and alone.headline["accuracy"] == 0


def test_what_is_called_other_has_no_types() -> None:
    for truth, types in (("Other T cell", []), ("T cell", ["CD4 T cell", "CD4 cm"])):
        head = agreement(truth=[truth], predicted=["CD4 T cell"], model=NESTED).headline
        assert head["accuracy"] == bool(types) and head["types_of"].get(truth, []) == types, truth


@pytest.mark.parametrize(
    ("truth", "scored_as"),
    [
        ("CD14+ Monocytes", ["Monocyte"]),
        ("CL:0001054", ["Monocyte"]),
        # Of T cell and CD4 T cell the lower one.
        ("naive thymus-derived CD4-positive, alpha-beta T cell", ["CD4 T cell"]),
        ("gamma-delta T cell", ["other T cell"]),
        # Memory T cells may be CD4 T cells too, of which the model has a label of its own.
        ("memory T cell", []),
        ("regulatory T cell", []),
        ("plasmacytoid dendritic cell", ["Dendritic cell"]),
        # It has the label itself, or only narrower ones.
        ("Monocyte", []),
        ("lymphocyte", []),
        ("hepatocyte", []),
        ("cluster 7", []),
    ],
)
def test_the_label_that_stands_for_a_finer_one_is_the_lowest_and_the_only_one(
    truth: str, scored_as: list[str]
) -> None:
    model = {
        "Monocyte": "CL:0000576",
        "other T cell": "CL:0000084",
        "CD4 T cell": "CL:0000624",
        "CD8 T cell": "CL:0000625",
        "Dendritic cell": "CL:0000451",
        "unspecific": "CL:0000000",
    }
    found = relate([truth], model)
    assert np.array(list(model))[found.broader[0]].tolist() == scored_as


def test_of_several_broader_labels_that_are_not_one_below_the_other_none_stands_for_the_finer() -> None:
    found = relate(["dendritic cell"], {"phagocyte": "CL:0000518", "mononuclear leukocyte": "CL:0000842"})
    assert found.compatible.all() and not found.broader.any()


def test_a_broader_name_that_the_model_cannot_predict_itself_stands_for_no_label() -> None:
    found = relate(["gamma-delta T cell"], {"T cell": "CL:0000084", "B cell": "CL:0000236"}, ["B cell"])
    assert not found.broader.any() and found.compatible.tolist() == [[True, False]]


def test_a_label_that_nothing_matches_is_not_called_different_and_its_shares_are_left_empty() -> None:
    found = agreement(
        truth=["MNP"] * 4 + ["B cell"] + ["cell"],
        predicted=["NK cell"] * 4 + ["NK cell"] * 2,
        final=["NK cell"] * 3 + [UNASSIGNED] + ["NK cell"] * 2,
    )
    head, table = found.headline, found.table.set_index("truth")
    assert (head["share_different"], head["share_not_understood"], head["share_unassigned"]) == (
        round(1 / 6, 4),
        round(4 / 6, 4),
        round(1 / 6, 4),
    )
    assert head["not_understood"] == {"MNP": 4, "cell": 1}
    assert table["known_to_model"].to_dict() == {
        "B cell": "yes",
        "MNP": "not understood",
        "cell": "not understood",
    }
    shares = ["share_same_or_compatible", "predicted_same_or_compatible"]
    assert table.loc[["MNP", "cell"], shares].isna().all(axis=None)
    assert table.loc["MNP", "share_unassigned"] == 0.25 and table.loc["B cell", shares].tolist() == [0, 0]


def test_the_final_label_stands_beside_the_predicted_one_for_each_type() -> None:
    found = agreement(
        truth=["B cell"] * 4 + ["T cell"] * 2,
        predicted=["B cell"] * 3 + ["NK cell"] + ["CD4 T cell", "B cell"],
        final=["B cell"] * 2 + [UNASSIGNED] * 2 + ["T cell", "T cell"],
    )
    table = found.table.set_index("truth")
    assert table.loc["B cell", ["recall", "recall_final"]].tolist() == [0.75, 0.5]
    assert table["predicted_same_or_compatible"].tolist() == [0.75, 0.5]
    assert table["share_same_or_compatible"].tolist() == [0.5, 1]
    assert np.isnan(table.loc["T cell", "recall_final"])


def test_a_model_may_predict_unassigned() -> None:
    found = agreement(truth=["B cell"] * 3, predicted=["B cell", "B cell", UNASSIGNED])
    assert (found.headline["n_known"], found.headline["accuracy"]) == (3, 0.6667)
    assert found.headline["share_unassigned"] == 0.3333


def test_the_table_has_a_row_a_label_and_the_cells_by_prediction() -> None:
    found = agreement(
        truth=["NK cell"] * 4 + ["T cell"] * 6,
        predicted=["NK cell"] * 3 + ["B cell"] + ["CD4 T cell"] * 5 + ["NK cell"],
        final=["NK cell"] * 3 + [UNASSIGNED] + ["CD4 T cell"] * 5 + ["NK cell"],
    )
    table = found.table.set_index("truth")
    predicted = ["predicted:NK cell", "predicted:CD4 T cell", "predicted:B cell"]
    assert list(found.table) == [*COLUMNS, *predicted]
    assert table.index.tolist() == ["NK cell", "T cell"]
    assert table.loc["NK cell", predicted].tolist() == [3, 0, 1]
    assert table.loc["T cell", predicted].tolist() == [1, 5, 0]
    assert table["known_to_model"].tolist() == ["yes", "no"]
    assert table["scored_as"].tolist() == ["NK cell", ""]
    # Precision counts only cells whose label the model can give: the T cell is no mistake of NK cell here.
    assert table.loc["NK cell", ["recall", "precision", "f1"]].tolist() == [0.75, 1.0, 0.8571]
    assert table.loc["T cell", ["recall", "precision", "f1"]].isna().all()
    assert table["share_unassigned"].tolist() == [0.25, 0]
    assert table["share_same_or_compatible"].tolist() == [0.75, 0.8333]
    assert table["most_common"].tolist() == ["NK cell", "CD4 T cell"]


def test_no_label_that_the_model_knows_gives_no_score() -> None:
    head = agreement(["cluster 1", "cluster 2"], ["B cell", "blob"]).headline
    assert head["n_known"] == 0
    assert [head[name] for name in ("accuracy", "macro_f1", "accuracy_assigned", "calibration_error")] == [
        None
    ] * 4
    assert (head["share_different"], head["share_not_understood"]) == (0, 1)


# --- where the labels come from ---


def test_labels_of_obs_are_read_without_those_that_say_nothing(obs: pd.DataFrame) -> None:
    labels, warnings = read_truth(obs, "s1", "author", None)
    assert labels is not None and labels.tolist() == ["B cell", "", "", "NK cell"]
    assert warnings == []


def test_known_labels_that_are_numbers_are_written_as_whole_ones(obs: pd.DataFrame) -> None:
    obs["leiden"] = [float("nan"), *range(1, len(obs))]
    truth, _ = read_truth(obs, "s1", "leiden", None)
    assert truth is not None and truth.tolist() == ["", *(str(i) for i in range(1, len(obs)))]


def test_words_that_say_nothing_are_labels_where_the_user_gives_them_a_meaning(obs: pd.DataFrame) -> None:
    obs = obs.assign(mine=["other"] + ["unknown"] * (len(obs) - 1))
    labels, _ = read_truth(obs, "s", "mine", None, ["other"])
    assert labels is not None and labels.tolist() == ["other"] + [""] * (len(obs) - 1)


def test_a_column_that_is_not_there_or_says_nothing_is_a_warning(obs: pd.DataFrame) -> None:
    for key, words in (("authors", "did you mean 'author'"), ("empty", "no cell has one in column 'empty'")):
        labels, (warning,) = read_truth(obs.assign(empty="unknown"), "s1", key, None)
        assert labels is None and words in warning


def test_a_sentence_about_a_column_ends_once(obs: pd.DataFrame) -> None:
    for key, end in (("authors", "in obs; did you mean 'author'?"), ("zzz", "no column 'zzz' in obs.")):
        assert read_truth(obs, "s1", key, None)[1][0].endswith(end)


def test_no_column_that_the_pipeline_wrote_is_suggested_for_one_that_is_not_there(obs: pd.DataFrame) -> None:
    own = ["predicted", "predicted_uncertainty", "cl_id", "final"]
    # Of this run and of one before it, and what quality control adds.
    written = [f"{key}_{name}" for key in ("cxg_cell_type", "my_celltype_day1") for name in own]
    obs = obs.assign(**dict.fromkeys([*written, *METRICS, "sample"], "B cell"))
    for key in ("cell_type", "celltype_day1", "cxg_cell_type_cl_ids", "total_count", "samples"):
        assert read_truth(obs, "s1", key, None)[1][0].endswith(f"there is no column '{key}' in obs.")
    assert (
        "did you mean 'cell_types'"
        in read_truth(obs.assign(cell_types="B cell"), "s1", "cell_type", None)[1][0]
    )


@pytest.mark.parametrize("prefix", ["", "s1:"])
def test_labels_of_a_table_find_their_cells_by_name_and_by_sample(
    obs: pd.DataFrame, tmp_path: Path, prefix: str
) -> None:
    other = "s2:AAC0-1,platelet\n" if prefix else ""
    text = f"# cellxgene\nindex,mine\n{other}{prefix}AAC0-1,B cell\n{prefix}AAC2-1,NK cell\n"
    (tmp_path / "labels.csv").write_text(text)
    labels, warnings = read_truth(obs, "s1", "mine", tmp_path / "labels.csv")
    assert labels is not None and labels.tolist() == ["B cell", "", "NK cell", ""]
    assert warnings == []
    # What the table lacks may still stand in obs.
    labels, _ = read_truth(obs, "s1", "author", tmp_path / "labels.csv")
    assert labels is not None and labels[3] == "NK cell"


def test_a_table_of_other_cells_or_of_few_of_them_is_told(obs: pd.DataFrame, tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_text("index,mine\nGGG-1,B cell\n")
    labels, (warning,) = read_truth(obs, "s1", "mine", tmp_path / "labels.csv")
    assert labels is None and "'GGG-1'" in warning and "'AAC0-1'" in warning
    (tmp_path / "labels.csv").write_text("index,mine\nAAC0-1,B cell\n")
    labels, (warning,) = read_truth(obs, "s1", "mine", tmp_path / "labels.csv")
    assert labels is not None and "Only 1 of this sample's 4 cells are named in labels.csv" in warning
    labels, (warning,) = read_truth(obs, "s1", "other", tmp_path / "labels.csv")
    assert labels is None and "no column 'other' in labels.csv nor in obs" in warning
    (tmp_path / "labels.csv").write_text("")
    with pytest.raises(InputError):
        read_truth(obs, "s1", "mine", tmp_path / "labels.csv")


def test_a_conventional_dendritic_cell_is_scored_as_the_dendritic_cell_that_covers_it() -> None:
    """The ontology has type 1 below plasmacytoid ones too, where it does not belong."""
    model = {
        "Dendritic cell": "CL:0000451",
        "Plasmacytoid dendritic cell": "CL:0000784",
        "B cell": "CL:0000236",
    }
    found = agreement(
        truth=["CL:0002394", "CL:0002399"], predicted=["Dendritic cell"] * 2, model=model
    ).table.set_index("truth")
    assert found["scored_as"].tolist() == ["Dendritic cell"] * 2
