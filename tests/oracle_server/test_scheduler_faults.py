"""Whatever a model raises, its queue goes on; a pass that wants too much memory is made in smaller ones."""

from __future__ import annotations

import asyncio
import math

import numpy as np
import pytest
import torch

from oracle_server.errors import Reason, Refusal
from oracle_server.scheduler import Scheduler
from tests.oracle_server.schedules import BATCH, Model, busy, rows, run, submit

OUT_OF_MEMORY = [
    MemoryError(),
    RuntimeError("[enforce fail at alloc_cpu.cpp:118] DefaultCPUAllocator: can't allocate memory"),
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
]


class Limited(Model):
    """Raises `error` on more than `fits` rows at once."""

    def __init__(self, fits: int, error: BaseException) -> None:
        super().__init__()
        self.fits, self.error = fits, error
        self.go.set()

    def logits(self, requests: list[np.ndarray]) -> list[np.ndarray]:
        answers = super().logits(requests)
        if sum(map(len, requests)) > self.fits:
            raise self.error
        return answers


async def outcomes(model: Model, *counts: int) -> list[object]:
    """What requests of so many rows get that share a pass as far as they fit in."""
    scheduler = Scheduler(model, max_waiting=1000)
    model.go.clear()
    first = await busy(scheduler, model)
    tasks = [submit(scheduler, model, name, count) for name, count in enumerate(counts, 1)]
    await asyncio.sleep(0)
    model.go.set()
    found = await asyncio.gather(*tasks, return_exceptions=True)
    assert np.array_equal(await first, Model.answer(rows(0)))
    model.fits = BATCH
    assert np.array_equal(await submit(scheduler, model, 99), Model.answer(rows(99))), "the queue has stopped"
    await scheduler.close()
    return list(found)


def failed(outcome: object) -> bool:
    return isinstance(outcome, Refusal) and outcome.reason is Reason.MODEL_FAILED


@pytest.mark.parametrize("error", OUT_OF_MEMORY, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("fits", [1, 3])
def test_a_batch_that_is_too_large_for_the_memory_is_made_in_smaller_ones(error: BaseException, fits: int) -> None:
    async def scenario() -> None:
        counts = (2, 1, BATCH, 3)
        for name, (count, outcome) in enumerate(
            zip(counts, await outcomes(Limited(fits, error), *counts), strict=True)
        ):
            assert np.array_equal(outcome, Model.answer(rows(name + 1, count)))

    run(scenario())


def test_rows_that_fit_nowhere_fail_and_the_queue_goes_on() -> None:
    class OneRow(Limited):
        def logits(self, requests: list[np.ndarray]) -> list[np.ndarray]:
            if any(math.floor(request[0, 0]) == 1 for request in requests):
                raise MemoryError
            return super().logits(requests)

    async def scenario() -> None:
        large, small = await outcomes(OneRow(BATCH, MemoryError()), 4, 2)
        assert failed(large)
        assert np.array_equal(small, Model.answer(rows(2, 2)))

    run(scenario())


@pytest.mark.parametrize("error", [RuntimeError("shapes differ"), StopIteration(), SystemExit(1), GeneratorExit()])
def test_what_no_smaller_pass_helps_is_tried_alone_and_no_further(error: BaseException) -> None:
    async def scenario() -> None:
        model = Limited(3, error)
        large, small = await outcomes(model, 4, 2)
        assert failed(large)
        assert np.array_equal(small, Model.answer(rows(2, 2)))
        assert [len(taken) for taken in model.passes] == [1, 6, 4, 2, 1]

    run(scenario())


def test_a_start_that_fails_is_its_callers_alone() -> None:
    async def scenario() -> None:
        model = Model()
        scheduler = Scheduler(model, max_waiting=1000)
        first = await busy(scheduler, model)

        def start() -> None:
            raise OSError("no thread")

        bad = asyncio.create_task(scheduler.logits("k", rows(1), start))
        good = submit(scheduler, model, 2)
        await asyncio.sleep(0)
        model.go.set()
        with pytest.raises(OSError, match="no thread"):
            await bad
        assert np.array_equal(await good, Model.answer(rows(2)))
        await first
        await scheduler.close()

    run(scenario())
