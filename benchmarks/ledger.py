"""What the durable charge of every answer costs."""

from __future__ import annotations

import os
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from statistics import median

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
    flush = _flush_ms(rig.folder)
    slower = min(rates, key=lambda model: rates[model].value)
    longer = max(waits, key=lambda model: waits[model].value)
    return [
        _worse(rates[slower], slower, "bench/ledger/on_over_off", at_least=0.95),
        *rates.values(),
        _worse(waits[longer], longer, "bench/ledger/added_median_ms", flush_ms=flush, at_most=0.3),
        *waits.values(),
    ]


def _worse(figure: Figure, model: str, name: str, flush_ms: float | None = None, **bound: float) -> Figure:
    told = {"model": model, "threads": THREADS} | ({} if flush_ms is None else {"flush_ms": flush_ms})
    return replace(figure, name=name, extra=figure.extra | told, **bound)


def _flush_ms(folder: Path) -> float:
    """Milliseconds that the disk takes to have a page for good, at the median: what no ledger can do without."""
    times = []
    with tempfile.TemporaryFile(dir=folder, buffering=0) as file:
        for _ in range(100):
            file.write(bytes(4096))
            start = time.perf_counter()
            os.fdatasync(file.fileno())
            times.append(1000 * (time.perf_counter() - start))
    return median(times)


def _on_and_off(server: Served, rig: Rig, model: str, callers: int, rows: int) -> list[tuple[Run, Run]]:
    """Runs of the same load, charged on disk and in memory."""
    loads = [server.load(model, rig.shapes[model], callers, rows, label=label) for label in ("", IN_MEMORY)]
    with Callers(loads[0]) as on, Callers(loads[1]) as off:
        return alternated((lambda: on.run(rig.seconds), lambda: off.run(rig.seconds)), rig.rounds)
