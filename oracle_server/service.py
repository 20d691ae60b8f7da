"""The Oracle's RPCs, one method each. The guard has parsed the request and knows the key before any of these runs."""

from __future__ import annotations

import asyncio
import hashlib
import secrets
from collections.abc import AsyncIterator
from weakref import WeakValueDictionary

from oracle_server.answering import Answer, Answering, budget_left
from oracle_server.capacity import capacity_bits
from oracle_server.charging import Question
from oracle_server.contracts import contract_message
from oracle_server.errors import Reason, Refusal
from oracle_server.hosted import DAMAGED, Models
from oracle_server.inputs import decode_inputs
from oracle_server.ledger import Key, Ledger
from oracle_server.models.card import Card
from oracle_server.threat_model import Released
from protos.codec import encode
from protos.mirage.v1 import oracle_pb2 as pb
from protos.request import ReceivedRequest

__all__ = ["OracleService", "usage_message"]

_CHUNK = 1 << 20
_DOWNLOADS = 4  # of one key that hold a file and a chunk of it, though nobody takes it; more of them wait


class OracleService:
    """Handlers of `mirage.v1.Oracle`."""

    def __init__(self, ledger: Ledger, models: Models, answering: Answering) -> None:
        self._ledger = ledger
        self._models = models
        self._answering = answering
        self._downloads: WeakValueDictionary[str, asyncio.Semaphore] = WeakValueDictionary()

    async def describe(self, request: pb.DescribeRequest, key: Key) -> pb.DescribeResponse:
        hosted = self._models.of(key, request.model)
        spent = self._ledger.usage(key.key_id).spent
        return pb.DescribeResponse(
            range_marker=hosted.card.range_marker,
            card=hosted.card.message(),
            contract=contract_message(key.contract),
            budget_left=budget_left(key, spent),
            spent=spent,
            max_rows=hosted.max_rows,
        )

    async def predict(self, request: ReceivedRequest, key: Key) -> pb.PredictResponse:
        hosted = self._models.of(key, request.model)
        inputs = decode_inputs(request, hosted.card, hosted.max_rows)
        return _response(await self._answering.answer(Question(key, hosted, request.request_id, inputs)), key)

    async def download(self, request: pb.DownloadRequest, key: Key) -> AsyncIterator[pb.DownloadChunk]:
        hosted = self._models.of(key, request.model)
        hashes = {"": hosted.card.archive_sha256} | {part.name: part.sha256 for part in hosted.card.parts}
        if request.archive not in hashes:
            raise Refusal(Reason.NO_MODEL, "this model has no such archive: see the card's list of archives")
        sha256 = bytes.fromhex(hashes[request.archive])
        path = hosted.archive.with_name(f"{request.archive}.pt2") if request.archive else hosted.archive
        async with self._downloads.setdefault(key.key_id, asyncio.Semaphore(_DOWNLOADS)):
            try:
                file = path.open("rb")
            except OSError as error:
                raise Refusal(Reason.MODEL_UNAVAILABLE, DAMAGED.format(key.model)) from error
            with file:
                reservation = self._ledger.reserve(key, secrets.token_bytes(16), 0)
                await asyncio.wrap_future(self._ledger.charge(reservation, "Download", sha256))
                offset, found = 0, hashlib.sha256()
                while data := await asyncio.to_thread(file.read, _CHUNK):
                    found.update(data)
                    yield pb.DownloadChunk(data=data, offset=offset)
                    offset += len(data)
            if found.digest() != sha256:  # changed since the server was started
                raise Refusal(Reason.MODEL_UNAVAILABLE, DAMAGED.format(key.model))
            yield pb.DownloadChunk(offset=offset, sha256=sha256)

    async def usage(self, request: pb.UsageRequest, key: Key) -> pb.UsageResponse:
        return usage_message(self._ledger, key, self._models.of(key, request.model).card)


def usage_message(ledger: Ledger, key: Key, card: Card) -> pb.UsageResponse:
    """What a key has spent, and the capacity of what it was given."""
    usage = ledger.usage(key.key_id)
    return pb.UsageResponse(
        key_id=key.key_id,
        model=key.model,
        spent=usage.spent,
        budget_left=budget_left(key, usage.spent),
        capacity_bits=capacity_bits(key.contract, card, usage.spent, usage.downloads),
        downloads=usage.downloads,
    )


def _response(answer: Answer, key: Key) -> pb.PredictResponse:
    charge = answer.charge
    receipt = pb.Receipt(
        rows_charged=charge.rows,
        spent=charge.spent,
        budget_left=budget_left(key, charge.spent),
        sequence=charge.sequence,
        head=charge.head,
    )
    return _answer_message(answer.released, receipt)


def _answer_message(released: Released, receipt: pb.Receipt) -> pb.PredictResponse:
    if released.labels is not None:
        return pb.PredictResponse(labels=encode(released.labels), receipt=receipt)
    if released.numbers is not None:
        return pb.PredictResponse(values=encode(released.numbers), receipt=receipt)
    if released.scores is not None:
        return pb.PredictResponse(scores=encode(released.scores), receipt=receipt)
    assert released.indices is not None
    assert released.values is not None
    top_k = pb.TopK(indices=encode(released.indices), values=encode(released.values))
    return pb.PredictResponse(top_k=top_k, receipt=receipt)
