"""Random changes of a photo that leave the person recognisable; only for training."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional

__all__ = ["Augmentation"]


class _Draw(Protocol):
    def __call__(self, *shape: int) -> Tensor: ...


@dataclass(frozen=True)
class Augmentation:
    """One draw per image of: mirror, rotation, scale, shift, contrast, brightness, a hidden rectangle, noise.

    Attributes:
        mirror: chance of a left-right flip.
        degrees: largest rotation, either way.
        scale: largest relative change of size.
        shift: largest shift, as a share of half the image.
        contrast: largest relative change of the spread around the image's mean.
        brightness: largest change of the mean.
        hidden: chance that a grey rectangle covers part of the image.
        hidden_size: its largest height and width, as a share of the image's.
        noise: largest standard deviation of Gaussian noise.
    """

    mirror: float = 0.5
    degrees: float = 10.0
    scale: float = 0.1
    shift: float = 0.08
    contrast: float = 0.3
    brightness: float = 0.15
    hidden: float = 0.3
    hidden_size: float = 0.45
    noise: float = 0.03

    def __call__(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """``(N, C, H, W)`` in [0, 1] to the same; all draws come from `generator`, which lives on the CPU."""
        count = len(images)

        def uniform(*shape: int) -> Tensor:  # in [0, 1)
            return torch.rand(count, *shape, generator=generator).to(images.device)

        def around_zero(*shape: int) -> Tensor:  # in [-1, 1)
            return 2 * uniform(*shape) - 1

        images = self._moved(images, uniform, around_zero)
        mean = images.mean((1, 2, 3), keepdim=True)
        images = (images - mean) * (1 + self.contrast * around_zero(1, 1, 1)) + mean
        images = images + self.brightness * around_zero(1, 1, 1)
        images = self._hidden(images, uniform)
        noise = torch.randn(images.shape, generator=generator).to(images.device)
        return (images + self.noise * uniform(1, 1, 1) * noise).clamp(0, 1)

    def _moved(self, images: Tensor, uniform: _Draw, around_zero: _Draw) -> Tensor:
        height, width = images.shape[-2:]
        angle = math.radians(self.degrees) * around_zero()
        size = 1 + self.scale * around_zero()
        side = torch.where(uniform() < self.mirror, -1.0, 1.0)
        # Rows of the matrix that takes an output position to the input position it is read from, both in [-1, 1];
        # the factors height/width keep a rotation a rotation on an image that is not square.
        across = torch.stack((side * size * angle.cos(), -size * angle.sin() * height / width), 1)
        down = torch.stack((side * size * angle.sin() * width / height, size * angle.cos()), 1)
        matrix = torch.cat((torch.stack((across, down), 1), self.shift * around_zero(2, 1)), 2)
        grid = functional.affine_grid(matrix, list(images.shape), align_corners=False)
        return functional.grid_sample(images, grid, padding_mode="border", align_corners=False)

    def _hidden(self, images: Tensor, uniform: _Draw) -> Tensor:
        height, width = images.shape[-2:]
        rows = (torch.arange(height, device=images.device) + 0.5)[:, None] / height
        columns = (torch.arange(width, device=images.device) + 0.5) / width
        inside = uniform(1, 1) < self.hidden
        for places in (rows, columns):
            inside = inside & ((places - uniform(1, 1)).abs() < self.hidden_size / 2 * uniform(1, 1))
        return torch.where(inside[:, None], uniform(1, 1, 1), images)
