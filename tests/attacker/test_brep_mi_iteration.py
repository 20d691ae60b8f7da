"""Boundary repulsion, one iteration at a time: its direction against the theory, radii and moves against their laws."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from attacker.attacks import BrepMI
from attacker.attacks.brep_mi import _COMPATIBLE, _Search, repulsion
from attacker.priors.prior import load_prior
from referee.figures.brep import expected_cosine
from tests.attacker.latent_cases import Balls, Stripes, labels_of, oracle, save_affine
from tests.toy import LABEL, Contract, ToyOracle

TARGETS = [0, 1, 2]


@pytest.fixture(scope="module")
def prior(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The image of a code is that code."""
    return save_affine(tmp_path_factory.mktemp("prior"))


def method(prior: Path | None, **settings: Any) -> BrepMI:
    return BrepMI(prior=prior, **{"rows": 400, "draws": 60, "pool": 20, "radius": 0.5} | settings)


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
    for wrong in (points // 2, 2 * points):  # controls: as if half or all of the points lay outside for certain
        assert measured != pytest.approx(expected_cosine(wrong, m), rel=0.05)


@pytest.mark.parametrize("compatible", [False, True])
@pytest.mark.parametrize("contract", [LABEL, Contract(top_k=1, round_to=1e-6)])
def test_the_laws_of_an_iteration(compatible: bool, contract: Contract, prior: Path) -> None:
    """A radius grows only when its sphere lies inside, a code moves only within its class; what is asked is counted."""
    kind = method(prior, rows=900, share=0.9, mass=0.0, longest=0.2)
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
        inside = (labels[mine] == t).mean() >= (0.9 if kind.fewest else 29 / 32)
        assert float(state._R[t]) == pytest.approx(float(R[t]) * (kind.growth if inside else 1))
        to = next((i for i, owner in enumerate(move[0][1] if move else []) if owner == t), None)
        assert (to is None) == inside
        accepted = to is not None and move[0][2][to] == t
        assert torch.equal(state._z[t], move[0][0][to] if to is not None and accepted else z[t])
        if to is not None:
            step = float((move[0][0][to] - z[t]).norm())
            longest = min(kind.longest, float(R[t]) / 3)
            assert step == pytest.approx(longest, rel=1e-3) if kind.normalised else step < longest
        assert state._count[t] == count[t] + 1
        assert state._tried[t] == (0 if inside else tried[t] + (accepted if kind.moves_only else 1))
        events += [inside, accepted, not inside and not accepted]
    return events


def test_a_target_is_given_up_after_so_many_iterations_at_one_radius(prior: Path) -> None:
    state = watched(method(prior, rows=100_000, iterations=4, mass=0.0), oracle(Balls(), LABEL))
    grown = np.zeros(3, int)
    while len(state.live):
        before = state._R.clone()
        state.advance()
        grown += (before < state._R).numpy()
        assert (state._tried <= 4).all()
    assert (state._tried == 4).all()
    assert (state._count <= 4 * (grown + 1)).all()
