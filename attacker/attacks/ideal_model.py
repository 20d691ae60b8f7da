"""The ideal adversary: asks a model of the same class that was trained to predict the attribute itself.

M. Fredrikson, S. Jha, T. Ristenpart, CCS 2015, section 4.1: an inversion is not expected to do better than a model
that was grown for just this question on the same data.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from attacker.needs import Needs
from attacker.people import count_people, read_known
from attacker.snapshot import Snapshot

if TYPE_CHECKING:
    from attacker.oracle import Oracle

__all__ = ["IdealModel"]


@dataclass(frozen=True)
class IdealModel:
    """The ceiling: one row a person, answered by a model whose response is the attribute and whose features are all
    that is known, the attacked model's response among them.

    The images of its snapshot are the rows asked (T, d); its extra `guess` (T,) int64 is the predicted class of each.
    """

    needs: ClassVar[Needs] = Needs.LABELS
    models: ClassVar[tuple[str, ...]] = ("tree",)
    kind: ClassVar[str] = "ceiling, a model grown for the attribute"
    paper: ClassVar[str] = "Fredrikson et al., CCS 2015, section 4.1"

    given: Path | None = None

    def entries(self) -> int:
        return count_people(self.given)

    def run(self, oracle: Oracle, targets: Sequence[int], seed: int) -> Iterator[Snapshot]:
        """Ask about the people at `targets` of the file. Nothing is drawn: `seed` changes nothing."""
        people = read_known(self.given, oracle).at(np.asarray(targets))
        answer = oracle.query(people.rows, np.asarray(targets))
        yield Snapshot(people.rows, 1.0, {"guess": answer.decision()})
