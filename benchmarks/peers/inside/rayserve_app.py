"""`python -m benchmarks.peers.inside.rayserve_app FILE PORT`: Ray Serve with one replica, over HTTP, until SIGTERM."""

from __future__ import annotations

import signal
import sys
import tempfile
import threading

import numpy as np
import ray
from ray import serve
from starlette.requests import Request
from starlette.responses import Response

from benchmarks.peers.inside.eager import forward

__all__ = ["Model", "main"]

_QUIET = {"log_level": "ERROR", "enable_access_log": False}


@serve.deployment(num_replicas=1, max_ongoing_requests=256, ray_actor_options={"num_cpus": 1}, logging_config=_QUIET)
class Model:
    """float32 bytes of one row in, those of its scores out."""

    def __init__(self, path: str) -> None:
        self._forward = forward(path)

    @serve.batch(max_batch_size=64, batch_wait_timeout_s=0.001)
    async def scores(self, rows: list[bytes]) -> list[bytes]:
        return [scores.tobytes() for scores in self._forward(np.frombuffer(bytearray().join(rows), np.float32))]

    async def __call__(self, request: Request) -> Response:
        return Response(await self.scores(await request.body()), media_type="application/octet-stream")


def main(path: str, port: int) -> None:
    stop = threading.Event()
    # The paths of its sockets must be short.
    with tempfile.TemporaryDirectory(prefix="ray-", dir="/tmp") as folder:
        ray.init(
            num_cpus=2, include_dashboard=False, object_store_memory=100 << 20, log_to_driver=False, _temp_dir=folder,
            _node_ip_address="127.0.0.1",
        )  # fmt: skip
        serve.start(http_options={"host": "127.0.0.1", "port": port}, logging_config=_QUIET)
        serve.run(Model.bind(path), route_prefix="/")
        signal.signal(signal.SIGTERM, lambda *_: stop.set())  # now, since Ray has a handler of its own
        stop.wait()
        serve.shutdown()
        ray.shutdown()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
