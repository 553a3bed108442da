"""The model card."""

import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from small_model import small_model

from cellscribe.io import read_json
from cellscribe.model.manifest import read_manifest
from cellscribe.training.card import certainty_rows, write_card
from cellscribe.training.evaluate import Evaluation, evaluate

HOSTILE = ["<script>alert(1)</script>", "a | b", "$\\frac{1}{0$ and $", "x\n# heading", "[y](javascript:1)"]


@pytest.fixture(scope="module")
def model():
    return small_model("consensus")


@pytest.fixture(scope="module")
def hostile(tmp_path_factory, model):
    """A card whose labels and texts are all hostile."""
    folder = tmp_path_factory.mktemp("card")
    rng = np.random.default_rng(0)
    codes = np.arange(50) % 5
    evaluation = evaluate(
        {"consensus": rng.dirichlet(np.ones(5), 50)},
        codes,
        np.array(list("ab") * 25),
        np.zeros(50, bool),
        HOSTILE,
        "consensus",
        [],
    )
    fields = {
        **read_manifest(model),
        "labels": [
            {"label": label, "cl_id": "", "cl_name": "<b>", "n_cells": 10, "n_batches": 1}
            for label in HOSTILE
        ],
        "does_not_know": ["<img src=x onerror=alert(1)> (2 cells: too few to learn)"],
        "description": "<script>alert(2)</script>",
        "licence": "<i>",
        "citation": "<i>",
        "label_key": "`<i>`",
    }
    write_card(folder, fields, evaluation)
    return folder


def numbers(row: dict) -> list[str]:
    return [f"{row[key]:.3f}" for key in ("accuracy", "macro_f1", "ece", "log_loss")]


def table_rows(html: str) -> list[list[str]]:
    rows = re.findall(r"<tr>(.*?)</tr>", html, flags=re.S)
    return [re.findall(r"<td[^>]*>(.*?)</td>", row, flags=re.S) for row in rows]


def test_both_cards_have_the_numbers_of_evaluation_json(model):
    said = read_json(model / "evaluation.json")
    markdown, html = (model / "card.md").read_text(), (model / "card.html").read_text()
    wanted = [said["headline"], said["altered"], *said["classifiers"].values()]
    in_html = [row[1:] for row in table_rows(html)]
    for row in wanted:
        assert f"| {' | '.join(numbers(row))} |" in markdown
        assert numbers(row) in in_html


def test_both_cards_tell_how_many_cells_are_how_certain_and_how_many_of_these_right(model):
    probabilities = np.array([[0.95, 0.05], [0.97, 0.03], [0.7, 0.3], [0.45, 0.55]])
    codes = np.array([0, 0, 1, 1])
    measured = evaluate({"one": probabilities}, codes, np.arange(4), np.zeros(4, bool), ["a", "b"], "one", [])
    again = Evaluation.from_dict(json.loads(json.dumps(measured.as_dict())))
    assert [list(row.values()) for row in again.certain()] == [
        [0.6, 0.75, pytest.approx(2 / 3, abs=1e-3)],
        [0.8, 0.5, 1.0],
        [14 / 15, 0.5, 1.0],
    ]
    evaluation = Evaluation.from_dict(read_json(model / "evaluation.json"))
    for row in certainty_rows(evaluation):
        assert f"| {' | '.join(row)} |" in (model / "card.md").read_text()
        assert list(row) in table_rows((model / "card.html").read_text())


def test_each_label_has_its_cells_of_the_reference_and_its_scores(model):
    manifest, said = read_manifest(model), read_json(model / "evaluation.json")
    markdown, in_html = (model / "card.md").read_text(), table_rows((model / "card.html").read_text())
    scores = {row["label"]: row for row in said["per_label"]}
    for label in manifest["labels"]:
        score = scores[label["label"]]
        shown = [f"{score[key]:.2f}" for key in ("precision", "recall", "f1")]
        head = [label["label"], f"{label['cl_id']} {label['cl_name']}", str(label["n_cells"]), "3"]
        assert f"| {' | '.join([*head, *shown])} |" in markdown
        assert [*head, *shown] in in_html


def test_the_page_is_self_contained_and_its_figures_are_png(model):
    html = (model / "card.html").read_text()
    assert html.count('src="data:image/png;base64,iVBORw0KGgo') == 2
    assert not re.search(r'(src|href)="(?!data:)', html)
    assert "<script" not in html


class Tags(HTMLParser):
    def __init__(self):
        super().__init__()
        self.seen, self.attributes = set(), set()

    def handle_starttag(self, tag, attrs):
        self.seen.add(tag)
        self.attributes |= {name for name, _ in attrs}


def test_hostile_names_add_no_tag_and_no_handler_to_the_page(hostile, model):
    usual, ours = Tags(), Tags()
    usual.feed((model / "card.html").read_text())
    ours.feed((hostile / "card.html").read_text())
    assert ours.seen <= usual.seen | {"ul", "li"} and "script" not in ours.seen
    assert not [name for name in ours.attributes if name.startswith("on")]
    assert "&lt;script&gt;alert(1)" in (hostile / "card.html").read_text()


def test_hostile_names_stay_one_cell_of_the_markdown_tables(hostile):
    text = (hostile / "card.md").read_text()
    assert not re.search(r"<[a-z/]", text)
    rows = [line for line in text.splitlines() if line.startswith("| ") and "&lt;b>" in line]
    assert len(rows) == len(HOSTILE)
    assert all(len(re.findall(r"(?<!\\)\|", row)) == 8 for row in rows)
    assert "\n# heading" not in text
    assert "[y](" not in text.replace("\\[y\\](", "")


def test_labels_of_one_batch_and_labels_left_out_are_named_as_not_known(hostile):
    text = (hostile / "card.md").read_text()
    assert "these labels come from one batch only" in text
    assert "too few to learn" in text.split("## What it does not know")[1]
    assert json.dumps("too few to learn")[1:-1] in (hostile / "card.html").read_text()


def test_a_line_parts_every_list_of_the_markdown_from_what_is_above(tmp_path, model):
    fields = read_manifest(model)
    fields["training"]["warnings"] = ["<b>mind this</b>", "and this"]
    evaluation = Evaluation.from_dict(read_json(model / "evaluation.json"))
    for tested in (evaluation, None):
        write_card(tmp_path, fields, tested)
        lines = (tmp_path / "card.md").read_text().splitlines()
        starts = [i for i, line in enumerate(lines) if line[:2] in ("- ", "| ")]
        assert all(lines[i - 1][:2] in ("", lines[i][:2], "|-") for i in starts)
        assert lines[lines.index("- Warning: and this") + 1] == ""


def test_one_label_of_one_batch_is_told_of_as_one(tmp_path, model):
    fields = read_manifest(model)
    fields["labels"][0]["n_batches"] = 1
    fields["training"]["n_unlabelled"] = 1
    write_card(tmp_path, fields, None)
    text = (tmp_path / "card.md").read_text()
    assert "on new donors: this label comes from one batch only." in text
    assert "(1 further cell has none that is learned)" in text
