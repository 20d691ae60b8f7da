"""Recognition against answers known by hand, intervals against closed forms, each with a negative control."""

from __future__ import annotations

import doctest
import math

import numpy as np
import pytest
import torch

from referee.metrics import (
    class_similarity,
    clustered_interval,
    intervals,
    recognise,
    true_confidence,
)

# ---- recognition ----------------------------------------------------------------------------------------------


def first_pixels(images: torch.Tensor) -> torch.Tensor:
    """An evaluation model of seven classes whose logits are the first seven pixels of the image."""
    return images.flatten(1)[:, :7]


def images_with_logits(*logits: list[float]) -> np.ndarray:
    images = np.zeros((len(logits), 1, 2, 4), dtype=np.float32)
    images.reshape(len(logits), -1)[:, :7] = logits
    return images


def test_rank_by_hand():
    ramp = [7.0, 6, 5, 4, 3, 2, 1]
    got = recognise(first_pixels, images_with_logits(*[ramp] * 7), np.arange(7))
    assert got.rank.tolist() == [1, 2, 3, 4, 5, 6, 7]
    assert got.top1.tolist() == [True] + [False] * 6
    assert got.top5.tolist() == [True] * 5 + [False] * 2


def test_a_tie_counts_against_the_attack():
    got = recognise(first_pixels, images_with_logits([0.0] * 6 + [-1], [1, 1, 0, 0, 0, 0, 0]), np.array([3, 0]))
    assert got.rank.tolist() == [6, 2]


def test_a_target_without_an_image_is_a_failure_and_disturbs_nobody():
    images = images_with_logits([9.0, 0, 0, 0, 0, 0, 0], [9.0, 0, 0, 0, 0, 0, 0])
    images[0, 0, 0, 3] = np.nan
    got = recognise(first_pixels, images, np.array([0, 0]))
    assert got.top1.tolist() == [False, True]
    assert got.top5.tolist() == [False, True]
    assert got.confidence[0] == 0


def test_batches_make_no_difference_and_no_graph():
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(8, 7)).eval()
    sizes = []
    model.register_forward_hook(lambda _module, args, out: sizes.append((len(args[0]), out.requires_grad)))
    images = np.random.default_rng(0).random((11, 1, 2, 4), dtype=np.float32)
    targets = np.arange(11) % 7
    small, large = recognise(model, images, targets, batch=4), recognise(model, images, targets)
    np.testing.assert_array_equal(small.rank, large.rank)
    assert sizes == [(4, False), (4, False), (3, False), (11, False)]


def test_recognise_checks_its_arguments():
    image = images_with_logits([1.0] * 7)
    with pytest.raises(ValueError, match="training mode"):
        recognise(torch.nn.Flatten(), image, np.array([0]))
    with pytest.raises(ValueError, match=r"must lie in 0\.\.6"):
        recognise(first_pixels, image, np.array([-1]))
    with pytest.raises(ValueError, match=r"must be \(N, C, H, W\)"):
        recognise(first_pixels, image[0], np.array([0]))
    with pytest.raises(ValueError, match="isn't finite"):
        recognise(lambda x: first_pixels(x) * torch.inf, image, np.array([0]))
    assert recognise(first_pixels, image[:0], np.zeros(0, dtype=int)).top1.shape == (0,)


def test_true_confidence_is_the_softmax_and_survives_large_logits():
    logits = np.array([[0.0, math.log(3.0)], [1000.0, 0.0], [1000.0, 0.0]])
    np.testing.assert_allclose(true_confidence(logits, np.array([1, 0, 1])), [0.75, 1.0, 0.0], atol=1e-15)
    assert 1 - true_confidence(np.array([[30.0, 0.0]]), np.array([0]))[0] == pytest.approx(math.exp(-30), rel=1e-2)


def faces(count: int) -> np.ndarray:
    """Aligned faces: one common pattern, and a smaller one of each person's own."""
    generator = np.random.default_rng(1)
    return generator.normal(size=(1, 1, 8, 8)) + 0.4 * generator.normal(size=(count, 1, 8, 8))


def test_similarity_agrees_with_numpy_whatever_brightness_and_contrast():
    centroids = faces(5)
    images = 0.3 * faces(5)[[1, 4]] + 0.5
    got = class_similarity(images, np.array([1, 0]), centroids)
    table = np.corrcoef(np.concatenate([images, centroids]).reshape(7, -1))[:2, 2:]
    np.testing.assert_allclose(got.own, [1.0, table[1, 0]], atol=1e-12)
    np.testing.assert_allclose(got.others_mean, [table[0, [0, 2, 3, 4]].mean(), table[1, 1:].mean()])
    np.testing.assert_allclose(got.others_max, [table[0, [0, 2, 3, 4]].max(), 1.0])


def test_own_class_alone_proves_nothing():
    """The mean of all faces correlates with everyone; only `others` beside `own` shows that it is nobody."""
    centroids = faces(6)
    nobody = np.repeat(centroids.mean(0, keepdims=True), 6, axis=0)
    got = class_similarity(nobody, np.arange(6), centroids)
    assert got.own.min() > 0.8
    assert np.abs(got.own - got.others_mean).max() < 0.1
    real = class_similarity(centroids, np.arange(6), centroids)
    assert (real.own - real.others_max).min() > 0.05


@pytest.mark.parametrize("value", [0.0, 0.1, 1.0, np.nan])
def test_an_image_of_one_colour_correlates_with_nobody(value):
    got = class_similarity(np.full((1, 1, 8, 8), value, dtype=np.float32), np.array([0]), faces(3))
    assert (got.own, got.others_mean, got.others_max) == (0, 0, 0)


def test_similarity_checks_its_arguments():
    with pytest.raises(ValueError, match="at least two classes"):
        class_similarity(faces(1), np.array([0]), faces(1))
    with pytest.raises(ValueError, match="don't fit"):
        class_similarity(faces(1)[..., :4], np.array([0]), faces(3))


# ---- intervals ------------------------------------------------------------------------------------------------


def binomial_interval(share: float, count: int) -> tuple[float, float]:
    half = 1.96 * math.sqrt(share * (1 - share) / count)
    return share - half, share + half


def agrees(interval, expected: tuple[float, float], within: float) -> bool:
    return abs(interval.low - expected[0]) <= within and abs(interval.high - expected[1]) <= within


def test_independent_people_give_the_binomial_interval():
    hits = np.arange(400) < 120
    assert agrees(clustered_interval(hits, np.arange(400)), binomial_interval(0.3, 400), within=0.006)


def test_seeds_of_the_same_people_are_not_more_people():
    """Ten equal seeds: the interval stays that of 400 people. Negative control: 4,000 'people' are rejected."""
    hits = np.tile(np.arange(400) < 120, 10)
    clustered = clustered_interval(hits, np.tile(np.arange(400), 10))
    naive = clustered_interval(hits, np.arange(4000), draws=1000)
    assert agrees(clustered, binomial_interval(0.3, 400), within=0.006)
    assert not agrees(naive, binomial_interval(0.3, 400), within=0.006)
    assert agrees(naive, binomial_interval(0.3, 4000), within=0.003)


def test_coverage_over_many_campaigns():
    """40 people, 3 seeds, people differ: 95% intervals cover the truth; without clusters they don't."""
    generator = np.random.default_rng(5)
    people = np.tile(np.arange(40), 3)
    covered = {"people": 0, "values": 0}
    for repeat in range(200):
        values = (generator.normal(size=40)[people]) + 0.3 * generator.normal(size=120)
        for name, clusters in (("people", people), ("values", np.arange(120))):
            got = clustered_interval(values, clusters, seed=repeat, draws=400)
            covered[name] += got.low <= 0 <= got.high
    assert covered["people"] / 200 >= 0.88
    assert covered["values"] / 200 <= 0.80


def test_clusters_of_unequal_size_weigh_by_their_values():
    got = clustered_interval(np.array([0.0, 1.0, 1.0, 1.0]), np.array(["a", "b", "b", "b"]))
    assert (got.value, got.low, got.high) == (0.75, 0.0, 1.0)


def test_nobody_recognised_is_not_certainty():
    none, every = (clustered_interval(np.full(40, hit), np.arange(40)) for hit in (False, True))
    assert (none.low, none.high) == (0, pytest.approx(1 - 0.025 ** (1 / 40)))
    assert (every.low, every.high) == (pytest.approx(0.025 ** (1 / 40)), 1)
    assert doctest.testmod(intervals).failed == 0


def test_the_seed_decides_and_nothing_else():
    values, people = np.random.default_rng(0).random(30), np.arange(30)
    assert clustered_interval(values, people, seed=3) == clustered_interval(values, people, seed=3)
    assert clustered_interval(values, people, seed=3) != clustered_interval(values, people, seed=4)


def test_interval_checks_its_arguments():
    with pytest.raises(ValueError, match="not empty"):
        clustered_interval(np.zeros(0), np.zeros(0))
    with pytest.raises(ValueError, match="must be finite"):
        clustered_interval(np.array([1.0, np.nan]), np.arange(2))


def test_an_image_of_one_colour_shows_nobody():
    def model(images):
        return torch.nn.functional.one_hot(torch.zeros(len(images), dtype=torch.int64), 3).float()

    face = np.linspace(0, 1, 30, dtype=np.float32).reshape(1, 1, 6, 5)
    black = np.zeros_like(face)
    seen = recognise(model, np.concatenate([face, black]), np.array([0, 0]))
    assert seen.rank.tolist() == [1, 4]
    assert seen.confidence[0] == seen.confidence[1] > 0  # the confidence is the model's own, whatever the image shows
