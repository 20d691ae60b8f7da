"""What the server's faults cost: kills under load, a restart on a long ledger, any sequence of what happens to it.

Harness and state machine are those of the tests; here the series are long.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import grpc
from hypothesis import settings
from hypothesis.stateful import run_state_machine_as_test

from benchmarks.common import Rig
from benchmarks.filled import fill
from oracle_server.ledger import SqliteLedger
from oracle_server.operator import ledger_path
from referee.report.summary import Figure
from tests.broken_ledgers import BROKEN, is_caught
from tests.hosted import host_models
from tests.kills import MODELS, kill_series
from tests.ledger_machine import SETTINGS, ledger_machine
from tests.serving import Caller, Forker, Server, inputs

__all__ = ["measure"]

_WRITING_SECONDS = 0.5


def measure(
    rig: Rig, kills: int = 200, lines: int = 1_000_000, restarts: int = 5, examples: int = 1_000
) -> list[Figure]:
    """Kills under load and violations of the ledger's laws; seconds of a restart on `lines` of the log, the worst of
    `restarts`; examples of the ledger's state machine, and the broken ledgers that it catches.
    """
    roots = {name: rig.folder / name for name in ("kills", "long", "empty")}
    for root in roots.values():
        host_models(root, *MODELS)
    with contextlib.closing(Forker(roots["kills"] / "models" / "linear" / "1" / "model.pt2")) as forker:
        return [
            *_kills(forker, roots["kills"], kills),
            _restart(forker, roots["long"], roots["empty"], lines, restarts),
            *_machine(examples),
        ]


def _kills(forker: Forker, root: Path, kills: int) -> list[Figure]:
    started = time.monotonic()
    with contextlib.closing(Server(forker, root)) as server:
        outcome = kill_series(server, kills)
    counts = {
        "answered": outcome.answered,
        "recovered": outcome.recovered,
        "asked_again": outcome.asked_again,
        "budget_refusals": outcome.budget_refusals,
        "downloads": outcome.downloads,
        "seconds": time.monotonic() - started,
    }
    found = {"examples": outcome.violations[:5]}
    return [
        Figure("faults/server_kills", outcome.kills, "kills", at_least=200, extra=counts),
        *(
            Figure(name, len(outcome.violations), "violations", at_most=0, extra=found)
            for name in ("faults/violations", "faults/server_kills/violations")
        ),
    ]


def _restart(forker: Forker, long: Path, empty: Path, lines: int, restarts: int) -> Figure:
    """Seconds from the start of the server's process to its first answer, of a process that has imported its code: it
    is forked from one that has. With imports, and with an empty ledger, in `extra`.
    """
    key = fill(ledger_path(long), "linear/1", lines=lines)[-1]
    with contextlib.closing(Server(forker, empty)) as server:
        nothing = list(_restarts(server, server.new_key(), restarts))
    with contextlib.closing(Server(forker, long)) as server:
        caller = Caller(server, key, key.split("_")[1])
        seconds = list(_restarts(server, caller, restarts))
        logged = caller.predict(inputs(1)).receipt.sequence
        server.kill()
        whole = _whole_command(server, caller)
    extra = {
        "lines": logged,
        "readings": seconds,
        "empty_ledger": nothing,
        "whole_command_with_imports": whole,
    }
    return Figure("faults/restart_seconds", max(seconds), "seconds", at_most=2, extra=extra)


def _restarts(server: Server, caller: Caller, restarts: int) -> Iterator[float]:
    """Kill the server while it writes, so that a log is left to recover, and start it again."""
    for _ in range(restarts):
        _kill_while_writing(server, caller)
        started = time.monotonic()
        server.start()
        caller.predict(inputs(1))
        yield time.monotonic() - started


def _kill_while_writing(server: Server, caller: Caller) -> None:
    def ask() -> None:
        with contextlib.suppress(grpc.RpcError):
            while True:
                caller.predict(inputs(1))

    thread = threading.Thread(target=ask)
    thread.start()
    time.sleep(_WRITING_SECONDS)
    server.process.kill()
    thread.join()
    assert ledger_path(server.root).with_name("ledger.db-wal").stat().st_size, "nothing was left to recover"
    server.kill()


def _whole_command(server: Server, caller: Caller) -> float:
    """Seconds of `python -m oracle_server serve` to its first answer, imports included."""
    words = ["serve", "--root", str(server.root), "--port", "0", "--device", "cpu"]
    started = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, "-m", "oracle_server", *words], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    with process:
        assert process.stdout is not None
        address = process.stdout.readline().split()[-1]
        with grpc.insecure_channel(address) as channel:
            server.channel = channel
            caller.predict(inputs(1))
        seconds = time.monotonic() - started
        process.kill()
    return seconds


def _machine(examples: int) -> list[Figure]:
    machine = ledger_machine(SqliteLedger)
    failure = None
    try:
        run_state_machine_as_test(machine, settings=settings(SETTINGS, max_examples=examples, database=None))
    except AssertionError as error:
        failure = str(error) or "an assertion failed"
    run = 0 if failure else machine.examples
    return [
        Figure("ledger/state_machine_examples", run, "examples", at_least=1_000, extra={"failure": failure}),
        Figure(
            "ledger/state_machine_examples/broken_caught",
            sum(map(is_caught, BROKEN)),
            "ledgers",
            at_least=len(BROKEN),
        ),
    ]
