import json
import re
from html.parser import HTMLParser
from types import SimpleNamespace

import anndata
import numpy as np
import pandas as pd
import pytest
from report_factory import TYPES, simulated, write_sample

from cellscribe import (
    differential,
    drawing,
    report,
    report_composition,
    report_evidence,
    report_models,
    report_steps,
    report_words,
    verdicts,
)
from cellscribe.colours import PALETTE
from cellscribe.contract import FAR, REASONS, STRANGE, UNASSIGNED, UNEXPECTED_GENES, OutputNames
from cellscribe.errors import InputError
from cellscribe.io import read_json, write_json
from cellscribe.orthologs import ortholog_pairs
from cellscribe.report_inputs import ReportInputs
from cellscribe.report_limits import limits_changed, limits_used
from cellscribe.report_steps import cellranger_numbers

HOSTILE = "<script>alert('x')</script>"


@pytest.fixture(scope="module", autouse=True)
def quick_figures():
    """Draw small figures: what is on them is test_figures.py's subject."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(drawing, "DPI", 40)
        yield


def make(
    folder, adata=None, sample="blood", compare="", truth_key="", truth_csv=None, truth_map=None, **options
):
    files = write_sample(folder, simulated() if adata is None else adata, sample=sample, **options)
    asked = {"compare": compare, "truth_key": truth_key, "truth_csv": truth_csv, "truth_map": truth_map}
    inputs = ReportInputs(sample=sample, pipeline_version="0.1.0", **asked, **files)
    report.write_report(inputs)
    return inputs


class Reader(HTMLParser):
    """The tags with their attributes, and the text outside of style."""

    def __init__(self):
        super().__init__()
        self.tags, self.text, self.inside = [], [], ""

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self.inside = tag

    def handle_data(self, data):
        if self.inside != "style":
            self.text.append(data)


def read(inputs):
    reader = Reader()
    reader.feed(inputs.output.read_text())
    return reader, " ".join(" ".join(reader.text).split())


@pytest.fixture(scope="module")
def page(tmp_path_factory, quick_figures):
    return make(tmp_path_factory.mktemp("page"))


def test_the_page_says_first_what_became_of_the_cells(page):
    _, text = read(page)
    verdict = (
        "108 of 120 cells were named: B cell (30.0 % of all), Monocyte (30.0 %) and T cell (30.0 %); 12 (10.0 %) were "
        "left unassigned, because they are far from every reference cell, expressing genes that none of them does, or "
        "stranger to the model than nearly all known cells. 3 of 3 named clusters are supported by the genes."
    )
    assert verdict in text
    assert text.index(verdict) < text.index("to know before using") < text.index("What was done")
    assert "2024-05-06" in text and "blood 1.0" in text


def test_the_page_tells_how_many_labels_remain_and_that_the_regression_was_fitted_anew(page):
    _, text = read(page)
    assert "88.0 % of the cells have one label in it, 9.0 % two, 3.0 % more" in text
    assert "fitted anew on 1,234 genes that the sample has" in text


def test_a_warning_of_two_steps_is_shown_once_with_both(page):
    _, text = read(page)
    assert text.count("Gene overlap is low: 74.0 %.") == 1
    assert "(reading, quality control)" in text


def test_every_part_is_there(page):
    reader, text = read(page)
    for words in (
        "Quality control",
        "too many mitochondrial counts",
        "Why cells were left unassigned",
        "Do the genes agree",
        "Clusters",
        "Distance to the reference",
        "TRBC1",
        "neutrophils, macrophages",
        "Somebody 2024",
        "ab" * 32,
    ):
        assert words in text, words
    images = [attrs for tag, attrs in reader.tags if tag == "img"]
    # Three of QC, four UMAPs, one panel a label, two dot plots, two histograms.
    assert len(images) == 12
    assert all(image["src"].startswith("data:image/png;base64,") and image["alt"] for image in images)
    links = [attrs["href"] for tag, attrs in reader.tags if tag == "a"]
    assert "https://purl.obolibrary.org/obo/CL_0000236" in links
    targets = {attrs["id"] for _, attrs in reader.tags if "id" in attrs}
    assert {link[1:] for link in links if link.startswith("#")} <= targets


def test_cell_rangers_own_numbers_are_told_in_words(page):
    assert "Cell Ranger's own numbers Fraction Reads in Cells 91.9 %" in read(page)[1]
    told = {
        "Mean Reads per Cell": 24.0,
        "Valid Barcodes": 0.98,
        "Sequencing Saturation": 0.002,
        "Note": "old",
    }
    assert cellranger_numbers(told) == [
        ("Mean Reads per Cell", "24"),
        ("Valid Barcodes", "98.0 %"),
        ("Sequencing Saturation", "0.2 %"),
        ("Note", "old"),
    ]


def test_the_page_needs_no_network_and_no_script(page):
    reader, _ = read(page)
    assert not {"script", "link", "iframe", "object"} & {tag for tag, _ in reader.tags}
    html = page.output.read_text()
    assert not re.search(r'src="(?!data:)|url\(|@import', html)
    assert len(html) < report.MAX_BYTES


def test_the_page_leads_to_what_is_published_beside_it(page):
    reader, _ = read(page)
    links = {attributes["href"] for tag, attributes in reader.tags if tag == "a"}
    files = "annotated.h5ad predictions.tsv.gz markers.tsv de.tsv.gz clusters.tsv verdicts.tsv removed.tsv.gz"
    assert {f"blood.{name}" for name in files.split()} <= links
    # What is named is a link, wherever it is named.
    assert not re.search(r"(?<!>)<code>blood\.", page.output.read_text())
    assert "../../summary/multiqc_report.html" in links


def test_the_columns_are_told_as_the_contract_has_them_and_only_those_that_are_there(page):
    _, text = read(page)
    names = OutputNames.of()
    assert names.uncertainty in text and str(OutputNames.uncertainty.__doc__).partition(": ")[2] in text
    assert names.cluster_vote not in text


def test_every_supported_name_says_so_and_the_markers_are_in_the_table(page):
    _, text = read(page)
    assert text.count("supported 10 of 10") == len(TYPES)
    assert text.count("(10 of 10 markers go up)") == 2 * len(TYPES)
    table = pd.read_csv(page.markers, sep="\t")
    named = "label gene gene_id rank log2_fold_change score adjusted_p share_in share_out expected_marker"
    assert list(table) == named.split()
    assert set(table["label"]) == {*TYPES, UNASSIGNED}
    first = table[(table["rank"] == 1) & (table["label"] != UNASSIGNED)]
    assert (first["expected_marker"] == "yes").all()


def test_hostile_names_are_shown_and_never_run(tmp_path):
    adata = simulated()
    adata.obs["cell_type"] = adata.obs["cell_type"].replace({"B cell": HOSTILE}).astype(str)
    adata.var_names = [HOSTILE if name == "B0" else name for name in adata.var_names]
    adata.var["gene_symbols"] = adata.var_names
    inputs = make(tmp_path, adata, note=HOSTILE + "note", warning=HOSTILE + "warning", final=None)
    annotation = read_json(inputs.annotation)
    annotation["model"].update(name=HOSTILE, url='"><script>', sha256=HOSTILE)
    annotation["missing_genes"] = [HOSTILE]
    annotation["parameters"] = {HOSTILE: HOSTILE}
    annotation["clusters"][0].update(cluster=HOSTILE)
    write_json(annotation, inputs.annotation)
    report.write_report(ReportInputs(**{**vars(inputs), "sample": HOSTILE, "pipeline_version": HOSTILE}))
    reader, text = read(inputs)
    assert "script" not in {tag for tag, _ in reader.tags}
    assert text.count(HOSTILE) > 15
    assert not any("on" in attrs for _, attrs in reader.tags)
    for _, attrs in reader.tags:
        assert not any(name.startswith("on") for name in attrs), attrs


def test_contradicting_markers_are_among_the_warnings(tmp_path):
    adata = simulated()
    inputs = make(tmp_path, adata)
    # The model's markers stay; the labels of two types change places.
    swapped = adata.copy()
    swapped.obs["cell_type"] = (
        adata.obs["cell_type"].replace({"B cell": "T cell", "T cell": "B cell"}).astype(str)
    )
    expected = (inputs.models[0] / "markers.json").read_text()
    files = write_sample(tmp_path, swapped)
    (files["models"][0] / "markers.json").write_text(expected)
    report.write_report(ReportInputs(sample="blood", **files))
    _, text = read(inputs)
    warnings = text[: text.index("What was done")]
    # The cells that were left unassigned are of their cluster too: what is told is its name.
    for name, truly in (("B cell", "T cell"), ("T cell", "B cell")):
        assert re.search(
            rf"The genes contradict the name of cluster \d \(40 cells, 90 % of them called {name}\) and point to "
            rf"{truly}: {truly[0]}\d, ",
            warnings,
        )
    assert warnings.index("Gene overlap is low") < warnings.index("The genes contradict")
    table = pd.read_csv(files["verdicts"], sep="\t").set_index("label")
    assert table["verdict"].to_dict() == {
        "B cell": "contradicted",
        "T cell": "contradicted",
        "Monocyte": "supported",
    }
    assert table["points_to"].fillna("").to_dict() == {"B cell": "T cell", "T cell": "B cell", "Monocyte": ""}
    summary = read_json(files["verdict_summary"])
    assert summary["n_clusters_contradicted"] == 2 and len(summary["warnings"]) == 2


def test_a_model_without_markers_and_a_file_without_umaps_still_make_a_page(tmp_path):
    inputs = make(tmp_path, umaps=False, model=False)
    reader, text = read(inputs)
    assert "The file has no coordinates to draw." in text
    assert "3 not judged" in text and "The model has no marker genes, so that no name could be judged" in text
    assert read_json(inputs.verdict_summary)["n_clusters_not_judged"] == 3
    assert "the model has no markers for this name" in text
    assert len([tag for tag, _ in reader.tags if tag == "img"]) == 6


def test_the_groups_that_were_asked_for_are_compared_and_what_cannot_be_is_a_warning(tmp_path):
    adata = simulated()
    adata.obs["arm"] = np.tile(["left", "right"], adata.n_obs // 2)
    inputs = make(tmp_path, adata, compare="B cell vs T cell | arm: left vs right within each | dose: 1 vs 2")
    reader, text = read(inputs)
    assert "each cell as a replicate" in text
    assert "Nothing was compared by 'dose'" in text and "(comparisons)" in text
    shown = [attrs["alt"] for tag, attrs in reader.tags if tag == "img"]
    assert shown.count("Fold change against test score of each gene") == 1 + len(TYPES)
    table = pd.read_csv(inputs.differential, sep="\t", keep_default_na=False)
    assert list(table) == list(differential.COLUMNS)
    compared = table[table["comparison"] == "B cell vs T cell"]
    assert {gene[0] for gene in compared["gene"].head(10)} == {"B"}
    assert {gene[0] for gene in compared["gene"].tail(10)} == {"T"}
    assert set(table.loc[table["column"] == "arm", "within"]) == set(TYPES)


def test_a_sample_of_one_type_keeps_every_comparison(tmp_path):
    """No label can be tested against the rest: there is none."""
    adata = simulated()
    adata = adata[adata.obs["cell_type"] == "T cell"].copy()
    for column in ("arm", "sex"):
        adata.obs[column] = np.tile(["a", "b"], adata.n_obs // 2)
    final = np.full(adata.n_obs, "T cell", dtype=object)
    inputs = make(tmp_path, adata, compare="arm: a vs b | sex: a vs b", final=final)
    table = pd.read_csv(inputs.differential, sep="\t")
    assert list(table["comparison"].unique()) == ["arm: a vs b", "sex: a vs b"]


def test_a_comparison_that_is_made_anyway_is_not_listed_twice(tmp_path):
    inputs = make(tmp_path, simulated(), compare="B cell vs rest")
    table = pd.read_csv(inputs.differential, sep="\t")
    assert not table.duplicated(["comparison", "gene"]).any()
    assert set(table["comparison"]) == {f"{label} vs rest" for label in (*TYPES, UNASSIGNED)}


def test_known_labels_are_compared_with_the_names_on_the_page_and_in_a_table(tmp_path):
    adata = simulated()
    adata.obs["author"] = adata.obs["cell_type"].replace({"T cell": "lymphocyte"}).astype(str)
    adata.obs.iloc[:6, adata.obs.columns.get_loc("author")] = "unknown"
    inputs = make(tmp_path, adata, truth_key="author")
    reader, text = read(inputs)
    assert "114 cells have a label in column author ; 6 have none and are left out." in text
    assert "40 cells have labels that the model cannot give" in text and "lymphocyte (40)" in text
    assert "#truth" in [attrs.get("href") for tag, attrs in reader.tags if tag == "a"]
    assert "Confusion matrix: known labels by predicted labels" in [
        attrs.get("alt") for _, attrs in reader.tags
    ]
    table = pd.read_csv(inputs.truth, sep="\t", keep_default_na=False).set_index("truth")
    assert table.loc["B cell", "predicted:B cell"] == 34
    assert table.loc["lymphocyte", ["cl_id", "known_to_model", "recall"]].tolist() == [
        "CL:0000542",
        "no",
        "",
    ]
    summary = read_json(inputs.truth_summary)
    assert (summary["sample"], summary["n_cells"], summary["accuracy"]) == ("blood", 114, 1.0)
    assert summary["unknown_labels"] == {"lymphocyte": 40}


def test_labels_below_one_of_the_models_are_scored_as_that_and_the_page_says_so(tmp_path):
    adata = simulated()
    adata.obs["author"] = adata.obs["cell_type"].replace({"B cell": "naive B cell"}).astype(str)
    _, text = read(make(tmp_path, adata, truth_key="author"))
    assert "Compared with known labels" in text and "Held against" not in text
    assert "scored on 120 of 120 cells (100 %)" in text
    assert "naive B cell (as B cell)" in text
    # Of the predicted label, then of the final one.
    assert "Scored as" in text and "Predicted label" in text and "Final label" in text


def test_types_that_are_right_for_a_broader_known_label_are_named_on_the_page(tmp_path):
    adata = simulated()
    adata.obs["author"] = "T cell"
    files = write_sample(tmp_path, adata)
    manifest = tmp_path / "model" / "manifest.json"
    told = read_json(manifest)
    told["labels"] += [{"label": "CD4 T cell", "cl_id": "CL:0000624"}]
    write_json(told, manifest)
    inputs = ReportInputs(sample="blood", truth_key="author", **files)
    report.write_report(inputs)
    text = read(inputs)[1]
    assert "those that no other known label means are right too: T cell (CD4 T cell)." in text
    assert "T cell or CD4 T cell" in text
    assert read_json(inputs.truth_summary)["types_of"] == {"T cell": ["CD4 T cell"]}


def test_the_users_own_words_are_compared_by_what_a_map_says_that_they_mean(tmp_path):
    adata = simulated()
    adata.obs["author"] = adata.obs["cell_type"].replace({"Monocyte": "MNP"}).astype(str)
    table = tmp_path / "map.csv"
    table.write_text("label,meaning\nMNP,monocytes\n")
    inputs = make(tmp_path, adata, truth_key="author", truth_map=table)
    _, text = read(inputs)
    assert "map.csv says what MNP means" in text
    summary = read_json(inputs.truth_summary)
    assert (summary["n_known"], summary["map"], summary["mapped"]) == (120, "map.csv", {"MNP": "monocytes"})
    found = pd.read_csv(inputs.truth, sep="\t", keep_default_na=False).set_index("truth")
    assert found.loc["MNP", ["cl_id", "scored_as"]].tolist() == ["CL:0000576", "Monocyte"]

    table.write_text("label,meaning\nblob,Monocyte\n")
    inputs = make(tmp_path, adata, truth_key="author", truth_map=table)
    assert read_json(inputs.truth_summary)["warnings"] == [
        "None of the labels that map.csv names is in column 'author': it names 'blob'."
    ]
    table.write_text("label,meaning\nMNP,Monocite\n")
    with pytest.raises(InputError, match=r"sample 'blood'.*did you mean 'Monocyte'"):
        make(tmp_path, adata, truth_key="author", truth_map=table)


def test_scores_of_less_than_half_of_the_cells_are_a_warning(tmp_path):
    adata = simulated()
    adata.obs["author"] = np.repeat(["B cell", "hepatocyte", "cluster 7"], 40)
    inputs = make(tmp_path, adata, truth_key="author")
    _, text = read(inputs)
    assert "scored on 40 of 120 cells (33 %)" in text
    warning = (
        "Accuracy, F1 and calibration are of 40 of the 120 cells with a known label (33%), and tell little of the "
        "sample: 40 have labels that the model cannot give, and 40 labels that nothing matches (--truth_map says what "
        "these mean)."
    )
    assert read_json(inputs.truth_summary)["warnings"] == [warning]
    assert f"{warning.replace('33%', '33 %')} (known labels)" in text
    assert "not understood" in text and "cluster 7 (40)" in text and "hepatocyte (40)" in text


def test_without_a_label_that_the_model_can_give_no_scores_are_shown(tmp_path):
    adata = simulated()
    adata.obs["line"] = np.repeat(["H1975", "A549", "HCC827"], 40)
    inputs = make(tmp_path, adata, truth_key="line")
    _, text = read(inputs)
    assert "The model can give none of these labels" in text
    assert "macro-F1" not in text and "scores above" not in text and "H1975 (40)" in text
    (warning,) = read_json(inputs.truth_summary)["warnings"]
    assert warning.startswith(
        "None of the 120 cells with a known label could be scored: 120 have labels that nothing"
    )


def test_a_sample_without_the_known_labels_says_so_and_is_otherwise_as_without(tmp_path, page):
    _, text = read(make(tmp_path, truth_key="author"))
    warning = "Nothing was compared with known labels: there is no column 'author' in obs."
    assert f"{warning} (known labels)" in text
    assert not (tmp_path / "blood.truth.tsv").exists()
    assert read_json(tmp_path / "blood.truth.json") == {"sample": "blood", "warnings": [warning]}
    assert not page.truth.exists() and not page.truth_summary.exists()


def test_the_tables_beside_the_page_say_the_same_as_the_page(page):
    _, text_of_page = read(page)
    every = pd.read_csv(page.differential, sep="\t", keep_default_na=False)
    first = pd.read_csv(page.markers, sep="\t", keep_default_na=False)
    assert set(every["comparison"]) == {f"{label} vs rest" for label in (*TYPES, UNASSIGNED)}
    merged = first.merge(every, left_on=["label", "gene"], right_on=["group", "gene"])
    assert len(merged) == len(first)
    assert (merged["score_x"] == merged["score_y"]).all()
    clusters = pd.read_csv(page.clusters, sep="\t", dtype={"cluster": str})
    assert clusters["n_cells"].sum() == 120 and clusters["n_unassigned"].sum() == 12
    assert (clusters["share_of_type"] == 1).all()
    verdicts = pd.read_csv(page.verdicts, sep="\t", dtype={"cluster": str}, keep_default_na=False)
    assert list(verdicts["n_cells"]) == [40] * 3 and set(verdicts["cluster"]) == set(clusters["cluster"])
    assert set(verdicts["label"]) == set(TYPES) and set(verdicts["verdict"]) == {"supported"}
    for row in verdicts.itertuples():
        # Each of these clusters is one label's cells.
        marking = first.loc[first["label"] == row.label, "gene"]
        assert set(row.top_genes.split(",")) & set(marking.head(10))
        assert ", ".join(row.top_genes.split(",")[:6]) in text_of_page
    assert read_json(page.verdict_summary) == {
        "sample": "blood",
        "n_clusters": 3,
        "n_clusters_named": 3,
        "n_clusters_supported": 3,
        "n_clusters_weak": 0,
        "n_clusters_contradicted": 0,
        "n_clusters_not_judged": 0,
        "warnings": [],
    }
    _, text = read(page)
    assert "3 supported" in text
    assert all(f"{reason}" in text for reason in verdicts["reason"])


@pytest.mark.parametrize("kept", [1, 6])
def test_a_sample_of_a_few_cells_makes_a_page(tmp_path, kept):
    adata = simulated()[:kept].copy()
    inputs = make(tmp_path, adata, final=np.full(kept, UNASSIGNED, dtype=object))
    _, text = read(inputs)
    assert f"None of {kept} cell" in text
    assert "No name has at least 10 cells" in text
    assert len(pd.read_csv(inputs.markers, sep="\t")) == 0


def test_more_labels_than_colours_fit_on_the_page(tmp_path):
    rng = np.random.default_rng(0)
    adata = simulated(n_each=150, n_genes=400)
    adata.obs["cell_type"] = [f"type {i % 45}" for i in rng.permutation(adata.n_obs)]
    inputs = make(tmp_path, adata)
    reader, _ = read(inputs)
    assert len([attrs for tag, attrs in reader.tags if "Dot plot" in attrs.get("alt", "")]) > 1
    assert inputs.output.stat().st_size < report.MAX_BYTES


def test_a_missing_column_is_named(tmp_path):
    files = write_sample(tmp_path, simulated())
    annotation = read_json(files["annotation"])
    annotation["names"]["final"] = "another_run_final"
    write_json(annotation, files["annotation"])
    with pytest.raises(InputError, match="another_run_final") as error:
        report.write_report(ReportInputs(sample="blood", **files))
    assert error.value.exit_code == 3
    assert not files["output"].exists()


def test_labels_are_shown_as_plain_text_where_the_ontology_id_is_none(tmp_path):
    inputs = make(tmp_path)
    manifest = read_json(inputs.models[0] / "manifest.json")
    manifest["labels"][0]["cl_id"] = "javascript:alert(1)"
    write_json(manifest, inputs.models[0] / "manifest.json")
    report.write_report(inputs)
    reader, _ = read(inputs)
    assert not any("javascript" in attrs.get("href", "") for _, attrs in reader.tags)


def test_blocks_and_the_whole_matrix_give_the_same_page(tmp_path, monkeypatch):
    inputs = make(tmp_path)
    whole, table = inputs.output.read_text(), inputs.markers.read_text()
    monkeypatch.setattr(report_evidence, "BLOCK", 17)
    report.write_report(inputs)
    assert inputs.markers.read_text() == table
    assert re.sub('base64,[^"]*', "", inputs.output.read_text()) == re.sub('base64,[^"]*', "", whole)


def test_the_marker_test_takes_a_sample_of_a_large_file_and_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(differential, "CELLS_TESTED", 60)
    monkeypatch.setattr(differential, "FEWEST_OF_A_SIDE", 10)
    _, text = read(make(tmp_path))
    assert re.search(r"on 6\d cells drawn at random", text)


@pytest.mark.parametrize(
    ("final", "predicted", "reason", "said"),
    [
        (["a", "a"], ["a", "a"], ["", ""], "All 2 cells were named: a (100.0 %)."),
        (["a"], ["a"], [""], "The one cell was named: a (100.0 %)."),
        (
            ["d", "a", "a", "a", "b", "b", "c", "c"],
            ["d", "a", "a", "a", "b", "b", "c", "c"],
            [""] * 8,
            "All 8 cells were named, most often a (37.5 %), b (25.0 %) and c (25.0 %).",
        ),
        (
            ["a", UNASSIGNED, UNASSIGNED, UNASSIGNED],
            ["a"] * 4,
            ["", "novel", "novel", "ambiguous"],
            "1 of 4 cells was named: a (25.0 % of all); 3 (75.0 %) were left unassigned, "
            f"most because they are {REASONS['novel']}.",
        ),
        (
            ["a", UNASSIGNED],
            ["a", "a"],
            ["", "low_information"],
            "1 of 2 cells was named: a (50.0 % of all); 1 (50.0 %) was left unassigned, "
            "because it has too few counts on the model's genes.",
        ),
        (
            ["b", "a"],
            ["a", "a"],
            ["ambiguous", ""],
            "All 2 cells were named: a (50.0 %) and b (50.0 %). 1 cell got a broader name, as the finer one was not "
            "certain enough.",
        ),
        (
            ["b", "a"],
            ["a", "a"],
            ["disagreement", ""],
            "All 2 cells were named: a (50.0 %) and b (50.0 %). 1 cell got a broader name, as the models contradict "
            "each other on the finer one.",
        ),
    ],
)
def test_the_verdict_is_a_sentence(final, predicted, reason, said):
    assert (
        report_words.verdict(*(np.array(part, dtype=object) for part in (final, predicted, reason))) == said
    )


def test_the_verdict_names_the_causes_of_novel_cells_that_occur_the_largest_first():
    final = np.array(["a", *[UNASSIGNED] * 9], dtype=object)
    reason = np.array(["", *["novel"] * 9], dtype=object)
    predicted = np.full(10, "a", dtype=object)

    def because(n_left, **causes):
        rows = slice(0, 1 + n_left)
        said = report_words.verdict(final[rows], predicted[rows], reason[rows], causes)
        return said.partition("because ")[2]

    assert because(9, **{STRANGE: 2, FAR: 0, UNEXPECTED_GENES: 8}) == (
        "they express genes that no reference type does (8) or look stranger to the model than nearly all known cells "
        "(2)."
    )
    assert because(9, **{FAR: 9}) == "they are far from every reference cell."
    assert because(1, **{FAR: 1, UNEXPECTED_GENES: 1}) == (
        "it expresses genes that no reference type does and is far from every reference cell."
    )
    # Several models have no counts of their own, nor has a file of an earlier version.
    assert because(9) == f"they are {REASONS['novel']}."


def with_signs(files, **columns):
    """The files of a sample whose obs has more columns of the contract, by the property's name."""
    adata, annotation = anndata.read_h5ad(files["annotated"]), read_json(files["annotation"])
    names = OutputNames.of()
    for name, values in columns.items():
        adata.obs[getattr(names, name)] = values
        annotation["names"][name] = getattr(names, name)
    adata.write_h5ad(files["annotated"])
    write_json(annotation, files["annotation"])
    return files


def test_what_made_unassigned_cells_strange_stands_beside_the_type_that_they_came_closest_to(tmp_path, page):
    final = np.repeat(list(TYPES), 40).astype(object)
    final[:20] = UNASSIGNED
    novelty = np.where(final == UNASSIGNED, 0.99, 0.25)
    unexpected = np.where(final == UNASSIGNED, 0.031, 0.002)
    files = with_signs(
        write_sample(tmp_path, simulated(), final=final), novelty=novelty, unexpected=unexpected
    )
    annotation = read_json(files["annotation"])
    write_json(annotation | {"novel_by": {FAR: 3, STRANGE: 20}}, files["annotation"])
    inputs = ReportInputs(sample="blood", **files)
    report.write_report(inputs)
    _, text = read(inputs)
    assert "because they look stranger to the model than nearly all known cells (20) or are far from" in text
    left = text[text.index("by the type that they came closest to") :]
    assert "Name Cells Unexpected genes Median novelty Verdict" in left and "B cell 20 3.10 % 0.99" in left
    composition = text[text.index("Composition Final label") : text.index("Why cells were left unassigned")]
    assert "Unexpected genes Median novelty Left unassigned (closest to this) Markers" in composition
    assert "0.20 % 0.25" in composition and "3.10 % 0.99" in composition
    assert "Median novelty" not in read(page)[1] and "(novelty)" not in read(page)[1]


def test_a_type_of_which_many_cells_were_left_unassigned_is_a_warning_on_the_page_and_in_the_summary(
    tmp_path,
):
    final = np.repeat(list(TYPES), 40).astype(object)
    final[:11] = UNASSIGNED
    first = make(tmp_path / "a", final=final)
    said = (
        "11 of the 40 cells that come closest to B cell were left unassigned: either they are something else"
    )
    assert said in read(first)[1]
    assert [said in one for one in read_json(first.verdict_summary)["warnings"]] == [True]
    composition = read(first)[1].partition("Composition Final label")[2]
    assert re.search(r"B cell CL:0000236 29 .* 11 ", composition)
    final[10] = "B cell"
    assert (
        "come closest to B cell" not in read(make(tmp_path / "b", final=final))[1].partition("Composition")[0]
    )


def test_no_type_is_said_to_be_missed_by_cells_with_too_few_counts():
    predicted = np.repeat(["T cell", "B cell"], [60, 40]).astype(object)
    reason = np.full(100, "", dtype=object)
    reason[:30] = "low_information"
    final = np.where(reason == "", predicted, UNASSIGNED)

    def missed():
        left = final == UNASSIGNED
        return report_composition.missed_types(
            SimpleNamespace(predicted=predicted, final=final, reason=reason, unassigned=left)
        )

    assert missed() == []
    reason[30:38] = "novel"
    final[30:38] = UNASSIGNED
    assert [
        "8 of the 30 cells that come closest to T cell and have enough counts were left" in one
        for one in missed()
    ] == [True]


def test_recall_and_precision_of_the_models_own_test_stand_beside_each_label(tmp_path):
    files = write_sample(tmp_path, simulated())
    (model,) = files["models"]
    write_json(
        {
            "per_label": [
                {"label": "B cell", "n_cells": 9, "recall": 0.4567, "precision": 0.9876},
                {"label": "T cell", "n_cells": 0, "recall": 0.0, "precision": 0.0},
            ]
        },
        model / "evaluation.json",
    )
    inputs = ReportInputs(sample="blood", **files)
    report.write_report(inputs)
    reader, text = read(inputs)
    composition = text[text.index("Composition Final label") :]
    assert "Precision in the test Recall in the test Markers" in composition and "0.99 0.46" in composition
    assert sum(1 for tag, attributes in reader.tags if tag == "b" and attributes.get("class") == "poor") == 1
    assert "in the test" not in read(make(tmp_path / "other"))[1].partition("Composition")[2]


def poorly_tested(folder, final):
    """A page of a model whose own test found few of the B cells that it named to be some."""
    files = write_sample(folder, simulated(), final=final)
    annotation = read_json(files["annotation"])
    write_json(annotation | {"warnings": ["90% of the cells are unassigned."]}, files["annotation"])
    scores = {"label": "B cell", "n_cells": 9, "recall": 0.9, "precision": 0.2769}
    write_json({"per_label": [scores]}, files["models"][0] / "evaluation.json")
    inputs = ReportInputs(sample="blood", **files)
    report.write_report(inputs)
    return inputs


def test_a_name_that_the_models_own_test_found_poor_is_a_warning_and_no_plain_success(tmp_path):
    final = np.repeat(list(TYPES), 40).astype(object)
    inputs = poorly_tested(tmp_path / "some", final)
    html, (_, text) = inputs.output.read_text(), read(inputs)
    said = "40 cells are called B cell, a name that in the model's own test was right for 28 % of the cells"
    assert said in text.partition("What was done")[0]
    assert [said in one for one in read_json(inputs.verdict_summary)["warnings"]] == [True]
    # In the composition, among the names and among the clusters.
    assert html.count('<span class="pill supported poorly-tested">supported</span>') == 3
    assert html.count('<span class="pill supported">supported</span>') == 6
    assert text.count("right for 28 % in the model's own test") == 3
    final[1:40] = UNASSIGNED
    rare = poorly_tested(tmp_path / "rare", final)
    assert "called B cell, a name" not in read(rare)[1]


def test_what_holds_for_the_whole_sample_is_told_first_and_single_types_are_not_where_most_have_no_name(
    tmp_path,
):
    final = np.repeat(list(TYPES), 40).astype(object)
    final[10:80], final[80:94] = UNASSIGNED, UNASSIGNED
    told = read(poorly_tested(tmp_path / "some", final))[1].partition("What was done")[0]
    assert 0 < told.index("90 % of the cells are unassigned") < told.index("called B cell")
    assert told.index("90 % of the cells are unassigned") < told.index("come closest to T cell")
    final[94:] = UNASSIGNED
    told = read(poorly_tested(tmp_path / "most", final))[1].partition("What was done")[0]
    assert "90 % of the cells are unassigned" in told
    assert "called B cell, a name" not in told and "come closest to" not in told


def test_the_genes_of_the_cells_without_a_name_are_shown(tmp_path):
    final = np.repeat(list(TYPES), 40).astype(object)
    final[final == "B cell"] = UNASSIGNED
    inputs = make(tmp_path, simulated(), final=final)
    _, text = read(inputs)
    shown = text[text.index("First genes by score") :].partition("Clusters")[0]
    genes = shown[shown.index(UNASSIGNED) :].split()[1:]
    assert {gene[0] for gene in genes} == {"B"} and len(genes) == report_evidence.TOP_GENES
    assert "stand in the last row of the table below" in text
    table = pd.read_csv(inputs.differential, sep="\t")
    own = table[table["group"] == UNASSIGNED]
    assert set(own["comparison"]) == {"unassigned vs rest"} and set(own["n_in"]) == {40}


def test_types_are_illustrated_by_no_ribosomal_or_mitochondrial_gene(tmp_path):
    adata = simulated()
    usual = {"B0": "RPL10", "B1": "RPS6", "B2": "MT-CO1"}
    adata.var["gene_symbols"] = [usual.get(name, name) for name in adata.var_names]
    inputs = make(tmp_path, adata)
    _, text = read(inputs)
    shown = text[text.index("First genes by score") :].partition("Clusters")[0]
    assert not {"B0", "B1", "B2"} & set(shown.split()) and {"B3", "B9", "T0"} <= set(shown.split())
    table = pd.read_csv(inputs.markers, sep="\t")
    assert {"B0", "B1", "B2"} <= set(table.loc[table["label"] == "B cell", "gene"])


def test_the_first_screen_tells_types_from_broader_names_and_the_named_cells_uncertainty(tmp_path):
    final = np.repeat(list(TYPES), 40).astype(object)
    final[:10], final[10:30], final[40:50] = UNASSIGNED, "lymphocyte", "alpha-beta T"
    files = write_sample(tmp_path, simulated(), final=final)
    adata = anndata.read_h5ad(files["annotated"])
    names = OutputNames.of()
    ids = {**TYPES, "lymphocyte": "CL:0000542", "alpha-beta T": TYPES["T cell"], UNASSIGNED: ""}
    adata.obs[names.final_cl_id] = pd.Categorical([ids[name] for name in final])
    adata.obs[names.uncertainty] = np.where(final == UNASSIGNED, 1.0, 0.25)
    adata.write_h5ad(files["annotated"])
    inputs = ReportInputs(sample="blood", **files)
    report.write_report(inputs)
    _, text = read(inputs)
    assert "3 types named and 2 broader names" in text
    assert "0.25 median uncertainty of the named cells" in text
    assert "expects 75 % of the predicted labels of the named cells here to be right" in text
    # The second has the id of a type of the model's, and is none of its names all the same.
    assert "lymphocyte (broader name)" in text and "alpha-beta T (broader name)" in text


def test_without_any_name_nothing_is_said_of_the_named_cells(tmp_path):
    _, text = read(make(tmp_path, final=np.full(120, UNASSIGNED, dtype=object)))
    assert "0 types named" in text and "– median uncertainty of the named cells" in text
    assert "the model expects" not in text and "named clusters" not in text


def test_broader_names_of_a_handful_of_cells_illustrate_no_genes_and_stay_in_the_tables(tmp_path):
    adata = simulated(n_each=80)
    final = np.repeat(list(TYPES), 80).astype(object)
    final[20:69] = "lymphocyte"
    few = make(tmp_path / "few", adata, final=final)
    html = few.output.read_text()
    genes = html.partition("Genes that mark each name in this sample")[2].partition("Clusters</h2>")[0]
    assert "lymphocyte: broader names of few cells" in read(few)[1]
    assert "<th>" + "lymphocyte" not in re.sub(r"<span[^>]*></span>", "", genes)
    assert "lymphocyte" in set(pd.read_csv(few.markers, sep="\t")["label"])
    final[69] = "lymphocyte"
    many = make(tmp_path / "many", adata, final=final)
    assert "broader names of few cells" not in read(many)[1]
    # A rare type of the model's own is shown as ever.
    assert "B cell" in set(pd.read_csv(few.markers, sep="\t")["label"]) and ">B cell" in genes


def test_the_parameters_of_quality_control_are_told_beside_those_of_naming(tmp_path):
    files = write_sample(tmp_path, simulated())
    asked = {"n_mads": 5.0, "min_counts": None, "doublets": "remove", "sample": "blood"}
    write_json(read_json(files["qc"]) | {"parameters": asked}, files["qc"])
    inputs = ReportInputs(sample="blood", **files)
    report.write_report(inputs)
    text = read(inputs)[1].partition("Parameters of quality control")[2]
    assert all(said in text for said in ("n_mads 5.0", "min_counts not set", "doublets remove"))
    assert "classifier consensus" in text.partition("Parameters of naming")[2]


def test_types_are_counted_by_what_the_model_calls_them():
    def given(final, known):
        cells = SimpleNamespace(final=np.array(final, dtype=object))
        return report_composition.names_given(
            cells, {"labels": [{"label": name, "cl_id": known[name]} for name in known]}
        )

    known = {"Other T": "CL:1", "B": "CL:2", "odd": ""}
    assert given(["Other T", "T", "B"], known) == ("2", "types named and 1 broader name")
    assert given(["odd", "strange", UNASSIGNED], known) == ("1", "type named and 1 broader name")
    assert given(["any", "other"], {}) == ("2", "types named")


def test_clusters_that_were_left_unassigned_are_counted_and_their_verdict_is_no_alarm(tmp_path):
    final = np.repeat(list(TYPES), 40).astype(object)
    final[final == "B cell"] = UNASSIGNED
    inputs = make(tmp_path, simulated(), final=final)
    _, text = read(inputs)
    assert "2 supported 1 left unassigned" in text
    assert "2 of 2 named clusters are supported by the genes." in text
    html = inputs.output.read_text()
    assert '<span class="pill left-unassigned">1 left unassigned</span>' in html
    assert re.search(r'<span class="pill">supported</span>[^/]*<br><small>as B cell, a name', html)


LIMITS = {
    "least_counts": 20,
    "distance_quantile": 0.995,
    "least_unexpected_counts": 5,
    "unexpected_share": 0.0088,
    "novelty": 0.98,
    "least_probability": 0.5,
    "ancestor_probability": 0.8,
}
CAUSES = {FAR: 3, UNEXPECTED_GENES: 0, STRANGE: 20}


def limits_of(**parameters):
    annotation = {"parameters": {"rejection": LIMITS, **parameters}, "novel_by": CAUSES}
    rows = limits_used(annotation | {"reasons": {"ambiguous": 7}}, {})
    return [(row["limit"].split(",")[0], row["whose"], row["n"]) for row in rows]


def test_each_limit_is_told_with_whose_it_is_and_the_cells_that_met_it():
    own, kept = "the model's own", "not used (--reject_novel false)"
    assert limits_of(min_probability=0.7) == [
        ("fewer than 20 counts on the model's genes", own, "0"),
        ("farther from the reference than 99.5 % of its own cells", own, "3"),
        ("5 counts or more", own, "0"),
        ("a novelty of 0.98 or more", own, "20"),
        (
            "a best label of a probability below 0.5; it gives way to a broader name of 0.8 or more",
            *("set by --min_probability", "7"),
        ),
    ]
    assert [whose for _, whose, _ in limits_of(reject_novel=False)] == [own, kept, kept, kept, own]
    assert limits_changed({"rejection": LIMITS, "seed": 0, "reject_novel": True}) == ""
    assert limits_changed({"min_probability": 0.9, "reject_novel": False}) == (
        "The limits for names were changed: --min_probability 0.9, --reject_novel false."
    )
    assert limits_changed({"min_probability": 0.0}).endswith("changed: --min_probability 0.")
    assert limits_of(novelty_limit=0.95)[3][1] == "set by --novelty_limit"
    theirs = {"parameters": {"rejection": {"most_uncertainty": 0.5}}, "reasons": {"ambiguous": 7}}
    assert [(row["limit"], row["n"]) for row in limits_used(theirs, {})] == [
        ("an uncertainty above 0.5", "7")
    ]
    batch = limits_used(
        {"parameters": {"rejection": LIMITS}, "novel_by": CAUSES}, {"training": {"n_batches": 1}}
    )
    assert "0.88 % of all" in batch[2]["limit"] and batch[2]["limit"].endswith("have of these in common")


def test_where_cells_are_too_few_for_novelty_a_row_says_so():
    limits = {name: value for name, value in LIMITS.items() if name != "novelty"}
    causes = {cause: n for cause, n in CAUSES.items() if cause != STRANGE}
    annotation = {"parameters": {"rejection": limits}, "novel_by": causes, "n_cells": 65}
    assert "novelty" not in " ".join(row["limit"] for row in limits_used(annotation, {}))
    annotation["parameters"]["novelty_from_cells"] = 100
    row = limits_used(annotation, {})[3]
    assert row["limit"] == "novelty, which is judged from 100 cells on; here are 65 cells"
    assert (row["whose"], row["n"]) == ("not judged", "–")


def test_the_limits_of_each_of_several_models_stand_under_its_name():
    part = {"model": {"name": "a", "version": "1"}, "parameters": {"rejection": LIMITS}, "novel_by": CAUSES}
    joint = {"least_probability": 0.5, "ancestor_probability": 0.8, "models": 2}
    rows = limits_used({"parameters": {"consensus": joint}, "models": [part, part]}, {})
    assert [row["model"] for row in rows] == [""] + ["a 1"] * 10


def test_the_users_clusters_are_named_as_such_and_cells_in_none_have_no_verdict(tmp_path):
    files = write_sample(tmp_path, simulated())
    adata = anndata.read_h5ad(files["annotated"])
    annotation = read_json(files["annotation"])
    key = annotation["names"]["cluster"]
    names = adata.obs[key].astype(str).to_numpy(dtype=object)
    names[:10] = "no cluster"
    adata.obs[key] = pd.Categorical(names)
    adata.write_h5ad(files["annotated"])
    told = {"parameters": {"cluster_key": "mine", "rejection": LIMITS}, "novel_by": CAUSES}
    write_json(
        annotation | told | {"in_no_cluster": {"n_cells": 10, "name": "no cluster"}}, files["annotation"]
    )
    inputs = ReportInputs(sample="blood", **files)
    report.write_report(inputs)
    _, text = read(inputs)
    assert "Clusters 3 clusters, of the column 'mine' of the input; 10 cells in none" in text
    assert "By cluster (the column 'mine' of the input)" in text and "These are of the column 'mine'" in text
    assert "Traag" not in text and "By which limits" in text and "a novelty of 0.98 or more" in text
    assert set(pd.read_csv(inputs.verdicts, sep="\t", dtype=str)["cluster"]) == set(names) - {"no cluster"}
    table = pd.read_csv(inputs.clusters, sep="\t", dtype=str)
    assert "no cluster" in set(table["cluster"]) and read_json(inputs.verdict_summary)["n_clusters"] == 3


def test_of_very_many_clusters_the_largest_are_on_the_page(tmp_path, monkeypatch):
    monkeypatch.setattr(report, "CLUSTERS_SHOWN", 2)
    _, text = read(make(tmp_path))
    assert "1 smaller clusters are not shown here." in text


def test_many_clusters_whose_cells_have_too_few_counts_to_tell_are_folded():
    def folded(n, verdict="weak", shallow=60):
        reason = np.repeat(["low_information", ""], [shallow, 100 - shallow]).astype(object)
        support = verdicts.Support("B cell", 5, verdict, "")
        judged = [verdicts.ClusterVerdict(str(i), 5, "B cell", 1.0, "B cell", support) for i in range(n)]
        return report_composition.too_shallow_to_tell(judged, SimpleNamespace(reason=reason))

    assert folded(20) and not folded(19) and not folded(20, "supported") and not folded(20, shallow=50)


def test_a_label_has_the_colour_of_the_models_order_and_no_cluster_has_it(tmp_path, monkeypatch):
    files = write_sample(tmp_path, simulated())
    adata = anndata.read_h5ad(files["annotated"])
    labels = ["NK cell", "Monocyte", "T cell", "B cell"]
    adata.uns[OutputNames.of().predictions]["labels"] = labels
    adata.write_h5ad(files["annotated"])
    drawn = []
    draw = report.figures.umap_by_category
    monkeypatch.setattr(
        report.figures,
        "umap_by_category",
        lambda places, values, colours, **options: (
            drawn.append(colours) or draw(places, values, colours, **options)
        ),
    )
    report.write_report(ReportInputs(sample="blood", **files))
    by_label, by_cluster = drawn[:2]
    assert [by_label[name] for name in labels] == list(PALETTE[:4])
    assert set(by_cluster) == {"0", "1", "2"} and not set(by_cluster.values()) & set(by_label.values())


def test_what_stands_between_backticks_is_code_and_nothing_else_is_html():
    assert report_words.as_code("a label, or `unassigned`.") == "a label, or <code>unassigned</code>."
    assert report_words.as_code("`<b>` & `one") == "<code>&lt;b&gt;</code> &amp; `one"
    assert report_words.as_code("plain") == "plain"


def test_the_page_has_no_raw_backticks_and_names_bounds_as_bounds(page):
    _, text = read(page)
    assert "`" not in text and "a label, an ancestor's name, or unassigned" in text
    assert "Lower bound Upper bound" in text and "kept Highest" not in text
    assert "the stronger the colour" in text and "the darker" not in text
    assert "Commonest name" in text and "Name of most cells" not in text


def test_columns_that_a_narrow_screen_would_squeeze_keep_a_width(page):
    style = (report.TEMPLATES / "report.css").read_text()
    html = page.output.read_text()
    for name in ("evidence", "source"):
        assert re.search(rf"^\.{name} {{ min-width: \d+px; }}$", style, flags=re.MULTILINE), name
        assert f'<td class="{name}">' in html, name


def test_where_bounds_come_from_is_told_of_each_side_where_they_differ():
    mixed = {"lower": 200, "lower_source": "fixed", "upper": 5232, "upper_source": "mad"}
    said = report_steps.bounds_source(mixed)
    assert said == "lowest set by the user; highest from this sample's own spread (MAD)"
    assert report_steps.bounds_source({**mixed, "upper": None, "upper_source": "off"}) == "set by the user"
    assert report_steps.bounds_source({}) == "no bound"


def test_genes_found_by_another_spelling_of_their_symbols_are_counted():
    found = {"n_genes_found": 1201, "n_model_genes": 1602, "genes_matched_by": "gene_symbols"}
    for n_respelled, said in (
        (0, "gene_symbols"),
        (57, "; 57 of them by a symbol of another year, or one with R's dots"),
    ):
        genes = dict(report_steps.what_was_done({}, {}, found | {"n_genes_respelled": n_respelled}, {}))[
            "Genes"
        ]
        assert genes.endswith(said)


def test_counts_that_were_had_back_are_not_said_to_be_found():
    def told(**convert):
        return dict(report_steps.what_was_done(convert, {}, {}, {}))["Raw counts"]

    assert told(counts_from="raw.X", counts_recovered_from="") == "found in raw.X; organism unknown"
    way = "log1p of counts scaled to a common total"
    assert told(counts_from="X", counts_recovered_from=way) == f"recovered from X ({way}); organism unknown"


def test_how_the_model_was_tested_is_told_in_plain_words():
    tested = {"accuracy": 0.933, "split": "whole batches held out, from the weights of the pool too"}
    done = dict(report_steps.what_was_done({}, {}, {}, {"evaluation": tested}))
    assert done["Model"].endswith("93.3 % of its labels were right in the test (whole batches held out)")


def test_bounds_are_whole_numbers_and_those_beyond_every_cell_are_words():
    def said(lower, upper, source="mad"):
        qc = {
            "thresholds": {
                "n_genes_by_counts": {
                    "lower": lower,
                    "upper": upper,
                    "lower_source": source,
                    "upper_source": source,
                }
            },
            "before": {"n_genes_by_counts": {"min": 431.0, "max": 5921.0}},
        }
        ((row,), done) = (
            report_steps.qc_tables(qc)["metrics"],
            dict(report_steps.what_was_done({}, qc, {}, {})),
        )
        return row["lower"], row["upper"], done["Quality control"].partition(": ")[2]

    none_below, none_above = "no cell lies below", "no cell lies above"
    assert said(450.7, 5500.2) == ("451", "5,500", "genes a cell 451 to 5,500")
    assert said(21.7, 5500.2) == (none_below, "5,500", "genes a cell at most 5,500")
    assert said(450.7, 64_539.1) == ("451", none_above, "genes a cell at least 451")
    assert said(21.7, 64_539.1) == (none_below, none_above, "")
    assert said(21.7, 64_539.1, "fixed") == ("22", "64,539", "genes a cell 22 to 64,539")


def test_a_mitochondrial_share_that_was_not_measured_is_not_told_as_0(tmp_path, page):
    files = write_sample(tmp_path, simulated())
    write_json(read_json(files["qc"]) | {"mt_known": False}, files["qc"])
    report.write_report(inputs := ReportInputs(sample="blood", **files))
    _, text = read(inputs)
    assert "Mitochondrial share not measured not measured" in text
    assert "Counts, genes and mitochondrial share" not in text and "Counts and genes" in text
    assert "not measured" not in read(page)[1]


def test_an_uncertainty_that_was_never_calibrated_is_not_called_a_chance():
    names = {"predicted": "cxg_cell_type_predicted"}
    key = "cxg_cell_type_predicted_uncertainty"
    for calibrated in (True, False):
        ((_, _, meaning),) = report_steps.columns_guide(
            {"names": names, "calibrated": calibrated}, {"obs": [key]}
        )
        assert ("chance of being right" in meaning) is calibrated


def test_numbers_are_written_for_people():
    assert report_words.percent(0.0719) == "7.2 %"
    assert report_words.percent(0.0001) == "< 0.1 %"
    assert report_words.percent(0) == "0.0 %"
    assert report_words.count(4012) == "4,012"
    assert report_words.number(None) == "–"
    assert report_words.number(7.3456, " %") == "7.35 %"
    assert report_words.number(15844.0) == "15,844"


def test_warnings_are_merged_in_order_whatever_their_spacing_and_case():
    (one,) = report_words.merge_warnings(("a", ["43% of the cells lie beyond 99 %."]))
    assert one["text"] == "43 % of the cells lie beyond 99 %."
    merged = report_words.merge_warnings(
        ("a", ["Two words.", ""]), ("b", ["one", " two  WORDS"]), ("a", ["two words"])
    )
    assert [(one["text"], one["steps"]) for one in merged] == [("Two words.", ["a", "b"]), ("One", ["b"])]


def test_real_blood_is_supported_by_its_own_markers(tmp_path, shared_data):
    adata = anndata.read_h5ad(shared_data / "labelled" / "pbmc3k_labelled.h5ad")
    adata = adata[adata.obs["cell_type"] != "unlabelled"].copy()
    inputs = make(tmp_path, adata)
    _, text = read(inputs)
    assert "The genes contradict the name" not in text
    verdicts = pd.read_csv(inputs.verdicts, sep="\t")
    assert set(verdicts["verdict"]) == {"supported"}
    table = pd.read_csv(inputs.markers, sep="\t")
    first = table[table["rank"] <= 5].groupby("label")["gene"].agg(set)
    assert {"CD79A", "MS4A1"} <= first["B"]
    assert {"S100A8", "S100A9"} <= first["CD14+ Mono"]


def test_provenance_that_is_json_text_is_read(tmp_path):
    files = write_sample(tmp_path, simulated())
    adata = anndata.read_h5ad(files["annotated"])
    adata.uns[OutputNames.of().predictions] = json.dumps({"date": "2023-01-02"})
    adata.write_h5ad(files["annotated"])
    inputs = ReportInputs(sample="blood", **files)
    report.write_report(inputs)
    assert "2023-01-02" in read(inputs)[1]


# Several models ----------------------------------------------------------------------------------


def test_several_models_have_a_part_of_their_own(tmp_path):
    files = write_sample(tmp_path, simulated())
    adata = anndata.read_h5ad(files["annotated"])
    final = adata.obs["cxg_cell_type_final"].astype(str)
    annotation, models = read_json(files["annotation"]), []
    for name, shift in (("fine", 0), ("coarse", 7)):
        adata.obs[f"cxg_cell_type_{name}_final"] = pd.Categorical(np.roll(final, shift))
        part = {key: annotation[key] for key in ("n_cells", "unassigned", "n_model_genes", "gene_overlap")}
        models.append(
            part
            | {
                "model": annotation["model"] | {"name": name, "sha256": name * 9, "url": f"/models/{name}"},
                "names": {"final": f"cxg_cell_type_{name}_final"},
                "n_genes_found": 1234,
                "median_uncertainty": 0.21,
            }
        )
    adata.write_h5ad(files["annotated"])
    label = final[final != UNASSIGNED].iloc[0]
    answers = [
        {"agree": 0.75, "unassigned": 0.1, "other": ""},
        {"agree": 0.25, "unassigned": 0.0, "other": "Some other type"},
    ]
    annotation |= {
        "cl_ids": [TYPES.get(name, "") for name in annotation["labels"]],
        "models": models,
        "agreement": {
            "pairs": [{"models": [0, 1], "same": 0.5, "broader": 0.125, "contradict": 0.375}],
            "labels": [{"label": label, "n_cells": 60, "models": answers}],
        },
    }
    write_json(annotation, files["annotation"])
    inputs = ReportInputs(sample="blood", **files | {"models": files["models"] * 2})
    report.write_report(inputs)
    reader, text = read(inputs)
    assert "What each model says" in text and "a consensus of 2 models" in text
    for words in ("fine 1.0 and coarse 1.0", "50.0 % 12.5 % 37.5 %", "1,234 of 2,000", "0.21"):
        assert words in text
    assert "75.0 % 10.0 % unassigned 25.0 % else Some other type" in text
    assert "/models/coarse" in text and "coarsecoarse" in text
    maps = [attrs for tag, attrs in reader.tags if tag == "img" and "final label of" in attrs["alt"]]
    assert len(maps) == 2 and maps[0]["src"] != maps[1]["src"]


def test_cells_named_by_orthologues_say_so_with_a_caution(tmp_path, page):
    files = write_sample(tmp_path, simulated())
    annotation = read_json(files["annotation"]) | {
        "orthologs": {"from": "mouse", "to": "human", "n_genes": 9}
    }
    write_json(annotation, files["annotation"])
    inputs = ReportInputs(sample="blood", **files)
    report.write_report(inputs)
    caution = "Measured on human cells, and these are mouse cells"
    text, plain = read(inputs)[1], read(page)[1]
    assert text.count("by one-to-one orthologues of mouse and human genes, matched by gene_ids") == 2
    assert caution in text and "Ensembl Compara" in text
    assert not any(words in plain for words in ("one-to-one", "Measured on human", "Compara"))


def test_markers_of_a_model_of_the_samples_own_organism_are_found_beside_one_that_needs_orthologues(tmp_path):
    adata = simulated()
    # Human genes with orthologues of other names, by which the markers of human models are not called.
    pairs = ortholog_pairs().query("human_symbol != '' and mouse_symbol != ''").iloc[: adata.n_vars]
    adata.var = pd.DataFrame(
        {"gene_ids": pairs["human_gene_id"].to_numpy(), "gene_symbols": pairs["human_symbol"].to_numpy()},
        index=pairs["human_symbol"].to_numpy(),
    )
    files = write_sample(tmp_path, adata)
    annotation = read_json(files["annotation"])
    used = {"from": "human", "to": "mouse", "n_genes": 9}
    part = {
        **{
            key: annotation[key]
            for key in ("n_cells", "unassigned", "n_model_genes", "gene_overlap", "model")
        },
        "names": {"final": "cxg_cell_type_final"},
        "n_genes_found": 120,
        "median_uncertainty": 0.2,
    }
    joint = {
        "orthologs": used,
        "cl_ids": [TYPES.get(name, "") for name in annotation["labels"]],
        "models": [part | {"orthologs": None}, part | {"orthologs": used}],
        "agreement": {"pairs": [], "labels": []},
    }
    write_json(annotation | joint, files["annotation"])
    inputs = ReportInputs(sample="blood", **files | {"models": files["models"] * 2})
    report.write_report(inputs)
    verdicts_of = pd.read_csv(inputs.verdicts, sep="\t")
    assert (verdicts_of["verdict"] == "supported").all()


def test_one_model_has_no_such_part(page):
    assert "What each model says" not in read(page)[1]


@pytest.fixture
def two_models(tmp_path):
    """Makes the page of cells named by two models that call B cells differently, the first as the consensus does."""

    def _two_models(author, **options):
        adata = simulated()
        adata.obs["author"] = adata.obs["cell_type"].replace(author).astype(str)
        files = write_sample(tmp_path, adata)
        annotation, other = read_json(files["annotation"]), tmp_path / "other"
        other.mkdir()
        manifest = read_json(files["models"][0] / "manifest.json")
        words = {"B cell": "CD20 positive"}
        for entry in manifest["labels"]:
            entry["label"] = words.get(entry["label"], entry["label"])
        write_json(manifest, other / "manifest.json")
        joint = {
            "cl_ids": [TYPES[name] for name in annotation["labels"]],
            "models": [],
            "agreement": {"pairs": [], "labels": []},
        }
        write_json(annotation | joint, files["annotation"])
        inputs = ReportInputs(
            sample="blood", truth_key="author", **options, **files | {"models": (*files["models"], other)}
        )
        report.write_report(inputs)
        return inputs

    return _two_models


def test_known_labels_in_the_words_of_any_model_are_held_against_the_consensus(two_models):
    inputs = two_models({"B cell": "CD20 positive"})
    table = pd.read_csv(inputs.truth, sep="\t", keep_default_na=False).set_index("truth")
    assert table.loc["CD20 positive", ["cl_id", "known_to_model", "scored_as"]].tolist() == [
        "CL:0000236",
        "yes",
        "B cell",
    ]
    assert table.loc["CD20 positive", "recall"] == 1
    assert read_json(inputs.truth_summary)["accuracy"] == 1
    # As many as the file itself tells: the one type with two names is one label.
    assert f": {len(TYPES)} labels" in read(inputs)[1]


def test_the_meaning_of_a_known_label_may_be_in_the_words_of_any_model(two_models, tmp_path):
    (tmp_path / "map.csv").write_text("label,meaning\nmine,CD20 positive\n")
    inputs = two_models({"B cell": "mine"}, truth_map=tmp_path / "map.csv")
    table = pd.read_csv(inputs.truth, sep="\t", keep_default_na=False).set_index("truth")
    assert table.loc["mine", ["scored_as", "recall"]].tolist() == ["B cell", 1]


def test_several_models_have_the_labels_of_their_consensus():
    manifests = [
        {"labels": [{"label": "NK", "cl_id": "CL:0000623", "cl_name": "natural killer cell"}]},
        {"labels": [{"label": "NK cells", "cl_id": "CL:0000623", "cl_name": "natural killer cell"}]},
    ]
    annotation = {"labels": ["NK", "blob"], "cl_ids": ["CL:0000623", ""]}
    assert report_models.joint_manifest(manifests, annotation)["labels"] == [
        {"label": "NK", "cl_id": "CL:0000623", "cl_name": "natural killer cell"},
        {"label": "blob", "cl_id": "", "cl_name": ""},
    ]
    assert report_models.joint_manifest(manifests[1:], annotation) is manifests[1]
    assert report_models.own_labels(manifests) == dict.fromkeys(["NK cells", "NK"], "CL:0000623")


def test_expected_markers_are_those_of_all_models_under_the_names_of_the_consensus(tmp_path):
    genes = [{"gene_id": f"G{i}", "share": 0.9, "mean_rest": 0.1} for i in range(3)]
    labels = {
        "one": {"B cell": "CL:0000236", "T cell": "CL:0000084"},
        "two": {"B": "CL:0000236", "CD4": "CL:0000624", "odd": ""},
    }
    folders, manifests = [], []
    for name, own in labels.items():
        folders.append(tmp_path / name)
        folders[-1].mkdir()
        write_json(dict.fromkeys(own, genes), folders[-1] / "markers.json")
        terms = {
            "CL:0000624": {"name": "CD4", "ancestors": ["CL:0000084"]},
            "CL:0000084": {"name": "T cell", "ancestors": []},
        }
        write_json({"terms": terms, "curated": []}, folders[-1] / "ontology.json")
        manifests.append({"labels": [{"label": label, "cl_id": cl_id} for label, cl_id in own.items()]})
    found = report_models.joint_markers(folders, manifests, {"B cell", "CD4"})
    assert set(found) == {"B cell", "CD4", "odd"}
    assert set(report_models.joint_markers(folders, manifests, {"T cell"})) == {
        "B cell",
        "T cell",
        "CD4",
        "odd",
    }
    assert set(report_models.joint_markers(folders[:1], manifests[:1], set())) == {"B cell", "T cell"}


def test_relatives_are_the_ancestors_and_descendants_of_any_model_and_no_one_else(tmp_path):
    terms = {
        "one": {"CL:0000624": ["CL:0000084"], "CL:0000084": []},
        "two": {"CL:0000625": ["CL:0000084", "CL:0000542"], "CL:0000236": ["CL:0000542"], "CL:0000542": []},
    }
    labels = {"one": {"CD4": "CL:0000624"}, "two": {"CD8": "CL:0000625", "B": "CL:0000236", "odd": ""}}
    folders = []
    for name, own in terms.items():
        folders.append(tmp_path / name)
        folders[-1].mkdir()
        written = {cl_id: {"name": cl_id, "ancestors": above} for cl_id, above in own.items()}
        write_json({"terms": written, "curated": []}, folders[-1] / "ontology.json")
    manifests = [
        {"labels": [{"label": label, "cl_id": cl_id} for label, cl_id in own.items()]}
        for own in labels.values()
    ]
    kin = report_models.relatives(
        folders, manifests, {"T cell": "CL:0000084", "helper": "CL:0000624", "": ""}
    )
    assert kin["CD4"] == {"CD4", "helper", "T cell"}
    assert kin["T cell"] == {"T cell", "CD4", "helper", "CD8"}
    assert kin["B"] == {"B"}
    assert "odd" not in kin


def test_a_file_without_clusters_has_verdicts_for_its_names_alone(tmp_path):
    files = write_sample(tmp_path, simulated())
    annotation = read_json(files["annotation"])
    del annotation["names"]["cluster"]
    write_json(annotation | {"clusters": []}, files["annotation"])
    inputs = ReportInputs(sample="blood", **files)
    report.write_report(inputs)
    assert read(inputs)[1].count("supported 10 of 10") == len(TYPES)
    assert len(pd.read_csv(inputs.verdicts, sep="\t")) == 0
    assert read_json(inputs.verdict_summary)["n_clusters"] == 0


def test_what_a_curator_still_has_to_give_is_on_the_page_and_nothing_of_it_where_none_asked(page, tmp_path):
    assert "CELLxGENE Discover" not in read(page)[1]
    files = write_sample(tmp_path, simulated())
    todo = {
        "kind": "give",
        "field": "tissue_type",
        "todo": "Give one of tissue, organoid.",
        "message": HOSTILE,
    }
    curation = {"valid": False, "validator": "7.1.2", "schema": "7.1.0", "file": "blood.cellxgene.h5ad"}
    curation |= {"table": "blood.cellxgene_todo.tsv", "notes": ["3 genes were left out."], "todo": [todo]}
    write_json(curation, tmp_path / "curation.json")
    inputs = ReportInputs(sample="blood", curation=tmp_path / "curation.json", **files)
    report.write_report(inputs)
    reader, text = read(inputs)
    assert "does not pass cellxgene-schema 7.1.2 (schema 7.1.0) yet: 1 thing to give or to mend" in text
    assert "Needed, and only you know it" in text and "3 genes were left out." in text
    assert HOSTILE in text and not [tag for tag, _ in reader.tags if tag == "script"]
