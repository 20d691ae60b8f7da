"""Least-squares gradients against the true ones, the black-box path against its white twin's, and the rows of both."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from attacker.attacks import Yoshimura, YoshimuraWhite
from attacker.attacks.yoshimura import LatentDescent, criterion, least_squares
from attacker.needs import refuse
from attacker.snapshot import Snapshot
from tests.attacker.latent_cases import M, affine, oracle, regression, save_affine
from tests.toy import FULL, LABEL, WEIGHTS, Contract, confidences, constant, finish

TARGETS = [0, 1, 2]


@pytest.fixture(scope="module")
def prior(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The image of a code is that code; starts are near 0."""
    return save_affine(tmp_path_factory.mktemp("prior"), encoder=False)


def method(prior: Path | None, **settings: Any) -> Yoshimura:
    return Yoshimura(prior=prior, **{"rows": 500, "perturbations": 12, "sizes": 3} | settings)


def moved(last: Snapshot, first: Snapshot) -> np.ndarray:
    """How far each start came: (T * S, m)."""
    return np.asarray(last.extras["start_codes"] - first.extras["start_codes"]).reshape(-1, M)


def cosines(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.asarray((a * b).sum(-1) / np.linalg.norm(a, axis=-1) / np.linalg.norm(b, axis=-1))


def test_least_squares_of_a_linear_loss_is_its_gradient() -> None:
    E, g = torch.randn(5, 9, M), torch.randn(5, M)  # noqa: N806
    s = (E @ g[..., None])[..., 0]
    torch.testing.assert_close(least_squares(E, s), g, rtol=1e-4, atol=1e-5)
    assert float(criterion(E, s, least_squares(E, s)).max()) < 1e-8
    assert float(criterion(E, s, -g).min()) == pytest.approx(4, rel=1e-4)  # a control: twice the rise is left


def test_the_criterion_grows_with_curvature() -> None:
    E, g = torch.randn(9, M).expand(4, 9, M), torch.randn(4, M)  # noqa: N806
    curved = torch.tensor([0.0, 0.1, 1.0, 10.0])[:, None] * E.square().sum(-1)
    s = (E @ g[:1, :, None])[..., 0] + curved
    found = criterion(E, s, least_squares(E, s))
    assert found.tolist() == sorted(found.tolist())
    assert found[0] < 1e-8
    assert 0.05 < float(found[-1]) <= 1


def test_a_rise_of_zero_says_nothing() -> None:
    E, s = torch.randn(2, 9, M), torch.zeros(2, 9)  # noqa: N806
    s[1, 0] = 1e-9
    found = criterion(E, s, least_squares(E, s))
    assert found[0] == torch.inf
    assert found[1] < 1


@pytest.mark.parametrize(
    ("settings", "choosing", "other"),  # prices of a step by hand
    [
        ({"estimator": "least_squares", "sizes": 3}, 1 + 3 * 12, 1 + 3 * 12),
        ({"estimator": "least_squares", "sizes": 1}, 1 + 12, 1 + 12),
        ({"estimator": "least_squares", "sizes": 4, "choose_every": 3}, 1 + 4 * 12, 1 + 12),
        ({"estimator": "central"}, 1 + 2 * M, 1 + 2 * M),
        ({"estimator": "one_sided"}, 1 + M, 1 + M),
    ],
)
@pytest.mark.parametrize("rows", [50, 99, 210])
@pytest.mark.parametrize("starts", [1, 2])
def test_rows_to_the_last_one(
    settings: dict[str, Any], choosing: int, other: int, rows: int, starts: int, prior: Path
) -> None:
    every = settings.get("choose_every", 1)
    steps, spent = 0, 0
    while spent + (price := other if steps % every else choosing) <= rows:
        steps, spent = steps + 1, spent + price
    asked = oracle(regression())
    last = finish(method(prior, rows=rows, starts=starts, confidence=1.0, **settings), asked, [0, 2])
    assert asked.spent_on == {0: starts * spent, 2: starts * spent}
    assert asked.shared == 0
    assert last.mark == starts * spent
    assert (last.extras["start_rows"] == spent).all()
    assert (last.extras["start_steps"] == steps).all()
    assert last.extras["start_rows"].shape == (2, starts)


@pytest.mark.parametrize("settings", [{"estimator": "least_squares", "sizes": 1}, {"estimator": "central"}])
def test_the_path_is_that_of_the_white_twin(settings: dict[str, Any], prior: Path) -> None:
    model, price = regression(spread=2.0), 1 + 12
    white = list(YoshimuraWhite(prior=prior, rows=200, starts=2).run(oracle(model, WEIGHTS), TARGETS, 0))
    black = list(method(prior, rows=200 * price, starts=2, **settings).run(oracle(model), TARGETS, 0))
    np.testing.assert_array_equal(black[0].extras["start_codes"], white[0].extras["start_codes"])
    stops = white[-1].extras["start_steps"]
    assert 4 < stops.min() <= stops.max() < 199  # all stopped by themselves
    assert np.abs(black[-1].extras["start_steps"] - stops).max() <= 1
    ours, theirs = moved(black[-1], black[0]), moved(white[-1], white[0])
    assert cosines(ours, theirs).min() > 0.995
    assert cosines(ours, np.roll(theirs, 2, 0)).max() < 0.9  # a control: the paths to other targets
    assert (white[-1].mark, black[-1].mark) == (
        white[-1].extras["start_rows"].sum() / 3,
        black[-1].extras["start_rows"].sum() / 3,
    )


def test_sizes_are_chosen_where_rounding_hides_the_small_ones(prior: Path) -> None:
    """Rounded to a tenth, a small perturbation alone is blind, and a choice among larger ones is not."""
    rounded, model = Contract(round_to=0.1), regression(spread=2.0)
    chosen = finish(method(prior, rows=4000, sizes=3, confidence=0.94), oracle(model, rounded), TARGETS)
    assert confidences(model, chosen.images, TARGETS).min() > 0.9
    small = finish(method(prior, rows=4000, sizes=1, confidence=0.94), oracle(model, rounded), TARGETS)
    assert confidences(model, small.images, TARGETS).min() < 0.9


def test_a_search_stops_when_it_is_sure_unless_told_otherwise(prior: Path) -> None:
    model = regression(spread=2.0)
    stopped = oracle(model)
    last = finish(method(prior, rows=5000, estimator="central"), stopped, TARGETS)
    assert last.extras["start_confidence"].min() > 0.99
    assert max(stopped.spent_on.values()) < 5000 - 13
    goes_on = oracle(model)
    further = finish(method(prior, rows=5000, estimator="central", confidence=1.0), goes_on, TARGETS)
    assert set(goes_on.spent_on.values()) == {5000 // 13 * 13}
    assert (further.extras["start_confidence"] > last.extras["start_confidence"]).all()


@pytest.mark.parametrize("kind", ["white", "central", "one_sided", "least_squares"])
def test_side_by_side_as_one_by_one(kind: str, prior: Path) -> None:
    """The same path; with random perturbations, which all searches take from one stream, the same start and success."""
    model, contract = regression(spread=2.0), WEIGHTS if kind == "white" else FULL
    attack: Any = method(prior, rows=3000, starts=2, estimator=kind)
    if kind == "white":
        attack = YoshimuraWhite(prior=prior, starts=2)
    together = list(attack.run(oracle(model, contract), TARGETS, 0))
    for place, target in enumerate(TARGETS):
        alone = list(attack.run(oracle(model, contract), [target], 0))
        for snapshots, same in (((alone[0], together[0]), True), ((alone[-1], together[-1]), kind != "least_squares")):
            one, all_ = (snapshot.extras for snapshot in snapshots)
            near = np.allclose(one["start_codes"][0], all_["start_codes"][place], atol=1e-3)
            assert near == same
        assert alone[-1].extras["start_confidence"].min() > 0.99
    assert together[-1].extras["start_confidence"].min() > 0.99


def test_the_image_is_that_of_the_surest_start(prior: Path) -> None:
    last = finish(method(prior, rows=100, starts=4), oracle(regression()), TARGETS)
    sure = last.extras["start_confidence"]
    assert sure.shape == (3, 4)
    for t in range(3):
        np.testing.assert_array_equal(last.images[t], last.extras["start_images"][t, sure[t].argmax()])
    np.testing.assert_allclose(confidences(regression(), last.images, TARGETS), sure.max(1), rtol=1e-5)


class Slope:
    """The same gradient everywhere, and every code that was visited."""

    def __init__(self, gradient: list[float]) -> None:
        self.gradients, self.visited = torch.tensor(gradient), list[Tensor]()

    def loss(self, z: Tensor, live: np.ndarray) -> np.ndarray:
        self.visited.append(z.clone())
        return np.ones(len(z))

    def gradient(self, keep: np.ndarray) -> Tensor:
        return self.gradients[keep, None] * torch.eye(M)[0]

    def price(self, i: int) -> int:
        return 1


def test_a_step_is_a_tenth_long_and_its_rate_at_most_a_hundred() -> None:
    slope = Slope([50.0, 0.01, 1e-4, 0.0])
    list(LatentDescent(rows=3, starts=4).descend(slope, affine(encoder=False), oracle(regression()), 1, 0))
    steps = (slope.visited[1] - slope.visited[0]).norm(dim=1)
    np.testing.assert_allclose(steps, [0.1, 0.1, 0.01, 0.0], atol=1e-6)
    assert (slope.visited[1] - slope.visited[0])[:, 0].max() <= 0  # down the slope


def test_only_the_largest_score(prior: Path) -> None:
    model = regression(spread=2.0)
    contract = Contract(top_k=1)
    last = finish(method(prior, rows=4000), oracle(model, contract), TARGETS)
    first = next(method(prior, rows=4000).run(oracle(model, contract), TARGETS, 0))
    assert (model(torch.from_numpy(first.images)).argmax(1).numpy() != TARGETS).any()  # somebody's score was withheld
    assert confidences(model, last.images, TARGETS).min() > 0.9


@pytest.mark.parametrize(("estimator", "price"), [("least_squares", 37), ("central", 13)])
def test_without_a_slope_it_stands_still_and_ends(estimator: str, price: int, prior: Path) -> None:
    asked = oracle(constant(3, M))
    snapshots = list(method(prior, estimator=estimator).run(asked, TARGETS, 0))
    assert (moved(snapshots[-1], snapshots[0]) == 0).all()
    assert np.isfinite(snapshots[-1].images).all()
    assert set(asked.spent_on.values()) == {500 // price * price}


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"prior": None}, "searches the codes of an image prior: name its folder with --prior"),
        ({"perturbations": M - 1}, "perturbations=5 must be at least the latent size, 6"),
        ({"rows": 36}, "rows=36 do not pay for the first step, which costs 37: allow more"),
        ({"rows": 0}, "rows=0 must be above 0"),
        ({"starts": 0}, "starts=0 must be above 0"),
        ({"step": 0.0}, "step=0.0 must be above 0"),
        ({"most": -1.0}, "most=-1.0 must be above 0"),
        ({"confidence": 1.5}, "confidence=1.5 must be above 0 and at most 1"),
        ({"estimator": "magic"}, "estimator='magic' must be 'least_squares', 'central' or 'one_sided'"),
        ({"sizes": 0}, "sizes, choose_every and size must be above 0"),
        ({"choose_every": 0}, "sizes, choose_every and size must be above 0"),
        ({"size": 0.0}, "sizes, choose_every and size must be above 0"),
    ],
)
def test_settings_that_make_no_sense(settings: dict[str, Any], sentence: str, prior: Path) -> None:
    asked = oracle(regression())
    with pytest.raises(ValueError, match=sentence):
        finish(method(**{"prior": prior} | settings), asked, TARGETS)
    assert asked.spent == 0


def test_labels_are_not_enough() -> None:
    assert "needs scores, but" in str(refuse(Yoshimura.needs, LABEL, 3))
    assert "needs the weights, but" in str(refuse(YoshimuraWhite.needs, FULL, 3))
    assert refuse(Yoshimura.needs, Contract(top_k=1), 3) is None
