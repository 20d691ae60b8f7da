"""A neural network from a `.pt2` archive: inputs (N, *shape) -> logits (N, C), in batches that the device likes."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from oracle_server.inputs import to_float32
from oracle_server.models.card import Card
from oracle_server.models.forms import AUTO, Choice, Form, Pass, choose
from oracle_server.models.staging import Staging, as_tensor, staging
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
    grain  rows of a pass from which on a row costs hardly less in a larger one; `batch` for a deterministic model.
    form   in which forward passes run: eager until `warm_up`, which takes the fastest that answers as eager does, or
           the one that `forward` names.

    A deterministic model always runs exactly `batch` rows as it was given, padded with zeros, so that the kernels
    chosen, and with them the rounding, do not depend on how many rows came together; and it runs eager, whatever was
    asked for, since a choice by time may be another one after a restart. On the CPU it needs one torch thread: several
    share the rows out unevenly, and a row's bits then depend on its place.

    A card may state an autocast, which holds on CUDA: most of the arithmetic is done in a dtype of 16 bits, and answers
    are not those of float32. Elsewhere it is left out, and the log says so.
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
        self.grain = batch
        self.form = Form.EAGER
        run: Pass = archive.load(path, device)
        if card.autocast and device.type == "cuda":
            run = _in_autocast(run, getattr(torch, card.autocast))
        self._choice = Choice(Form.EAGER, run, batch, batch, (batch,) if card.deterministic else ())
        self._staging: Staging = staging(device, (batch, *card.input_shape))

    def logits(self, requests: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Logits of each request, in order. Rows of several requests share forward passes."""
        passes: list[Tensor] = []
        if self._can_be_read_where_it_is(requests):
            passes.append(self._run(as_tensor(requests[0]), len(requests[0])))
        else:
            filled, rows = 0, self._staging.next()
            for request in requests:
                taken = 0
                while taken < len(request):
                    n = min(self.batch - filled, len(request) - taken)
                    to_float32(request[taken : taken + n], self.card, out=rows[filled : filled + n])
                    taken, filled = taken + n, filled + n
                    if filled == self.batch:
                        passes.append(self._pass(filled))
                        filled, rows = 0, self._staging.next()
            if filled:
                passes.append(self._pass(filled))
        return self._shared_out(passes, requests)

    def warm_up(self) -> None:
        """Choose the form, and run what the first caller should not wait for."""
        legal = self._legal_rows()
        if not self.card.deterministic:
            rows = torch.from_numpy(legal).to(self._device)
            self._choice = choose(self._choice.run, rows, self._forward)
            self.form, self.batch, self.grain = self._choice.form, self._choice.batch, self._choice.grain
        elif self._forward not in (AUTO, Form.EAGER):
            _LOG.info("%s is deterministic and served eager: --forward %s is for others", self.card.id, self._forward)
        for rows_of_pass in (1, self.batch):
            self.logits([legal[:rows_of_pass]])
        if self.card.autocast and self._device.type != "cuda":
            _LOG.info("%s runs in float32: autocast, which its card states, is for CUDA", self.card.id)
        _LOG.info("%s runs %s, at most %d rows in a pass", self.card.id, self.form, self.batch)

    def _legal_rows(self) -> np.ndarray:
        """(batch, *shape): noise of any contrast, up to nothing but the smallest and the largest value."""
        generator = np.random.default_rng(0)
        noise = generator.random((self.batch, *self.card.input_shape))
        contrast = generator.integers(1, 4, size=(self.batch, *[1] * len(self.card.input_shape)))
        noise = np.clip((noise - 0.5) * np.where(contrast == 3, 1e6, contrast) + 0.5, 0, 1)
        return (self.card.low + (self.card.high - self.card.low) * noise).astype(np.float32)

    def _can_be_read_where_it_is(self, requests: Sequence[np.ndarray]) -> bool:
        """One request that is one pass: its rows need no copy. A deterministic model's are copied all the same, since
        rounding may depend on how they lie in memory.
        """
        request, choice = requests[0], self._choice
        return (
            len(requests) == 1
            and 0 < len(request) <= self.batch
            and choice.padded(len(request)) == len(request)
            and request.dtype == np.float32
            and request.flags.c_contiguous
            and request.flags.aligned
            and choice.reads_only
            and self._device.type == "cpu"
        )

    def _pass(self, filled: int) -> Tensor:
        """Logits of the rows in the buffer, on the device."""
        return self._run(self._staging.tensor(filled, self._choice.padded(filled)), filled)

    def _run(self, rows: Tensor, asked: int) -> Tensor:
        """A copy, since a network may hand back the very memory that it was given."""
        with torch.inference_mode():
            return self._choice.run(rows)[:asked].to(torch.float32, copy=True)

    def _shared_out(self, passes: list[Tensor], requests: Sequence[np.ndarray]) -> list[np.ndarray]:
        """The rows of all passes, to the requests in order."""
        answers = [logits.cpu().numpy() for logits in passes]
        together = answers[0] if len(answers) == 1 else np.concatenate(answers)
        ends = list(itertools.accumulate(map(len, requests)))
        return [together[end - len(request) : end] for request, end in zip(requests, ends, strict=True)]


def _in_autocast(run: Pass, dtype: torch.dtype) -> Pass:
    def in_autocast(rows: Tensor) -> Tensor:
        with torch.autocast("cuda", dtype):
            return run(rows)

    return in_autocast
