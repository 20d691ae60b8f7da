"""Numeric gradients against analytic ones, and the rows they are charged for."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from attacker.attacks import MIFace, Numeric
from attacker.attacks.mi_face import WhiteBox
from attacker.attacks.numeric import Differences
from tests.toy import (
    LABEL,
    SHAPE,
    WEIGHTS,
    C,
    Contract,
    D,
    ToyOracle,
    blocks,
    confidences,
    correlation,
    finish,
    random_model,
    softmax_regression,
)


def slopes(model: nn.Module, x: np.ndarray, probe: float) -> tuple[np.ndarray, np.ndarray]:
    """(numeric, analytic) gradients at the images x (T, *SHAPE), one for each class."""
    found = []
    for f in (
        Differences(ToyOracle(model, SHAPE), range(C), probe),
        WhiteBox(model, range(C)),
    ):
        f.cost(torch.from_numpy(x), torch.arange(C))
        found.append(f.gradient(torch.arange(C))[0].numpy())
    return found[0], found[1]


@pytest.mark.parametrize(("probe", "least"), [(1e-3, 0.9999), (0.1, 0.9999), (1.0, 0.99)])
@pytest.mark.parametrize("level", [0.0, 0.02, 0.5, 1.0])
def test_numeric_gradient_is_the_gradient(probe: float, least: float, level: float) -> None:
    numeric, analytic = slopes(random_model(spread=0.3), np.full((C, *SHAPE), level, np.float32), probe)
    assert correlation(numeric, analytic) > least
    assert 0.8 < np.linalg.norm(numeric) / np.linalg.norm(analytic) < 1.25


def test_a_probe_below_float32_is_noise() -> None:
    """Negative control: logits of 30 hold no trace of a move by 1e-6."""
    weight = np.random.default_rng(0).normal(scale=0.6, size=(C, D)) + 30
    numeric, analytic = slopes(softmax_regression(weight), np.full((C, *SHAPE), 0.5, np.float32), 1e-6)
    assert correlation(numeric, analytic) < 0.9


def test_distance_is_that_of_float32() -> None:
    """At 0.3 a probe of 3e-8 reaches the next float32, another distance than was asked for; 1e-9 reaches nothing."""
    oracle = ToyOracle(nn.Sequential(Doubled(), softmax_regression(np.eye(C, D)).double()), SHAPE)
    f = Differences(oracle, range(C), 3e-8)
    x = torch.full((C, *SHAPE), 0.3)
    f.cost(x, torch.arange(C))
    g, moves = f.gradient(torch.arange(C))
    assert moves.all()
    np.testing.assert_allclose(g.numpy()[0].ravel()[0], -(1 / 4 - 1 / 16), rtol=1e-2)
    f = Differences(oracle, range(C), 1e-9)
    f.cost(x, torch.arange(C))
    assert not f.gradient(torch.arange(C))[1].any()


class Doubled(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.double()


def test_rows_of_the_first_step_are_shared() -> None:
    """d + 1 rows serve everybody at the zero image; then each target pays a row for its image and its own probes."""
    oracle = ToyOracle(random_model(), SHAPE, max_rows=5)
    snapshots = list(Numeric(max_steps=2, step=0.5, confidence=1.0).run(oracle, list(range(C)), 0))
    first = snapshots[0].images.reshape(C, -1)
    probes = ((first < 1).astype(int) + (first > 0)).sum(1)
    assert oracle.shared == 1 + D
    assert dict(oracle.spent_on) == {c: 1 + probes[c] + 1 for c in range(C)}
    assert [snapshot.mark for snapshot in snapshots] == [(1 + D + C) / C, oracle.spent / C]


def test_rows_of_a_single_survivor_are_its_own() -> None:
    """Whoever is left alone is not mistaken for everybody."""
    bias = np.array([9.0, 0, 0, 0])  # class 0 is sure from the start
    oracle = ToyOracle(softmax_regression(np.kron(np.eye(C), np.ones(6)), bias), SHAPE)
    list(Numeric(max_steps=2).run(oracle, [0, 1], 0))
    assert oracle.spent_on[1] > 0
    assert oracle.spent_on[0] == 0


def test_probes_differ_from_their_image_in_one_pixel() -> None:
    oracle = ToyOracle(random_model(), SHAPE, max_rows=5)
    x = torch.rand(C, *SHAPE)
    f = Differences(oracle, range(C), 1.0)
    f.cost(x, torch.arange(C))
    oracle.asked.clear()
    f.gradient(torch.tensor([0, 3]))
    rows = np.concatenate(oracle.asked).reshape(2, 2 * D, D)
    for probes, image in zip(rows, x[[0, 3]].numpy().reshape(2, 1, D), strict=True):
        assert ((probes != image).sum(1) == 1).all()
        assert set(probes[probes != image]) == {0.0, 1.0}  # the widest legal moves


def test_a_withheld_score_counts_as_zero() -> None:
    """Only the class at the top can be followed; the others see nothing move."""
    bias = np.array([1.0, 0, 0, 0])
    model = softmax_regression(np.kron(0.1 * np.eye(C), np.ones(6)), bias)
    oracle = ToyOracle(model, SHAPE, Contract(top_k=1))
    last = finish(Numeric(), oracle)
    assert last.extras["steps"].tolist()[1:] == [0, 0, 0]
    assert last.images[0].any()
    assert not last.images[1:].any()


def test_rounding_hides_small_probes_first() -> None:
    """Figure 12 of the paper, and the attacker who knows of it: at r = 0.01 only the wide probe sees anything."""
    model = random_model(spread=0.3)
    wide, narrow = (
        finish(Numeric(probe=probe), ToyOracle(model, SHAPE, Contract(round_to=0.01))) for probe in (1.0, 1e-4)
    )
    assert confidences(model, wide.images).min() > 0.5
    assert not narrow.images.any()


def test_numeric_image_is_the_white_box_image() -> None:
    model = random_model()
    by_scores = finish(Numeric(step=1.0, max_steps=20, probe=0.01), ToyOracle(model, SHAPE))
    by_weights = finish(MIFace(step=1.0, max_steps=20), ToyOracle(model, SHAPE, WEIGHTS))
    for target in range(C):
        assert correlation(by_scores.images[target], by_weights.images[target]) > 0.999
        # negative control: another person's image is not the same
        assert correlation(by_scores.images[target], by_weights.images[target - 1]) < 0.9


def test_access_that_was_not_checked_is_still_an_error() -> None:
    with pytest.raises(ValueError, match="releases no scores"):
        finish(Numeric(), ToyOracle(blocks(), SHAPE, LABEL))
    with pytest.raises(ValueError, match="probe=0 must be positive"):
        finish(Numeric(probe=0), ToyOracle(blocks(), SHAPE))
