"""What an attack sees of the oracle: the contract that it attacks under, and answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from protos.codec import decode
from protos.mirage.v1 import oracle_pb2 as pb

__all__ = ["Answer", "Contract", "join", "read_answer"]


@dataclass(frozen=True)
class Contract:
    """What the key gets, as the server states it."""

    access: str
    top_k: int | None
    round_to: float | None
    features: tuple[str, ...]
    defences: tuple[tuple[str, tuple[tuple[str, float], ...]], ...]
    budget: int | None
    rate: float | None
    expires: float | None

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Answer:
    """What came back for N rows: `scores` (N, C) float64 with NaN where withheld, `labels` (N,) int64, or `numbers`
    (N,) float64 of a regression.
    """

    scores: np.ndarray | None = None
    labels: np.ndarray | None = None
    numbers: np.ndarray | None = None


def read_answer(response: pb.PredictResponse, classes: int) -> Answer:
    """The answer in a response; truncated scores are spread over all `classes`."""
    kind = response.WhichOneof("answer")
    if kind == "labels":
        return Answer(labels=decode(response.labels))
    if kind == "values":
        return Answer(numbers=decode(response.values))
    if kind == "scores":
        return Answer(scores=decode(response.scores))
    values = decode(response.top_k.values)
    scores = np.full((len(values), classes), np.nan)
    np.put_along_axis(scores, decode(response.top_k.indices), values, axis=1)
    return Answer(scores=scores)


def join(answers: Sequence[Answer]) -> Answer:
    """Answers to batches as the answer to all their rows."""
    joined = {}
    for kind in ("scores", "labels", "numbers"):
        parts = [part for answer in answers if (part := getattr(answer, kind)) is not None]
        joined[kind] = np.concatenate(parts) if parts else None
    return Answer(**joined)
