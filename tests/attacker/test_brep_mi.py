"""Boundary repulsion: its direction against the theory, every iteration against its laws, and rows to the last one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from attacker.attacks import BrepMI, brep_mi
from attacker.attacks.brep_mi import _COMPATIBLE, _Search, repulsion
from attacker.priors.prior import load_prior
from referee.figures.brep import expected_cosine
from tests.attacker.latent_cases import CENTRES, Balls, Lobes, M, Stripes, gaussian, oracle, regression, save_affine
from tests.toy import FULL, LABEL, Contract, ToyOracle, finish, softmax_regression

TARGETS = [0, 1, 2]


@pytest.fixture(scope="module")
def prior(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The image of a code is that code."""
    return save_affine(tmp_path_factory.mktemp("prior"))


def method(prior: Path | None, **settings: Any) -> BrepMI:
    return BrepMI(prior=prior, **{"rows": 400, "draws": 60, "pool": 20, "radius": 0.5} | settings)


def labels_of(model: nn.Module, codes: np.ndarray) -> np.ndarray:
    return np.asarray(model(torch.from_numpy(codes)).argmax(1).numpy())


def far_away(first: float) -> nn.Module:
    """Class 1 where the first pixel is larger than `first`, class 0 elsewhere."""
    return softmax_regression(np.array([np.zeros(M), np.eye(M)[0]]), np.array([0.0, -first]))


class Watched(_Search):
    """Every question of an iteration: codes, whose they are, labels."""

    def advance(self) -> None:
        self.questions: list[tuple[Tensor, np.ndarray, np.ndarray]] = []
        super().advance()

    def _labels(self, z: Tensor, whose: np.ndarray) -> np.ndarray:
        labels = super()._labels(z, whose)
        if hasattr(self, "questions"):
            self.questions.append((z, whose, labels))
        return labels


def watched(kind: BrepMI, asked: ToyOracle, targets: list[int] = TARGETS) -> Watched:
    assert kind.prior is not None
    return Watched(kind, asked, load_prior(kind.prior), np.array(targets), torch.Generator().manual_seed(0))


def test_repulsion_by_hand() -> None:
    U = torch.tensor([[1.0, 0], [0, 1], [-1, 0], [0, -1]]).expand(3, 4, 2)  # noqa: N806
    outside = torch.tensor([[1, 0, 0, 0], [1, 1, 0, 0], [0, 0, 0, 0]]).bool()
    assert repulsion(U, outside).tolist() == [[-0.25, 0], [-0.25, -0.25], [0, 0]]


@pytest.mark.parametrize(("points", "m"), [(8, 6), (8, 60), (32, 6), (32, 60), (128, 16)])
def test_the_cosine_with_the_gradient_is_that_of_theory(points: int, m: int) -> None:
    """On a linear target, whose boundary runs through the code; the class lies where the first number is above 0."""
    U = torch.randn(1500, points, m)  # noqa: N806
    U /= U.norm(dim=2, keepdim=True)  # noqa: N806
    found = repulsion(U, U[..., 0] < 0)
    measured = float((found[:, 0] / found.norm(dim=1).clamp(min=1e-12)).mean())
    assert measured == pytest.approx(expected_cosine(points, m), rel=0.05)
    length = (2 / np.pi / m) ** 0.5  # controls: vectors that do not add up sideways, and half as many of them
    assert measured != pytest.approx(min(1, (points / 2) ** 0.5 * length), rel=0.05) or points * length**2 < 0.2
    assert measured != pytest.approx(expected_cosine(points // 2, m), rel=0.03)


@pytest.mark.parametrize("compatible", [False, True])
@pytest.mark.parametrize("contract", [LABEL, Contract(top_k=1, round_to=1e-6)])
def test_the_laws_of_an_iteration(compatible: bool, contract: Contract, prior: Path) -> None:
    """A radius grows only when its sphere lies inside, a code moves only within its class; what is asked is counted."""
    kind = method(prior, rows=900, share=0.9, mass=0.0)
    kind = replace(kind, **_COMPATIBLE | {"radius": 0.5, "clamp": 0.0}) if compatible else kind
    events = np.zeros(3, int)
    for model in (Balls(), Stripes()):
        asked = oracle(model, contract)
        state = watched(kind, asked)
        while len(state.live):
            events += iteration(state, kind)
            assert (labels_of(model, state._z.numpy())[state._found] == np.array(TARGETS)[state._found]).all()
        assert asked.spent <= 3 * 900
    assert events.min() > 2, events  # radii that grew, moves, refused moves: all of them came about


def iteration(state: Watched, kind: BrepMI) -> np.ndarray:
    """One of them, checked target by target against what was answered."""
    live, z, R = state.live.copy(), state._z.clone(), state._R.clone()  # noqa: N806
    count, tried, events = state._count.copy(), state._tried.copy(), np.zeros(3, int)
    state.advance()
    (points, whose, labels), *move = state.questions
    for t in live:
        mine = whose == t
        assert mine.sum() == (min(32, round(kind.fewest * float(R[t]) / 0.5)) if kind.fewest else 32)
        np.testing.assert_allclose((points[torch.from_numpy(mine)] - z[t]).norm(dim=1), R[t], rtol=1e-3)
        inside = (labels[mine] == t).mean() >= kind.share
        assert float(state._R[t]) == pytest.approx(float(R[t]) * (kind.growth if inside else 1))
        to = next((i for i, owner in enumerate(move[0][1] if move else []) if owner == t), None)
        assert (to is None) == inside
        accepted = to is not None and move[0][2][to] == t
        assert torch.equal(state._z[t], move[0][0][to] if to is not None and accepted else z[t])
        if to is not None:
            step = float((move[0][0][to] - z[t]).norm())
            assert step == pytest.approx(float(R[t]) / 3, rel=1e-3) if kind.normalised else step < R[t] / 3
        assert state._count[t] == count[t] + 1
        assert state._tried[t] == (0 if inside else tried[t] + (accepted if kind.moves_only else 1))
        events += [inside, accepted, not inside and not accepted]
    return events


@pytest.mark.parametrize("rows", [5, 20, 21, 29, 30, 61, 200])
@pytest.mark.parametrize("first", ["mean", "draw"])
def test_rows_are_kept(rows: int, first: str, prior: Path) -> None:
    """None more than allowed for each target, its share of the draws among them, and few left over."""
    asked = oracle(Balls(), LABEL)
    snapshots = list(method(prior, rows=rows, first=first).run(asked, TARGETS, 0))
    for target in TARGETS:
        assert asked.spent_on[target] + asked.shared / 3 <= rows
    assert asked.shared <= 60 * 3
    assert snapshots[-1].mark == asked.spent / 3
    marks = [snapshot.mark for snapshot in snapshots]
    assert marks == sorted(set(marks))
    if rows == 200:
        assert max(asked.spent_on.values()) + asked.shared / 3 > rows - 34


def test_distance_to_a_known_centre_falls(prior: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def falls() -> np.ndarray:
        kind = method(prior, rows=1500, first="draw", fewest=0, mass=0.0)
        first, *_, last = kind.run(oracle(Balls(), LABEL), TARGETS, 0)
        start, end = (np.linalg.norm(now.images.reshape(3, M) - CENTRES, axis=1) for now in (first, last))
        return np.asarray(end / start)

    assert falls().max() < 0.5
    monkeypatch.setattr(brep_mi, "repulsion", lambda U, outside: -repulsion(U, outside))  # noqa: N803
    assert falls().min() > 0.7  # a control: attracted by the boundary


def test_the_same_decisions_under_every_contract(prior: Path) -> None:
    ends = [
        finish(method(prior), oracle(Balls(), contract), TARGETS)
        for contract in (LABEL, FULL, Contract(top_k=1), Contract(top_k=2, round_to=1e-4))
    ]
    for end in ends[1:]:
        np.testing.assert_array_equal(end.images, ends[0].images)
        np.testing.assert_array_equal(end.extras["radius"], ends[0].extras["radius"])
        assert end.mark == ends[0].mark


def test_a_class_that_never_appears_is_not_found(prior: Path) -> None:
    model = regression(classes=3)
    model[1].bias[1] = -99.0  # type: ignore[index, union-attr, operator]
    asked = oracle(model, LABEL)
    last = finish(method(prior), asked, TARGETS)
    assert last.extras["found"].tolist() == [True, False, True]
    assert (last.images[1] == asked.low).all()
    assert asked.shared == 60 * 3  # all draws were made for it
    assert asked.spent_on[1] == 0
    nobody = finish(method(prior), oracle(model, LABEL), [1])
    assert not nobody.extras["found"].any()
    assert nobody.mark == 60


@pytest.mark.parametrize("reuse", [True, False])
def test_a_class_on_somebodys_sphere_is_found(reuse: bool, prior: Path) -> None:
    """Beyond 3.5 standard deviations no draw has come, and a sphere of radius 3 gets there."""
    asked = oracle(far_away(3.5), LABEL)
    first, *_, last = method(prior, radius=3.0, mass=0.0, reuse=reuse).run(asked, [0, 1], 0)
    assert first.extras["found"].tolist() == [True, False]
    assert last.extras["found"].tolist() == [True, reuse]
    assert (last.extras["codes"][1, 0] > 3.5) == reuse
    assert (asked.spent_on[1] > 100) == reuse
    assert (last.images[1] == asked.low).all() != reuse
    assert max(asked.spent_on.values()) + asked.shared / 2 <= 400


def test_untargeted_attacks_so_many_as_are_asked(prior: Path) -> None:
    for wanted in (1, 2, 3):
        asked = oracle(Balls(), LABEL)
        last = finish(method(prior, untargeted=wanted), asked, TARGETS)
        assert last.extras["found"].sum() == wanted
        assert {target for target, rows in asked.spent_on.items() if rows} == set(np.flatnonzero(last.extras["found"]))
        drawn = labels_of(Balls(), np.concatenate(asked.asked)[: asked.shared])
        came = sorted(TARGETS, key=lambda target: drawn.tolist().index(target))
        assert set(came[:wanted]) == set(np.flatnonzero(last.extras["found"]))
        assert (last.images[~last.extras["found"]] == asked.low).all()


def test_the_first_point_is_a_mean_or_else_the_nearest_draw(prior: Path) -> None:
    for model, is_mean in ((regression(classes=2), True), (Lobes(), False)):
        asked = oracle(model, LABEL)
        first = next(method(prior).run(asked, [0, 1], 0))
        codes = np.concatenate(asked.asked).reshape(-1, M)[: asked.shared]
        mine = codes[labels_of(model, codes) == 0]
        mean = mine.mean(0)
        wanted = mean if is_mean else mine[np.linalg.norm(mine - mean, axis=1).argmin()]
        np.testing.assert_allclose(first.extras["codes"][0], wanted, atol=1e-5)
        assert labels_of(model, first.images)[0] == 0
    asked = oracle(Lobes(), LABEL)
    drawn = next(method(prior, first="draw").run(asked, [0, 1], 0)).extras["codes"]
    codes = np.concatenate(asked.asked).reshape(-1, M)
    np.testing.assert_array_equal(drawn[0], codes[(labels_of(Lobes(), codes) == 0).argmax()])


@pytest.mark.parametrize(("settings", "bound"), [({"mass": 0.8}, 0.8), ({"mass": 0.0}, None)])
def test_codes_stay_where_the_prior_has_mass(settings: dict[str, float], bound: float | None, tmp_path: Path) -> None:
    folder = save_affine(tmp_path, codes=gaussian(1.0, 0.5))
    asked = oracle(regression(classes=2), LABEL)
    last = finish(method(folder, rows=300, **settings), asked, [0, 1])
    away = np.linalg.norm((np.concatenate(asked.asked).reshape(-1, M) - 1.0) / 0.5, axis=1) / M**0.5
    if bound is None:
        assert away.max() > 1.5  # a control: without the bound they go astray
        return
    assert away.max() <= bound * 1.0001
    assert last.extras["found"].all()
    done = finish(method(folder, rows=100_000, **settings), asked, [0])
    assert bound * 0.5 * M**0.5 < done.extras["radius"][0]  # beyond the distance of its mass a target is done
    assert done.mark < 50_000


def test_compatible_is_what_the_authors_do(prior: Path) -> None:
    asked = oracle(regression(), LABEL)
    last = finish(method(prior, compatible=True, rows=900, draws=200), asked, TARGETS)
    assert np.abs(np.concatenate(asked.asked)).max() <= 1.5
    per_target = np.array([asked.spent_on[target] for target in TARGETS])
    iterations = last.extras["iterations"]
    assert (per_target <= 33 * iterations).all()
    assert (32 * iterations <= per_target).all()
    assert finish(method(prior, compatible=True, points=5), asked, TARGETS).extras["iterations"].max() > 30


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"prior": None}, "searches the codes of an image prior"),
        *(({name: 0}, f"{name}=0 must be above 0") for name in ("rows", "draws", "points", "radius", "longest")),
        ({"iterations": 0}, "iterations=0 must be above 0"),
        *(({name: -1}, f"{name}=-1 must not be below 0") for name in ("pool", "fewest", "mass", "clamp")),
        ({"growth": 1.0}, "growth=1.0 must be above 1, share=1.0 above 0 and at most 1"),
        ({"share": 0.0}, "share=0.0 above 0 and at most 1"),
        ({"share": 1.5}, "share=1.5 above 0 and at most 1"),
        ({"first": "last"}, "first='last' must be 'mean' or 'draw'"),
        ({"untargeted": 4}, "untargeted=4 must be 0, or at most the number of targets, 3"),
        ({"untargeted": -1}, "untargeted=-1 must be 0"),
    ],
)
def test_settings_that_make_no_sense(settings: dict[str, Any], sentence: str, prior: Path) -> None:
    asked = oracle(Balls(), LABEL)
    with pytest.raises(ValueError, match=sentence):
        finish(method(**{"prior": prior} | settings), asked, TARGETS)
    assert asked.spent == 0
