"""VMI: the optimum where there is a closed form, weights, two modes, the extended space, explored starts, its price.

Of a linear loss a z and a prior N(c, s^2 I) the optimum is N(c - s^2 a / weight, s^2 I), in every family.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.distributions import Normal

from attacker.attacks import VMI
from attacker.attacks.descent import identity_loss
from attacker.attacks.families import FAMILIES, family
from attacker.needs import refuse
from attacker.priors.codes import Codes
from attacker.priors.prior import load_prior
from tests.attacker.latent_cases import SHAPE, Counted, Lobes, M, gaussian, labels_of, oracle, regression, save_affine
from tests.toy import FULL, WEIGHTS, constant, finish, softmax_regression

TARGETS, L = [0, 1, 2], 3  # L: layers
CENTRE, SPREAD = 1.0, 0.5  # of the codes
SLOPE = np.array([0.5, -1.0, 0.0, 2.0, -0.5, 1.0])  # of the margin of two classes, down for the one, up for the other
every_family = pytest.mark.parametrize("name", FAMILIES)


@pytest.fixture(scope="module")
def prior(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The image of a code is that code."""
    return save_affine(tmp_path_factory.mktemp("prior"), codes=gaussian(CENTRE, SPREAD))


@pytest.fixture(scope="module")
def layered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Number j of the image is that of the code of layer j % L."""
    return save_affine(tmp_path_factory.mktemp("layered"), codes=gaussian(CENTRE, SPREAD), layers=L)


def method(name: str, prior: Path | None, **settings: Any) -> VMI:
    defaults = {"steps": 80, "batch": 24, "samples": 400, "components": 3, "step": 0.02 if name == "flow" else 0.05}
    return VMI(**defaults | {"family": name, "prior": prior} | settings)


def still(name: str, prior: Path, **settings: Any) -> VMI:
    """A step so short that the distribution stays as it began."""
    return method(name, prior, **{"steps": 1, "step": 1e-12} | settings)


def recognised(model: torch.nn.Module, samples: np.ndarray) -> np.ndarray:
    """The share of each target's samples (T, n, *SHAPE) of its class."""
    return np.array([(labels_of(model, of) == target).mean() for target, of in enumerate(samples)])


@every_family
def test_the_optimum_of_a_linear_loss(name: str, prior: Path) -> None:
    model = softmax_regression(np.stack([SLOPE, 0 * SLOPE]))
    for weight in (1.0, 1e6):
        kind = method(name, prior, loss="margin", weight=weight, steps=120, batch=40, samples=2000)
        extras = finish(kind, oracle(model, WEIGHTS), [0, 1]).extras
        shift = np.outer([1, -1], SPREAD**2 * SLOPE / weight)
        assert abs(shift).max() < 1e-5 or abs(shift).max() > 0.4  # a control, four times what is allowed
        np.testing.assert_allclose(extras["codes"].mean(1), CENTRE + shift, atol=0.1)
        np.testing.assert_allclose(extras["codes"].std(1), SPREAD, atol=0.07)
        exact = 0.5 * np.square(shift / SPREAD).sum(1)
        assert (extras["divergence"] > exact - 0.15).all()
        assert (extras["divergence"] < exact + 0.2).all()


@every_family
def test_the_weight_is_between_prior_and_target(name: str, prior: Path) -> None:
    model, divergence, shares = regression(spread=2.0), [], []
    for weight in (1e4, 1.0, 0.1, 0.0):
        last = finish(method(name, prior, weight=weight), oracle(model, WEIGHTS), [0, 1])
        divergence.append(last.extras["divergence"])
        shares.append(recognised(model, last.extras["samples"]))
    assert (np.diff(divergence, axis=0) > 0).all()
    assert max(divergence[0]) < 0.3
    assert min(divergence[-1]) > 2
    assert shares[0].min() < 0.4
    assert shares[-1].min() > 0.95


@pytest.mark.parametrize("loss", ["cross_entropy", "margin"])
def test_most_samples_are_recognised(loss: str, prior: Path) -> None:
    model = regression(spread=2.0)
    kind = method("mixture", prior, loss=loss, weight=0.01, explore=300)
    last = finish(kind, oracle(model, WEIGHTS), TARGETS)
    assert recognised(model, last.extras["samples"]).min() > 0.95
    assert labels_of(model, last.images).tolist() == TARGETS
    assert last.extras["samples"].std(1).max(axis=(1, 2, 3)).min() > 0.05  # no two are alike


def covers(name: str, seed: int, prior: Path) -> bool:
    """Whether nearly all samples are of class 0 of `Lobes`, and a fifth at least in each of its parts."""
    kind = method(name, prior, weight=0.1, components=4, step=0.1 if name == "mixture" else 0.05)
    last = finish(kind, oracle(Lobes(), WEIGHTS), [0], seed)
    left, right = ((side * last.extras["codes"][0, :, 0] > 0.7).mean() for side in (-1, 1))
    assert left + right == pytest.approx(recognised(Lobes(), last.extras["samples"])[0], abs=1e-6)
    return bool(left + right > 0.9 and min(left, right) > 0.2)


@pytest.mark.parametrize("seed", [0, 1])
def test_a_mixture_covers_what_one_gaussian_does_not(seed: int, tmp_path: Path) -> None:
    prior = save_affine(tmp_path)
    assert covers("mixture", seed, prior)
    assert not covers("gaussian", seed, prior)  # a control: one part, or the class between them too


@pytest.mark.parametrize("codes", [gaussian(CENTRE, SPREAD), None])
def test_the_divergence_is_that_of_the_codes(codes: Codes | None, tmp_path: Path) -> None:
    """Before a step q is a Gaussian with centre and spread of the prior's codes, whatever their distribution is."""
    two = Codes(torch.tensor([0.3, 0.7]), torch.tensor([[-2.0] * M, [1.0] * M]), 0.4 * torch.eye(M).expand(2, M, M))
    codes = codes or two
    last = finish(still("gaussian", save_affine(tmp_path, codes=codes)), oracle(regression(), WEIGHTS), TARGETS)
    z = torch.from_numpy(last.extras["codes"])
    log_q = Normal(codes.centre, codes.spread).log_prob(z).sum(2)
    wanted = (log_q - codes.log_density(z.flatten(0, 1)).reshape(3, -1)).mean(1)
    np.testing.assert_allclose(last.extras["divergence"], wanted, rtol=1e-4, atol=1e-5)
    assert (wanted.min() > 1) == (codes is two)


def test_the_image_is_the_best_draw_by_hand(prior: Path) -> None:
    model = regression(spread=2.0)
    first = next(method("gaussian", prior, batch=50).run(oracle(model, WEIGHTS), TARGETS, 4))
    z = CENTRE + SPREAD * torch.randn(3, 50, M, generator=torch.Generator().manual_seed(4))
    for target, of in enumerate(z):
        loss = identity_loss(model(of.unflatten(1, SHAPE)), torch.full((50,), target), "cross_entropy")
        np.testing.assert_allclose(first.images[target].ravel(), of[loss.argmin()], atol=1e-6)


@pytest.mark.parametrize("name", ["gaussian", "flow"])
def test_the_optimum_in_the_extended_space(name: str, layered: Path) -> None:
    """Each layer reads a third of its code. The divergence is a mean over layers, so that each is a third as dear; what
    no layer reads is as the prior has it.
    """
    model, weight = softmax_regression(np.stack([SLOPE, 0 * SLOPE])), 1.5
    kind = method(name, layered, extended=True, loss="margin", weight=weight, steps=120, batch=40, samples=2000)
    last = finish(kind, oracle(model, WEIGHTS), [0, 1])
    codes = last.extras["codes"]
    assert codes.shape == (2, 2000, L, M)
    mine = np.arange(M) % L == np.arange(L)[:, None]
    shift = np.multiply.outer([1, -1], mine * SPREAD**2 * SLOPE * L / weight)
    np.testing.assert_allclose(codes.mean(1), CENTRE + shift, atol=0.1)
    np.testing.assert_allclose(codes.std(1), SPREAD, atol=0.07)
    exact = 0.5 * np.square(shift / SPREAD).sum(2).mean(1)
    assert (abs(last.extras["divergence"] - exact) < 0.2).all()
    assert exact.min() > 1  # and another third, or three times as much, is further away
    made = (codes * mine).sum(2).reshape(last.extras["samples"].shape)
    np.testing.assert_allclose(last.extras["samples"], made, atol=1e-5)


@pytest.mark.parametrize("extended", [False, True])
@every_family
def test_shapes(name: str, extended: bool, layered: Path) -> None:
    kind, asked = method(name, layered, extended=extended, steps=4, explore=20), oracle(regression(), WEIGHTS)
    for n in (1, 7):
        for targets in ([1], [2, 0]):
            *before, last = VMI(**vars(kind) | {"samples": n}).run(asked, targets, 0)
            T = len(targets)  # noqa: N806
            assert last.images.shape == (T, *SHAPE)
            assert last.extras["samples"].shape == (T, n, *SHAPE)
            assert last.extras["codes"].shape == ((T, n, L, M) if extended else (T, n, M))
            assert last.extras["divergence"].shape == (T,)
            assert all(np.isfinite(array).all() for array in last.extras.values())
            assert all(not snapshot.extras for snapshot in before)
    assert vars(kind)["samples"] == 400  # more samples than draws of a step
    assert finish(kind, asked, TARGETS).extras["samples"].shape == (3, 400, *SHAPE)


def test_samples_are_the_images_of_their_codes_in_range(layered: Path) -> None:
    asked = oracle(regression(spread=2.0), WEIGHTS)
    asked.low, asked.high = -9.0, 9.0
    last = finish(method("gaussian", layered, weight=0.0, step=1.0), asked, TARGETS)
    codes = last.extras["codes"].reshape(last.extras["samples"].shape)
    np.testing.assert_allclose(last.extras["samples"], codes.clip(-9, 9), atol=1e-5)
    assert abs(codes).max() > 9


def best_draws(prior: Path, name: str, model: torch.nn.Module, explore: int, components: int, seed: int) -> Tensor:
    """The codes (T, components, M) with the lowest loss, of the draws that come after the making of the family."""
    random = torch.Generator().manual_seed(seed)
    family(name, len(TARGETS), M, components, random)
    z = load_prior(prior).codes.draw(explore, random)
    logits = model(z.unflatten(1, SHAPE))
    loss = [identity_loss(logits, torch.full((explore,), target), "cross_entropy") for target in TARGETS]
    return torch.stack([z[of.argsort()[:components]] for of in loss])


@every_family
def test_it_starts_at_the_best_of_what_was_explored(name: str, prior: Path) -> None:
    """More draws than one pass of the target takes."""
    model = regression(spread=2.0)
    kind = still(name, prior, explore=300, components=5, samples=4000)
    codes = torch.from_numpy(finish(kind, oracle(model, WEIGHTS), TARGETS, 3).extras["codes"])
    best = best_draws(prior, name, model, 300, 5, 3)
    np.testing.assert_allclose(codes.mean(1), best.mean(1), atol=0.04)
    assert abs(codes.mean(1) - best.mean(1).roll(1, 0)).amax(1).min() > 0.3  # a control: another target's
    if name == "mixture":
        away = torch.cdist(codes, best).min(2)
        assert away.values.max() < 5.5 * 0.2 * SPREAD
        assert abs(np.array([np.bincount(of) for of in away.indices]) - 800).max() < 5  # as often
    else:
        deviation = best.std(1).clamp(0.3 * SPREAD, SPREAD)
        np.testing.assert_allclose(codes.std(1), deviation, rtol=0.06)


def test_fewer_explored_than_components(prior: Path) -> None:
    """Also of one draw, from which all begin."""
    for explore in (1, 2):
        for name in FAMILIES:
            kind = still(name, prior, explore=explore, components=5, samples=1000)
            last = finish(kind, oracle(constant(3, M), WEIGHTS), TARGETS)
            assert np.isfinite(last.extras["codes"]).all()
            if explore == 1:
                assert abs(last.extras["codes"].mean(1) - last.extras["codes"].mean((0, 1))).max() < 0.1


@pytest.mark.parametrize("extended", [False, True])
@pytest.mark.parametrize(("explore", "drawn"), [(0, 0), (1, 0), (301, 450)])
def test_marks_count_evaluations(explore: int, drawn: int, extended: bool, layered: Path) -> None:
    """What was explored is shared by the targets, and samples are not asked about unless the best are kept."""
    model = Counted(regression())
    asked = oracle(model, WEIGHTS)
    model.rows, marks = 0, []
    kind = method("mixture", layered, explore=explore, drawn=drawn, extended=extended, steps=30, batch=5)
    for snapshot in kind.run(asked, [0, 2], 0):
        marks.append(snapshot.mark)
        assert snapshot.mark == model.rows / 2
    assert marks[0] == explore / 2 + 5
    assert marks[-1] == explore / 2 + 30 * 5 + drawn
    assert len(marks) > 2
    assert marks == sorted(set(marks))
    assert asked.spent == 0


@pytest.mark.parametrize("extended", [False, True])
def test_the_best_of_more_draws_are_kept(extended: bool, layered: Path) -> None:
    """Of the same draws, those with the lowest loss of their own target; without a second look all are kept."""
    model = regression(spread=2.0)

    def losses(**settings: int) -> np.ndarray:
        kind = still("gaussian", layered, extended=extended, **settings)
        samples = finish(kind, oracle(model, WEIGHTS), TARGETS, seed=3).extras["samples"]
        logits = model(torch.from_numpy(samples).flatten(0, 1)).detach()
        label = torch.arange(len(TARGETS)).repeat_interleave(samples.shape[1])
        return identity_loss(logits, label, "cross_entropy").numpy().reshape(samples.shape[:2])

    drawn, kept = losses(samples=90), losses(samples=30, drawn=90)
    np.testing.assert_allclose(np.sort(kept, 1), np.sort(drawn, 1)[:, :30], rtol=1e-5)
    assert losses(samples=30).max() > kept.max()  # a control


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"prior": None}, "searches the codes of an image prior"),
        *(({n: 0}, f"^{n}=0 must be above 0 and finite$") for n in ("steps", "batch", "step", "components", "samples")),
        *(({n: -1}, f"^{n}=-1 must be at least 0 and finite$") for n in ("weight", "explore", "drawn")),
        *(({"weight": w}, f"^weight={w} must be at least 0 and finite$") for w in (float("nan"), float("inf"))),
        ({"drawn": 99}, "^drawn=99 must be at least samples=100, or 0: the best of them are kept$"),
        ({"loss": "square"}, "^loss must be one of cross_entropy, margin, family one of gaussian, mixture, flow$"),
        ({"family": "uniform"}, "family one of gaussian, mixture, flow$"),
        ({"extended": True}, "^a pca prior takes one code, it has no extended space: leave extended out$"),
    ],
)
def test_settings_that_make_no_sense(settings: dict[str, Any], sentence: str, prior: Path) -> None:
    with pytest.raises(ValueError, match=sentence):
        finish(VMI(**{"prior": prior} | settings), oracle(regression(), WEIGHTS), TARGETS)


def test_scores_are_not_enough() -> None:
    assert "needs the weights, but" in str(refuse(VMI.needs, FULL, 3))
