"""A PredictRequest taken apart by hand: what protobuf makes of the same bytes, without its copies, without excess."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from google.protobuf.message import DecodeError
from hypothesis import given, settings
from hypothesis import strategies as st

from protos import request as module
from protos.codec import decode, encode, view
from protos.mirage.v1.oracle_pb2 import PredictRequest
from protos.request import ReceivedRequest
from tests.fuzz.mutators import MUTATORS
from tests.length_delimited import field, varint

SOME = PredictRequest(
    model="m/1", request_id=bytes(range(16)), inputs=encode(np.float32([[0.25, 0.5, 0.75]] * 2))
).SerializeToString()
ROWS = np.random.default_rng(0).random((18, 41, 50), np.float32)  # 147,600 bytes


def by_hand(data: bytes) -> ReceivedRequest:
    """Taken apart whatever its size."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_SMALL", -1)
        return ReceivedRequest.FromString(data)


def said(read: Callable[[bytes], Any], data: bytes) -> tuple[object, ...]:
    """What a reader makes of bytes, or why it makes nothing of them."""
    try:
        made = read(data)
    except DecodeError as error:
        return ("refused", str(error))
    if getattr(made, "excessive", False):
        return ("excessive",)
    contents = bytes(made.data) if isinstance(made, ReceivedRequest) else made.inputs.data
    return ("read", made.model, made.request_id, made.inputs.dtype, list(made.inputs.shape), contents)


def as_protobuf_reads_it(data: bytes) -> str:
    """What came of it: both refuse the bytes, or both read the same. Refused here alone are a group, which nobody
    sends, and what is excessive, for which 257 fields are needed.
    """
    wanted, whole, found = (
        said(read, data) for read in (PredictRequest.FromString, ReceivedRequest.FromString, by_hand)
    )
    if len(data) <= module._SMALL:
        assert whole == wanted
    if wanted[0] == found[0] == "refused":
        return "refused"
    if found[0] == "excessive":
        assert len(data) > 2 * 256
        return "excessive"
    if found[0] == "refused":
        assert "a group" in str(found[1])
        return "a group"
    assert found == wanted
    return "read"


# Bytes of a tag, a length or a number, of which protobuf reads up to five or ten: mostly as few as there can be.
WIDTH, LONGER = (st.sampled_from([1] * 9 + [2, most, most + 1]) for most in (5, 10))
NUMBER = st.builds(varint, st.sampled_from([0, 1, 3, 200, 2**31, 2**63, 2**64 - 1]), LONGER)
OTHER = st.one_of(  # fields that are unknown, or known and of another kind
    st.builds(lambda n, value: varint(n << 3) + value, st.sampled_from([1, 2, 3, 9, 99, 2**29 - 1, 2**29]), NUMBER),
    st.builds(lambda n, data: field(n << 3 | 2, data), st.sampled_from([1, 7, 99]), st.binary(max_size=9)),
    st.sampled_from([b"\x19" + bytes(8), b"\x1d" + bytes(4), b"\x79" + bytes(7), b"\x7b\x7c", b"\x7b\x08\x01\x7c"]),
    st.sampled_from([b"\x7b", b"\x7c", b"\x0e", b"\x00\x01", b"\x02\x00", b"\x80"]),
)
SHAPE = st.lists(NUMBER, max_size=4).map(b"".join)
TENSOR = st.lists(
    st.one_of(
        st.builds(lambda width, value: varint(1 << 3, width) + value, WIDTH, NUMBER),
        st.builds(lambda width, value: varint(2 << 3, width) + value, WIDTH, NUMBER),
        st.builds(lambda value, *widths: field(18, value, *widths), SHAPE, WIDTH, LONGER),
        st.builds(lambda value, *widths: field(26, value, *widths), st.binary(), WIDTH, LONGER),
        OTHER,
    ),
    max_size=5,
).map(b"".join)
TEXT = st.sampled_from([b"", b"m/1", "é".encode(), b"\xff", b"\xed\xa0\x80", b"\xc0\x80"])
REQUEST = st.lists(
    st.one_of(
        st.builds(lambda value, *widths: field(10, value, *widths), TEXT, WIDTH, LONGER),
        st.builds(lambda value, *widths: field(18, value, *widths), st.binary(), WIDTH, LONGER),
        st.builds(lambda value, *widths: field(26, value, *widths), TENSOR, WIDTH, LONGER),
        OTHER,
    ),
    max_size=5,
).map(b"".join)


@settings(max_examples=500)
@given(REQUEST)
def test_fields_in_any_number_order_and_width_are_read_as_protobuf_reads_them(data: bytes) -> None:
    as_protobuf_reads_it(data)


@given(st.integers(0, 2**32 - 1), st.integers(0, 6))
def test_whatever_comes_is_read_as_protobuf_reads_it(seed: int, changes: int) -> None:
    draw, data = random.Random(seed), SOME
    for _ in range(changes):
        data = MUTATORS["codec"](data, draw)
    as_protobuf_reads_it(data)


@given(st.binary(max_size=40))
def test_noise_is_read_as_protobuf_reads_it(data: bytes) -> None:
    as_protobuf_reads_it(data)


TENSOR_2 = field(0x1A, b"\x08\x05\x12\x01\x04\x1a\x02no")
CAME = {
    "as it should be": (SOME, "read"),
    "nothing": (b"", "read"),
    "two tensors, which are one": (SOME + TENSOR_2, "read"),
    "an empty tensor after it": (SOME + b"\x1a\x00", "read"),
    "two lots of data": (field(0x1A, b"\x1a\x02no\x1a\x03yes"), "read"),
    "two names": (SOME + b"\x0a\x01x", "read"),
    "a shape one by one": (b"\x1a\x06\x10\x02\x10\x03\x12\x00", "read"),
    "a name of no text": (b"\x0a\x02\xff\xfe" + SOME, "refused"),
    "a tensor that goes on in the next": (b"\x1a\x01\x08\x1a\x01\x01", "refused"),
    "a tensor's data beyond its end": (b"\x1a\x02\x1a\x05hello", "refused"),
    "cut short": (SOME[:-1], "refused"),
    "a tag of six bytes": (b"\x9a\x80\x80\x80\x80\x00\x00", "refused"),
    "a length of six bytes": (b"\x1a\x80\x80\x80\x80\x80\x00", "read"),
    "a length of 65 bits": (b"\x1a" + b"\x82" + b"\x80" * 8 + b"\x02\x08\x05", "read"),
    "a number of eleven bytes": (b"\x08" + b"\xff" * 10 + b"\x01", "refused"),
    "field 0 in the tensor": (b"\x1a\x02\x00\x01", "refused"),
    "a group": (SOME + b"\x7b\x7c", "a group"),
    "a group in the tensor": (b"\x1a\x02\x7b\x7c", "a group"),
}


@pytest.mark.parametrize("name", CAME)
def test_merged_or_refused(name: str) -> None:
    data, came = CAME[name]
    assert as_protobuf_reads_it(data) == came


def large(request_id: bytes = bytes(16), **fields: str) -> bytes:
    return PredictRequest(request_id=request_id, inputs=encode(ROWS), **fields).SerializeToString()


def test_a_large_tensor_is_a_view() -> None:
    data = large(model="m/1")
    found = ReceivedRequest.FromString(data)
    assert found.data.obj is data
    assert (found.model, found.request_id, len(found.data)) == ("m/1", bytes(16), ROWS.nbytes)
    assert as_protobuf_reads_it(data) == "read"


def test_rows_are_where_they_came_or_aligned() -> None:
    """Of four lengths in a row one leaves float32 where numpy reads them at full speed; the others are copied once."""
    there = []
    for length in range(16, 20):
        data = large(bytes(length))
        found = ReceivedRequest.FromString(data)
        rows = decode(found.inputs, found.data)
        np.testing.assert_array_equal(rows, ROWS)
        assert rows.flags.aligned
        assert not rows.flags.writeable
        there.append(np.shares_memory(rows, np.frombuffer(data, np.uint8)))
    assert there.count(True) == 1


@pytest.mark.parametrize("dtype", ["<f2", "<f4", "<f8", "<i8"])
def test_numbers_at_an_odd_place(dtype: str) -> None:
    wanted = np.arange(5, dtype=dtype)
    for place in range(9):
        data = memoryview(bytes(place) + wanted.tobytes())[place:]
        found = view(data, wanted.dtype, (5,))
        assert found.flags.aligned
        np.testing.assert_array_equal(found, wanted)


AMOUNT = 1 << 17
EXCESS = {
    "a shape": field(0x1A, field(0x12, b"\x01" * AMOUNT)),
    "a name": field(0x0A, b"m" * AMOUNT),
    "an id": field(0x12, bytes(AMOUNT)),
    "a field of the future": field(0x7A, bytes(1 << 16)) + large(),
    "its numbers": b"\x78\x01" * 300 + large(),
    "tensors": b"\x1a\x00" * 300 + large(),
    "data": field(0x1A, b"\x1a\x00" * 300) + large(),
    "data in many tensors": b"\x1a\x04\x1a\x00\x1a\x00" * 150 + large(),
    "one more, and then noise": b"\x78\x01" * 257 + b"\xff" * AMOUNT,
}


@pytest.mark.parametrize("name", EXCESS)
def test_excess_is_not_parsed(name: str) -> None:
    found = ReceivedRequest.FromString(EXCESS[name])
    assert found.excessive
    assert (found.model, found.request_id, bytes(found.data), found.inputs.ByteSize()) == ("", b"", b"", 0)


def test_much_is_no_excess() -> None:
    assert as_protobuf_reads_it(field(0x7A, bytes((1 << 16) - 100)) + large()) == "read"
    assert as_protobuf_reads_it(b"\x78\x01" * 250 + large()) == "read"
    assert not ReceivedRequest.FromString(b"\x78\x01" * 300 + SOME).excessive  # a small one is protobuf's to read
