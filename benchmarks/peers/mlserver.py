"""MLServer, at its gRPC interface, the Open Inference Protocol with raw contents, with adaptive batching."""

from __future__ import annotations

import json

from benchmarks.peers.open_inference import scores
from benchmarks.peers.peer import Job, Peer

__all__ = ["PEER"]


def _command(job: Job) -> list[str]:
    grpc, http = job.ports[:2]
    settings = {
        "debug": False,
        "host": "127.0.0.1",
        "grpc_port": grpc,
        "http_port": http,
        "metrics_endpoint": None,
        "parallel_workers": 0,
    }
    model = {
        "name": job.model,
        "implementation": "benchmarks.peers.inside.mlserver_runtime.Runtime",
        "max_batch_size": 64,
        "max_batch_time": 0.001,
        "parameters": {"uri": str(job.file)},
    }
    (job.folder / "settings.json").write_text(json.dumps(settings))
    (job.folder / "model-settings.json").write_text(json.dumps(model))
    return [str(job.python.with_name("mlserver")), "start", str(job.folder)]


PEER = Peer(
    name="mlserver",
    environment="mlserver",
    requirements=("mlserver==1.7.1",),
    module="mlserver",
    distribution="mlserver",
    settings="gRPC, raw contents; in its own process, eager, max_batch_size 64, max_batch_time 1 ms, no metrics",
    protocol="open_inference",
    command=_command,
    scores=scores,
)
