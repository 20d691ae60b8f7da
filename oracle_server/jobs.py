"""What waits in a scheduler's queue: requests, in the lines of their keys."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from oracle_server.errors import Reason, Refusal

__all__ = ["Job", "Line", "Piece"]


@dataclass(eq=False)
class Job:
    """One request, which came at the time `asked`. `taken` of its rows went into passes, whose answers so far are
    `answers`. Whoever takes the first calls `start`, in whatever thread; the event loop calls `begun` after that, at
    the time `began`.
    """

    inputs: np.ndarray
    start: Callable[[], object]
    begun: Callable[[], object]
    asked: float = field(default_factory=time.perf_counter)
    began: float = 0.0
    taken: int = 0
    error: Exception | None = None
    failed: bool = False  # an answer is no number: none of its rows goes into another pass
    answers: list[np.ndarray] = field(default_factory=list)
    done: asyncio.Future[np.ndarray] = field(default_factory=lambda: asyncio.get_running_loop().create_future())

    @property
    def left(self) -> int:
        return len(self.inputs) - self.taken

    def take(self, most: int) -> np.ndarray:
        """The next rows, at most `most`; the first of them start the request."""
        if not self.taken:
            try:
                self.start()
            except Exception as error:  # this request's alone
                self.error = error
        rows = self.inputs[self.taken : self.taken + most]
        self.taken += len(rows)
        return rows

    def begin(self) -> None:
        """The event loop's part of the start."""
        self.began = time.perf_counter()
        if self.error is None:
            self.begun()
        elif not self.done.done():
            self.done.set_exception(self.error)

    @property
    def over(self) -> bool:
        """Nobody waits for its answer, or there will be none."""
        return self.failed or self.error is not None or self.done.done()

    def answer(self, logits: np.ndarray) -> None:
        """Keep an answer, in the order of the rows. The last of all ends the request, and so does its failure."""
        if self.done.done():
            return
        self.answers.append(logits)
        if self.failed:
            refusal = Refusal(Reason.MODEL_FAILED, "the model failed on this input: tell the operator")
            self.done.set_exception(refusal)
        elif sum(map(len, self.answers)) == len(self.inputs):
            self.done.set_result(np.concatenate(self.answers) if len(self.answers) > 1 else logits)


@dataclass(eq=False)
class Line:
    """The requests of one key that wait, in order, and the rows in them that no pass has taken."""

    jobs: OrderedDict[Job, None] = field(default_factory=OrderedDict)
    rows: int = 0


Piece = tuple[Job, np.ndarray]  # rows of a request that are in one pass
