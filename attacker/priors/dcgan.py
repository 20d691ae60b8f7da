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

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from attacker.priors.average import settle
from attacker.priors.codes import Codes
from attacker.priors.critic import Critic, Loss, check_settings, contend
from attacker.priors.layers import Generator, doublings, finished
from attacker.priors.learning import Learned, Learning
from attacker.priors.rounds import Draws, unit_images

__all__ = ["DCGAN"]


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
        shape = tuple(images.shape[1:])
        doublings(shape)
        x = unit_images(images, learning)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            G = Generator(self.latent, shape, self.width, low=learning.low, high=learning.high)
            D = Critic(shape, self.width, low=learning.low, high=learning.high, spectral=self.loss != "wasserstein")

        def make(size: int, draws: Draws) -> Tensor:
            return G.unit(draws.normal(size, self.latent))

        E = contend(self, x, make, G, D, seed, learning)
        draws = Draws(seed, -1 % 2**32, learning.device)
        settle(E, lambda: draws.normal(max(self.batch_size, 64), self.latent))
        return Learned(finished(E), Codes.standard(self.latent), critic=D.finished())

    def _check(self) -> None:
        check_settings(self)
        if self.batch_size < 2:
            raise ValueError(f"batch_size={self.batch_size} must be at least 2: batch norm compares images")
