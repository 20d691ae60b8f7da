"""What the Open Inference Protocol carries: bytes -> request, and `numpy.ndarray` <-> its tensors.

Values travel as raw little-endian bytes, or one by one in the field of their type (`contents`). As in `protos.codec`,
nothing that a header says is believed, and an array is a view of the bytes that came.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from google.protobuf.message import DecodeError

from protos.codec import CodecError, raw, view
from protos.inference import open_inference_pb2 as pb

__all__ = ["InferRequest", "datatype", "decode", "dtype_name", "encode"]

# Of each datatype: how numpy reads its bytes, and the field of `contents` for its values; half precision has none.
_DATATYPES: dict[str, tuple[np.dtype[np.generic], str]] = {
    "FP16": (np.dtype("<f2"), ""),
    "FP32": (np.dtype("<f4"), "fp32_contents"),
    "FP64": (np.dtype("<f8"), "fp64_contents"),
    "INT64": (np.dtype("<i8"), "int64_contents"),
    "UINT8": (np.dtype("u1"), "uint_contents"),
}
_NAMES = {dtype: name for name, (dtype, _) in _DATATYPES.items()}
_RAW = pb.ModelInferRequest.DESCRIPTOR.fields_by_name["raw_input_contents"].number << 3 | 2  # the tag before each

# What a request may have beside raw contents: every two bytes of it may become a hundred of memory when it is parsed.
_FIELDS = 256
_BYTES = 4 << 20


@dataclass(frozen=True)
class InferRequest:
    """A `ModelInferRequest` whose raw contents are views of the bytes that it came in: protobuf would copy them twice.

    message    everything else; empty when that is `excessive`
    raw        raw_input_contents
    excessive  beside raw contents there are more than 256 fields or 4 MiB, and nobody has read them
    """

    message: pb.ModelInferRequest
    raw: list[memoryview]
    excessive: bool

    DESCRIPTOR = pb.ModelInferRequest.DESCRIPTOR

    @classmethod
    def FromString(cls, data: bytes) -> InferRequest:  # noqa: N802 - as a message of protobuf
        """`DecodeError` for bytes that are no such message."""
        contents: list[memoryview] = []
        rest: list[memoryview] = []
        whole, start = memoryview(data), 0
        while start < len(data) and len(contents) + len(rest) < _FIELDS:
            tag, place = _varint(data, start)
            end = _end(data, place, tag & 7)
            if tag == _RAW:
                contents.append(whole[_varint(data, place)[1] : end])
            else:
                rest.append(whole[start:end])
            start = end
        if start < len(data) or sum(map(len, rest)) > _BYTES:
            return cls(pb.ModelInferRequest(), [], True)
        return cls(pb.ModelInferRequest.FromString(b"".join(rest)), contents, False)


def _end(data: bytes, place: int, kind: int) -> int:
    """Where the field ends whose value begins at `place`."""
    if kind == 0:
        end = _varint(data, place)[1]
    elif kind == 2:
        length, place = _varint(data, place)
        end = place + length
    elif kind in (1, 5):
        end = place + (8 if kind == 1 else 4)
    else:
        raise DecodeError("a group, or no known kind of field")
    if end > len(data):
        raise DecodeError("cut short")
    return end


def _varint(data: bytes, place: int) -> tuple[int, int]:
    """The number at `place`, and where it ends."""
    number = 0
    for shift in range(0, 70, 7):
        if place == len(data):
            break
        byte = data[place]
        number, place = number | (byte & 0x7F) << shift, place + 1
        if byte < 0x80:
            return number, place
    raise DecodeError("a number without end")


def datatype(dtype: np.dtype[np.generic] | str) -> str:
    """The protocol's name of a numpy dtype: "FP32" for float32."""
    return _NAMES[np.dtype(dtype).newbyteorder("<")]


def dtype_name(name: str) -> str:
    """The numpy name of a datatype, the other way round; "unknown" for one that is not read here."""
    return _DATATYPES[name][0].name if name in _DATATYPES else "unknown"


def decode(tensor: pb.ModelInferRequest.InferInputTensor, data: memoryview | None = None) -> np.ndarray:
    """The array of a tensor of a datatype that `dtype_name` knows: a view of `data`, its raw contents if it has some.

    Raises `CodecError` when values came in both ways, in the field of another type, or do not fit into theirs, and for
    what `protos.codec.view` refuses.
    """
    dtype, field = _DATATYPES[tensor.datatype]
    if data is None:
        data = memoryview(_bytes(tensor.contents, dtype, field))
    elif tensor.HasField("contents"):
        raise CodecError("values came twice, raw and one by one: send raw_input_contents alone")
    return view(data, dtype, tensor.shape)


def _bytes(contents: pb.InferTensorContents, dtype: np.dtype[np.generic], field: str) -> bytes:
    """Values that came one by one, as they would have come raw."""
    if any(descriptor.name != field for descriptor, _ in contents.ListFields()):
        raise CodecError(f"values came in the field of another type: send {field or 'raw_input_contents'}")
    values = getattr(contents, field, ())
    if dtype.kind == "f":  # they lie in the message as they do in an array, which is fifty times as fast to read
        contents.DiscardUnknownFields()
        return contents.SerializeToString()[-dtype.itemsize * len(values) :] if values else b""
    try:
        return np.fromiter(values, dtype, len(values)).tobytes()
    except OverflowError:
        raise CodecError(f"a value does not fit into {dtype}") from None


def encode(name: str, array: np.ndarray) -> tuple[pb.ModelInferResponse.InferOutputTensor, bytes]:
    """An array of any memory order as an output of that name, and its raw contents; one copy."""
    tensor = pb.ModelInferResponse.InferOutputTensor(name=name, datatype=datatype(array.dtype), shape=array.shape)
    return tensor, raw(array).tobytes()
