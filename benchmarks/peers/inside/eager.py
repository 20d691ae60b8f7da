"""The model that every peer serves: the plain eager torch module, on one thread."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from benchmarks.models import MODELS

__all__ = ["forward"]


def forward(path: Path | str) -> Callable[[np.ndarray], np.ndarray]:
    """What turns rows (N, *shape), or their values as one flat array, float32, into scores (N, classes).

    `path` was written by `benchmarks.peers.peer.write`.
    """
    torch.set_num_threads(1)
    saved = torch.load(path, weights_only=True)
    shape = tuple(saved["shape"])
    module = MODELS[saved["model"]](shape).eval()
    module.load_state_dict(saved["weights"])

    def call(rows: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            return module(torch.from_numpy(rows).reshape(-1, *shape)).numpy()

    return call
