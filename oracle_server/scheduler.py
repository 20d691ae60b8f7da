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
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from typing import Protocol

import numpy as np

from oracle_server.errors import Reason, Refusal
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


@dataclass(eq=False)
class _Job:
    """One request, which came at the time `asked`; from `began` on `taken` of its rows went into passes, whose answers
    so far are `answers`.
    """

    inputs: np.ndarray
    start: Callable[[], object]
    asked: float = field(default_factory=time.perf_counter)
    began: float = 0.0
    taken: int = 0
    answers: list[np.ndarray] = field(default_factory=list)
    done: asyncio.Future[np.ndarray] = field(default_factory=lambda: asyncio.get_running_loop().create_future())

    @property
    def left(self) -> int:
        return len(self.inputs) - self.taken

    def take(self, most: int) -> np.ndarray:
        """The next rows, at most `most`; the first of them start the request."""
        if not self.taken:
            self.began = time.perf_counter()
            try:
                self.start()
            except Exception as error:  # this request's alone
                self.done.set_exception(error)
        rows = self.inputs[self.taken : self.taken + most]
        self.taken += len(rows)
        return rows

    def answer(self, logits: np.ndarray) -> None:
        """Keep the answer to the rows that were taken last; the last of all, or one that is no number, ends it."""
        if self.done.done():
            return
        self.answers.append(logits)
        if not np.isfinite(logits).all():
            refusal = Refusal(Reason.MODEL_FAILED, "the model failed on this input: tell the operator")
            self.done.set_exception(refusal)
        elif not self.left:
            self.done.set_result(np.concatenate(self.answers) if len(self.answers) > 1 else logits)


@dataclass(eq=False)
class _Line:
    """The requests of one key that wait, in order, and the rows in them that no pass has taken."""

    jobs: OrderedDict[_Job, None] = field(default_factory=OrderedDict)
    rows: int = 0


_Piece = tuple[_Job, np.ndarray]


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
        self._computed = 0  # rows of the last pass, whose callers may be about to ask again
        self._max_waiting = max_waiting
        self._waiting = 0
        self._metrics = metrics.passes(model.card.id, lambda: self._waiting)
        self._lines: OrderedDict[str, _Line] = OrderedDict()  # of keys with rows waiting; the first is next
        self._wake = asyncio.Event()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=f"forward-{model.card.id}")
        self._loop = asyncio.create_task(self._run())

    def admit(self, key_id: str, rows: int) -> None:
        """Refuse now what the queue could not hold, or would hold only at the cost of other keys."""
        if not self._waiting:
            return
        free = self._max_waiting - self._waiting - rows
        if free < 0:
            raise Refusal(Reason.QUEUE_FULL, "the queue of this model is full: try again", retry_after=0.1)
        line = self._lines.get(key_id)
        if line is not None and line.rows + rows > 2 * free:
            sentence = "this key's share of the queue of this model is full: try again"
            raise Refusal(Reason.QUEUE_FULL, sentence, retry_after=0.1)

    async def logits(self, key_id: str, inputs: np.ndarray, start: Callable[[], object]) -> np.ndarray:
        """Logits (N, C) of one request of the key. `start` is called when its first row goes into a forward pass;
        cancelled before that, it never is.
        """
        job = _Job(inputs, start)
        self._lines.setdefault(key_id, _Line()).jobs[job] = None
        self._count(key_id, len(inputs))
        self._wake.set()
        try:
            return await job.done
        finally:
            if job.taken and (call := call_under_way()) is not None:
                call.queued, call.computed = job.began - job.asked, time.perf_counter() - job.began
            if job.left:  # the caller left, or the model failed on the first rows: the others are not asked
                del self._lines[key_id].jobs[job]
                self._count(key_id, -job.left)

    def _count(self, key_id: str, rows: int) -> None:
        """So many more rows of a key wait; a key without any has no line."""
        self._waiting += rows
        line = self._lines[key_id]
        line.rows += rows
        if not line.rows:
            del self._lines[key_id]

    async def _run(self) -> None:
        while True:
            await self._wake.wait()
            pieces = self._take()
            if pieces:
                answers = await self._forward(pieces)
                for (job, _), answer in zip(pieces, answers, strict=True):
                    job.answer(answer)
            elif self._lines:  # of callers that have just left, and are about to say so
                await asyncio.sleep(0)
            else:
                self._wake.clear()

    async def _forward(self, pieces: list[_Piece]) -> list[np.ndarray]:
        """Logits of each piece. When a pass fails, each is tried alone: a bad input fails nobody but its own caller.
        One that wants more memory than there is is tried by halves.
        """
        inputs = [rows for _, rows in pieces]
        try:
            outcome = await asyncio.get_running_loop().run_in_executor(self._thread, self._pass, inputs)
        except RuntimeError as error:  # no thread to be had
            outcome = error
        if not isinstance(outcome, BaseException):
            return outcome
        _LOG.error("model %s failed on %d requests", self._model.card.id, len(pieces), exc_info=outcome)
        if len(pieces) > 1:
            return [(await self._forward([piece]))[0] for piece in pieces]
        if len(inputs[0]) > 1 and _wants_memory(outcome):
            job, rows = pieces[0]
            halves = [(await self._forward([(job, half)]))[0] for half in np.array_split(rows, 2)]
            if halves[0].shape[1:] == halves[1].shape[1:]:
                return [np.concatenate(halves)]
        return [np.full((1, 1), np.nan)]

    def _pass(self, inputs: list[np.ndarray]) -> list[np.ndarray] | BaseException:
        """The model's answers or, whatever it raised, that: asyncio cannot hand on every exception, and others wait."""
        began = time.perf_counter()
        try:
            return self._model.logits(inputs)
        except BaseException as error:
            return error
        finally:
            self._metrics.computed(sum(map(len, inputs)), time.perf_counter() - began)

    def _take(self) -> list[_Piece]:
        """The rows of the next pass, and whose they are."""
        pieces: list[_Piece] = []
        for key_id, share in self._shares().items():
            line, left = self._lines[key_id], share
            for job in list(islice(line.jobs, share)):
                if left and not job.done.done():
                    new = not job.taken
                    rows = job.take(left)
                    if new:
                        self._metrics.waited(job.began - job.asked)
                    pieces.append((job, rows))
                    left -= len(rows)
                    if not job.left:
                        del line.jobs[job]
            self._count(key_id, left - share)
        self._computed = sum(len(rows) for _, rows in pieces)
        return pieces

    def _places(self) -> int:
        """Of the next pass."""
        half = (self._computed + self._waiting + 1) // 2
        return min(self._model.batch, max(self._grain, half))

    def _shares(self) -> dict[str, int]:
        """Rows of each key in the next pass: dealt one at a time, as long as there are places and rows. Who was dealt
        one in the round that ended early is the last in the next pass.
        """
        shares = dict.fromkeys(self._lines, 0)
        places = self._places()
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
        self._loop.cancel()
        self._thread.shutdown(wait=True)


def _wants_memory(error: BaseException) -> bool:
    """torch has a class of its own for the memory of a GPU alone; on the CPU it says so in words."""
    return isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and "memory" in str(error))
