"""Messages of 60 MB that would become ten times as much if somebody parsed them: nobody does, with a key or without."""

from __future__ import annotations

import grpc
import pytest

from protos.mirage.v1 import oracle_pb2 as pb
from tests.fixtures import Start
from tests.length_delimited import field
from tests.serving import Caller, Server, inputs, refused
from tests.unharmed import unharmed

PREDICT = "/mirage.v1.Oracle/Predict"
AMOUNT = 60 << 20
TOO_MUCH = "the request has too much beside its rows: send one tensor, and no more"
UNKNOWN = "inputs have dtype unknown: send float32, uint8 or float16 rows of shape [1, 8, 6]"


def rows() -> bytes:
    return pb.PredictRequest(request_id=bytes(16), inputs=Caller.request(None, inputs(64)).inputs).SerializeToString()  # type: ignore[arg-type]


MESSAGES = {
    "a shape": (field(0x1A, field(0x12, b"\x01" * AMOUNT)), TOO_MUCH),
    "dimensions": (field(0x1A, b"\x10\x01" * (AMOUNT // 2)), TOO_MUCH),
    "a shape after the rows": (rows() + field(0x1A, field(0x12, b"\x01" * AMOUNT)), TOO_MUCH),
    "a name": (field(0x0A, b"m" * AMOUNT), TOO_MUCH),
    "an id": (field(0x12, bytes(AMOUNT)), TOO_MUCH),
    "tensors": (b"\x1a\x00" * (AMOUNT // 2), TOO_MUCH),
    "data": (field(0x1A, b"\x1a\x00" * (AMOUNT // 2)), TOO_MUCH),
    "fields of the future": (b"\x7a\x00" * (AMOUNT // 2), TOO_MUCH),
    "rows of no type": (field(0x12, bytes(16)) + field(0x1A, field(0x1A, bytes(AMOUNT))), UNKNOWN),
}


@pytest.mark.parametrize("name", MESSAGES)
def test_refused_for_nothing(server: Server, caller: Caller, name: str) -> None:
    data, sentence = MESSAGES[name]
    with unharmed(server), pytest.raises(grpc.RpcError) as caught:
        caller.raw(PREDICT, data)
    told = refused(caught.value)
    assert (told.code, told.reason, told.sentence) == ("INVALID_ARGUMENT", "BAD_INPUT", sentence)


def test_nobody_needs_a_key_to_be_refused(server: Server) -> None:
    with unharmed(server), pytest.raises(grpc.RpcError) as caught:
        server.channel.unary_unary(PREDICT)(MESSAGES["a shape"][0], timeout=30)
    assert refused(caught.value).reason == "NO_KEY"


PARSED_WHOLE = """
from protos.mirage.v1.oracle_pb2 import PredictRequest
from protos.request import ReceivedRequest
def parse(cls, data):
    message = PredictRequest.FromString(data)
    return cls(message.model, message.request_id, message.inputs, memoryview(message.inputs.data))
ReceivedRequest.FromString = classmethod(parse)
"""


def test_a_server_that_parses_whatever_comes_is_noticed(start: Start) -> None:
    server = start(before=PARSED_WHOLE)
    caller = server.new_key()
    assert caller.predict(inputs(64)).receipt.rows_charged == 64
    with pytest.raises(AssertionError, match="VmHWM"), unharmed(server), pytest.raises(grpc.RpcError):
        caller.raw(PREDICT, MESSAGES["a shape"][0])
