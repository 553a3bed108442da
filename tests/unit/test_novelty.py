"""Strange cells are told from known ones, by distance or by doubt, and as seldom by mistake as is said."""

import numpy as np
import pytest

from cellscribe.clusters import neighbour_graph
from cellscribe.model.novelty import FALSE_ALARMS, TypeSpace, entropy_of, fit_null, novelty, strangeness

CENTRES = np.array([[4.0, 0, 0, 0], [0, 4.0, 0, 0], [0, 0, 4.0, 0]])


def cells(rng: np.random.Generator, n: int, centres: np.ndarray = CENTRES) -> tuple[np.ndarray, np.ndarray]:
    codes = np.arange(n) % len(centres)
    return centres[codes] + rng.normal(size=(n, 4)), codes


def probabilities(latent: np.ndarray) -> np.ndarray:
    scores = -0.5 * np.square(latent[:, None] - CENTRES).sum(axis=2)
    shifted = np.exp(scores - scores.max(axis=1, keepdims=True))
    return shifted / shifted.sum(axis=1, keepdims=True)


def signs(space: TypeSpace, latent: np.ndarray) -> np.ndarray:
    near, _ = neighbour_graph(latent.astype(np.float32))
    return strangeness(space.distances(latent), entropy_of(probabilities(latent)), near)


@pytest.fixture(scope="module")
def trained() -> tuple[TypeSpace, dict]:
    rng = np.random.default_rng(0)
    space = TypeSpace.of(*cells(rng, 600))
    # Held-out batches, each shifted as a whole.
    return space, fit_null([signs(space, cells(rng, 400)[0] + rng.normal(0, 0.1, 4)) for _ in range(8)])


def test_distance_is_that_of_mahalanobis_to_the_nearest_type():
    rng = np.random.default_rng(1)
    latent, codes = cells(rng, 300)
    latent[:, 3] *= 5
    space = TypeSpace.of(latent, codes)
    inside = latent - np.stack([latent[codes == c].mean(axis=0) for c in range(3)])[codes]
    spread = inside.T @ inside / 297
    spread += np.eye(4) * 1e-3 * np.trace(spread) / 4
    asked = rng.normal(size=(5, 4)) * 3
    expected = [
        min(np.sqrt((row - c) @ np.linalg.inv(spread) @ (row - c)) for c in space.centres) for row in asked
    ]
    np.testing.assert_allclose(space.distances(asked), expected, rtol=1e-9)


def test_known_cells_of_a_new_batch_are_called_strange_as_seldom_as_is_said(trained):
    space, null = trained
    rng = np.random.default_rng(2)
    rates = [
        (novelty(signs(space, cells(rng, 400)[0] + rng.normal(0, 0.1, 4)), null) >= 1 - FALSE_ALARMS).mean()
        for _ in range(6)
    ]
    assert np.mean(rates) < 2 * FALSE_ALARMS


@pytest.mark.parametrize(
    ("place", "what"), [([0.0, 0, 0, 9.0], "far from every type"), ([2.0, 2.0, 0, 0], "between two types")]
)
def test_a_type_that_the_model_lacks_is_strange(trained, place, what):
    space, null = trained
    rng = np.random.default_rng(3)
    known, new = cells(rng, 360)[0], np.array(place) + rng.normal(size=(40, 4))
    found = novelty(signs(space, np.concatenate([known, new])), null)
    assert (found[-40:] >= 1 - FALSE_ALARMS).mean() > 0.7, what
    assert (found[:360] >= 1 - FALSE_ALARMS).mean() < 0.1


def test_batches_count_the_same_however_many_cells_they_have():
    rng = np.random.default_rng(4)
    calm, wild = rng.normal(0, 1, (10_000, 2)), rng.normal(0, 4, (100, 2))
    assert fit_null([calm, wild])["deviations"][0] == pytest.approx(np.sqrt((1 + 16) / 2), rel=0.2)


def test_novelty_is_a_share_of_known_cells():
    rng = np.random.default_rng(5)
    null = fit_null([rng.normal(size=(5_000, 2))])
    sample = np.concatenate([[[-9.0, -9.0], [0.0, 0.0], [9.0, 9.0]], rng.normal(size=(1_000, 2))])
    found = novelty(sample, null)
    assert found[0] == 0 and found[1] == pytest.approx(0.5, abs=0.05) and found[2] == 1


def test_a_sample_of_more_contrast_is_not_full_of_strangers_and_its_strangers_are_found():
    rng = np.random.default_rng(6)
    null = fit_null([rng.normal(size=(2_000, 2)) for _ in range(4)])
    known, strangers = 3 * rng.normal(size=(900, 2)), np.full((100, 2), 9.0)
    found = novelty(np.concatenate([known, strangers]), null) >= 1 - FALSE_ALARMS
    assert found[:900].mean() < 0.04 and found[900:].mean() > 0.9
