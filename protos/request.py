"""A `PredictRequest` as the server reads it: the bytes of a large tensor stay where they came in."""

from __future__ import annotations

from dataclasses import dataclass

from protos.fields import Excess, split, tag
from protos.mirage.v1.oracle_pb2 import PredictRequest
from protos.mirage.v1.tensor_pb2 import Tensor

__all__ = ["ReceivedRequest"]

_INPUTS, _DATA = tag(PredictRequest, "inputs"), tag(Tensor, "data")
_SMALL = 1 << 17  # bytes that protobuf parses and copies sooner than they are taken apart
_BESIDE = 1 << 16  # bytes beside a tensor's; as a shape they become eight times as many


@dataclass(slots=True)
class ReceivedRequest:
    """What protobuf makes of the same bytes; of more than 128 KiB, without its copies of the tensor's data.

    inputs     dtype and shape
    data       the tensor's data
    excessive  of more than 128 KiB, over 64 KiB or 256 fields are not its data: nobody has read it, and all is empty
    """

    model: str
    request_id: bytes
    inputs: Tensor
    data: memoryview
    excessive: bool = False

    DESCRIPTOR = PredictRequest.DESCRIPTOR

    @classmethod
    def FromString(cls, data: bytes) -> ReceivedRequest:  # noqa: N802 - as a message of protobuf
        """`DecodeError` for bytes that are no such message."""
        if len(data) <= _SMALL:
            message = PredictRequest.FromString(data)
            return cls(message.model, message.request_id, message.inputs, memoryview(message.inputs.data))
        try:
            tensors, others = split((data,), _INPUTS, _BESIDE)
            contents, header = split(tensors, _DATA, _BESIDE)
        except Excess:
            return cls("", b"", Tensor(), memoryview(b""), True)
        message, inputs = PredictRequest.FromString(others), Tensor.FromString(header)
        return cls(message.model, message.request_id, inputs, contents[-1] if contents else memoryview(b""))
