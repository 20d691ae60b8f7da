"""What the durable charge of every answer costs."""

from __future__ import annotations

from benchmarks.common import BATCH, Rig, Served
from benchmarks.readings import paired, through_server
from benchmarks.two_ledgers import IN_MEMORY
from referee.report.summary import Figure

__all__ = ["measure"]


def measure(server: Served, rig: Rig) -> list[Figure]:
    """Throughput of the softmax model with the ledger on disk over the same with a ledger in memory.

    One server has both; the key says which. Both keys' requests come from this process and share its connection.
    """
    on, off = server.client("softmax/1"), server.client("softmax/1", label=IN_MEMORY)
    with_it, without = (through_server(client, rig.noise(BATCH), rig.seconds) for client in (on, off))
    return [paired("bench/ledger/on_over_off", with_it, without, rig.rounds, "rows/s", at_least=0.95)]
