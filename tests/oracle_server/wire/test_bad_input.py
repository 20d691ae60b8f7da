"""Bad input gets a clear error, and costs nothing."""

from __future__ import annotations

import grpc
import numpy as np
import pytest

from protos.codec import encode
from protos.mirage.v1 import oracle_pb2 as pb
from protos.mirage.v1.tensor_pb2 import DTYPE_FLOAT16, DTYPE_FLOAT32, DTYPE_UINT8, DType, Tensor
from tests.serving import Caller, Server, assert_refused, inputs, refused

PREDICT = "/mirage.v1.Oracle/Predict"
WANTED = "float32, uint8 or float16 rows of shape [1, 8, 6]"
ID = b"0123456789abcdef"


def asked(rows: np.ndarray, model: str = "", request_id: bytes = ID) -> pb.PredictRequest:
    return pb.PredictRequest(model=model, request_id=request_id, inputs=encode(rows))


def lying(shape: tuple[int, ...], size: int = 576, dtype: DType = DTYPE_FLOAT32) -> pb.PredictRequest:
    """A tensor of `size` bytes whose header says something else."""
    return pb.PredictRequest(request_id=ID, inputs=Tensor(dtype=dtype, shape=shape, data=bytes(size)))


def with_value(value: float, dtype: str = "float32") -> pb.PredictRequest:
    """Rows between 1/4 and 1/2, but for one value."""
    rows = inputs(3).astype(dtype) / 4 + 0.25
    rows[0, 0, 0, 0], rows[1, 0, 0, 0], rows[2, 0, 7, 5] = 0.25, 0.5, value
    return asked(rows)


HUGE = 2**62
SHAPE = "inputs have shape {}: send a batch of " + WANTED
DTYPE = "inputs have dtype {}: send " + WANTED
BYTES = "tensor header asks for {} bytes but {} came"
FINITE = "inputs hold a value that is not finite"
RANGE = "inputs lie in [{}, {}]: values outside [0, 1] are not answered"
ID_BYTES = "the request id has {} bytes: send 16 to 64 that no other request of this key has"
WIDE = "65 rows in one request: send at most 64"
OTHER = "this key is for the model linear/1 and no other"
BAD = ("INVALID_ARGUMENT", "BAD_INPUT")
DENIED = ("PERMISSION_DENIED", "OTHER_MODEL")

CASES = {
    "transposed rows": (asked(inputs(3, shape=(1, 6, 8))), *BAD, SHAPE.format([3, 1, 6, 8])),
    "a row without a batch": (asked(inputs(3)[0]), *BAD, SHAPE.format([1, 8, 6])),
    "flat rows": (asked(inputs(3).reshape(3, 48)), *BAD, SHAPE.format([3, 48])),
    "a scalar": (lying((), 4), *BAD, SHAPE.format([])),
    "float64": (asked(inputs(3).astype(np.float64)), *BAD, DTYPE.format("float64")),
    "int64": (asked(inputs(3).astype(np.int64)), *BAD, DTYPE.format("int64")),
    "no dtype": (lying((3, 1, 8, 6), dtype=0), *BAD, DTYPE.format("unknown")),
    "a dtype of the future": (lying((3, 1, 8, 6), dtype=99), *BAD, DTYPE.format("unknown")),
    "nan": (with_value(np.nan), *BAD, FINITE),
    "infinity": (with_value(np.inf), *BAD, FINITE),
    "minus infinity": (with_value(-np.inf), *BAD, FINITE),
    "above the range": (with_value(1.5), *BAD, RANGE.format("0.25", "1.5")),
    "below the range": (with_value(-0.125), *BAD, RANGE.format("-0.125", "0.5")),
    "just above": (with_value(np.nextafter(np.float32(1), np.float32(2))), *BAD, RANGE.format("0.25", "1.00000012")),
    "just below": (with_value(-1e-45), *BAD, RANGE.format("-1.40129846e-45", "0.5")),
    "float16 nan": (with_value(np.nan, "float16"), *BAD, FINITE),
    "float16 nan with a sign": (with_value(-np.nan, "float16"), *BAD, FINITE),
    "float16 infinity": (with_value(np.inf, "float16"), *BAD, FINITE),
    "float16 minus infinity": (with_value(-np.inf, "float16"), *BAD, FINITE),
    "float16 above the range": (with_value(1.5, "float16"), *BAD, RANGE.format("0.25", "1.5")),
    "float16 just below": (with_value(-6e-8, "float16"), *BAD, RANGE.format("-5.96046448e-08", "0.5")),
    "uint8 and the bytes of float32": (lying((3, 1, 8, 6), 576, DTYPE_UINT8), *BAD, BYTES.format(144, 576)),
    "float32 and the bytes of uint8": (lying((3, 1, 8, 6), 144), *BAD, BYTES.format(576, 144)),
    "float16 and the bytes of uint8": (lying((3, 1, 8, 6), 144, DTYPE_FLOAT16), *BAD, BYTES.format(288, 144)),
    "a wide batch of uint8": (lying((65, 1, 8, 6), 3120, DTYPE_UINT8), BAD[0], "TOO_MANY_ROWS", WIDE),
    "an empty batch": (asked(inputs(0)), *BAD, "the batch is empty: send at least one row"),
    "a wide batch": (asked(inputs(65)), BAD[0], "TOO_MANY_ROWS", WIDE),
    "no tensor": (pb.PredictRequest(request_id=ID), *BAD, DTYPE.format("unknown")),
    "too few bytes": (lying((3, 1, 8, 6), 575), *BAD, BYTES.format(576, 575)),
    "too many bytes": (lying((3, 1, 8, 6), 577), *BAD, BYTES.format(576, 577)),
    "bytes and no shape": (lying((), 576), *BAD, BYTES.format(4, 576)),
    "a negative dimension": (lying((-3, 1, 8, 6)), *BAD, "tensor has a negative dimension"),
    "two negative dimensions": (lying((-3, -1, 8, 6)), *BAD, "tensor has a negative dimension"),
    "huge dimensions": (lying((HUGE, HUGE, HUGE)), *BAD, BYTES.format(4 * HUGE**3, 576)),
    "a size that overflows to the truth": (lying((HUGE, 4), 0), *BAD, BYTES.format(16 * HUGE, 0)),
    "nothing of a huge size": (lying((0, HUGE, HUGE), 0), *BAD, "tensor dimension is larger than any array"),
    "nine dimensions": (lying((1,) * 9, 4), *BAD, "tensor has 9 dimensions; at most 8 are read"),
    "no request id": (asked(inputs(3), request_id=b""), *BAD, ID_BYTES.format(0)),
    "a short request id": (asked(inputs(3), request_id=b"x" * 15), *BAD, ID_BYTES.format(15)),
    "a long request id": (asked(inputs(3), request_id=b"x" * 65), *BAD, ID_BYTES.format(65)),
    "another model": (asked(inputs(3), model="other"), *DENIED, OTHER),
    "another model's version": (asked(inputs(3), model="linear/2"), *DENIED, OTHER),
    "an unknown model": (asked(inputs(3), model="nobody"), *DENIED, OTHER),
}


@pytest.mark.parametrize("name", CASES)
def test_refused_for_nothing(server: Server, caller: Caller, name: str) -> None:
    request, code, reason, sentence = CASES[name]
    assert_refused(server, lambda: caller.send(request), code, reason, sentence)
    answered = caller.predict(inputs(2), request_id=ID)  # the id was not used up, and the server goes on
    assert answered.receipt.rows_charged == answered.receipt.spent == caller.usage().spent == 2


VALID = asked(inputs(3)).SerializeToString()
GARBAGE = {
    "noise": b"\xff" * 40,
    "text": b"GET / HTTP/1.1\r\n\r\n",
    "cut short": VALID[:-1],
    "a length beyond the end": b"\x12\xff\xff\xff\xff\x0f" + bytes(20),
    "a name that is no text": b"\x0a\x02\xff\xfe" + VALID,
    "groups without end": b"\x0b" * 200,
}


# Cut short, a PredictRequest happens to be a message of the other kinds.
RPCS = ("Predict", "Describe", "Usage")
MALFORMED = [(rpc, name) for name in GARBAGE for rpc in RPCS if rpc == "Predict" or name != "cut short"]


@pytest.mark.parametrize(("rpc", "name"), MALFORMED)
def test_malformed_bytes(server: Server, caller: Caller, rpc: str, name: str) -> None:
    assert_refused(
        server,
        lambda: caller.raw(f"/mirage.v1.Oracle/{rpc}", GARBAGE[name]),
        "INVALID_ARGUMENT",
        "MALFORMED",
        f"the bytes are no {rpc}Request",
    )


def test_the_limit_and_the_bounds_are_answered(caller: Caller) -> None:
    rows = inputs(64)
    rows[0], rows[1], rows[2, 0, 0, 0] = 0, 1, -0.0
    assert caller.predict(rows).receipt.rows_charged == 64


def test_message_larger_than_the_limit(server: Server, caller: Caller) -> None:
    """Refused by the transport before a byte is kept: no reason of ours, which tells it from a spent budget."""
    request = lying((1,), (64 << 20) + 1)
    before = server.books()
    with pytest.raises(grpc.RpcError) as caught:
        caller.send(request)
    told = refused(caught.value)
    assert (told.code, told.reason) == ("RESOURCE_EXHAUSTED", None)
    assert told.sentence.endswith(f"eceived message larger than max ({request.ByteSize()} vs. {64 << 20})")
    assert server.books() == before


def test_budget_spent(server: Server) -> None:
    caller = server.new_key(budget=5)
    told = assert_refused(
        server,
        lambda: caller.predict(inputs(6)),
        "RESOURCE_EXHAUSTED",
        "BUDGET_SPENT",
        "6 rows asked and 5 of 5 left: ask for fewer, or for a key with a larger budget",
    )
    assert told.figures == {"asked": 6, "left": 5, "budget": 5}
    assert caller.predict(inputs(5)).receipt.budget_left == 0
    told = assert_refused(
        server,
        lambda: caller.predict(inputs(1)),
        "RESOURCE_EXHAUSTED",
        "BUDGET_SPENT",
        "1 rows asked and 0 of 5 left: ask for fewer, or for a key with a larger budget",
    )


def test_rate_exceeded(server: Server) -> None:
    caller = server.new_key(rate=2.0)
    caller.predict(inputs(12))  # two in the bucket, ten owed: five seconds
    before = server.books()
    with pytest.raises(grpc.RpcError) as caught:
        caller.predict(inputs(1))
    told = refused(caught.value)
    assert (told.code, told.reason, told.rows_charged) == ("RESOURCE_EXHAUSTED", "SLOW_DOWN", 0)
    assert told.retry_after is not None
    assert 3 < told.retry_after <= 5.001
    assert told.sentence == f"this key may ask for 2 rows a second: wait {told.retry_after:.3f} s"
    assert server.books() == before


def test_the_checker_notices_a_charge(server: Server) -> None:
    """A model that fails is charged, since it ran, and the status says so: what `assert_refused` must not let pass."""
    caller = server.new_key(model="fails")
    rows = inputs(3)
    rows[1, 0, 0, 0] = 0
    expected = ("INTERNAL", "MODEL_FAILED", "the model failed on this input: tell the operator")
    with pytest.raises(AssertionError):
        assert_refused(server, lambda: caller.predict(rows), *expected)
    before = server.books()
    with pytest.raises(grpc.RpcError) as caught:
        caller.predict(rows)
    assert refused(caught.value).rows_charged == 3
    after = server.books()
    assert after.rows[caller.key_id] - before.rows[caller.key_id] == after.logged - before.logged == 3
    assert caller.predict(inputs(3)).receipt.spent == 9
