"""The baseline adversary: everybody has the most common value. Knows the published marginal priors and asks nothing.

M. Fredrikson, S. Jha, T. Ristenpart, CCS 2015, section 4.1.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from attacker.needs import Needs
from attacker.people import Candidates, count_people, read_people
from attacker.snapshot import Snapshot

if TYPE_CHECKING:
    from attacker.oracle import Oracle

__all__ = ["MarginalMode"]


@dataclass(frozen=True)
class MarginalMode:
    """The mode of each unknown feature's marginal prior: what an attack must beat."""

    needs: ClassVar[Needs] = Needs.LABELS
    models: ClassVar[tuple[str, ...]] = ("tree", "regression")
    kind: ClassVar[str] = "baseline, no query"
    paper: ClassVar[str] = "Fredrikson et al., CCS 2015, section 4.1"

    unknown: str = ""
    given: Path | None = None

    def entries(self) -> int:
        return count_people(self.given)

    def run(self, oracle: Oracle, targets: Sequence[int], seed: int) -> Iterator[Snapshot]:
        """Complete the rows of the people at `targets` of the file. Nothing is drawn: `seed` changes nothing."""
        people = read_people(self.given, self.unknown, oracle, needs_response=False).at(np.asarray(targets))
        candidates = Candidates(people)
        rows, posterior = candidates.decide(np.broadcast_to(candidates.prior, (len(targets), len(candidates.prior))))
        yield Snapshot(rows, 0.0, posterior)
