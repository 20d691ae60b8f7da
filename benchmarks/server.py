"""How much of a model's own speed is left behind the server."""

from __future__ import annotations

import time
from statistics import median

from benchmarks.common import BATCH, Rig, Served
from benchmarks.readings import in_process, middle, paired, through_server
from referee.report.summary import Figure

__all__ = ["measure"]

_BOUNDS = {"cnn": ("batch64_over_in_process", 0.90), "softmax": ("softmax_batch64_over_in_process", None)}


def measure(server: Served, rig: Rig) -> list[Figure]:
    """Throughput through the server over the same archive called in process, and the latency of one row alone."""
    ratios = [_throughput(server, model, rig) for model in _BOUNDS]
    return ratios + [_latency(server, model, rig) for model in _BOUNDS]


def _throughput(server: Served, model: str, rig: Rig) -> Figure:
    (name, bound), rows = _BOUNDS[model], rig.noise(BATCH)
    wire = through_server(server.client(f"{model}/1"), rows, rig.seconds)
    direct = in_process(server.archive(f"{model}/1"), rows, rig.seconds)
    return paired(f"bench/server/{name}", wire, direct, rig.rounds, "rows/s", at_least=bound)


def _latency(server: Served, model: str, rig: Rig) -> Figure:
    """Milliseconds from one row to its answer when nothing else is asked: the median of each round's median."""
    client, row, calls = server.client(f"{model}/1"), rig.noise(1), max(10, int(100 * rig.seconds))

    def reading() -> float:
        seconds = []
        for _ in range(calls):
            start = time.perf_counter()
            client.query(row)
            seconds.append(time.perf_counter() - start)
        return 1000 * median(seconds)

    reading()
    value, low, high = middle([reading() for _ in range(rig.rounds)])
    return Figure(f"bench/server/{model}_one_row", value, "ms", low, high, extra={"rounds": rig.rounds})
