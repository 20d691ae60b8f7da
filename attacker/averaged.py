"""An oracle of which every row is asked several times, so that what is drawn anew for each answer averages out.

The adaptive attack on randomised answers. It costs that many times the rows, and changes nothing where the same row
gets the same answer.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Any

import numpy as np

from attacker.answers import Answer
from attacker.oracle import Oracle

__all__ = ["Averaged", "average"]


class Averaged(Oracle):
    """An `Oracle` that asks each row `repeats` times, in requests with ids of their own."""

    def __init__(self, address: str, key: str | Sequence[str], *, repeats: int, **options: Any) -> None:
        super().__init__(address, key, **options)
        self.repeats = repeats

    def stream(self, batches: Iterable[tuple[np.ndarray, np.ndarray | int | None]]) -> Iterator[Answer]:
        """One answer for each batch, as `Oracle.stream`, of which it takes `repeats`."""
        answers = super().stream(batch for batch in batches for _ in range(self.repeats))
        while same := list(islice(answers, self.repeats)):
            yield average(same)


def average(answers: list[Answer]) -> Answer:
    """One answer for several to the same N rows: the means of scores (of those that were released) and of numbers, the
    most frequent label, of equals the lowest.
    """
    first = answers[0]
    if first.labels is not None:
        votes = np.stack([answer.labels for answer in answers if answer.labels is not None])
        counts = (votes[..., None] == np.arange(votes.max() + 1)).sum(0)
        return Answer(labels=counts.argmax(1))
    if first.numbers is not None:
        return Answer(numbers=np.mean([answer.numbers for answer in answers if answer.numbers is not None], axis=0))
    scores = np.stack([answer.scores for answer in answers if answer.scores is not None])
    released = np.isfinite(scores).sum(0)
    total = np.nansum(scores, axis=0)
    return Answer(scores=np.where(released > 0, total / np.maximum(released, 1), np.nan))
