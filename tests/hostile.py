"""Hostile clients in processes of their own, honest callers beside them, and what the server has in hand meanwhile."""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import grpc
import numpy as np

from protos.mirage.v1 import oracle_pb2 as pb
from tests.serving import Caller, Server

__all__ = ["Honest", "Hostile", "ask", "descriptors", "resident"]

_UNDER_WAY = 3  # calls of an honest client, as the attacker's own keeps
_PATIENCE = 120.0  # seconds that an honest call may take before the run is given up


class Hostile:
    """One kind of load on a server (`tests.hostile_loads`): `count` of it, `rate` a second where it has a rate."""

    def __init__(self, server: Server, kind: str, count: int, rate: float, row: np.ndarray, model: str) -> None:
        access = "weights" if kind == "slow_readers" else "scores"
        caller = server.new_key(access, model, rate=10.0 if kind == "floods_above_the_rate" else None)
        key = f"mirage_{secrets.token_hex(8)}_{secrets.token_hex(32)}" if kind == "bad_keys" else caller.key
        self.key_id = caller.key_id
        words = [kind, str(server.port), str(count), str(rate)]
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.hostile_loads", *words],
            cwd=Path(__file__).parents[1],
            env=os.environ | {"OMP_NUM_THREADS": "1"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._say(json.dumps({"key": key, "request": caller.request(row).SerializeToString().hex()}))

    def _say(self, line: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{line}\n")
        self._process.stdin.flush()

    def _order(self, order: str) -> dict[str, int]:
        self._say(order)
        assert self._process.stdout is not None
        counted: dict[str, int] = json.loads(self._process.stdout.readline())
        return counted

    def on(self) -> dict[str, int]:
        """Begin; returns when all of the load is there, with what was sent and what the server has ended."""
        return self._order("on")

    def off(self) -> dict[str, int]:
        """End; returns when all of it is gone from this side."""
        return self._order("off")

    def __enter__(self) -> Hostile:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._process.communicate()


@dataclass(frozen=True)
class Honest:
    """What honest callers got: calls answered, rows a second, and the longest that a call took."""

    calls: int
    rows_a_second: float
    longest_wait: float


def ask(callers: Sequence[Caller], rows: np.ndarray, seconds: float, rows_a_second: float | None = None) -> Honest:
    """Each caller asks for `rows`, three calls under way: without pause, or all of them together for `rows_a_second`.
    Answers count for so many seconds, after half as many that do not. Any call that is not answered raises.
    """
    interval = 0.0 if rows_a_second is None else len(callers) * len(rows) / rows_a_second
    answered: list[tuple[float, float]] = []  # when, and after how long
    lock = threading.Lock()
    begun = time.monotonic() + seconds / 2
    end = begun + seconds

    def one(caller: Caller) -> None:
        under_way: deque[grpc.Future] = deque()
        first, sent = time.monotonic(), 0
        while time.monotonic() < end:
            time.sleep(max(0.0, first + sent * interval - time.monotonic()))
            if len(under_way) == _UNDER_WAY:
                under_way.popleft().result()
            under_way.append(_send(caller, caller.request(rows), answered, lock))
            sent += 1
        for call in under_way:
            call.result()

    with ThreadPoolExecutor(len(callers)) as pool:
        for done in [pool.submit(one, caller) for caller in callers]:
            done.result()
    within = sum(begun <= when < end for when, _ in answered)
    return Honest(len(answered), within * len(rows) / seconds, max(wait for _, wait in answered))


def _send(
    caller: Caller, request: pb.PredictRequest, answered: list[tuple[float, float]], lock: threading.Lock
) -> grpc.Future:
    start = time.monotonic()

    def note(_: grpc.Future) -> None:
        with lock:
            answered.append((time.monotonic(), time.monotonic() - start))

    call = caller.stub.Predict.future(request, metadata=caller.metadata, timeout=_PATIENCE)
    call.add_done_callback(note)
    return call


def resident(server: Server) -> int:
    """Bytes of memory that a server's process holds."""
    pages = int(Path(f"/proc/{server.process.pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def descriptors(server: Server) -> int:
    """Files and connections that a server's process has open."""
    return len(os.listdir(f"/proc/{server.process.pid}/fd"))
