"""The finished cells of a matrix of defences, by task, defence, strength and attack: who is recognised, what changed.

| name here | meaning |
| --- | --- |
| faced | one attack against one defence with one strength: its finished cells, one for each seed |
| stand | one defence with one strength on one task: all attacks against it |
| change | share recognised less that of the undefended model, target by target with the same seed |
| best | of several attacks the one that recognises most: an attacker takes whichever works against this defence |

A refused cell recognises nobody: the contract stopped the attack. One that failed says nothing and is left out.

Whoever gets scores can take their arg max, so what attacks on labels reach on the undefended model counts against every
contract that does not limit rows: exactly where the k largest scores are released; up to ties where scores are
rounded. Only against a response defence, which can change the arg max, and a limit of rows are they run again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from referee.cell import Cell
from referee.matrix import NONE, Entry
from referee.metrics.intervals import Interval, clustered_interval

if TYPE_CHECKING:
    from referee.campaign import PlannedCell
    from referee.results import Results

__all__ = ["ACCESS", "Faced", "Hits", "Stand", "change_of", "share_of", "stands_of"]

Hits = Mapping[tuple[int, int], bool]  # by seed and target, who is recognised
ACCESS: dict[str, tuple[str, ...]] = {  # kinds of attackers
    "all": ("weights", "scores", "label"),
    "interface": ("scores", "label"),
    "weights": ("weights",),
}


@dataclass(frozen=True, eq=False)
class Faced:
    """The finished cells of one attack against one defence with one strength, with their plans."""

    entry: Entry
    pairs: tuple[tuple[PlannedCell, Cell], ...]

    @property
    def attack(self) -> str:
        return self.entry.attack

    @property
    def refused(self) -> bool:
        """Whether the contract stopped the attack, with every seed."""
        return all(cell.status == "refused" for _, cell in self.pairs)

    def hits(self, mark: float = np.inf) -> dict[tuple[int, int], bool]:
        """Who is recognised in the last snapshot up to `mark` rows a target; nobody before the first one."""
        return self.judged(lambda cell: _at(cell, mark))

    def judged(self, judge: Callable[[Cell], np.ndarray]) -> dict[tuple[int, int], bool]:
        """What `judge` says of the targets (T,) of each cell that was not refused, by seed and target."""
        found: dict[tuple[int, int], bool] = {}
        for planned, cell in self.pairs:
            if cell.status == "done":
                targets, seen = cell.targets.tolist(), judge(cell).tolist()
            else:
                targets = _asked(planned.targets, len(cell.targets))
                seen = [False] * len(targets)
            found |= {(planned.seed, target): hit for target, hit in zip(targets, seen, strict=True)}
        return found

    @property
    def share(self) -> float:
        return float(np.mean(list(self.hits().values())))

    @property
    def marks(self) -> list[float]:
        """All marks of all cells, in order."""
        return sorted({mark for _, cell in self.pairs for mark in cell.marks.tolist()})

    def rows_to(self, share: float) -> float | None:
        """The first mark at which so large a share is recognised; None where it never is, or nobody is."""
        reached = (mark for mark in self.marks if np.mean(list(self.hits(mark).values())) >= share)
        return next(reached, None) if share > 0 else None

    @property
    def capacity_bits(self) -> float | None:
        """What the answers of a cell could have told at most, in the mean."""
        bits = [cell.capacity_bits for _, cell in self.pairs if np.isfinite(cell.capacity_bits)]
        return float(np.mean(bits)) if bits else None

    @property
    def self_reported(self) -> bool:
        """Whether marks are steps of the attack's own, not rows that the server counted."""
        return any(cell.self_reported for _, cell in self.pairs)


@dataclass(frozen=True, eq=False)
class Stand:
    """A defence with one strength on one task; the undefended model where `defence` is none. `entry` is that of any of
    its cells; `attacks` are all that count against it. `missing` are those that are planned with a seed with which
    another one is finished, and are not: until then the best attack is not known.
    """

    entry: Entry
    attacks: tuple[Faced, ...]
    missing: tuple[str, ...] = ()

    @property
    def task(self) -> str:
        return self.entry.task

    @property
    def undefended(self) -> bool:
        return self.entry.defence == NONE

    @property
    def name(self) -> str:
        """As a table calls it."""
        return "undefended" if self.undefended else f"{self.entry.defence} {self.entry.strength}"

    def faced(self, attack: str) -> Faced | None:
        return next((faced for faced in self.attacks if faced.attack == attack), None)

    def best(self, access: str = "all", among: set[str] | None = None) -> Faced | None:
        """The attack that recognises most, of an attacker with that access, of those named; the first of equals."""
        fit = [faced for faced in self.attacks if faced.entry.access in ACCESS[access]]
        fit = [faced for faced in fit if among is None or faced.attack in among]
        return max(fit, key=lambda faced: faced.share, default=None)

    def names(self, access: str = "all") -> set[str]:
        return {faced.attack for faced in self.attacks if faced.entry.access in ACCESS[access]}


def stands_of(results: Results, cells: Sequence[Cell]) -> dict[str, list[Stand]]:
    """By task, every defence and strength that has a finished cell, in the campaign's order, the undefended first."""
    found: dict[tuple[str, str, str], dict[str, list[tuple[PlannedCell, Cell]]]] = {}
    entries: dict[tuple[str, str, str], Entry] = {}
    wanted: dict[tuple[str, str, str], list[tuple[Entry, int]]] = {}
    for planned in results.plan.cells:
        if (entry := planned.matrix) is not None:
            wanted.setdefault((entry.task, entry.defence, entry.strength), []).append((entry, planned.seed))
    plans = {(planned.name, planned.seed): planned for planned in results.plan.cells}
    for cell in cells:
        planned = plans[cell.name, cell.seed]
        if (entry := planned.matrix) is not None and cell.status not in ("failed", "void"):
            place = (entry.task, entry.defence, entry.strength)
            entries.setdefault(place, entry)
            found.setdefault(place, {}).setdefault(entry.attack, []).append((planned, cell))
    tasks: dict[str, list[Stand]] = {}
    for place in sorted(found, key=lambda place: place[1] != NONE):
        attacks = [Faced(_entry(pairs), tuple(pairs)) for pairs in found[place].values()]
        plans_here = wanted[place]
        if entries[place].kind == "contract" and not {"budget", "rate"} & set(dict(entries[place].values)):
            known = {entry.attack for entry, _ in plans_here}
            plain = [faced for stand in tasks.get(place[0], []) if stand.undefended for faced in stand.attacks]
            attacks += [faced for faced in plain if faced.entry.access == "label" and faced.attack not in known]
            asked = [one for one in wanted.get((place[0], NONE, ""), []) if one[0].access == "label"]
            plans_here = plans_here + [one for one in asked if one[0].attack not in known]
        seeds = {planned.seed for faced in attacks for planned, _ in faced.pairs}
        done = {(faced.attack, planned.seed) for faced in attacks for planned, _ in faced.pairs}
        missing = [one.attack for one, seed in plans_here if seed in seeds and (one.attack, seed) not in done]
        tasks.setdefault(place[0], []).append(Stand(entries[place], tuple(attacks), tuple(dict.fromkeys(missing))))
    return tasks


def share_of(hits: Hits) -> Interval:
    """The share recognised, clustered by target over seeds."""
    return clustered_interval(np.array(list(hits.values()), bool), np.array([target for _, target in hits]))


def change_of(*pairs: tuple[str, Hits, Hits]) -> Interval | None:
    """Ours less the other's share, by seed and target that both have; None where there is none. Of several pairs
    (whose people, ours, the other's) a target of the same people is one cluster.
    """
    both = [
        (float(ours[key]) - float(other[key]), f"{whose}/{key[1]}")
        for whose, ours, other in pairs
        for key in ours
        if key in other
    ]
    return clustered_interval(np.array([value for value, _ in both]), np.array([c for _, c in both])) if both else None


def _entry(pairs: Sequence[tuple[PlannedCell, Cell]]) -> Entry:
    entry = pairs[0][0].matrix
    assert entry is not None
    return entry


def _at(cell: Cell, mark: float) -> np.ndarray:
    places = np.flatnonzero(cell.marks <= mark * 1.01)  # a hundredth more is still the same mark
    return np.asarray(cell.top1[places[-1]]) if len(places) else np.zeros(len(cell.targets), bool)


def _asked(text: str, count: int) -> list[int]:
    """The targets that a cell's plan names, as the attacker's command reads them."""
    if text == "all":
        return list(range(count))
    first, dash, last = text.partition("-")
    return list(range(int(first), int(last) + 1)) if dash else [int(part) for part in text.split(",")]
