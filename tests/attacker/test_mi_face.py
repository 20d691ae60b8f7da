"""MI-Face against targets whose optimum is known, and its loop against costs that are written down."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from attacker.attacks import MIFace, Numeric
from tests.toy import (
    SHAPE,
    WEIGHTS,
    C,
    D,
    ToyOracle,
    block_corner,
    blocks,
    confidences,
    constant,
    finish,
    random_model,
)


def test_mi_face_reaches_the_optimum() -> None:
    last = finish(MIFace(confidence=1.0, step=1.0), ToyOracle(blocks(), SHAPE, WEIGHTS))
    for c in range(C):
        np.testing.assert_allclose(last.images[c].ravel(), block_corner(c), atol=1e-6)


def test_mi_face_first_step_is_the_gradient() -> None:
    """At the zero image of `blocks`: dc/dx = -gain (1/C - 1/C^2) on the own block; the others' is clipped away."""
    last = finish(MIFace(max_steps=1, step=0.5), ToyOracle(blocks(gain=2.0), SHAPE, WEIGHTS))
    for c in range(C):
        np.testing.assert_allclose(last.images[c].ravel(), 0.5 * 2.0 * (1 / 4 - 1 / 16) * block_corner(c), rtol=1e-5)


def test_mi_face_reads_gamma_as_a_confidence() -> None:
    """It stops at the first iterate that reaches gamma; the literal line 8 would stop after one step."""
    oracle = ToyOracle(random_model(), SHAPE, WEIGHTS)
    last = finish(MIFace(), oracle)
    reached = confidences(oracle.model(), last.images)
    assert ((reached >= 0.99) & (reached < 0.991)).all()
    assert last.extras["steps"].min() > 1
    short = [finish(replace(MIFace(), max_steps=int(n) - 1), oracle).images for n in last.extras["steps"]]
    assert all(confidences(oracle.model(), images)[c] < 0.99 for c, images in enumerate(short))


def test_mi_face_snapshots_stand_on_the_ladder() -> None:
    snapshots = list(MIFace(step=0.01).run(ToyOracle(random_model(), SHAPE, WEIGHTS), list(range(C)), 0))
    marks = [snapshot.mark for snapshot in snapshots]
    assert marks[:3] == [100, 300, 1000]
    assert marks[-1] == snapshots[-1].extras["steps"].max()
    assert (snapshots[0].extras["steps"] == 100).all()


class Script:
    """Costs as written down for each target; every gradient is -1, so that the image says how many steps were made."""

    def __init__(self, costs: Sequence[Sequence[float]]) -> None:
        self.costs, self.asked = [list(c) for c in costs], 0

    def cost(self, x: Tensor, live: Tensor) -> Tensor:
        self.shape, self.asked = x.shape, self.asked + len(x)
        return torch.tensor([self.costs[t].pop(0) for t in live.tolist()], dtype=torch.float64)

    def gradient(self, keep: Tensor) -> tuple[Tensor, Tensor]:
        return -torch.ones(len(keep), *self.shape[1:]), torch.ones(len(keep), dtype=torch.bool)

    def mark(self, i: int) -> float:
        return float(i)

    def due(self, i: int) -> bool:
        return True


def test_descent_returns_the_best_iterate_of_each_target() -> None:
    script = Script(
        [[0.9, 0.5, 0.7, 0.6, 0.8], [0.9, 0.8, 0.7, 0.6, 0.5], [0.9, 0.95, 0.3, 0.005], [0.2, 0.3, 0.4, 0.1]]
    )
    method = MIFace(max_steps=4, patience=2, step=0.125)
    *_, last = method.descend(script, np.zeros(3, np.float32), 4, 0.0, 1.0)
    # 0: line 6 compares with the last two, so it stops at 0.8; best was step 1. 1: max_steps. 2: line 8. 3: 0.4 >= 0.3.
    assert last.extras["steps"].tolist() == [4, 4, 3, 2]
    assert (last.images[:, 0] / 0.125).tolist() == [1, 4, 3, 0]
    assert script.asked == 5 + 5 + 4 + 3  # who has stopped is not evaluated again


def test_snapshots_show_the_best_so_far() -> None:
    script = Script([[0.9, 0.5, 0.7, 0.6, 0.4]])
    shown = MIFace(max_steps=4, step=0.125).descend(script, np.zeros(3, np.float32), 1, 0.0, 1.0)
    assert [float(snapshot.images[0, 0] / 0.125) for snapshot in shown] == [0, 1, 1, 1, 4]


def test_a_model_that_looks_at_nothing() -> None:
    """Scores show at once that there is nothing to follow; with weights line 6 stops when patience is out."""
    by_scores = finish(Numeric(), oracle := ToyOracle(constant(C, D), SHAPE))
    assert not by_scores.images.any()
    assert oracle.spent == 1 + D
    by_weights = finish(MIFace(patience=20), ToyOracle(constant(C, D), SHAPE, WEIGHTS))
    assert not by_weights.images.any()
    assert (by_weights.extras["steps"] == 20).all()


def test_public_mean_start(tmp_path: Path) -> None:
    images = np.random.default_rng(0).random((5, *SHAPE), np.float32)
    np.save(tmp_path / "images.npy", images)
    oracle = ToyOracle(random_model(), SHAPE, WEIGHTS)
    last = finish(MIFace(start="public_mean", public=tmp_path, max_steps=0), oracle)
    np.testing.assert_allclose(last.images, np.broadcast_to(images.mean(0), last.images.shape), atol=1e-6)
    with pytest.raises(ValueError, match="needs public data"):
        finish(MIFace(start="public_mean"), oracle)
    with pytest.raises(ValueError, match="must be 'zeros' or 'public_mean'"):
        finish(MIFace(start="noise"), oracle)  # type: ignore[arg-type]
    np.save(tmp_path / "images.npy", images[:, :, 1:])
    with pytest.raises(ValueError, match=r"published for this model"):
        finish(MIFace(start="public_mean", public=tmp_path), oracle)
