"""The model that every peer serves: the plain eager torch module, on one thread."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

__all__ = ["forward"]


def forward(path: Path | str) -> Callable[[np.ndarray], np.ndarray]:
    """What turns rows (N, *shape), or their values as one flat array, float32, into scores (N, classes).

    `path` was written by `benchmarks.peers.peer.write`: a pickle, so only ever one of the benchmark's own.
    """
    torch.set_num_threads(1)
    saved = torch.load(path, weights_only=False)
    module, shape = saved["module"].eval(), saved["shape"]

    def call(rows: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            return module(torch.from_numpy(rows).reshape(-1, *shape)).numpy()

    return call
