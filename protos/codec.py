"""Arrays on the wire: `numpy.ndarray` <-> `mirage.v1.Tensor`.

A `Tensor` is a dtype, a shape and one run of little-endian bytes. `decode` believes nothing that the header says: the
byte count must follow from the shape, and nothing is allocated for what the header claims (the array is a read-only
view of the bytes that came).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from blake3 import blake3
from google.protobuf.message import Message

from protos.fields import tag
from protos.mirage.v1.tensor_pb2 import (
    DTYPE_FLOAT16,
    DTYPE_FLOAT32,
    DTYPE_FLOAT64,
    DTYPE_INT64,
    DTYPE_UINT8,
    DType,
    Tensor,
)

__all__ = [
    "MAX_DIMENSIONS",
    "CodecError",
    "decode",
    "digest",
    "dtype_name",
    "encode",
    "raw",
    "serialize",
    "view",
    "wire_dtype",
]

MAX_DIMENSIONS = 8

_NUMPY: dict[DType, np.dtype[np.generic]] = {
    DTYPE_FLOAT32: np.dtype("<f4"),
    DTYPE_FLOAT64: np.dtype("<f8"),
    DTYPE_INT64: np.dtype("<i8"),
    DTYPE_UINT8: np.dtype("u1"),
    DTYPE_FLOAT16: np.dtype("<f2"),
}
_WIRE: dict[np.dtype[np.generic], DType] = {dtype: code for code, dtype in _NUMPY.items()}


class CodecError(ValueError):
    """A tensor whose header and bytes do not fit together; the message says how, in fixed words and numbers."""


def wire_dtype(dtype: np.dtype[np.generic] | type[np.generic] | str) -> DType:
    """The wire's name of a numpy dtype, whatever its byte order; `CodecError` for one that does not travel."""
    code = _WIRE.get(np.dtype(dtype).newbyteorder("<"))
    if code is None:
        raise CodecError(f"dtype {np.dtype(dtype)} does not travel; use one of {[str(d) for d in _WIRE]}")
    return code


def dtype_name(code: DType) -> str:
    """The numpy name of a wire dtype, "float32" for example; "unknown" for a code that this version does not know."""
    dtype = _NUMPY.get(code)
    return "unknown" if dtype is None else dtype.name


def encode(array: np.ndarray) -> Tensor:
    """An array of any memory order as a `Tensor`; one copy of its bytes."""
    code = wire_dtype(array.dtype)
    little_endian = np.ascontiguousarray(array, dtype=_NUMPY[code])
    return Tensor(dtype=code, shape=array.shape, data=little_endian.tobytes())


def raw(array: np.ndarray) -> memoryview:
    """The bytes of an array as they travel: a view, unless its memory has another order."""
    little_endian = np.ascontiguousarray(array, dtype=_NUMPY[wire_dtype(array.dtype)])
    return little_endian.reshape(-1).view(np.uint8).data


def serialize(message: Message, field: str, array: np.ndarray) -> bytes:
    """`message` with `array` in its `Tensor` field `field`, as bytes.

    The same as `SerializeToString` when `field` has the highest number of those that are set, but the array's bytes are
    copied once, where protobuf copies them four times into fresh memory.
    """
    data = raw(array)
    tensor = Tensor(dtype=wire_dtype(array.dtype), shape=array.shape).SerializeToString()
    tensor += _prefix(Tensor, "data", len(data))
    head = message.SerializeToString() + _prefix(type(message), field, len(tensor) + len(data))
    return b"".join((head, tensor, data))


def _prefix(message: type[Message], field: str, length: int) -> bytes:
    """What stands before a field of `length` bytes: its number and wire type, then the length as a varint."""
    prefix = bytearray((tag(message, field),))
    while length > 0x7F:
        prefix.append(length & 0x7F | 0x80)
        length >>= 7
    prefix.append(length)
    return bytes(prefix)


def decode(tensor: Tensor, data: memoryview | None = None) -> np.ndarray:
    """The array of a `Tensor`: a read-only view of its bytes, as protobuf hands them out, or of `data` in their place.

    Raises `CodecError` when the dtype is unknown, and for what `view` refuses.
    """
    dtype = _NUMPY.get(tensor.dtype)
    if dtype is None:
        raise CodecError("tensor dtype is unknown to this version")
    # protobuf hands out a new copy of the data at each access
    return view(tensor.data if data is None else data, dtype, tensor.shape)


def view(data: bytes | memoryview, dtype: np.dtype[np.generic], shape: Sequence[int]) -> np.ndarray:
    """Bytes as an array of a shape that somebody claims: a view of them, or of a copy where they lie at an address that
    is no multiple of the item's size, where numpy takes twice as long.

    Raises `CodecError` when a dimension is negative, there are more than `MAX_DIMENSIONS`, or the number of bytes is
    not what the shape asks for.
    """
    if len(shape) > MAX_DIMENSIONS:
        raise CodecError(f"tensor has {len(shape)} dimensions; at most {MAX_DIMENSIONS} are read")
    shape = tuple(shape)
    if any(n < 0 for n in shape):
        raise CodecError("tensor has a negative dimension")
    needed = math.prod(shape) * dtype.itemsize  # Python integers: no overflow to hide behind
    if needed != len(data):
        raise CodecError(f"tensor header asks for {needed} bytes but {len(data)} came")
    flat = np.frombuffer(data, dtype=dtype)
    if not flat.flags.aligned:
        flat = np.frombuffer(bytes(data), dtype=dtype)
    try:
        return flat.reshape(shape)
    except ValueError as error:  # a zero dimension beside one that no array can have
        raise CodecError("tensor dimension is larger than any array") from error


def digest(*parts: bytes | memoryview) -> bytes:
    """32 bytes of BLAKE3 over the parts, each preceded by its length, so that no two lists of parts share a digest."""
    state = blake3()
    for part in parts:
        state.update(len(part).to_bytes(8, "little"))
        state.update(part)
    return state.digest()
