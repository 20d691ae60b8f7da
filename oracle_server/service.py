"""The Oracle's RPCs, one method each. The guard has parsed the request and knows the key before any of these runs.

The way of a Predict: decode and validate -> admit (queue, rate, budget reserved in memory) -> forward pass and
durable charge, side by side -> release -> answer, when both are done.
"""

from __future__ import annotations

import asyncio
import hashlib
import secrets
from collections.abc import AsyncIterator, Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from weakref import WeakValueDictionary

import numpy as np

from defenses.response import defend
from oracle_server.capacity import capacity_bits
from oracle_server.contracts import contract_message
from oracle_server.detections import Watch
from oracle_server.errors import Reason, Refusal
from oracle_server.inputs import decode_inputs
from oracle_server.ledger import Charge, Key, Ledger
from oracle_server.models.card import Card
from oracle_server.rates import Rates
from oracle_server.scheduler import Scheduler
from oracle_server.threat_model import Released, release, release_values
from protos.codec import digest, encode, raw
from protos.mirage.v1 import oracle_pb2 as pb

__all__ = ["Hosted", "OracleService", "usage_message"]

_CHUNK = 1 << 20
_DAMAGED = "the files of the model {} are damaged on the server: tell the operator"
_AT_ONCE = 1 << 18  # bytes that are hashed sooner than a thread wakes up
_DOWNLOADS = 4  # of one key that hold a file and a chunk of it, though nobody takes it; more of them wait


@dataclass(frozen=True)
class Hosted:
    """A model that is being served."""

    card: Card
    archive: Path
    scheduler: Scheduler
    max_rows: int


class OracleService:
    """Handlers of `mirage.v1.Oracle`; `hosted` maps `name/version` to its model, `broken` are those that lie here and
    cannot be served.
    """

    def __init__(self, ledger: Ledger, hosted: dict[str, Hosted], broken: Collection[str] = ()) -> None:
        self._ledger = ledger
        self._hosted = hosted
        self._broken = broken
        self._rates = Rates()
        self._watch = Watch(ledger)
        self._in_flight: dict[tuple[str, bytes], asyncio.Task[pb.PredictResponse]] = {}
        self._charges: set[asyncio.Task[Charge]] = set()  # on their way to the disk
        self._downloads: WeakValueDictionary[str, asyncio.Semaphore] = WeakValueDictionary()

    def _model(self, key: Key, asked: str) -> Hosted:
        if asked not in ("", key.model, key.model.rpartition("/")[0]):
            raise Refusal(Reason.OTHER_MODEL, f"this key is for the model {key.model} and no other")
        hosted = self._hosted.get(key.model)
        if key.model in self._broken:
            raise Refusal(Reason.MODEL_UNAVAILABLE, _DAMAGED.format(key.model))
        if hosted is None:
            raise Refusal(Reason.NO_MODEL, f"the model {key.model} of this key is not served here: tell the operator")
        return hosted

    async def describe(self, request: pb.DescribeRequest, key: Key) -> pb.DescribeResponse:
        hosted = self._model(key, request.model)
        spent = self._ledger.usage(key.key_id).spent
        return pb.DescribeResponse(
            range_marker=hosted.card.range_marker,
            card=hosted.card.message(),
            contract=contract_message(key.contract),
            budget_left=_left(key, spent),
            spent=spent,
            max_rows=hosted.max_rows,
        )

    async def predict(self, request: pb.PredictRequest, key: Key) -> pb.PredictResponse:
        hosted = self._model(key, request.model)
        inputs = decode_inputs(request, hosted.card, hosted.max_rows)
        await self._watch.admit(key, len(inputs))
        pair = (key.key_id, request.request_id)
        while (first := self._in_flight.get(pair)) is not None:  # the same id again: after the first, as its retry
            await asyncio.wait([first])
        hosted.scheduler.admit(key.key_id, len(inputs))
        self._rates.take(key, len(inputs))
        charging = _Charging(
            self._ledger, key, request, inputs, lambda charge: self._charged(key, hosted.card, inputs, charge)
        )
        await charging.begin(len(inputs))
        task = asyncio.create_task(self._answer(hosted, key, request, inputs, charging))
        self._in_flight[pair] = task
        task.add_done_callback(lambda done: self._finish(pair, done, charging))
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            if not charging.started:  # the caller left before it was charged; otherwise the charge runs to its end
                task.cancel()
            raise

    def _charged(self, key: Key, card: Card, inputs: np.ndarray, charge: asyncio.Task[Charge]) -> None:
        self._charges.add(charge)
        charge.add_done_callback(self._charge_done)
        self._watch.look(key, card, inputs, charge)

    def _charge_done(self, charge: asyncio.Task[Charge]) -> None:
        self._charges.discard(charge)
        if not charge.cancelled():
            charge.exception()  # whoever waits for the answer has it, unless its caller left

    async def _answer(
        self, hosted: Hosted, key: Key, request: pb.PredictRequest, inputs: np.ndarray, charging: _Charging
    ) -> pb.PredictResponse:
        try:
            logits = await hosted.scheduler.logits(key.key_id, inputs, charging.start)
        except Refusal as refusal:
            raise Refusal(refusal.reason, refusal.sentence, charged=(await charging.done()).rows) from None
        charge = await charging.done()
        if hosted.card.kind in ("regression", "features"):
            response = _response(release_values(logits, key.contract, hosted.card.groups))
        else:
            response = _response(await self._release(logits, key, request, inputs))
        response.receipt.CopyFrom(
            pb.Receipt(
                rows_charged=charge.rows,
                spent=charge.spent,
                budget_left=_left(key, charge.spent),
                sequence=charge.sequence,
                head=charge.head,
            )
        )
        return response

    async def _release(self, logits: np.ndarray, key: Key, request: pb.PredictRequest, inputs: np.ndarray) -> Released:
        """A classifier's logits as the contract lets them out; beside the loop where defences hash many inputs."""
        secret = self._ledger.server_secret
        seed, keyed_seed = (secret, key.key_id.encode(), request.request_id), (secret, key.model.encode())
        applied = defend(key.contract.defences, seed, keyed_seed, inputs)
        if not key.contract.defences or inputs.nbytes <= _AT_ONCE:
            return release(logits, key.contract, applied)
        return await asyncio.to_thread(release, logits, key.contract, applied)

    def _finish(self, pair: tuple[str, bytes], task: asyncio.Task[pb.PredictResponse], charging: _Charging) -> None:
        charging.abandon()
        if self._in_flight.get(pair) is task:
            del self._in_flight[pair]
        if not task.cancelled():
            task.exception()  # the handler has it, unless its caller left

    async def download(self, request: pb.DownloadRequest, key: Key) -> AsyncIterator[pb.DownloadChunk]:
        hosted = self._model(key, request.model)
        hashes = {"": hosted.card.archive_sha256} | {part.name: part.sha256 for part in hosted.card.parts}
        if request.archive not in hashes:
            raise Refusal(Reason.NO_MODEL, "this model has no such archive: see the card's list of archives")
        sha256 = bytes.fromhex(hashes[request.archive])
        path = hosted.archive.with_name(f"{request.archive}.pt2") if request.archive else hosted.archive
        async with self._downloads.setdefault(key.key_id, asyncio.Semaphore(_DOWNLOADS)):
            try:
                file = path.open("rb")
            except OSError as error:
                raise Refusal(Reason.MODEL_UNAVAILABLE, _DAMAGED.format(key.model)) from error
            with file:
                reservation = self._ledger.reserve(key, secrets.token_bytes(16), 0)
                await asyncio.wrap_future(self._ledger.charge(reservation, "Download", sha256))
                offset, found = 0, hashlib.sha256()
                while data := await asyncio.to_thread(file.read, _CHUNK):
                    found.update(data)
                    yield pb.DownloadChunk(data=data, offset=offset)
                    offset += len(data)
            if found.digest() != sha256:  # changed since the server was started
                raise Refusal(Reason.MODEL_UNAVAILABLE, _DAMAGED.format(key.model))
            yield pb.DownloadChunk(offset=offset, sha256=sha256)

    async def usage(self, request: pb.UsageRequest, key: Key) -> pb.UsageResponse:
        return usage_message(self._ledger, key, self._model(key, request.model).card)

    async def settle(self) -> None:
        """Wait until detectors have looked at what was asked so far."""
        await self._watch.settle()

    async def drain(self) -> None:
        """Let go of calls whose callers are gone. What was charged for them is on disk on return, and a retry will have
        its answer.
        """
        for task in self._in_flight.values():
            task.cancel()
        for left in (self._in_flight.values, self._charges.copy):
            while waiting := list(left()):
                await asyncio.wait(waiting)
        await self._watch.drain()


def usage_message(ledger: Ledger, key: Key, card: Card) -> pb.UsageResponse:
    """What a key has spent, and the capacity of what it was given."""
    usage = ledger.usage(key.key_id)
    return pb.UsageResponse(
        key_id=key.key_id,
        model=key.model,
        spent=usage.spent,
        budget_left=_left(key, usage.spent),
        capacity_bits=capacity_bits(key.contract, card, usage.spent, usage.downloads),
        downloads=usage.downloads,
    )


class _Charging:
    """The charge of one request: reserved, then started when its forward pass begins, then durable; or a retry, and
    free. `new` is told of a charge that was started.
    """

    def __init__(
        self,
        ledger: Ledger,
        key: Key,
        request: pb.PredictRequest,
        inputs: np.ndarray,
        new: Callable[[asyncio.Task[Charge]], None],
    ) -> None:
        self._ledger = ledger
        self._key = key
        self._request = request
        self._inputs = inputs
        self._new = new
        self._task: asyncio.Task[Charge] | None = None
        self._retry: Charge | None = None
        self.started = False

    async def begin(self, rows: int) -> None:
        """Hold the rows, or recognise a retry; a used id with other bytes is refused here, before any model runs."""
        entry = self._ledger.known(self._key.key_id, self._request.request_id)
        if entry is None:
            self._reservation = self._ledger.reserve(self._key, self._request.request_id, rows)
            return
        if (entry.model, entry.digest) != (self._key.model, await self._digest()):
            raise Refusal(Reason.ID_REUSED, "this request id was used for other bytes: take a new id")
        self._retry = Charge(0, self._ledger.usage(self._key.key_id).spent, entry.sequence, entry.link)

    def start(self) -> None:
        self.started = True
        if self._retry is None:
            self._task = asyncio.create_task(self._charge())
            self._new(self._task)

    def abandon(self) -> None:
        """Give the reservation back if the forward pass never began."""
        if not self.started and self._retry is None:
            self._ledger.cancel(self._reservation)

    async def done(self) -> Charge:
        """The charge, once it is durable."""
        if self._task is not None:
            return await asyncio.shield(self._task)  # who lets go of the answer does not take back the charge
        assert self._retry is not None
        return self._retry

    async def _charge(self) -> Charge:
        digest = await self._digest()
        return await asyncio.wrap_future(self._ledger.charge(self._reservation, "Predict", digest))

    async def _digest(self) -> bytes:
        parts = str((self._request.inputs.dtype, *self._inputs.shape)).encode(), raw(self._inputs)
        if self._inputs.nbytes <= _AT_ONCE:
            return digest(*parts)
        return await asyncio.to_thread(digest, *parts)


def _left(key: Key, spent: int) -> int | None:
    """What the key has left; none where the operator raised its budget and others spent it while this call ran."""
    return None if key.contract.budget is None else max(0, key.contract.budget - spent)


def _response(released: Released) -> pb.PredictResponse:
    if released.labels is not None:
        return pb.PredictResponse(labels=encode(released.labels))
    if released.numbers is not None:
        return pb.PredictResponse(values=encode(released.numbers))
    if released.scores is not None:
        return pb.PredictResponse(scores=encode(released.scores))
    assert released.indices is not None
    assert released.values is not None
    return pb.PredictResponse(top_k=pb.TopK(indices=encode(released.indices), values=encode(released.values)))
