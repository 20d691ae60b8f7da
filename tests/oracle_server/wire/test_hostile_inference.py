"""Requests of the Open Inference Protocol that are wrong, or lie, or are no requests: each is refused in a sentence,
nothing is charged, and memory stays bounded.
"""

from __future__ import annotations

import re
from typing import Any

import grpc
import numpy as np
import pytest

from protos.inference import open_inference_pb2 as v2
from tests.fixtures import Start
from tests.length_delimited import field
from tests.open_inference import INFER, infer, receipt, request
from tests.serving import Caller, Server, assert_refused, inputs, refused
from tests.unharmed import unharmed

BAD = ("INVALID_ARGUMENT", "BAD_INPUT")
DENIED = ("PERMISSION_DENIED", "OTHER_MODEL", "this key is for the model linear/1 and no other")
ROWS = inputs(3)
WANTED = "float32, uint8 or float16 rows of shape [1, 8, 6]"
SHAPE = "inputs have shape {}: send a batch of " + WANTED
ONE_INPUT = "the model has one input: send one, and name it 'input'"
BYTES = "tensor header asks for {} bytes but {} came"
PARAMETER = "there are no sequences, shared memory or classification here: leave the parameter {} out"
TYPE = "values came in the field of another type: send {}"
TOO_MUCH = "the request has too much beside raw_input_contents: send the values there, and no more"
FINITE = "inputs hold a value that is not finite"
ABSENT = "an output was asked for that is not released: this key's contract gives scores"
HUGE = 2**62


def tensor(
    datatype: str = "FP32", shape: tuple[int, ...] = ROWS.shape, name: str = "input", **fields: Any
) -> v2.ModelInferRequest.InferInputTensor:
    return v2.ModelInferRequest.InferInputTensor(name=name, datatype=datatype, shape=shape, **fields)


def lying(
    datatype: str = "FP32", shape: tuple[int, ...] = ROWS.shape, raw: bytes | None = ROWS.tobytes(), **fields: Any
) -> v2.ModelInferRequest:
    """A request for `linear` whose tensor says this, with these raw contents."""
    contents = [] if raw is None else [raw]
    return v2.ModelInferRequest(
        model_name="linear", inputs=[tensor(datatype, shape, **fields)], raw_input_contents=contents
    )


def typed(datatype: str = "FP32", raw: bytes | None = None, **contents: Any) -> v2.ModelInferRequest:
    return lying(datatype, raw=raw, contents=v2.InferTensorContents(**contents))


def parameter(name: str, place: str) -> v2.ModelInferRequest:
    """Good rows, and one parameter of the request, of its input or of its output."""
    made = request(ROWS, outputs=[{"name": "scores"}])
    holder = {"request": made, "input": made.inputs[0], "output": made.outputs[0]}[place]
    holder.parameters[name].int64_param = 1
    return made


def with_value(value: float) -> v2.ModelInferRequest:
    rows = ROWS.copy()
    rows[1, 0, 0, 0] = value
    return request(rows)


def many(count: int, part: bytes) -> v2.ModelInferRequest:
    return v2.ModelInferRequest.FromString(part * count)


VALUES = ROWS.ravel().tolist()
CASES: dict[str, tuple[v2.ModelInferRequest, str, str, str]] = {
    "another model": (request(ROWS, model_name="other"), *DENIED),
    "another version": (request(ROWS, model_version="2"), *DENIED),
    "a path": (request(ROWS, model_name="../linear"), *DENIED),
    "no input": (v2.ModelInferRequest(model_name="linear"), *BAD, ONE_INPUT),
    "two inputs": (request(ROWS, inputs=[tensor(), tensor()]), *BAD, ONE_INPUT),
    "an input of another name": (lying(name="x"), *BAD, ONE_INPUT),
    "two raw contents": (request(ROWS, raw_input_contents=[b"", b""]), *BAD, ONE_INPUT),
    "raw and typed": (typed(raw=ROWS.tobytes(), fp32_contents=VALUES), *BAD,
                      "values came twice, raw and one by one: send raw_input_contents alone"),
    "no values": (lying(raw=None), *BAD, BYTES.format(576, 0)),
    "fewer values than the shape": (typed(fp32_contents=VALUES[:-1]), *BAD, BYTES.format(576, 572)),
    "more values than the shape": (typed(fp32_contents=[*VALUES, 0.5]), *BAD, BYTES.format(576, 580)),
    "values of another type": (typed(fp64_contents=VALUES), *BAD, TYPE.format("fp32_contents")),
    "values of two types": (typed(fp32_contents=VALUES, int_contents=[1]), *BAD, TYPE.format("fp32_contents")),
    "text for values": (typed(bytes_contents=[b"x"] * 144), *BAD, TYPE.format("fp32_contents")),
    "halves one by one": (typed("FP16", fp32_contents=VALUES), *BAD, TYPE.format("raw_input_contents")),
    "a level above 255": (typed("UINT8", uint_contents=[256] * 144), *BAD, "a value does not fit into uint8"),
    "fewer bytes than the shape": (lying(raw=bytes(575)), *BAD, BYTES.format(576, 575)),
    "more bytes than the shape": (lying(raw=bytes(577)), *BAD, BYTES.format(576, 577)),
    "a negative dimension": (lying(shape=(-3, 1, 8, 6)), *BAD, "tensor has a negative dimension"),
    "two negative dimensions": (lying(shape=(-3, -1, 8, 6)), *BAD, "tensor has a negative dimension"),
    "the batch as in the metadata": (lying(shape=(-1, 1, 8, 6)), *BAD, "tensor has a negative dimension"),
    "a giant": (lying(shape=(HUGE, 1, 8, 6)), *BAD, BYTES.format(HUGE * 192, 576)),
    "a product beyond 64 bits": (lying(shape=(HUGE, 4, 8, 6)), *BAD, BYTES.format(HUGE * 768, 576)),
    "nothing of a giant": (lying(shape=(0, HUGE, HUGE), raw=b""), *BAD, "tensor dimension is larger than any array"),
    "nine dimensions": (lying(shape=(1,) * 9), *BAD, "tensor has 9 dimensions; at most 8 are read"),
    "no shape": (lying(shape=(), raw=bytes(4)), *BAD, SHAPE.format([])),
    "no batch": (lying(shape=(1, 8, 6), raw=bytes(192)), *BAD, SHAPE.format([1, 8, 6])),
    "flat rows": (lying(shape=(3, 48)), *BAD, SHAPE.format([3, 48])),
    "no rows": (lying(shape=(0, 1, 8, 6), raw=b""), *BAD, "the batch is empty: send at least one row"),
    "65 rows": (request(inputs(65)), "INVALID_ARGUMENT", "TOO_MANY_ROWS", "65 rows in one request: send at most 64"),
    "FP64": (lying("FP64", raw=bytes(1152)), *BAD, f"inputs have dtype float64: send {WANTED}"),
    "INT64": (lying("INT64", raw=bytes(1152)), *BAD, f"inputs have dtype int64: send {WANTED}"),
    "BYTES": (lying("BYTES"), *BAD, f"inputs have dtype unknown: send {WANTED}"),
    "BYTES one by one": (typed("BYTES", bytes_contents=[b"x"]), *BAD, f"inputs have dtype unknown: send {WANTED}"),
    "no datatype": (lying(""), *BAD, f"inputs have dtype unknown: send {WANTED}"),
    "the numpy name": (lying("float32"), *BAD, f"inputs have dtype unknown: send {WANTED}"),
    "nan": (with_value(np.nan), *BAD, FINITE),
    "infinity": (with_value(np.inf), *BAD, FINITE),
    "an output that is withheld": (request(ROWS, outputs=[{"name": "label"}]), *BAD, ABSENT),
    "one output of two": (request(ROWS, outputs=[{"name": "scores"}, {"name": "logits"}]), *BAD, ABSENT),
    "an output without a name": (request(ROWS, outputs=[{}]), *BAD, ABSENT),
    "a sequence": (parameter("sequence_id", "request"), *BAD, PARAMETER.format("sequence_id")),
    "shared memory": (parameter("shared_memory_region", "input"), *BAD, PARAMETER.format("shared_memory_region")),
    "an answer to shared memory": (
        parameter("shared_memory_region", "output"), *BAD, PARAMETER.format("shared_memory_region")
    ),
    "a classification": (parameter("classification", "output"), *BAD, PARAMETER.format("classification")),
    "300 inputs": (many(300, b"\x2a\x00"), *BAD, TOO_MUCH),
    "300 outputs": (many(300, b"\x32\x00"), *BAD, TOO_MUCH),
    "an id of a megabyte": (
        request(ROWS, "x" * (1 << 20)), *BAD, f"the id has {1 << 20} letters: send at most 1024"
    ),
    "six megabytes one by one": (
        lying(raw=None, contents=v2.InferTensorContents(fp32_contents=bytes(6 << 18))), *BAD, TOO_MUCH
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_refused_in_a_sentence(server: Server, caller: Caller, name: str) -> None:
    asked, *told = CASES[name]
    assert_refused(server, lambda: infer(caller, asked), *told)


IGNORED = {
    "priority": parameter("priority", "request"),
    "timeout": parameter("timeout", "request"),
    "one's own": parameter("my_tag", "input"),
    "binary_data": parameter("binary_data", "output"),
}


@pytest.mark.parametrize("name", IGNORED)
def test_other_parameters_change_nothing(caller: Caller, name: str) -> None:
    answer, plain = infer(caller, IGNORED[name]), infer(caller, request(ROWS))
    assert answer.raw_output_contents == plain.raw_output_contents
    assert receipt(answer)["rows_charged"] == 3


GOOD = request(ROWS).SerializeToString()
MESSAGES = {
    "nothing": (b"", "BAD_INPUT"),
    "noise": (bytes(range(7, 200)), "MALFORMED"),
    "cut short": (GOOD[:-1], "MALFORMED"),
    "a length beyond the end": (b"\x3a\xff\xff\xff\xff\x0f", "MALFORMED"),
    "a length beyond any": (b"\x3a" + b"\xff" * 9 + b"\x01", "MALFORMED"),
    "a number of eleven bytes": (b"\x08" + b"\xff" * 11, "MALFORMED"),
    "a group": (GOOD + b"\x7b\x7c", "MALFORMED"),
    "a name of no text": (b"\x0a\x02\xff\xfe", "MALFORMED"),
    "field 0": (b"\x00\x01", "MALFORMED"),
    "inputs nested 5000 deep": (b"\x2a\x90\x4e" + b"\x7b" * 5000 + b"\x7c" * 5000, "MALFORMED"),
    "a number for the rows": (b"\x38\x01", "BAD_INPUT"),
    "30 million inputs": (b"\x2a\x00" * (30 << 20), "BAD_INPUT"),
    "30 million raw contents": (b"\x3a\x00" * (30 << 20), "BAD_INPUT"),
    "60 MB of raw contents": (field(0x3A, bytes(60 << 20)), "BAD_INPUT"),
    "60 MB of a shape": (field(0x2A, field(0x1A, b"\x01" * (60 << 20))), "BAD_INPUT"),
    "60 MB of outputs' parameters": (field(0x32, b"\x12\x00" * (30 << 20)), "BAD_INPUT"),
    "4 MB of inputs' parameters": (field(0x2A, b"\x22\x00" * ((2 << 20) - 9)), "BAD_INPUT"),
    "4 MB of text": (field(0x2A, field(0x2A, b"\x42\x00" * ((2 << 20) - 9))), "BAD_INPUT"),
}


@pytest.mark.parametrize("name", MESSAGES)
def test_messages(server: Server, caller: Caller, name: str) -> None:
    data, reason = MESSAGES[name]
    with unharmed(server), pytest.raises(grpc.RpcError) as caught:
        caller.raw(INFER, data)
    told = refused(caught.value)
    assert (told.code, told.reason) == ("INVALID_ARGUMENT", reason)
    assert re.fullmatch(r"[ -~]{1,400}", told.sentence)


PARSED_WHOLE = """
from protos.inference.codec import InferRequest
from protos.inference.open_inference_pb2 import ModelInferRequest
def parse(cls, data):
    message = ModelInferRequest.FromString(data)
    return cls(message, [memoryview(one) for one in message.raw_input_contents], False)
InferRequest.FromString = classmethod(parse)
"""


def test_a_server_that_parses_whatever_comes_is_noticed(start: Start) -> None:
    server = start(before=PARSED_WHOLE)
    caller = server.new_key()
    assert receipt(infer(caller, request(ROWS)))["rows_charged"] == 3
    with pytest.raises(AssertionError, match="VmHWM"), unharmed(server), pytest.raises(grpc.RpcError):
        caller.raw(INFER, MESSAGES["30 million inputs"][0])
