"""TorchServe's handler: float32 bytes of one row in, those of its scores out, and a forward pass for each batch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.peers.inside.eager import forward

__all__ = ["Handler"]


class Handler:
    """One worker's model; TorchServe calls `handle` with the requests that it has put together."""

    def initialize(self, context: Any) -> None:
        properties, manifest = context.system_properties, context.manifest
        self._forward = forward(Path(properties["model_dir"]) / manifest["model"]["serializedFile"])

    def handle(self, data: list[dict[str, Any]], context: Any) -> list[bytes]:
        rows = bytearray().join(request.get("data") or request["body"] for request in data)
        return [scores.tobytes() for scores in self._forward(np.frombuffer(rows, np.float32))]
