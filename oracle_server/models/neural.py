"""A neural network from a `.pt2` archive: inputs (N, *shape) -> logits (N, C), in batches that the device likes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from oracle_server.inputs import to_float32
from oracle_server.models.card import Card
from protos import archive

__all__ = ["NeuralModel", "choose_device"]


def choose_device(wanted: str) -> torch.device:
    """`auto` is CUDA when there is a usable one, the CPU otherwise; `ValueError` for a device that is not there."""
    if wanted == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if wanted.startswith("cuda") and not torch.cuda.is_available():
        raise ValueError(f"--device {wanted} was asked for and torch finds no CUDA device: use --device cpu or auto")
    return torch.device(wanted)


class NeuralModel:
    """The network on its device. Not thread-safe: one thread calls `logits`, since it reuses its input buffer.

    batch  rows in one forward pass. A deterministic model always runs exactly this many, padded with zeros, so that the
           kernels chosen, and with them the rounding, do not depend on how many rows came together. On the CPU it
           needs one torch thread: several share the rows out unevenly, and a row's bits then depend on its place.
    """

    def __init__(self, path: Path, card: Card, device: torch.device, batch: int) -> None:
        if card.deterministic and device.type == "cpu" and torch.get_num_threads() > 1:
            raise ValueError(f"{card.id} is deterministic, which several threads are not: serve it with --threads 1")
        if device.type == "cuda":
            torch.backends.cudnn.allow_tf32 = False  # ten bits of mantissa would differ with the batch far beyond 1e-5
            torch.backends.cudnn.deterministic = True
        self.card = card
        self.batch = batch
        self._device = device
        self._module = archive.load(path, device)
        self._staging = torch.zeros((batch, *card.input_shape), pin_memory=device.type == "cuda")
        self._rows = self._staging.numpy()

    def logits(self, requests: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Logits of each request, in order. Rows of several requests share forward passes."""
        total = sum(len(request) for request in requests)
        out = np.empty((total, self.card.width), dtype=np.float32)
        done = filled = 0
        for request in requests:
            taken = 0
            while taken < len(request):
                n = min(self.batch - filled, len(request) - taken)
                to_float32(request[taken : taken + n], self.card, out=self._rows[filled : filled + n])
                taken, filled = taken + n, filled + n
                if filled == self.batch:
                    done, filled = self._forward(out, done, filled), 0
        if filled:
            self._forward(out, done, filled)
        return np.split(out, np.cumsum([len(request) for request in requests])[:-1])

    def warm_up(self) -> None:
        """Two passes on legal inputs, so that the first caller does not wait for kernels to be chosen."""
        middle = np.full((self.batch, *self.card.input_shape), (self.card.low + self.card.high) / 2, dtype=np.float32)
        for rows in (1, self.batch):
            self.logits([middle[:rows]])

    def _forward(self, out: np.ndarray, done: int, rows: int) -> int:
        if self.card.deterministic:
            self._rows[rows:] = 0
        used = self._staging if self.card.deterministic else self._staging[:rows]
        with torch.inference_mode():
            logits = self._module(used.to(self._device, non_blocking=True))
        out[done : done + rows] = logits[:rows].float().cpu().numpy()
        return done + rows
