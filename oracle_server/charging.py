"""The charge of one request, from the rows that are held for it to the line in the ledger."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from oracle_server.arrivals import Arrivals
from oracle_server.errors import Reason, Refusal
from oracle_server.hosted import Hosted
from oracle_server.ledger import Charge, Key, Ledger
from protos.codec import digest, raw, wire_dtype

__all__ = ["AT_ONCE", "Charging", "Question"]

AT_ONCE = 1 << 18  # bytes that are hashed sooner than a thread wakes up


@dataclass(frozen=True, eq=False)
class Question:
    """A request that was found good: rows (N, *input_shape) for the model of a key, under an id that the key gives to
    no other request; `rpc` is what the ledger calls it.
    """

    key: Key
    hosted: Hosted
    request_id: bytes
    inputs: np.ndarray
    rpc: str = "Predict"


class Charging:
    """The charge of one request: reserved, then started when its forward pass begins, then durable; or a retry, and
    free. `new` is told of a charge that was started.
    """

    def __init__(
        self, ledger: Ledger, question: Question, arrivals: Arrivals, new: Callable[[asyncio.Task[Charge]], None]
    ) -> None:
        self._ledger = ledger
        self._question = question
        self._arrivals = arrivals
        self._new = new
        self.task: asyncio.Task[Charge] | None = None  # of a charge that was started
        self._retry: Charge | None = None
        self.started = False

    async def begin(self) -> None:
        """Hold the rows, or recognise a retry; a used id with other bytes is refused here, before any model runs."""
        key, request_id = self._question.key, self._question.request_id
        entry = self._ledger.known(key.key_id, request_id)
        if entry is None:
            self._reservation = self._ledger.reserve(key, request_id, len(self._question.inputs))
            return
        if (entry.model, entry.digest) != (key.model, await self._digest()):
            raise Refusal(Reason.ID_REUSED, "this request id was used for other bytes: take a new id")
        self._retry = Charge(0, self._ledger.usage(key.key_id).spent, entry.sequence, entry.link)

    def start(self) -> None:
        """Write the charge; its rows have gone into a forward pass."""
        self.started = True
        if self._retry is None:
            self.task = asyncio.create_task(self._charge())
            self._new(self.task)

    def abandon(self) -> None:
        """Give the reservation back if the forward pass never began."""
        if not self.started and self._retry is None:
            self._ledger.cancel(self._reservation)

    async def done(self) -> Charge:
        """The charge, once it is durable."""
        if self.task is not None:
            return await asyncio.shield(self.task)  # who lets go of the answer does not take back the charge
        assert self._retry is not None
        return self._retry

    async def _charge(self) -> Charge:
        digest = await self._digest()
        return await self._arrivals.of(self._ledger.charge(self._reservation, self._question.rpc, digest))

    async def _digest(self) -> bytes:
        inputs = self._question.inputs
        parts = str((wire_dtype(inputs.dtype), *inputs.shape)).encode(), raw(inputs)
        if inputs.nbytes <= AT_ONCE:
            return digest(*parts)
        return await asyncio.to_thread(digest, *parts)
