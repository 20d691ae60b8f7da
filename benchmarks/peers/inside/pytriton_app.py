"""Triton with a Python function bound to a model: `... FILE MODEL SHAPE CLASSES GRPC-PORT HTTP-PORT WORKSPACE`."""

from __future__ import annotations

import json
import signal
import sys
import threading

import numpy as np
from pytriton.decorators import batch
from pytriton.model_config import DynamicBatcher, ModelConfig, Tensor
from pytriton.triton import Triton, TritonConfig

from benchmarks.peers.inside.eager import forward

__all__ = ["main"]


def main(file: str, model: str, shape: str, classes: str, grpc: str, http: str, workspace: str) -> None:
    call, stop = forward(file), threading.Event()

    @batch
    def infer(rows: np.ndarray) -> dict[str, np.ndarray]:
        return {"scores": call(rows)}

    loopback = {"grpc_address": "127.0.0.1", "http_address": "127.0.0.1"}
    config = TritonConfig(grpc_port=int(grpc), http_port=int(http), allow_metrics=False, **loopback)
    with Triton(config=config, workspace=workspace) as triton:
        triton.bind(
            model_name=model,
            infer_func=infer,
            inputs=[Tensor(name="rows", dtype=np.float32, shape=tuple(json.loads(shape)))],
            outputs=[Tensor(name="scores", dtype=np.float32, shape=(int(classes),))],
            config=ModelConfig(max_batch_size=64, batcher=DynamicBatcher(max_queue_delay_microseconds=0)),
        )
        triton.run()
        signal.signal(signal.SIGTERM, lambda *_: stop.set())
        stop.wait()


if __name__ == "__main__":
    main(*sys.argv[1:])
