"""Arrays survive the wire, and no header is believed."""

from __future__ import annotations

import re
from collections.abc import Callable

import numpy as np
import pytest
from blake3 import blake3
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from protos.codec import MAX_DIMENSIONS, CodecError, decode, digest, dtype_name, encode, wire_dtype
from protos.mirage.v1 import tensor_pb2 as pb

SHAPES = hnp.array_shapes(min_dims=0, max_dims=MAX_DIMENSIONS, min_side=0, max_side=3)
ARRAYS = st.sampled_from(["<f4", ">f4", "<f8", ">f8", "<i8", ">i8", "u1", "<f2", ">f2"]).flatmap(
    lambda d: hnp.arrays(d, SHAPES)
)


@given(ARRAYS, st.sampled_from(["as it is", "transposed", "every other"]))
def test_arrays_of_any_kind_and_memory_order_come_back(array: np.ndarray, how: str) -> None:
    if how == "transposed":
        array = array.T
    elif how == "every other" and array.ndim:
        array = array[::2]
    tensor = pb.Tensor.FromString(encode(array).SerializeToString())
    back = decode(tensor)
    assert back.shape == array.shape
    assert back.dtype == array.dtype.newbyteorder("<")
    np.testing.assert_array_equal(back, array)  # NaN where NaN was
    assert len(tensor.data) == array.nbytes
    assert dtype_name(tensor.dtype) == array.dtype.newbyteorder("=").name


def test_bytes_are_little_endian_rows() -> None:
    tensor = encode(np.array([[1, 2], [3, 4]], dtype=">i8"))
    assert (tensor.dtype, list(tensor.shape)) == (pb.DTYPE_INT64, [2, 2])
    assert tensor.data == b"".join(n.to_bytes(8, "little") for n in (1, 2, 3, 4))


def test_a_decoded_array_is_a_read_only_view() -> None:
    array = decode(encode(np.ones((3, 2), dtype=np.float32)))
    assert not array.flags.writeable
    assert not array.flags.owndata
    with pytest.raises(ValueError, match="read-only"):
        array[0, 0] = 2
    with pytest.raises(ValueError, match="WRITEABLE"):
        array.flags.writeable = True


def tensor(dtype: int, shape: tuple[int, ...], size: int) -> pb.Tensor:
    return pb.Tensor(dtype=dtype, shape=shape, data=bytes(size))


LIES = [
    (tensor(0, (1,), 4), "tensor dtype is unknown to this version"),
    (tensor(99, (1,), 4), "tensor dtype is unknown to this version"),
    (tensor(1, (2,), 7), "tensor header asks for 8 bytes but 7 came"),
    (tensor(1, (2,), 12), "tensor header asks for 8 bytes but 12 came"),
    (tensor(1, (), 0), "tensor header asks for 4 bytes but 0 came"),
    (tensor(2, (2,), 8), "tensor header asks for 16 bytes but 8 came"),
    (tensor(4, (3,), 2), "tensor header asks for 3 bytes but 2 came"),
    (tensor(5, (3,), 3), "tensor header asks for 6 bytes but 3 came"),
    (tensor(4, (0,), 1), "tensor header asks for 0 bytes but 1 came"),
    (tensor(1, (-1,), 4), "tensor has a negative dimension"),
    (tensor(1, (-1, -1), 4), "tensor has a negative dimension"),
    (tensor(1, (-1, 0), 0), "tensor has a negative dimension"),
    (tensor(4, (1,) * 9, 1), "tensor has 9 dimensions; at most 8 are read"),
    (tensor(1, (2**40,), 4), "tensor header asks for 4398046511104 bytes but 4 came"),
    (tensor(4, (2**62, 4, 2**62), 0), f"tensor header asks for {2**126} bytes but 0 came"),  # 0 modulo 2**64
    (tensor(1, (2**62, 0, 2**62), 0), "tensor dimension is larger than any array"),
]


@pytest.mark.parametrize(("lie", "sentence"), LIES)
def test_a_header_that_lies_is_refused(lie: pb.Tensor, sentence: str) -> None:
    with pytest.raises(CodecError, match=f"^{re.escape(sentence)}$"):
        decode(lie)


@given(
    st.integers(-1, 7),
    st.lists(st.integers(-2, 4) | st.integers(-(2**63), 2**63 - 1), max_size=10).map(tuple),
    st.integers(0, 64),
)
def test_any_header_gives_its_array_or_a_codec_error(dtype: int, shape: tuple[int, ...], size: int) -> None:
    message = tensor(dtype, shape, size)
    try:
        array = decode(message)
    except CodecError:
        return
    assert array.shape == shape
    assert array.nbytes == size


@pytest.mark.parametrize("dtype", ["bool", "u2", "i4", "c8", "U3", "O", "M8[s]"])
def test_other_dtypes_do_not_travel(dtype: str) -> None:
    with pytest.raises(CodecError, match="does not travel; use one of"):
        encode(np.zeros(2, dtype=dtype))
    with pytest.raises(CodecError, match="does not travel"):
        wire_dtype(dtype)


def test_an_unknown_code_has_no_name() -> None:
    assert dtype_name(99) == "unknown"  # type: ignore[arg-type]


def check_digest(digest: Callable[..., bytes], one: list[bytes], other: list[bytes]) -> None:
    """Lists of parts share a digest only when they are equal."""
    assert (digest(*one) == digest(*other)) == (one == other)


PARTS = st.lists(st.binary(max_size=3), max_size=4)
SAME_BYTES = [([b"ab", b"c"], [b"a", b"bc"]), ([b"", b"a"], [b"a", b""]), ([b"a"], [b"a", b""]), ([], [b""])]


@given(PARTS, PARTS)
def test_a_digest_tells_parts_apart(one: list[bytes], other: list[bytes]) -> None:
    check_digest(digest, one, other)
    assert len(digest(*one)) == 32
    for parts in SAME_BYTES:
        check_digest(digest, *parts)
    cut = b"".join(one)
    check_digest(digest, one, [cut[:2], cut[2:]])
    assert digest(*one) == digest(*map(memoryview, one))


@pytest.mark.parametrize(("one", "other"), SAME_BYTES)
def test_a_digest_of_the_bytes_alone_is_caught(one: list[bytes], other: list[bytes]) -> None:
    with pytest.raises(AssertionError):
        check_digest(lambda *parts: blake3(b"".join(parts)).digest(), one, other)
