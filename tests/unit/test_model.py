"""A model folder in memory."""

import copy
import shutil
from pathlib import Path

import numpy as np
import pytest
from small_model import TYPES, simulate, small_counts, small_mapping, small_model

from cellscribe.answer import classify
from cellscribe.counts_file import open_counts
from cellscribe.errors import InputError, ModelFetchError
from cellscribe.mapping import map_cells, read_mapping
from cellscribe.model.calibration import pool
from cellscribe.model.manifest import MANIFEST, write_manifest
from cellscribe.model.model import LIKELIHOOD, LOGISTIC, NEIGHBOURS, TREES, Model, Reference, rarity_weights


@pytest.fixture(scope="module")
def consensus() -> Model:
    return Model(small_model("consensus"))


@pytest.fixture(scope="module")
def members(consensus):
    mapping = read_mapping(small_mapping("consensus"))
    return consensus.member_probabilities(**mapping.arrays())


def test_labels_ids_and_members_are_those_trained(consensus):
    assert consensus.labels == list(TYPES)
    assert consensus.cl_ids[0] == "CL:0000236"
    assert tuple(consensus.members) == (NEIGHBOURS, TREES, LOGISTIC, LIKELIHOOD)
    assert consensus.name == "small 1.0"
    assert set(consensus.markers) == set(TYPES)


def test_genes_are_read_as_text_and_weigh_together_one(consensus):
    assert consensus.genes.columns.tolist() == ["gene_id", "symbol", "mean", "importance"]
    assert consensus.genes["importance"].sum() == pytest.approx(1, abs=1e-3)
    assert set(consensus.genes["symbol"]) <= set(simulate(5).var_names)
    assert consensus.encoder.weights[0].shape[0] == len(consensus.genes)


def test_every_member_gives_probabilities_and_knows_the_cells(consensus, members):
    truth = np.array([consensus.labels.index(label) for label in simulate(90, seed=1).obs["cell_type"]])
    for name in consensus.members:
        np.testing.assert_allclose(members[name].sum(axis=1), 1, atol=1e-6)
        assert (members[name].argmax(axis=1) == truth).mean() > 0.9


def test_votes_are_weighed_by_the_neighbours_that_there_are_and_not_by_all_that_taught(consensus):
    """A draw of neighbours has more of rare labels than the reference had, and they would be raised twice."""
    model = Model(consensus.folder)
    for i, label in enumerate(model.manifest["labels"]):
        label["n_cells"] = 10 ** (i + 1)
    expected = rarity_weights(np.bincount(model.reference.codes, minlength=5))
    np.testing.assert_array_equal(model.label_weights(), expected)


@pytest.mark.parametrize("classifier", ["consensus", "scvi", "neighbours", "trees", "logistic"])
def test_every_classifier_of_a_consensus_gives_calibrated_probabilities(consensus, members, classifier):
    pooled = consensus.pooled(members, classifier)
    assert pooled.shape == (90, 5)
    np.testing.assert_allclose(pooled.sum(axis=1), 1)


def test_a_label_of_few_cells_is_raised_and_a_model_made_before_that_is_used_as_it_was(consensus, members):
    calibration = consensus.manifest["calibration"]["consensus"]
    assert list(calibration["label_offsets"]) == consensus.labels
    without = {key: value for key, value in calibration.items() if key != "label_offsets"}
    last = consensus.labels[-1]
    offsets = dict.fromkeys(consensus.labels, 0.0)
    plain, same, raised = (
        model_with(consensus, fitted).pooled(members, "consensus")
        for fitted in (
            without,
            without | {"label_offsets": offsets},
            without | {"label_offsets": offsets | {last: 0.5}},
        )
    )
    np.testing.assert_array_equal(plain, same)
    odds = [found[:, -1] / found[:, 0] for found in (plain, raised)]
    np.testing.assert_allclose(odds[1], odds[0] * np.exp(0.5), rtol=1e-6)


def model_with(model: Model, calibration: dict) -> Model:
    """The model with another calibration of its consensus."""
    other = copy.copy(model)
    other.manifest = model.manifest | {
        "calibration": model.manifest["calibration"] | {"consensus": calibration}
    }
    return other


def test_the_default_is_the_fullest_classifier_that_the_model_has(consensus):
    assert consensus.classifier() == "consensus"
    assert consensus.classifier("trees") == "trees"
    assert Model(small_model("logistic")).classifier() == "logistic"


def test_a_classifier_that_a_model_lacks_is_an_error_that_lists_those_it_has():
    with pytest.raises(InputError, match="no classifier 'trees'; it has: default, logistic"):
        Model(small_model("logistic")).classifier("trees")


def test_a_folder_without_manifest_is_refused(tmp_path):
    with pytest.raises(ModelFetchError, match=r"manifest\.json"):
        Model(tmp_path)


def test_a_reference_is_kept_to_a_thousandth_and_its_quantiles_go_from_0_to_1(tmp_path):
    rng = np.random.default_rng(0)
    reference = Reference(
        rng.normal(size=(20, 3)).astype(np.float32),
        np.arange(20) % 4,
        rng.normal(size=(20, 2)).astype(np.float32),
        np.linspace(1, 2, 1001).astype(np.float32),
    )
    reference.save(tmp_path / "r.safetensors")
    again = Reference.load(tmp_path / "r.safetensors")
    np.testing.assert_allclose(again.latent, reference.latent, rtol=1e-3, atol=1e-3)
    np.testing.assert_array_equal(again.codes, reference.codes)
    np.testing.assert_allclose(
        again.quantile(np.array([0.0, 1.5, 2.0, 9.0], dtype=np.float32)), [0, 0.5, 1, 1], atol=2e-3
    )


def test_rare_labels_weigh_more_but_never_more_than_ten_times():
    weights = rarity_weights(np.array([1000, 100, 1, 0]))
    assert (np.diff(weights) >= 0).all() and weights[0] < 1
    assert weights[2] == weights[3] == 10
    np.testing.assert_allclose(rarity_weights(np.array([5, 5])), 1)


def test_a_consensus_made_before_the_likelihood_is_used_as_it_was(consensus, members, tmp_path):
    folder = Path(shutil.copytree(consensus.folder, tmp_path / "before", copy_function=shutil.copyfile))
    (folder / "likelihood.safetensors").unlink()
    (folder / MANIFEST).unlink()
    fields = copy.deepcopy(consensus.manifest)
    fields["members"] = [member for member in fields["members"] if member["name"] != LIKELIHOOD]
    before = fields["calibration"]["consensus"]
    for part in (before, *before["fewer_genes"]):
        del part["weights"][LIKELIHOOD]
    write_manifest(folder, fields)
    model = Model(folder)
    model.check()
    assert model.classifiers["consensus"] == (NEIGHBOURS, TREES, LOGISTIC)
    mapping = map_cells(open_counts(small_counts()), model)
    assert mapping.likelihood_scores is None
    names = (NEIGHBOURS, TREES, LOGISTIC)
    expected = pool(
        [members[name] for name in names],
        np.array([before["weights"][name] for name in names]),
        np.array([before["label_offsets"][label] for label in model.labels]),
    )
    np.testing.assert_allclose(classify(mapping, model, "consensus"), expected, atol=1e-5)


def test_a_member_without_weight_is_not_asked_and_changes_nothing(consensus, members):
    fitted = copy.deepcopy(consensus.manifest["calibration"]["consensus"])
    fitted["weights"] = {NEIGHBOURS: 0.4, TREES: 0.0, LOGISTIC: 1.0, LIKELIHOOD: 0.3}
    changed = copy.deepcopy(consensus.manifest)
    changed["calibration"]["consensus"] = fitted
    model = Model(consensus.folder)
    model.manifest = changed
    assert model.asked("consensus") == (NEIGHBOURS, LOGISTIC, LIKELIHOOD)
    found = classify(read_mapping(small_mapping("consensus")), model, "consensus")
    assert "trees" not in vars(model)
    names = model.classifiers["consensus"]
    everyone = pool(
        [members[name] for name in names],
        np.array([fitted["weights"][name] for name in names]),
        np.array([fitted["label_offsets"][label] for label in model.labels]),
    )
    np.testing.assert_array_equal(found, everyone.astype(np.float32))
    fitted["weights"] = dict.fromkeys(names, 0.0)
    assert model.asked("consensus") == names
