"""Results of other threads on their way to the event loop."""

from __future__ import annotations

import asyncio
from concurrent.futures import Future
from threading import Thread
from typing import Any
from unittest import mock

import pytest

from oracle_server.arrivals import Arrivals
from oracle_server.errors import Reason, Refusal


def elsewhere(work: Any) -> None:
    """Do it in another thread, and come back when it is done."""
    thread = Thread(target=work)
    thread.start()
    thread.join()


def test_those_that_come_together_wake_the_loop_once() -> None:
    async def scenario() -> None:
        arrivals, futures = Arrivals(), [Future[int]() for _ in range(50)]
        waiting = [arrivals.of(future) for future in futures]
        loop = asyncio.get_running_loop()
        with mock.patch.object(loop, "call_soon_threadsafe", wraps=loop.call_soon_threadsafe) as wakes:
            elsewhere(lambda: [future.set_result(n) for n, future in enumerate(futures)])
            assert await asyncio.gather(*waiting) == list(range(50))
            assert wakes.call_count == 1
            late = Future[int]()
            answer = arrivals.of(late)
            elsewhere(lambda: late.set_result(7))
            assert await answer == 7
            assert wakes.call_count == 2

    asyncio.run(scenario())


def test_what_was_done_before_and_what_failed_arrive_as_well() -> None:
    async def scenario() -> None:
        arrivals, done, failed = Arrivals(), Future[int](), Future[int]()
        done.set_result(3)
        failed.set_exception(Refusal(Reason.LEDGER_FAILED, "no"))
        assert await arrivals.of(done) == 3
        with pytest.raises(Refusal, match="no"):
            await arrivals.of(failed)

    asyncio.run(scenario())


def test_who_has_left_keeps_nobody_from_the_others() -> None:
    async def scenario() -> int:
        arrivals, futures = Arrivals(), [Future[int](), Future[int]()]
        left, stayed = map(arrivals.of, futures)
        left.cancel()
        elsewhere(lambda: [future.set_result(5) for future in futures])
        return await stayed

    assert asyncio.run(scenario()) == 5


def test_a_loop_that_has_ended_is_no_error_for_the_other_thread() -> None:
    future = Future[int]()

    async def scenario() -> None:
        Arrivals().of(future)

    asyncio.run(scenario())
    future.set_result(1)  # would log, and lose the callbacks after it, if it raised
