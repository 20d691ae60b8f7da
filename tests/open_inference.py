"""The Open Inference Protocol as bare messages: requests, answers, receipts."""

from __future__ import annotations

from typing import Any

import numpy as np

from protos.codec import decode
from protos.inference import open_inference_pb2 as v2
from protos.inference.codec import datatype, dtype_name
from protos.inference.open_inference_pb2_grpc import GRPCInferenceServiceStub
from protos.mirage.v1 import oracle_pb2 as pb
from tests.serving import Caller

__all__ = ["INFER", "arrays", "assert_same", "infer", "named", "receipt", "request", "stub"]

INFER = "/inference.GRPCInferenceService/ModelInfer"
_CONTENTS = {"float32": "fp32_contents", "uint8": "uint_contents"}


def stub(caller: Caller) -> GRPCInferenceServiceStub:
    return GRPCInferenceServiceStub(caller.server.channel)


def request(rows: np.ndarray, request_id: str = "", *, typed: bool = False, **fields: Any) -> v2.ModelInferRequest:
    """Rows for `linear`, as raw contents, or `typed`: one by one; other fields of the message as they are given."""
    tensor = v2.ModelInferRequest.InferInputTensor(name="input", datatype=datatype(rows.dtype), shape=rows.shape)
    made = v2.ModelInferRequest(**{"model_name": "linear", "id": request_id, "inputs": [tensor], **fields})
    if typed:
        getattr(made.inputs[0].contents, _CONTENTS[rows.dtype.name]).extend(rows.ravel().tolist())
    else:
        made.raw_input_contents.append(rows.tobytes())
    return made


def infer(caller: Caller, asked: v2.ModelInferRequest) -> v2.ModelInferResponse:
    answer: v2.ModelInferResponse = stub(caller).ModelInfer(asked, metadata=caller.metadata, timeout=30)
    return answer


def named(response: v2.ModelInferResponse) -> dict[str, np.ndarray]:
    """Outputs by name."""
    assert len(response.outputs) == len(response.raw_output_contents) > 0
    return {
        tensor.name: np.frombuffer(data, dtype_name(tensor.datatype)).reshape(tensor.shape)
        for tensor, data in zip(response.outputs, response.raw_output_contents, strict=True)
    }


def receipt(response: v2.ModelInferResponse) -> dict[str, int | str]:
    """Parameters by name."""
    return {
        name: getattr(value, str(value.WhichOneof("parameter_choice"))) for name, value in response.parameters.items()
    }


def arrays(response: pb.PredictResponse) -> dict[str, np.ndarray]:
    """What a Predict released, by the names of the other protocol."""
    kind = response.WhichOneof("answer")
    if kind == "top_k":
        return {"indices": decode(response.top_k.indices), "values": decode(response.top_k.values)}
    return {{"labels": "label"}.get(str(kind), str(kind)): decode(getattr(response, str(kind)))}


def assert_same(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> None:
    """Names, dtypes, shapes and bits."""
    assert list(one) == list(other)
    for name, array in one.items():
        assert (array.dtype, array.shape) == (other[name].dtype, other[name].shape)
        assert array.tobytes() == other[name].tobytes()
