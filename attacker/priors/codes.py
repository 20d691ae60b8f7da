"""How the codes of natural images are distributed: a mixture of K Gaussians over R^m.

A standard normal (K = 1) for a GAN, whose generator was trained on its draws, and for principal components scaled to
variance 1; for an autoencoder the mixture that is fitted to the codes of its training images.
"""

from __future__ import annotations

import math
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

__all__ = ["Codes"]

_PARTS = ("weights", "means", "factors")


@dataclass(frozen=True, eq=False)
class Codes:
    """weights (K,), means (K, m) and factors (K, m, m): lower triangles L, so that a component's covariance is L L^T.

    >>> Codes.standard(3).draw(2, torch.Generator().manual_seed(0)).shape
    torch.Size([2, 3])
    """

    weights: Tensor
    means: Tensor
    factors: Tensor

    @classmethod
    def standard(cls, m: int) -> Codes:
        """N(0, I) over m numbers."""
        return cls(torch.ones(1), torch.zeros(1, m), torch.eye(m)[None])

    @property
    def latent(self) -> int:
        """m."""
        return self.means.shape[1]

    def draw(self, n: int, generator: torch.Generator) -> Tensor:
        """n codes (n, m) float32; the same whatever was drawn before them with generators of other seeds."""
        noise = torch.randn(n, self.latent, generator=generator)
        k = torch.multinomial(self.weights, n, replacement=True, generator=generator)
        if len(self.weights) == 1:
            return self.means[0] + noise @ self.factors[0].T
        return self.means[k] + (self.factors[k] @ noise[..., None])[..., 0]

    def log_density(self, z: Tensor) -> Tensor:
        """log p(z) (N,) of codes (N, m); differentiable."""
        away = (z[None] - self.means[:, None]).mT  # (K, m, N)
        white = torch.linalg.solve_triangular(self.factors, away, upper=False)
        scale = self.factors.diagonal(dim1=1, dim2=2).log().sum(1) + 0.5 * self.latent * math.log(2 * math.pi)
        return torch.logsumexp(self.weights.log()[:, None] - 0.5 * white.square().sum(1) - scale[:, None], 0)

    @property
    def centre(self) -> Tensor:
        """The mean (m,)."""
        return self.weights @ self.means

    @property
    def spread(self) -> Tensor:
        """Standard deviation of each number (m,), over the whole mixture."""
        within = self.factors.square().sum(2)
        return (self.weights @ (within + (self.means - self.centre).square())).sqrt()

    def save(self, path: Path) -> None:
        """Write a file that `load` reads."""
        with path.open("wb") as file:
            np.savez(file, **{name: getattr(self, name).numpy() for name in _PARTS})

    @classmethod
    def load(cls, path: Path) -> Codes:
        """The codes in a file; `ValueError` for a file that holds none, or a mixture that is none."""
        try:
            with path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
                found = cls(*(torch.from_numpy(file[name].astype(np.float32)) for name in _PARTS))
        except (OSError, KeyError, ValueError, EOFError, zipfile.BadZipFile):
            raise ValueError(f"{path} holds no codes (weights, means, factors): train the prior again") from None
        K, m = found.means.shape if found.means.ndim == 2 else (0, 0)
        fits = K > 0 and found.weights.shape == (K,) and found.factors.shape == (K, m, m)
        if not fits or not all(bool(part.isfinite().all()) for part in (found.weights, found.means, found.factors)):
            raise ValueError(f"{path} holds codes that are no mixture of Gaussians: train the prior again")
        if not (found.weights >= 0).all() or not (found.factors.diagonal(dim1=1, dim2=2) > 0).all():
            raise ValueError(f"{path} holds weights below 0 or a covariance of lower rank: train the prior again")
        return found
