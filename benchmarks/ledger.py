"""What the durable charge of every answer costs."""

from __future__ import annotations

from dataclasses import replace

from benchmarks.callers import Callers
from benchmarks.common import BATCH, IN_FLIGHT, THREADS, Rig, Served
from benchmarks.readings import added, alternated, over
from benchmarks.two_ledgers import IN_MEMORY
from benchmarks.worker import Run
from referee.report.summary import Figure

__all__ = ["measure"]



def measure(server: Served, rig: Rig) -> list[Figure]:
    """What it costs of the throughput, on disk over in memory, of requests of 64 rows; and what it adds to the median
    request of one caller, who asks for a row as soon as the last is answered. Of each the worse of two models, too.

    One server has both ledgers; the key says which.
    """
    rates, waits = {}, {}
    for model in ("softmax", "cnn"):
        rates[model] = over(f"bench/ledger/{model}/on_over_off", _on_and_off(server, rig, model, IN_FLIGHT, BATCH))
        waits[model] = added(f"bench/ledger/{model}/added_median_ms", _on_and_off(server, rig, model, 1, 1))
    slower = min(rates, key=lambda model: rates[model].value)
    longer = max(waits, key=lambda model: waits[model].value)
    return [
        _worse(rates[slower], slower, "bench/ledger/on_over_off", at_least=0.95),
        *rates.values(),
        _worse(waits[longer], longer, "bench/ledger/added_median_ms", at_most=0.3),
        *waits.values(),
    ]


def _worse(figure: Figure, model: str, name: str, **bound: float) -> Figure:
    return replace(figure, name=name, extra={**figure.extra, "model": model, "threads": THREADS}, **bound)


def _on_and_off(server: Served, rig: Rig, model: str, callers: int, rows: int) -> list[tuple[Run, Run]]:
    """Runs of the same load, charged on disk and in memory."""
    loads = [server.load(model, rig.shapes[model], callers, rows, label=label) for label in ("", IN_MEMORY)]
    with Callers(loads[0]) as on, Callers(loads[1]) as off:
        return alternated((lambda: on.run(rig.seconds), lambda: off.run(rig.seconds)), rig.rounds)
