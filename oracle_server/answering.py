"""From a good request to its answer, whatever protocol it came by:

admit (queue, rate, budget reserved in memory) -> forward pass and durable charge, side by side -> release,
when both are done
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

import numpy as np

from defenses.response import defend
from oracle_server.arrivals import Arrivals
from oracle_server.charging import Charging, Question
from oracle_server.detections import Watch
from oracle_server.errors import Refusal
from oracle_server.inputs import to_float32
from oracle_server.ledger import Charge, Key, Ledger
from oracle_server.logs import call_under_way
from oracle_server.metrics import UNCOUNTED, Metrics
from oracle_server.rates import Rates
from oracle_server.threat_model import Released, release, release_values

__all__ = ["Answer", "Answering", "budget_left"]

_AT_ONCE = 1 << 18  # bytes of inputs that are hashed sooner than a thread wakes up


@dataclass(frozen=True)
class Answer:
    """What leaves, and what was charged for it."""

    released: Released
    charge: Charge


class _Flight:
    """A question under way: the task of its caller, and when it has ended, its charge too."""

    def __init__(self) -> None:
        task = asyncio.current_task()
        assert task is not None
        self.task = task
        self.ended: asyncio.Future[None] = task.get_loop().create_future()


def budget_left(key: Key, spent: int) -> int | None:
    """What the key has left; none where the operator raised its budget and others spent it while this call ran."""
    return None if key.contract.budget is None else max(0, key.contract.budget - spent)


class Answering:
    """Answers to the questions of all keys. Questions that are asked again, by their key and id, follow the first."""

    def __init__(self, ledger: Ledger, metrics: Metrics = UNCOUNTED) -> None:
        self._ledger = ledger
        self._metrics = metrics
        self._rates = Rates()
        self._watch = Watch(ledger)
        self._arrivals = Arrivals()
        self._in_flight: dict[tuple[str, bytes], _Flight] = {}

    async def answer(self, question: Question) -> Answer:
        """The answer, once its charge is durable; a `Refusal` says whether it was charged all the same.

        Cancelled before its first row went into a pass, a question costs nothing; after that its charge runs to its
        end.
        """
        key, rows = question.key, len(question.inputs)
        if (call := call_under_way()) is not None:
            call.request_id, call.rows = question.request_id, rows
        await self._watch.admit(key, rows)
        pair = (key.key_id, question.request_id)
        while (first := self._in_flight.get(pair)) is not None:  # the same id again: after the first, as its retry
            await asyncio.wait([first.ended])
        question.hosted.scheduler.admit(key.key_id, rows)
        self._rates.take(key, rows)
        charging = Charging(self._ledger, question, self._arrivals, lambda charge: self._charged(question, charge))
        await charging.begin()
        self._in_flight[pair] = flight = _Flight()
        try:
            return await self._answer(question, charging)
        finally:
            charging.abandon()
            if charging.charge is None or charging.charge.done():
                self._end(pair, flight)
            else:
                charging.charge.add_done_callback(lambda _: self._end(pair, flight))

    def _end(self, pair: tuple[str, bytes], flight: _Flight) -> None:
        if self._in_flight.get(pair) is flight:
            del self._in_flight[pair]
        flight.ended.set_result(None)

    def _charged(self, question: Question, charge: asyncio.Future[Charge]) -> None:
        charge.add_done_callback(lambda done: done.exception())  # taken note of here, in case that its caller has left
        self._watch.look(question.key, question.hosted.card, question.inputs, charge)

    async def _answer(self, question: Question, charging: Charging) -> Answer:
        card, key = question.hosted.card, question.key
        try:
            logits = await question.hosted.scheduler.logits(key.key_id, question.inputs, charging.start, charging.begun)
        except Refusal as refusal:
            raise Refusal(refusal.reason, refusal.sentence, charged=(await charging.done()).rows) from None
        charge = await charging.done()
        if not charge.rows:
            self._metrics.retried(key.model)
        if card.kind in ("regression", "features"):
            return Answer(release_values(logits, key.contract, card.groups), charge)
        return Answer(await self._release(logits, question), charge)

    async def _release(self, logits: np.ndarray, question: Question) -> Released:
        """A classifier's logits as the contract lets them out; beside the loop where defences hash many inputs."""
        key, card, secret = question.key, question.hosted.card, self._ledger.server_secret
        if not key.contract.defences:
            return release(logits, key.contract)
        seed, keyed_seed = (secret, key.key_id.encode(), question.request_id), (secret, key.model.encode())

        def defended() -> Released:
            values = to_float32(question.inputs, card)  # the same draw for the same image in any dtype
            return release(logits, key.contract, defend(key.contract.defences, seed, keyed_seed, values))

        return defended() if 4 * question.inputs.size <= _AT_ONCE else await asyncio.to_thread(defended)

    async def settle(self) -> None:
        """Wait until detectors have looked at what was asked so far."""
        await self._watch.settle()

    async def drain(self) -> None:
        """Let go of questions whose callers are gone. What was charged for them is on disk on return, and a retry will
        have its answer.
        """
        while waiting := [flight.ended for flight in self._in_flight.values()]:
            for flight in self._in_flight.values():
                flight.task.cancel()
            await asyncio.wait(waiting)
        await self._watch.drain()
