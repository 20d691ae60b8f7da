"""White box with counts: unknown features from a downloaded tree and the training counts of its paths.

M. Fredrikson, S. Jha, T. Ristenpart, "Model inversion attacks that exploit confidence information and basic
countermeasures", CCS 2015, section 4, equation (1).

    here                 paper      meaning
    given                x_K, y     what is known of each person
    unknown              x_1        features to infer, in all K combinations v
    counts               n_i        training rows of each class at path i
    prior                Pr[x_1=v]  marginal prior of a combination
    on_path              phi_i(v)   whether path i admits the combination v
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from attacker.needs import Needs
from attacker.people import Candidates, People, count_people, read_people
from attacker.snapshot import Snapshot
from protos.tree import Tree

if TYPE_CHECKING:
    from attacker.oracle import Oracle

__all__ = ["WhiteBoxCounts", "weigh"]


@dataclass(frozen=True)
class WhiteBoxCounts:
    """Equation (1) for T people and K candidates at once; costs a download and no row.

    A complete row follows one path, so among the paths that agree with the known features each candidate has exactly
    one: no path is enumerated. `use_response` counts only training rows with the person's own response on it; without
    it the estimate hardly differs from the prior. The images of its snapshot are the completed rows (T, d); extras
    `posterior_<feature>` (T, L).

    Differences from the reference:
    - Equation (1) does not mention y. Its text counts paths that the person's row can have taken, and y is known: the
      counts here are those of class y.
    - With several unknown features (1) is summed over the others, as the paper says, for each of them.
    """

    needs: ClassVar[Needs] = Needs.WEIGHTS
    models: ClassVar[tuple[str, ...]] = ("tree",)
    kind: ClassVar[str] = "white box, counts of the paths"
    paper: ClassVar[str] = "Fredrikson et al., CCS 2015, equation (1)"

    unknown: str = ""
    use_response: bool = True
    given: Path | None = None

    def entries(self) -> int:
        return count_people(self.given)

    def run(self, oracle: Oracle, targets: Sequence[int], seed: int) -> Iterator[Snapshot]:
        """Infer the unknown features of the people at `targets` of the file; `seed` changes nothing."""
        people = read_people(self.given, self.unknown, oracle, needs_response=self.use_response).at(np.asarray(targets))
        candidates = Candidates(people)
        rows, posterior = candidates.decide(weigh(oracle.tree(), people, candidates, self.use_response))
        yield Snapshot(rows, 0.0, posterior)


def weigh(tree: Tree, people: People, candidates: Candidates, use_response: bool = True) -> np.ndarray:
    """Equation (1) up to a factor for each person: (T, K)."""
    T, K = len(people.rows), len(candidates.codes)
    path = tree.apply(candidates.rows()).reshape(T, K)  # the one i with phi_i(v) among those that agree with x_K
    on_path = tree.consistent(people.unknown, candidates.codes)  # phi_j(v), (K, m), in the whole tree
    total = tree.counts.sum(axis=1)
    n = tree.counts[path, people.response.astype(int)[:, None]] if use_response else total[path]
    # sum_i p_i phi_i(v) * Pr[x_1 = v] / sum_j p_j phi_j(v); the number of training rows cancels
    return np.asarray(n * candidates.prior / np.maximum(on_path @ total, 1))
