"""One key with much waiting holds up nobody, and does not fill the queue for the others."""

from __future__ import annotations

import asyncio
import math
import threading
from collections import Counter

import numpy as np
import pytest

from oracle_server.errors import Reason, Refusal
from oracle_server.scheduler import Scheduler
from tests.oracle_server.schedules import BATCH, FirstComeFirstServed, Model, TurnsOfPasses, busy, run, submit


class Steps(Model):
    """Passes wait to be let through, one by one."""

    def __init__(self) -> None:
        super().__init__()
        self.go.set()
        self.gate = threading.Semaphore(0)

    def __enter__(self) -> Steps:
        return self

    def __exit__(self, *_: object) -> None:
        self.gate.release(10**4)  # nobody waits for a thread that waits

    def logits(self, requests: list[np.ndarray]) -> list[np.ndarray]:
        self.entered.set()
        assert self.gate.acquire(timeout=60)
        return super().logits(requests)

    async def step(self) -> None:
        """One pass; returns when its callers have their answers and the next has begun."""
        self.entered.clear()
        self.gate.release()
        while not self.entered.is_set():
            await asyncio.sleep(0)
        await asyncio.sleep(0.001)


async def check_newcomers(kind: type[Scheduler]) -> None:
    """One key has 10,000 rows waiting, in requests of up to 1,000; who comes then waits for the pass it meets,
    and has half of every one from there on.
    """
    with Steps() as model:
        scheduler = kind(model, max_waiting=10**6)
        backlog = [submit(scheduler, model, 10 + n, 1000, "greedy") for n in range(10)]
        while not model.entered.is_set():
            await asyncio.sleep(0)
        for n, count in enumerate([1, 1, BATCH // 2, BATCH, 5 * BATCH], 1):
            newcomer = submit(scheduler, model, n, count, f"honest {n}")
            await asyncio.sleep(0)
            for _ in range(1 + math.ceil(2 * count / BATCH)):
                assert not newcomer.done()
                await model.step()
            assert newcomer.done()
        assert not any(request.done() for request in backlog), "and the 10,000 are not through"
        served = Counter(int(value) for group in model.passes for value in group)
        assert sum(served[n] for n in range(10, 20)) >= BATCH / 2 * (len(model.passes) - 1), "nor do they starve"
        for request in backlog:
            request.cancel()
        model.gate.release(10**4)
        await scheduler.close()


def test_ten_thousand_rows_of_one_key_hold_up_nobody() -> None:
    run(check_newcomers(Scheduler))


@pytest.mark.parametrize("unfair", [FirstComeFirstServed, TurnsOfPasses])
def test_a_newcomer_that_is_held_up_is_noticed(unfair: type[Scheduler]) -> None:
    with pytest.raises(AssertionError):
        run(check_newcomers(unfair))


# The bound of the queue


async def fill(scheduler: Scheduler, model: Model, key: str, name: int, count: int = 1) -> tuple[int, Refusal]:
    """Rows that a key gets into the queue until it is refused, and what it is then told."""
    for held in range(10**4):
        try:
            scheduler.admit(key, count)
        except Refusal as refusal:
            return held * count, refusal
        submit(scheduler, model, name, count, key)
        await asyncio.sleep(0)
    raise AssertionError("the queue has no bound")


FULL = "the queue of this model is full: try again"
SHARE = "this key's share of the queue of this model is full: try again"


async def check_bound(kind: type[Scheduler], greedy: int, most: int) -> None:
    """However many keys fill the queue, there is room for the next; and as it moves, they come to equal shares."""
    with Steps() as model:
        scheduler = kind(model, max_waiting=most)
        await busy(scheduler, model)
        keys = {n: f"greedy {n}" for n in range(1, greedy + 1)}
        for n, key in keys.items():
            await fill(scheduler, model, key, n)
            more, told = await fill(scheduler, model, key, n)
            assert (more, told.sentence, told.reason) == (0, SHARE, Reason.QUEUE_FULL)
            assert (told.charged, told.retry_after) == (0, 0.1)
            free = most - sum(line.rows for line in scheduler._lines.values())
            assert free >= most // 3**n, "each leaves a third of what there was"
            scheduler.admit("honest", free)
            with pytest.raises(Refusal, match=FULL):
                scheduler.admit("honest", free + 1)
        for _ in range(3 * most // BATCH):
            await model.step()
            for n, key in reversed(keys.items()):
                await fill(scheduler, model, key, n)
        held = [line.rows for line in scheduler._lines.values()]
        assert max(held) <= 2 * most / (2 * greedy + 1) + BATCH
        assert most - sum(held) >= most / (2 * greedy + 1) - BATCH
        model.gate.release(10**4)
        await scheduler.close()


@pytest.mark.parametrize(("greedy", "most"), [(1, 10), (1, 300), (2, 300), (4, 400)])
def test_no_key_fills_the_queue_for_the_others(greedy: int, most: int) -> None:
    run(check_bound(Scheduler, greedy, most))


class FirstComeFillsIt(Scheduler):
    def admit(self, key_id: str, rows: int) -> None:
        super().admit("whoever", rows)


def test_a_queue_that_one_key_fills_is_noticed() -> None:
    with pytest.raises(AssertionError):
        run(check_bound(FirstComeFillsIt, 1, 300))


def test_more_than_the_queue_holds_is_never_refused_for_good() -> None:
    async def scenario() -> None:
        model = Model()
        scheduler = Scheduler(model, max_waiting=10)
        scheduler.admit("k", 11)
        first = await busy(scheduler, model)
        scheduler.admit("k", 11)
        waiting = submit(scheduler, model, 1, 11)
        await asyncio.sleep(0)
        with pytest.raises(Refusal, match=FULL):
            scheduler.admit("other", 1)
        waiting.cancel()
        await asyncio.sleep(0)
        scheduler.admit("other", 10)  # what has left does not count
        model.go.set()
        await first
        await scheduler.close()

    run(scenario())
