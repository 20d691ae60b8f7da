"""What the durable charge of every answer costs."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace

from benchmarks.callers import Callers, Run
from benchmarks.common import BATCH, IN_FLIGHT, THREADS, Rig, Served
from benchmarks.readings import added, alternated, over
from benchmarks.two_ledgers import IN_MEMORY
from referee.report.summary import Figure

__all__ = ["measure"]

_CALLERS = 32


def measure(server: Served, rig: Rig) -> list[Figure]:
    """Throughput with the ledger on disk over the same with a ledger in memory, of requests of 64 rows; and what the
    ledger adds to the median request of 32 callers with one row each, who together ask for all that the server can do.

    One server has both ledgers; the key says which.
    """
    rates = {
        model: over(f"bench/ledger/{model}/on_over_off", _on_and_off(server, rig, model, IN_FLIGHT, BATCH))
        for model in ("softmax", "cnn")
    }
    model, worse = min(rates.items(), key=lambda item: item[1].value)
    worse = replace(
        worse, name="bench/ledger/on_over_off", at_least=0.95, extra=worse.extra | {"model": model, "threads": THREADS}
    )
    crowd = _on_and_off(server, rig, "cnn", _CALLERS, 1)
    return [worse, *rates.values(), added("bench/ledger/added_median_ms", crowd, 0.3, model="cnn", callers=_CALLERS)]


def _on_and_off(server: Served, rig: Rig, model: str, callers: int, rows: int) -> list[tuple[Run, Run]]:
    with ExitStack() as stack:
        on, off = (
            stack.enter_context(Callers(server.load(model, rig.shapes[model], callers, rows, label=label)))
            for label in ("", IN_MEMORY)
        )
        return alternated((lambda: on.run(rig.seconds), lambda: off.run(rig.seconds)), rig.rounds)
