"""What the Open Inference Protocol carries: bytes -> request, and `numpy.ndarray` <-> its tensors.

Values travel as raw little-endian bytes, or one by one in the field of their type (`contents`). As in `protos.codec`,
nothing that a header says is believed, and an array is a view of the bytes that came.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from protos.codec import CodecError, raw, view
from protos.fields import Excess, split, tag
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
_RAW = tag(pb.ModelInferRequest, "raw_input_contents")
_BYTES = 4 << 20  # beside raw contents: every two of them may become a hundred bytes of memory when they are parsed


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
        try:
            contents, others = split((data,), _RAW, _BYTES)
        except Excess:
            return cls(pb.ModelInferRequest(), [], True)
        return cls(pb.ModelInferRequest.FromString(others), contents, False)


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
