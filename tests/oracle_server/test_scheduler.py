"""Dynamic batches: who queued shares the next pass, who left is never charged, everybody gets the own answer."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from oracle_server.errors import Reason, Refusal
from oracle_server.scheduler import Scheduler, _Job

BATCH = 8
NAN, RAISE = -1.0, -2.0  # first value of a row that the model cannot answer, or fails on


class Model:
    """Logits (N, 2): the row's value and its square. Passes wait for `go`; `passes` keeps who was in them."""

    def __init__(self) -> None:
        self.card = SimpleNamespace(id="m/1")
        self.batch = BATCH
        self.go = threading.Event()
        self.entered = threading.Event()
        self.passes: list[list[float]] = []
        self.events: list[tuple[str, float]] = []

    def logits(self, requests: list[np.ndarray]) -> list[np.ndarray]:
        names = [float(request[0, 0]) for request in requests]
        self.passes.append(names)
        self.events += [("pass", name) for name in names]
        self.entered.set()
        assert self.go.wait(60)
        if RAISE in names:
            raise RuntimeError("a secret of the model")
        return [self.answer(request) for request in requests]

    @staticmethod
    def answer(request: np.ndarray) -> np.ndarray:
        logits = np.column_stack([request[:, 0], request[:, 0] ** 2])
        return np.where(request[:, :1] == NAN, np.nan, logits)


def rows(name: float, count: int = 1) -> np.ndarray:
    """A request (count, 1) whose first value is its name."""
    return np.arange(count)[:, None] / 1000 + float(name)


def run(coroutine: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(coroutine, 60))


def submit(scheduler: Scheduler, model: Model, name: float, count: int = 1) -> asyncio.Task[np.ndarray]:
    return asyncio.create_task(scheduler.logits(rows(name, count), lambda: model.events.append(("start", name))))


async def busy(scheduler: Scheduler, model: Model) -> asyncio.Task[np.ndarray]:
    """A first request, whose pass has begun and waits."""
    first = submit(scheduler, model, 0.0)
    while not model.entered.is_set():
        await asyncio.sleep(0.001)
    return first


async def check_schedule(kind: type[Scheduler], plan: list[tuple[int, bool]]) -> None:
    """While a pass is on its way the requests of `plan` (rows, whether the caller leaves) queue; then it ends.

    Passes hold the requests that stayed, in order, as many as fit; each starts once, before its pass, and gets its own
    answer; who left is neither started nor seen by the model.
    """
    model = Model()
    scheduler = kind(model, max_waiting=10**6)
    tasks = [await busy(scheduler, model)]
    tasks += [submit(scheduler, model, n, count) for n, (count, _) in enumerate(plan, 1)]
    await asyncio.sleep(0)
    for task, (_, leaves) in zip(tasks[1:], plan, strict=True):
        if leaves:
            task.cancel()
    model.go.set()
    answers = await asyncio.gather(*tasks, return_exceptions=True)
    await scheduler.close()
    sizes = [1, *(count for count, _ in plan)]
    stayed = [0, *(n for n, (_, leaves) in enumerate(plan, 1) if not leaves)]
    for n, answer in enumerate(answers):
        if n in stayed:
            assert np.array_equal(answer, Model.answer(rows(n, sizes[n])))
        else:
            assert isinstance(answer, asyncio.CancelledError)
    assert [name for group in model.passes for name in group] == stayed, "in order, once, and nobody who left"
    for group in model.passes:
        assert len(group) == 1 or sum(sizes[int(n)] for n in group) <= BATCH
    for group, following in zip(model.passes[1:], model.passes[2:], strict=False):
        assert sum(sizes[int(n)] for n in [*group, following[0]]) > BATCH, "the next would have fitted"
    assert sorted(name for what, name in model.events if what == "start") == stayed, "charged once each"
    for n in stayed:
        assert model.events.index(("start", n)) < model.events.index(("pass", n))


@settings(max_examples=60)
@given(st.lists(st.tuples(st.integers(1, BATCH + 3), st.booleans()), max_size=12))
def test_any_queue_is_served_in_order_and_in_full_passes(plan: list[tuple[int, bool]]) -> None:
    run(check_schedule(Scheduler, plan))


class ChargesOnArrival(Scheduler):
    async def logits(self, inputs: np.ndarray, start: Callable[[], object]) -> np.ndarray:
        start()
        return await super().logits(inputs, lambda: None)


class ServesWhoLeft(Scheduler):
    def _take(self) -> list[_Job]:
        return [self._queue.popleft() for _ in range(min(1, len(self._queue)))]


class OneByOne(Scheduler):
    def __init__(self, model: Any, max_waiting: int) -> None:
        super().__init__(model, max_waiting)
        model.batch = 1


class LastComeFirst(Scheduler):
    def _take(self) -> list[_Job]:
        self._queue.reverse()
        return super()._take()


class Overfull(Scheduler):
    def _take(self) -> list[_Job]:
        return [job for job in (self._queue.popleft() for _ in range(len(self._queue))) if not job.done.done()]


@pytest.mark.parametrize("broken", [ChargesOnArrival, ServesWhoLeft, OneByOne, LastComeFirst, Overfull])
def test_a_broken_schedule_is_caught(broken: type[Scheduler]) -> None:
    with pytest.raises(AssertionError):
        run(check_schedule(broken, [(3, False), (2, True), (4, False), (5, False), (1, False)]))


def test_a_lone_caller_waits_for_nobody() -> None:
    async def scenario() -> None:
        model = Model()
        model.go.set()
        scheduler = Scheduler(model, max_waiting=10)
        for n in range(5):
            await submit(scheduler, model, n)
        assert model.passes == [[0], [1], [2], [3], [4]]
        await scheduler.close()

    run(scenario())


def test_what_queued_during_a_pass_goes_into_the_next_together() -> None:
    run(check_schedule(Scheduler, [(1, False)] * BATCH))


def test_who_leaves_after_the_start_stops_nobody() -> None:
    async def scenario() -> None:
        model = Model()
        scheduler = Scheduler(model, max_waiting=10)
        first = await busy(scheduler, model)
        second = submit(scheduler, model, 1)
        await asyncio.sleep(0)
        first.cancel()
        model.go.set()
        assert np.array_equal(await second, [[1, 1]])
        assert first.cancelled()
        assert ("start", 0) in model.events
        await scheduler.close()

    run(scenario())


async def outcomes(names: list[float]) -> list[object]:
    """What the callers get whose requests share one pass, and a later caller."""
    model = Model()
    scheduler = Scheduler(model, max_waiting=100)
    first = await busy(scheduler, model)
    tasks = [submit(scheduler, model, name) for name in names]
    await asyncio.sleep(0)
    model.go.set()
    found = await asyncio.gather(*tasks, return_exceptions=True)
    assert model.passes[:2] == [[0], names]
    await first
    assert np.array_equal(await submit(scheduler, model, 9), [[9, 81]]), "and goes on"
    await scheduler.close()
    return list(found)


def check_failed(outcome: object) -> None:
    """MODEL_FAILED in fixed words: nothing that the model said or computed."""
    assert isinstance(outcome, Refusal)
    assert outcome.reason is Reason.MODEL_FAILED
    assert outcome.sentence == "the model failed on this input: tell the operator"


def test_an_answer_that_is_no_number_fails_its_request_alone() -> None:
    async def scenario() -> None:
        good, bad, late = await outcomes([1.0, NAN, 2.0])
        check_failed(bad)
        assert np.array_equal(good, [[1, 1]])
        assert np.array_equal(late, [[2, 4]])

    run(scenario())


def test_a_model_that_raises_fails_the_request_that_made_it_and_the_log_says_why(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def scenario() -> None:
        good, bad, late = await outcomes([1.0, RAISE, 2.0])
        check_failed(bad)
        assert np.array_equal(good, [[1, 1]])
        assert np.array_equal(late, [[2, 4]])

    run(scenario())
    assert "model m/1 failed on 3 requests" in caplog.text
    assert "a secret of the model" in caplog.text


def test_a_queue_holds_its_bound_and_no_more() -> None:
    async def scenario() -> None:
        model = Model()
        scheduler = Scheduler(model, max_waiting=10)
        scheduler.admit(11)  # more than the queue holds, alone: never refused for good
        first = await busy(scheduler, model)
        tasks = []
        for n in (1, 2):
            scheduler.admit(5)
            tasks.append(submit(scheduler, model, n, 5))
            await asyncio.sleep(0)
        with pytest.raises(Refusal, match="the queue of this model is full: try again") as caught:
            scheduler.admit(1)
        assert (caught.value.reason, caught.value.charged) == (Reason.QUEUE_FULL, 0)
        assert caught.value.retry_after == 0.1
        model.go.set()
        await asyncio.gather(first, *tasks)
        scheduler.admit(10)
        await scheduler.close()

    run(scenario())
