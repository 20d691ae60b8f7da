"""The Open Inference Protocol (KServe V2) for clients that others wrote: handlers of `inference.GRPCInferenceService`,
beside `mirage.v1.Oracle` and behind the same guard, contract and ledger.

    id           a UUID in its usual form, 8-4-4-4-12, is the id of the request, by its 16 bytes: the same again is a
                 retry, free, as the same 16 bytes in a Predict would be. Any other, and the UUID of zeros, is only sent
                 back, since many clients count or repeat themselves: then each call is a request, and charged.
    input        one, named "input": rows in a datatype of the card; raw, or one by one in the field of their type
    outputs      by contract: "label"; "scores"; "indices" and "values"; "values" of a regression or of features; raw.
                 A request may ask for some of them by name. What is charged is the rows.
    parameters   of a request are ignored, as by other servers, but those that would ask for another answer (`_REFUSED`)
                 are refused. Those of a response are the receipt: rows_charged, spent, budget_left (if there is a
                 budget), sequence, and head, in hex.

Live, ready and the server's metadata are for anybody, and say nothing of any model.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterable
from importlib.metadata import version
from uuid import UUID

import numpy as np

from oracle_server.answering import Answer, Answering, budget_left
from oracle_server.charging import Question
from oracle_server.errors import Reason, Refusal
from oracle_server.hosted import Hosted, Models
from oracle_server.inputs import check_dtype, check_rows
from oracle_server.ledger import Key
from oracle_server.models.card import Card
from oracle_server.threat_model import Contract, Released, release, release_values
from protos.codec import CodecError
from protos.inference import open_inference_pb2 as pb
from protos.inference.codec import InferRequest, datatype, decode, dtype_name, encode

__all__ = ["OpenInference"]

_INPUT = "input"
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)
_LONGEST_ID = 1024  # letters, since it is sent back beside an answer that may fill a message
_REFUSED = (  # who sends one of these parameters counts on more than an answer to the rows at hand
    "sequence_id", "sequence_start", "sequence_end",
    "shared_memory_region", "shared_memory_offset", "shared_memory_byte_size",
    "classification",
)  # fmt: skip

Metadata = pb.ModelMetadataResponse.TensorMetadata


class OpenInference:
    """Handlers of `inference.GRPCInferenceService`. `ready` is False from the moment the server was told to stop."""

    def __init__(self, models: Models, answering: Answering) -> None:
        self.ready = True
        self._models = models
        self._answering = answering

    async def server_live(self, request: pb.ServerLiveRequest, _: None) -> pb.ServerLiveResponse:
        return pb.ServerLiveResponse(live=True)

    async def server_ready(self, request: pb.ServerReadyRequest, _: None) -> pb.ServerReadyResponse:
        return pb.ServerReadyResponse(ready=self.ready)

    async def server_metadata(self, request: pb.ServerMetadataRequest, _: None) -> pb.ServerMetadataResponse:
        return pb.ServerMetadataResponse(name="oracle-server", version=version("mirage-range"))

    async def model_ready(self, request: pb.ModelReadyRequest, key: Key) -> pb.ModelReadyResponse:
        try:
            self._hosted(key, request.name, request.version)
        except Refusal as refusal:
            if refusal.reason is Reason.OTHER_MODEL:
                raise
            return pb.ModelReadyResponse(ready=False)
        return pb.ModelReadyResponse(ready=self.ready)

    async def model_metadata(self, request: pb.ModelMetadataRequest, key: Key) -> pb.ModelMetadataResponse:
        card = self._hosted(key, request.name, request.version).card
        outputs = _outputs(card, key.contract)
        return pb.ModelMetadataResponse(
            name=card.name,
            versions=[card.version],
            platform=f"mirage_{card.kind}",
            inputs=[Metadata(name=_INPUT, datatype=datatype(card.input_dtype), shape=(-1, *card.input_shape))],
            outputs=[
                Metadata(name=name, datatype=datatype(array.dtype), shape=(-1, *array.shape[1:]))
                for name, array in outputs.items()
            ],
        )

    async def model_infer(self, request: InferRequest, key: Key) -> pb.ModelInferResponse:
        message = request.message
        hosted = self._hosted(key, message.model_name, message.model_version)
        request_id = _request_id(message.id)
        inputs = _rows(request, hosted)
        asked = {output.name for output in message.outputs}
        there = _outputs(hosted.card, key.contract) if asked else {}
        if not asked <= set(there):
            raise Refusal(
                Reason.BAD_INPUT,
                f"an output was asked for that is not released: this key's contract gives {' and '.join(there)}",
            )
        question = Question(key, hosted, request_id, inputs, "ModelInfer")
        answer = await self._answering.answer(question)
        response = pb.ModelInferResponse(
            model_name=hosted.card.name,
            model_version=hosted.card.version,
            id=message.id,
            parameters=_receipt(answer, key),
        )
        for name, array in _named(answer.released).items():
            if not asked or name in asked:
                tensor, data = encode(name, array)
                response.outputs.append(tensor)
                response.raw_output_contents.append(data)
        return response

    def _hosted(self, key: Key, name: str, version: str) -> Hosted:
        return self._models.of(key, f"{name}/{version}" if version else name)


def _request_id(said: str) -> bytes:
    """16 bytes: those of a UUID, or else drawn afresh."""
    if len(said) > _LONGEST_ID:
        raise Refusal(Reason.BAD_INPUT, f"the id has {len(said)} letters: send at most {_LONGEST_ID}")
    if _UUID.fullmatch(said) and (chosen := UUID(said)).int:
        return chosen.bytes
    return secrets.token_bytes(16)


def _rows(request: InferRequest, hosted: Hosted) -> np.ndarray:
    """The rows (N, *shape) of a request, a view of its bytes, or a `Refusal` that says what to send instead."""
    message, raw, card = request.message, request.raw, hosted.card
    if request.excessive:
        raise Refusal(
            Reason.BAD_INPUT, "the request has too much beside raw_input_contents: send the values there, and no more"
        )
    if len(message.inputs) != 1 or message.inputs[0].name != _INPUT or len(raw) > 1:
        raise Refusal(Reason.BAD_INPUT, f"the model has one input: send one, and name it '{_INPUT}'")
    tensor = message.inputs[0]
    _check_parameters(message.parameters, tensor.parameters, *(output.parameters for output in message.outputs))
    check_dtype(dtype_name(tensor.datatype), card)
    try:
        inputs = decode(tensor, raw[0] if raw else None)
    except CodecError as error:
        raise Refusal(Reason.BAD_INPUT, str(error)) from None
    check_rows(inputs, card, hosted.max_rows)
    return inputs


def _check_parameters(*of_each: Iterable[str]) -> None:
    for name in _REFUSED:
        if any(name in parameters for parameters in of_each):
            raise Refusal(
                Reason.BAD_INPUT,
                f"there are no sequences, shared memory or classification here: leave the parameter {name} out",
            )


def _outputs(card: Card, contract: Contract) -> dict[str, np.ndarray]:
    """What the contract releases of one row, by name: of zeros, which stand for the model's own answer."""
    zeros = np.zeros((1, card.width))
    if card.kind in ("regression", "features"):
        return _named(release_values(zeros, contract, card.groups))
    return _named(release(zeros, contract, defend=lambda scores: scores))


def _named(released: Released) -> dict[str, np.ndarray]:
    arrays = {
        "label": released.labels,
        "scores": released.scores,
        "indices": released.indices,
        "values": released.values if released.numbers is None else released.numbers,
    }
    return {name: array for name, array in arrays.items() if array is not None}


def _receipt(answer: Answer, key: Key) -> dict[str, pb.InferParameter]:
    charge = answer.charge
    numbers = {
        "rows_charged": charge.rows,
        "spent": charge.spent,
        "budget_left": budget_left(key, charge.spent),
        "sequence": charge.sequence,
    }
    receipt = {name: pb.InferParameter(int64_param=n) for name, n in numbers.items() if n is not None}
    return receipt | {"head": pb.InferParameter(string_param=charge.head.hex())}
