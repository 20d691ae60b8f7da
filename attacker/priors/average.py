"""The running average of a generator's weights: it makes better images than the weights of any one step."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

__all__ = ["follow", "settle"]

_PASSES = 20  # batches that give the averaged generator its batch statistics


@torch.no_grad()
def follow(E: nn.Module, G: nn.Module, number: int, most: float) -> None:
    """Step `number` of the average E of G's weights, of the last 1 / (1 - `most`) steps or so; the first steps are
    forgotten sooner.
    """
    share = 1 - min(most, (1 + number) / (10 + number))
    for mean, now in zip(E.parameters(), G.parameters(), strict=True):
        mean.lerp_(now, share)


@torch.no_grad()
def settle(E: nn.Module, draw: Callable[[], Tensor]) -> None:
    """Give averaged weights batch statistics of their own, of batches of codes that `draw` gives: those of G belong to
    other weights.
    """
    for layer in E.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.reset_running_stats()
            layer.momentum = None  # the plain mean over all passes
    for _ in range(_PASSES):
        E(draw())
