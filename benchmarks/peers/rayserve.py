"""Ray Serve, at its HTTP interface: one replica with `serve.batch`."""

from __future__ import annotations

import numpy as np

from benchmarks.peers.peer import Job, Peer

__all__ = ["PEER"]


def _command(job: Job) -> list[str]:
    # No token in the home folder, no report of its use to its makers.
    own = ["env", "RAY_AUTH_MODE=disabled", "RAY_USAGE_STATS_ENABLED=0"]
    return [*own, str(job.python), "-m", "benchmarks.peers.inside.rayserve_app", str(job.file), str(job.ports[0])]


PEER = Peer(
    name="rayserve",
    environment="rayserve",
    requirements=("ray[serve]==2.60.0",),
    module="ray.serve",
    distribution="ray",
    settings="HTTP, raw bytes; 1 replica, eager, serve.batch of 64, batch_wait_timeout 1 ms, no access log",
    protocol="http",
    command=_command,
    scores=lambda answer: np.frombuffer(answer, "<f4"),
    path="/",
)
