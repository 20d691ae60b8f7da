"""What the cells of an advice run say in words: what each contract gives away at which budget, and which one to take.

A contract gives away the model's classes where the whole interval of its attack lies above every floor: the best of as
many random images, an image that asks nothing, chance. It also gives away what any stricter contract does: who gets
scores has the label too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from attacker.snapshot import on_ladder
from referee.cell import Cell
from referee.metrics import Interval, clustered_interval
from referee.report import labels

__all__ = ["Advice", "Finding", "Step", "advise_in_words", "find_leak", "sentences"]

_FEW = 10  # classes, below which only large differences can be told


@dataclass(frozen=True)
class Step:
    """After `rows` queries for each class: the share that the attack's images are recognised, and that of the floor.

    `draws` is the best of as many random images of the public data; `floor` the highest of all floors, with it.
    """

    rows: int
    attack: Interval
    draws: float
    floor: float

    @property
    def leaks(self) -> bool:
        return self.attack.low > self.floor


@dataclass(frozen=True)
class Finding:
    """One contract: its name in words, its attack, what was measured at each budget, or why nothing was."""

    contract: str
    method: str
    classes: int
    steps: tuple[Step, ...] = ()
    lacking: str = ""

    @property
    def last(self) -> Step:
        return self.steps[-1]

    @property
    def first_leak(self) -> Step | None:
        """The smallest budget from which on every larger one leaks."""
        safe = [place for place, step in enumerate(self.steps) if not step.leaks]
        leaking = self.steps[safe[-1] + 1 :] if safe else self.steps
        return leaking[0] if leaking else None

    @property
    def sentence(self) -> str:
        """What the contract gives away, at the whole budget and from which budget on."""
        with_it = f"With {self.contract},"
        if not self.steps:
            return f"{with_it} nothing can be said: {self.lacking}."
        step = self.last
        found, draws = f"{step.attack.value:.0%}", f"{step.draws:.0%}"
        spread = f"95% interval {step.attack.low:.0%} to {step.attack.high:.0%}"
        if step.leaks:
            return (
                f"{with_it} {_queries(step.rows)} a class give images of which {found} are recognised ({spread}),"
                f" against {draws} for the best of as many random images of the public data." + self._onset()
            )
        floor = f"{draws} for the best of as many random images of the public data"
        if step.floor > step.draws:
            floor += f" and {step.floor:.0%} for an image that asks nothing"
        if step.attack.value <= step.floor:
            return (
                f"{with_it} the attack does no better than its floor: after {_queries(step.rows)} a class {found} of"
                f" its images are recognised ({spread}), against {floor}."
            )
        few = f"; with {self.classes} classes only a large difference could be" if self.classes < _FEW else ""
        return (
            f"{with_it} {_queries(step.rows)} a class give images of which {found} are recognised ({spread}), against"
            f" {floor}: that is not told apart from the floor{few}."
        )

    def _onset(self) -> str:
        first = self.first_leak
        assert first is not None
        place = self.steps.index(first)
        if not place:
            return f" So do {_queries(first.rows)} already ({first.attack.value:.0%})." if len(self.steps) > 1 else ""
        before = self.steps[place - 1]
        return (
            f" It takes {_queries(first.rows)}: after {before.rows:,} the attack is not told apart from its floor"
            f" ({before.attack.value:.0%} against {before.floor:.0%})."
        )


@dataclass(frozen=True)
class Advice:
    """Which contract to take: its place among the findings, None where no contract is safe; and why, in words."""

    take: int | None
    sentence: str


def find_leak(attack: Cell | None, draws: Cell | None, contract: str, *, asks_nothing: float, rows: int) -> Finding:
    """What a contract gives away, from its attack and its floor of random images, at each rung up to `rows` a class.

    `asks_nothing` is the highest share of floors that ask nothing, chance among them.
    """
    for cell, what in ((attack, "the attack"), (draws, "its floor of random images")):
        if cell is None:
            return Finding(contract, "", 0, lacking=f"{what} was not run")
        known = (contract, cell.method, len(cell.targets))
        if cell.status != "done":
            return Finding(*known, lacking=f"{what} ({cell.method}) {_became(cell)}")
        if not cell.counts_equal:
            said = f"counted {cell.rows_attacker:,} rows and the ledger {cell.rows_ledger:,}"
            return Finding(*known, lacking=f"{what} ({cell.method}) {said}")
    assert attack is not None
    assert draws is not None
    steps = []
    for budget in [*(rung for rung in range(1, rows) if on_ladder(rung)), rows]:
        found, floor = _at(attack, budget), _at(draws, budget)
        if found is not None and floor is not None:
            best = float(floor.mean())
            interval = clustered_interval(found, attack.targets)
            steps.append(Step(budget, interval, best, max(best, asks_nothing)))
    lacking = "" if steps else f"the attack ({attack.method}) has no image after {_queries(rows)} a class"
    return Finding(contract, attack.method, len(attack.targets), tuple(steps), lacking)


def sentences(findings: Sequence[Finding]) -> list[str]:
    """What each contract gives away, from the most useful to the strictest."""
    said = []
    for place, finding in enumerate(findings):
        sentence = finding.sentence
        if not (finding.steps and finding.last.leaks):
            stricter = [other for other in findings[place + 1 :] if other.steps and other.last.leaks]
            if stricter:
                sentence += f" Yet it tells all that {stricter[0].contract} tells, which gives away more."
        said.append(sentence)
    return said


def advise_in_words(findings: Sequence[Finding]) -> Advice:
    """The most useful contract that is not told apart from its floor: `findings` go from the most useful to the
    strictest contract.
    """
    if not any(finding.steps for finding in findings):
        return Advice(None, "No attack has a result, so no contract can be advised.")
    safe = len(findings)
    while safe and findings[safe - 1].steps and not findings[safe - 1].last.leaks:
        safe -= 1
    if safe == len(findings):
        return Advice(None, _no_contract(findings[-1]))
    chosen = findings[safe]
    budget = f"{_queries(chosen.last.rows)} a class ({chosen.last.rows * chosen.classes:,} in all)"
    if not safe:
        sentence = f"Take {chosen.contract}: at {budget} no contract gave away more than its floor."
    else:
        worse = findings[safe - 1]
        but = f"{worse.contract} gave away more" if worse.steps else f"of {worse.contract} nothing is known"
        sentence = f"Take {chosen.contract}: at {budget} its attack was not told apart from the floor, and {but}."
    return Advice(safe, sentence)


def _no_contract(strictest: Finding) -> str:
    """Even the strictest contract leaks, or has no result: what is left to do."""
    if not strictest.steps:
        return f"No contract can be advised: of {strictest.contract}, the strictest one, nothing is known."
    first = strictest.first_leak
    assert first is not None
    quiet = [step for step in strictest.steps if step.rows < first.rows]
    if not quiet:
        return (
            f"No contract is safe at any budget that was tried: even with {strictest.contract},"
            f" {_queries(first.rows)} a class are enough. Defend the model itself, or do not host it."
        )
    most = quiet[-1].rows
    return (
        f"No contract is safe at {_queries(strictest.last.rows)} a class. Take {strictest.contract} with a smaller"
        f" budget: after {_queries(most)} a class ({most * strictest.classes:,} in all) its attack was not told apart"
        " from the floor."
    )


def _at(cell: Cell, budget: int) -> np.ndarray | None:
    """Who is recognised (T,) bool in the latest image that was paid for with `budget` rows a class; None before it."""
    paid = np.flatnonzero(cell.marks <= budget)
    return cell.top1[paid[-1]] if len(paid) else None


def _became(cell: Cell) -> str:
    sentence = cell.sentence.strip().rstrip(".")
    return f"was {cell.status}: {sentence}" if cell.status == "refused" else f"failed: {sentence}"


def _queries(rows: int) -> str:
    return f"{labels.count(rows)} queries"
