"""A neural network from a `.pt2` archive: inputs (N, *shape) -> logits (N, C), in batches that the device likes."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from oracle_server.inputs import to_float32
from oracle_server.models.card import Card
from oracle_server.models.forms import AUTO, Choice, Form, choose
from oracle_server.models.staging import Staging, staging
from protos import archive

__all__ = ["NeuralModel", "choose_device"]

_LOG = logging.getLogger(__name__)


def choose_device(wanted: str) -> torch.device:
    """`auto` is CUDA when there is a usable one, the CPU otherwise; `ValueError` for a device that is not there."""
    if wanted == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if wanted.startswith("cuda") and not torch.cuda.is_available():
        raise ValueError(f"--device {wanted} was asked for and torch finds no CUDA device: use --device cpu or auto")
    return torch.device(wanted)


class NeuralModel:
    """The network on its device. Not thread-safe: one thread calls `logits`, since it reuses its input buffer.

    batch  rows in one forward pass at most; once warm, what the model does best, if that is fewer.
    form   in which forward passes run: eager until `warm_up`, which takes the fastest that answers as eager does, or
           the one that `forward` names.

    A deterministic model always runs exactly `batch` rows as it was given, padded with zeros, so that the kernels
    chosen, and with them the rounding, do not depend on how many rows came together; and it runs eager, whatever was
    asked for, since a choice by time may be another one after a restart. On the CPU it needs one torch thread: several
    share the rows out unevenly, and a row's bits then depend on its place.
    """

    def __init__(self, path: Path, card: Card, device: torch.device, batch: int, forward: str = AUTO) -> None:
        if card.deterministic and device.type == "cpu" and torch.get_num_threads() > 1:
            raise ValueError(f"{card.id} is deterministic, which several threads are not: serve it with --threads 1")
        if device.type == "cuda":
            torch.backends.cudnn.allow_tf32 = False  # ten bits of mantissa would differ with the batch far beyond 1e-5
            torch.backends.cudnn.deterministic = True
        self.card = card
        self._device = device
        self._forward = forward
        self.batch = batch
        self.form = Form.EAGER
        self._choice = Choice(Form.EAGER, archive.load(path, device), batch, (batch,) if card.deterministic else ())
        self._staging: Staging = staging(device, (batch, *card.input_shape))

    def logits(self, requests: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Logits of each request, in order. Rows of several requests share forward passes."""
        total = sum(len(request) for request in requests)
        passes: list[tuple[int, Tensor]] = []
        filled, rows = 0, self._staging.next()
        for request in requests:
            taken = 0
            while taken < len(request):
                n = min(self.batch - filled, len(request) - taken)
                to_float32(request[taken : taken + n], self.card, out=rows[filled : filled + n])
                taken, filled = taken + n, filled + n
                if filled == self.batch:
                    passes.append((filled, self._pass(filled)))
                    filled, rows = 0, self._staging.next()
        if filled:
            passes.append((filled, self._pass(filled)))
        out, done = np.empty((total, self.card.width), dtype=np.float32), 0
        for n, logits in passes:
            out[done : done + n] = logits[:n].float().cpu().numpy()
            done += n
        return np.split(out, np.cumsum([len(request) for request in requests])[:-1])

    def warm_up(self) -> None:
        """Choose the form, and run what the first caller should not wait for."""
        if not self.card.deterministic:
            rows = torch.from_numpy(self._legal_rows()).to(self._device)
            self._choice = choose(self._choice.run, rows, self._forward)
            self.form, self.batch = self._choice.form, self._choice.batch
        elif self._forward not in (AUTO, Form.EAGER):
            _LOG.info("%s is deterministic and served eager: --forward %s is for others", self.card.id, self._forward)
        middle = np.full((self.batch, *self.card.input_shape), (self.card.low + self.card.high) / 2, dtype=np.float32)
        for rows_of_pass in (1, self.batch):
            self.logits([middle[:rows_of_pass]])
        _LOG.info("%s runs %s, at most %d rows in a pass", self.card.id, self.form, self.batch)

    def _legal_rows(self) -> np.ndarray:
        """(batch, *shape): noise of any contrast, up to nothing but the smallest and the largest value."""
        generator = np.random.default_rng(0)
        noise = generator.random((self.batch, *self.card.input_shape))
        contrast = generator.integers(1, 4, size=(self.batch, *[1] * len(self.card.input_shape)))
        noise = np.clip((noise - 0.5) * np.where(contrast == 3, 1e6, contrast) + 0.5, 0, 1)
        return (self.card.low + (self.card.high - self.card.low) * noise).astype(np.float32)

    def _pass(self, filled: int) -> Tensor:
        """Logits of the rows in the buffer, and of what they were filled up with, on the device."""
        rows = self._choice.padded(filled)
        with torch.inference_mode():
            return self._choice.run(self._staging.tensor(filled, rows))
