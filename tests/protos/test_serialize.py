"""A request made around an array's own bytes is the request that protobuf makes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from protos.codec import CodecError, decode, encode, raw, serialize
from protos.mirage.v1 import oracle_pb2 as pb

DTYPES = ("float32", "float64", "int64", "uint8", "float16", ">f4")


@given(
    shape=st.lists(st.integers(1, 40), min_size=1, max_size=4),
    dtype=st.sampled_from(DTYPES),
    request_id=st.binary(max_size=64),
    model=st.sampled_from(["", "softmax/1"]),
)
def test_serialize_is_protobufs_own_encoding(shape: list[int], dtype: str, request_id: bytes, model: str) -> None:
    array = (np.arange(np.prod(shape)) % 60_000).reshape(shape).astype(dtype)  # float16 ends at 65,504
    message = pb.PredictRequest(request_id=request_id, model=model)
    whole = pb.PredictRequest(request_id=request_id, model=model, inputs=encode(array))
    assert serialize(message, "inputs", array) == whole.SerializeToString()


@pytest.mark.parametrize("size", [0, 1, 127, 128, 16_383, 16_384, 2_097_151, 2_097_152])
def test_lengths_around_each_size_of_a_varint(size: int) -> None:
    array = np.arange(size).astype(np.uint8)
    parsed = pb.PredictRequest.FromString(serialize(pb.PredictRequest(request_id=b"x"), "inputs", array))
    assert parsed.request_id == b"x"
    assert np.array_equal(decode(parsed.inputs), array)


def test_any_memory_order_is_sent_row_by_row() -> None:
    array = np.arange(24, dtype=np.float32).reshape(2, 3, 4).transpose(2, 0, 1)
    parsed = pb.PredictRequest.FromString(serialize(pb.PredictRequest(), "inputs", array))
    assert np.array_equal(decode(parsed.inputs), array)
    assert bytes(raw(array)) == array.tobytes()


def test_raw_is_a_view_where_it_can_be() -> None:
    array = np.zeros((2, 3), np.float32)
    view = raw(array)
    array[0, 0] = 1
    assert bytes(view) == array.tobytes()
    assert len(view) == array.nbytes


def test_a_dtype_that_does_not_travel_is_refused() -> None:
    with pytest.raises(CodecError, match="int16 does not travel"):
        serialize(pb.PredictRequest(), "inputs", np.zeros(1, np.int16))
