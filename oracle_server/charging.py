"""The charge of one request, from the rows that are held for it to the line in the ledger."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass

import numpy as np

from oracle_server.arrivals import Arrivals
from oracle_server.errors import Reason, Refusal
from oracle_server.hosted import Hosted
from oracle_server.ledger import Charge, Key, Ledger
from protos.codec import digest, raw, wire_dtype

__all__ = ["Charging", "Question"]


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
        self, ledger: Ledger, question: Question, arrivals: Arrivals, new: Callable[[asyncio.Future[Charge]], None]
    ) -> None:
        self._ledger = ledger
        self._question = question
        self._arrivals = arrivals
        self._new = new
        self._written: Future[Charge] | None = None
        self.charge: asyncio.Future[Charge] | None = None  # that was started, as the loop waits for it
        self._retry: Charge | None = None
        self.started = False

    async def begin(self) -> None:
        """Hold the rows, or recognise a retry; a used id with other bytes is refused here, before any model runs."""
        key, request_id = self._question.key, self._question.request_id
        entry = self._ledger.known(key.key_id, request_id)
        if entry is None:
            self._reservation = self._ledger.reserve(key, request_id, len(self._question.inputs))
            return
        same = entry.model == key.model and entry.digest == await asyncio.to_thread(self._digest)
        if not same:
            raise Refusal(Reason.ID_REUSED, "this request id was used for other bytes: take a new id")
        self._retry = Charge(0, self._ledger.usage(key.key_id).spent, entry.sequence, entry.link)

    def start(self) -> None:
        """Write the charge, in any thread; its rows are about to go into a forward pass."""
        self.started = True
        if self._retry is None:
            self._written = self._ledger.charge(self._reservation, self._question.rpc, self._digest)

    def begun(self) -> None:
        """After that, on the event loop."""
        if self._written is not None:
            self.charge = self._arrivals.of(self._written)
            self._new(self.charge)

    def abandon(self) -> None:
        """Give the reservation back if the forward pass never began."""
        if not self.started and self._retry is None:
            self._ledger.cancel(self._reservation)

    async def done(self) -> Charge:
        """The charge, once it is durable."""
        if self.charge is not None:
            return await asyncio.shield(self.charge)  # who lets go of the answer does not take back the charge
        assert self._retry is not None
        return self._retry

    def _digest(self) -> bytes:
        inputs = self._question.inputs
        return digest(str((wire_dtype(inputs.dtype), *inputs.shape)).encode(), raw(inputs))
