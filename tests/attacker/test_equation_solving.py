"""Recovered weights against those of the toy."""

from __future__ import annotations

import numpy as np
import pytest

from attacker.attacks import EquationSolving, MIFace
from tests.toy import (
    SHAPE,
    WEIGHTS,
    Contract,
    ToyOracle,
    centred,
    correlation,
    finish,
    random_model,
    relative_error,
    softmax_regression,
)


@pytest.mark.parametrize("scale", [0.05, 3.0])
@pytest.mark.parametrize("shape", [(1, 4, 6), (1, 1, 1), (3, 5, 7)])
@pytest.mark.parametrize("together", [1, 8, 16])
def test_weights_from_d_plus_1_rows(scale: float, shape: tuple[int, ...], together: int) -> None:
    d = int(np.prod(shape))
    model = random_model(pixels=d, spread=0.5, bias=scale)
    oracle = ToyOracle(model, shape)
    last = finish(EquationSolving(together=together), oracle)
    assert oracle.spent == oracle.shared == d + 1
    weight, bias = centred(model)
    assert relative_error(last.extras["weight"], weight) < 1e-6
    assert relative_error(last.extras["bias"], bias) < 1e-6


def test_weights_of_another_range() -> None:
    model = random_model()
    last = finish(EquationSolving(), ToyOracle(model, SHAPE, low=-2.0, high=3.0))
    weight, bias = centred(model)
    assert relative_error(last.extras["weight"], weight) < 1e-6
    assert relative_error(last.extras["bias"], bias) < 1e-5


def test_blocks_of_pixels_help_where_biases_dwarf_weights() -> None:
    model = random_model(pixels=512, spread=1e-3, bias=5.0)
    weight, _ = centred(model)
    one, sixteen = (
        relative_error(finish(EquationSolving(together=n), ToyOracle(model, (1, 16, 32))).extras["weight"], weight)
        for n in (1, 16)
    )
    assert sixteen < 0.8 * one


def test_image_of_the_recovered_model_is_the_white_box_image() -> None:
    model = random_model()
    method = EquationSolving(inversion=MIFace(step=1.0))
    found = finish(method, ToyOracle(model, SHAPE)).images
    np.testing.assert_allclose(found, finish(MIFace(step=1.0), ToyOracle(model, SHAPE, WEIGHTS)).images, atol=1e-3)


LARGE = (1, 16, 24)  # 384 pixels, N = 512


def errors(r: float, rounds: int, seed: int = 0) -> list[float]:
    """1 - correlation of the recovered weights after each round, for a model like one of faces: z is not balanced."""
    rng = np.random.default_rng(seed)
    weight = rng.normal(scale=0.08, size=(8, 384)) + rng.normal(scale=0.02, size=(8, 1))
    oracle = ToyOracle(softmax_regression(weight), LARGE, Contract(round_to=r), max_rows=100)
    method = EquationSolving(rounds=rounds, density=1 / 16, inversion=MIFace(max_steps=1))
    found = list(method.run(oracle, list(range(8)), seed))
    assert [snapshot.mark for snapshot in found] == [512 * (k + 1) / 8 for k in range(rounds)]
    return [1 - correlation(snapshot.extras["weight"], weight - weight.mean(0)) for snapshot in found]


@pytest.mark.parametrize(("r", "share", "most"), [(0.001, 0.01, 1e-3), (0.01, 0.1, 0.02), (0.05, 0.7, 0.2)])
def test_rounds_improve_on_rounding(r: float, share: float, most: float) -> None:
    first, *_, last = errors(r, rounds=6)
    assert last < share * first
    assert last < most


def test_coarser_rounding_leaves_less() -> None:
    """Negative control: what improves with rounds is what rounding left; at r = 1 that is next to nothing."""
    fine, coarse, all_or_nothing = (errors(r, rounds=4)[-1] for r in (0.01, 0.2, 1.0))
    assert fine < coarse < all_or_nothing
    assert all_or_nothing > 0.5
