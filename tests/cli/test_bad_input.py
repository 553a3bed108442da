"""Every case of bad or odd input: its exit code, its message, and nothing half-written (tests/bad_input)."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from bad_input.case import STEPS, Case, check
from bad_input.table import CASES, page

from cellscribe import clusters, h5ad_matrix, mtx
from cellscribe.errors import EXIT_CODES


@pytest.fixture(autouse=True)
def flat(monkeypatch: pytest.MonkeyPatch) -> None:
    """No UMAP, which other tests cover."""
    monkeypatch.setattr(clusters, "umap_layout", lambda embedding, *_, **__: clusters.flat_layout(embedding))


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.step}: {case.given}")
def test_bad_input_ends_with_its_code_and_message_and_odd_input_is_read(case: Case, tmp_path: Path) -> None:
    check(case, tmp_path)


@pytest.mark.parametrize(
    "case", [case for case in CASES if case.step == "CONVERT"], ids=lambda case: case.given
)
def test_the_same_comes_of_input_that_is_too_large_to_be_read_whole(
    case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (h5ad_matrix, mtx):
        monkeypatch.setattr(module, "IN_MEMORY", 0)
    check(case, tmp_path)


def test_no_two_cases_of_a_step_have_one_name() -> None:
    assert [name for name, n in Counter((case.step, case.given) for case in CASES).items() if n > 1] == []


def test_every_step_and_every_code_of_a_user_has_a_case() -> None:
    assert {case.step for case in CASES} == set(STEPS)
    assert {case.code for case in CASES} == set(EXIT_CODES) - {70}


def test_the_page_says_what_the_cases_say(root: Path) -> None:
    written = (root / "docs" / "bad_input.md").read_text()
    assert written == page(), (
        "write it again: PYTHONPATH=bin:tests python -m bad_input.table > docs/bad_input.md"
    )
