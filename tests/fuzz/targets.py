"""What takes bytes from strangers, as plain functions: bytes -> a word that says what came of them.

    codec    a PredictRequest, parsed and decoded against a model's card
    archive  a model archive, checked and not loaded
    predict  a whole call: the guard, a real service, scheduler and ledger, under one of several keys
    infer    the same by the Open Inference Protocol

Each checks on its way what must hold whatever the bytes are. Anything that a target raises is a crash; a word that is
not in `DOCUMENTED` is an answer that nobody has promised.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import re
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2

from oracle_server.errors import Reason, Refusal
from oracle_server.guard import Guard, RequestType, new_token
from oracle_server.hosted import Models
from oracle_server.inputs import decode_inputs, to_float32
from oracle_server.ledger import Key
from oracle_server.open_inference import OpenInference
from oracle_server.threat_model import Access, Contract
from protos import archive as archives
from protos.archive import UnsafeArchive
from protos.inference import open_inference_pb2 as v2
from protos.inference.codec import InferRequest
from protos.mirage.v1 import oracle_pb2 as pb
from protos.request import ReceivedRequest
from tests.world import CARD, MAX_ROWS, World, world

__all__ = ["CORPUS", "DOCUMENTED", "HEADERS", "TARGETS", "Target", "corpus"]

CORPUS = Path(__file__).with_name("corpus")
DOCUMENTED = {reason.name for reason in Reason} | {"ANSWERED", "UNSAFE"}
Target = Callable[[bytes], str]


def corpus(name: str) -> list[bytes]:
    """The kept inputs of a target, in the order of their names."""
    return [path.read_bytes() for path in sorted((CORPUS / name).iterdir())]


@contextlib.contextmanager
def codec() -> Iterator[Target]:
    def run(data: bytes) -> str:
        try:
            request = ReceivedRequest.FromString(data)
        except DecodeError:
            return Reason.MALFORMED.name
        try:
            rows = decode_inputs(request, CARD, MAX_ROWS)
        except Refusal as refusal:
            _told(refusal.details(), refusal.sentence)
            return refusal.reason.name
        assert rows.shape == (len(rows), *CARD.input_shape)
        assert 1 <= len(rows) <= MAX_ROWS
        assert rows.nbytes == len(request.data)
        assert not rows.flags.owndata
        values = to_float32(rows, CARD)
        assert 0 <= values.min() <= values.max() <= 1
        return "ANSWERED"

    yield run


@contextlib.contextmanager
def archive() -> Iterator[Target]:
    with tempfile.TemporaryDirectory(prefix="mf", dir=_memory()) as folder:
        path = Path(folder) / "model.pt2"

        def run(data: bytes) -> str:
            path.write_bytes(data)
            try:
                info = archives.check(path)
            except UnsafeArchive as refused:
                return "UNSAFE" if 0 < len(str(refused)) < 1000 else f"a sentence of {len(str(refused))} letters"
            assert info.bytes == len(data)
            assert info.parameters >= 0
            return "ANSWERED"

        yield run


def predict() -> AbstractContextManager[Target]:
    """The first byte says which header comes along (see `HEADERS`), the rest are the request's."""
    return _calls("/mirage.v1.Oracle/Predict", ReceivedRequest, lambda made: made.service.predict, _predicted)


def infer() -> AbstractContextManager[Target]:
    """The same for a ModelInferRequest."""

    def handler(made: World) -> Any:
        return OpenInference(Models(made.hosted), made.answering).model_infer

    return _calls("/inference.GRPCInferenceService/ModelInfer", InferRequest, handler, _inferred)


@contextlib.contextmanager
def _calls(
    rpc: str, request_type: RequestType, handler: Callable[[World], Any], answered: Callable[[bytes, str], None]
) -> Iterator[Target]:
    loop = asyncio.new_event_loop()
    with contextlib.closing(loop), tempfile.TemporaryDirectory(prefix="mf", dir=_memory()) as folder:
        opened = world(Contract(Access.SCORES), folder=Path(folder))
        made = loop.run_until_complete(opened.__aenter__())
        call: Any = Guard(made.ledger).unary(rpc, request_type, handler(made))
        try:
            yield _Place(loop, made, call.unary_unary, answered).run
        finally:
            loop.run_until_complete(opened.__aexit__(None, None, None))


HEADERS = ("scores", "label", "budget", "revoked", "none", "unknown", "twice", "scheme")


@dataclass
class _Context:
    """What a handler uses of gRPC's context."""

    metadata: tuple[tuple[str, str], ...]
    code: grpc.StatusCode = grpc.StatusCode.OK
    sentence: str = ""
    trailer: dict[str, bytes] = field(default_factory=dict)

    def invocation_metadata(self) -> tuple[tuple[str, str], ...]:
        return self.metadata

    def set_code(self, code: grpc.StatusCode) -> None:
        self.code = code

    def set_details(self, sentence: str) -> None:
        self.sentence = sentence

    def set_trailing_metadata(self, pairs: tuple[tuple[str, bytes], ...]) -> None:
        self.trailer = dict(pairs)


class _Place:
    """A service in this process, with a key for each of the headers that have one."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, made: World, call: Any, answered: Callable[[bytes, str], None]
    ) -> None:
        self._loop, self._made, self._call, self._answered = loop, made, call, answered
        tokens = {name: self._key(name) for name in ("scores", "label", "budget", "revoked")}
        self._made.ledger.revoke(tokens["revoked"].split("_")[1], 0.0)
        one = {name: (f"Bearer {token}",) for name, token in tokens.items()}
        one |= {"none": (), "unknown": (f"Bearer {new_token()[0]}",), "scheme": (f"Basic {tokens['scores']}",)}
        one["twice"] = one["scores"] * 2
        self._metadata = [tuple(("authorization", text) for text in one[name]) for name in HEADERS]

    def _key(self, name: str) -> str:
        contract = Contract(Access(name if name == "label" else "scores"), budget=40 if name == "budget" else None)
        token, key_id, secret_sha256 = new_token()
        self._made.ledger.add_key(Key(key_id, name, CARD.id, contract, secret_sha256, 0.0))
        return token

    def run(self, data: bytes) -> str:
        header, body = (data[0] if data else 0) % len(HEADERS), data[1:]
        context, passes = _Context(self._metadata[header]), self._made.model.passes
        answer = self._loop.run_until_complete(self._call(body, context))
        if context.code is grpc.StatusCode.OK:
            self._answered(answer, HEADERS[header])
            return "ANSWERED"
        assert answer == b""
        if not context.trailer:
            return f"{context.code.name} without a reason: {context.sentence}"
        reason, charged = _told(context.trailer["grpc-status-details-bin"], context.sentence)
        assert Reason[reason].code is context.code
        if charged == 0 and reason != Reason.MODEL_FAILED.name:  # a retry of what failed fails again, for nothing
            assert self._made.model.passes == passes, "refused, and yet it reached the model"
        return reason


def _predicted(answer: bytes, header: str) -> None:
    response = pb.PredictResponse.FromString(answer)
    assert header in ("scores", "label", "budget"), "answered without a key"
    assert response.WhichOneof("answer") == ("labels" if header == "label" else "scores")
    tensor = response.labels if header == "label" else response.scores
    assert 1 <= tensor.shape[0] <= MAX_ROWS
    assert len(tensor.data) == 8 * math.prod(tensor.shape)
    assert response.receipt.rows_charged in (0, tensor.shape[0])


def _inferred(answer: bytes, header: str) -> None:
    response = v2.ModelInferResponse.FromString(answer)
    assert header in ("scores", "label", "budget"), "answered without a key"
    (tensor,), (data,) = response.outputs, response.raw_output_contents
    assert tensor.name == ("label" if header == "label" else "scores")
    assert 1 <= tensor.shape[0] <= MAX_ROWS
    assert len(data) == 8 * math.prod(tensor.shape)
    assert response.parameters["rows_charged"].int64_param in (0, tensor.shape[0])


def _told(details: bytes, sentence: str) -> tuple[str, int]:
    """Reason and charge of a rich status, which must be whole, and whose sentence is short and printable."""
    status, info = status_pb2.Status.FromString(details), error_details_pb2.ErrorInfo()
    assert status.details[0].Unpack(info)
    assert status.message == sentence
    assert re.fullmatch(r"[ -~]{1,400}", sentence), sentence
    return info.reason, int(info.metadata["rows_charged"])


def _memory() -> str | None:
    """A folder that is no disk, where there is one: nothing here has to survive."""
    with contextlib.suppress(OSError), tempfile.TemporaryDirectory(dir="/dev/shm"):
        return "/dev/shm"
    return None


TARGETS: dict[str, Callable[[], AbstractContextManager[Target]]] = {
    "codec": codec,
    "archive": archive,
    "predict": predict,
    "infer": infer,
}
