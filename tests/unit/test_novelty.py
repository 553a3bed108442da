"""Strange cells are told from known ones, by their profile or by doubt, and as seldom by mistake as is said."""

from dataclasses import dataclass

import numpy as np
import pytest
import scipy.sparse as sp

from cellscribe.clusters import neighbour_graph
from cellscribe.model import profiles as profiles_module
from cellscribe.model.logistic import log_normalise
from cellscribe.model.novelty import (
    FALSE_ALARMS,
    FEWEST_OF_A_LABEL,
    Signs,
    entropy_of,
    fit_null,
    in_common,
    novelty,
    scores_of,
    strangeness,
)
from cellscribe.model.profiles import N_NUMBERS, N_PLACES, Profiles

NAMES = [f"label {number}" for number in range(5)]
N_GENES = 200
UNIT = np.eye(N_GENES)
# Of each label its own ten genes; of a type that the model lacks, ten others.
CENTRES = np.array([UNIT[10 * i : 10 * i + 10].sum(axis=0) * 3 for i in range(6)])
KNOWN, NEW = CENTRES[:5], CENTRES[5]


@dataclass(frozen=True)
class Sample:
    """Log-normalised expression of cells, (n_cells, n_genes), and how often each label is there."""

    expression: np.ndarray
    profiles: Profiles

    def signs(self) -> Signs:
        near, _ = neighbour_graph((self.expression @ UNIT[:, :60]).astype(np.float32))
        scores = -0.5 * np.square(self.expression[:, None] - KNOWN).sum(axis=2)
        shifted = np.exp((scores - scores.max(axis=1, keepdims=True)) / 20)
        probabilities = shifted / shifted.sum(axis=1, keepdims=True)
        of_labels = self.profiles.of_labels(np.ones(N_GENES, dtype=bool))
        sketches = (self.expression @ self.profiles.projection).astype(np.float16)
        return strangeness(sketches, of_labels, probabilities, entropy_of(probabilities), near)


def sample(rng: np.random.Generator, profiles: Profiles, *centres: np.ndarray, n: int = 60) -> Sample:
    """So many cells of each centre, all moved by what is this study's own."""
    study = rng.normal(0, 0.3, N_GENES)
    cells = np.repeat(np.array(centres), n, axis=0)
    return Sample(cells + study + rng.normal(size=cells.shape), profiles)


@pytest.fixture(scope="module")
def profiles() -> Profiles:
    return Profiles.of(KNOWN, np.ones(N_GENES))


@pytest.fixture(scope="module")
def null(profiles: Profiles) -> dict:
    rng = np.random.default_rng(0)
    parts = [sample(rng, profiles, *KNOWN).signs() for _ in range(8)]
    return fit_null([(signs, np.ones(len(signs.labels), dtype=bool)) for signs in parts], NAMES)


def strange(of: Sample, null: dict) -> np.ndarray:
    return novelty(of.signs(), null, NAMES) >= 1 - null["false_alarms"]


def test_known_cells_of_a_new_study_are_called_strange_as_seldom_as_is_said(profiles, null):
    rng = np.random.default_rng(2)
    rates = [strange(sample(rng, profiles, *KNOWN), null).mean() for _ in range(6)]
    assert null["false_alarms"] == FALSE_ALARMS and np.mean(rates) < 2 * FALSE_ALARMS


@pytest.mark.parametrize(
    ("centre", "what"), [(NEW, "expresses other genes"), (KNOWN[:2].mean(axis=0), "between two types")]
)
def test_a_type_that_the_model_lacks_is_strange(profiles, null, centre, what):
    rng = np.random.default_rng(3)
    found = strange(sample(rng, profiles, *KNOWN, centre), null)
    assert found[-60:].mean() > 0.7, what
    assert found[:-60].mean() < 0.1


def test_a_new_type_is_found_where_it_is_half_of_the_sample(profiles, null):
    rng = np.random.default_rng(4)
    found = strange(sample(rng, profiles, *KNOWN, *[NEW] * 5), null)
    assert found[300:].mean() > 0.9 and found[:300].mean() < 0.1


def test_a_sample_of_one_known_type_is_not_strange(profiles, null):
    rng = np.random.default_rng(5)
    assert strange(sample(rng, profiles, KNOWN[2], n=200), null).mean() < 0.1


def test_what_a_sample_has_in_common_is_that_of_its_labels_with_one_voice_each():
    of_labels = np.array([[1.0, 5.0], [2.0, 5.0], [90.0, 5.0]])
    np.testing.assert_array_equal(in_common(of_labels), [2, 5])
    np.testing.assert_array_equal(in_common(of_labels[:1]), [0.5, 2.5])
    np.testing.assert_array_equal(in_common(of_labels[:0]), [0, 0])


def test_labels_of_few_cells_have_no_voice(profiles):
    rng = np.random.default_rng(6)
    expression = np.vstack(
        [rng.normal(size=(FEWEST_OF_A_LABEL - 1, N_GENES)), rng.normal(3, 1, (80, N_GENES))]
    )
    probabilities = np.zeros((len(expression), 5))
    probabilities[:9, 0], probabilities[9:, 1] = 1, 1
    itself = np.arange(len(expression))[:, None]
    sketches = expression @ profiles.projection
    of_labels = np.zeros((5, N_NUMBERS), dtype=np.float32)
    found = strangeness(sketches, of_labels, probabilities, None, itself)
    common = sketches[9:].mean(axis=0) / 2
    np.testing.assert_allclose(
        found.values[:, 0], np.log(np.linalg.norm(sketches - common, axis=1)), rtol=1e-4
    )


def test_batches_count_the_same_however_many_cells_they_have():
    rng = np.random.default_rng(7)
    parts = [(n, rng.normal(0, spread, (n, 2))) for n, spread in ((10_000, 1), (100, 4))]
    signs = [(Signs(values, np.zeros(n, dtype=int)), np.ones(n, dtype=bool)) for n, values in parts]
    assert fit_null(signs, NAMES)["deviations"][0] == pytest.approx(np.sqrt((1 + 16) / 2), rel=0.2)


def test_cells_of_labels_that_were_not_taught_are_no_part_of_the_null():
    rng = np.random.default_rng(8)
    known = np.arange(500) < 400
    values = np.where(known[:, None], 0.0, 50.0) + rng.normal(size=(500, 2))
    signs = Signs(values, np.arange(500) % 2)
    null = fit_null([(signs, known)], NAMES)
    assert null["means"] == pytest.approx([0, 0], abs=0.2) and null["quantiles"][-1] < 20
    assert set(null["levels"]) == set(NAMES[:2])


def test_novelty_is_a_share_of_known_cells():
    rng = np.random.default_rng(9)
    every = np.ones(5_000, dtype=bool)
    null = fit_null([(Signs(rng.normal(size=(5_000, 2)), np.arange(5_000) % 5), every)], NAMES)
    values = np.concatenate([[[-9.0, -9.0], [0.0, 0.0], [9.0, 9.0]], rng.normal(size=(997, 2))])
    found = novelty(Signs(values, np.arange(1_000) % 5), null, NAMES)
    assert found[0] == 0 and found[1] == pytest.approx(0.5, abs=0.05) and found[2] == 1


def test_a_sketch_keeps_how_different_two_profiles_are():
    rng = np.random.default_rng(10)
    means = rng.gamma(1, 1, (4, 1_000))
    profiles = Profiles.of(means, np.full(1_000, 0.5))
    sketches = profiles.of_labels(np.ones(1_000, dtype=bool))
    for one in range(1, 4):
        apart = np.sqrt(np.square(means[0] - means[one]).mean() / 0.52)
        assert np.linalg.norm(sketches[0] - sketches[one]) == pytest.approx(apart, rel=0.2)


def counts_of(n_cells: int, n_genes: int) -> sp.csr_matrix:
    return sp.csr_matrix(np.random.default_rng(0).poisson(0.5, (n_cells, n_genes)).astype(np.float32))


def test_a_gene_is_part_of_few_numbers_and_each_number_has_as_many_genes(monkeypatch):
    profiles = Profiles.of(np.ones((2, 640)), np.ones(640))
    parts = profiles.projection != 0
    assert set(parts.sum(axis=1)) == {N_PLACES}
    assert set(parts.sum(axis=0)) == {640 * N_PLACES // N_NUMBERS}
    logged = log_normalise(counts_of(7, 640))
    monkeypatch.setattr(profiles_module, "BLOCK", 3)
    assert profiles.sketch(logged) == pytest.approx(logged @ profiles.projection, abs=1e-5)


def test_a_projection_by_an_older_release_is_used_as_it_is(tmp_path):
    """Every gene was part of every number, of which there were 128 or 256."""
    dense = np.random.default_rng(1).normal(size=(N_GENES, 128)).astype(np.float16).astype(np.float32)
    Profiles(KNOWN.astype(np.float32), dense).save(tmp_path / "profiles.safetensors")
    read = Profiles.load(tmp_path / "profiles.safetensors")
    logged = log_normalise(counts_of(5, N_GENES))
    assert (read.sketch(logged) == logged @ dense).all()
    assert read.of_labels(np.ones(N_GENES, dtype=bool)).shape == (len(KNOWN), 128)


def test_a_cell_that_lacks_genes_is_held_against_labels_that_lack_them_too():
    rng = np.random.default_rng(11)
    shares = rng.dirichlet(np.full(400, 0.5), size=3)
    counts = sp.csr_matrix(rng.poisson(shares[[1] * 50] * 20_000).astype(np.float32))
    means = np.log1p(shares * 1e4)
    profiles = Profiles.of(means, np.full(400, 0.5))
    found = rng.random(400) < 0.5
    fewer = sp.csr_matrix(counts.toarray() * found)
    assert log_normalise(fewer).mean() != pytest.approx(log_normalise(counts)[:, found].mean())
    cell, of_labels = profiles.sketch(log_normalise(fewer)).mean(axis=0), profiles.of_labels(found)
    apart = np.linalg.norm(of_labels - cell, axis=1)
    assert apart.argmin() == 1 and apart[1] < 0.2 * apart[0]
    whole = profiles.of_labels(np.ones(400, dtype=bool))
    assert np.linalg.norm(whole[1] - cell) > 3 * apart[1]


def test_where_a_samples_labels_lie_far_apart_their_deviations_count_less(null):
    """Another technology moves some types more than others: its types are not unknown for that."""
    rng = np.random.default_rng(12)
    labels = np.repeat(np.arange(5), 60)
    levels = np.array([null["levels"][name] for name in NAMES])
    alike = (
        levels[labels] * null["deviations"]
        + null["means"]
        + rng.normal(0, 0.1, (300, 2)) * null["deviations"]
    )
    moved = np.array([0.0, 1.0, 2.0, 3.0, 4.0])[labels, None] * null["deviations"]
    apart, together = (scores_of(Signs(values, labels), null, NAMES) for values in (alike + moved, alike))
    one_new = np.array([0.0, 0, 0, 0, 4.0])[labels, None] * null["deviations"]
    new = scores_of(Signs(alike + one_new, labels), null, NAMES)
    assert np.median((new - together)[labels == 4]) == pytest.approx(8, abs=0.2)
    assert np.median((apart - together)[labels == 4]) < 4
