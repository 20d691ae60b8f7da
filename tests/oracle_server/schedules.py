"""A model of known answers, and requests to its scheduler, for tests of the schedule."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from types import SimpleNamespace
from typing import Any

import numpy as np

from oracle_server.scheduler import Scheduler

__all__ = ["BATCH", "NAN", "RAISE", "FirstComeFirstServed", "Model", "TurnsOfPasses", "busy", "rows", "run", "submit"]

BATCH = 8
NAN, RAISE = -1.0, -2.0  # first value of a row that the model cannot answer, or fails on


class Model:
    """Logits (N, 2): the row's value and its square. Passes wait for `go`; `passes` keeps the rows
    that were in them.
    """

    def __init__(self) -> None:
        self.card = SimpleNamespace(id="m/1")
        self.batch = BATCH
        self.go = threading.Event()
        self.entered = threading.Event()
        self.passes: list[list[float]] = []
        self.events: list[tuple[str, float]] = []

    def logits(self, requests: list[np.ndarray]) -> list[np.ndarray]:
        values = [float(value) for request in requests for value in request[:, 0]]
        self.passes.append(values)
        self.events += [("pass", value) for value in values]
        self.entered.set()
        assert self.go.wait(60)
        if RAISE in values:
            raise RuntimeError("a secret of the model")
        return [self.answer(request) for request in requests]

    @staticmethod
    def answer(request: np.ndarray) -> np.ndarray:
        logits = np.column_stack([request[:, 0], request[:, 0] ** 2])
        return np.where(request[:, :1] == NAN, np.nan, logits)


def rows(name: float, count: int = 1) -> np.ndarray:
    """A request (count, 1) whose first value is its name."""
    return np.arange(count)[:, None] / 1024 + float(name)


def run(coroutine: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(coroutine, 60))


def submit(scheduler: Scheduler, model: Model, name: float, count: int = 1, key: str = "k") -> asyncio.Task[np.ndarray]:
    return asyncio.create_task(scheduler.logits(key, rows(name, count), lambda: model.events.append(("start", name))))


async def busy(scheduler: Scheduler, model: Model) -> asyncio.Task[np.ndarray]:
    """A first request, whose pass has begun and waits."""
    first = submit(scheduler, model, 0.0, key="first")
    while not model.entered.is_set():
        await asyncio.sleep(0.001)
    return first


class FirstComeFirstServed(Scheduler):
    """What a queue without keys does: who has most waiting gets most."""

    async def logits(self, key_id: str, inputs: np.ndarray, start: Callable[[], object]) -> np.ndarray:
        return await super().logits("everybody", inputs, start)


class TurnsOfPasses(Scheduler):
    """A pass of its own for each key in turn: K - 1 passes of the others for one row."""

    def _shares(self, places: int) -> dict[str, int]:
        key_id, line = self._lines.popitem(last=False)
        self._lines[key_id] = line
        return {key_id: min(places, line.rows)}
