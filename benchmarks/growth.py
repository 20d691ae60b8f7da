"""What grows with connections, keys, lines of the ledger, and time: neither the cost of a row nor the memory.

The cost of a row is the time of all processors that the server's process took for it, by its own clock. Time on the
wall would be no measure of the server: its callers share the machine and have more to do themselves with more
connections. It is told beside it, `wall`, as the ratio of rows a second. Rows are counted by the ledger. Rows of the
softmax model are asked one by one, since a cost by the call is diluted by larger requests.

Two servers that are compared both run all the time, and are asked by turns; who is not asked does nothing.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median

from benchmarks.callers import Callers, Load
from benchmarks.common import Rig
from benchmarks.filled import fill
from benchmarks.readings import alternated, middle
from oracle_server.operator import ledger_path
from referee.report.summary import Figure
from tests.hosted import host_models
from tests.serving import Forker, Server

__all__ = ["measure"]

_MODEL, _CALLERS = "softmax", 32
_BOUND = 1.1
_FEW_LINES = 1_000
_ASKED = 1_000  # of many keys, so that each was asked before when its cost is read
_FEW_ROUNDS = 3
_PARTS = 10  # of the time in which memory is looked at; the first is the warm-up


def measure(
    rig: Rig, connections: int = 256, keys: int = 100_000, lines: int = 1_000_000, seconds: float = 600.0
) -> list[Figure]:
    """The cost of a row with so many connections over one, with so many keys over one, with so many lines of the log
    over a thousand; the server's memory after so many seconds at full load, over what it was after a tenth of them.
    """
    rig = replace(rig, folder=rig.folder / "growth")
    host_models(rig.folder / "warm", "linear")
    archive = rig.folder / "warm" / "models" / "linear" / "1" / "model.pt2"
    with closing(Forker(archive)) as forker:
        places = _Places(rig, forker)
        return [
            _connections(places, connections),
            _keys(places, keys),
            _lines(places, lines),
            _memory(places, seconds),
        ]


@dataclass(frozen=True)
class _Cost:
    """Seconds a row: of the server's processors, and on the wall."""

    cpu: float
    wall: float


@dataclass(frozen=True)
class _Places:
    """Where servers are started."""

    rig: Rig
    forker: Forker

    def start(self, name: str, stack: ExitStack, keys: int = 1, lines: int = 0) -> _Place:
        """A server, until the stack is left, whose ledger has so many keys and lines."""
        root = Rig(self.rig.folder / name, quick=self.rig.quick).models(_MODEL)
        tokens = fill(ledger_path(root), f"{_MODEL}/1", keys, lines)
        server = stack.enter_context(closing(Server(self.forker, root)))
        return _Place(server, tokens, self.rig.shapes[_MODEL], stack)


class _Place:
    """A running server whose ledger has a past."""

    def __init__(self, server: Server, tokens: list[str], shape: tuple[int, ...], stack: ExitStack) -> None:
        self._ledger, self._shape, self._tokens, self._stack = ledger_path(server.root), shape, tokens, stack
        self._address, self._pid = server.address, server.process.pid

    def load(self, callers: int = _CALLERS, connections: int = 0, keys: slice = slice(None)) -> Callers:
        """Callers who share these keys of the ledger, in turns."""
        keys_ = tuple(self._tokens[keys])
        load = Load("mirage", self._address, self._shape, callers, keys=keys_, connections=connections)
        return self._stack.enter_context(Callers(load))

    def cost(self, callers: Callers, seconds: float) -> Callable[[], _Cost]:
        def reading() -> _Cost:
            cpu, charged = self._cpu(), self._charged()
            run = callers.run(seconds)
            return _Cost((self._cpu() - cpu) / (self._charged() - charged), 1 / run.rows_a_second)

        return reading

    def _cpu(self) -> float:
        """Seconds of processor time that the server's process has taken: the clock that Linux keeps for it."""
        return time.clock_gettime(~self._pid << 3 | 2)

    def _charged(self) -> int:
        """Rows of the log: each request has one."""
        with closing(sqlite3.connect(f"{self._ledger.absolute().as_uri()}?mode=ro", uri=True)) as ledger:
            (lines,) = ledger.execute("SELECT coalesce(max(sequence), 0) FROM log").fetchone()
        return int(lines)

    @property
    def resident(self) -> int:
        """Bytes of the server's memory."""
        (line,) = (text for text in Path(f"/proc/{self._pid}/status").read_text().splitlines() if "VmRSS" in text)
        return 1024 * int(line.split()[1])


def _connections(places: _Places, connections: int) -> Figure:
    """As many callers at once, each on a connection of its own, over the same on one."""
    with ExitStack() as stack:
        rig, place = places.rig, places.start("together", stack)
        many, one = (place.cost(place.load(connections, shared), rig.seconds) for shared in (connections, 1))
        return _growth("connections", many, one, rig.rounds, callers=connections)


def _keys(places: _Places, keys: int) -> Figure:
    """A thousand of the keys by turns, over one key alone; beside it, `first_calls`, a new one of the keys each time,
    which the server has to read.
    """
    with ExitStack() as stack:
        rig, pair = places.rig, [places.start(name, stack, keys=n) for name, n in (("keys", keys), ("key", 1))]
        step = max(1, keys // _ASKED)
        loads = [pair[0].load(keys=some) for some in (slice(0, None, step), slice(1, None))]
        many, new = (pair[0].cost(load, rig.seconds) for load in loads)
        one = pair[1].cost(pair[1].load(), rig.seconds)
        first = alternated((new, one), min(rig.rounds, _FEW_ROUNDS))
        many()  # and once more before the rounds that count: by then all of them are known
        told = {"keys": keys, "asked": len(range(0, keys, step)), "callers": _CALLERS}
        return _growth("keys", many, one, rig.rounds, first_calls=median(a.cpu / b.cpu for a, b in first), **told)


def _lines(places: _Places, lines: int) -> Figure:
    """The same keys on a long ledger, over those on a short one."""
    with ExitStack() as stack:
        lengths = (("long", lines), ("short", min(lines, _FEW_LINES)))
        pair = [places.start(name, stack, keys=_CALLERS, lines=length) for name, length in lengths]
        long, short = (place.cost(place.load(), places.rig.seconds) for place in pair)
        return _growth("rows", long, short, places.rig.rounds, lines=lines, callers=_CALLERS)


def _growth(name: str, much: Callable[[], _Cost], little: Callable[[], _Cost], rounds: int, **told: float) -> Figure:
    pairs = alternated((much, little), rounds)
    value, low, high = middle([a.cpu / b.cpu for a, b in pairs])
    extra = {
        "first": 1e6 * median(a.cpu for a, _ in pairs),
        "second": 1e6 * median(b.cpu for _, b in pairs),
        "readings_unit": "us of cpu/row",
        "wall": median(a.wall / b.wall for a, b in pairs),
        "rounds": rounds,
    }
    return Figure(f"bench/growth/{name}", value, low=low, high=high, at_most=_BOUND, extra=extra | told)


def _memory(places: _Places, seconds: float) -> Figure:
    """What is resident at the end, over what is after the warm-up."""
    with ExitStack() as stack:
        place = places.start("hours", stack, keys=_CALLERS)
        callers, bytes_ = place.load(), []
        for _ in range(_PARTS):
            callers.run(seconds / _PARTS)
            bytes_.append(place.resident)
        logged = place._charged()
    extra = {"first": bytes_[-1] / 2**20, "second": bytes_[0] / 2**20, "readings_unit": "MiB"}
    told = {"seconds": seconds, "bytes": bytes_, "rows": logged, "callers": _CALLERS}
    return Figure("bench/growth/memory", bytes_[-1] / bytes_[0], at_most=_BOUND, extra=extra | told)
