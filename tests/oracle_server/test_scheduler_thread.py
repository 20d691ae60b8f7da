"""The thread that computes: it takes its passes itself, and what the event loop has to do for one, it does later."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from typing import Any
from unittest import mock

import numpy as np
import pytest

from oracle_server.errors import Reason, Refusal
from oracle_server.scheduler import Scheduler
from tests.oracle_server.schedules import BATCH, Model, busy, rows, run, submit


def block(holds: Callable[[], bool]) -> None:
    """Wait in the event loop's thread, so that the loop gets no turn."""
    deadline = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.001)


async def until(holds: Callable[[], bool]) -> None:
    while not holds():
        await asyncio.sleep(0.001)


def test_the_model_does_not_wait_for_a_busy_event_loop() -> None:
    async def scenario() -> None:
        model = Model()
        scheduler = Scheduler(model, max_waiting=10)
        tasks = [await busy(scheduler, model), submit(scheduler, model, 1), submit(scheduler, model, 2)]
        await asyncio.sleep(0)
        model.go.set()
        block(lambda: model.passes == [[0], [1, 2]])
        assert ("start", 2) in model.events, "charged by then"
        assert [len(answer) for answer in await asyncio.gather(*tasks)] == [1, 1, 1]
        await scheduler.close()

    run(scenario())


@pytest.mark.parametrize("fails", [False, True])
def test_who_leaves_before_the_loop_hears_of_the_pass_has_been_in_it(fails: bool) -> None:
    async def scenario() -> None:
        model, heard, held = Model(), list[str](), list[Any]()
        scheduler = Scheduler(model, max_waiting=10)
        first = await busy(scheduler, model)

        def start() -> None:
            heard.append("start")
            if fails:
                raise OSError("no thread")

        leaves = asyncio.create_task(scheduler.logits("k", rows(1), start, lambda: heard.append("begun")))
        await asyncio.sleep(0)
        with mock.patch.object(asyncio.get_running_loop(), "call_soon_threadsafe", lambda *call: held.append(call)):
            model.go.set()
            await until(lambda: len(held) == 2)
        leaves.cancel()
        with pytest.raises(asyncio.CancelledError):
            await leaves
        expected = ["start"] if fails else ["start", "begun"]
        assert heard == expected
        for call, *words in held:
            call(*words)
        await first
        assert heard == expected, "once"
        await scheduler.close()

    run(scenario())


@pytest.mark.parametrize("count", [1, 3])
def test_without_a_thread_a_call_fails_and_later_ones_are_answered(count: int) -> None:
    async def scenario() -> None:
        model = Model()
        model.go.set()
        scheduler = Scheduler(model, max_waiting=10)
        none = mock.patch.object(threading.Thread, "start", side_effect=RuntimeError("can't start new thread"))
        with none, pytest.raises(Refusal) as refused:
            await asyncio.wait_for(submit(scheduler, model, 1, count), 5)
        assert refused.value.reason is Reason.MODEL_FAILED
        assert np.array_equal(await submit(scheduler, model, 2), Model.answer(rows(2)))
        await scheduler.close()

    run(scenario())


def test_callers_who_have_just_left_hold_up_nobody() -> None:
    async def scenario() -> None:
        model = Model()
        scheduler = Scheduler(model, max_waiting=100)
        first = await busy(scheduler, model)
        leave = [submit(scheduler, model, 10 + n, 1, f"key {n}") for n in range(BATCH)]
        stays = submit(scheduler, model, 1)
        await asyncio.sleep(0)
        for task in leave:
            task.cancel()
        model.go.set()
        block(lambda: len(model.passes) == 2)
        assert model.passes == [[0], [1]]
        assert np.array_equal(await stays, Model.answer(rows(1)))
        await first
        await scheduler.close()

    run(scenario())


def test_a_request_that_cannot_start_has_no_second_pass() -> None:
    async def scenario() -> None:
        model = Model()
        scheduler = Scheduler(model, max_waiting=100)
        first = await busy(scheduler, model)

        def start() -> None:
            raise OSError("no thread")

        bad = asyncio.create_task(scheduler.logits("k", rows(1, 3 * BATCH), start))
        await asyncio.sleep(0)
        model.go.set()
        block(lambda: len(model.passes) == 2)
        block(lambda: scheduler._idle)
        assert [len(values) for values in model.passes] == [1, BATCH]
        with pytest.raises(OSError, match="no thread"):
            await bad
        await first
        await scheduler.close()

    run(scenario())


def test_closing_lets_the_pass_under_way_end_and_starts_no_other() -> None:
    async def scenario() -> None:
        model = Model()
        scheduler = Scheduler(model, max_waiting=100)
        first = await busy(scheduler, model)
        waits = submit(scheduler, model, 1)
        await asyncio.sleep(0)
        threading.Timer(0.05, model.go.set).start()
        await scheduler.close()
        assert np.array_equal(await first, Model.answer(rows(0)))
        assert model.passes == [[0]]
        waits.cancel()

    run(scenario())


def test_nothing_is_computed_for_a_loop_that_has_ended() -> None:
    model = Model()

    async def scenario() -> list[object]:
        scheduler = Scheduler(model, max_waiting=100)
        tasks = [await busy(scheduler, model), submit(scheduler, model, 1, 3 * BATCH)]
        await asyncio.sleep(0)
        return [scheduler, *tasks]

    loop = asyncio.new_event_loop()
    loop.set_exception_handler(lambda *_: None)  # which would complain of tasks that were left
    scheduler, *_ = loop.run_until_complete(scenario())
    loop.close()  # without a word to those who wait
    model.go.set()
    scheduler._thread.shutdown(wait=True)
    assert model.passes == [[0]]
