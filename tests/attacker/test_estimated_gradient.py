"""Gradients from a few probes against the true ones, and the budget to the row."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from attacker.attacks import EstimatedGradient
from attacker.attacks.estimated_gradient import _components, _tiles, gradient
from tests.toy import (
    FULL,
    LABEL,
    SHAPE,
    C,
    Contract,
    D,
    ToyOracle,
    blocks,
    confidences,
    constant,
    correlation,
    finish,
    random_model,
    relative_error,
)

START: dict[str, Any] = {"start": "zeros"}
ESTIMATORS = ("basis", "blocks", "random")


@pytest.fixture
def public(tmp_path: Path) -> Path:
    np.save(tmp_path / "images.npy", np.random.default_rng(0).random((40, *SHAPE), np.float32))
    return tmp_path


def method(estimator: str, public: Path, **settings: Any) -> EstimatedGradient:
    defaults = {"estimator": estimator, "directions": 6, "rows": 500, "step": 0.1, "start": "zeros", "public": public}
    return EstimatedGradient(**(defaults | settings))


def probed(along: torch.Tensor, h: float, g: np.ndarray, noise: float = 0.0) -> np.ndarray:
    """The estimate for a function whose gradient is g everywhere, seen through noise."""
    moved = 2 * h * along[None]
    rise = moved.double() @ torch.from_numpy(g) + noise * torch.randn(1, len(along), dtype=torch.float64)
    return gradient(moved, rise)[0].double().numpy()


def test_as_many_directions_as_pixels_give_the_gradient() -> None:
    g = np.random.default_rng(1).normal(size=D)
    assert relative_error(probed(torch.randn(D, D), 0.1, g), g) < 1e-2
    assert relative_error(probed(torch.randn(D // 4, D), 0.1, g), g) > 0.5  # a control: a quarter of them does not


def test_fewer_directions_give_its_part_in_their_span() -> None:
    g, along = np.random.default_rng(1).normal(size=D), torch.randn(6, D)
    span = np.linalg.qr(along.numpy().astype(np.float64).T)[0]
    assert relative_error(probed(along, 0.1, g), span @ (span.T @ g)) < 1e-3


def test_a_repeated_direction_does_no_harm() -> None:
    g, along = np.random.default_rng(1).normal(size=D), torch.randn(6, D)
    assert relative_error(probed(torch.cat([along, along]), 0.1, g), probed(along, 0.1, g)) < 1e-3


def test_wide_probes_survive_noise_that_narrow_ones_do_not() -> None:
    g = np.random.default_rng(1).normal(size=D)
    assert relative_error(probed(torch.eye(D), 0.5, g, 0.01), g) < 0.05
    assert relative_error(probed(torch.eye(D), 0.001, g, 0.01), g) > 1


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_the_first_step_goes_up_the_true_gradient(estimator: str, public: Path) -> None:
    """Where nothing is clipped, a step is the projection of the gradient of log f on the span of the probes."""
    model, everybody = random_model(spread=0.2), list(range(C))
    kind = method(estimator, public, start="public_mean", directions=D, rows=2 * D + 2, probe=0.01, momentum=0.0)
    kind = replace(kind, step=0.02)
    x0 = torch.from_numpy(np.load(public / "images.npy").mean(0))
    oracle = ToyOracle(model, SHAPE)
    list(kind.run(oracle, everybody, 0))
    moved = np.concatenate(oracle.asked)[-C:] - x0.numpy()  # the last rows: the images after the step
    x = x0.repeat(C, 1, 1, 1).requires_grad_()
    with torch.enable_grad():
        model(x).log_softmax(1)[everybody, everybody].sum().backward()
    assert x.grad is not None
    for c in everybody:
        same = correlation(moved[c], x.grad[c].numpy())
        other = correlation(moved[c], x.grad[(c + 1) % C].numpy())
        assert same > (0.95 if estimator == "random" else 0.9 if estimator == "basis" else 0.5)
        assert other < 0.5
        assert np.sqrt((moved[c] ** 2).mean()) == pytest.approx(0.02, rel=1e-3)


@pytest.mark.parametrize("estimator", ESTIMATORS)
@pytest.mark.parametrize("rows", [4, 5, 13, 14, 15, 200])
def test_the_budget_is_kept(estimator: str, rows: int, public: Path) -> None:
    """Every target has its own rows, none more than it may, and at most one is left over."""
    oracle = ToyOracle(random_model(), SHAPE)
    snapshots = list(method(estimator, public, rows=rows, confidence=2.0).run(oracle, list(range(C)), 0))
    assert oracle.shared == 0
    assert set(oracle.spent_on) == set(range(C))
    assert len(set(oracle.spent_on.values())) == 1
    if estimator != "blocks":  # whose tiles may be fewer than the directions
        assert rows - 1 <= oracle.spent_on[0]
    assert oracle.spent_on[0] <= rows
    assert snapshots[-1].mark == oracle.spent / C


def test_a_target_that_is_sure_asks_no_more(public: Path) -> None:
    """Rows go on for the others; a confidence that nobody reaches uses all."""
    model = blocks()
    model[1].bias[1] = 3.0  # type: ignore[index, union-attr, operator]
    oracle = ToyOracle(model, SHAPE)
    last = finish(method("random", public, rows=2000, directions=12), oracle)
    assert oracle.spent_on[1] < oracle.spent_on[0] < 2000
    assert (confidences(model, last.images) >= 0.99).all()


def test_rounding_needs_wide_probes(public: Path) -> None:
    """Rounded to a tenth, narrow probes say nothing until they have grown; scores of 0 still count as scores."""
    contract = Contract(round_to=0.1)
    wide = finish(method("blocks", public, probe=0.5, rows=2000), ToyOracle(blocks(), SHAPE, contract))
    assert confidences(blocks(), wide.images).min() > 0.8
    grown = finish(method("blocks", public, probe=1e-3, rows=2000), ToyOracle(blocks(), SHAPE, contract))
    assert confidences(blocks(), grown.images).min() > 0.8


def test_only_the_largest_score(public: Path) -> None:
    last = finish(method("random", public, rows=3000, directions=12), ToyOracle(blocks(), SHAPE, Contract(top_k=1)))
    assert confidences(blocks(), last.images).min() > 0.8


def test_nothing_to_follow(public: Path) -> None:
    """A control: a model that looks at nothing gives nothing, and the images stay where they are."""
    last = finish(method("random", public), ToyOracle(constant(C, D), SHAPE))
    assert not last.images.any()


def test_the_best_image_is_kept(public: Path) -> None:
    """Steps so long that they overshoot: what is shown never gets worse."""
    model = random_model()
    snapshots = list(method("random", public, step=0.7, confidence=2.0).run(ToyOracle(model, SHAPE), [0], 0))
    shown = [confidences(model, snapshot.images, [0])[0] for snapshot in snapshots]
    assert shown == sorted(shown)
    assert shown[-1] > shown[0]


def test_components_are_the_leading_ones_and_even(public: Path) -> None:
    images = np.zeros((40, *SHAPE), np.float32)
    images[:, 0, 0, 0] = np.linspace(0, 1, 40)  # the most of the variance, then half as much
    images[::2, 0, 1, 1] = 0.3
    np.save(public / "images.npy", images)
    basis = _components(public, ToyOracle(constant(C, D), SHAPE)).numpy()
    assert basis.shape == (2, D)
    np.testing.assert_allclose((basis**2).mean(1), 1, rtol=1e-5)
    assert abs(basis[0, 0]) > 0.99 * np.sqrt(D)


@pytest.mark.parametrize("k", [1, 5, 20, 200, 1000])
def test_tiles_cover_every_pixel_once(k: int) -> None:
    tiles = _tiles((3, 23, 17), k, np.random.default_rng(0)).reshape(-1, 3, 23, 17)
    assert (tiles.sum(0) == 1).all()
    assert (tiles.amax((1, 2, 3)) == 1).all()  # none is empty
    assert k / 2 <= len(tiles) <= k or k > 23 * 17
    assert (tiles[:, :1] == tiles).all()


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"estimator": "magic"}, "must be 'basis', 'blocks' or 'random'"),
        ({"rows": 3}, "rows=3 must be at least 4"),
        ({"momentum": 1.0}, "momentum=1.0 at least 0 and below 1"),
        ({"directions": 0}, "directions=0 must be above 0"),
        ({"probe": 0.0}, "probe=0.0 must be above 0"),
        ({"step": -1.0}, "step=-1.0 must be above 0"),
        ({"public": None}, "estimator='basis' needs public data"),
    ],
)
def test_settings_that_make_no_sense(settings: dict[str, Any], sentence: str, public: Path) -> None:
    oracle = ToyOracle(blocks(), SHAPE)
    with pytest.raises(ValueError, match=sentence):
        finish(replace(method("basis", public), **settings), oracle)
    assert oracle.spent == 0


def test_inputs_that_are_no_images(public: Path) -> None:
    flat = ToyOracle(nn.Sequential(nn.Flatten(), nn.Linear(D, C)).requires_grad_(False), (D,), FULL)
    with pytest.raises(ValueError, match="blocks need images"):
        finish(method("blocks", public), flat)
    assert finish(method("random", public, rows=50), flat).images.shape == (C, D)


def test_labels_are_not_enough(public: Path) -> None:
    with pytest.raises(ValueError, match="releases no scores"):
        finish(method("random", public), ToyOracle(blocks(), SHAPE, LABEL))
