"""The random adversary: a value drawn evenly from each unknown feature's levels. Knows only those.

M. Fredrikson, S. Jha, T. Ristenpart, CCS 2015, section 4.1.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from attacker.needs import Needs
from attacker.people import count_people, read_people
from attacker.snapshot import Snapshot

if TYPE_CHECKING:
    from attacker.oracle import Oracle

__all__ = ["RandomGuess"]


@dataclass(frozen=True)
class RandomGuess:
    """A fair die for each unknown feature of each person: the floor."""

    needs: ClassVar[Needs] = Needs.LABELS
    models: ClassVar[tuple[str, ...]] = ("tree", "regression")
    kind: ClassVar[str] = "floor, no query"
    paper: ClassVar[str] = "Fredrikson et al., CCS 2015, section 4.1"

    unknown: str = ""
    given: Path | None = None

    def entries(self) -> int:
        return count_people(self.given)

    def run(self, oracle: Oracle, targets: Sequence[int], seed: int) -> Iterator[Snapshot]:
        """Complete the rows of the people at `targets` of the file, with draws from `seed`."""
        people = read_people(self.given, self.unknown, oracle, needs_response=False).at(np.asarray(targets))
        levels = [len(people.features[j].levels) for j in people.unknown]
        rows = people.rows.copy()
        rows[:, people.unknown] = np.random.default_rng(seed).integers(levels, size=(len(rows), len(levels)))
        yield Snapshot(rows, 0.0)
