"""Names of strangers through every script block, page and table of a real run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import anndata
import pytest
from hostile_names import LABELS, SPRUNG, Page, formulas, hostile_cells, hostile_model
from nextflow_runner import Launch, Run
from small_model import write_reference

FILE = "=1+1 (a) & b, @SUM %20 \u202e\u00e9~.h5ad".replace("&", "and")


@dataclass
class Hostile:
    """One sample of hostile names, named by a model of hostile labels, in a folder with spaces and quotes."""

    launch: Launch
    run: Run


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Hostile:
    folder = tmp_path_factory.mktemp("run") / 'it\'s a "launch" folder'
    (folder / "my samples").mkdir(parents=True)
    hostile_model(folder / "a model")
    write_reference(hostile_cells(90, seed=1), folder / "my samples" / FILE)
    (folder / "my samples" / "sheet.csv").write_text(f'sample,path,truth_key\none,"{FILE}",known\n')
    launch = Launch(folder)
    given = ["--doublets", "off", "--n_mads", "0", "--n_mads_mt", "0"]
    return Hostile(launch, launch.run("--input", "my samples/sheet.csv", "--model", "./a model", *given))


def test_the_run_ends_well_and_nothing_that_a_name_asked_for_was_done(hostile: Hostile) -> None:
    assert hostile.run.returncode == 0, hostile.run.output
    assert list(hostile.launch.folder.rglob(f"*{SPRUNG}*")) == []


def test_names_are_in_the_cells_as_they_came(hostile: Hostile) -> None:
    given = anndata.read_h5ad(hostile.launch.folder / "my samples" / FILE)
    written = anndata.read_h5ad(hostile.run.results / "samples/one/one.annotated.h5ad")
    assert list(written.obs_names) == list(given.obs_names)
    assert list(written.var["gene_symbols"]) == [name.strip() for name in given.var_names]
    assert set(written.obs["cxg_cell_type_predicted"]) <= set(LABELS.values())
    assert {"=1+1", "<planted>", "$(touch sprung)"} <= set(written.obs)


@pytest.mark.parametrize("page", ["samples/one/one.report.html", "summary/multiqc_report.html"])
def test_no_page_holds_an_element_or_an_attribute_that_came_from_a_name(hostile: Hostile, page: str) -> None:
    read = Page(hostile.run.results / page)
    assert read.faults() == []
    # The names are there, as text that no template was made of; MultiQC packs what it was given.
    assert "multiqc" in page or ("planted" in read.text and "{{ 7 * 191 }}" in read.text)


def test_no_table_holds_a_formula(hostile: Hostile) -> None:
    results = hostile.run.results
    tables = [
        path
        for folder in ("samples", "summary")
        for path in (results / folder).rglob("*.tsv*")
        if path.is_file()
    ]
    assert len(tables) >= 7
    assert {path.name: found for path in tables if (found := formulas(path))} == {}
    assert any("'=" in path.read_text() for path in tables if path.suffix == ".tsv")


def test_a_sheet_whose_own_name_is_a_command_is_refused_and_never_run(tmp_path: Path) -> None:
    launch = Launch(tmp_path)
    name = "a;touch${IFS}sprung;.csv"
    launch.write(name, "sample,path\na,a.h5ad\n")
    done = launch.run("--input", name, "--catalogue", "b;touch${IFS}sprung;.csv")
    assert done.returncode != 0
    assert "a character that shells give a meaning" in done.output
    assert [path for path in tmp_path.rglob("*") if path.name == SPRUNG] == []
