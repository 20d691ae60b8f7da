"""What rows of bytes save, where a model's card takes them: a quarter of the message, and of all copies of it."""

from __future__ import annotations

from contextlib import ExitStack

from benchmarks.callers import Callers
from benchmarks.common import BATCH, IN_FLIGHT, THREADS, Rig, Served
from benchmarks.readings import alternated, over
from referee.report.summary import Figure

__all__ = ["measure"]


def measure(server: Served, rig: Rig) -> list[Figure]:
    """Throughput of the softmax model, 64 rows in a request, uint8 over float32."""
    with ExitStack() as stack:
        small, large = (
            stack.enter_context(Callers(server.load("softmax", rig.shapes["softmax"], IN_FLIGHT, BATCH, dtype=dtype)))
            for dtype in ("uint8", "float32")
        )
        pairs = alternated((lambda: small.run(rig.seconds), lambda: large.run(rig.seconds)), rig.rounds)
    return [over("bench/payload/uint8_over_float32", pairs, 1.6, model="softmax", threads=THREADS)]
