"""Variational autoencoder: an encoder with noise on its codes and a decoder, whose codes keep to a few numbers.

S. Yoshimura, K. Nakamura, N. Nitta, N. Babaguchi, "Model Inversion Attack against a Face Recognition System in a
Black-Box Setting", APSIPA ASC 2021, Figure 5; D. P. Kingma, M. Welling, "Auto-Encoding Variational Bayes", ICLR 2014.

    here        paper     meaning
    x           x         an image, pixels scaled to [0, 1]
    z           z         its code, m = `latent` numbers
    mu, s       mu, sigma^2  mean and log variance of q(z | x), from the encoder
    beta        -         weight of the divergence of q(z | x) from N(0, I), against the squared error of all pixels
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from attacker.priors.codes import Codes
from attacker.priors.layers import Generator, Residual, doublings, finished, widths
from attacker.priors.learning import Learned, Learning
from attacker.priors.rounds import Draws, unit_images, work_through

__all__ = ["VAE"]

_AT_ONCE = 256  # images of one pass without gradient
_WIDEST = 8.0  # bound on |log variance|: no single image makes the loss overflow
_DRAWS = 8  # codes drawn for each image when their distribution is fitted
_RIDGE = 1e-3  # least variance of a component


@dataclass(frozen=True)
class VAE:
    """Minimise |x - decoder(z)|^2 + beta KL(q(z | x), N(0, I)), z drawn from q(z | x); then fit a mixture of
    `components` Gaussians to codes drawn for the training images, which leaves no holes as N(0, I) would.

    With `mirrored` an image is exchanged left and right every second time, which suits faces and not digits.

    Differences from the reference: batch norm before each convolution of a residual block, fewer channels (`width`
    on the smallest side), and codes drawn from the fitted mixture.
    """

    kind: ClassVar[str] = "variational autoencoder"
    paper: ClassVar[str] = "Yoshimura et al., APSIPA 2021"

    latent: int = 32
    steps: int = 1000
    batch_size: int = 32
    learning_rate: float = 1e-3
    width: int = 64
    beta: float = 0.25
    components: int = 10
    mirrored: bool = True

    def learn(self, images: np.ndarray, seed: int, learning: Learning) -> Learned:
        """Train on images (N, C, H, W); `seed` draws weights, batches, codes. `ValueError` for a setting out of range
        or images that are too small; a training that was stopped goes on.
        """
        self._check()
        mixture = _mixture()
        shape, device = tuple(images.shape[1:]), learning.device
        doublings(shape)
        x = unit_images(images, learning)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            encoder = _Encoder(self.latent, shape, self.width, learning.low, learning.high)
            decoder = Generator(self.latent, shape, self.width, low=learning.low, high=learning.high, residual=True)
        both = nn.ModuleList((encoder, decoder)).to(device).to(memory_format=torch.channels_last).train()
        optimiser = torch.optim.Adam(both.parameters(), self.learning_rate)

        def step(batch: Tensor, draws: Draws, number: int) -> dict[str, float]:
            for group in optimiser.param_groups:
                group["lr"] = self.learning_rate * (0.5 + 0.5 * math.cos(math.pi * number / self.steps))
            mu, s = encoder.posterior(batch)
            z = mu + (0.5 * s).exp() * draws.normal(*mu.shape)
            error = (decoder.unit(z) - batch).square().sum((1, 2, 3)).mean()
            divergence = 0.5 * (mu.square() + s.exp() - 1 - s).sum(1).mean()
            loss = error + self.beta * divergence
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            return {"error": float(error.detach()), "divergence": float(divergence.detach())}

        work_through(
            step,
            self.steps,
            self,
            seed,
            x,
            both,
            (optimiser,),
            learning,
            batch_size=self.batch_size,
            mirrored=self.mirrored,
            curves=("error", "divergence"),
        )
        finished(both)
        return Learned(decoder, self._codes(encoder, x.cpu(), mixture, seed), encoder)

    def _codes(self, encoder: _Encoder, x: Tensor, mixture: type, seed: int) -> Codes:
        """The mixture of Gaussians that fits q(z), the mean of q(z | x) over the training images."""
        x = torch.cat((x, x.flip(-1))) if self.mirrored else x
        with torch.no_grad():
            mu, s = (torch.cat(parts) for parts in zip(*map(encoder.posterior, x.split(_AT_ONCE)), strict=True))
        noise = torch.randn(_DRAWS, *mu.shape, generator=torch.Generator().manual_seed(seed))
        z = (mu + (0.5 * s).exp() * noise).flatten(0, 1).double().numpy()
        K = max(1, min(self.components, len(x) // self.latent))
        # starts that k-means finds would count the cores, for which it starts a process
        found = mixture(K, random_state=seed, reg_covar=_RIDGE, init_params="k-means++", max_iter=300, tol=1e-2).fit(z)
        factors = np.linalg.cholesky(found.covariances_)
        return Codes(*(torch.tensor(part, dtype=torch.float32) for part in (found.weights_, found.means_, factors)))

    def _check(self) -> None:
        for name in ("latent", "steps", "width", "components"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)} must be at least 1")
        if self.batch_size < 2:
            raise ValueError(f"batch_size={self.batch_size} must be at least 2: batch norm compares images")
        for name in ("learning_rate", "beta"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"{name}={getattr(self, name)} must be above 0 and finite")


class _Encoder(nn.Module):
    """n convolutions that halve the side, each followed by a residual block; fully connected at the end.

    Shapes:
        ``(N, C, H, W)`` between low and high to the posterior mean ``(N, m)``.
    """

    def __init__(self, m: int, shape: tuple[int, ...], w: int, low: float, high: float) -> None:
        super().__init__()
        self.low, self.range = low, high - low
        n = doublings(shape)
        blocks: list[nn.Module] = []
        for a, b in pairwise((shape[0], *reversed(widths(n, w)))):
            blocks += [nn.Conv2d(a, b, 4, 2, 1, bias=False), Residual(b)]
        self.blocks = nn.Sequential(*blocks, nn.BatchNorm2d(b), nn.LeakyReLU(0.2), nn.Flatten())
        self.dense = nn.Linear(b * (shape[1] // 2**n) * (shape[2] // 2**n), 2 * m)

    def posterior(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log variance (N, m) of q(z | x), for pixels in [0, 1]."""
        mu, s = self.dense(self.blocks(x)).chunk(2, 1)
        return mu, s.clamp(-_WIDEST, _WIDEST)

    def forward(self, x: Tensor) -> Tensor:
        return self.posterior((x - self.low) / self.range)[0]


def _mixture() -> type:
    """Imported when a training begins, so that one that cannot end is not begun."""
    try:
        from sklearn.mixture import GaussianMixture
    except ImportError:
        raise ValueError(
            "a vae prior fits its codes with scikit-learn, which is not installed: pip install 'mirage-range[attacks]'"
        ) from None
    found: type = GaussianMixture
    return found
