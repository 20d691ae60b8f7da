"""The generator that variational autoencoder and GAN share, and what both need around it.

here      meaning
m         numbers in a code
n         how many times the side doubles
w         channels of the last hidden block; each block before it has twice as many
"""

from __future__ import annotations

import math
from itertools import pairwise

import torch
from torch import Tensor, nn

__all__ = ["Generator", "Residual", "doublings", "finished", "widths"]

_FIRST = 4  # pixels on the shorter side before the first doubling, and up to twice as many
_LEAST = 2 * _FIRST  # pixels on the shorter side of an image
_SLOPE = 0.2  # of a leaky ReLU below 0


def doublings(shape: tuple[int, ...]) -> int:
    """n for images (C, H, W); `ValueError` for smaller ones than the networks can halve."""
    if len(shape) != 3 or min(shape[1:]) < _LEAST:
        raise ValueError(f"images {tuple(shape)} are too small: this prior takes (C, H, W) of {_LEAST} pixels or more")
    return int(math.log2(min(shape[1:]) / _FIRST))


def widths(n: int, w: int) -> list[int]:
    """Channels from the smallest side to the last block before the image."""
    return [max(w >> k, 1) for k in range(n)]


class Residual(nn.Module):
    """x + conv(x), with batch norm and leaky ReLU before each of two convolutions."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.BatchNorm2d(channels),
            nn.LeakyReLU(_SLOPE),
            nn.Conv2d(channels, channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(channels),
            nn.LeakyReLU(_SLOPE),
            nn.Conv2d(channels, channels, 3, padding=1, bias=False),
        )

    def forward(self, x: Tensor) -> Tensor:
        changed: Tensor = self.body(x)
        return x + changed


class Generator(nn.Module):
    """Codes to images: fully connected, then n transposed convolutions that double the side, each but the last with
    batch norm and leaky ReLU, with residual blocks between them or without; a sigmoid, scaled to [low, high].

    What is made is as large as the image or up to 2^n - 1 pixels larger, and cut to its size.

    Shapes:
        ``(N, m)`` to ``(N, C, H, W)``.
    """

    def __init__(
        self, m: int, shape: tuple[int, ...], w: int, *, low: float = 0.0, high: float = 1.0, residual: bool = False
    ) -> None:
        super().__init__()
        n = doublings(shape)
        wide = widths(n, w)
        self.low, self.range, self.height, self.width = low, high - low, shape[1], shape[2]
        self.first = (wide[0], -(-shape[1] // 2**n), -(-shape[2] // 2**n))
        self.dense = nn.Linear(m, math.prod(self.first), bias=False)
        blocks: list[nn.Module] = [nn.BatchNorm2d(wide[0]), nn.LeakyReLU(_SLOPE)]
        for a, b in pairwise(wide):
            blocks += [Residual(a)] if residual else []
            blocks += [nn.ConvTranspose2d(a, b, 4, 2, 1, bias=False), nn.BatchNorm2d(b), nn.LeakyReLU(_SLOPE)]
        blocks += [Residual(wide[-1])] if residual else []
        self.blocks = nn.Sequential(*blocks, nn.ConvTranspose2d(wide[-1], shape[0], 4, 2, 1))

    def unit(self, z: Tensor) -> Tensor:
        """Images in [0, 1]."""
        images: Tensor = self.blocks(self.dense(z).unflatten(1, self.first))
        return images[:, :, : self.height, : self.width].sigmoid()

    def forward(self, z: Tensor) -> Tensor:
        return self.low + self.range * self.unit(z)


def finished(network: nn.Module) -> nn.Module:
    """A trained network as a prior keeps it: on the CPU, in evaluation mode, numbers in the order that an archive
    gives them back in, so that a loaded one computes the same bits.
    """
    return network.cpu().to(memory_format=torch.contiguous_format).eval().requires_grad_(False)
