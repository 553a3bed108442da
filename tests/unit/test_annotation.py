"""ANNOTATE: the decision, and the output contract on real files."""

import dataclasses
import gzip
import json
import shutil
from types import SimpleNamespace
from unittest import mock

import anndata
import h5py
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from old_anndata import ANNDATA_0_8
from small_model import (
    scratch,
    simulate,
    small_counts,
    small_mapping,
    small_model,
    write_counts,
)

from cellscribe import annotate, annotation_info, clusters
from cellscribe.answer import OLDER, Decision, Strictness, answer_cells, coarser, decide, unexpected_warnings
from cellscribe.contract import REASONS, UNASSIGNED, OutputNames
from cellscribe.counts_file import open_counts
from cellscribe.errors import InputError
from cellscribe.mapping import map_cells, read_mapping, run_map
from cellscribe.model.model import Model
from cellscribe.model.ontology import build_ontology
from cellscribe.one_file import CountsInMemory

LABELS = ["B cell", "CD4 T cell", "CD8 T cell", "Monocyte", "Platelet"]
IDS = ["CL:0000236", "CL:0000624", "CL:0000625", "CL:0000576", "CL:0000233"]
LIMITS = {
    "least_probability": 0.5,
    "ancestor_probability": 0.8,
    "distance_quantile": 0.99,
    "least_counts": 50,
    "unexpected_share": 0.02,
    "least_unexpected_counts": 5,
}
BROAD = dict(zip(LABELS, ["lymphocyte", "lymphocyte", "lymphocyte", "myeloid", "myeloid"], strict=True))
LINEAGE = dict(zip(LABELS, ["B cell", "T cell", "T cell", "Monocyte", "Platelet"], strict=True))


@pytest.fixture(scope="module")
def rules():
    """What `decide` and `coarser` read of a model."""
    return SimpleNamespace(
        labels=LABELS,
        cl_ids=IDS,
        ontology=build_ontology(IDS),
        manifest={
            "rejection": LIMITS,
            "training": {"n_batches": 7},
            "levels": [{"name": "broad", "labels": BROAD}, {"name": "lineage", "labels": LINEAGE}],
        },
    )


def mapped(n_model_counts, n_silent_counts=0):
    """What `decide` reads of a mapping."""
    n_model_counts = np.atleast_1d(n_model_counts)
    return SimpleNamespace(
        n_model_counts=n_model_counts,
        n_counts=np.full(len(n_model_counts), 1000.0),
        n_silent_counts=np.broadcast_to(n_silent_counts, n_model_counts.shape),
    )


def decided(rules, probabilities, quantile=0.5, counts=1000, silent=0):
    result = decide(
        rules,
        np.array([probabilities]),
        None if quantile is None else np.array([quantile], dtype=np.float32),
        mapped(counts, silent),
    )
    return result.final[0], result.final_cl_id[0], result.reason[0]


# The decision ------------------------------------------------------------------------------------


def test_a_probable_label_is_accepted(rules):
    assert decided(rules, [0.6, 0.1, 0.1, 0.1, 0.1]) == ("B cell", "CL:0000236", "")
    assert decided(rules, [0.5, 0.2, 0.1, 0.1, 0.1]) == ("B cell", "CL:0000236", "")


def test_a_cell_torn_between_relatives_gets_their_ancestors_name(rules):
    final, cl_id, reason = decided(rules, [0.05, 0.45, 0.42, 0.05, 0.03])
    assert (final, reason) == (rules.ontology.name(cl_id), "ambiguous")
    assert "T cell" in final and cl_id not in IDS


@pytest.mark.parametrize(
    ("label", "final", "reason"), [("T cells", "T cells", ""), ("Other T cell", "T cell", "ambiguous")]
)
def test_a_broad_label_that_finer_ones_make_sure_is_given_as_the_model_spells_it(label, final, reason):
    ids = ["CL:0000084", "CL:0000624", "CL:0000625", "CL:0000236", "CL:0000576", "CL:0000623"]
    model = SimpleNamespace(
        labels=[label, "CD4 T", "CD8 T", "B", "Mono", "NK"],
        cl_ids=ids,
        ontology=build_ontology(ids),
        manifest={"rejection": LIMITS, "training": {"n_batches": 7}, "levels": []},
    )
    assert decided(model, [0.45, 0.35, 0.1, 0.04, 0.03, 0.03]) == (final, "CL:0000084", reason)
    # And so where a finer one is the most probable.
    assert decided(model, [0.35, 0.45, 0.1, 0.04, 0.03, 0.03]) == (final, "CL:0000084", "ambiguous")


@pytest.mark.parametrize("label", ["CD4 T cell", "CD4+ T cells"])
def test_a_broader_name_is_that_of_the_label_that_has_the_id_and_no_other_words(label):
    ids = ["CL:0000624", "CL:0000895", "CL:0000897", "CL:0000236", "CL:0000576", "CL:0000623"]
    model = SimpleNamespace(
        labels=[label, "Naive CD4 T cell", "Memory CD4 T cell", "B cell", "Monocyte", "NK cell"],
        cl_ids=ids,
        ontology=build_ontology(ids),
        manifest={"rejection": LIMITS, "training": {"n_batches": 7}, "levels": []},
    )
    torn = [0.05, 0.45, 0.4, 0.05, 0.03, 0.02]
    assert decided(model, torn) == (label, "CL:0000624", "ambiguous")
    model.labels[0] = "CD4 cm S100A4"
    assert decided(model, torn)[0] == model.ontology.name("CL:0000624")


def test_a_cell_torn_between_strangers_is_unassigned(rules):
    assert decided(rules, [0.4, 0.05, 0.05, 0.1, 0.4]) == (UNASSIGNED, "", "ambiguous")


def test_a_far_cell_is_novel_however_sure_the_label(rules):
    assert decided(rules, [0.96, 0.01, 0.01, 0.01, 0.01], quantile=0.99) == (UNASSIGNED, "", "novel")
    assert decided(rules, [0.96, 0.01, 0.01, 0.01, 0.01], quantile=0.98)[2] == ""


def test_too_few_counts_come_before_distance_and_distance_before_doubt(rules):
    torn = [0.05, 0.45, 0.42, 0.05, 0.03]
    assert decided(rules, torn, quantile=1.0, counts=49) == (UNASSIGNED, "", "low_information")
    assert decided(rules, torn, quantile=1.0, counts=50) == (UNASSIGNED, "", "novel")
    assert decided(rules, torn, quantile=0.1, counts=50)[2] == "ambiguous"


def test_counts_on_genes_that_no_reference_type_expresses_make_a_cell_novel(rules):
    sure = [0.96, 0.01, 0.01, 0.01, 0.01]
    assert decided(rules, sure, silent=21) == (UNASSIGNED, "", "novel")
    assert decided(rules, sure, silent=20) == ("B cell", "CL:0000236", "")
    assert decided(rules, sure, quantile=None, silent=21)[2] == "novel"


def test_the_novel_cells_are_counted_by_each_cause_that_made_them_so(rules):
    """Far, too many unexpected counts, strange, all of these, none, and all of these with too few counts."""
    model = SimpleNamespace(
        **vars(rules) | {"manifest": rules.manifest | {"novelty": {"false_alarms": 0.02}}}
    )
    sure = np.tile([0.96, 0.01, 0.01, 0.01, 0.01], (6, 1))
    quantile, strange = np.array([1.0, 0, 0, 1, 0, 1]), np.array([0, 0, 0.99, 1, 0.97, 1])
    mapping = mapped(np.array([1000] * 5 + [1]), np.array([0, 30, 0, 30, 0, 30]))
    result = decide(model, sure, quantile, mapping, strange)
    assert result.reason.tolist() == ["novel"] * 4 + ["", "low_information"]
    assert result.novel_by == {"far": 2, "unexpected_genes": 2, "strange": 2}
    assert decide(model, sure, None, mapping).novel_by == {"unexpected_genes": 2}


@pytest.mark.parametrize("n_batches", [1, 7])
def test_a_model_of_one_batch_allows_for_what_all_labels_of_a_sample_have(rules, n_batches):
    """Forty counts of a thousand on such genes in each of three labels, and a hundred in some cells of one of them."""
    model = SimpleNamespace(
        **vars(rules) | {"manifest": rules.manifest | {"training": {"n_batches": n_batches}}}
    )
    probabilities = np.repeat(np.eye(5)[:3] * 0.95 + 0.01, 20, axis=0)
    silent = np.full(60, 40)
    silent[:5] = 100
    result = decide(model, probabilities, None, mapped(np.full(60, 1000), silent))
    assert np.flatnonzero(result.reason == "novel").tolist() == list(range(5 if n_batches == 1 else 60))
    said = unexpected_warnings(model, silent / 1000, probabilities.argmax(axis=1))
    assert [text[:40] for text in said] == ["All types of this sample have counts on "] * (n_batches == 1)


def test_one_label_of_such_a_sample_tells_nothing_of_what_all_have(rules):
    """Cells of another tissue may all be named as one type: half of their counts are not excused."""
    model = SimpleNamespace(**vars(rules) | {"manifest": rules.manifest | {"training": {"n_batches": 1}}})
    probabilities = np.tile([0.96, 0.01, 0.01, 0.01, 0.01], (50, 1))
    result = decide(model, probabilities, None, mapped(np.full(50, 1000), np.full(50, 100)))
    assert set(result.reason) == {"novel"}


def test_few_counts_on_such_genes_are_no_evidence(rules):
    limits = rules.manifest["rejection"] | {"unexpected_share": 0.001}
    strict = SimpleNamespace(**vars(rules) | {"manifest": rules.manifest | {"rejection": limits}})
    sure = [0.96, 0.01, 0.01, 0.01, 0.01]
    assert decided(strict, sure, silent=4)[2] == ""
    assert decided(strict, sure, silent=5)[2] == "novel"


# How strict the user asks a model to be ----------------------------------------------------------


def strictly(rules, probabilities, quantile=0.5, counts=1000, silent=0, strange=None, **asked):
    n_cells = len(probabilities)
    model = SimpleNamespace(
        **vars(rules) | {"manifest": rules.manifest | {"novelty": {"false_alarms": 0.02}}}
    )
    return decide(
        model,
        np.array(probabilities),
        np.full(n_cells, quantile),
        mapped(np.full(n_cells, counts), silent),
        None if strange is None else np.array(strange, dtype=np.float32),
        Strictness(**asked),
    )


def test_a_label_needs_the_probability_that_the_user_asks_for(rules):
    rows = [[0.6, 0.1, 0.1, 0.1, 0.1], [0.4, 0.2, 0.2, 0.1, 0.1]]
    assert strictly(rules, rows).reason.tolist() == ["", "ambiguous"]
    assert strictly(rules, rows, min_probability=0.4).final.tolist() == ["B cell"] * 2
    assert strictly(rules, rows, min_probability=0.61).reason.tolist() == ["ambiguous"] * 2


def test_a_broader_name_needs_as_much_as_a_label_and_never_less_than_the_model_asks(rules):
    torn = [[0.03, 0.45, 0.40, 0.07, 0.05]]
    assert "T cell" in strictly(rules, torn, min_probability=0.6).final[0]
    assert strictly(rules, torn, min_probability=0.9).final.tolist() == [UNASSIGNED]
    torn = [[0.05, 0.4, 0.3, 0.15, 0.1]]
    assert strictly(rules, torn, min_probability=0.45).final.tolist() == [UNASSIGNED]


def test_novel_cells_keep_their_label_where_the_user_says_so_and_are_counted(rules):
    rows = [[0.96, 0.01, 0.01, 0.01, 0.01]] * 3 + [[0.4, 0.05, 0.05, 0.1, 0.4]]
    asked = {"silent": np.array([30, 0, 0, 30]), "strange": [0, 0.99, 0.5, 0]}
    assert strictly(rules, rows, **asked).reason.tolist() == ["novel", "novel", "", "novel"]
    result = strictly(rules, rows, **asked, reject_novel=False)
    assert result.reason.tolist() == ["", "", "", "ambiguous"]
    assert result.final.tolist() == ["B cell"] * 3 + [UNASSIGNED]
    assert result.spared == 3 and result.novel_by == {"unexpected_genes": 2, "far": 0, "strange": 1}
    shallow = strictly(rules, rows, counts=1, **asked, reject_novel=False)
    assert set(shallow.reason) == {"low_information"} and shallow.spared == 0


def test_a_limit_of_novelty_changes_that_sign_alone(rules):
    rows = [[0.96, 0.01, 0.01, 0.01, 0.01]] * 4
    asked = {"silent": np.array([0, 0, 0, 30]), "strange": [0.9, 0.97, 0.995, 0]}
    assert strictly(rules, rows, **asked).reason.tolist() == ["", "", "novel", "novel"]
    assert strictly(rules, rows, **asked, novelty_limit=0.95).reason.tolist() == [
        "",
        "novel",
        "novel",
        "novel",
    ]
    assert strictly(rules, rows, **asked, novelty_limit=1).reason.tolist() == ["", "", "", "novel"]


def test_the_limits_are_the_manifests_unless_asked_for(rules):
    manifest = rules.manifest | {"novelty": {"false_alarms": 0.02}}
    plain = Strictness()
    assert plain.given == {} and plain.limits(manifest, with_novelty=False) == LIMITS
    assert plain.limits(manifest, with_novelty=True) == LIMITS | {"novelty": 0.98}
    asked = Strictness(0.9, False, 0.95)
    assert asked.given == {"min_probability": 0.9, "reject_novel": False, "novelty_limit": 0.95}
    assert asked.limits(manifest, with_novelty=True) == LIMITS | {
        "least_probability": 0.9,
        "ancestor_probability": 0.9,
        "novelty": 0.95,
    }


def test_models_without_a_reference_never_say_far(rules):
    assert decided(rules, [0.96, 0.01, 0.01, 0.01, 0.01], quantile=None) == ("B cell", "CL:0000236", "")


def test_each_reason_is_in_the_contract(rules):
    rng = np.random.default_rng(0)
    result = decide(
        rules, rng.dirichlet(np.full(5, 0.6), 500), rng.random(500), mapped(rng.integers(0, 500, 500))
    )
    assert set(result.reason) == set(REASONS) - {"disagreement"}
    assert set(result.final[(result.reason == "novel") | (result.reason == "low_information")]) == {
        UNASSIGNED
    }
    assert ((result.final == UNASSIGNED) <= (result.reason != "")).all()


def test_levels_never_contradict_the_label(rules):
    probabilities = np.random.default_rng(0).dirichlet(np.full(5, 0.5), 400)
    best = probabilities.argmax(axis=1)
    for name, parents in (("broad", BROAD), ("lineage", LINEAGE)):
        coarse, uncertainty = coarser(rules, probabilities)[name]
        assert coarse.tolist() == [parents[LABELS[i]] for i in best]
        assert (uncertainty <= 1 - probabilities.max(axis=1) + 1e-9).all()
        assert (uncertainty >= 0).all()
        inside = np.array([[parents[label] == parents[LABELS[i]] for label in LABELS] for i in best])
        np.testing.assert_allclose(1 - uncertainty, (probabilities * inside).sum(axis=1))


def test_a_level_of_one_branch_is_certain_and_not_less_than_that(rules):
    one = SimpleNamespace(
        labels=LABELS,
        manifest={"levels": [{"name": "all", "labels": dict.fromkeys(LABELS, "cell")}]},
    )
    probabilities = np.random.default_rng(0).dirichlet(np.full(5, 0.5), 2000)
    _, uncertainty = coarser(one, probabilities)["all"]
    assert uncertainty.min() >= 0 and uncertainty.max() < 1e-9


# The contract ------------------------------------------------------------------------------------


def run(folder, names, *, kind="consensus", counts=None, mapping=None, **changes):
    """kind: of one model, or of several with a + between them."""
    folder.mkdir(parents=True, exist_ok=True)
    kinds = kind.split("+")
    annotate.run_annotate(
        counts or small_counts(),
        [mapping] if mapping else [small_mapping(one) for one in kinds],
        [small_model(one) for one in kinds],
        sample="s1",
        output=folder / "a.h5ad",
        predictions=folder / "p.tsv.gz",
        summary=folder / "a.json",
        names=names,
        **{
            "model_urls": [f"https://example.org/{one}" for one in kinds],
            "pipeline_version": "0.1.0",
            **changes,
        },
    )
    return anndata.read_h5ad(folder / "a.h5ad"), json.loads((folder / "a.json").read_text())


@pytest.fixture(scope="module")
def flat():
    """No UMAP: for what does not depend on it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(clusters, "umap_layout", lambda embedding, *_, **__: clusters.flat_layout(embedding))
        yield


@pytest.fixture(scope="module")
def annotated():
    # as if 90 cells were enough to tell what is strange
    with mock.patch("cellscribe.answer.FEWEST_CELLS", 90):
        return run(scratch() / "annotated", OutputNames.of())


def test_every_key_of_the_contract_is_in_the_file_with_its_type(annotated):
    adata, info = annotated
    names = OutputNames.of()
    categorical = [names.predicted, names.final, names.reason, names.cl_id, names.final_cl_id]
    categorical += [names.cluster, names.cluster_label, names.cluster_final, names.level("lineage")]
    for key in categorical:
        assert isinstance(adata.obs[key].dtype, pd.CategoricalDtype), key
        assert not adata.obs[key].isna().any(), key
    shares = [names.uncertainty, names.cluster_vote, names.reference_distance]
    for key in [*shares, names.level_uncertainty("lineage")]:
        assert adata.obs[key].dtype == np.float32, key
        assert adata.obs[key].between(0, 1).all(), key
    for key in (names.embedding, names.umap, names.umap_explorer, names.reference_umap):
        assert adata.obsm[key].dtype == np.float32, key
        assert np.isfinite(adata.obsm[key]).all(), key
    assert adata.obsm[names.umap].shape == adata.obsm[names.reference_umap].shape == (90, 2)
    np.testing.assert_array_equal(adata.obsm[names.umap], adata.obsm[names.umap_explorer])
    np.testing.assert_array_equal(
        adata.obsm[names.embedding], read_mapping(small_mapping("consensus")).latent
    )
    properties = {key for key, value in vars(OutputNames).items() if isinstance(value, property)}
    properties -= {"agreeing", "probabilities"}  # of several models, and where asked for
    keys = {getattr(names, key) for key in properties}
    assert keys <= {*adata.obs, *adata.obsm, *adata.uns}
    assert set(info["names"].values()) == keys


def test_labels_are_right_and_uncertainty_is_of_the_predicted_label(annotated):
    adata, _ = annotated
    names = OutputNames.of()
    assert (adata.obs[names.predicted].astype(str) == adata.obs["published"].astype(str)).mean() > 0.95
    table = pd.read_csv(scratch() / "annotated" / "p.tsv.gz", sep="\t", keep_default_na=False)
    assert (1 - table["uncertainty"] + 1e-5 >= table["second_probability"]).all()
    assert (table["second_label"] != table["predicted"]).all()


def test_a_model_of_another_name_or_version_than_its_row_is_told(tmp_path, flat):
    for listed, told in (("small==1.0", False), ("", False), ("mouse==1.0", True), ("small==2.0", True)):
        _, info = run(tmp_path, OutputNames.of(), kind="logistic", listed_as=[listed])
        found = [warning for warning in info["warnings"] if "catalogue calls this model" in warning]
        assert [f"'{listed}'" in warning and "'small==1.0'" in warning for warning in found] == [True] * told
    _, info = run(
        tmp_path, OutputNames.of(), kind="logistic+consensus", listed_as=["small==1.0", "mouse==2.0"]
    )
    (warning,) = [warning for warning in info["warnings"] if "catalogue calls this model" in warning]
    assert "'mouse==2.0'" in warning


def test_provenance_says_which_model_and_parameters(annotated):
    adata, _ = annotated
    said = adata.uns[OutputNames.of().predictions]
    model = Model(small_model("consensus"))
    assert said["model_url"] == "https://example.org/consensus"
    assert (said["model_name"], said["model_version"]) == ("small", "1.0")
    assert said["model_sha256"] == model.sha256
    assert said["pipeline_version"] == "0.1.0"
    assert said["gene_overlap"] == 1
    assert json.loads(said["parameters"])["classifier"] == "consensus"
    assert len(said["date"]) == 10


def test_encodings_are_those_that_anndata_0_8_reads(annotated):
    with h5py.File(scratch() / "annotated" / "a.h5ad") as file:
        seen = set()

        def look(name, node):
            if node.parent.attrs.get("encoding-type") != "csr_matrix":
                seen.add(node.attrs["encoding-type"])

        file.visititems(look)
        assert file["obs/cxg_cell_type_predicted/categories"].attrs["encoding-type"] == "string-array"
        assert file["obs"].attrs["encoding-type"] == "dataframe"
        assert file["obsm/cxg_cell_type"].attrs["encoding-type"] == "array"
    assert seen <= ANNDATA_0_8


def test_the_matrix_and_the_columns_that_were_there_are_kept_bit_for_bit(annotated):
    adata, _ = annotated
    before = anndata.read_h5ad(small_counts())
    pd.testing.assert_frame_equal(adata.obs[list(before.obs)], before.obs)
    pd.testing.assert_frame_equal(adata.var, before.var)
    with h5py.File(small_counts()) as old, h5py.File(scratch() / "annotated" / "a.h5ad") as new:
        for part in ("data", "indices", "indptr"):
            np.testing.assert_array_equal(old["X"][part][:], new["X"][part][:])
            assert old["X"][part].dtype == new["X"][part].dtype
        assert list(new["obs"].attrs["column-order"])[: len(before.obs.columns)] == list(before.obs)


def test_the_summary_counts_what_the_file_holds(annotated):
    adata, info = annotated
    names = OutputNames.of()
    assert info["sample"] == "s1" and info["n_cells"] == 90
    assert info["composition"] == adata.obs[names.final].value_counts().loc[lambda n: n > 0].to_dict()
    assert info["predicted_composition"] == adata.obs[names.predicted].value_counts().to_dict()
    assert info["unassigned"] == (adata.obs[names.final] == UNASSIGNED).sum()
    assert sum(cluster["n_cells"] for cluster in info["clusters"]) == 90
    assert info["median_uncertainty"] == pytest.approx(adata.obs[names.uncertainty].median(), abs=1e-6)
    assert info["levels"] == ["lineage"]
    assert set(info["novel_by"]) >= {"far", "unexpected_genes"}
    assert (
        max(info["novel_by"].values())
        <= info["unassigned_by"].get("novel", 0)
        <= sum(info["novel_by"].values())
    )
    assert info["model"]["sha256"] == Model(small_model("consensus")).sha256
    for key in ("gene_overlap", "n_model_genes", "n_genes_found", "genes_matched_by", "missing_genes"):
        assert info[key] == read_mapping(small_mapping("consensus")).info[key]


def test_the_table_of_predictions_has_a_row_a_cell_in_their_order(annotated):
    adata, _ = annotated
    table = pd.read_csv(scratch() / "annotated" / "p.tsv.gz", sep="\t", keep_default_na=False)
    assert table["barcode"].tolist() == list(adata.obs_names)
    assert table["predicted"].tolist() == adata.obs["cxg_cell_type_predicted"].astype(str).tolist()
    np.testing.assert_allclose(
        table["uncertainty"], adata.obs["cxg_cell_type_predicted_uncertainty"], atol=1e-6
    )
    assert {"final", "reason", "cl_id", "final_cl_id", "lineage", "cluster", "ref_distance"} <= set(table)


@pytest.mark.parametrize("kind", ["consensus", "consensus+logistic"])
def test_the_probability_of_every_label_is_kept_where_asked_for(flat, tmp_path, kind):
    names = OutputNames.of()
    adata, _ = run(tmp_path, names, kind=kind, probabilities=True)
    labels = np.array(adata.uns[names.predictions]["labels"], dtype=object)
    kept = adata.obsm[names.probabilities]
    assert kept.shape == (adata.n_obs, len(labels)) and kept.dtype == np.float32
    if kind == "consensus":
        assert (labels[kept.argmax(axis=1)] == adata.obs[names.predicted].astype(str)).all()
        np.testing.assert_allclose(kept.max(axis=1), 1 - adata.obs[names.uncertainty], atol=1e-5)
    else:
        assert sum(key.endswith("_probabilities") for key in adata.obsm) == 3
    assert names.probabilities not in run(tmp_path / "not", names)[0].obsm


def test_nothing_of_an_earlier_annotation_stays_even_where_its_provenance_is_lost(flat, tmp_path):
    names = OutputNames.of()
    before, _ = run(tmp_path / "first", names)
    stale = {names.reference_distance, names.unexpected, names.reference_umap}
    assert stale <= {*before.obs, *before.obsm}
    shutil.copy(tmp_path / "first" / "a.h5ad", tmp_path / "again.h5ad")
    with h5py.File(tmp_path / "again.h5ad", "r+") as file:
        del file["uns"][names.predictions]
        file["obs"][names.unexpected][:] = 7
    again, _ = run(tmp_path / "again", names, kind="logistic", counts=tmp_path / "again.h5ad")
    assert not {names.reference_distance, names.reference_umap} & {*again.obs, *again.obsm}
    assert again.obs[names.unexpected].max() <= 1


def test_a_column_that_has_the_name_of_an_array_of_ours_is_the_users_own(flat, tmp_path):
    names = OutputNames("kind")
    shutil.copy(small_counts(), tmp_path / "counts.h5ad")
    with h5py.File(tmp_path / "counts.h5ad", "r+") as file:
        obs = anndata.io.read_elem(file["obs"])
        del file["obs"]
        anndata.io.write_elem(file, "obs", obs.assign(kind=7))
    adata, _ = run(tmp_path, names, counts=tmp_path / "counts.h5ad")
    assert names.embedding == "kind" and (adata.obs["kind"] == 7).all()


def test_a_cells_vote_is_its_clusters(annotated):
    obs = annotated[0].obs
    for _, cluster in obs.groupby("cxg_cell_type_cluster", observed=True):
        shares = cluster["cxg_cell_type_predicted"].value_counts(normalize=True)
        assert cluster["cxg_cell_type_cluster_label"].unique().tolist() == [shares.index[0]]
        np.testing.assert_allclose(cluster["cxg_cell_type_cluster_vote"], shares.iloc[0], rtol=1e-5)
        commonest = cluster["cxg_cell_type_final"].value_counts()
        named = cluster["cxg_cell_type_cluster_final"].unique()
        assert len(named) == 1 and commonest[named[0]] == commonest.max()


@pytest.fixture(scope="module")
def clustered():
    """The sample's cells with clusters of the user's: types in twos, a fifth of the cells in none."""
    adata = anndata.read_h5ad(small_counts())
    own = pd.Series(adata.obs["published"].astype(str).to_numpy(dtype=object))
    names = {name: f"group {place // 2}" for place, name in enumerate(sorted(set(own)))}
    path = scratch() / "clustered.h5ad"
    shutil.copy(small_counts(), path)
    with h5py.File(path, "r+") as file:
        obs = anndata.io.read_elem(file["obs"])
        obs["mine"] = pd.Categorical(own.map(names).where(np.arange(len(own)) % 5 > 0))
        del file["obs"]
        anndata.io.write_elem(file, "obs", obs)
    return path


@pytest.mark.parametrize("kind", ["consensus", "consensus+logistic"])
def test_the_users_own_clusters_vote_and_cells_in_none_vote_alone(flat, clustered, tmp_path, kind):
    adata, info = run(tmp_path, OutputNames.of(), kind=kind, counts=clustered, cluster_key="mine")
    keys = {name.removesuffix("_cluster") for name in adata.obs if name.endswith("_cluster")}
    assert len(keys) == (1 if kind == "consensus" else 3)
    for key in keys:
        names = OutputNames(key)
        obs = adata.obs
        assert (obs[names.cluster].astype(str) == obs["mine"].astype(object).fillna("no cluster")).all()
        alone = obs[obs["mine"].isna()]
        assert len(alone) == 18 and (alone[names.cluster_vote] == 1).all()
        assert (alone[names.cluster_label].astype(str) == alone[names.predicted].astype(str)).all()
        assert (alone[names.cluster_final].astype(str) == alone[names.final].astype(str)).all()
        for _, cluster in obs[obs["mine"].notna()].groupby("mine", observed=True):
            shares = cluster[names.predicted].value_counts(normalize=True)
            np.testing.assert_allclose(cluster[names.cluster_vote], shares.iloc[0], rtol=1e-5)
    sizes = [one["n_cells"] for one in info["clusters"]]
    assert sum(sizes) == 72 and sizes == sorted(sizes, reverse=True)
    assert info["in_no_cluster"] == {"n_cells": 18, "name": "no cluster"}
    assert info["parameters"]["cluster_key"] == "mine" and "cluster_resolution" not in info["parameters"]
    assert sum("18 of 90 cells have no cluster" in text for text in info["warnings"]) == 1


def test_a_sample_without_the_column_has_clusters_of_its_own_and_says_so(flat, annotated, tmp_path):
    adata, info = run(tmp_path, OutputNames.of(), cluster_key="leidn")
    key = "cxg_cell_type_cluster"
    assert adata.obs[key].astype(str).tolist() == annotated[0].obs[key].astype(str).tolist()
    assert any("there is no such column" in text for text in info["warnings"])
    assert info["parameters"]["cluster_resolution"] == 1 and "cluster_key" not in info["parameters"]
    finer, info = run(tmp_path / "finer", OutputNames.of(), cluster_resolution=20.0)
    assert finer.obs[key].nunique() > adata.obs[key].nunique()
    assert info["parameters"]["cluster_resolution"] == 20


@pytest.mark.parametrize("kind", ["consensus", "consensus+logistic"])
def test_what_was_asked_of_the_model_stands_in_the_file_and_in_the_page_s_numbers(flat, tmp_path, kind):
    names = OutputNames.of()
    asked = Strictness(0.999, novelty_limit=0.9)
    adata, info = run(tmp_path, names, kind=kind, strictness=asked)
    for said in (info, *info.get("models", [])):
        parameters = said["parameters"]
        assert (parameters["min_probability"], parameters["novelty_limit"]) == (0.999, 0.9)
        limits = parameters.get("consensus") or parameters["rejection"]
        assert limits["least_probability"] == limits["ancestor_probability"] == 0.999
    assert json.loads(adata.uns[names.predictions]["parameters"])["min_probability"] == 0.999
    sure = adata.obs[names.reason] == ""
    assert (adata.obs.loc[sure, names.uncertainty] <= 0.001 + 1e-6).all()
    # Ninety cells are too few to tell novelty.
    assert any("--novelty_limit changed nothing" in text for text in info["warnings"])


def test_a_cluster_of_rejected_cells_is_unassigned():
    final = np.array([UNASSIGNED, UNASSIGNED, "B cell", "B cell"], dtype=object)
    assert clusters.commonest(np.array([0, 0, 0, 1]), final)[0].tolist() == [UNASSIGNED, "B cell"]


def test_a_warning_says_why_most_unassigned_cells_are() -> None:
    reasons = np.array(["low_information"] * 3 + ["novel"] + [""] * 4, dtype=object)
    final = np.where(reasons == "", "B cell", UNASSIGNED).astype(object)
    (warning,) = annotation_info.annotation_warnings(Decision(final, final, reasons), None)
    assert warning.startswith(
        "50% of the cells are unassigned (low_information: 3 of 4): they have too few counts"
    )
    assert set(annotation_info.WHY_UNASSIGNED) == set(REASONS)


def test_the_same_seed_gives_the_same_table_byte_for_byte(flat, tmp_path):
    for name in ("one", "two"):
        run(tmp_path / name, OutputNames.of(), seed=4)
    one, two = ((tmp_path / name / "p.tsv.gz").read_bytes() for name in ("one", "two"))
    assert one == two and len(gzip.decompress(one).splitlines()) == 91


def test_prefix_type_and_run_name_make_the_keys(flat, tmp_path):
    adata, info = run(tmp_path, OutputNames.of("abc", "tissue", "run1"))
    assert {"abc_tissue_run1_predicted", "abc_tissue_run1_lineage"} <= set(adata.obs)
    assert {"abc_tissue_run1", "X_abc_tissue_run1_umap"} <= set(adata.obsm)
    assert not [key for key in (*adata.obs, *adata.obsm, *adata.uns) if "cxg" in key]
    assert info["names"]["final"] == "abc_tissue_run1_final"


def test_another_run_name_adds_and_the_same_name_replaces(flat, tmp_path):
    first = tmp_path / "first" / "a.h5ad"
    run(tmp_path / "first", OutputNames.of(run_name="one"))
    both, _ = run(tmp_path / "second", OutputNames.of(run_name="two"), counts=first, classifier="logistic")
    assert {"cxg_cell_type_one_predicted", "cxg_cell_type_two_predicted"} <= set(both.obs)
    again, _ = run(tmp_path / "third", OutputNames.of(run_name="one"), counts=first, classifier="logistic")
    assert list(again.obs).count("cxg_cell_type_one_predicted") == 1
    said = json.loads(again.uns["cxg_cell_type_one_predictions"]["parameters"])
    assert said["classifier"] == "logistic"
    assert set(again.obs) == set(anndata.read_h5ad(first).obs)


def test_what_explorer_will_not_show_of_the_whole_file_is_a_warning_once(flat, tmp_path, monkeypatch, capsys):
    # The sample's own column `published` has five labels, ours one value more.
    monkeypatch.setattr("cellscribe.explorer.MOST_VALUES", 4)
    _, info = run(tmp_path, OutputNames.of())
    (told,) = [warning for warning in info["warnings"] if "CELLxGENE Explorer" in warning]
    assert "'published' (5)" in told and "'cxg_cell_type_predicted' (5)" in told
    assert capsys.readouterr().err.count(told) == 1


def test_nothing_of_another_model_stays_under_the_same_name(flat, tmp_path):
    first = tmp_path / "first" / "a.h5ad"
    run(tmp_path / "first", OutputNames.of())
    again, _ = run(tmp_path / "second", OutputNames.of(), counts=first, kind="logistic")
    assert "cxg_cell_type_ref_distance" not in again.obs
    assert "X_cxg_cell_type_ref_umap" not in again.obsm
    assert "published" in again.obs


def test_a_model_without_reference_gives_all_but_the_place_in_it(flat, tmp_path):
    adata, info = run(tmp_path, OutputNames.of(), kind="logistic")
    names = OutputNames.of()
    assert (adata.obs[names.predicted].astype(str) == adata.obs["published"].astype(str)).mean() > 0.9
    assert adata.obsm[names.embedding].shape == (90, 5)
    assert names.reference_distance not in adata.obs and names.reference_umap not in adata.obsm
    assert info["reference_distance"] is None


def test_a_classifier_that_the_model_lacks_is_an_error(flat, tmp_path):
    with pytest.raises(InputError, match="no classifier 'trees'"):
        run(tmp_path, OutputNames.of(), kind="logistic", classifier="trees")
    assert not (tmp_path / "a.h5ad").exists()


def test_names_that_hdf5_would_split_are_refused():
    for parts in (("a/b",), ("", "", ""), ("cxg", "cell_type", "../x")):
        with pytest.raises(InputError, match="cannot name the new columns"):
            OutputNames.of(*parts)


@pytest.mark.parametrize("name", ["ref", "final", "umap"])
def test_a_run_name_that_would_take_an_unnamed_runs_names_is_refused(name):
    with pytest.raises(InputError, match="which a run without a name has already"):
        OutputNames.of(run_name=name)


# Several models ----------------------------------------------------------------------------------


def test_a_model_that_an_older_state_trained_has_no_novelty_and_says_so(tmp_path):
    folder = shutil.copytree(small_model("consensus"), tmp_path / "model")
    (folder / "profiles.safetensors").unlink()
    manifest = json.loads((folder / "manifest.json").read_text())
    del manifest["files"]["profiles.safetensors"], manifest["novelty"]["means"], manifest["novelty"]["levels"]
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with mock.patch("cellscribe.answer.FEWEST_CELLS", 90):
        older, newer = (
            answer_cells(map_cells(open_counts(small_counts()), model), model)
            for model in (Model(folder), Model(small_model("consensus")))
        )
    assert older.novelty is None and OLDER in older.warnings
    assert newer.novelty is not None and OLDER not in newer.warnings
    np.testing.assert_array_equal(older.predicted, newer.predicted)


def test_a_sample_of_too_few_cells_for_novelty_says_so(monkeypatch):
    counts = open_counts(small_counts())
    models = [Model(small_model(kind)) for kind in ("consensus", "logistic")]
    few, without = (answer_cells(map_cells(counts, model), model) for model in models)
    (said,) = [one for one in few.warnings if "novelty is not judged" in one]
    assert said.startswith("With 90 cells novelty is not judged (from 100 cells on)")
    assert few.novelty is None and few.parameters["novelty_from_cells"] == 100
    # A model that never has one need not say so of each sample.
    assert "novelty_from_cells" not in without.parameters and "novelty" not in " ".join(without.warnings)
    spared = answer_cells(map_cells(counts, models[0]), models[0], strictness=Strictness(reject_novel=False))
    assert "novelty is not judged" not in " ".join(spared.warnings)
    monkeypatch.setattr("cellscribe.answer.FEWEST_CELLS", 90)
    enough = answer_cells(map_cells(counts, models[0]), models[0])
    assert enough.novelty is not None and "novelty_from_cells" not in enough.parameters


@pytest.mark.parametrize("n_taught", [0, 4, 5])
def test_cells_that_the_model_learned_from_are_noticed(n_taught):
    """A sample of new cells and of some of the reference's own."""
    model = Model(small_model("consensus"))
    taught, new = simulate(300, seed=0)[:n_taught], simulate(60, seed=9)
    query = anndata.concat([taught, new], merge="first") if n_taught else new
    mapping = map_cells(CountsInMemory(sp.csr_matrix(query.X, dtype=np.float32), query.var), model)
    said = [one for one in answer_cells(mapping, model).warnings if "the model learned from" in one]
    assert said == [] if n_taught < 5 else said[0].startswith("5 of the 65 cells are among those")


def test_a_model_without_an_embedding_recognises_no_cells():
    model, taught = Model(small_model("logistic")), simulate(300, seed=0)
    mapping = map_cells(CountsInMemory(sp.csr_matrix(taught.X, dtype=np.float32), taught.var), model)
    warnings = answer_cells(mapping, model).warnings
    assert not [one for one in warnings if "the model learned from" in one]


def test_a_sample_without_most_of_the_genes_has_no_novelty(monkeypatch):
    monkeypatch.setattr("cellscribe.answer.FEWEST_CELLS", 90)
    model, cells = Model(small_model("consensus")), simulate(90, seed=1)
    by_mean = model.genes.sort_values("mean", ascending=False)["gene_id"]
    for gone, judged in ((by_mean.tail(30), True), (by_mean.head(60), False)):
        kept = cells[:, ~cells.var["gene_ids"].isin(gone)]
        mapping = map_cells(CountsInMemory(kept.X.tocsr(), kept.var), model, min_gene_overlap=0)
        assert (mapping.info["expression_overlap"] >= 0.5) == judged
        assert (answer_cells(mapping, model).novelty is not None) == judged


@pytest.fixture(scope="module")
def by_two(flat):
    with mock.patch("cellscribe.answer.FEWEST_CELLS", 90):
        return run(scratch() / "by_two", OutputNames.of(), kind="consensus+logistic")


def test_each_of_several_models_has_its_columns_and_the_consensus_the_plain_names(by_two, annotated):
    adata, info = by_two
    names, (alone, _) = OutputNames.of(), annotated
    own = [names.of_model("small_1_0"), names.of_model("small_1_0_2")]
    each = {column.replace(names.key, key.key) for key in own for column in alone.obs if names.key in column}
    # sets of labels are each model's own, and a regression has no embedding to tell what is strange in
    missing = {names.set_size, own[1].reference_distance, own[1].novelty}
    assert (set(alone.obs) | {names.agreeing} | each) - missing == set(adata.obs)
    for key in (names, *own):
        assert (adata.obs[key.predicted].astype(str) == adata.obs["published"].astype(str)).mean() > 0.9
        assert {key.embedding, key.umap, key.umap_explorer} <= set(
            adata.obsm
        ) and key.predictions in adata.uns
    assert set(adata.obs[names.agreeing]) <= {0, 1, 2} and adata.obs[names.agreeing].mean() > 1.5
    np.testing.assert_array_equal(adata.obsm[names.embedding], adata.obsm[own[0].embedding])
    np.testing.assert_array_equal(adata.obsm[names.umap], adata.obsm[own[0].umap])
    assert (
        adata.obs[names.final].isin([*adata.obs[names.predicted].cat.categories, UNASSIGNED, "T cell"]).mean()
        > 0.9
    )
    np.testing.assert_array_equal(
        adata.obs[own[0].uncertainty].to_numpy(), alone.obs[names.uncertainty].to_numpy()
    )
    assert info["model"]["name"] == "small 1.0 + small 1.0"
    assert [part["names"]["final"] for part in info["models"]] == [key.final for key in own]
    # Each model has causes of its own; together they have none.
    assert "novel_by" not in info and all("novel_by" in part for part in info["models"])
    assert info["names"]["agreeing"] == names.agreeing
    said = adata.uns[names.predictions]
    assert info["labels"] == list(said["labels"]) and len(info["cl_ids"]) == len(info["labels"])
    assert said["model_url"] == "https://example.org/consensus, https://example.org/logistic"
    (pair,) = info["agreement"]["pairs"]
    assert pair["same"] > 0.9 and sum(
        pair[key] for key in ("same", "broader", "contradict")
    ) == pytest.approx(1)
    rows = info["agreement"]["labels"]
    assert sum(row["n_cells"] for row in rows) == 90
    # Of 18 cells that are each other's neighbours, one model may call all novel, and so name none.
    assert sum(row["models"][0]["agree"] > 0.5 for row in rows) >= len(rows) - 1


def test_the_table_of_predictions_has_each_models_answer(by_two):
    adata, _ = by_two
    table = pd.read_csv(scratch() / "by_two" / "p.tsv.gz", sep="\t", keep_default_na=False)
    for key in ("small_1_0", "small_1_0_2"):
        for column in ("predicted", "final"):
            assert (
                table[f"{key}_{column}"].tolist()
                == adata.obs[f"cxg_cell_type_{key}_{column}"].astype(str).tolist()
            )
        assert table[f"{key}_uncertainty"].between(0, 1).all()
    assert table["agreeing_models"].tolist() == adata.obs["cxg_cell_type_agreeing_models"].tolist()


def test_one_model_after_several_leaves_nothing_of_them(flat, by_two, tmp_path):
    again, _ = run(tmp_path, OutputNames.of(), counts=scratch() / "by_two" / "a.h5ad", kind="logistic")
    plain, _ = run(tmp_path / "plain", OutputNames.of(), kind="logistic")
    assert set(again.obs) == set(plain.obs)
    assert (set(again.obsm), set(again.uns)) == (set(plain.obsm), set(plain.uns))


def test_the_same_model_twice_is_refused(flat, tmp_path):
    with pytest.raises(InputError, match="is given twice"):
        run(tmp_path, OutputNames.of(), kind="logistic+logistic")


def test_names_of_several_models_are_unique_and_fit_for_keys():
    def keys(*models):
        return annotate.model_keys(
            [
                SimpleNamespace(model={"name": name, "version": version}, levels={"lineage": ()})
                for name, version in models
            ],
            OutputNames.of(),
        )

    assert keys(("pbmc", "1.0"), ("lung", "2")) == ["pbmc", "lung"]
    assert keys(("pbmc", "1.0"), ("pbmc", "2.0")) == ["pbmc_1_0", "pbmc_2_0"]
    assert keys(("pbmc", "1.0"), ("pbmc", "1.0")) == ["pbmc_1_0", "pbmc_1_0_2"]
    assert keys(("umap", "1.0"), ("a/b c", "1"), ("/", "")) == ["umap_1_0", "a_b_c", "model"]
    # Each of these would make a key that stands for something else already.
    assert keys(("lung", "1"), ("lung_ref", "1")) == ["lung", "lung_ref_1"]
    assert keys(("lung", "1"), ("lung_final", "1")) == ["lung", "lung_final_1"]
    assert keys(("pbmc", "1"), ("ref", "1"), ("final", "1"), ("lineage", "1")) == [
        "pbmc",
        "ref_1",
        "final_1",
        "lineage_1",
    ]


# Odd samples -------------------------------------------------------------------------------------


def whole_way(cells, folder, kind="consensus"):
    folder.mkdir(parents=True, exist_ok=True)
    counts = write_counts(cells, folder / "c.h5ad")
    run_map(counts, small_model(kind), folder / "m.h5ad")
    return run(folder, OutputNames.of(), kind=kind, counts=counts, mapping=folder / "m.h5ad")


@pytest.mark.parametrize("n", [1, 2, 9, 10, 12])
def test_tiny_samples_work_end_to_end(tmp_path, n):
    adata, info = whole_way(simulate(n, seed=1), tmp_path)
    assert adata.obsm["cxg_cell_type_umap"].shape == (n, 2)
    assert np.isfinite(adata.obsm["cxg_cell_type_umap"]).all()
    assert (adata.obs["cxg_cell_type_predicted"].astype(str) == adata.obs["published"].astype(str)).all()
    assert bool([w for w in info["warnings"] if "no clusters and no UMAP" in w]) == (n < 10)
    assert sum(cluster["n_cells"] for cluster in info["clusters"]) == n


def test_a_single_cell_of_a_logistic_model_works_too(tmp_path):
    adata, _ = whole_way(simulate(1, seed=1), tmp_path, "logistic")
    assert adata.obs["cxg_cell_type_predicted"].tolist() == ["B cell"]


def test_empty_cells_are_named_but_not_trusted(flat, tmp_path):
    cells = simulate(30, seed=1)
    keep = np.ones(30, dtype=np.float32)
    keep[[3, 4]] = 0
    cells.X = (sp.diags(keep) @ cells.X).tocsr()
    cells.X.eliminate_zeros()
    adata, info = whole_way(cells, tmp_path)
    obs = adata.obs.iloc[[3, 4]]
    assert obs["cxg_cell_type_reason"].tolist() == ["low_information"] * 2
    assert obs["cxg_cell_type_final"].tolist() == [UNASSIGNED] * 2
    assert obs["cxg_cell_type_predicted"].notna().all()
    assert info["reasons"]["low_information"] == 2
    assert np.isfinite(adata.obsm["cxg_cell_type"]).all()


def test_identical_cells_get_the_same_label_and_a_finite_map(tmp_path):
    cells = simulate(1, seed=1)[[0] * 40].copy()
    cells.obs_names = [f"c{i}" for i in range(40)]
    adata, _ = whole_way(cells, tmp_path)
    assert adata.obs["cxg_cell_type_predicted"].nunique() == 1
    assert adata.obs["cxg_cell_type_predicted_uncertainty"].std() < 1e-6
    assert np.isfinite(adata.obsm["cxg_cell_type_umap"]).all()


def test_cells_unlike_the_reference_are_novel_and_said_to_be(flat, tmp_path):
    cells = simulate(60, seed=1)
    cells.X = sp.csr_matrix(np.random.default_rng(0).permuted(cells.X.toarray(), axis=1) * 3)
    _, info = whole_way(cells, tmp_path)
    assert info["reasons"].get("novel", 0) > 30 and max(info["novel_by"].values()) > 0
    assert info["reference_distance"]["share_beyond_99"] > 0.5
    assert any("unassigned" in warning for warning in info["warnings"])
    assert any("farther from the reference" in warning for warning in info["warnings"])


# A mapping of something else ---------------------------------------------------------------------


def test_a_mapping_of_other_cells_or_of_another_model_is_refused(tmp_path):
    cells, mapping = open_counts(small_counts()), read_mapping(small_mapping("consensus"))
    model = Model(small_model("consensus"))
    annotate.check_same(cells, mapping, model, tmp_path)
    fewer = dataclasses.replace(mapping, n_model_counts=mapping.n_model_counts[:-1])
    shuffled = dataclasses.replace(mapping, barcodes=mapping.barcodes[::-1])
    for other, said in ((fewer, "has 89 cells, the counts have 90"), (shuffled, "another order")):
        with pytest.raises(InputError, match=said):
            annotate.check_same(cells, other, model, tmp_path)
    with pytest.raises(InputError, match="with another model than 'small"):
        annotate.check_same(cells, mapping, Model(small_model("logistic")), tmp_path)
