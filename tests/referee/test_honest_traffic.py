"""Honest traffic looks like what it is made from, the same for a seed, and detectors let it pass."""

from __future__ import annotations

import numpy as np
import pytest

from defenses.detection import Detection, Distances, Fingerprints
from oracle_server.victims.splits import load, split_named
from referee.honest_traffic import GENERATORS, false_alarms, frames, honest_images, photos

SPLIT = split_named("att20")


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    """Real faces that no target has learned."""
    return honest_images(SPLIT)


def nearest(rows: np.ndarray) -> np.ndarray:
    """Root mean square difference of each row from the second on to the nearest before it."""
    flat = rows.reshape(len(rows), -1).astype(np.float64)
    square = (flat**2).sum(1)
    gaps = square[:, None] + square - 2 * flat @ flat.T
    return np.array([gaps[i, :i].min() for i in range(1, len(rows))]).clip(0) ** 0.5 / flat.shape[1] ** 0.5


def test_images_are_those_that_no_target_has_learned(images: np.ndarray) -> None:
    learned = load(SPLIT).images[np.array(SPLIT.target)]
    assert images.shape == (240, 1, 64, 64)
    assert not {row.tobytes() for row in images} & {row.tobytes() for row in learned}


@pytest.mark.parametrize("name", GENERATORS)
def test_rows_are_legal_and_belong_to_their_seed(name: str, images: np.ndarray) -> None:
    rows = GENERATORS[name](images, 130, 3)
    assert rows.shape == (130, 1, 64, 64)
    assert rows.dtype == np.float32
    assert 0 <= rows.min() < 0.2
    assert 0.8 < rows.max() <= 1
    np.testing.assert_allclose(rows * 255, np.rint(rows * 255), atol=1e-3)
    assert (GENERATORS[name](images, 130, 3) == rows).all()
    assert (GENERATORS[name](images, 130, 4) != rows).any()


def test_one_photo_in_twenty_is_asked_again(images: np.ndarray) -> None:
    near = np.concatenate([nearest(photos(images, 400, seed)) for seed in range(4)])
    assert 0.03 < (near < 0.03).mean() < 0.08  # a binomial share of 0.05 among 1,596
    assert 0.3 < (near[near < 0.03] < 1e-4).mean() < 0.7  # the same file, for every other one


def test_frames_move_a_little_and_scenes_change(images: np.ndarray) -> None:
    near = nearest(frames(images, 600, 0))
    assert 5 <= (near > 0.05).sum() <= 30  # at most one for each scene, of 20 to 120 frames
    assert np.median(near) < 0.03


@pytest.mark.parametrize("detector", [Fingerprints(), Distances()])
@pytest.mark.parametrize("name", GENERATORS)
def test_nothing_is_flagged(name: str, detector: Detection, images: np.ndarray) -> None:
    """A small part of what the figures count over 100,000 rows."""
    assert false_alarms(detector, GENERATORS[name], 1000, images=images, key_rows=500, seed=7) == 0


@pytest.mark.parametrize(
    ("detector", "name"),
    [
        (Fingerprints(alike=1, threshold=1), "photos"),  # as soon as one file comes again
        (Fingerprints(alike=1, threshold=10), "frames"),
        (Distances(delta=0.99, least=50), "frames"),  # not normal enough
        (Distances(width=0.5, least=50), "photos"),  # not wide enough
    ],
)
def test_detectors_that_are_too_eager_are_caught(detector: Detection, name: str, images: np.ndarray) -> None:
    assert false_alarms(detector, GENERATORS[name], 600, images=images, key_rows=300) > 0


def test_what_is_no_photo_is_flagged(images: np.ndarray) -> None:
    """A control for the generators: made-up inputs in their place are found, by one detector or the other."""

    def made_up(images: np.ndarray, rows: int, seed: int) -> np.ndarray:
        return np.random.default_rng(seed).random((rows, *images.shape[1:]), dtype=np.float32)

    def around_one(images: np.ndarray, rows: int, seed: int) -> np.ndarray:
        moved = np.random.default_rng(seed).normal(0, 0.003, (rows, *images.shape[1:]))
        return np.asarray(images[seed] + moved, np.float32)

    assert false_alarms(Distances(), made_up, 600, images=images, key_rows=300) > 0
    assert false_alarms(Fingerprints(), around_one, 600, images=images, key_rows=300) > 0
