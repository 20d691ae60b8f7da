"""DCGAN: a convolutional generator learns to make images that a critic takes for the public ones.

A. Radford, L. Metz, S. Chintala, "Unsupervised Representation Learning with Deep Convolutional Generative Adversarial
Networks", ICLR 2016. Spectral norm: T. Miyato et al., "Spectral Normalization for Generative Adversarial Networks",
ICLR 2018. Shifts of real and generated images: S. Zhao et al., "Differentiable Augmentation for Data-Efficient GAN
Training", NeurIPS 2020.

    here        paper     meaning
    x           x         a public image, pixels scaled to [0, 1]
    z           z         a code, m = `latent` numbers from N(0, I)
    G, D        G, D      generator and critic
    E           -         G with the running average of its weights: the prior
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.parametrizations import spectral_norm

from attacker.priors.codes import Codes
from attacker.priors.layers import Generator, doublings, finished, widths
from attacker.priors.learning import Learned, Learning
from attacker.priors.rounds import Draws, unit_images, work_through

__all__ = ["DCGAN"]

_BETAS = (0.0, 0.9)  # of Adam
_PASSES = 20  # batches that give the averaged generator its batch statistics


@dataclass(frozen=True)
class DCGAN:
    """In turn one step of D on the hinge loss max(0, 1 - D(x)) + max(0, 1 + D(G(z))) and one of G on -D(G(z)); what is
    kept is the running average of G's weights, of the last 1 / (1 - `average`) steps or so.

    Before D looks, real and generated images are shifted alike by up to `shift` of a side, which hinders it from
    learning a few images by heart (0.125, for some hundred). With `mirrored` an image is exchanged left and right
    every second time, which suits faces and not digits.

    Differences from the reference: spectral norm in the critic in place of batch norm, the hinge loss, averaged
    weights, leaky ReLU in the generator too, a sigmoid at its end, fewer numbers in a code and fewer channels.
    """

    kind: ClassVar[str] = "generative adversarial network"
    paper: ClassVar[str] = "Radford et al., ICLR 2016"

    latent: int = 32
    steps: int = 2000
    batch_size: int = 32
    learning_rate: float = 4e-4
    critic_rate: float = 8e-4
    width: int = 128
    average: float = 0.995
    shift: float = 0.0
    mirrored: bool = True

    def learn(self, images: np.ndarray, seed: int, learning: Learning) -> Learned:
        """Train on images (N, C, H, W); `seed` draws weights, batches, codes. `ValueError` for a setting out of range
        or images that are too small; a training that was stopped goes on.
        """
        self._check()
        shape, device = tuple(images.shape[1:]), learning.device
        doublings(shape)
        x = unit_images(images, learning)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            G = Generator(self.latent, shape, self.width, low=learning.low, high=learning.high)
            D = _Critic(shape, self.width)
        E = copy.deepcopy(G)
        networks = nn.ModuleList((G, D, E)).to(device).to(memory_format=torch.channels_last).train()
        for_g = torch.optim.Adam(G.parameters(), self.learning_rate, betas=_BETAS)
        for_d = torch.optim.Adam(D.parameters(), self.critic_rate, betas=_BETAS)

        def step(batch: Tensor, draws: Draws, number: int) -> dict[str, float]:
            made = G.unit(draws.normal(len(batch), self.latent))
            place = self._place(draws, shape)
            batch, made = place(batch), place(made)
            loss = functional.relu(1 - D(batch)).mean() + functional.relu(1 + D(made.detach())).mean()
            for_d.zero_grad()
            loss.backward()
            for_d.step()
            D.requires_grad_(False)
            fooled = -D(made).mean()
            for_g.zero_grad()
            fooled.backward()
            for_g.step()
            D.requires_grad_(True)
            with torch.no_grad():
                share = 1 - min(self.average, (1 + number) / (10 + number))  # forgets the first steps sooner
                for mean, now in zip(E.parameters(), G.parameters(), strict=True):
                    mean.lerp_(now, share)
            return {"critic": float(loss.detach()), "generator": float(fooled.detach())}

        work_through(
            step,
            self.steps,
            self,
            seed,
            x,
            networks,
            (for_g, for_d),
            learning,
            batch_size=self.batch_size,
            mirrored=self.mirrored,
            curves=("critic", "generator"),
        )
        _settle(E, Draws(seed, -1 % 2**32, device), self.latent, max(self.batch_size, 64))
        return Learned(finished(E), Codes.standard(self.latent))

    def _place(self, draws: Draws, shape: tuple[int, ...]) -> Callable[[Tensor], Tensor]:
        """One shift for all images of a step; what lies beyond an edge is the edge's own pixels."""
        down, right = (int(self.shift * side) for side in shape[1:])
        top, left = draws.whole(2 * down + 1), draws.whole(2 * right + 1)

        def place(x: Tensor) -> Tensor:
            padded = functional.pad(x, (right, right, down, down), mode="replicate")
            return padded[:, :, top : top + shape[1], left : left + shape[2]]

        return place

    def _check(self) -> None:
        for name in ("latent", "steps", "width"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)} must be at least 1")
        if self.batch_size < 2:
            raise ValueError(f"batch_size={self.batch_size} must be at least 2: batch norm compares images")
        for name in ("learning_rate", "critic_rate"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"{name}={getattr(self, name)} must be above 0 and finite")
        if not 0 <= self.average < 1:
            raise ValueError(f"average={self.average} must be at least 0 and below 1")
        if not 0 <= self.shift <= 0.5:
            raise ValueError(f"shift={self.shift} must lie between 0 and 0.5: it is a share of a side")


class _Critic(nn.Module):
    """n convolutions that halve the side, with spectral norm and leaky ReLU; one number at the end.

    Pixels go in between -1 and 1: spectral norm bounds how much that number changes with the image, and between 0 and 1
    the critic tells images apart half as well.
    """

    def __init__(self, shape: tuple[int, ...], w: int) -> None:
        super().__init__()
        n = doublings(shape)
        blocks: list[nn.Module] = []
        for a, b in pairwise((shape[0], *reversed(widths(n, w)))):
            blocks += [spectral_norm(nn.Conv2d(a, b, 4, 2, 1)), nn.LeakyReLU(0.2)]
        last = nn.Linear(b * (shape[1] // 2**n) * (shape[2] // 2**n), 1)
        self.layers = nn.Sequential(*blocks, nn.Flatten(), spectral_norm(last))

    def forward(self, x: Tensor) -> Tensor:
        told: Tensor = self.layers(2 * x - 1)
        return told


@torch.no_grad()
def _settle(E: Generator, draws: Draws, m: int, batch: int) -> None:
    """Give averaged weights batch statistics of their own: those of G belong to other weights."""
    for layer in E.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.reset_running_stats()
            layer.momentum = None  # the plain mean over all passes
    for _ in range(_PASSES):
        E(draws.normal(batch, m))
