"""Dynamic batches: who queued shares the next pass, whoever has more waiting; who left is never charged, everybody
gets the own answer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from oracle_server.errors import Reason, Refusal
from oracle_server.jobs import Piece
from oracle_server.scheduler import Scheduler
from tests.oracle_server.schedules import (
    BATCH,
    NAN,
    RAISE,
    FirstComeFirstServed,
    Model,
    TurnsOfPasses,
    busy,
    rows,
    run,
    submit,
)


@dataclass(frozen=True)
class Ask:
    """A request of a plan; `leaves`: its caller does not wait for the answer."""

    key: str
    count: int
    leaves: bool = False


async def check_schedule(kind: type[Scheduler], plan: list[Ask]) -> None:
    """While a pass is on its way the requests of `plan` queue; then it ends.

    Passes are full as long as rows wait, and hold each row of the requests that stayed once, in order within a key.
    Between the start and any later pass, no key had two rows more than one that still waits: so a request is through
    after the passes that the module's docstring says. Each starts once, before its first row, and gets its own answer;
    who left is neither started nor seen by the model.
    """
    model = Model()
    scheduler = kind(model, max_waiting=10**6)
    tasks = [await busy(scheduler, model)]
    tasks += [submit(scheduler, model, n, ask.count, ask.key) for n, ask in enumerate(plan, 1)]
    await asyncio.sleep(0)
    for task, ask in zip(tasks[1:], plan, strict=True):
        if ask.leaves:
            task.cancel()
    await asyncio.sleep(0)  # in which they leave
    model.go.set()
    answers = await asyncio.gather(*tasks, return_exceptions=True)
    await scheduler.close()
    asked = {n: ask for n, ask in enumerate([Ask("first", 1), *plan]) if not ask.leaves}
    for n, answer in enumerate(answers):
        if n in asked:
            assert np.array_equal(answer, Model.answer(rows(n, asked[n].count)))
        else:
            assert isinstance(answer, asyncio.CancelledError)
    check_passes(model.passes, asked)
    assert sorted(name for what, name in model.events if what == "start") == sorted(asked), "charged once each"
    for n in asked:
        assert model.events.index(("start", n)) < model.events.index(("pass", n))


def check_passes(passes: list[list[float]], asked: dict[int, Ask]) -> None:
    """The passes of a schedule against the requests that stayed, which all waited from the end of the first pass on."""
    keys = {ask.key for n, ask in asked.items() if n}
    waiting = {key: [v for n, ask in asked.items() if ask.key == key for v in rows(n, ask.count)[:, 0]] for key in keys}
    seen: dict[str, list[float]] = {key: [] for key in keys}
    for number, group in enumerate(passes[1:], 1):
        left = sum(len(waiting[key]) - len(seen[key]) for key in keys)
        assert len(group) == min(BATCH, left), "full, as long as rows wait"
        for value in group:
            assert int(value) in asked, "nobody who left"
            seen[asked[int(value)].key].append(value)
        most = max(map(len, seen.values()))
        for key in keys:
            assert len(seen[key]) == len(waiting[key]) or len(seen[key]) >= most - 1, "dealt out fairly"
            through = min(len(waiting[key]), number * BATCH // len(keys))  # m + n rows after ceil((m + n) K / batch)
            assert len(seen[key]) >= through
    assert seen == waiting, "in order, and once"


PLAN = st.builds(Ask, st.sampled_from("abcdefghij"), st.integers(1, 3 * BATCH), st.booleans())


@settings(max_examples=100)
@given(st.lists(PLAN, max_size=16))
def test_any_queue_is_served_in_full_passes_dealt_out_between_its_keys(plan: list[Ask]) -> None:
    run(check_schedule(Scheduler, plan))


class ChargesOnArrival(Scheduler):
    async def logits(self, key_id: str, inputs: np.ndarray, start: Callable[[], object]) -> np.ndarray:
        start()
        return await super().logits(key_id, inputs, lambda: None)


class ServesWhoLeft(Scheduler):
    async def logits(self, key_id: str, inputs: np.ndarray, start: Callable[[], object]) -> np.ndarray:
        return await asyncio.shield(asyncio.ensure_future(super().logits(key_id, inputs, start)))


class OneByOne(Scheduler):
    def __init__(self, model: Any, max_waiting: int) -> None:
        super().__init__(model, max_waiting)
        model.batch = 1


class Overfull(Scheduler):
    def __init__(self, model: Any, max_waiting: int) -> None:
        super().__init__(model, max_waiting)
        model.batch = 100


class LastComeFirst(Scheduler):
    def _take(self) -> list[Piece]:
        for line in self._lines.values():
            line.jobs.move_to_end(next(reversed(line.jobs)), last=False)
        return super()._take()


class ForgetsWhoseTurnItWas(Scheduler):
    """The first keys get what does not go round evenly, in every pass."""

    def _shares(self, places: int) -> dict[str, int]:
        order = list(self._lines)
        shares = super()._shares(places)
        for key_id in order:
            self._lines.move_to_end(key_id)
        return shares


BROKEN = [ChargesOnArrival, ServesWhoLeft, OneByOne, Overfull, LastComeFirst]
UNFAIR = [FirstComeFirstServed, TurnsOfPasses, ForgetsWhoseTurnItWas]


@pytest.mark.parametrize("broken", [*BROKEN, *UNFAIR])
def test_a_broken_schedule_is_caught(broken: type[Scheduler]) -> None:
    plan = [Ask("a", 3), Ask("a", 2, leaves=True), Ask("a", 4), Ask("a", 30), Ask("b", 5), Ask("b", 9), Ask("c", 7)]
    run(check_schedule(Scheduler, plan))
    with pytest.raises(AssertionError):
        run(check_schedule(broken, plan))


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
    run(check_schedule(Scheduler, [Ask("a", 1)] * BATCH))


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


async def sizes(waiting: int, grain: int | None) -> list[int]:
    """Rows of each pass, with so many waiting when a pass of one row ends."""
    model = Model()
    scheduler = Scheduler(model, max_waiting=100, grain=grain)
    first = await busy(scheduler, model)
    tasks = [submit(scheduler, model, name) for name in range(1, waiting + 1)]
    await asyncio.sleep(0)
    model.go.set()
    await asyncio.gather(first, *tasks)
    await scheduler.close()
    return [len(values) for values in model.passes[1:]]


@pytest.mark.parametrize(
    ("waiting", "grain", "expected"),
    [
        (BATCH, None, [BATCH]),  # all that waits, where small passes are dear
        (BATCH, 6, [6, 2]),
        (BATCH, 2, [5, 3]),  # half of what is under way, so that one half asks while the other is computed
        (1, 2, [1]),  # a lone caller waits for nobody
        (5 * BATCH, 2, [BATCH] * 5),
    ],
)
def test_a_pass_has_half_of_the_rows_under_way(waiting: int, grain: int | None, expected: list[int]) -> None:
    async def scenario() -> None:
        assert await sizes(waiting, grain) == expected

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


def test_a_large_request_is_charged_once_and_goes_no_further_than_its_first_failure() -> None:
    async def scenario() -> None:
        model = Model()
        model.go.set()
        scheduler = Scheduler(model, max_waiting=100)
        large = rows(1, 5 * BATCH)
        large[BATCH + 1] = NAN
        starts: list[int] = []
        with pytest.raises(Refusal) as caught:
            await scheduler.logits("k", large, lambda: starts.append(1))
        check_failed(caught.value)
        assert starts == [1]
        assert len(model.passes) <= 3, "the pass that failed, and one that had begun by then"
        assert np.array_equal(await submit(scheduler, model, 9), [[9, 81]]), "and goes on"
        await scheduler.close()

    run(scenario())
