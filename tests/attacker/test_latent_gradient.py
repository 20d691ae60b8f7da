"""Descent in the latent space with the weights: both losses and the prior's by hand, clipping, and the best start."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional

from attacker.attacks import LatentGradient
from attacker.attacks.descent import identity_loss
from attacker.needs import refuse
from attacker.priors.prior import load_prior
from tests.attacker.latent_cases import Counted, M, gaussian, oracle, regression, save_affine
from tests.toy import FULL, WEIGHTS, confidences, constant, finish

TARGETS = [0, 1, 2]


@pytest.fixture(scope="module")
def prior(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The image of a code is that code; codes have mean 1 and standard deviation 0.5."""
    return save_affine(tmp_path_factory.mktemp("prior"), codes=gaussian(1.0, 0.5))


def method(prior: Path | None, **settings: Any) -> LatentGradient:
    return LatentGradient(prior=prior, **{"steps": 60, "starts": 3, "clip": 2.0} | settings)


def steepness(loss: str, gain: float) -> float:
    """Length of the slope of a loss where the target's logit is `gain` larger than the next."""
    logits = torch.tensor([[gain, 0.0, -1.0]], requires_grad=True)
    (slope,) = torch.autograd.grad(identity_loss(logits, torch.tensor([0]), loss).sum(), logits)
    return float(slope.norm())


def test_losses_by_hand() -> None:
    logits, label = torch.tensor([[2.0, 0.0, 1.0], [0.0, 3.0, 1.0]]), torch.tensor([0, 2])
    e = np.exp([[2.0, 0.0, 1.0], [0.0, 3.0, 1.0]])
    wanted = -np.log(e[[0, 1], [0, 2]] / e.sum(1))
    np.testing.assert_allclose(identity_loss(logits, label, "cross_entropy"), wanted, rtol=1e-7)
    np.testing.assert_allclose(identity_loss(logits, label, "margin"), [1 - 2, 3 - 1])
    assert identity_loss(logits, label, "margin").dtype == torch.float64


def test_the_margin_does_not_fade_where_the_target_is_sure() -> None:
    assert steepness("margin", 40.0) == pytest.approx(2**0.5)
    assert steepness("cross_entropy", 40.0) < 1e-10  # a control


@pytest.mark.parametrize("loss", ["cross_entropy", "margin"])
@pytest.mark.parametrize("optimiser", ["momentum", "adam"])
def test_it_becomes_sure(loss: str, optimiser: str, prior: Path) -> None:
    model = regression(spread=2.0)
    kind = method(prior, loss=loss, optimiser=optimiser, clip=4.0, steps=200)
    first, *_, last = kind.run(oracle(model, WEIGHTS), TARGETS, 0)
    assert confidences(model, first.images, TARGETS).min() < 0.5
    assert confidences(model, last.images, TARGETS).min() > 0.8
    wrong = confidences(model, last.images, [1, 2, 0])
    assert wrong.max() < 0.2


def test_the_prior_pulls_to_its_mode(prior: Path) -> None:
    """The only slope of a model that looks at nothing, or of one that hardly counts, is the density's."""
    away = {}
    for name, model, weight in (
        ("nothing", constant(3, M), 100.0),
        ("hardly", regression(spread=2.0), 1e-6),
        ("much", regression(spread=2.0), 100.0),
    ):
        last = finish(method(prior, weight=weight, clip=0.0, steps=200, step=0.005), oracle(model, WEIGHTS), TARGETS)
        away[name] = np.abs(last.extras["codes"] - 1.0).max()
    assert away["nothing"] < 1e-3
    assert away["hardly"] < 1e-3
    assert away["much"] > 0.5  # a control


@pytest.mark.parametrize(("clip", "bound"), [(0.5, 0.25), (2.0, 1.0)])
def test_codes_stay_within_the_clip(clip: float, bound: float, prior: Path) -> None:
    model = regression(spread=2.0)
    snapshots = list(method(prior, clip=clip).run(oracle(model, WEIGHTS), TARGETS, 0))
    away = np.array([np.abs(snapshot.extras["codes"] - 1.0).max() for snapshot in snapshots])
    assert away.max() <= bound + 1e-6
    assert away[-1] == pytest.approx(bound, abs=1e-6)  # the model pulls it there
    free = finish(method(prior, clip=0.0), oracle(model, WEIGHTS), TARGETS)
    assert np.abs(free.extras["codes"] - 1.0).max() > bound  # a control


def test_the_best_of_the_starts_is_returned(prior: Path) -> None:
    """Before the first step the codes are draws, and the losses of all of them can be told by hand."""
    model = regression(spread=2.0)
    first = next(method(prior, starts=6, weight=3.0).run(oracle(model, WEIGHTS), TARGETS, 5))
    codes = load_prior(prior).codes
    z = codes.draw(6, torch.Generator().manual_seed(5)).clamp(0.0, 2.0)
    best = set()
    for target in TARGETS:
        logits = model(z.reshape(6, 1, 2, 3)).double()
        density = -2.0 * (z - 1).square().sum(1)  # and a constant
        value = 3 * functional.cross_entropy(logits, torch.full((6,), target), reduction="none") - density
        np.testing.assert_allclose(first.extras["codes"][target], z[value.argmin()], atol=1e-6)
        np.testing.assert_allclose(first.images[target].ravel(), z[value.argmin()], atol=1e-6)
        best.add(int(value.argmin()))
    assert len(best) > 1  # not always the same one


def test_marks_count_evaluations(prior: Path) -> None:
    model = Counted(regression())
    asked = oracle(model, WEIGHTS)
    model.rows = 0
    marks = []
    for snapshot in method(prior, steps=50, starts=3).run(asked, [0, 2], 0):
        marks.append(snapshot.mark)
        assert snapshot.mark == model.rows / 2
    assert marks[0] == 3
    assert marks[-1] == 50 * 3
    assert 100 <= min(mark for mark in marks if mark >= 100) < 103  # the first after a rung of the ladder
    assert marks == sorted(set(marks))
    assert asked.spent == 0


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"prior": None}, "searches the codes of an image prior"),
        *(({name: 0}, f"{name}=0 must be above 0") for name in ("weight", "steps", "starts", "step")),
        ({"loss": "square"}, "loss must be 'cross_entropy' or 'margin', optimiser 'momentum' or 'adam'"),
        ({"optimiser": "newton"}, "optimiser 'momentum' or 'adam'"),
        ({"clip": -1.0}, "clip=-1.0 must not be below 0"),
        ({"momentum": 1.0}, "momentum=1.0 at least 0 and below 1"),
    ],
)
def test_settings_that_make_no_sense(settings: dict[str, Any], sentence: str, prior: Path) -> None:
    with pytest.raises(ValueError, match=sentence):
        finish(method(**{"prior": prior} | settings), oracle(regression(), WEIGHTS), TARGETS)


def test_scores_are_not_enough() -> None:
    assert "needs the weights, but" in str(refuse(LatentGradient.needs, FULL, 3))
