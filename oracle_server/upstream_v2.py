"""A V2 (Open Inference Protocol) server as the upstream of a model: what its metadata say, and one pass of rows."""

from __future__ import annotations

import math
import urllib.parse
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import grpc
import numpy as np

from oracle_server.models.proxied import Away
from oracle_server.upstream import Upstream
from protos.inference import open_inference_pb2 as v2
from protos.inference.open_inference_pb2_grpc import GRPCInferenceServiceStub
from protos.transport import is_loopback, read_authorities

__all__ = ["V2Model"]

_NUMBERS: dict[str, np.dtype[Any]] = {"FP16": np.dtype("<f2"), "FP32": np.dtype("<f4"), "FP64": np.dtype("<f8")}
_TYPED = {"FP32": "fp32_contents", "FP64": "fp64_contents"}  # half precision has no field
_AWAY = (  # whatever rows are sent, so that it is no use to send them one by one
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.CANCELLED,
    grpc.StatusCode.UNAUTHENTICATED,
    grpc.StatusCode.PERMISSION_DENIED,
    grpc.StatusCode.NOT_FOUND,
    grpc.StatusCode.UNIMPLEMENTED,
)


class V2Model:
    """The model of one --upstream on its server, which is asked for its metadata at once.

    shape  of one row
    batch  rows that it takes in one pass: 1, or None for any number

    Raises `Away` when the server does not answer in time, `ValueError` with one sentence for what cannot be proxied.
    """

    def __init__(self, upstream: Upstream, message_bytes: int) -> None:
        self._said = upstream
        place = urllib.parse.urlsplit(upstream.address)
        model, _, version = place.path.removeprefix("/").partition("/")
        if not (place.netloc and model) or "/" in version:
            raise ValueError(f"{upstream.address}: write grpc://HOST:PORT/MODEL or grpc://HOST:PORT/MODEL/VERSION")
        self._name, self._version = urllib.parse.unquote(model), urllib.parse.unquote(version)
        self._metadata = [] if upstream.key_file is None else [("authorization", f"Bearer {_key(upstream.key_file)}")]
        self._stub = GRPCInferenceServiceStub(_channel(upstream, place, message_bytes))
        self._learn(self._described())

    def _described(self) -> v2.ModelMetadataResponse:
        asked = v2.ModelMetadataRequest(name=self._name, version=self._version)
        wait = {"timeout": self._said.timeout, "metadata": self._metadata, "wait_for_ready": True}
        try:
            described: v2.ModelMetadataResponse = self._stub.ModelMetadata(asked, **wait)
        except grpc.RpcError as error:
            if error.code() is not grpc.StatusCode.UNIMPLEMENTED:
                raise Away(f"{self._said.address} does not answer ({_words(error)})") from error
            described = v2.ModelMetadataResponse()  # then everything has to be said on the command line
        return described

    def _learn(self, described: v2.ModelMetadataResponse) -> None:
        said = self._said
        tensor = _chosen(said, "input", described.inputs)
        self._input, self._datatype = tensor.name, tensor.datatype or "FP32"
        if self._datatype not in _NUMBERS or (said.contents == "typed" and self._datatype not in _TYPED):
            numbers = _TYPED if said.contents == "typed" else _NUMBERS
            raise ValueError(f"{said.address} takes {self._datatype}: only {', '.join(numbers)} can be proxied")
        first, row = tuple(tensor.shape[:1]), tuple(tensor.shape[1:])
        if said.shape is None and not (row and min(row) > 0):
            raise ValueError(f"{said.address} does not say what a row is ({list(tensor.shape)}): add ?shape=1,112,92")
        self.shape: tuple[int, ...] = said.shape or row
        fixed = len(first) == 1 and len(row) == len(self.shape) and first[0] > 0
        if fixed and first[0] != 1:
            raise ValueError(f"{said.address} takes exactly {first[0]} rows at once: let it take any number, or one")
        self.batch = 1 if fixed else None
        self._output = _chosen(said, "output", described.outputs).name if described.outputs else said.output

    def __call__(self, rows: np.ndarray) -> np.ndarray:
        """Answers (N, C) to rows (N, *shape)."""
        tensor = v2.ModelInferRequest.InferInputTensor(name=self._input, datatype=self._datatype, shape=rows.shape)
        request = v2.ModelInferRequest(model_name=self._name, model_version=self._version, inputs=[tensor])
        numbers = np.ascontiguousarray(rows, dtype=_NUMBERS[self._datatype])
        if self._said.contents == "raw":
            request.raw_input_contents.append(numbers.tobytes())
        else:
            getattr(request.inputs[0].contents, _TYPED[self._datatype]).extend(numbers.ravel().tolist())
        if self._output:
            request.outputs.add(name=self._output)
        try:
            response = self._stub.ModelInfer(request, timeout=self._said.timeout, metadata=self._metadata)
        except grpc.RpcError as error:
            if error.code() in _AWAY:
                raise Away(f"{self._said.address} does not answer ({_words(error)})") from error
            raise ValueError(_words(error)) from error
        return self._read(response)

    def _read(self, response: v2.ModelInferResponse) -> np.ndarray:
        """The array that was asked for; `ValueError` when it is not there, or not as long as it says."""
        found = [n for n, tensor in enumerate(response.outputs) if self._output in ("", tensor.name)]
        if len(found) != 1:
            names = ", ".join(tensor.name for tensor in response.outputs) or "nothing"
            raise ValueError(f"it answered {names}: choose one with ?output=NAME")
        tensor = response.outputs[found[0]]
        dtype = _NUMBERS.get(tensor.datatype)
        if dtype is None:
            raise ValueError(f"its output {tensor.name} is {tensor.datatype}: scores are needed, FP16, FP32 or FP64")
        if response.raw_output_contents:
            data = response.raw_output_contents[found[0]] if found[0] < len(response.raw_output_contents) else b""
            numbers = np.frombuffer(data[: len(data) - len(data) % dtype.itemsize], dtype)
        else:
            numbers = np.array(getattr(tensor.contents, _TYPED.get(tensor.datatype, "fp32_contents")), dtype)
        if min(tensor.shape, default=0) < 0 or math.prod(tensor.shape) != len(numbers):
            raise ValueError(f"it answered {len(numbers)} numbers for the shape {list(tensor.shape)}")
        return numbers.reshape(tuple(tensor.shape))


def _chosen(
    said: Upstream, which: str, tensors: Iterable[v2.ModelMetadataResponse.TensorMetadata]
) -> v2.ModelMetadataResponse.TensorMetadata:
    """The tensor that the command line names, or the only one."""
    name: str = getattr(said, which)
    listed = list(tensors)
    if not listed:
        if not name:
            raise ValueError(f"{said.address} does not say what its {which}s are: add ?{which}=NAME")
        return v2.ModelMetadataResponse.TensorMetadata(name=name)
    found = [tensor for tensor in listed if name in ("", tensor.name)]
    if len(found) != 1:
        names = ", ".join(tensor.name for tensor in listed)
        raise ValueError(f"{said.address} has the {which}s {names}: choose one with ?{which}=NAME")
    return found[0]


def _channel(said: Upstream, place: urllib.parse.SplitResult, message_bytes: int) -> grpc.Channel:
    sizes = [(f"grpc.max_{way}_message_length", message_bytes) for way in ("send", "receive")]
    again = [("grpc.initial_reconnect_backoff_ms", 100), ("grpc.max_reconnect_backoff_ms", 1000)]  # for it comes back
    options: list[tuple[str, int]] = [*sizes, *again]
    if place.scheme == "grpcs":
        authorities = None if said.ca is None else read_authorities(said.ca)
        return grpc.secure_channel(place.netloc, grpc.ssl_channel_credentials(authorities), options)
    if said.ca is not None:
        raise ValueError(f"{said.address} is plain text and has no use for ca={said.ca}: write grpcs://")
    if is_loopback(place.hostname or ""):
        return grpc.insecure_channel(place.netloc, [*options, ("grpc.enable_http_proxy", 0)])
    if not said.plain_text_beyond_loopback:
        raise ValueError(
            f"{said.address} is not on loopback and rows would travel in plain text: write grpcs://"
            " (or add ?plain-text-beyond-loopback=yes, behind something that encrypts)"
        )
    return grpc.insecure_channel(place.netloc, options)


def _key(path: Path) -> str:
    key = (path.read_text().splitlines() or [""])[0].strip()
    if not (key and key.isascii() and key.isprintable()):
        raise ValueError(f"{path} holds no key in its first line")
    return key


def _words(error: grpc.RpcError) -> str:
    """What an operator may read of a failed call, and nobody else."""
    return f"{error.code().name}: {(error.details() or 'no reason given').splitlines()[0][:200]}"
