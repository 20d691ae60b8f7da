"""Dynamic batches across callers: what queued during one forward pass goes into the next; a lone caller waits for
nobody.

A request is charged when its forward pass begins and not before, so that a deadline that passed in the queue, or a
client that left it, costs nothing.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from oracle_server.errors import Reason, Refusal
from oracle_server.models.card import Card

__all__ = ["Model", "Scheduler"]

_LOG = logging.getLogger(__name__)


class Model(Protocol):
    """What can be served; one thread calls `logits`."""

    card: Card
    batch: int

    def logits(self, requests: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Logits (N, C) of each request's rows (N, *input_shape), in order; a regression's predictions (N, 1); a
        feature model's outputs (N, D).
        """

    def warm_up(self) -> None:
        """Do once what the first caller should not wait for."""


@dataclass(eq=False)
class _Job:
    inputs: np.ndarray
    start: Callable[[], object]
    done: asyncio.Future[np.ndarray] = field(default_factory=lambda: asyncio.get_running_loop().create_future())


class Scheduler:
    """One model's queue and the one thread that runs its forward passes.

    max_waiting  rows that may wait; a request that would go beyond is refused with QUEUE_FULL before anything is
    charged
    """

    def __init__(self, model: Model, max_waiting: int) -> None:
        self._model = model
        self._max_waiting = max_waiting
        self._waiting = 0
        self._queue: deque[_Job] = deque()
        self._wake = asyncio.Event()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=f"forward-{model.card.id}")
        self._loop = asyncio.create_task(self._run())

    def admit(self, rows: int) -> None:
        """Refuse now what the queue could not hold."""
        if self._waiting and self._waiting + rows > self._max_waiting:
            raise Refusal(Reason.QUEUE_FULL, "the queue of this model is full: try again", retry_after=0.1)

    async def logits(self, inputs: np.ndarray, start: Callable[[], object]) -> np.ndarray:
        """Logits (N, C) of one request. `start` is called when its forward pass begins; cancelled before that, it
        never is.
        """
        job = _Job(inputs, start)
        self._queue.append(job)
        self._waiting += len(inputs)
        self._wake.set()
        return await job.done

    async def _run(self) -> None:
        while True:
            await self._wake.wait()
            batch = self._take()
            if not batch:
                self._wake.clear()
                continue
            for job in batch:
                job.start()
            answers = await self._forward(batch)
            for job, answer in zip(batch, answers, strict=True):
                if job.done.done():
                    continue
                if np.isfinite(answer).all():
                    job.done.set_result(answer)
                else:
                    job.done.set_exception(
                        Refusal(Reason.MODEL_FAILED, "the model failed on this input: tell the operator")
                    )

    async def _forward(self, batch: list[_Job]) -> list[np.ndarray]:
        """Logits of each job. When a pass fails, each is tried alone: a bad input fails nobody but its own caller."""
        try:
            inputs = [job.inputs for job in batch]
            return await asyncio.get_running_loop().run_in_executor(self._thread, self._model.logits, inputs)
        except Exception:
            _LOG.exception("model %s failed on %d requests", self._model.card.id, len(batch))
        if len(batch) == 1:
            return [np.full((1, 1), np.nan)]
        return [(await self._forward([job]))[0] for job in batch]

    def _take(self) -> list[_Job]:
        """The next requests, at least one, together at most the model's batch; those whose callers left are dropped."""
        batch: list[_Job] = []
        rows = 0
        while self._queue:
            job = self._queue[0]
            if not job.done.done() and batch and rows + len(job.inputs) > self._model.batch:
                break
            self._queue.popleft()
            self._waiting -= len(job.inputs)
            if not job.done.done():
                batch.append(job)
                rows += len(job.inputs)
        return batch

    async def close(self) -> None:
        self._loop.cancel()
        self._thread.shutdown(wait=True)
