"""DCGAN: a convolutional generator learns to make images that a critic takes for the public ones.

A. Radford, L. Metz, S. Chintala, "Unsupervised Representation Learning with Deep Convolutional Generative Adversarial
Networks", ICLR 2016. The critic, its losses and the shifts before it are in `attacker.priors.critic`.

    here        paper     meaning
    x           x         a public image, pixels scaled to [0, 1]
    z           z         a code, m = `latent` numbers from N(0, I)
    G, D        G, D      generator and critic
    E           -         G with the running average of its weights: the prior
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from attacker.priors.codes import Codes
from attacker.priors.critic import BETAS, Contest, Critic, Loss, check_settings
from attacker.priors.layers import Generator, doublings, finished
from attacker.priors.learning import Learned, Learning
from attacker.priors.rounds import Draws, unit_images, work_through

__all__ = ["DCGAN"]

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
    loss: Loss = "hinge"
    penalty: float = 10.0
    critic_steps: int = 1

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
            D = Critic(shape, self.width, low=learning.low, high=learning.high, spectral=self.loss != "wasserstein")
        E = copy.deepcopy(G)
        networks = nn.ModuleList((G, D, E)).to(device).to(memory_format=torch.channels_last).train()
        for_g = torch.optim.Adam(G.parameters(), self.learning_rate, betas=BETAS)
        for_d = torch.optim.Adam(D.parameters(), self.critic_rate, betas=BETAS)

        def make(size: int, draws: Draws) -> Tensor:
            return G.unit(draws.normal(size, self.latent))

        work_through(
            Contest(self, x, make, G, D, E, for_g, for_d).step,
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
        return Learned(finished(E), Codes.standard(self.latent), critic=D.finished())

    def _check(self) -> None:
        check_settings(self)
        if self.batch_size < 2:
            raise ValueError(f"batch_size={self.batch_size} must be at least 2: batch norm compares images")


@torch.no_grad()
def _settle(E: Generator, draws: Draws, m: int, batch: int) -> None:
    """Give averaged weights batch statistics of their own: those of G belong to other weights."""
    for layer in E.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.reset_running_stats()
            layer.momentum = None  # the plain mean over all passes
    for _ in range(_PASSES):
        E(draws.normal(batch, m))
