"""Who may call what. Every RPC passes here: parse, authenticate, authorise; what no rule allows is refused.

Handlers are registered without deserialisers, so that malformed bytes get a status of ours; a handler sees a parsed
request and the caller's key, and knows nothing of how they were checked.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import logging
import secrets
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from types import TracebackType
from typing import Any

import grpc
from google.protobuf.message import DecodeError, Message

from oracle_server.detections import refuse_suspended
from oracle_server.errors import Reason, Refusal
from oracle_server.ledger import Key, Ledger
from oracle_server.logs import begin_call, call_under_way
from oracle_server.metrics import UNCOUNTED, Metrics
from oracle_server.threat_model import POLICY, Caller
from protos.inference.codec import InferRequest
from protos.request import ReceivedRequest

__all__ = ["Guard", "RequestType", "new_token"]

_LOG = logging.getLogger(__name__)
_NOBODY = hashlib.sha256(secrets.token_bytes(32)).digest()  # compared with when there is no such key
_PREFIX = "mirage"

# A header that is no text: gRPC logs all of it, a mistyped key too, with a traceback, for whoever sends one.
logging.getLogger("grpc._cython.cygrpc").addFilter(lambda record: not str(record.msg).startswith("Invalid encoding"))

Context = grpc.aio.ServicerContext[Any, Any]
# A handler gets the parsed request and the key; behind the Unix socket, and of anybody, there is no key.
Unary = Callable[[Any, Any], Awaitable[Message]]
Stream = Callable[[Any, Any], AsyncGenerator[Message, None]]
RequestType = type[Message] | type[InferRequest] | type[ReceivedRequest]


def new_token(key_id: str | None = None) -> tuple[str, str, bytes]:
    """A fresh API key, or a fresh secret for the key of an id: the token for its holder, the key's public id, and the
    hash that the ledger keeps.
    """
    key_id, secret = key_id or secrets.token_hex(8), secrets.token_hex(32)
    return f"{_PREFIX}_{key_id}_{secret}", key_id, hashlib.sha256(secret.encode()).digest()


class Guard:
    """Wraps handlers into grpc method handlers. `operator` is True for the server behind the Unix socket; with
    `log_requests` each call gets a line in the log.
    """

    def __init__(
        self, ledger: Ledger, *, operator: bool = False, metrics: Metrics = UNCOUNTED, log_requests: bool = False
    ) -> None:
        self._ledger = ledger
        self._operator = operator
        self._metrics = metrics
        self._log_requests = log_requests
        self._started = time.time() - time.monotonic()

    def unary(self, rpc: str, request_type: RequestType, handler: Unary) -> grpc.RpcMethodHandler[Any, Any]:
        count = self._metrics.calls(rpc)

        async def call(data: bytes, context: Context) -> bytes:
            with _Ending(rpc, context, count, self._log_requests):
                request, key = self._admit(rpc, request_type, data, context)
                return (await handler(request, key)).SerializeToString()
            return b""  # after a refusal; not sent

        return grpc.unary_unary_rpc_method_handler(call)

    def stream(self, rpc: str, request_type: RequestType, handler: Stream) -> grpc.RpcMethodHandler[Any, Any]:
        count = self._metrics.calls(rpc)
        closing: set[asyncio.Task[None]] = set()

        def end(messages: AsyncGenerator[Message, None]) -> None:
            """Let go of what the handler holds when its caller has left: gRPC leaves that to the collector."""
            task = asyncio.ensure_future(messages.aclose())
            closing.add(task)
            task.add_done_callback(closing.discard)

        async def call(data: bytes, context: Context) -> AsyncIterator[bytes]:
            with _Ending(rpc, context, count, self._log_requests):
                request, key = self._admit(rpc, request_type, data, context)
                messages = handler(request, key)
                context.add_done_callback(lambda _: end(messages))  # type: ignore[arg-type] # its stub is no protocol
                async for message in messages:
                    yield message.SerializeToString()

        return grpc.unary_stream_rpc_method_handler(call)

    def _admit(self, rpc: str, request_type: RequestType, data: bytes, context: Context) -> tuple[Any, Key | None]:
        try:
            request = request_type.FromString(data)
        except DecodeError:
            raise Refusal(Reason.MALFORMED, f"the bytes are no {request_type.DESCRIPTOR.name}") from None
        rule = POLICY.get(rpc)
        if rule is not None and rule.caller is (Caller.OPERATOR if self._operator else Caller.ANYBODY):
            return request, None
        if rule is None or rule.caller is not Caller.KEY or self._operator:
            raise Refusal(Reason.NOT_IN_CONTRACT, "this call is not for holders of keys")
        key = self._authenticate(context)
        if key.contract.access not in rule.access:
            allowed = " or ".join(sorted(access.value for access in rule.access))
            raise Refusal(
                Reason.NOT_IN_CONTRACT,
                f"{rpc.rpartition('/')[2]} needs access {allowed};"
                f" this key's contract gives {key.contract.access.value}",
            )
        return request, key

    def _authenticate(self, context: Context) -> Key:
        sent = [str(value) for name, value in context.invocation_metadata() or () if name == "authorization"]
        if len(sent) > 1:
            raise Refusal(Reason.BAD_KEY, "more than one API key: send one 'authorization' and no other")
        scheme, _, token = "".join(sent).partition(" ")
        if not token:
            raise Refusal(Reason.NO_KEY, "no API key: send it as metadata 'authorization: Bearer <key>'")
        prefix, _, rest = token.partition("_")
        key_id, _, secret = rest.partition("_")
        key = self._ledger.key(key_id)
        # Setting the clock back gives no key a longer life: time runs on from what it was at the start.
        now = max(time.time(), self._started + time.monotonic())
        same = _is_secret_of(key, secret, now)
        if key is None or not same or scheme != "Bearer" or prefix != _PREFIX:
            raise Refusal(Reason.BAD_KEY, "the API key is not known here: check it, or ask the operator for one")
        if (logged := call_under_way()) is not None:
            logged.key = key
        if key.revoked is not None:
            raise Refusal(Reason.KEY_REVOKED, "the API key was revoked: ask the operator for another")
        if key.contract.expires is not None and now >= key.contract.expires:
            raise Refusal(Reason.KEY_EXPIRED, "the API key has expired: ask the operator for another")
        refuse_suspended(self._ledger, key)
        return key


def _is_secret_of(key: Key | None, secret: str, now: float) -> bool:
    """Whether a secret is the key's present one or its former one in its time. Always two comparisons, so that the time
    tells neither which one it is, nor whether there are two, nor whether there is a key.
    """
    present, former = _NOBODY, _NOBODY
    if key is not None:
        present = key.secret_sha256
        if key.former_sha256 is not None and key.former_until is not None and now < key.former_until:
            former = key.former_sha256
    digest = hashlib.sha256(secret.encode()).digest()
    return hmac.compare_digest(digest, present) | hmac.compare_digest(digest, former)


class _Ending:
    """Ends a call with its status: OK; a refusal's rich status; for anything unforeseen one that tells the caller
    nothing and the log everything. Counts it, and writes its line in the log.

    Not `context.abort`: gRPC keeps its exception in a cycle with the call, and the frames in its traceback hold the
    request, up to a whole message each, until the collector comes by. The refusal's own frames are let go here.
    """

    __slots__ = ("_context", "_count", "_logged", "_rpc")

    def __init__(
        self, rpc: str, context: Context, count: Callable[[str, str | None], None], log_requests: bool
    ) -> None:
        self._rpc, self._context, self._count = rpc, context, count
        self._logged = begin_call(rpc) if log_requests else None

    def __enter__(self) -> None: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        status, reason = "OK", None
        if isinstance(error, Exception):
            status, reason = self._refuse(error)
            error.__traceback__ = None
        elif error is not None:  # the caller left, or its deadline passed
            status = "CANCELLED"
        self._count(status, reason)
        if self._logged is not None:
            self._logged.end(status, reason)
        return isinstance(error, Exception)

    def _refuse(self, error: Exception) -> tuple[str, str | None]:
        """Status and reason, which the call now has."""
        context = self._context
        if isinstance(error, Refusal):
            context.set_code(error.reason.code)
            context.set_details(error.sentence)
            context.set_trailing_metadata((("grpc-status-details-bin", error.details()),))
            return error.reason.code.name, error.reason.name
        _LOG.error("%s failed", self._rpc, exc_info=error)
        context.set_code(grpc.StatusCode.INTERNAL)
        context.set_details("the server failed: tell the operator")
        return "INTERNAL", None
