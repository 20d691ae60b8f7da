"""The descent that white-box attacks share, on a bowl whose bottom is known."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from attacker.attacks.descent import check_above, descend, identity_loss
from attacker.snapshot import Snapshot
from tests.attacker.latent_cases import SHAPE, M, affine, oracle
from tests.toy import WEIGHTS, constant

T, S = 2, 4  # targets, starts of each
BOTTOM = torch.tensor([1.0, -1.0, 2.0, 0.0, 0.5, -3.0])


def bowl(z: Tensor) -> Tensor:
    """Half the squared distance to `BOTTOM`, in float64: a step of rate r leaves 1 - r of the way."""
    return 0.5 * (z - BOTTOM).double().square().sum(1)


def starts() -> Tensor:
    return torch.randn(T * S, M, generator=torch.Generator().manual_seed(0))


def run(steps: int, bounds: Any = None, low: float = -9.0) -> list[Snapshot]:
    """Of plain descent with rate 0.1."""
    z = starts().requires_grad_()
    asked = oracle(constant(3, M), WEIGHTS)
    asked.low = low
    return list(descend(asked, affine(), z, T, bowl, torch.optim.SGD([z], 0.1), steps, bounds))


@pytest.mark.parametrize("steps", [1, 2, 37])
def test_the_last_snapshot_has_all_starts(steps: int) -> None:
    last = run(steps)[-1]
    samples, values = last.extras["samples"], last.extras["values"]
    assert samples.shape == (T, S, *SHAPE)
    assert values.shape == (T, S)
    z = BOTTOM + 0.9 ** (steps - 1) * (starts() - BOTTOM)
    np.testing.assert_allclose(samples.reshape(T * S, M), z, atol=1e-5)
    np.testing.assert_allclose(values.ravel(), bowl(z), rtol=1e-4)
    best = values.argmin(1)
    assert (last.images == samples[range(T), best]).all()
    np.testing.assert_array_equal(last.extras["codes"], last.images.reshape(T, M))
    assert len(set(best.tolist())) == T  # not the same start of both


def test_the_others_have_the_best_start() -> None:
    *before, _ = run(60)
    assert len(before) > 3
    for snapshot in before:
        assert set(snapshot.extras) == {"codes"}
        z = BOTTOM + 0.9 ** (snapshot.mark / S - 1) * (starts() - BOTTOM)
        best = bowl(z).reshape(T, S).argmin(1) + S * torch.arange(T)
        np.testing.assert_allclose(snapshot.images.reshape(T, M), z[best], atol=1e-5)


def test_bounds_hold_from_the_first_step_on() -> None:
    bounds = torch.full((M,), -0.4), torch.tensor([0.1, 0.2, 0.3, 0.4, 0.5, 0.6])
    _, *later = run(80, bounds)
    for snapshot in later:
        codes = torch.from_numpy(snapshot.extras["codes"])
        assert (bounds[0] <= codes).all()
        assert (codes <= bounds[1]).all()
    np.testing.assert_allclose(codes, BOTTOM.clamp(*bounds).expand(T, M), atol=0.02)
    assert abs(run(80)[-1].extras["codes"] - BOTTOM.numpy()).max() < 0.02  # a control


def test_marks_are_evaluations_of_each_target() -> None:
    marks = [snapshot.mark for snapshot in run(100)]
    assert marks[0] == S
    assert marks[-1] == 100 * S
    assert {100, 300} <= set(marks)  # the ladder
    assert marks == sorted(set(marks))


def test_images_are_in_the_range_of_the_target() -> None:
    last = run(50, low=-0.5)[-1]
    assert last.images.min() == last.extras["samples"].min() == np.float32(-0.5)
    assert last.extras["codes"].min() < -2  # codes are as they were


def test_snapshots_are_copies() -> None:
    z = starts().requires_grad_()
    kept = []
    for snapshot in descend(oracle(constant(3, M), WEIGHTS), affine(), z, T, bowl, torch.optim.SGD([z], 0.1), 30):
        arrays = [snapshot.images, *snapshot.extras.values()]
        kept.append((arrays, [array.copy() for array in arrays]))
    with torch.no_grad():
        z.zero_()
    assert all((array == then).all() for arrays, copies in kept for array, then in zip(arrays, copies, strict=True))


def test_the_margin_of_two_classes_is_their_difference() -> None:
    logits = torch.tensor([[2.0, -1.0], [1.0, 4.0]])
    np.testing.assert_array_equal(identity_loss(logits, torch.tensor([0, 0]), "margin"), [-3, 3])
    np.testing.assert_array_equal(identity_loss(logits, torch.tensor([1, 1]), "margin"), [3, -3])


@pytest.mark.parametrize("value", [0, -1, float("nan")])
def test_settings_above_0(value: float) -> None:
    class Settings:
        steps, step = 1, value

    check_above(Settings(), "steps")
    with pytest.raises(ValueError, match=f"^step={value} must be above 0 and finite$"):
        check_above(Settings(), "steps", "step")
