"""benchmarks/accuracy: references and queries, on simulated files."""

from __future__ import annotations

import fnmatch
import re

import anndata
import numpy as np
import pytest
import scipy.sparse as sp
from accuracy import alterations
from accuracy.pairs import (
    BLOOD_TYPES,
    SAME_DONOR,
    SAMPLES,
    TO_SHARED_FINE,
    UNLABELLED,
    Sets,
    all_pairs,
    chosen,
)
from conftest import ROOT
from labelled_sets import labelled_sets


@pytest.fixture(scope="module")
def built() -> dict[str, tuple[anndata.AnnData, anndata.AnnData]]:
    sets = Sets(labelled_sets())
    return {pair.name: pair.build(sets, np.random.default_rng(0)) for pair in all_pairs().values()}


def test_no_cell_is_in_reference_and_query(built: dict) -> None:
    for name, (reference, query) in built.items():
        assert not set(reference.obs_names) & set(query.obs_names), name
        assert UNLABELLED not in set(reference.obs["label"]) | set(query.obs["label"]), name
        assert reference.n_obs and query.n_obs, name


def test_held_out_donors_are_whole_and_cover_their_file(built: dict) -> None:
    for kind in ("", "-fine"):
        for source, names in (("multistudy", SAMPLES), ("kang_ctrl", [f"kang_{i}" for i in range(1, 5)])):
            queries = []
            for name in names:
                reference, query = built[f"held-out-{name}{kind}"]
                assert not set(reference.obs["donor"]) & set(query.obs["donor"])
                queries += query.obs_names.tolist()
            assert len(queries) == len(set(queries)) == reference.n_obs + query.n_obs, source


def test_strict_pairs_leave_out_the_sample_of_the_same_donor(built: dict) -> None:
    for name in ("both-to-pbmc4k-strict", "multistudy-to-pbmc4k-strict", "multistudy-to-pbmc3k-strict"):
        query = name.split("-")[2]
        reference, _ = built[name]
        loose, _ = built[name.removesuffix("-strict")]
        assert SAME_DONOR[query] not in set(reference.obs["batch"])
        assert SAME_DONOR[query] in set(loose.obs["batch"])
    assert SAME_DONOR["pbmc3k"] not in set(built["pbmc3k-to-multistudy-strict"][1].obs["batch"])


def test_a_left_out_type_is_in_the_query_alone(built: dict) -> None:
    for label in BLOOD_TYPES:
        reference, query = built[f"both-to-kang_ctrl-without_{label.replace(' ', '_')}"]
        assert label not in set(reference.obs["label"])
        assert label in set(query.obs["label"])
        assert set(reference.obs["label"]) == set(BLOOD_TYPES) - {label}


def test_harder_queries_lose_what_their_name_says(built: dict) -> None:
    whole = built["both-to-kang_ctrl"][1].X.sum()
    for percent in (50, 25, 10):
        thin = built[f"both-to-kang_ctrl-counts_{percent}"][1]
        assert thin.X.sum() / whole == pytest.approx(percent / 100, rel=0.05)
    assert built["both-to-kang_ctrl-soup_20"][1].X.sum() / whole == pytest.approx(1.2, rel=0.02)
    loose, wrong = built["both-to-kang_ctrl"][0], built["both-to-kang_ctrl-wrong_10"][0]
    assert (loose.obs["label"].to_numpy() != wrong.obs["label"].to_numpy()).mean() == pytest.approx(
        0.1, abs=0.005
    )


def test_fine_labels_of_two_files_are_one_vocabulary(built: dict) -> None:
    reference, query = built["pbmc3k-to-kang_ctrl-fine"]
    assert (
        set(reference.obs["label"]) == set(query.obs["label"]) == set(TO_SHARED_FINE.values()) - {UNLABELLED}
    )


def test_genes_are_dropped_and_chosen_without_labels() -> None:
    cells = Sets(labelled_sets()).get("kang_ctrl")
    some = alterations.random_genes(cells, 30, np.random.default_rng(1))
    assert some.n_vars == 30
    assert set(some.var_names) <= set(cells.var_names)
    unlabelled = cells.copy()
    unlabelled.obs = cells.obs[[]]
    varied = alterations.panel(cells, 30).var_names
    assert len(varied) == 30
    assert varied.equals(alterations.panel(unlabelled, 30).var_names)
    assert not varied.equals(cells.var_names[:30])


def test_thinning_keeps_whole_counts_and_drops_empty_cells() -> None:
    cells = anndata.AnnData(sp.csr_matrix(np.array([[100.0, 300.0], [1.0, 0.0]], dtype=np.float32)))
    thin = alterations.thinned(cells, 0.01, np.random.default_rng(0))
    assert thin.n_obs == 1
    assert set(np.unique(thin.X.toarray() % 1)) == {0}


def test_pairs_are_chosen_by_name_pattern_and_family() -> None:
    assert [pair.name for pair in chosen("both-to-kang_ctrl")] == ["both-to-kang_ctrl"]
    assert len(chosen("held-out-kang_?")) == 4
    assert {pair.family for pair in chosen("a type left out,cell lines")} == {"a type left out", "cell lines"}
    assert len(chosen("")) == len(all_pairs())
    with pytest.raises(KeyError):
        chosen("both-to-nowhere")


def test_the_readme_lists_every_pair_and_method() -> None:
    from accuracy.programs import PROGRAMS

    text = (ROOT / "benchmarks" / "accuracy" / "README.md").read_text()
    told = re.findall(r"`([^`]+)`", text)
    patterns = re.findall(r"`([^`]+)`", text.split("## Pairs")[1].split("## Numbers")[0])
    for pair in all_pairs().values():
        assert any(fnmatch.fnmatchcase(pair.name, pattern) for pattern in patterns), pair.name
        assert pair.family in text, pair.family
    for pattern in patterns:
        assert any(fnmatch.fnmatchcase(name, pattern) for name in all_pairs()), pattern
    for program in PROGRAMS:
        assert {program.name, *program.gives} <= set(told), program.name
