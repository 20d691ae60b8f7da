"""The way of a request without the wire: a real service, scheduler and ledger, a small model, one key."""

from __future__ import annotations

import asyncio
import hashlib
import tempfile
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from oracle_server.answering import Answering
from oracle_server.errors import Refusal
from oracle_server.hosted import Hosted, Models
from oracle_server.inputs import to_float32
from oracle_server.ledger import Key, SqliteLedger
from oracle_server.models.card import Card
from oracle_server.scheduler import Scheduler
from oracle_server.service import OracleService
from oracle_server.threat_model import Contract
from protos.codec import encode
from protos.mirage.v1 import oracle_pb2 as pb
from protos.request import ReceivedRequest

__all__ = [
    "ARCHIVE",
    "CARD",
    "FAILS",
    "MAX_ROWS",
    "PAYLOAD",
    "SlowLedger",
    "World",
    "inputs",
    "received",
    "request_id",
    "world",
]

ARCHIVE = b"archive" * 300_000  # more than one chunk of a download
PAYLOAD = ("uint8", "float16")
SHA256 = hashlib.sha256(ARCHIVE).hexdigest()
CARD = Card("m", "1", (3,), 0.0, 1.0, 4, 12, len(ARCHIVE), SHA256, "2.14.1", accepted_dtypes=PAYLOAD)
WEIGHTS = np.random.default_rng(0).normal(0, 3, (3, 4)).astype(np.float32)
MAX_ROWS = 5  # in one request
FAILS = 0.25


class Model:
    """Logits (N, 4) of rows (N, 3), to the bit the same in any pass; none for a row that starts with `FAILS`."""

    card, batch = CARD, 8

    def __init__(self) -> None:
        self.passes = 0

    def logits(self, requests: list[np.ndarray]) -> list[np.ndarray]:
        self.passes += 1
        values = [to_float32(rows, CARD) for rows in requests]
        return [np.where(rows[:, :1] == FAILS, np.nan, (rows[:, :, None] * WEIGHTS).sum(1)) for rows in values]


class SlowLedger(SqliteLedger):
    """Takes its time to commit, so that what does not wait for it is seen."""

    def _commit(self, batch: list[Any]) -> None:
        threading.Event().wait(0.003)
        super()._commit(batch)


@dataclass
class World:
    """A service with one key, and everything that the key got."""

    ledger: SqliteLedger
    key: Key
    model: Model
    hosted: dict[str, Hosted]
    service: OracleService
    answering: Answering
    scheduler: Scheduler
    answers: list[tuple[bytes, int, pb.PredictResponse]] = field(default_factory=list)
    refusals: list[tuple[bytes, int, Refusal]] = field(default_factory=list)

    async def ask(self, request_id: bytes, payload: int, rows: int = 1) -> pb.PredictResponse | Refusal | None:
        """One call; `payload` decides the bytes. What comes back is kept, and None is a call that was cancelled."""
        return await self.send(pb.PredictRequest(request_id=request_id, inputs=encode(inputs(payload, rows))), payload)

    async def send(self, request: pb.PredictRequest, payload: int = 0) -> pb.PredictResponse | Refusal | None:
        try:
            response = await self.service.predict(received(request), self.key)
        except Refusal as refusal:
            self.refusals.append((request.request_id, payload, refusal))
            return refusal
        except asyncio.CancelledError:
            return None
        logged = {entry.request_id for entry in self.ledger.entries()}
        assert request.request_id in logged, "answered before it was on disk"
        self.answers.append((request.request_id, payload, response))
        return response


def inputs(payload: int, rows: int = 1) -> np.ndarray:
    """Legal rows (N, 3) that differ from one payload to the next."""
    return np.random.default_rng(payload).uniform(0.3, 1, (rows, 3)).astype(np.float32)


def received(request: pb.PredictRequest) -> ReceivedRequest:
    """A request as it comes out of the guard."""
    return ReceivedRequest.FromString(request.SerializeToString())


def request_id(n: int) -> bytes:
    return n.to_bytes(16, "big")


@asynccontextmanager
async def world(
    contract: Contract, *, ledger: type[SqliteLedger] = SqliteLedger, folder: Path | None = None
) -> AsyncIterator[World]:
    """A service that hosts m/1 for one key; with `folder`, on the ledger that another world left there."""
    with tempfile.TemporaryDirectory(prefix="mw") as fresh:
        opened = ledger((folder or Path(fresh)) / "l.db")
        key = Key("k", "", "m/1", contract, bytes(32), 0.0)
        if opened.key("k") is None:
            opened.add_key(key)
        archive = Path(fresh) / "model.pt2"
        archive.write_bytes(ARCHIVE)
        model = Model()
        scheduler = Scheduler(model, max_waiting=1000)  # type: ignore[arg-type]
        hosted = {"m/1": Hosted(CARD, archive, scheduler, MAX_ROWS)}
        answering = Answering(opened)
        service = OracleService(opened, Models(hosted), answering)
        made = World(opened, key, model, hosted, service, answering, scheduler)
        try:
            yield made
        finally:
            await made.answering.drain()
            await scheduler.close()
            opened.close()
