"""All methods in one table: what holds of every attack, whatever it does."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from attacker.attacks import METHODS, EquationSolving, MIFace, Numeric, RandomDraws
from attacker.needs import Needs, refuse
from tests.toy import (
    FULL,
    LABEL,
    SHAPE,
    WEIGHTS,
    C,
    Contract,
    ToyOracle,
    blocks,
    confidences,
    finish,
    random_model,
)


@dataclass(frozen=True)
class Case:
    """A method, the least contract that satisfies it, and what is true of it."""

    method: Any
    contract: Contract
    one_at_a_time: bool = True  # the answer for a target does not depend on its companions
    uses_seed: bool = False
    beats: float = 0.9  # the confidence that every target of `blocks` reaches

    def __repr__(self) -> str:
        return f"{self.method}-{self.contract.access}-k={self.contract.top_k}-r={self.contract.round_to}"


CASES = [
    Case(MIFace(), WEIGHTS, beats=0.99),
    Case(MIFace(step=1.0), WEIGHTS, beats=0.99),
    Case(Numeric(), FULL, beats=0.99),
    Case(Numeric(probe=0.01), FULL, beats=0.99),
    Case(Numeric(step=10.0), Contract(round_to=0.01)),
    Case(EquationSolving(), FULL, beats=0.98),
    Case(EquationSolving(together=1), FULL, beats=0.98),
    Case(EquationSolving(density=0.25), Contract(round_to=0.001), uses_seed=True),
    Case(RandomDraws(draws=2000), FULL, uses_seed=True),
    Case(RandomDraws(draws=2000), Contract(top_k=1, round_to=0.1), uses_seed=True),
    Case(RandomDraws(draws=2000), LABEL, uses_seed=True, beats=0.25),
]
every_case = pytest.mark.parametrize("case", CASES, ids=repr)


def test_the_table_has_every_method() -> None:
    assert {type(case.method) for case in CASES} == set(METHODS.values())


@every_case
def test_contract_of_an_attack(case: Case) -> None:
    """Images in range, marks that rise and end at what was spent, more than nothing found, the need stated."""
    oracle = ToyOracle(blocks(), SHAPE, case.contract)
    snapshots = list(case.method.run(oracle, list(range(C)), 0))
    for snapshot in snapshots:
        assert snapshot.images.shape == (C, *SHAPE)
        assert snapshot.images.dtype == np.float32
        assert snapshot.images.min() >= 0
        assert snapshot.images.max() <= 1
    marks = [snapshot.mark for snapshot in snapshots]
    assert marks == sorted(set(marks))
    if case.method.needs is Needs.WEIGHTS:
        assert oracle.spent == 0
        assert marks[-1] == snapshots[-1].extras["steps"].max()
    else:
        assert marks[-1] == oracle.spent / C
    assert confidences(blocks(), snapshots[-1].images).min() > case.beats
    assert refuse(case.method.needs, case.contract, C) is None
    for name in ("kind", "paper"):
        assert getattr(case.method, name)


@every_case
def test_snapshots_are_copies(case: Case) -> None:
    kept = []
    for snapshot in case.method.run(ToyOracle(random_model(), SHAPE, case.contract), list(range(C)), 0):
        kept.append((snapshot, snapshot.images.copy()))
    assert all((snapshot.images == then).all() for snapshot, then in kept)


@every_case
def test_same_seed_same_result(case: Case) -> None:
    first, again, other = (
        finish(case.method, ToyOracle(random_model(), SHAPE, case.contract), seed=seed) for seed in (1, 1, 2)
    )
    assert (first.images == again.images).all()
    assert first.mark == again.mark
    assert (first.images == other.images).all() != case.uses_seed


@every_case
def test_batch_of_targets_equals_one_at_a_time(case: Case) -> None:
    model = random_model()
    together = finish(case.method, ToyOracle(model, SHAPE, case.contract))
    for target in range(C):
        alone = finish(case.method, ToyOracle(model, SHAPE, case.contract), [target])
        np.testing.assert_allclose(alone.images[0], together.images[target], atol=1e-4)
    order = [2, 0, 3, 1]
    turned = finish(case.method, ToyOracle(model, SHAPE, case.contract), order)
    np.testing.assert_allclose(turned.images, together.images[order], atol=1e-4)


@every_case
def test_bounds_of_another_range(case: Case) -> None:
    """The toy oracle refuses what is out of range; the first image is then the legal one nearest to zero."""
    oracle = ToyOracle(random_model(spread=0.3), SHAPE, case.contract, low=-0.5, high=2.5)
    last = finish(case.method, oracle)
    assert last.images.min() >= -0.5
    assert last.images.max() <= 2.5
    assert last.images.max() > 1 or isinstance(case.method, RandomDraws)
