"""Honest callers beside hostile ones, short: each kind of load leaves them all their answers, and nothing behind.

What it costs them in throughput is measured by `benchmarks/hostile.py`, with the same clients in longer series.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path

import grpc
import pytest

from protos.mirage.v1 import oracle_pb2 as pb
from protos.mirage.v1.oracle_pb2_grpc import OracleStub
from tests.fixtures import Start
from tests.hostile import Hostile, descriptors, resident
from tests.hostile_loads import KINDS
from tests.serving import Caller, Server, inputs

LOADS = {  # how much of each, and how much a second
    "idle_connections": (400, 1),
    "half_open_streams": (1500, 1),  # gRPC by itself cancels calls at random from a thousand on
    "trickling_bodies": (200, 400),
    "slow_readers": (200, 1),
    "floods_above_the_rate": (1, 200),
    "bad_keys": (1, 200),
    "waiting_rows": (1000, 50),  # in a request
}
CALLS = 40  # of each honest caller


def honest(server: Server, budget: int = CALLS) -> list[Caller]:
    return [server.new_key(budget=budget) for _ in range(4)]


def answered(callers: list[Caller]) -> list[pb.PredictResponse]:
    """What four honest callers are told who ask all at once; whoever is refused raises."""
    calls = [each.stub.Predict.future(each.request(inputs(1)), metadata=each.metadata) for each in callers * CALLS]
    return [call.result(timeout=60) for call in calls]


def eventually(holds: Callable[[], bool], seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.fixture(scope="module")
def loaded(server: Server) -> Server:
    """The module's server, warm."""
    answered(honest(server))
    return server


@pytest.mark.parametrize("kind", KINDS)
def test_all_honest_calls_are_answered_under_load_and_nothing_stays_behind(loaded: Server, kind: str) -> None:
    files, memory = descriptors(loaded), resident(loaded)
    model = "other" if kind == "slow_readers" else "linear"  # whose archive no window of HTTP/2 holds
    row = inputs(1, shape=(1, 64, 64)) if model == "other" else inputs(1)
    with Hostile(loaded, kind, *LOADS[kind], row, model) as hostile:
        hostile.on()
        responses = answered(honest(loaded))
        counted = hostile.off()
    assert [response.receipt.rows_charged for response in responses] == [1] * 4 * CALLS
    assert sum(response.receipt.budget_left == 0 for response in responses) == 4
    assert counted["sent"] >= (LOADS[kind][0] if LOADS[kind][0] > 1 else 5), "the load was there"
    spent = loaded.books().rows.get(hostile.key_id, 0)
    assert spent <= {"floods_above_the_rate": 60, "waiting_rows": counted["sent"]}.get(kind, 0)
    eventually(lambda: descriptors(loaded) <= files + 2)
    assert resident(loaded) < memory + (100 << 20)


def test_a_key_whose_downloads_hang_holds_a_few_files_and_has_the_next_when_they_are_gone(start: Start) -> None:
    """Many downloads that nobody reads, by one key; another key's is through meanwhile, and its own once they end."""
    server = start("other")
    files = descriptors(server)
    with Hostile(server, "slow_readers", 60, 1, inputs(1, shape=(1, 64, 64)), "other") as hostile:
        hostile.on()
        eventually(lambda: server.books().downloads.get(hostile.key_id, 0) == 4)
        assert len(list(server.new_key("weights", "other").download())) == 3
        assert server.books().downloads[hostile.key_id] == 4, "the others wait, and are not charged"
        assert descriptors(server) <= files + 6 + 4 + 4  # connections, files, and those of the callers here
        for held in (4, 8):
            hostile.off()
            hostile.on()
            eventually(lambda held=held: server.books().downloads[hostile.key_id] >= held + 4)
        hostile.off()
    eventually(lambda: descriptors(server) <= files + 2)


# The limit on open files

LIMIT = "import resource; resource.setrlimit(resource.RLIMIT_NOFILE, ({}, {}))"


def test_a_server_takes_as_many_connections_as_the_system_allows(start: Start) -> None:
    server = start(before=LIMIT.format(200, 300))
    (line,) = [n for n in Path(f"/proc/{server.process.pid}/limits").read_text().splitlines() if "open files" in n]
    assert line.split()[3:5] == ["300", "300"]


def test_at_the_limit_who_is_connected_is_served_and_who_is_not_comes_next(start: Start) -> None:
    server = start(before=LIMIT.format(200, 200))
    callers = honest(server, 2 * CALLS)
    assert len(answered(callers)) == 4 * CALLS
    with Hostile(server, "idle_connections", 400, 1, inputs(1), "linear") as hostile:
        hostile.on()
        eventually(lambda: "File descriptor limit reached" in server.process.log)
        assert len(answered(callers)) == 4 * CALLS, "on the connections that there are"
        hostile.off()
    with grpc.insecure_channel(server.address, [("grpc.use_local_subchannel_pool", 1)]) as channel:
        (caller, *_) = honest(server)
        response = OracleStub(channel).Predict(caller.request(inputs(1)), metadata=caller.metadata, timeout=60)
        assert response.receipt.rows_charged == 1


# Starvation: one key has many rows waiting, and an honest call is not behind them.

FIFO = """
import oracle_server.scheduler as module
of_each_key = module.Scheduler.logits
module.Scheduler.logits = lambda self, key_id, *asked: of_each_key(self, "everybody", *asked)
"""


def backlog(server: Server) -> tuple[Caller, list[Future[pb.PredictResponse]]]:
    """A key with twenty rows at a model that takes them one by one, the first of which has begun."""
    caller = server.new_key(model="slow")
    calls = [caller.stub.Predict.future(caller.request(inputs(5)), metadata=caller.metadata) for _ in range(4)]
    eventually(lambda: server.books().logged >= 5)
    return caller, calls


def before_the_backlog(server: Server) -> bool:
    """Whether an honest call that comes after a backlog is answered before it is through."""
    hostile, calls = backlog(server)
    server.new_key(model="slow").predict(inputs(1))
    through = all(call.done() for call in calls)
    rows = [call.result(timeout=60).receipt.rows_charged for call in calls]
    assert rows == [5] * 4, "and it is all answered too"
    assert server.books().rows[hostile.key_id] == 20
    return not through


@pytest.fixture
def slow(start: Start, request: pytest.FixtureRequest) -> Server:
    return start("slow", options=("--batch", "1"), before=request.param)


@pytest.mark.parametrize("slow", [""], indirect=True)
def test_an_honest_call_is_answered_before_the_backlog_of_another_key(slow: Server) -> None:
    assert before_the_backlog(slow)


@pytest.mark.parametrize("slow", [FIFO], indirect=True)
def test_a_queue_without_keys_starves_the_honest_call(slow: Server) -> None:
    """The negative control of the above."""
    assert not before_the_backlog(slow)
