"""Rounds: so many steps of a training after which its state is kept. What a round draws follows from the seed and its
number alone, so that a resumed training ends as an undisturbed one does.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from attacker.checkpoint import Training
from attacker.priors.learning import Learning

__all__ = ["STEPS", "Draws", "unit_images", "work_through"]

STEPS = 50  # of a round: some seconds


class Draws:
    """What one round draws, on the CPU whatever the device, so that both see the same."""

    def __init__(self, seed: int, number: int, device: torch.device | str) -> None:
        state = np.random.SeedSequence((seed, number)).generate_state(1, np.uint64)
        self.generator = torch.Generator().manual_seed(int(state[0] >> 1))
        self._device = device

    def normal(self, *shape: int) -> Tensor:
        """Standard normal numbers."""
        return torch.randn(shape, generator=self.generator).to(self._device)

    def uniform(self, *shape: int) -> Tensor:
        """Numbers from 0 to 1."""
        return torch.rand(shape, generator=self.generator).to(self._device)

    def whole(self, high: int) -> int:
        """0, ..., high - 1."""
        return int(torch.randint(high, (), generator=self.generator))

    def batches(self, x: Tensor, size: int, mirrored: bool) -> Iterator[Tensor]:
        """Batches of images (size, C, H, W) for ever, all images once before any comes again; with `mirrored` left and
        right are exchanged in every second one or so.
        """
        size, order = min(size, len(x)), torch.empty(0, dtype=torch.int64)
        while True:
            if len(order) < size:
                order = torch.cat((order, torch.randperm(len(x), generator=self.generator)))
            batch, order = x[order[:size].to(x.device)], order[size:]
            if mirrored:
                flip = torch.rand(size, 1, 1, 1, generator=self.generator).to(x.device) < 0.5
                batch = torch.where(flip, batch.flip(-1), batch)
            yield batch.contiguous(memory_format=torch.channels_last)


def unit_images(images: np.ndarray, learning: Learning) -> Tensor:
    """Images (N, C, H, W) in [0, 1] on the device; `ValueError` for a single one."""
    if len(images) < 2:
        raise ValueError("a network learns nothing from one image: publish two or more")
    x = torch.tensor(images, dtype=torch.float32, device=learning.device)
    return (x - learning.low) / (learning.high - learning.low)


def work_through(
    step: Callable[[Tensor, Draws, int], dict[str, float]],
    steps: int,
    of: Any,
    seed: int,
    x: Tensor,
    networks: nn.Module,
    optimisers: tuple[torch.optim.Optimizer, ...],
    learning: Learning,
    *,
    batch_size: int,
    mirrored: bool,
    curves: tuple[str, ...],
) -> None:
    """Call `step(batch, draws, number)`, which gives a number for each curve, `steps` times; go on where a training of
    the same was stopped.
    """
    digest = hashlib.sha256(x.cpu().numpy().tobytes()).hexdigest()
    device = torch.device(learning.device).type
    name = f"{of!r} {seed} {device} {learning.low} {learning.high} {tuple(x.shape)} {digest}"
    state = Training(learning.checkpoint, name, networks, *optimisers, curves=curves)
    state.resume()
    before, started = state.seconds, time.perf_counter()
    rounds = -(-steps // STEPS)
    for number in range(state.epochs, rounds):
        draws = Draws(seed, number, learning.device)
        batches = draws.batches(x, batch_size, mirrored)
        first, last = number * STEPS, min((number + 1) * STEPS, steps)
        learning.progress(first, steps, _told(state.curve, curves))
        totals = dict.fromkeys(curves, 0.0)
        for at in range(first, last):
            for curve, value in step(next(batches), draws, at).items():
                totals[curve] += value / (last - first)
            learning.progress(at + 1, steps, _told(state.curve, curves))
        state.add(before + time.perf_counter() - started, **totals)
    learning.progress(steps, steps, _told(state.curve, curves))


def _told(curve: dict[str, list[float]], curves: tuple[str, ...]) -> str:
    return ", ".join(f"{name} {curve[name][-1]:.3f}" for name in curves if curve[name])
