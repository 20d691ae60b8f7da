"""GMI: its value and its steps by hand, the pull of the critic, codes in their bounds, and its price."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from attacker.attacks import GMI
from attacker.needs import refuse
from attacker.priors.prior import load_prior
from tests.attacker.latent_cases import SHAPE, Counted, M, oracle, regression, save_affine
from tests.toy import FULL, WEIGHTS, confidences, constant, finish, softmax_regression

TARGETS = [0, 1, 2]
SLOPE = np.array([[1.0, -1.0, 0.5, -0.5, 2.0, -2.0]])  # of the critic


@pytest.fixture(scope="module")
def prior(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The image of a code is that code, and the critic is linear."""
    return save_affine(tmp_path_factory.mktemp("prior"), critic=softmax_regression(SLOPE, np.array([3.0])))


@pytest.fixture(scope="module")
def blind(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with a critic that looks at nothing."""
    return save_affine(tmp_path_factory.mktemp("blind"), critic=softmax_regression(0 * SLOPE))


def method(prior: Path | None, **settings: Any) -> GMI:
    return GMI(prior=prior, **{"steps": 60, "starts": 3, "clip": 2.0} | settings)


def starts(prior: Path, n: int, seed: int, clip: float) -> Tensor:
    """Before the first step: n draws for each target, one target after the other, (T, n, M)."""
    z = load_prior(prior).codes.draw(n * len(TARGETS), torch.Generator().manual_seed(seed))
    return z.clamp(-clip, clip).reshape(len(TARGETS), n, M)


def value(z: Tensor, target: int, weight: float) -> Tensor:
    """weight * cross-entropy - critic, of codes (n, M)."""
    logits = regression(spread=2.0)(z.reshape(-1, *SHAPE)).double()
    identity = functional.cross_entropy(logits, torch.full((len(z),), target), reduction="none")
    return weight * identity - z @ torch.from_numpy(SLOPE[0]).float() - 3


@pytest.mark.parametrize("weight", [0.01, 3.0, 100.0])
def test_the_best_start_by_hand(weight: float, prior: Path) -> None:
    first = next(method(prior, starts=6, weight=weight).run(oracle(regression(spread=2.0), WEIGHTS), TARGETS, 5))
    best = set()
    for target, z in zip(TARGETS, starts(prior, 6, 5, 2.0), strict=True):
        k = int(value(z, target, weight).argmin())
        np.testing.assert_allclose(first.extras["codes"][target], z[k], atol=1e-6)
        np.testing.assert_allclose(first.images[target].ravel(), z[k], atol=1e-6)
        best.add(k)
    assert len(best) > 1  # not always the same one


def test_all_values_by_hand(prior: Path) -> None:
    """With one step everything is as at the start; another weight or no critic makes other values."""
    last = finish(method(prior, starts=4, steps=1, weight=3.0), oracle(regression(spread=2.0), WEIGHTS), TARGETS, 1)
    z = starts(prior, 4, 1, 2.0)
    wanted = torch.stack([value(of, target, 3.0) for target, of in zip(TARGETS, z, strict=True)])
    np.testing.assert_allclose(last.extras["values"], wanted, rtol=1e-5)
    np.testing.assert_allclose(last.extras["samples"].reshape(z.shape), z, atol=1e-6)


@pytest.mark.parametrize("momentum", [0.0, 0.5, 0.9])
def test_two_steps_by_hand(momentum: float, prior: Path) -> None:
    """With Nesterov's momentum: b <- momentum b + g, z <- z - step (g + momentum b)."""
    model, step = regression(spread=2.0), 0.01
    settings = {"starts": 1, "clip": 50.0, "weight": 3.0, "momentum": momentum, "step": step}
    (z,), b = starts(prior, 1, 2, 50.0).unbind(1), torch.zeros(3, M)
    for steps in (1, 2, 3):
        last = finish(method(prior, steps=steps, **settings), oracle(model, WEIGHTS), TARGETS, 2)
        np.testing.assert_allclose(last.extras["codes"], z.detach(), atol=1e-6)
        z = z.detach().requires_grad_()
        values = [value(of[None], target, 3.0).sum() for target, of in enumerate(z)]
        (g,) = torch.autograd.grad(torch.stack(values).sum(), z)
        b = momentum * b + g
        heavy, z = z - step * b, z - step * (g + momentum * b)  # a control: momentum that is not Nesterov's
        assert ((z - heavy).abs().max() > 1e-3) == (momentum > 0)


def test_the_critic_pulls(prior: Path, blind: Path) -> None:
    """The only slope of a model that looks at nothing is the critic's, up which codes move by momentum to the clip."""
    nothing = oracle(constant(3, M), WEIGHTS)
    last = finish(method(prior, steps=200), nothing, TARGETS)
    np.testing.assert_allclose(last.extras["samples"].reshape(-1, M), np.tile(2 * np.sign(SLOPE), (9, 1)), atol=1e-5)
    still = finish(method(blind, steps=200), nothing, TARGETS)  # a control
    np.testing.assert_allclose(still.extras["samples"].reshape(3, 3, M), starts(blind, 3, 0, 2.0), atol=1e-6)


def test_weight_is_between_target_and_critic(prior: Path) -> None:
    natural, sure = [], []
    model = regression(spread=2.0)
    for weight in (1e-3, 1.0, 100.0):
        last = finish(method(prior, weight=weight, steps=150, step=0.01), oracle(model, WEIGHTS), TARGETS)
        natural.append((last.extras["codes"] @ SLOPE[0]).mean())
        sure.append(-np.log(confidences(model, last.images, TARGETS)).mean())
    assert natural == sorted(natural, reverse=True)
    assert sure == sorted(sure, reverse=True)
    assert natural[0] - natural[-1] > 1
    assert sure[-1] < 0.1 < sure[0]


@pytest.mark.parametrize("loss", ["cross_entropy", "margin"])
def test_it_becomes_sure(loss: str, prior: Path) -> None:
    model = regression(spread=2.0)
    first, *_, last = method(prior, loss=loss, steps=200).run(oracle(model, WEIGHTS), TARGETS, 0)
    assert confidences(model, first.images, TARGETS).min() < 0.5
    assert confidences(model, last.images, TARGETS).min() > 0.8
    assert confidences(model, last.images, [1, 2, 0]).max() < 0.2


@pytest.mark.parametrize("clip", [0.3, 1.0])
def test_codes_stay_within_the_clip(clip: float, prior: Path) -> None:
    snapshots = list(method(prior, clip=clip).run(oracle(regression(spread=2.0), WEIGHTS), TARGETS, 0))
    furthest = [np.abs(snapshot.extras["codes"]).max() for snapshot in snapshots]
    assert max(furthest) <= clip + 1e-6
    assert furthest[-1] == pytest.approx(clip, abs=1e-6)  # the model pulls it there
    free = finish(method(prior, clip=3.0), oracle(regression(spread=2.0), WEIGHTS), TARGETS)
    assert np.abs(free.extras["codes"]).max() > 1.5 * clip  # a control


def test_marks_count_evaluations(prior: Path) -> None:
    model = Counted(regression())
    asked = oracle(model, WEIGHTS)
    model.rows, marks = 0, []
    for snapshot in method(prior, steps=50, starts=3).run(asked, [0, 2], 0):
        marks.append(snapshot.mark)
        assert snapshot.mark == model.rows / 2
    assert marks[0] == 3
    assert marks[-1] == 50 * 3
    assert marks == sorted(set(marks))
    assert asked.spent == 0


def test_a_prior_without_a_critic(tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match=r"^gmi needs a prior with a critic, .* has not: train a dcgan or style prior$"
    ):
        finish(method(save_affine(tmp_path)), oracle(regression(), WEIGHTS), TARGETS)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"prior": None}, "searches the codes of an image prior"),
        *(
            ({name: 0}, f"^{name}=0 must be above 0 and finite$")
            for name in ("weight", "steps", "starts", "step", "clip")
        ),
        ({"weight": float("nan")}, "^weight=nan must be above 0 and finite$"),
        ({"loss": "square"}, "^loss='square' must be one of cross_entropy, margin$"),
        ({"momentum": 1.0}, "^momentum=1.0 must be at least 0 and below 1$"),
        ({"momentum": -0.1}, "^momentum=-0.1 must be at least 0 and below 1$"),
    ],
)
def test_settings_that_make_no_sense(settings: dict[str, Any], sentence: str, prior: Path) -> None:
    with pytest.raises(ValueError, match=sentence):
        finish(method(**{"prior": prior} | settings), oracle(regression(), WEIGHTS), TARGETS)


def test_scores_are_not_enough() -> None:
    assert "needs the weights, but" in str(refuse(GMI.needs, FULL, 3))
