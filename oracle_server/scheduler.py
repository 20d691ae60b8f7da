"""Dynamic batches across callers: what queued during one forward pass goes into the next; a lone caller waits for
nobody.

A pass has as many places as the model's batch at most. While fewer rows than two batches are under way, it has half as
many as are: callers who were all answered at once would all ask again at once, and the model would idle in between; of
two halves one asks while the other is computed. Where small passes are dear, it has the model's `grain` at least.

Its places are shared out between the keys that have rows waiting: they are dealt one row at a time, round and round,
and the next pass goes on where this one stopped. Within a key, order is kept; a request that does not get all its
places goes on in the next pass. Hence, while rows of at most K keys wait, a request that is behind `m` rows of its own
key has its own `n` rows through after ceil((m + n) K / grain) passes, or fewer and larger ones, however many rows the
others have waiting; places that nobody else wants are all there for who wants them.

A request is charged once, when its first row goes into a pass and not before, so that a deadline that passed in the
queue, or a client that left it, costs nothing.

The thread that computes takes the rows of its next pass itself, at the moment when the last one ends: an event loop
that is busy with other calls would let the model wait. Only an idle thread is handed its pass by the loop.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import Protocol

import numpy as np

from oracle_server.errors import Reason, Refusal
from oracle_server.jobs import Job, Line, Piece
from oracle_server.logs import call_under_way
from oracle_server.metrics import UNCOUNTED, Metrics
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


class Scheduler:
    """One model's queue and the one thread that runs its forward passes.

    grain        rows from which on a row costs no less in a larger pass; as many as the model's batch when left out
    max_waiting  rows that may wait. A request that would go beyond is refused with QUEUE_FULL before anything is
    charged. So is one of a key that has rows waiting already, if it would then have more than twice as many as stay
    free: a key leaves at least a third of the room that it finds. As the queue moves, n keys that always want more come
    to two parts each of its 2n + 1, and one stays free (dynamic thresholds: Choudhury and Hahne 1998).
    """

    def __init__(self, model: Model, max_waiting: int, metrics: Metrics = UNCOUNTED, grain: int | None = None) -> None:
        self._model = model
        self._grain = grain or model.batch
        self._max_waiting = max_waiting
        self._metrics = metrics.passes(model.card.id, lambda: self._waiting)
        self._lock = threading.Lock()  # of all that follows
        self._lines: OrderedDict[str, Line] = OrderedDict()  # of keys with rows waiting; the first is next
        self._waiting = 0
        self._computed = 0  # rows of the last pass, whose callers may be about to ask again
        self._idle = True
        self._closed = False
        self._loop = asyncio.get_running_loop()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=f"forward-{model.card.id}")

    def admit(self, key_id: str, rows: int) -> None:
        """Refuse now what the queue could not hold, or would hold only at the cost of other keys."""
        with self._lock:
            if not self._waiting:
                return
            free = self._max_waiting - self._waiting - rows
            line = self._lines.get(key_id)
            own = 0 if line is None else line.rows
        if free < 0:
            raise Refusal(Reason.QUEUE_FULL, "the queue of this model is full: try again", retry_after=0.1)
        if own and own + rows > 2 * free:
            sentence = "this key's share of the queue of this model is full: try again"
            raise Refusal(Reason.QUEUE_FULL, sentence, retry_after=0.1)

    async def logits(
        self, key_id: str, inputs: np.ndarray, start: Callable[[], object], begun: Callable[[], object] = lambda: None
    ) -> np.ndarray:
        """Logits (N, C) of one request of the key. `start` is called when its first row goes into a forward pass, in
        any thread, and `begun` soon after that on the event loop; cancelled before that, neither is.
        """
        job = Job(inputs, start, begun)
        with self._lock:
            self._lines.setdefault(key_id, Line()).jobs[job] = None
            self._count(key_id, len(inputs))
            idle = self._idle
        if idle:
            self._loop.call_soon(self._hand_over)  # with whatever else comes in this turn of the loop
        try:
            return await job.done
        finally:
            self._leave(key_id, job)
            if job.began and (call := call_under_way()) is not None:
                call.queued, call.computed = job.began - job.asked, time.perf_counter() - job.began

    def _leave(self, key_id: str, job: Job) -> None:
        """The request has its answer; or its caller left, or the model failed on its first rows: the others are not
        asked.
        """
        with self._lock:
            self._remove(key_id, job)
        if job.taken:
            self._begin([(job, job.inputs)])  # it may have left between its pass and the loop's part of that

    def _remove(self, key_id: str, job: Job) -> None:
        line = self._lines.get(key_id)
        if line is not None and job in line.jobs:
            del line.jobs[job]
            self._count(key_id, -job.left)

    def _count(self, key_id: str, rows: int) -> None:
        """So many more rows of a key wait; a key without any has no line."""
        self._waiting += rows
        line = self._lines[key_id]
        line.rows += rows
        if not line.rows:
            del self._lines[key_id]

    def _hand_over(self) -> None:
        """Give an idle thread a pass of what waits."""
        with self._lock:
            pieces = self._take() if self._idle and not self._closed else []
            self._idle = self._idle and not pieces
        if pieces:
            self._begin(pieces)
            try:
                self._thread.submit(self._work, pieces)
            except RuntimeError as error:  # no thread to be had
                _LOG.error("model %s has no thread", self._model.card.id, exc_info=error)
                with self._lock:
                    self._idle = True
                for job, _ in pieces:
                    job.failed = True
                self._end(pieces, [np.full((1, 1), np.nan)] * len(pieces), [])

    def _work(self, pieces: list[Piece]) -> None:
        """The thread: pass after pass, as long as rows wait."""
        while pieces:
            answers = self._forward(pieces)
            for (job, _), good in zip(pieces, _finite(answers), strict=True):
                job.failed = job.failed or not good
            with self._lock:
                following = [] if self._closed else self._take()
                self._idle = not following
            try:
                self._loop.call_soon_threadsafe(self._end, pieces, answers, following)
            except RuntimeError:  # the loop has ended, and nobody waits
                return
            pieces = following

    def _end(self, pieces: list[Piece], answers: list[np.ndarray], following: list[Piece]) -> None:
        """The loop's part when a pass has ended and the following has begun."""
        self._begin(following)
        for (job, _), answer in zip(pieces, answers, strict=True):
            job.answer(answer)

    def _begin(self, pieces: list[Piece]) -> None:
        for job, _ in pieces:
            if not job.began:
                job.begin()
                self._metrics.waited(job.began - job.asked)

    def _forward(self, pieces: list[Piece]) -> list[np.ndarray]:
        """Logits of each piece. When a pass fails, each is tried alone: a bad input fails nobody but its own caller.
        One that wants more memory than there is is tried by halves.
        """
        inputs = [rows for _, rows in pieces]
        outcome = self._pass(inputs)
        if not isinstance(outcome, BaseException):
            return outcome
        _LOG.error("model %s failed on %d requests", self._model.card.id, len(pieces), exc_info=outcome)
        if len(pieces) > 1:
            return [self._forward([piece])[0] for piece in pieces]
        if len(inputs[0]) > 1 and _wants_memory(outcome):
            job, rows = pieces[0]
            halves = [self._forward([(job, half)])[0] for half in np.array_split(rows, 2)]
            if halves[0].shape[1:] == halves[1].shape[1:]:
                return [np.concatenate(halves)]
        return [np.full((1, 1), np.nan)]

    def _pass(self, inputs: list[np.ndarray]) -> list[np.ndarray] | BaseException:
        """The model's answers or, whatever it raised, that: others wait."""
        began = time.perf_counter()
        try:
            return self._model.logits(inputs)
        except BaseException as error:
            return error
        finally:
            self._metrics.computed(sum(map(len, inputs)), time.perf_counter() - began)

    def _take(self) -> list[Piece]:
        """The rows of the next pass, and whose they are. Requests that are over have no share, and go."""
        pieces: list[Piece] = []
        places = self._places()
        while places and self._lines:
            for key_id, share in self._shares(places).items():
                line = self._lines[key_id]
                for job in list(islice(line.jobs, share)):
                    if job.over:
                        self._remove(key_id, job)
                    elif share:
                        rows = job.take(share)
                        pieces.append((job, rows))
                        share -= len(rows)
                        places -= len(rows)
                        if not job.left:
                            del line.jobs[job]
                        self._count(key_id, -len(rows))
        self._computed = sum(len(rows) for _, rows in pieces)
        return pieces

    def _places(self) -> int:
        """Of the next pass."""
        half = (self._computed + self._waiting + 1) // 2
        return min(self._model.batch, max(self._grain, half))

    def _shares(self, places: int) -> dict[str, int]:
        """Rows of each key in so many places: dealt one at a time, as long as there are places and rows. Who was dealt
        one in the round that ended early is the last in the next pass.
        """
        shares = dict.fromkeys(self._lines, 0)
        while places and (waiting := [key_id for key_id in shares if shares[key_id] < self._lines[key_id].rows]):
            rounds = places // len(waiting)
            for key_id in waiting[:places]:
                dealt = min(max(rounds, 1), self._lines[key_id].rows - shares[key_id])
                shares[key_id] += dealt
                places -= dealt
                if not rounds:
                    self._lines.move_to_end(key_id)
        return {key_id: share for key_id, share in shares.items() if share}

    async def close(self) -> None:
        """Let the pass under way end, and start no other."""
        with self._lock:
            self._closed = True
        self._thread.shutdown(wait=True)


def _wants_memory(error: BaseException) -> bool:
    """torch has a class of its own for the memory of a GPU alone; on the CPU it says so in words."""
    return isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and "memory" in str(error))


def _finite(answers: Sequence[np.ndarray]) -> list[bool]:
    """Whether there are numbers in each, (N, *shape), and nothing else; at once for all that have the same shape."""
    if len({answer.shape[1:] for answer in answers}) > 1:
        return [bool(np.isfinite(answer).all()) for answer in answers]
    values = np.isfinite(np.concatenate(answers))
    starts = np.cumsum([0, *map(len, answers[:-1])])
    good: list[bool] = np.logical_and.reduceat(values.reshape(len(values), -1).all(1), starts).tolist()
    return good
