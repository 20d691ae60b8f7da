"""The generic inversion attack: the most likely values of unknown nominal features, from predictions alone.

M. Fredrikson, S. Jha, T. Ristenpart, "Model inversion attacks that exploit confidence information and basic
countermeasures", CCS 2015, Figure 2; it is that of M. Fredrikson et al., "Privacy in pharmacogenetics", USENIX
Security 2014.

    here                 paper      meaning
    given                x_K, y     what is known of each person: the other features and the response
    unknown              x_1        features to infer; several are tried in all K combinations, T people at once
    prior                p_i        marginal prior of an unknown feature, as published
    predicted            f(x')      the model's prediction for a candidate
    error                err(y, .)  how likely the true response y is with that prediction
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

__all__ = ["MapInversion"]


@dataclass(frozen=True)
class MapInversion:
    """Figure 2 for T people and K candidates at once: K rows a person, each asked for its label or number.

    The images of its snapshot are the completed rows (T, d); extras `posterior_<feature>` (T, L).

    Differences from the reference:
    - The priors of the known features are left out: they are the same for every candidate.
    - With several unknown features each is decided by its own posterior, summed over the others, and not by the best
      combination: fewer mistakes a feature.
    """

    needs: ClassVar[Needs] = Needs.LABELS
    models: ClassVar[tuple[str, ...]] = ("tree", "regression")
    kind: ClassVar[str] = "black box, maximum a posteriori over candidates"
    paper: ClassVar[str] = "Fredrikson et al., CCS 2015, Figure 2"

    unknown: str = ""
    given: Path | None = None

    def entries(self) -> int:
        return count_people(self.given)

    def run(self, oracle: Oracle, targets: Sequence[int], seed: int) -> Iterator[Snapshot]:
        """Infer the unknown features of the people at `targets` of the file; `seed` changes nothing."""
        people = read_people(self.given, self.unknown, oracle, needs_response=True).at(np.asarray(targets))
        candidates = Candidates(people)
        T, K = len(people.rows), len(candidates.codes)
        answer = oracle.query(candidates.rows(), np.repeat(np.asarray(targets), K))  # lines 1-2
        if oracle.kind == "regression":
            assert answer.numbers is not None
            error = gaussian(people.response[:, None] - answer.numbers.reshape(T, K), oracle.error_std)
        else:
            y = people.response.astype(int)[:, None]
            error = from_confusion(oracle.confusion)[y, answer.decision().reshape(T, K)]
        rows, posterior = candidates.decide(error * candidates.prior)  # lines 3-4
        yield Snapshot(rows, float(K), posterior)


def from_confusion(C: np.ndarray | None) -> np.ndarray:
    """err(y, y') = Pr[f(x) = y' | y is the true class], from rows of true class y predicted as y' (C, C)."""
    if C is None:
        raise ValueError("the model publishes no confusion matrix: without one there is no error model")
    return np.asarray(C / np.maximum(C.sum(axis=1, keepdims=True), 1))


def gaussian(difference: np.ndarray, sigma: float | None) -> np.ndarray:
    """A normal density of the error up to a factor, scaled so that the best candidate of each person has 1."""
    if not sigma:
        raise ValueError("the model publishes no standard deviation of its error: without one there is no error model")
    exponent = -0.5 * (difference / sigma) ** 2
    return np.asarray(np.exp(exponent - exponent.max(axis=1, keepdims=True)))
