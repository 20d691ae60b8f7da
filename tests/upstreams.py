"""V2 (Open Inference Protocol) servers of the tests' own, on loopback: they stand for models that run elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field

import grpc
import numpy as np

from protos.inference import open_inference_pb2 as v2
from protos.inference.open_inference_pb2_grpc import (
    GRPCInferenceServiceServicer,
    add_GRPCInferenceServiceServicer_to_server,
)
from tests.hosted import softmax_regression

__all__ = ["SHAPE", "Served", "V2Server", "probabilities", "upstream"]

SHAPE = (1, 8, 6)
_DTYPES = {"FP16": np.float16, "FP32": np.float32, "FP64": np.float64, "INT64": np.int64}
_TYPED = {"FP32": "fp32_contents", "FP64": "fp64_contents", "INT64": "int64_contents"}


def probabilities(rows: np.ndarray) -> np.ndarray:
    """Of five classes (N, 5), those of the model `linear`, in float64."""
    linear = softmax_regression()[1]
    weight, bias = (p.detach().double().numpy() for p in (linear.weight, linear.bias))
    z = rows.reshape(len(rows), -1).astype(np.float64) @ weight.T + bias
    e = np.exp(z - z.max(axis=1, keepdims=True))
    return np.asarray(e / e.sum(axis=1, keepdims=True))


@dataclass
class Served:
    """A model of a V2 server, and the batches that it was asked. `answer` may raise `ValueError`: a refusal's text.

    typed  answers travel number by number, not as raw bytes; most: rows that it takes at once
    said   the shape that it says an answer has, where that is not the answer's own
    keys   what came as authorization
    """

    answer: Callable[[np.ndarray], np.ndarray] = probabilities
    inputs: tuple[tuple[str, str, tuple[int, ...]], ...] = (("x", "FP32", (-1, *SHAPE)),)
    outputs: tuple[tuple[str, str, tuple[int, ...]], ...] = (("p", "FP32", (-1, 5)),)
    typed: bool = False
    most: int = 1 << 30
    said: tuple[int, ...] | None = None
    asked: list[np.ndarray] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)


class V2Server(GRPCInferenceServiceServicer):
    """Serves `models` by name; may be stopped, and started again on its port."""

    def __init__(self, models: dict[str, Served], credentials: grpc.ServerCredentials | None = None) -> None:
        self.models, self._credentials = models, credentials
        self.port = 0
        self.start()

    def start(self) -> None:
        self._server = grpc.server(ThreadPoolExecutor(4), options=[("grpc.so_reuseport", 0)])
        add_GRPCInferenceServiceServicer_to_server(self, self._server)
        place = f"127.0.0.1:{self.port}"
        if self._credentials is None:
            self.port = self._server.add_insecure_port(place)
        else:
            self.port = self._server.add_secure_port(place, self._credentials)
        self._server.start()

    def stop(self) -> None:
        self._server.stop(0).wait()

    def url(self, model: str, scheme: str = "grpc", host: str = "127.0.0.1") -> str:
        return f"{scheme}://{host}:{self.port}/{model}"

    def ModelMetadata(  # noqa: N802 - as the protocol calls it
        self, request: v2.ModelMetadataRequest, context: grpc.ServicerContext
    ) -> v2.ModelMetadataResponse:
        served = self._served(request.name, context)
        described = v2.ModelMetadataResponse(name=request.name)
        for which, tensors in ((described.inputs, served.inputs), (described.outputs, served.outputs)):
            for name, datatype, shape in tensors:
                which.add(name=name, datatype=datatype, shape=shape)
        return described

    def ModelInfer(  # noqa: N802
        self, request: v2.ModelInferRequest, context: grpc.ServicerContext
    ) -> v2.ModelInferResponse:
        served = self._served(request.model_name, context)
        (tensor,) = request.inputs
        dtype = _DTYPES[tensor.datatype]
        if request.raw_input_contents:
            rows = np.frombuffer(request.raw_input_contents[0], dtype).reshape(tensor.shape)
        else:
            rows = np.array(getattr(tensor.contents, _TYPED[tensor.datatype]), dtype).reshape(tensor.shape)
        served.asked.append(rows)
        if len(rows) > served.most:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, f"at most {served.most} rows")
        try:
            answer = served.answer(rows)
        except ValueError as error:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
        response = v2.ModelInferResponse(model_name=request.model_name)
        wanted = [output.name for output in request.outputs]
        for name, datatype, _ in served.outputs or (("p", "FP32", ()),):
            if wanted and name not in wanted:
                continue
            values = answer.astype(_DTYPES[datatype])
            out = response.outputs.add(
                name=name, datatype=datatype, shape=values.shape if served.said is None else served.said
            )
            if served.typed:
                getattr(out.contents, _TYPED[datatype]).extend(values.ravel().tolist())
            else:
                response.raw_output_contents.append(values.tobytes())
        return response

    def _served(self, name: str, context: grpc.ServicerContext) -> Served:
        if name not in self.models:
            context.abort(grpc.StatusCode.NOT_FOUND, f"no model {name}")
        served = self.models[name]
        served.keys += [str(value) for key, value in context.invocation_metadata() if key == "authorization"]
        return served


@contextmanager
def upstream(credentials: grpc.ServerCredentials | None = None, **models: Served) -> Iterator[V2Server]:
    """A V2 server while the block runs."""
    server = V2Server(models, credentials)
    try:
        yield server
    finally:
        server.stop()
