"""The two costs of MI-Face, momentum and the clean-up after a step, against closed forms and each other."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

from attacker.attacks import MIFace, Numeric
from attacker.attacks.mi_face import WhiteBox, cost_at
from attacker.attacks.numeric import Differences
from tests.toy import (
    SHAPE,
    WEIGHTS,
    C,
    ToyOracle,
    block_corner,
    blocks,
    confidences,
    finish,
    random_model,
    relative_error,
)

LOG: dict[str, Any] = {"cost": "log"}


def slope(model: torch.nn.Module, x: np.ndarray, cost: Any) -> tuple[np.ndarray, np.ndarray]:
    f = WhiteBox(model, range(C), cost)
    c = f.cost(torch.from_numpy(x), torch.arange(C))
    g, moves = f.gradient(torch.arange(C))
    assert moves.all()
    return c.numpy(), g.numpy()


def test_the_gradient_of_the_log_is_that_of_the_score_over_the_score() -> None:
    x = np.random.default_rng(0).random((C, *SHAPE), np.float32)
    (c, g), (c_log, g_log) = (slope(random_model(), x, cost) for cost in ("probability", "log"))
    score = confidences(random_model(), x)
    np.testing.assert_allclose(c, 1 - score, atol=1e-6)
    np.testing.assert_allclose(c_log, -np.log(score), atol=1e-5)
    np.testing.assert_allclose(g_log * score[:, None, None, None], g, atol=1e-6)
    assert relative_error(g_log, g) > 0.5


def test_first_step_of_the_log_cost() -> None:
    """At the zero image of `blocks` the score is 1/C, and -log f falls with gain (1 - 1/C) on the own block."""
    last = finish(MIFace(max_steps=1, step=0.1, **LOG), ToyOracle(blocks(gain=2.0), SHAPE, WEIGHTS))
    for c in range(C):
        np.testing.assert_allclose(last.images[c].ravel(), 0.1 * 2.0 * (1 - 1 / 4) * block_corner(c), rtol=1e-5)


@pytest.mark.parametrize("cost", ["probability", "log"])
def test_both_costs_stop_at_the_same_score(cost: Any) -> None:
    model = random_model()
    last = finish(MIFace(confidence=0.9, step=0.01, cost=cost), ToyOracle(model, SHAPE, WEIGHTS))
    reached = confidences(model, last.images)
    assert ((reached >= 0.9) & (reached < 0.92)).all()
    assert cost_at(0.9, cost) == pytest.approx({"probability": 0.1, "log": -math.log(0.9)}[cost])


def test_the_log_cost_moves_where_the_score_is_next_to_nothing() -> None:
    """A model that starts out sure of another class: the paper's cost stands still, the logarithm does not."""
    model = blocks()
    model[1].bias[0] = 40.0  # type: ignore[index, union-attr, operator]
    stuck, moved = (
        finish(MIFace(step=1.0, max_steps=300, **kind), ToyOracle(model, SHAPE, WEIGHTS), [1]) for kind in ({}, LOG)
    )
    assert stuck.images.max() < 1e-6
    assert confidences(model, moved.images, [1]) > 10 * confidences(model, stuck.images, [1])
    np.testing.assert_allclose(moved.images.ravel(), block_corner(1), atol=1e-6)


def test_momentum_keeps_a_share_of_the_last_move() -> None:
    """A model that is linear in -log f, nearly: two steps of v make 1 + (1 + momentum) moves instead of 2."""
    model = blocks()
    model[1].bias[0] = 40.0  # type: ignore[index, union-attr, operator]
    plain, heavy = (
        finish(MIFace(step=0.01, max_steps=2, momentum=m, **LOG), ToyOracle(model, SHAPE, WEIGHTS), [1]).images
        for m in (0.0, 0.5)
    )
    np.testing.assert_allclose(heavy, 1.25 * plain, rtol=1e-5)


def test_momentum_of_a_batch_belongs_to_its_target() -> None:
    """Targets stop at different steps; what is left of the batch must keep its own moves."""
    method, model = MIFace(step=0.05, momentum=0.9, **LOG), random_model()
    together = finish(method, ToyOracle(model, SHAPE, WEIGHTS))
    assert len(set(together.extras["steps"].tolist())) > 1
    for c in range(C):
        alone = finish(method, ToyOracle(model, SHAPE, WEIGHTS), [c]).images[0]
        np.testing.assert_allclose(alone, together.images[c], atol=1e-5)


def test_process_follows_every_step() -> None:
    seen: list[int] = []

    def black(x: torch.Tensor, i: int) -> torch.Tensor:
        seen.append(i)
        return torch.zeros_like(x)

    f, x0 = WhiteBox(blocks(), range(C)), np.zeros(SHAPE, np.float32)
    *_, last = MIFace(max_steps=4).descend(f, x0, C, 0.0, 1.0, black)
    assert seen == [1, 2, 3, 4]
    assert not last.images.any()


def test_numeric_slope_of_the_log_cost() -> None:
    model, x = random_model(spread=0.3), np.full((C, *SHAPE), 0.5, np.float32)
    x += np.arange(C, dtype=np.float32)[:, None, None, None] / 10  # images of their own
    f = Differences(ToyOracle(model, SHAPE), range(C), 1e-2, "log")
    c = f.cost(torch.from_numpy(x), torch.arange(C))
    g, _ = f.gradient(torch.arange(C))
    expected_c, expected_g = slope(model, x, "log")
    np.testing.assert_allclose(c, expected_c, atol=1e-5)
    assert relative_error(g.numpy(), expected_g) < 0.01
    assert relative_error(g.numpy(), slope(model, x, "probability")[1]) > 0.5


def test_numeric_log_cost_of_a_score_that_is_not_shown() -> None:
    f = Differences(ToyOracle(random_model(), SHAPE), [0], 0.1, "log")
    f._oracle.query = lambda *_: type("Answer", (), {"scores": np.zeros((1, C))})  # type: ignore[assignment, method-assign]
    c = f.cost(torch.zeros(1, *SHAPE), torch.zeros(1, dtype=torch.int64))
    assert math.isfinite(float(c))
    assert float(c) > 700


@pytest.mark.parametrize("method", [MIFace, Numeric])
@pytest.mark.parametrize(
    ("settings", "sentence"),
    [({"cost": "square"}, "must be 'probability' or 'log'"), ({"momentum": 1.0}, "momentum=1.0 must be at least 0")],
)
def test_settings_out_of_range(method: Any, settings: dict[str, Any], sentence: str) -> None:
    oracle = ToyOracle(blocks(), SHAPE, WEIGHTS if method is MIFace else None)
    with pytest.raises(ValueError, match=sentence):
        finish(method(**settings), oracle)
    assert oracle.spent == 0
