"""The summary of a run: what its steps said, one row a sample, and a page that MultiQC can draw."""

from __future__ import annotations

import csv
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from cellscribe.colours import label_colours
from cellscribe.errors import InputError
from cellscribe.multiqc_page import MAX_LABELS_DRAWN, OTHER_LABELS, sections
from cellscribe.run_samples import COLUMNS, read_samples
from cellscribe.summary import cell, run_summary

CONVERT = {"source": "10x_h5_v3", "n_cells": 1000, "organism": "human", "warnings": ["It is raw."]}
QC = {
    "n_cells_before": 1000,
    "n_cells_after": 800,
    "removed_by": {"low_counts": 150, "high_mt": 100},
    "after": {
        "total_counts": {"median": 4321.0},
        "n_genes_by_counts": {"median": 1234.5},
        "pct_counts_mt": {"median": 3.25},
    },
    "doublets": {"status": "called", "n": 40},
    "warnings": [],
}
ANNOTATION = {
    "model": {"name": "pbmc", "version": "1.0"},
    "n_cells": 800,
    "composition": {"T cell": 500, "B cell": 100, "lymphocyte": 40, "unassigned": 160},
    "unassigned": 160,
    "reasons": {"ambiguous": 80, "disagreement": 20, "novel": 60, "low_information": 50},
    "unassigned_by": {"ambiguous": 45, "disagreement": 5, "novel": 60, "low_information": 50},
    "median_uncertainty": 0.05,
    "gene_overlap": 0.9,
    "n_model_genes": 2000,
    "n_genes_found": 1800,
    "genes_matched_by": "gene_ids",
    "reference_distance": {"median": 0.5, "share_beyond_99": 0.125},
    "warnings": ["Many cells lie far from the reference.", "Two."],
}
TRUTH = {
    "n_cells": 700,
    "n_known": 600,
    "accuracy": 0.9,
    "macro_f1": 0.8,
    "accuracy_assigned": 0.95,
    "calibration_error": 0.02,
    "share_same": 0.75,
    "share_compatible": 0.125,
    "share_not_understood": 0.03,
    "warnings": ["labels.csv names 700 of this sample's 800 cells."],
}
VERDICTS = {
    "n_clusters": 9,
    "n_clusters_named": 8,
    "n_clusters_supported": 5,
    "n_clusters_weak": 2,
    "n_clusters_contradicted": 1,
    "n_clusters_not_judged": 0,
    "warnings": ["The genes contradict the name of cluster 3."],
}
PARTS: dict[str, dict[str, Any]] = {
    "convert": CONVERT,
    "qc": QC,
    "annotation": ANNOTATION,
    "verdicts": {"warnings": []},
}
FAILURES = "sample\tstep\texit_code\tmeaning\tmessage\n"


def write_run(folder: Path, samples: dict[str, dict[str, Any]]) -> Path:
    folder.mkdir(exist_ok=True)
    for name, parts in samples.items():
        for part, content in parts.items():
            (folder / f"{name}.{part}.json").write_text(json.dumps(content))
    listed = [{"id": name, "path": f"/data/{name}"} for name in samples]
    (folder / "samples.json").write_text(json.dumps(listed))
    return folder


def summarise(
    folder: Path, failures: Path | None = None
) -> tuple[list[dict[str, str]], dict[str, dict[str, Any]]]:
    """The rows of summary.tsv, and MultiQC's sections by their id without `cellscribe_`."""
    out = folder / "out"
    run_summary(folder / "samples.json", folder, out, failures)
    with (out / "summary.tsv").open(newline="") as handle:
        rows = list(csv.DictReader(handle, delimiter="\t"))
    sections = [json.loads(path.read_text()) for path in out.glob("*_mqc.json")]
    return rows, {section["id"].removeprefix("cellscribe_"): section for section in sections}


def test_a_mitochondrial_share_that_was_not_measured_is_not_nought(tmp_path: Path) -> None:
    parts = {**PARTS, "qc": {**PARTS["qc"], "mt_known": False}}
    ((row,), sections) = summarise(write_run(tmp_path / "run", {"lung_1": parts}))
    assert row["median_pct_mt"] == ""
    assert "median_pct_mt" not in sections["general"]["data"]["lung_1"]


def test_the_labels_of_every_sample_are_in_one_table(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", {"lung_1": PARTS, "gone": {"convert": PARTS["convert"]}})
    summarise(folder)
    with (folder / "out" / "composition.tsv").open(newline="") as handle:
        rows = list(csv.DictReader(handle, delimiter="\t"))
    numbers = PARTS["annotation"]["composition"]
    assert {row["label"]: int(row["n_cells"]) for row in rows} == numbers
    assert {row["sample"] for row in rows} == {"lung_1"}
    assert sum(float(row["share"]) for row in rows) == pytest.approx(1, abs=1e-3)


def test_a_whole_sample_has_every_column_filled(tmp_path: Path) -> None:
    rows, _ = summarise(write_run(tmp_path / "run", {"lung_1": PARTS}))
    assert rows == [
        {
            "sample": "lung_1",
            "status": "done",
            "failed_step": "",
            "exit_code": "",
            "message": "",
            "organism": "human",
            "source": "10x_h5_v3",
            "n_cells_read": "1000",
            "n_cells_kept": "800",
            "n_doublets": "40",
            "median_counts": "4321",
            "median_genes": "1234.5",
            "median_pct_mt": "3.25",
            "model": "pbmc 1.0",
            "gene_overlap": "0.9",
            "orthologs": "",
            "n_labels": "3",
            "top_label": "T cell",
            "top_label_share": "0.625",
            "unassigned_share": "0.2",
            "median_uncertainty": "0.05",
            "share_far_from_reference": "0.125",
            "n_clusters": "",
            "n_clusters_named": "",
            "n_clusters_supported": "",
            "n_clusters_weak": "",
            "n_clusters_contradicted": "",
            "truth_n_cells": "",
            "truth_n_known": "",
            "truth_accuracy": "",
            "truth_macro_f1": "",
            "truth_accuracy_assigned": "",
            "truth_calibration_error": "",
            "truth_share_same": "",
            "truth_share_compatible": "",
            "truth_share_not_understood": "",
            "n_warnings": "3",
        }
    ]
    assert list(rows[0]) == list(COLUMNS)


def test_agreement_with_known_labels_stands_in_the_row_and_on_the_page(tmp_path: Path) -> None:
    missing = {"sample": "b", "warnings": ["Nothing was compared with known labels."]}
    run = write_run(tmp_path / "run", {"a": {**PARTS, "truth": TRUTH}, "b": {**PARTS, "truth": missing}})
    rows, sections = summarise(run)
    found = {name: value for name, value in rows[0].items() if name.startswith("truth_")}
    assert found == {f"truth_{name}": cell(value) for name, value in TRUTH.items() if name != "warnings"}
    assert [row["n_warnings"] for row in rows] == ["4", "4"]
    assert rows[1]["truth_accuracy"] == "" and rows[1]["status"] == "done"
    assert list(sections["truth"]["data"]) == ["a"]
    assert sections["truth"]["data"]["a"]["truth_accuracy"] == 90
    assert set(sections["truth"]["data"]["a"]) == set(sections["truth"]["headers"])
    assert sections["truth"]["section_name"] == "Compared with known labels"
    assert sections["truth"]["data"]["a"]["scored"] == pytest.approx(100 * 600 / 700)
    assert "Nothing was compared" in sections["warnings"]["data"]


def test_scores_of_less_than_half_of_the_cells_are_not_coloured_as_good(tmp_path: Path) -> None:
    for n_known, scale in ((350, "RdYlGn"), (349, "Blues"), (0, "Blues")):
        few = {**TRUTH, "n_known": n_known}
        parts = {"a": {**PARTS, "truth": TRUTH}, "b": {**PARTS, "truth": few}}
        _, sections = summarise(write_run(tmp_path / str(n_known), parts))
        headers = sections["truth"]["headers"]
        scores = ("truth_accuracy", "truth_macro_f1", "truth_accuracy_assigned", "truth_share_same")
        assert {headers[name]["scale"] for name in scores} == {scale}
        assert not {header["scale"] for header in headers.values()} & {"Greens"}


def test_the_verdicts_of_clusters_stand_in_the_row_and_on_the_page(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", {"a": {**PARTS, "verdicts": VERDICTS}, "b": PARTS})
    rows, sections = summarise(run)
    names = [name for name in COLUMNS if name.startswith("n_clusters")]
    found = {"n_clusters": 9, "n_clusters_named": 8}
    found |= {
        f"n_clusters_{verdict}": n for verdict, n in (("supported", 5), ("weak", 2), ("contradicted", 1))
    }
    assert {name: rows[0][name] for name in names} == {name: str(n) for name, n in found.items()}
    assert [rows[1][name] for name in names] == [""] * 5 and rows[1]["status"] == "done"
    assert rows[0]["n_warnings"] == "4"
    fit = sections["fit"]
    assert {name: fit["data"]["a"][name] for name in names} == found
    assert set(names) <= set(fit["headers"]) and set(names).isdisjoint(fit["data"]["b"])
    assert "contradict the name of cluster 3" in sections["warnings"]["data"]


def test_a_sample_failed_at_the_first_step_that_left_nothing(tmp_path: Path) -> None:
    samples = {
        "a": {},
        "b": {"convert": CONVERT},
        "c": {"convert": CONVERT, "qc": QC},
        "d": {"convert": CONVERT, "qc": QC, "annotation": ANNOTATION},
        "e": PARTS,
    }
    rows, sections = summarise(write_run(tmp_path / "run", samples))
    assert [row["status"] for row in rows] == ["failed", "failed", "failed", "failed", "done"]
    assert [row["failed_step"] for row in rows] == ["CONVERT", "QC", "MAP or ANNOTATE", "REPORT", ""]
    assert [row["n_cells_read"] for row in rows] == ["", "1000", "1000", "1000", "1000"]
    assert "4 of 5 samples" in sections["failures"]["description"]
    assert "/data/c" in sections["failures"]["data"]
    assert "/data/e" not in sections["failures"]["data"]


def test_the_row_and_the_page_say_why_a_sample_failed(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", {"a": {"convert": CONVERT, "qc": QC}, "b": PARTS, "c": PARTS})
    told = (
        'a\tPREDICT\t4\tmodel and data do not fit\tthe code of "theirs" failed: <b>\n'
        "a\tMAP\t137\tkilled, mostly for memory\t\n"
        "b\tCURATE\t3\tbad input\tno gene has an id\n"
    )
    (run / "failures.tsv").write_text(FAILURES + told)
    rows, sections = summarise(run, run / "failures.tsv")
    # The step that is first in the pipeline; the file of b is there, and another one that was asked for is not.
    assert [[row[name] for name in ("status", "failed_step", "exit_code", "message")] for row in rows] == [
        ["failed", "MAP", "137", ""],
        ["failed", "CURATE", "3", "no gene has an id"],
        ["done", "", "", ""],
    ]
    page = sections["failures"]
    assert "2 of 3 samples" in page["description"]
    for words in (
        "PREDICT",
        "137 killed, mostly for memory",
        "the code of &#34;theirs&#34; failed: &lt;b&gt;",
    ):
        assert words in page["data"]


def test_a_list_of_no_failure_changes_nothing(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", {"a": PARTS, "b": {}})
    (run / "failures.tsv").write_text(FAILURES)
    assert [row["failed_step"] for row in summarise(run, run / "failures.tsv")[0]] == ["", "CONVERT"]


def test_a_run_in_which_every_sample_failed_is_still_summed_up(tmp_path: Path) -> None:
    rows, sections = summarise(write_run(tmp_path / "run", {"a": {}, "b": {}}))
    assert len(rows) == 2
    assert set(sections) == {"failures", "general"}


def test_rows_keep_the_order_of_the_sheet(tmp_path: Path) -> None:
    rows, _ = summarise(write_run(tmp_path / "run", dict.fromkeys(("z", "b", "a10", "a9"), PARTS)))
    assert [row["sample"] for row in rows] == ["z", "b", "a10", "a9"]


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (None, ""),
        (0, "0"),
        (1_234_567, "1234567"),
        (-0.5, "-0.5"),
        (0.123456, "0.1235"),
        (1e-9, "0"),
        ("B cell", "B cell"),
        ("=1+1", "'=1+1"),
        ("+1", "'+1"),
        ("-1", "'-1"),
        ("@SUM(A1)", "'@SUM(A1)"),
        ("\t=1+1", "'=1+1"),
        ("\r\n=1+1", "'=1+1"),
        ("＝1", "'＝1"),
        ("a\tb\nc\u2028d\0", "a b c d"),
    ],
)
def test_no_cell_of_the_table_is_run_as_a_formula_or_breaks_it(value: Any, shown: str) -> None:
    assert cell(value) == shown


def test_hostile_names_are_text_everywhere(tmp_path: Path) -> None:
    evil = "<script>alert(1)</script>"
    annotation = {
        **ANNOTATION,
        "composition": {evil: 600, "=cmd|'/c calc'!A1": 40, "unassigned": 160},
        "model": {"name": evil, "version": ""},
        "genes_matched_by": evil,
        "warnings": [evil],
    }
    qc = {**QC, "removed_by": {evil: 3}}
    folder = write_run(tmp_path / "run", {"s": {"convert": CONVERT, "qc": qc, "annotation": annotation}})
    # A sample's name is held to a pattern before; this must not lean on it.
    (folder / "samples.json").write_text(json.dumps([{"id": "s", "path": evil}, {"id": "<b>", "path": evil}]))
    rows, sections = summarise(folder)
    assert rows[0]["top_label"] == evil
    assert len(sections) == 8
    for section in sections.values():
        data = json.dumps([section["data"], section.get("categories")])
        assert "<script" not in data
        assert "<b>" not in data
    assert "&lt;script&gt;" in json.dumps(sections["composition"]["data"])
    assert "&lt;script&gt;" in sections["warnings"]["data"]


def test_limits_that_were_changed_are_told_where_the_reasons_are(tmp_path: Path) -> None:
    strict = {**ANNOTATION, "parameters": {"min_probability": 0.9, "novelty_limit": None}}
    run = write_run(tmp_path / "in", {name: {**PARTS, "annotation": strict} for name in ("a", "b")})
    _, sections = summarise(run)
    told = sections["reasons"]["description"]
    assert told.endswith(" The limits for names were changed: --min_probability 0.9.")
    usual = summarise(write_run(tmp_path / "usual", {"a": PARTS}))[1]["reasons"]["description"]
    assert told.startswith(usual) and "were changed" not in usual


def test_every_cell_is_drawn_once_in_composition_and_reasons(tmp_path: Path) -> None:
    _, sections = summarise(write_run(tmp_path / "run", {"s": PARTS}))
    assert sections["composition"]["data"]["s"] == ANNOTATION["composition"]
    assert list(sections["composition"]["categories"]) == ["T cell", "B cell", "lymphocyte", "unassigned"]
    reasons = sections["reasons"]["data"]["s"]
    # 210 cells have a reason and 160 are unassigned: 35 ambiguous and 15 disputed ones have an ancestor's name.
    assert reasons == {
        "named": 590,
        "broader": 50,
        "ambiguous": 45,
        "disagreement": 5,
        "novel": 60,
        "low_information": 50,
    }
    assert set(reasons) == set(sections["reasons"]["categories"])


def test_labels_have_the_colours_of_the_samples_pages(tmp_path: Path) -> None:
    known = ["B cell", "Monocyte", "T cell"]
    parts = {**PARTS, "annotation": {**ANNOTATION, "labels": known}}
    _, sections = summarise(write_run(tmp_path / "run", {"s": parts}))
    drawn = sections["composition"]["categories"]
    expected = label_colours(["T cell", "B cell", "lymphocyte"], known)
    assert {label: category["color"] for label, category in drawn.items()} == {
        label: expected[label] for label in ("T cell", "B cell", "lymphocyte", "unassigned")
    }


def test_rare_labels_are_drawn_as_one(tmp_path: Path) -> None:
    composition = {f"type {i:02}": 100 - i for i in range(40)} | {"unassigned": 7}
    annotation = {**ANNOTATION, "composition": composition, "unassigned": 7}
    _, sections = summarise(write_run(tmp_path / "run", {"s": {**PARTS, "annotation": annotation}}))
    drawn = sections["composition"]["data"]["s"]
    assert len(drawn) == MAX_LABELS_DRAWN + 2
    assert drawn[OTHER_LABELS] == sum(100 - i for i in range(MAX_LABELS_DRAWN, 40))
    assert sum(drawn.values()) == sum(composition.values())
    assert set(drawn) == set(sections["composition"]["categories"])


def test_bars_of_one_reason_alone_still_name_it(tmp_path: Path) -> None:
    qc = {**QC, "removed_by": {"low_counts": 150}}
    _, sections = summarise(write_run(tmp_path / "run", {"s": {**PARTS, "qc": qc}}))
    assert list(sections["removed"]["categories"]) == ["low_counts"]
    bars = [section for section in sections.values() if section["plot_type"] == "bargraph"]
    assert len(bars) == 4 and all(section["pconfig"]["use_legend"] for section in bars)


def test_cells_by_failed_check_are_drawn_in_percent_of_the_sample_first(tmp_path: Path) -> None:
    qc = {**QC, "n_cells_before": 1000, "removed_by": {"low_counts": 150, "doublet": 5}}
    _, sections = summarise(write_run(tmp_path / "run", {"s": {**PARTS, "qc": qc}}))
    shares, numbers = sections["removed"]["data"]
    assert shares == {"s": {"low_counts": 15.0, "doublet": 0.5}}
    assert numbers == {"s": {"low_counts": 150, "doublet": 5}}
    assert [one["name"] for one in sections["removed"]["pconfig"]["data_labels"]] == ["Percent", "Cells"]


def test_the_page_of_all_samples_together_is_a_link_where_they_were_merged(tmp_path: Path) -> None:
    link = '<a href="../merged/merged.report.html">'
    done = write_run(tmp_path / "done", {"s": PARTS})
    lost = write_run(tmp_path / "lost", {"s": {"convert": CONVERT, "qc": QC}})
    for folder, merged, told in ((done, True, True), (done, False, False), (lost, True, False)):
        samples = read_samples(folder / "samples.json", folder)
        assert (link in json.dumps(sections(samples, merged=merged)).replace("\\", "")) == told


def test_flagged_cells_are_not_drawn_as_removed(tmp_path: Path) -> None:
    qc = {**QC, "n_cells_after": 1000, "n_cells_pass": 800}
    _, sections = summarise(write_run(tmp_path / "run", {"s": {**PARTS, "qc": qc}, "t": PARTS}))
    assert sections["cells"]["data"] == {
        "s": {"passed": 800, "marked": 200, "removed": 0},
        "t": {"passed": 800, "marked": 0, "removed": 200},
    }


def test_a_sample_that_shares_all_genes_and_lies_near_is_still_seen_not_to_fit(tmp_path: Path) -> None:
    near = {"gene_overlap": 1.0, "reference_distance": {"share_beyond_99": 0.018}, "unassigned": 400}
    unfit = {**ANNOTATION, **near, "unassigned_by": {"novel": 340, "ambiguous": 60}}
    fits = {**unfit, "unassigned": 0, "unassigned_by": {}}
    # A model made by others says nothing of genes, and calls no cell novel.
    others = {**fits, "gene_overlap": None}
    samples = {
        name: {**PARTS, "annotation": one} for name, one in zip("abc", (unfit, fits, others), strict=True)
    }
    _, sections = summarise(write_run(tmp_path / "run", samples))
    fit = sections["fit"]
    assert [fit["data"][name].get("novel") for name in "abc"] == [42.5, 0, None]
    assert "novel" in fit["headers"]


def test_what_is_bad_is_drawn_on_a_scale_that_is_not_the_runs_own(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", {"a": {**PARTS, "verdicts": VERDICTS, "truth": TRUTH}})
    _, sections = summarise(run)
    scales = {}
    for name in ("general", "fit", "truth"):
        for column, header in sections[name]["headers"].items():
            if header["scale"] in ("OrRd", "Oranges", "RdYlGn"):
                scales[column] = header.get("minrange")
                # Whatever lies beyond one of these, MultiQC's violins do not show.
                assert "ceiling" not in header
                assert header.get("max") == (None if scales[column] else 100 if "suffix" in header else 1)
    assert {column: scale for column, scale in scales.items() if scale} == {
        "median_pct_mt": 20,
        "unassigned_share": 50,
        "far": 50,
        "novel": 50,
        "median_uncertainty": 0.5,
        "n_warnings": 20,
        "n_clusters_contradicted": 5,
        "truth_calibration_error": 0.3,
    }
    headers = sections["fit"]["headers"]
    counted = ("n_clusters", "n_clusters_named", "n_clusters_supported", "n_clusters_weak")
    assert len({headers[name].get("shared_key", name) for name in counted}) == 1


def test_a_model_without_distances_leaves_their_column_empty(tmp_path: Path) -> None:
    annotation = {**ANNOTATION, "reference_distance": None}
    rows, sections = summarise(write_run(tmp_path / "run", {"s": {**PARTS, "annotation": annotation}}))
    assert rows[0]["share_far_from_reference"] == ""
    assert "far" not in sections["fit"]["data"]["s"]


@pytest.mark.parametrize(("status", "shown"), [("called", "0"), ("fallback", "0"), ("skipped", "")])
def test_no_doublets_are_told_from_doublets_that_were_not_searched(
    tmp_path: Path, status: str, shown: str
) -> None:
    qc = {**QC, "doublets": {"status": status, "n": 0}}
    rows, _ = summarise(write_run(tmp_path / "run", {"s": {**PARTS, "qc": qc}}))
    assert rows[0]["n_doublets"] == shown


def test_cells_named_by_orthologues_say_between_which_organisms(tmp_path: Path) -> None:
    annotation = {**ANNOTATION, "orthologs": {"from": "mouse", "to": "human", "n_genes": 900}}
    rows, _ = summarise(write_run(tmp_path / "run", {"s": {**PARTS, "annotation": annotation}, "t": PARTS}))
    assert [row["orthologs"] for row in rows] == ["mouse to human", ""]


def test_the_commonest_label_is_not_said_to_be_that_of_most_cells(tmp_path: Path) -> None:
    _, sections = summarise(write_run(tmp_path / "run", {"s": PARTS}))
    headers = sections["general"]["headers"]
    assert headers["top_label"]["title"] == "Commonest label"
    shown = [name for name, header in headers.items() if not header.get("hidden")]
    assert shown[shown.index("top_label") + 1] == "top_label_share"


def test_the_cells_counted_are_not_said_to_be_all_that_the_input_holds(tmp_path: Path) -> None:
    _, sections = summarise(write_run(tmp_path / "run", {"s": PARTS}))
    found = sections["general"]["headers"]["n_cells_read"]
    assert found["title"] == "Cells found"
    # Empty droplets are gone before they are counted.
    assert "called cells" in found["description"]


def test_a_section_without_data_is_not_written(tmp_path: Path) -> None:
    quiet = {part: {**content, "warnings": []} for part, content in PARTS.items()}
    quiet["qc"]["removed_by"] = {}
    _, sections = summarise(write_run(tmp_path / "run", {"s": quiet}))
    assert {"failures", "warnings", "removed"}.isdisjoint(sections)
    assert "composition" in sections


@pytest.mark.parametrize(
    ("file", "text"),
    [("s.qc.json", "{"), ("s.qc.json", "[]"), ("samples.json", "{}"), ("samples.json", "[]")],
)
def test_a_damaged_file_is_named(tmp_path: Path, file: str, text: str) -> None:
    folder = write_run(tmp_path / "run", {"s": PARTS})
    (folder / file).write_text(text)
    with pytest.raises(InputError) as caught:
        run_summary(folder / "samples.json", folder, folder / "out")
    assert file in str(caught.value)
    assert not (folder / "out").exists()


def test_multiqc_draws_every_section_and_writes_one_page(tmp_path: Path, root: Path) -> None:
    multiqc = shutil.which("multiqc", path=str(Path(sys.executable).parent)) or shutil.which("multiqc")
    if multiqc is None:
        pytest.skip("multiqc is not installed")
    samples = {"b_1": PARTS, "c_1": {"convert": CONVERT, "qc": QC}}
    folder = write_run(tmp_path / "run", {"lung.counts": {**PARTS, "verdicts": VERDICTS}, **samples})
    _, sections = summarise(folder)
    config = shutil.copy(root / "assets" / "multiqc_config.yml", tmp_path)
    command = [multiqc, "--no-ansi", "--strict", "--config", config, "--outdir", "page", str(folder / "out")]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert [path.name for path in (tmp_path / "page").iterdir()] == ["multiqc_report.html"]
    page = (tmp_path / "page" / "multiqc_report.html").read_text()
    for section in sections.values():
        assert section.get("section_name", "General Statistics") in page
    # One contradicted cluster of five that fill the bar, though no sample of the run has more.
    contradicted = re.findall(r"<td[^>]*n_clusters_contradicted[^>]*>(.*?)</td>", page, re.DOTALL)
    # Once among the general statistics, once in the table of the fit.
    assert re.findall(r"width: *([\d.]+)%", "".join(contradicted)) == ["20.0", "20.0"]
    assert '<a href="../samples/c_1/c_1.report.html">' not in page, "c_1 has no page"
    assert '<a href="../samples/lung.counts/lung.counts.report.html">' in page
    # MultiQC would cut "lung.counts" to "lung" by itself.
    assert "lung.counts" in page
    assert "Many cells lie far from the reference." in page


def test_a_warning_of_many_samples_is_told_once_and_those_of_the_names_come_first(tmp_path: Path) -> None:
    names = [f"s{i}" for i in range(10)]
    parts = {"convert": CONVERT | {"warnings": ["odd <genes>"]}, "qc": QC | {"warnings": []}}
    parts |= {"annotation": ANNOTATION | {"warnings": []}}
    samples = {name: {**parts, "verdicts": VERDICTS | {"warnings": []}} for name in names}
    samples["s3"] = {**parts, "verdicts": VERDICTS | {"warnings": ["a wrong name"]}}
    _, sections = summarise(write_run(tmp_path / "run", samples))
    told = sections["warnings"]
    assert told["description"] == "11 in 10 of 10 samples."
    rows = re.findall("<tr>(.*?)</tr>", told["data"])[1:]
    assert [row.partition("</td>")[0] for row in rows] == ["<td>a wrong name", "<td>odd &lt;genes&gt;"]
    assert rows[1].count("<a href=") == 8 and rows[1].endswith("</a> and 2 more</td>")
    assert '<a href="../samples/s3/s3.report.html">s3</a>' in rows[0]
    assert sections["pages"]["data"].count("report.html") == 10
