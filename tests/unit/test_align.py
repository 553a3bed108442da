"""Fitting a query's genes to a model's."""

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

from cellscribe import genes, symbols
from cellscribe.align import GeneMatch, check_overlap, looks_like, match_genes, without_version
from cellscribe.errors import InputError, ModelMismatchError

IDS = [f"ENSG{i:011d}" for i in range(1, 11)]
SYMBOLS = [f"SYM{i}" for i in range(1, 11)]
MODEL = pd.DataFrame({"gene_id": IDS, "symbol": SYMBOLS})


def var(ids=IDS, symbols=SYMBOLS) -> pd.DataFrame:
    return pd.DataFrame({"gene_ids": ids, "gene_symbols": symbols}, index=symbols)


def naive(counts: np.ndarray, names: list[str], wanted: list[str]) -> np.ndarray:
    """Each model gene's counts, one gene and cell at a time."""
    result = np.zeros((len(counts), len(wanted)))
    for cell in range(len(counts)):
        for gene, name in enumerate(names):
            if name in wanted:
                result[cell, wanted.index(name)] += counts[cell, gene]
    return result


def test_selector_gives_the_counts_that_a_plain_loop_gives():
    rng = np.random.default_rng(0)
    names = [*rng.permutation(IDS[:8]), "ENSG00000099999", IDS[2], "", ""]
    counts = rng.poisson(2.0, (7, len(names)))
    match = match_genes(var(names, [f"other{i}" for i in range(len(names))]), MODEL)
    got = (sp.csr_matrix(counts) @ match.selector).toarray()
    np.testing.assert_array_equal(got, naive(counts, names, IDS))
    assert match.n_duplicates == 1
    assert match.found.tolist() == [True] * 8 + [False] * 2
    assert match.overlap == pytest.approx(0.8)


def test_ids_are_used_where_they_find_more_than_symbols():
    match = match_genes(var(symbols=[*SYMBOLS[:3], *"abcdefg"]), MODEL)
    assert match.matched_by == "gene_ids"
    assert match.overlap == 1


def test_symbols_are_used_where_they_find_more_than_ids():
    match = match_genes(var(ids=[*IDS[:3], *[""] * 7]), MODEL)
    assert match.matched_by == "gene_symbols"
    assert match.overlap == 1


def test_ids_in_the_index_are_found_without_any_column():
    match = match_genes(pd.DataFrame(index=IDS), MODEL)
    assert match.overlap == 1
    assert match.matched_by == "gene ids in the index"


def test_other_names_fill_in_what_the_best_names_leave_unfound():
    match = match_genes(var(ids=[*IDS[:7], "", "", ""], symbols=["", *"abcdef", *SYMBOLS[7:]]), MODEL)
    assert match.matched_by == "gene_ids"
    assert match.found.all()
    assert match.n_duplicates == 0


def test_a_gene_found_by_its_id_is_not_counted_again_by_another_row_of_its_symbol():
    query = var(ids=[*IDS, "ENSG00000099999"], symbols=[*SYMBOLS, SYMBOLS[0]])
    match = match_genes(query, MODEL)
    assert match.matched_by == "gene_ids"
    assert match.selector[10].nnz == 0


def test_versions_of_ensembl_ids_are_taken_off_and_other_dots_are_kept():
    names = pd.Series(["ENSG00000000003.15", "ENSMUSG00000000001.4", "RP11-34P13.7", "ENSG00000000003"])
    assert without_version(names).tolist() == [
        "ENSG00000000003",
        "ENSMUSG00000000001",
        "RP11-34P13.7",
        "ENSG00000000003",
    ]
    assert match_genes(pd.DataFrame(index=[f"{name}.3" for name in IDS]), MODEL).overlap == 1


def test_rows_of_the_same_gene_are_summed():
    match = match_genes(pd.DataFrame(index=[SYMBOLS[0], SYMBOLS[0], SYMBOLS[1]]), MODEL)
    got = (sp.csr_matrix([[1, 2, 4]]) @ match.selector).toarray()[0]
    assert got[:2].tolist() == [3, 4]


def test_the_order_of_a_querys_genes_does_not_matter():
    rng = np.random.default_rng(1)
    counts, order = sp.csr_matrix(rng.poisson(1.0, (5, 10))), rng.permutation(10)
    straight = counts @ match_genes(var(), MODEL).selector
    shuffled = counts[:, order] @ match_genes(var().iloc[order], MODEL).selector
    assert abs(straight - shuffled).max() == 0


def test_only_the_named_column_is_used():
    query = var().assign(mine=[*SYMBOLS[:4], *"abcdef"])
    match = match_genes(query, MODEL, "mine")
    assert (match.matched_by, match.overlap) == ("mine", 0.4)
    assert match_genes(query, MODEL, "index").overlap == 1


def test_a_missing_column_is_an_error_that_lists_the_columns():
    with pytest.raises(InputError, match="no var column 'mine'; there are: gene_ids, gene_symbols"):
        match_genes(var(), MODEL, "mine")


def test_a_model_without_ids_is_matched_by_symbols():
    match = match_genes(var(ids=[""] * 10), MODEL.assign(gene_id=""))
    assert match.overlap == 1


HYPHENS = pd.DataFrame({"gene_id": IDS[:4], "symbol": ["HLA-DRA", "HLA-A", "NKX2-5", "CD3E"]})


@pytest.mark.parametrize("fill_in", [True, False])
def test_symbols_whose_hyphens_r_made_dots_are_found(fill_in):
    match = match_genes(
        pd.DataFrame(index=["CD3E", "HLA.A", "x", "NKX2.5", "HLA.DRA"]), HYPHENS, fill_in=fill_in
    )
    assert match.selector.toarray().tolist() == [
        [0, 0, 0, 1],
        [0, 1, 0, 0],
        [0, 0, 0, 0],
        [0, 0, 1, 0],
        [1, 0, 0, 0],
    ]
    assert (match.overlap, match.n_duplicates, match.n_respelled) == (1, 0, 3)


def test_a_dot_is_no_hyphen_where_that_would_make_two_genes_one():
    both = match_genes(pd.DataFrame(index=["CD3E", "HLA-A", "HLA.A"]), HYPHENS)
    assert both.selector[2].nnz == 0
    # Of the model, two genes are written alike with dots.
    alike = pd.DataFrame({"gene_id": IDS[:3], "symbol": ["A-B-C", "A-B.C", "CD3E"]})
    assert match_genes(pd.DataFrame(index=["CD3E", "A.B.C"]), alike).found.tolist() == [False, False, True]


def test_a_symbol_of_today_finds_the_gene_of_a_model_with_an_older_one():
    ids = ["ENSG00000132465", "ENSG00000205336", "ENSG00000124575", "ENSG00000198851"]
    model = pd.DataFrame({"gene_id": ids, "symbol": ["IGJ", "GPR56", "HIST1H1D", "CD3E"]})
    match = match_genes(pd.DataFrame(index=["CD3E", "JCHAIN", "ADGRG1", "H1.3"]), model)
    assert match.selector.nonzero()[1].tolist() == [3, 0, 1, 2]
    assert match.n_respelled == 3
    older = match_genes(pd.DataFrame(index=["CD3E", "JCHAIN", "IGJ"]), model)
    assert older.selector[1].nnz == 0 and older.selector[2].nonzero()[1].tolist() == [0]
    # What is another gene of the model is that gene.
    other = model.assign(symbol=["IGJ", "JCHAIN", "x", "CD3E"])
    assert match_genes(pd.DataFrame(index=["CD3E", "JCHAIN"]), other).selector[1].nonzero()[1].tolist() == [1]


@pytest.mark.parametrize("has_ids", [True, False])
def test_a_symbol_of_another_year_finds_a_gene_without_one_orthologue(has_ids):
    ids = ["ENSG00000169429", "ENSG00000160593", "ENSG00000145416", "ENSG00000198851"]
    years = {"older": ["IL8", "AMICA1", "MARCH1", "CD3E"], "newer": ["CXCL8", "JAML", "MARCHF1", "CD3E"]}
    for model_has, query_has in [("older", "newer"), ("newer", "older")]:
        model = pd.DataFrame({"gene_id": ids if has_ids else "", "symbol": years[model_has]})
        match = match_genes(pd.DataFrame(index=[*reversed(years[query_has]), "x"]), model)
        assert match.selector.toarray()[:4].tolist() == np.eye(4)[::-1].tolist()
        assert match.matched_by == "index"


def test_of_two_symbols_of_a_gene_the_one_of_today_is_it():
    model = pd.DataFrame({"gene_id": ["ENSMUSG00000004730", ""], "symbol": ["Ly71", "Cd3e"]})
    match = match_genes(pd.DataFrame(index=["Emr1", "Adgre1", "Cd3e"]), model)
    assert match.selector.toarray().tolist() == [[0, 0], [1, 0], [0, 1]]
    # Both of other years alone: the model's own is neither.
    older = match_genes(pd.DataFrame(index=["Emr1", "Cd3e"]), model)
    assert older.found.all()


def test_a_gene_that_an_id_names_is_not_looked_for_by_what_its_symbol_once_was():
    # C2orf48 was joined with RRM2 later: by its own id it is another gene.
    model = pd.DataFrame({"gene_id": ["ENSG00000163009", IDS[0]], "symbol": ["C2orf48", "CD3E"]})
    assert match_genes(pd.DataFrame(index=["RRM2", "CD3E"]), model).found.tolist() == [False, True]


def test_ids_are_not_asked_what_they_are_called_today(monkeypatch):
    monkeypatch.setattr(symbols, "other_symbols", lambda *_: pytest.fail("the tables were read"))
    assert match_genes(var(ids=[*IDS[:9], ""], symbols=[*SYMBOLS[:9], "x"]), MODEL).overlap == 0.9


@pytest.mark.parametrize("table", ["ORTHOLOGS", "SYMBOLS"])
def test_without_the_tables_no_gene_has_a_symbol_of_another_year(monkeypatch, tmp_path, table):
    monkeypatch.setattr(genes, table, tmp_path / "none.tsv.gz")
    model = pd.DataFrame({"gene_id": ["ENSG00000169429", ""], "symbol": ["CXCL8", "CD3E"]})
    assert match_genes(pd.DataFrame(index=["IL8", "CD3E"]), model).found.tolist() == [False, True]


@pytest.mark.parametrize("name", ["{id}_{symbol}", "{symbol}|{id}.4"])
def test_ids_are_cut_out_of_the_names_of_a_named_column(name):
    names = [name.format(id=i, symbol=symbol) for i, symbol in zip(IDS, SYMBOLS, strict=True)]
    query = pd.DataFrame({"mine": names}, index=[f"x{i}" for i in range(10)])
    assert match_genes(query, MODEL, "mine").overlap == 1


def gate(n_found: int, n: int = 1000, **bounds: float) -> list[str]:
    match = GeneMatch(sp.csr_matrix((1, n)), np.arange(n) < n_found, "gene_ids")
    return check_overlap(
        match, pd.Series(["Cd3e", "Ms4a1", "Nkg7"]), model="pbmc 1.0", organism="human", **bounds
    )


def test_overlap_is_gated_at_half_and_at_four_fifths_of_the_genes():
    assert gate(800) == []
    (warning,) = gate(799)
    assert "799 of the model's 1,000 genes" in warning and "79.9%" in warning
    assert gate(500)
    with pytest.raises(ModelMismatchError) as caught:
        gate(499)
    assert "'pbmc 1.0' (human): 499 of the model's 1,000 genes are in the data (49.9%)" in str(caught.value)
    assert "at least 50% are needed" in str(caught.value)
    assert "mouse symbols (Cd3e, Ms4a1, Nkg7)" in str(caught.value)


def test_the_gates_can_be_moved():
    assert gate(300, minimum=0.3, warn_below=0.3) == []
    with pytest.raises(ModelMismatchError, match="at least 90%"):
        gate(899, minimum=0.9)


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["ENSMUSG00000000001"], "mouse Ensembl ids"),
        (["ENSG00000000003"], "human Ensembl ids"),
        (["CD3E", "MS4A1", "HLA-DRA"], "human symbols"),
        (["1", "2", "3"], "numbers"),
    ],
)
def test_names_are_described_in_words(names, expected):
    assert looks_like(pd.Series(names)).startswith(expected)


def test_counts_on_the_models_genes_are_those_of_the_selector():
    rng = np.random.default_rng(0)
    counts = sp.random(40, 30, density=0.3, random_state=0, format="csr", dtype=np.float32)
    counts.data = rng.integers(1, 9, len(counts.data)).astype(np.float32)
    genes = pd.DataFrame({"gene_id": [""] * 9, "symbol": [f"G{i}" for i in (3, 29, 7, 7, 0, 99, 12, 28, 5)]})
    names = [f"G{i}" for i in range(30)]
    twice = [*names[:29], "G3"]  # two of the query's genes name one of the model's: they are summed
    for index in (names, twice):
        match = match_genes(pd.DataFrame(index=index), genes)
        got = match.on_model(counts)
        assert got.format == "csr" and got.shape == (40, 9)
        np.testing.assert_array_equal(got.toarray(), (counts @ match.selector).toarray())
        assert match.on_model(counts[:0]).shape == (0, 9)
        others = ~match.selector.toarray().any(axis=1) & (np.arange(30) % 2 == 0)
        on_model, sums = match.split(counts, others)
        assert (on_model != got).nnz == 0
        np.testing.assert_array_equal(sums, counts.toarray()[:, others].sum(axis=1))
