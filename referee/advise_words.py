"""What the cells of an advice run say in words: what each contract gives away at which budget, and which one to take.

    nothing   share recognised of images that ask nothing, chance among them: the floor of what a contract gives away
    draws     share of the best of as many random images of the public data; to choose them takes the model's answers,
              so that they give something away, and an attack is worth something where it beats them
    attack    share of the contract's attack

A contract gives away the model's classes where the whole interval of the better of the last two lies above `nothing`,
and whatever a stricter contract gives away: who gets scores has the label too.
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
    """After `rows` queries for each class: shares of images that are recognised, see the top of this module; `gain` is
    the attack's share less that of the random images, over the same classes.
    """

    rows: int
    attack: Interval
    draws: Interval
    gain: Interval
    nothing: float

    @property
    def best(self) -> Interval:
        """The better of the attack and the random images: what somebody with the key can have."""
        return max(self.attack, self.draws, key=lambda share: share.value)

    @property
    def leaks(self) -> bool:
        return self.best.low > self.nothing

    @property
    def beats_draws(self) -> bool:
        return self.gain.low > 0 and self.attack.low > self.nothing


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
        price, found, draws = f"{_queries(step.rows)} a class", _share(step.attack), f"{step.draws.value:.0%}"
        random = "the best of as many random images of the public data"
        if step.beats_draws:
            return (
                f"{with_it} {price} give images of which {found} are recognised, against {draws} for {random}."
                + self._onset()
            )
        does = "does no better than" if step.attack.value <= step.draws.value else "is not told apart from"
        few = "; with so few classes only a large difference could be" if self.classes < _FEW else ""
        said = (
            f"{with_it} the attack {does} {random}: {found} of its images are recognised after {price}, against"
            f" {draws}{few}."
        )
        if not step.leaks:
            return f"{said} Of images that ask nothing {step.nothing:.0%} are recognised: nothing is seen to leak."
        return (
            f"{said} Still the contract gives something away: to choose among random images takes the model's answers"
            f" too, and of images that ask nothing {step.nothing:.0%} are recognised." + self._onset()
        )

    def _onset(self) -> str:
        """From which budget on it leaks, where several were tried."""
        first = self.first_leak
        assert first is not None
        place = self.steps.index(first)
        if place:
            before = self.steps[place - 1]
            return (
                f" After {_queries(before.rows)} a class it is {before.best.value:.0%}, not told apart from images that"
                " ask nothing."
            )
        if len(self.steps) > 1:
            return f" After {_queries(first.rows)} a class it is {first.best.value:.0%} already."
        return ""


@dataclass(frozen=True)
class Advice:
    """Which contract to take: its place among the findings, None where no contract is safe; and why, in words."""

    take: int | None
    sentence: str


def find_leak(attack: Cell | None, draws: Cell | None, contract: str, *, asks_nothing: float, rows: int) -> Finding:
    """What a contract gives away, from its attack and the choice among random images, at rungs up to `rows` a class.

    `asks_nothing` is the highest share of images that ask nothing, chance among them.
    """
    for cell, what in ((attack, "the attack"), (draws, "the choice among random images")):
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
        if attack.marks.min() <= rows and draws.marks.min() <= rows:
            found, drawn = _at(attack, budget), _at(draws, budget)
            gain = found.astype(np.float64) - drawn  # both attack the same classes
            share, of_draws, difference = (clustered_interval(each, attack.targets) for each in (found, drawn, gain))
            steps.append(Step(budget, share, of_draws, difference, asks_nothing))
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
                sentence += f" Yet it tells all that {stricter[0].contract} tells, which does leak."
        said.append(sentence)
    return said


def advise_in_words(findings: Sequence[Finding]) -> Advice:
    """The most useful contract from which on nothing is seen to leak: `findings` go from the most useful contract to
    the strictest.
    """
    measured = [finding for finding in findings if finding.steps]
    if not measured:
        return Advice(None, "No attack has a result, so no contract can be advised.")
    safe = len(findings)
    while safe and findings[safe - 1].steps and not findings[safe - 1].last.leaks:
        safe -= 1
    if safe == len(findings):
        return Advice(None, _no_contract(findings))
    chosen = findings[safe]
    budget = f"{_queries(chosen.last.rows)} a class ({chosen.last.rows * chosen.classes:,} in all)"
    if not safe:
        return Advice(0, f"Take {chosen.contract}: within {budget} no contract is seen to leak.")
    more = findings[safe - 1]
    but = (
        f"with {more.contract} it is {more.last.best.value:.0%} of the classes"
        if more.steps
        else (f"of {more.contract} nothing is known")
    )
    return Advice(safe, f"Take {chosen.contract}: within {budget} it is not seen to leak, and {but}.")


def _no_contract(findings: Sequence[Finding]) -> str:
    """Even the strictest contract leaks, or has no result: what is left to do."""
    strictest = findings[-1]
    if not strictest.steps:
        return f"No contract can be advised: of {strictest.contract}, the strictest one, nothing is known."
    last, more = strictest.last, findings[0]
    beside = f" (with {more.contract} {more.last.best.value:.0%})" if len(findings) > 1 and more.steps else ""
    said = (
        f"No contract is safe at {_queries(last.rows)} a class: even with {strictest.contract}"
        f" {last.best.value:.0%} of the classes are recognised{beside}"
    )
    first = strictest.first_leak
    assert first is not None
    if quiet := [step.rows for step in strictest.steps if step.rows < first.rows]:
        return (
            f"{said}. Take {strictest.contract}, with a budget of {_queries(quiet[-1])} a class"
            f" ({quiet[-1] * strictest.classes:,} in all), after which it was not told apart from images"
            " that ask nothing."
        )
    return (
        f"{said}; after {_queries(first.rows)} it is {first.best.value:.0%} already. Take {strictest.contract}, with as"
        " small a budget as will do, or defend the model itself."
    )


def _at(cell: Cell, budget: int) -> np.ndarray:
    """Who is recognised (T,) bool in the latest image that `budget` rows a class have paid for; nobody before it."""
    paid = np.flatnonzero(cell.marks <= budget)
    return cell.top1[paid[-1]] if len(paid) else np.zeros(len(cell.targets), bool)


def _became(cell: Cell) -> str:
    sentence = cell.sentence.strip().rstrip(".")
    return f"was {cell.status}: {sentence}" if cell.status == "refused" else f"failed: {sentence}"


def _queries(rows: int) -> str:
    return f"{labels.count(rows)} queries"


def _share(share: Interval) -> str:
    return f"{share.value:.0%} (95% interval {share.low:.0%} to {share.high:.0%})"
