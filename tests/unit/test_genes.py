from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from cellscribe.errors import InputError
from cellscribe.genes import (
    as_text,
    check_organism,
    column_text,
    detect_organism,
    ensembl_ids,
    gene_set_masks,
    identify_genes,
    organism_of_each,
    qc_gene_sets,
    read_organism,
    strip_genome_prefix,
)


def text(*values: str) -> np.ndarray:
    return np.array(values, dtype=object)


def var(index: list[str], **columns: list[str]) -> pd.DataFrame:
    return pd.DataFrame(columns, index=pd.Index(index, dtype=object))


HUMAN = ["CD3E", "MS4A1", "LYZ", "NKG7", "MT-CO1", "RPL10"]
# Of no gene, so that no table has a symbol for them.
HUMAN_IDS = [f"ENSG0999999999{i}" for i in range(6)]


def test_ensembl_versions_are_stripped_and_other_names_are_no_ids():
    found = ensembl_ids(
        text("ENSG00000198938.2", "ENSMUSG00000051951", "CD3E", "ENSG00000182378.15_PAR_Y", "")
    )
    assert list(found) == ["ENSG00000198938", "ENSMUSG00000051951", "", "ENSG00000182378_PAR_Y", ""]


@pytest.mark.parametrize("column", ["gene_ids", "feature_id", "my_own_column"])
def test_ids_are_found_in_any_column_while_the_index_holds_symbols(column):
    genes, _ = identify_genes(var(HUMAN, **{column: [f"{i}.7" for i in HUMAN_IDS]}))
    assert list(genes.gene_ids) == HUMAN_IDS
    assert list(genes.gene_symbols) == HUMAN == list(genes.names)
    assert any(column in note for note in genes.notes)


@pytest.mark.parametrize("column", ["feature_name", "gene_symbols"])
def test_symbols_are_found_beside_an_index_of_ids(column):
    genes, _ = identify_genes(var(HUMAN_IDS, **{column: HUMAN}))
    assert list(genes.names) == HUMAN
    assert list(genes.gene_ids) == HUMAN_IDS


def test_symbols_in_a_categorical_column_are_found():
    frame = var(HUMAN_IDS)
    frame["feature_name"] = pd.Categorical(HUMAN)
    assert list(identify_genes(frame)[0].names) == HUMAN


def test_ids_alone_become_the_names():
    genes, _ = identify_genes(var(HUMAN_IDS))
    assert list(genes.names) == HUMAN_IDS
    assert set(genes.gene_symbols) == {""}


@pytest.mark.parametrize("written", ["{}", "{}.3", "gene:{}"])
def test_ids_alone_get_todays_symbols(written):
    ids = ["ENSG00000169429", "ENSG00000198851", "ENSG09999999999"]
    genes, _ = identify_genes(var([written.format(i) for i in ids]))
    assert list(genes.gene_ids) == ids
    assert list(genes.gene_symbols) == ["CXCL8", "CD3E", ""]
    assert list(genes.names) == ["CXCL8", "CD3E", ids[2]]
    assert any("looked up by the ids (2 of 3 found)" in note for note in genes.notes)


def test_symbols_of_the_input_are_kept_where_it_has_any():
    genes, _ = identify_genes(
        var(["ENSG00000169429", "ENSG00000198851", "ENSG00000090382"], symbol=["IL8", "", "LYZ"])
    )
    assert list(genes.gene_symbols) == ["IL8", "", "LYZ"]


def test_without_the_tables_ids_have_no_symbols(monkeypatch, tmp_path):
    monkeypatch.setattr("cellscribe.genes.SYMBOLS", tmp_path / "none.tsv.gz")
    genes, _ = identify_genes(var(["ENSG00000169429"]))
    assert list(genes.names) == ["ENSG00000169429"]


def test_the_named_column_wins_over_the_index():
    genes, _ = identify_genes(var([f"x{i}" for i in range(6)], mine=HUMAN), gene_column="mine")
    assert list(genes.names) == HUMAN


def test_a_missing_gene_column_is_an_error_that_lists_the_columns():
    with pytest.raises(InputError, match="no column 'symbool'; there are: index, feature_name"):
        identify_genes(var(HUMAN_IDS, feature_name=HUMAN), gene_column="symbool")


def test_a_numbered_index_gives_way_to_a_column_of_symbols():
    genes, _ = identify_genes(var([str(i) for i in range(6)], gene_name=HUMAN))
    assert list(genes.names) == HUMAN


def test_duplicate_symbols_get_their_id_and_stay_unique():
    genes, _ = identify_genes(var(["A1", "A1", "B2", "B2"], gene_ids=[*HUMAN_IDS[:2], "", ""]))
    assert list(genes.names) == [f"A1_{HUMAN_IDS[0]}", f"A1_{HUMAN_IDS[1]}", "B2", "B2-1"]
    assert list(genes.gene_symbols) == ["A1", "A1", "B2", "B2"]


@pytest.mark.parametrize("prefix", ["GRCh38_", "hg19_", "GRCh38______", "mm10___"])
def test_genome_prefixes_are_taken_off(prefix):
    stripped, genome = strip_genome_prefix(text(*(prefix + name for name in HUMAN)), [])
    assert list(stripped) == HUMAN
    assert genome == prefix.rstrip("_")


def test_a_prefix_that_few_genes_carry_stays():
    names = text("hg19_CD3E", *HUMAN)
    assert strip_genome_prefix(names, ["hg19"])[1] == ""


def test_a_genome_the_file_names_is_a_prefix_even_if_unknown_to_us():
    stripped, genome = strip_genome_prefix(text("my.ref_CD3E", "my.ref_LYZ"), ["my.ref"])
    assert (list(stripped), genome) == (["CD3E", "LYZ"], "my.ref")


def test_prefixed_ids_are_recognised():
    genes, prefix = identify_genes(
        var([f"hg19_{n}" for n in HUMAN], gene_ids=[f"hg19_{i}" for i in HUMAN_IDS])
    )
    assert (prefix, list(genes.gene_ids), list(genes.names)) == ("hg19", HUMAN_IDS, HUMAN)


@pytest.mark.parametrize(
    ("ids", "symbols", "organism"),
    [
        (HUMAN_IDS, [""] * 6, "human"),
        (["ENSMUSG00000051951"] * 3, ["CD3E"] * 3, "mouse"),
        (["ENSDARG00000051951"] * 3, ["cd3e"] * 3, "other"),
        (["ENSMMUG00000051951"] * 6, HUMAN, "other"),
        ([""] * 6, HUMAN, "human"),
        ([""] * 5, ["Cd3e", "Ms4a1", "Lyz2", "mt-Co1", "Rpl10"], "mouse"),
        ([""] * 3, ["cd3e", "ms4a1", "lyz"], "unknown"),
        ([""] * 3, ["", "1", "2"], "unknown"),
        (["ENSG00000000001", "ENSMUSG00000000001"], ["A1", "A1"], "mixed"),
        (["ENSG00000000001"] * 19 + ["ENSMUSG00000000001"], ["A1"] * 20, "human"),
        ([""] * 40, [*(f"RPL{i}" for i in range(4, 24)), *(f"Rpl{i}" for i in range(4, 24))], "mixed"),
        # Two kinds of writing alone are no two organisms.
        ([""] * 4, ["CD3E", "MS4A1", "Gfp", "Tomato"], "human"),
    ],
)
def test_the_organism_is_told_by_ids_then_by_symbols(ids, symbols, organism):
    assert detect_organism(text(*ids), text(*symbols))[0] == organism


def test_a_wrong_organism_is_refused_with_what_was_seen():
    with pytest.raises(InputError, match=r"given as mouse, but the data look like human: .*CD3E"):
        check_organism("mouse", text(*[""] * 6), text(*HUMAN))


@pytest.mark.parametrize("asked", ["auto", "human", "mouse"])
@pytest.mark.parametrize(
    ("prefix", "species"),
    [("ENSMMUG", "rhesus macaque"), ("ENSRNOG", "rat"), ("ENSXYZG", "another species")],
)
def test_ids_of_another_species_are_refused_whatever_its_symbols_look_like(asked, prefix, species):
    ids = text(*(f"{prefix}0000000000{i}" for i in range(5)), "")
    seen = (
        rf"neither human nor mouse: .* begin with {prefix} \({prefix}00000000000\), as those of {species} do"
    )
    with pytest.raises(InputError, match=seen) as caught:
        check_organism(asked, ids, text(*HUMAN))
    assert "one-to-one orthologues" in caught.value.todo and "gene_column" in caught.value.todo


def test_ids_of_orthologues_in_a_named_column_go_before_the_species_own():
    own = [f"ENSMMUG0000000000{i}" for i in range(6)]
    frame = var(own, human=[*HUMAN_IDS[:4], "", ""], feature_name=HUMAN)
    genes, _ = identify_genes(frame, gene_column="human")
    assert list(genes.gene_ids) == [*HUMAN_IDS[:4], "", ""]
    assert check_organism("auto", genes.gene_ids, genes.gene_symbols)[0] == "human"


def test_symbols_that_the_user_names_go_before_another_species_ids():
    own = [f"ENSMMUG0000000000{i}" for i in range(6)]
    genes, _ = identify_genes(var(own, human=HUMAN), gene_column="human")
    assert set(genes.gene_ids) == {""} and list(genes.gene_symbols) == list(HUMAN)
    assert check_organism("human", genes.gene_ids, genes.gene_symbols)[0] == "human"


COMBINED = [
    "{id}_{symbol}",
    "{id}.12_{symbol}",
    "{symbol}_{id}",
    "{symbol}_{id}.3",
    "{symbol}|{id}",
    "{id}|{symbol}",
    "{symbol}-{id}",
    "GRCh38_{symbol}_{id}",
]


@pytest.mark.parametrize("name", COMBINED)
@pytest.mark.parametrize("column", ["index", "gene_name"])
def test_names_of_an_id_and_a_symbol_are_parted(name, column):
    symbols = ["RP11-34P13.7", "7SK", *HUMAN[2:]]
    names = [name.format(id=i, symbol=symbol) for i, symbol in zip(HUMAN_IDS, symbols, strict=True)]
    frame = var(names) if column == "index" else var(list("012345"), gene_name=names)
    genes, _ = identify_genes(frame)
    assert list(genes.gene_ids) == HUMAN_IDS
    assert list(genes.gene_symbols) == symbols == list(genes.names)
    assert any("were cut out of the names" in note for note in genes.notes)


def test_of_parted_names_a_few_may_hold_no_id_or_no_symbol():
    names = [*(f"{i}_{s}" for i, s in zip(HUMAN_IDS, HUMAN, strict=True)), "ENSG00000000007", "EGFP"]
    genes, _ = identify_genes(var(names))
    assert list(genes.gene_ids) == [*HUMAN_IDS, "ENSG00000000007", ""]
    assert list(genes.gene_symbols) == [*HUMAN, "", "EGFP"]


def test_a_word_before_every_id_is_no_symbol():
    genes, _ = identify_genes(var([f"gene:{i}" for i in HUMAN_IDS]))
    assert list(genes.names) == HUMAN_IDS == list(genes.gene_ids)
    assert set(genes.gene_symbols) == {""}


def test_ids_in_a_column_of_their_own_leave_the_names_as_they_are():
    names = [f"{symbol}_{i}" for i, symbol in zip(HUMAN_IDS, HUMAN, strict=True)]
    genes, _ = identify_genes(var([*HUMAN[:2], *names[2:4], *HUMAN[4:]], gene_ids=HUMAN_IDS))
    assert list(genes.names) == [*HUMAN[:2], *names[2:4], *HUMAN[4:]]


@pytest.mark.parametrize("asked", ["auto", "human"])
def test_genes_of_two_organisms_are_refused_whatever_was_given(asked):
    ids = text("ENSG00000000001", "ENSMUSG00000000001", "ENSMUSG00000000003")
    with pytest.raises(InputError, match=r"more than one organism: .*\(2 ENSMUSG, 1 ENSG\)") as caught:
        check_organism(asked, ids, text("A", "B", "C"))
    assert "--genome human" in caught.value.todo


def test_each_gene_of_a_mixture_is_told_by_its_id_else_by_how_it_is_written():
    ids = text("ENSG00000000001", "ENSMUSG00000000001", "", "ENSDARG00000000001")
    assert list(organism_of_each(ids, text("Aa", "AA", "CD3E", "x"))) == ["human", "mouse", "", "ENSDARG"]
    written = text("CD3E", "Cd3e", "C1orf112", "mt-Co1", "MT-CO1", "H2-K1", "")
    assert list(organism_of_each(text(*[""] * 7), written)) == [
        *("human", "mouse", "human", "mouse", "human", "human", "")
    ]


def test_a_given_organism_stands_where_the_genes_say_nothing():
    assert check_organism("mouse", text("", ""), text("1", "2"))[0] == "mouse"


def test_organisms_are_read_in_any_spelling():
    assert [read_organism(name) for name in ("Homo sapiens", "MOUSE", "auto")] == ["human", "mouse", "auto"]
    with pytest.raises(InputError, match="'rat'"):
        read_organism("rat")


def test_whole_numbers_are_written_alike_whatever_pandas_made_of_them():
    floats = pd.Series([0.0, 1.5, np.nan, -2.0, np.inf])
    for column in (floats, floats.astype("category"), floats.astype(object), floats.astype(np.float32)):
        assert as_text(column).tolist() == ["0", "1.5", "", "-2", "inf"]
    assert as_text(pd.Series([0, None], dtype="Int64")).tolist() == ["0", ""]
    assert as_text(pd.Series([" 1.0", "v2.0 ", None, True])).tolist() == ["1.0", "v2.0", "", "True"]
    assert column_text(pd.Series([" a ", None, 3.0])).tolist() == [" a ", "", "3"]


@pytest.mark.parametrize("organism", ["human", "mouse"])
def test_gene_sets_are_whole_and_hold_no_look_alikes(organism):
    sets = qc_gene_sets(organism)
    assert len(sets["mt"][0]) == 37
    assert 80 <= len(sets["ribo"][0]) <= 90
    assert len(sets["hb"][0]) == 10
    every = {symbol.upper() for _, symbols in sets.values() for symbol in symbols}
    assert not every & {"HBEGF", "HBP1", "HBS1L", "RPS6KA1", "RPS6KB1", "MTOR", "MT1X"}


def test_gene_sets_match_by_id_or_by_symbol():
    frame = pd.DataFrame(
        {
            "gene_ids": ["ENSG00000198938", "", "", "", "", ""],
            "gene_symbols": ["", "MT-ND1", "RPS6KA1", "RPL10", "HBEGF", "HBB"],
        }
    )
    masks = gene_set_masks(frame, "human")
    assert masks["mt"].tolist() == [True, True, False, False, False, False]
    assert masks["ribo"].tolist() == [False, False, False, True, False, False]
    assert masks["hb"].tolist() == [False, False, False, False, False, True]


def test_gene_sets_of_an_unknown_organism_are_both():
    frame = pd.DataFrame({"gene_ids": ["", ""], "gene_symbols": ["MT-ND1", "mt-Nd1"]})
    assert gene_set_masks(frame, "unknown")["mt"].tolist() == [True, True]


def test_gene_sets_know_symbols_whose_hyphens_r_made_dots():
    frame = pd.DataFrame({"gene_ids": [""] * 3, "gene_symbols": ["mt.Nd1", "Hba.a1", "Hbegf"]})
    masks = gene_set_masks(frame, "mouse")
    assert masks["mt"].tolist() == [True, False, False]
    assert masks["hb"].tolist() == [False, True, False]


def test_gene_sets_know_symbols_of_other_years():
    older = {
        "human": ["MTND1", "LAMR1", "HBAP2", "MTOR", "RPL13"],
        "mouse": ["Cytb", "Lamr1", "Hba1", "Mtor", "Rpl13"],
    }
    for organism, names in older.items():
        masks = gene_set_masks(pd.DataFrame({"gene_ids": "", "gene_symbols": names}, index=names), organism)
        of_set = {name: np.flatnonzero(mask).tolist() for name, mask in masks.items()}
        assert of_set == {"mt": [0], "ribo": [1, 4], "hb": [2]}


def test_mitochondrial_genes_of_refseq_are_known_where_nearly_all_are_there():
    refseq = ["ND1", "ND2", "ND3", "ND4", "ND4L", "ND5", "ND6", "COX1", "COX2", "COX3", "ATP6", "CYTB"]

    def mitochondrial(*names):
        return gene_set_masks(pd.DataFrame({"gene_ids": "", "gene_symbols": names}, index=names), "human")[
            "mt"
        ]

    assert mitochondrial(*refseq, "PTGS1").tolist() == [True] * 12 + [False]
    assert not mitochondrial("COX1", "COX2", "ND1", "CD3E").any()
    assert mitochondrial(*refseq, "MT-CO1").tolist() == [False] * 12 + [True]


@pytest.mark.parametrize(
    ("values", "text"),
    [
        (pd.Categorical([1.0, None, 2.5]), ["1", "", "2.5"]),
        (pd.Series([1.0, 2.5]), ["1", "2.5"]),
        (pd.Series([1.0, 2.0]), ["1", "2"]),
        (pd.Categorical([" x", None]), [" x", ""]),
        (pd.Series(["a", None, 3.0]), ["a", "", "3"]),
        (pd.Series([True, None], dtype=object), ["True", ""]),
        (pd.Series(pd.array([1, None], dtype="Int64")), ["1", ""]),
        (pd.Series([], dtype=object), []),
        (pd.Series([b"a", None], dtype=object), ["a", ""]),
    ],
)
def test_every_kind_of_column_is_read_as_the_text_that_a_user_would_write(values, text) -> None:
    assert column_text(values).tolist() == text
