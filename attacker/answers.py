"""What an attack sees of the oracle: the contract that it attacks under, answers, and reasons for a refusal."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import grpc
import numpy as np
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from protos.codec import decode
from protos.mirage.v1 import oracle_pb2 as pb

__all__ = ["Answer", "Contract", "join", "read_answer", "reason_of"]


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
    detections: tuple[tuple[str, str, tuple[tuple[str, float], ...]], ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """Every field by name, but `detections` only where there are some, as in older results."""
        return {name: value for name, value in asdict(self).items() if name != "detections" or value}


@dataclass(frozen=True)
class Answer:
    """What came back for N rows: `scores` (N, C) float64 with NaN where withheld, `labels` (N,) int64, or `numbers`
    float64: (N,) of a regression, (N, D) of the D outputs that a feature model's key gets (`Oracle.released`).
    """

    scores: np.ndarray | None = None
    labels: np.ndarray | None = None
    numbers: np.ndarray | None = None

    def decision(self) -> np.ndarray:
        """The class of each row (N,): its label, or that of its highest score."""
        if self.labels is not None:
            return self.labels
        assert self.scores is not None
        return np.asarray(np.nanargmax(self.scores, axis=1))


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


def reason_of(error: grpc.RpcError) -> tuple[str, float]:
    """The server's reason and the seconds it asks to wait; ("", 0) for an error that no server of a range wrote."""
    status = rpc_status.from_call(error)
    reason, wait = "", 0.0
    for detail in status.details if status is not None else ():
        if detail.Is(error_details_pb2.ErrorInfo.DESCRIPTOR):
            info = error_details_pb2.ErrorInfo()
            detail.Unpack(info)
            reason = info.reason
        elif detail.Is(error_details_pb2.RetryInfo.DESCRIPTOR):
            retry = error_details_pb2.RetryInfo()
            detail.Unpack(retry)
            wait = retry.retry_delay.ToNanoseconds() / 1e9
    return reason, wait
