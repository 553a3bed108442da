"""What the documents say about exit codes, columns and keys is what the code does."""

from __future__ import annotations

import re
from pathlib import Path

import pandas as pd
import pytest

from cellscribe import differential, truth
from cellscribe.contract import REASONS, OutputNames
from cellscribe.convert import ConvertOptions, _obs
from cellscribe.errors import EXIT_CODES
from cellscribe.markers import MARKER_COLUMNS
from cellscribe.merge import composition_table
from cellscribe.report import METHODS
from cellscribe.run_samples import COLUMNS
from cellscribe.verdicts import RULE, VERDICT_COLUMNS, VERDICTS

NAMES = OutputNames.of()
PROPERTIES = [name for name, value in vars(OutputNames).items() if isinstance(value, property)]


def tables(text: str) -> list[list[list[str]]]:
    """Every Markdown table: its rows below the header, each a list of cells without backticks."""
    found = re.findall(r"^\|.*\|\n\|[-|]+\|\n((?:\|.*\|\n)+)", text, flags=re.MULTILINE)
    return [
        [[part.strip().replace("`", "") for part in line.strip("|").split("|")] for line in body.splitlines()]
        for body in found
    ]


def section(text: str, heading: str) -> str:
    """The text below a heading, up to the next one."""
    found = re.search(rf"^#+ {re.escape(heading)}\n(.*?)(?=^#|\Z)", text, flags=re.MULTILINE | re.DOTALL)
    assert found, f"there is no heading '{heading}'"
    return found[1]


@pytest.fixture(scope="module")
def errors(root: Path) -> str:
    return (root / "docs" / "errors.md").read_text()


@pytest.fixture(scope="module")
def outputs(root: Path) -> str:
    return (root / "docs" / "outputs.md").read_text()


def test_errors_lists_every_exit_code_with_its_meaning(errors: str) -> None:
    assert {int(row[0]): row[1] for row in tables(errors)[0]} == EXIT_CODES


def test_every_exit_code_but_0_has_a_section_that_says_what_to_do(errors: str) -> None:
    headings = dict(re.findall(r"^## (\d+): (.*)$", errors, flags=re.MULTILINE))
    assert {int(code): meaning for code, meaning in headings.items()} == {
        code: meaning for code, meaning in EXIT_CODES.items() if code
    }


def test_outputs_lists_every_key_of_the_contract_and_no_other(outputs: str) -> None:
    documented = [row[1] for row in tables(section(outputs, "S.annotated.h5ad"))[0]]
    level = [NAMES.level("<level>"), NAMES.level_uncertainty("<level>")]
    assert sorted(documented) == sorted([getattr(NAMES, name) for name in PROPERTIES] + level)


def test_outputs_tells_what_the_first_two_steps_leave_in_uns_and_var(outputs: str) -> None:
    below = section(outputs, "S.annotated.h5ad")
    for name in ("gene_ids", "gene_symbols", "cellscribe", "sample", "organism", "convert", "qc"):
        assert f"`{name}`" in below, name


def test_outputs_lists_every_reason_with_its_meaning(outputs: str) -> None:
    rows = {row[0]: row[1] for row in tables(section(outputs, "Reasons"))[0]}
    assert rows == {reason or "(empty)": meaning for reason, meaning in REASONS.items()}


def test_outputs_lists_the_columns_of_the_predictions_as_in_obs(outputs: str) -> None:
    documented = [row[0] for row in tables(section(outputs, "S.predictions.tsv.gz"))[0]]
    in_obs = [row[1] for row in tables(section(outputs, "S.annotated.h5ad"))[0] if row[0] == "obs"]
    short = {name.removeprefix(f"{NAMES.key}_") for name in in_obs} - {"predicted_uncertainty"}
    assert set(documented) == short | {
        "barcode",
        "uncertainty",
        "second_label",
        "second_probability",
        "label_set",
    }
    assert len(documented) == len(set(documented))


def test_outputs_lists_the_columns_of_differential_expression_and_markers_in_their_order(
    outputs: str,
) -> None:
    assert [row[0] for row in tables(section(outputs, "S.de.tsv.gz"))[0]] == list(differential.COLUMNS)
    assert [row[0] for row in tables(section(outputs, "S.markers.tsv"))[0]] == list(MARKER_COLUMNS)


def test_outputs_lists_the_columns_of_the_verdicts_and_states_the_rule_with_its_thresholds(
    outputs: str,
) -> None:
    below = section(outputs, "S.verdicts.tsv")
    assert [row[0] for row in tables(below)[0]] == list(VERDICT_COLUMNS)
    assert {row[0] for row in tables(below)[1]} == set(VERDICTS)
    assert RULE in " ".join(below.split())


def test_outputs_lists_the_columns_of_the_table_of_agreement_in_their_order(outputs: str) -> None:
    documented = [row[0] for row in tables(section(outputs, "S.truth.tsv"))[0]]
    assert documented == [*truth.COLUMNS, f"{truth.PREDICTED}<label>"]


def test_outputs_lists_the_columns_of_the_summary_in_their_order(outputs: str) -> None:
    assert [row[0] for row in tables(section(outputs, "summary.tsv"))[0]] == list(COLUMNS)


def test_outputs_lists_the_columns_of_the_composition_in_their_order(outputs: str) -> None:
    made = composition_table(pd.Series(["a"]), pd.Series(["B cell"]))
    assert [row[0] for row in tables(section(outputs, "composition.tsv"))[0]] == list(made)


def test_outputs_lists_the_columns_of_the_failures_in_their_order(outputs: str) -> None:
    documented = [row[0] for row in tables(section(outputs, "failures.tsv"))[0]]
    assert documented == ["sample", "step", "exit_code", "meaning", "message"]


def anchors(document: Path) -> set[str]:
    """The anchors of a document's headings, as GitHub makes them."""
    found: set[str] = set()
    for heading in re.findall(r"^#+ (.+)$", document.read_text(), re.MULTILINE):
        plain = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading).lower()
        anchor = re.sub(r"[^\w\- ]", "", plain).replace(" ", "-")
        found.add(anchor if anchor not in found else f"{anchor}-1")
    return found


def test_the_documents_link_only_to_what_exists(root: Path) -> None:
    documents = [
        root / "README.md",
        *sorted(root.glob("docs/*.md")),
        *sorted(root.glob("benchmarks/**/*.md")),
    ]
    assert len(documents) > 10
    wrong = []
    for document in documents:
        # Without code, in which brackets mean something else.
        text = re.sub(r"`[^`]*`|^    .*$", "", document.read_text(), flags=re.MULTILINE)
        for link, anchor in re.findall(r"\]\((?!https?:|mailto:)([^)#\s]*)(?:#([^)]*))?\)", text):
            target = (document.parent / link).resolve() if link else document
            if not target.exists() or (anchor and anchor not in anchors(target)):
                wrong.append(f"{document.relative_to(root)}: {link}#{anchor}")
    assert wrong == []


def test_models_names_the_column_that_an_inputs_own_batch_is_kept_as(root: Path) -> None:
    given = pd.DataFrame({"batch": ["a", "b"]}, index=["AAC-1", "AAG-1"])
    options = ConvertOptions("s1", Path("in.h5ad"), Path("out.h5ad"), Path("out.json"))
    kept = [name for name, column in _obs(given, options, [], []).items() if list(column) == ["a", "b"]]
    retraining = section((root / "docs" / "models.md").read_text(), "Labels edited in CELLxGENE Explorer")
    assert f"`--batch_key {kept[0]}`" in retraining


def test_what_to_cite_is_what_the_page_says(root: Path) -> None:
    cited = tables(section((root / "docs" / "models.md").read_text(), "Cite"))[0]
    assert [(row[0], row[1]) for row in cited] == [(name, reference) for name, reference, _ in METHODS]


def test_the_software_is_cited_in_the_version_that_it_has(root: Path) -> None:
    cited, project = (root / name for name in ("CITATION.cff", "pyproject.toml"))
    assert re.findall(r"^version: (.+)$", cited.read_text(), re.M) == re.findall(
        r'^version = "(.+)"$', project.read_text().split("[tool")[0], re.M
    )


def test_every_file_of_the_library_has_its_place_in_the_architecture():
    root = Path(__file__).resolve().parents[2]
    text = (root / "docs" / "architecture.md").read_text()
    table = text[text.index("## Where a change goes") : text.index("## Steps and the files")]
    library = root / "bin" / "cellscribe"
    for file in library.rglob("*.py"):
        inside = file.relative_to(library)
        named = inside.name == "__init__.py" or inside.parts[0] == "importing" or inside.name in table
        assert named or inside.name.startswith("report_"), inside
