"""Eigenfaces: the principal components of the public images, in closed form.

M. Turk, A. Pentland, "Eigenfaces for recognition", Journal of Cognitive Neuroscience 3, 1991.

    here      paper     meaning
    x         Gamma     an image as a vector of d pixels
    mean      Psi       the mean image
    U         u_k       the m leading components, each as long as the standard deviation along it
    z         omega_k   what an image has of each, in standard deviations
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from attacker.priors.codes import Codes
from attacker.priors.learning import Learned, Learning

__all__ = ["PCA"]


@dataclass(frozen=True)
class PCA:
    """mean + z U, clipped to the range; codes are N(0, I).

    `latent` components, fewer if the images have no more; with `mirrored` each image counts a second time, left and
    right exchanged, which suits faces and not digits.
    """

    kind: ClassVar[str] = "principal components, in closed form"
    paper: ClassVar[str] = "Turk and Pentland, 1991"

    latent: int = 60
    mirrored: bool = True

    def learn(self, images: np.ndarray, seed: int, learning: Learning) -> Learned:
        """Fit images (N, *shape); nothing is drawn: `seed` changes nothing."""
        if self.latent < 1:
            raise ValueError(f"latent={self.latent} must be at least 1")
        x = torch.tensor(images, dtype=torch.float32)
        if self.mirrored:
            x = torch.cat((x, x.flip(-1)))
        shape, x = x.shape[1:], x.flatten(1)
        if len(x) < 2:
            raise ValueError("one image has no principal components: publish two or more")
        mean = x.mean(0)
        _, S, Vh = torch.linalg.svd(x - mean, full_matrices=False)
        m = min(self.latent, int((1e-5 * S[0] < S).sum()))
        if not m:
            raise ValueError("the public images are all the same: they have no principal components")
        U = Vh[:m] * (S[:m, None] / (len(x) - 1) ** 0.5)
        return Learned(_Decode(mean, U, tuple(shape)), Codes.standard(m), _Encode(mean, U))


class _Decode(nn.Module):
    """z -> mean + z U."""

    mean: Tensor
    U: Tensor

    def __init__(self, mean: Tensor, U: Tensor, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.shape = shape
        self.register_buffer("mean", mean)
        self.register_buffer("U", U)

    def forward(self, z: Tensor) -> Tensor:
        images: Tensor = (self.mean + z @ self.U).unflatten(1, self.shape)
        return images


class _Encode(nn.Module):
    """x -> z, the projection: components are orthogonal."""

    mean: Tensor
    back: Tensor

    def __init__(self, mean: Tensor, U: Tensor) -> None:
        super().__init__()
        self.register_buffer("mean", mean)
        self.register_buffer("back", (U / U.square().sum(1, keepdim=True)).T.contiguous())

    def forward(self, x: Tensor) -> Tensor:
        z: Tensor = (x.flatten(1) - self.mean) @ self.back
        return z
