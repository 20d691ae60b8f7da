"""Embeddings against activations computed by hand, nearness of real photos, and tries against all draws."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

from oracle_server.victims.cnn import Cnn
from oracle_server.victims.conv_classifier import ConvClassifier
from referee.metrics import any_of, embed, nearness
from referee.metrics.embedding import distances

# ---- embeddings -----------------------------------------------------------------------------------------------


def cnn() -> tuple[nn.Module, int]:
    torch.manual_seed(0)
    return Cnn(3, (1, 32, 16), width=4).eval(), 16 * 2 * 1


def conv_classifier() -> tuple[nn.Module, int]:
    torch.manual_seed(0)
    return ConvClassifier(3, (1, 32, 16), width=4).eval(), 50


def images(count: int = 7) -> np.ndarray:
    return np.random.default_rng(0).random((count, 1, 32, 16), dtype=np.float32)


def hooks(network: nn.Module) -> int:
    return sum(len(module._forward_pre_hooks) for module in network.modules())


@torch.no_grad()
def test_what_enters_the_only_layer_of_the_cnn():
    network, width = cnn()
    halved = functional.avg_pool2d(torch.from_numpy(images()), 2)
    mean = halved.mean((1, 2, 3), keepdim=True)
    standard = (halved - mean) * ((halved - mean).square().mean((1, 2, 3), keepdim=True) + 1e-4).rsqrt()
    got = embed(network, images())
    assert (got.shape, got.dtype) == ((7, width), np.float64)
    np.testing.assert_allclose(got, network.features(standard).flatten(1).numpy(), rtol=1e-6)


@torch.no_grad()
def test_what_enters_the_second_layer_of_the_conv_classifier():
    network, width = conv_classifier()
    got = embed(network, images())
    assert got.shape == (7, width)
    first, last = network.head[1], network.head[3]
    np.testing.assert_allclose(got, first(network.features(torch.from_numpy(images())).flatten(1)).numpy(), rtol=1e-6)
    logits = last(torch.from_numpy(got).float())
    torch.testing.assert_close(logits, network(torch.from_numpy(images())))


@pytest.mark.parametrize("made", [cnn, conv_classifier])
def test_batches_make_no_difference_and_no_hook_stays(made):
    network, width = made()
    np.testing.assert_allclose(embed(network, images(), batch=3), embed(network, images()), rtol=1e-5, atol=1e-6)
    assert embed(network, images(0)).shape == (0, width)
    assert hooks(network) == 0
    with pytest.raises(RuntimeError):
        embed(network, images()[:, :, :8, :8])
    assert hooks(network) == 0


def test_colours_are_one_point_of_a_network_that_standardises():
    """Negative control: to one that does not, they are two."""
    colours = np.stack([np.full((1, 32, 16), value) for value in (0.25, 0.75)])
    apart = [np.abs(np.diff(embed(made()[0], colours), axis=0)).max() for made in (cnn, conv_classifier)]
    assert apart[0] < 1e-6 < 1e-3 < apart[1]


class Twice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(2, 2)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        return self.layer(self.layer(pixels.flatten(1)))


def test_embed_checks_its_arguments():
    network, _ = cnn()
    broken = images()
    broken[2, 0, 0, 0] = np.nan
    pixels = np.zeros((3, 1, 1, 2))
    for model, given_images, words in (
        (network, broken, "no numbers"),
        (network, images()[0], r"must be \(N, C, H, W\)"),
        (nn.Flatten().eval(), images(), "no linear layer"),
        (Twice().eval(), pixels, "used once"),
        (nn.Linear(2, 2).eval(), pixels, "one row for each image"),
        (Cnn(3, (1, 32, 16)), images(), "training mode"),
        (nn.Sequential(nn.Flatten(), nn.Threshold(-1.0, torch.inf), nn.Linear(2, 2)).eval(), pixels - 2, "no numbers"),
    ):
        with pytest.raises(ValueError, match=words):
            embed(model, given_images)
        assert hooks(model) == 0


def test_distances_of_near_points_keep_their_digits():
    points = 1e6 + 1e-3 * np.random.default_rng(0).normal(size=(30, 5))
    got = distances(points, points[:4])
    np.testing.assert_allclose(got, np.linalg.norm(points[:, None] - points[None, :4], axis=2), rtol=1e-12)
    assert (np.diag(got) == 0).all()


# ---- nearness -------------------------------------------------------------------------------------------------

PRIVATE = np.array([[0.0, 0], [2, 0], [10, 10], [10, 14]])
OWNERS = np.array([0, 0, 1, 1])


def test_nearness_by_hand():
    held_out, whose = np.array([[0.0, 3], [2, 1], [10, 11]]), np.array([0, 0, 1])  # nearest 3, 1 and 1
    made, classes = np.array([[2.0, 0], [1, 0], [10, 12], [2, 0]]), np.array([0, 0, 1, 1])
    got = nearness(made, classes, PRIVATE, OWNERS, held_out, whose)
    np.testing.assert_allclose(got.nearest, [0, 1 / 2, 2, np.hypot(8, 10)])
    unit = (np.sqrt(10) + np.sqrt(2)) / 2  # of class 0, whose centroid is (1, 0); that of class 1 is (10, 12)
    np.testing.assert_allclose(got.centroid, [1 / unit, 0, 0, np.hypot(8, 12)])


def test_a_class_without_held_out_images_is_measured_by_all():
    held_out, whose = np.array([[0.0, 3], [2, 1], [99, 99]]), np.array([0, 0, 5])  # of class 5 nothing is private
    got = nearness(PRIVATE[2:] + 1, OWNERS[2:], PRIVATE, OWNERS, held_out, whose)
    np.testing.assert_allclose(got.nearest, np.sqrt(2) / 2)


def test_held_out_photos_are_as_near_as_held_out_photos():
    """In the mean over each class, whatever the scale. Negative controls: private photos, and those of others."""
    generator = np.random.default_rng(0)
    classes = np.repeat(np.arange(6), 8)
    people, spread = 5 * generator.normal(size=(6, 9)), np.arange(1, 7)[classes][:, None]
    private, held_out, fresh = (people[classes] + spread * generator.normal(size=(48, 9)) for _ in range(3))

    def near(made: np.ndarray, scale: float = 1.0) -> np.ndarray:
        got = nearness(scale * made, classes, scale * private, classes, scale * held_out, classes)
        return np.array([got.nearest, got.centroid])

    np.testing.assert_allclose(near(held_out).reshape(2, 6, 8).mean(axis=2), 1)
    assert np.abs(near(fresh).mean(axis=1) - 1).max() < 0.15
    assert (near(private)[0] == 0).all()
    assert near(np.roll(held_out, 8, axis=0)).mean(axis=1).min() > 2
    np.testing.assert_allclose(near(fresh, scale=7.0), near(fresh))


def test_nearness_checks_its_arguments():
    held_out = PRIVATE + 1
    for made, classes, others, whose, words in (
        (PRIVATE, OWNERS + 1, held_out, OWNERS, "class 2 has no private images"),
        (PRIVATE, OWNERS[:3], held_out, OWNERS, "one for each of 4"),
        (PRIVATE, OWNERS, held_out, OWNERS + 5, "no held-out image"),
        (PRIVATE, OWNERS, PRIVATE, OWNERS, "must be other photos"),
        (PRIVATE * np.nan, OWNERS, held_out, OWNERS, "made images hold values"),
        (PRIVATE[:, :1], OWNERS, held_out, OWNERS, "have no distance"),
    ):
        with pytest.raises(ValueError, match=words):
            nearness(made, classes, PRIVATE, OWNERS, others, whose)
    assert nearness(PRIVATE[:0], OWNERS[:0], PRIVATE, OWNERS, held_out, OWNERS).nearest.shape == (0,)


# ---- tries ----------------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=60)
@given(st.lists(st.booleans(), min_size=1, max_size=9), st.data())
def test_any_of_is_the_share_of_all_draws(recognised, data):
    tries = data.draw(st.integers(1, len(recognised)))
    draws = [any(draw) for draw in combinations(recognised, tries)]
    assert any_of(np.array([recognised]), tries)[0] == pytest.approx(np.mean(draws), abs=1e-12)


def test_any_of_each_target_alone():
    hits = np.arange(8) < np.array([[0], [1], [4], [8]])
    got = any_of(hits)
    np.testing.assert_allclose(got, [0, 5 / 8, 1, 1], rtol=1e-12)
    assert got[0] == 0  # exactly, and 1 where fewer than five fail
    assert (got[2:] == 1).all()
    assert any_of(hits, 1).tolist() == [0, 1 / 8, 1 / 2, 1]
    assert any_of(hits[:, :5]).tolist() == [0, 1, 1, 1]
    assert any_of(hits[:0]).shape == (0,)


def test_any_of_checks_its_arguments():
    for successes, tries, words in (
        (np.zeros((2, 4), bool), 5, "at most the 4"),
        (np.zeros((2, 4), bool), 0, "at least 1"),
        (np.zeros((2, 4)), 2, "bool"),
        (np.zeros(4, bool), 2, r"must be \(T, n\)"),
    ):
        with pytest.raises(ValueError, match=words):
            any_of(successes, tries)
