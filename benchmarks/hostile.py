"""What honest keys keep of their throughput while hostile ones do what they can, and what the server keeps of memory.

Four honest keys ask a CNN for 16 rows at a time, three calls under way each, without pause. Beside `waiting_rows`,
where the hostile key is a fifth caller of the same model and what all five get is a fifth each, they ask for half of
what the model can do: that is less than their four fifths, so all of it is theirs. The load comes from a process of its
own at low priority (`tests.hostile_loads`); floods have a rate.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

import numpy as np

from benchmarks.callers import noise
from benchmarks.common import Rig
from benchmarks.models import CLASSES
from benchmarks.readings import middle
from oracle_server.models.importing import Draft, host
from oracle_server.models.repository import Repository
from oracle_server.victims.cnn import Cnn
from referee.report.summary import Figure
from tests.hosted import host_models
from tests.hostile import Honest, Hostile, ask, descriptors, resident
from tests.serving import Caller, Forker, Server

__all__ = ["measure"]

_KEYS, _ROWS = 4, 16
_DEMAND = 0.5  # of the model's speed, beside waiting rows
_SHAPE = (1, 56, 46)
_SETTLE = 0.3  # seconds that a load has to arrive, and to go


@dataclass(frozen=True)
class _Load:
    """So many of a kind, at `rate` a second where it has one; `words` say what is counted."""

    kind: str
    count: int
    words: str
    rate: float = 1.0


_LOADS = (
    _Load("idle_connections", 2000, "connections"),
    _Load("half_open_streams", 2000, "streams, 100 on a connection"),
    _Load("trickling_bodies", 200, "connections, 500 bytes a second in all", 500),
    _Load("slow_readers", 500, "downloads by one key, 10 on a connection"),
    _Load("floods_above_the_rate", 1, "key of 10 rows a second that asks for 200", 200),
    _Load("bad_keys", 1, "unknown key that asks 200 times a second", 200),
    _Load("waiting_rows", 10_000, "rows of one key always on their way, 250 in a request", 250),
)


def measure(rig: Rig, part: float = 1.0) -> list[Figure]:
    """Shares of throughput and the growth of memory, with `part` of the number of each load.

    Memory is compared with that after a first round of all loads: what a server keeps of its first ten thousand rows is
    in the entry, as `since_start`; what it keeps of each further round is the growth.
    """
    root = rig.folder / "hostile"
    host_models(root, "linear")
    host(Cnn(CLASSES, _SHAPE).eval(), Repository(root), Draft("cnn", "1", _SHAPE))
    with contextlib.ExitStack() as stack:
        forker = stack.enter_context(contextlib.closing(Forker(root / "models" / "linear" / "1" / "model.pt2")))
        server = stack.enter_context(contextlib.closing(Server(forker, root)))
        callers, rows = [server.new_key(model="cnn") for _ in range(_KEYS)], noise((_ROWS, *_SHAPE))
        for _ in range(3):
            ask(callers, rows, rig.seconds)
        series = []
        for load in _LOADS:
            count = max(1, round(load.count * part))
            hostile = stack.enter_context(Hostile(server, load.kind, count, load.rate, rows[:1], "cnn"))
            series.append(_Series(load, hostile, callers, rows, rig.seconds))
        fresh = resident(server)
        for each in series:
            each.round()
        warm = resident(server)
        figures = [each.figure(rig.rounds) for each in series]
        after, files = resident(server), descriptors(server)
    worst = min(figures, key=lambda figure: figure.value)
    extra = {"kind": worst.name.rpartition("/")[2], "rounds": rig.rounds}
    memory = {"since_start": after / fresh, "megabytes": [n >> 20 for n in (fresh, warm, after)], "descriptors": files}
    return [
        Figure("hostile/honest_share", worst.value, low=worst.low, high=worst.high, at_least=0.8, extra=extra),
        *figures,
        Figure("hostile/memory_growth", after / warm, low=after / warm, high=after / warm, at_most=1.2, extra=memory),
    ]


@dataclass(frozen=True)
class _Series:
    """Rounds of honest throughput without a load and with it, in turn."""

    load: _Load
    hostile: Hostile
    callers: Sequence[Caller]
    rows: np.ndarray
    seconds: float

    def round(self) -> tuple[Honest, Honest, dict[str, int]]:
        """What the honest get with the load and without it, and what the load has counted so far."""
        demand = None
        if self.load.kind == "waiting_rows":
            demand = _DEMAND * ask(self.callers, self.rows, self.seconds).rows_a_second
        without = ask(self.callers, self.rows, self.seconds, demand)
        self.hostile.on()
        time.sleep(_SETTLE)
        beside = ask(self.callers, self.rows, self.seconds, demand)
        counted = self.hostile.off()
        time.sleep(_SETTLE)
        return beside, without, counted

    def figure(self, rounds: int) -> Figure:
        done = [self.round() for _ in range(rounds)]
        value, low, high = middle([beside.rows_a_second / without.rows_a_second for beside, without, _ in done])
        extra: dict[str, object] = {
            "first": median(beside.rows_a_second for beside, _, _ in done),
            "second": median(without.rows_a_second for _, without, _ in done),
            "readings_unit": "rows/s",
            "rounds": rounds,
            "load": f"{self.load.count:,} {self.load.words}",
            "longest_wait_seconds": max(beside.longest_wait for beside, _, _ in done),
            "longest_wait_seconds_without": max(without.longest_wait for _, without, _ in done),
            "hostile_calls": done[-1][2],
            "honest_demand": _DEMAND if self.load.kind == "waiting_rows" else "all they can get",
        }
        name = f"hostile/honest_share/{self.load.kind}"
        return Figure(name, value, low=low, high=high, at_least=0.8, extra=extra)
