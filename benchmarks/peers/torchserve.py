"""TorchServe, at its HTTP interface: a Java front, one Python worker, its own batching."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import numpy as np

from benchmarks.peers.peer import Job, Peer, environment

__all__ = ["PEER"]

_BATCH = {"batchSize": 64, "maxBatchDelay": 1}  # rows, milliseconds
_HANDLER = Path(__file__).parent / "inside" / "torchserve_handler.py"
_QUIET = """<Configuration><Appenders><Console name="out"><PatternLayout pattern="%d %p %m%n"/></Console></Appenders>
<Loggers><Root level="warn"><AppenderRef ref="out"/></Root></Loggers></Configuration>
"""


def _command(job: Job) -> list[str]:
    store, archive = job.folder / "store", f"{job.model}.mar"
    store.mkdir()
    subprocess.run(
        [job.python.with_name("torch-model-archiver"), "--model-name", job.model, "--version", "1.0",
         "--handler", _HANDLER, "--serialized-file", job.file, "--export-path", store],
        check=True, env=environment(job.python), stdout=subprocess.DEVNULL,
    )  # fmt: skip
    workers = {"marName": archive, "defaultVersion": True, "minWorkers": 1, "maxWorkers": 1, **_BATCH}
    http, management, metrics, grpc, grpc_management = job.ports[:5]
    lines = {
        "inference_address": f"http://127.0.0.1:{http}",
        "management_address": f"http://127.0.0.1:{management}",
        "metrics_address": f"http://127.0.0.1:{metrics}",
        "grpc_inference_port": grpc,
        "grpc_management_port": grpc_management,
        "disable_token_authorization": "true",
        "disable_system_metrics": "true",
        "load_models": archive,
        "models": json.dumps({job.model: {"1.0": workers}}),
    }
    (job.folder / "config.properties").write_text("".join(f"{name}={value}\n" for name, value in lines.items()))
    (job.folder / "log4j2.xml").write_text(_QUIET)
    return [
        str(job.python.with_name("torchserve")), "--start", "--foreground", "--no-config-snapshots",
        "--model-store", str(store), "--ts-config", "config.properties", "--log-config", "log4j2.xml",
    ]  # fmt: skip


PEER = Peer(
    name="torchserve",
    environment="torchserve",
    requirements=("torchserve==0.12.0", "torch-model-archiver==0.12.0", "pyyaml"),
    module="ts",
    distribution="torchserve",
    settings="HTTP, raw bytes; 1 worker, eager, batchSize 64, maxBatchDelay 1 ms, logging of warnings only",
    protocol="http",
    command=_command,
    scores=lambda answer: np.frombuffer(answer, "<f4"),
    path="/predictions/{model}",
    programs=("java",),
)
