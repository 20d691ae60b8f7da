"""What response defences cost on the way of every answer."""

from __future__ import annotations

from benchmarks.common import Rig, Served
from benchmarks.readings import paired, through_server
from protos.mirage.v1 import oracle_pb2
from referee.report.summary import Figure

__all__ = ["measure"]

_DEFENCES = (
    oracle_pb2.Defence(name="keyed_noise", parameters={"sigma": 0.05, "keep": 1}),
    oracle_pb2.Defence(name="reverse_sigmoid", parameters={"beta": 0.5}),
)


def measure(server: Served, rig: Rig) -> list[Figure]:
    """Throughput of the CNN with keyed noise and the reverse sigmoid over the same with full scores as they are.

    One server answers both; the key says which. Every input is hashed anew, also when it came before.
    """
    on, off = server.client("cnn", defences=_DEFENCES), server.client("cnn")
    with_it, without = (through_server(client, rig.noise("cnn"), rig.seconds) for client in (on, off))
    return [paired("bench/response_defence/on_over_off", with_it, without, rig.rounds, "rows/s", at_least=0.95)]
