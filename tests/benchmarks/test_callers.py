"""The load of the benchmarks asks what it says it asks: every request is a new one, answered, and counted once."""

from __future__ import annotations

import pytest

from benchmarks.callers import Callers, Load, requests
from benchmarks.readings import added, over
from benchmarks.worker import Run
from tests.hosted import SHAPE
from tests.serving import Server


@pytest.mark.parametrize("dtype", ["float32", "uint8"])
def test_each_request_of_one_caller_is_counted_and_charged_once(server: Server, dtype: str) -> None:
    key = server.new_key()
    with Callers(Load("mirage", server.address, SHAPE, rows=3, dtype=dtype, keys=(key.key,))) as callers:
        runs = [callers.run(0.05) for _ in range(2)]
    answered = [1 + len(run.milliseconds) for run in runs]  # the first of a run is not in it
    assert min(answered) > 1
    assert key.usage().spent == 3 * sum(answered)
    for run in runs:
        assert len(run.milliseconds) - 1 < run.requests <= len(run.milliseconds)


def test_each_caller_has_a_key_of_its_own(server: Server) -> None:
    keys = [server.new_key() for _ in range(8)]
    load = Load("mirage", server.address, SHAPE, len(keys), keys=tuple(key.key for key in keys))
    with Callers(load) as callers:
        run = callers.run(0.2)
    spent = [key.usage().spent for key in keys]
    assert min(spent) > 1, "nobody only repeats a request, which would be free"
    assert sum(spent) >= len(keys) + len(run.milliseconds) >= run.requests


def test_a_refused_request_ends_the_run(server: Server) -> None:
    key = server.new_key(budget=5)
    load = Load("mirage", server.address, SHAPE, keys=(key.key,))
    with Callers(load) as callers, pytest.raises(RuntimeError, match="ended"):
        callers.run(5.0)
    assert key.usage().spent == 5


def test_requests_at_the_ends_of_a_run_count_by_their_part() -> None:
    bursts = [(n, n + 1.0) for n in range(10)] * 32  # 32 callers answered once a second, all at once
    for end in (5.9, 6.0, 6.1):
        assert requests(bursts, 0.5, end) == pytest.approx(32 * (end - 0.5))
    whole = [sum(0.5 < last <= end for _, last in bursts) for end in (5.9, 6.1)]
    assert whole == [160, 192], "the negative control: counting answers jumps by a burst"


def test_what_figures_say_of_runs() -> None:
    pairs = [
        (Run(10, 2.0, 4, (3.0, 5.0, 9.0)), Run(16, 1.0, 1, (1.0, 2.0))),
        (Run(8, 1.0, 4, (4.0,)), Run(8, 1.0, 1, (4.0,))),
    ]
    ratio, more = over("bench/x", pairs, 2.0, form="eager"), added("bench/y", pairs, 0.3)
    assert (ratio.low, ratio.value, ratio.high) == (20 / 16, (20 / 16 + 4) / 2, 4)
    assert (ratio.passed, ratio.extra["form"], ratio.extra["rounds"]) == (True, "eager", 2)
    assert (more.low, more.value, more.high, more.unit) == (0.0, 1.75, 3.5, "ms")
    assert not more.passed
