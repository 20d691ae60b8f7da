"""Refusals, each with its wire status and reason.

    Refusal                       code, reason, the sentence, whether the call was charged
      raised by the guard, the decoder, admission, the ledger and the scheduler; the guard turns it into a rich status

Sentences are fixed texts filled with the caller's own figures and the model card's; nothing that a model computed is
ever in one. Reasons travel as `google.rpc.ErrorInfo.reason` in the domain "mirage", so that a client can tell *budget
spent* from *slow down* from *message too large* without reading prose.

KEY_SUSPENDED says that a detector of the key's contract flagged its queries, and neither which one nor at which row. It
is the answer to every call of the key, and costs nothing, until the operator reinstates it.

What never becomes a call of ours is ended by gRPC itself, without a reason, and costs nothing:

    RESOURCE_EXHAUSTED  a message, packed or unpacked, or metadata beyond the limits
    INVALID_ARGUMENT    a message whose prefix cannot be read
    UNIMPLEMENTED       there is no such method here
    INTERNAL            headers or a compression that cannot be read
    UNKNOWN             the method's name is no text
    UNAVAILABLE         a connection that breaks the rules of HTTP/2, or that is being closed
    DEADLINE_EXCEEDED   the caller's own deadline has passed
    CANCELLED           the caller has left, or its connection is being closed

No other status leaves the server, but OK.
"""

from __future__ import annotations

import enum

import grpc
from google.protobuf import any_pb2, duration_pb2
from google.rpc import error_details_pb2, status_pb2

__all__ = ["DOMAIN", "Reason", "Refusal"]

DOMAIN = "mirage"

_CODE = grpc.StatusCode


class Reason(enum.Enum):
    """Why a call was refused; the value is the gRPC status that goes with it."""

    MALFORMED = (_CODE.INVALID_ARGUMENT, 1)
    BAD_INPUT = (_CODE.INVALID_ARGUMENT, 2)
    TOO_MANY_ROWS = (_CODE.INVALID_ARGUMENT, 3)
    BAD_CONTRACT = (_CODE.INVALID_ARGUMENT, 4)
    NO_KEY = (_CODE.UNAUTHENTICATED, 1)
    BAD_KEY = (_CODE.UNAUTHENTICATED, 2)
    KEY_REVOKED = (_CODE.UNAUTHENTICATED, 3)
    KEY_EXPIRED = (_CODE.UNAUTHENTICATED, 4)
    KEY_SUSPENDED = (_CODE.PERMISSION_DENIED, 3)
    NOT_IN_CONTRACT = (_CODE.PERMISSION_DENIED, 1)
    OTHER_MODEL = (_CODE.PERMISSION_DENIED, 2)
    NO_MODEL = (_CODE.NOT_FOUND, 1)
    NO_SUCH_KEY = (_CODE.NOT_FOUND, 2)
    ID_REUSED = (_CODE.ALREADY_EXISTS, 1)
    BUDGET_SPENT = (_CODE.RESOURCE_EXHAUSTED, 1)
    SLOW_DOWN = (_CODE.RESOURCE_EXHAUSTED, 2)
    QUEUE_FULL = (_CODE.UNAVAILABLE, 1)
    MODEL_UNAVAILABLE = (_CODE.FAILED_PRECONDITION, 1)  # until the operator does something: no use in trying again
    MODEL_FAILED = (_CODE.INTERNAL, 1)
    LEDGER_FAILED = (_CODE.INTERNAL, 2)

    @property
    def code(self) -> grpc.StatusCode:
        return self.value[0]


class Refusal(Exception):
    """A call that is not answered: why, in one sentence, and whether it was charged all the same."""

    def __init__(
        self,
        reason: Reason,
        sentence: str,
        *,
        charged: int = 0,
        retry_after: float | None = None,
        figures: dict[str, int] | None = None,
    ) -> None:
        super().__init__(sentence)
        self.reason = reason
        self.sentence = sentence
        self.charged = charged
        self.retry_after = retry_after
        self.figures = figures or {}

    def details(self) -> bytes:
        """The serialised `google.rpc.Status` for the trailer `grpc-status-details-bin`."""
        metadata = {"rows_charged": str(self.charged)} | {k: str(v) for k, v in self.figures.items()}
        details = [any_pb2.Any(), any_pb2.Any()]
        details[0].Pack(error_details_pb2.ErrorInfo(reason=self.reason.name, domain=DOMAIN, metadata=metadata))
        if self.retry_after is None:
            details.pop()
        else:
            delay = duration_pb2.Duration()
            delay.FromNanoseconds(int(self.retry_after * 1e9))
            details[1].Pack(error_details_pb2.RetryInfo(retry_delay=delay))
        code: int = self.reason.code.value[0]
        data: bytes = status_pb2.Status(code=code, message=self.sentence, details=details).SerializeToString()
        return data
