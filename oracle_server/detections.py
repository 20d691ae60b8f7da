"""Detectors on the queries of keys whose contracts name them, and what follows when one finds an attack.

    log        the operator sees it
    throttle   SLOW_DOWN beyond `rate` rows a second, a parameter of the contract, 1 unless it says otherwise
    suspend    KEY_SUSPENDED for every call, until the operator reinstates the key

Rows are looked at in a thread of their own while the model computes and the charge is written; no answer waits for it.
The key's next request does, so that whoever asks one batch after another gets none after the one that was flagged;
requests in flight beside it are answered. Retries are not looked at again. Flags are in the ledger and survive a
restart; what a detector remembers of a key's queries, up to 5 MB for images of 64x64, does not.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields, replace

import numpy as np

from defenses.detection import DETECTIONS, Detection, Stream
from oracle_server.errors import Reason, Refusal
from oracle_server.inputs import to_float32
from oracle_server.ledger import Charge, Flag, Key, Ledger
from oracle_server.models.card import Card
from oracle_server.rates import Rates
from oracle_server.threat_model import Contract

__all__ = ["Watch", "check_detections", "refuse_suspended"]

_LOG = logging.getLogger(__name__)
_RATE = 1.0  # rows a second of a throttled key


def check_detections(contract: Contract) -> None:
    """`ValueError` with one sentence for an unknown detector or parameter, a value out of range, or a name twice."""
    names = [name for name, *_ in contract.detections]
    for name, verdict, parameters in contract.detections:
        if name not in DETECTIONS:
            raise ValueError(f"no detection {name!r}; there is {', '.join(DETECTIONS)}")
        if names.count(name) > 1:
            raise ValueError(f"the detection {name} is named twice: name it once")
        known = [field.name for field in fields(DETECTIONS[name])] + ["rate"] * (verdict == "throttle")
        for parameter, value in parameters:
            if parameter not in known:
                raise ValueError(
                    f"{name} with verdict={verdict} has no parameter {parameter!r}; there is {', '.join(known)}"
                )
            if parameter == "rate" and not (value > 0 and math.isfinite(value)):
                raise ValueError(f"{name}: rate={value} must be positive and finite")
        _detector(name, parameters)


def refuse_suspended(ledger: Ledger, key: Key) -> None:
    """Refuse any call of a key with a standing flag whose verdict is to suspend."""
    if key.contract.detections and any(f.verdict == "suspend" and f.lifted is None for f in ledger.flags(key.key_id)):
        raise Refusal(Reason.KEY_SUSPENDED, "the API key is suspended: ask the operator to reinstate it")


class Watch:
    """The streams of all keys with detections, in memory, and the thread that looks at them."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._slow = Rates()
        self._streams: dict[str, _Streams] = {}
        self._looking: dict[str, set[asyncio.Task[None]]] = {}
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="detection")

    async def admit(self, key: Key, rows: int) -> None:
        """Refuse a suspended key, and one that is throttled beyond its rate, once its earlier rows were looked at."""
        if not key.contract.detections:
            return
        while tasks := self._looking.get(key.key_id):
            await asyncio.wait(tasks)
        refuse_suspended(self._ledger, key)
        standing = {flag.detector for flag in self._ledger.flags(key.key_id) if flag.lifted is None}
        rates = [
            dict(parameters).get("rate", _RATE)
            for name, verdict, parameters in key.contract.detections
            if verdict == "throttle" and name in standing
        ]
        if rates:
            self._slow.take(replace(key, contract=replace(key.contract, rate=min(rates))), rows)

    def look(self, key: Key, card: Card, inputs: np.ndarray, charge: asyncio.Future[Charge]) -> None:
        """Look at new rows (N, *input_shape), in the order of the calls; what is found counts once they are charged."""
        if not key.contract.detections:
            return
        task = asyncio.create_task(self._look(key, card, inputs, charge))
        looking = self._looking.setdefault(key.key_id, set())
        looking.add(task)
        task.add_done_callback(looking.discard)

    async def settle(self) -> None:
        """Wait until every row that was asked so far was looked at."""
        if tasks := [task for looking in self._looking.values() for task in looking]:
            await asyncio.wait(tasks)

    async def drain(self) -> None:
        """Wait until every row was looked at; nothing is looked at after that."""
        while any(self._looking.values()):
            await self.settle()
        self._thread.shutdown()

    async def _look(self, key: Key, card: Card, inputs: np.ndarray, charge: asyncio.Future[Charge]) -> None:
        try:
            found = await asyncio.get_running_loop().run_in_executor(self._thread, self._observe, key, card, inputs)
            if not found:
                return
            charged = await charge
            for place, name, verdict in found:
                row = charged.spent - charged.rows + place + 1
                flag = Flag(key.key_id, name, verdict, row, time.time())
                if await asyncio.to_thread(self._ledger.flag, flag):
                    _LOG.warning("key %s was flagged by %s at row %d: %s", key.key_id, name, row, verdict)
        except Refusal:  # not charged, so not answered either
            return
        except Exception:
            _LOG.exception("a detector failed on rows of key %s, which were not looked at", key.key_id)

    def _observe(self, key: Key, card: Card, inputs: np.ndarray) -> list[tuple[int, str, str]]:
        """Place of the first flagged row in `inputs`, detector and verdict, for each detector that flags one."""
        lifted = sum(flag.lifted is not None for flag in self._ledger.flags(key.key_id))
        streams = self._streams.get(key.key_id)
        if streams is None or streams.lifted != lifted:
            streams = self._streams[key.key_id] = _Streams(key, card, self._ledger.server_secret, lifted)
        return streams.observe(inputs)


class _Streams:
    """The streams of one key since it was last reinstated; `lifted` counts the flags from before."""

    def __init__(self, key: Key, card: Card, secret: bytes, lifted: int) -> None:
        self.lifted = lifted
        self._card = card
        self._low, self._wide = np.float32(card.low), np.float32(card.high - card.low)
        self._streams: list[tuple[str, str, Stream]] = [
            (name, verdict, _detector(name, parameters).start(card.input_shape, secret + key.key_id.encode()))
            for name, verdict, parameters in key.contract.detections
        ]

    def observe(self, inputs: np.ndarray) -> list[tuple[int, str, str]]:
        rows = (to_float32(inputs, self._card) - self._low) / self._wide  # parameters are for values from 0 to 1
        found = []
        for name, verdict, stream in self._streams:
            if len(places := np.flatnonzero(stream.observe(rows))):
                found.append((int(places[0]), name, verdict))
        return sorted(found)


def _detector(name: str, parameters: tuple[tuple[str, float], ...]) -> Detection:
    detector: Detection = DETECTIONS[name](**{k: v for k, v in parameters if k != "rate"})
    return detector
