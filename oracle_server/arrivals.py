"""Results of other threads on their way to the event loop: those that come together wake it once."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from concurrent.futures import Future
from typing import Any, TypeVar

__all__ = ["Arrivals"]

T = TypeVar("T")


class Arrivals:
    """What `asyncio.wrap_future` does, for many futures that are done at once; not for futures that are cancelled."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._arrived: deque[tuple[asyncio.Future[Any], Future[Any]]] = deque()
        self._woken = False

    def of(self, future: Future[T]) -> asyncio.Future[T]:
        """The outcome of a future that another thread will set, for this loop."""
        waiting: asyncio.Future[T] = self._loop.create_future()
        future.add_done_callback(lambda done: self._arrive(waiting, done))
        return waiting

    def _arrive(self, waiting: asyncio.Future[T], future: Future[T]) -> None:
        self._arrived.append((waiting, future))  # before the look at `_woken`, which is unset before they are taken
        if not self._woken:
            self._woken = True
            with contextlib.suppress(RuntimeError):  # the loop has ended, and nobody waits
                self._loop.call_soon_threadsafe(self._take)

    def _take(self) -> None:
        self._woken = False
        while self._arrived:
            waiting, future = self._arrived.popleft()
            if waiting.done():  # nobody waits any more
                continue
            if (error := future.exception()) is None:
                waiting.set_result(future.result())
            else:
                waiting.set_exception(error)
