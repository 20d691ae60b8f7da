"""Priors whose images are their codes, and targets with known centres, for attacks that search a latent space."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from attacker.priors.codes import Codes
from attacker.priors.layered import Layered
from attacker.priors.pca import _Decode, _Encode
from attacker.priors.prior import Prior, PriorCard, save_prior
from tests.toy import Contract, ToyOracle, softmax_regression

__all__ = [
    "CENTRES",
    "SHAPE",
    "Balls",
    "Counted",
    "Lobes",
    "M",
    "Stripes",
    "affine",
    "gaussian",
    "labels_of",
    "oracle",
    "regression",
    "save_affine",
]

SHAPE, M = (1, 2, 3), 6  # of the images, of the codes
_WIDE = 9.0  # pixels from -9 to 9, which nothing here reaches unless it is meant to
CENTRES = np.array([[1.2, 0, 0, 0.5, 0, 0], [0, 1.3, 0, 0, 0, 0], [0, 0, -1.1, 0, 0.6, 0]])


def affine(
    axes: np.ndarray | None = None,
    middle: float = 0.0,
    codes: Codes | None = None,
    *,
    shape: tuple[int, ...] = SHAPE,
    low: float = -_WIDE,
    high: float = _WIDE,
    encoder: bool = True,
    critic: nn.Module | None = None,
    layers: int = 1,
) -> Prior:
    """middle + z axes, from axes (m, d); the image of a code is that code if none are given.

    Of L layers, layer l reads the numbers l, l + L, ... of its code, so that one code for all makes the same image.
    """
    U = torch.from_numpy(np.eye(M) if axes is None else axes).float()  # noqa: N806
    mean, m = torch.full((U.shape[1],), middle), len(U)
    card = PriorCard("pca", m, shape, low, high, "", layers=layers)
    generator: nn.Module = _Decode(mean, U, shape)
    if layers > 1:
        mapping = nn.Linear(m, m, bias=False).requires_grad_(False)
        mapping.weight.copy_(torch.eye(m))
        generator = Layered(mapping, _Parted(layers, generator, m), layers)
    return Prior(card, generator, codes or Codes.standard(m), _Encode(mean, U) if encoder else None, critic)


def save_affine(folder: Path, axes: np.ndarray | None = None, *args: Any, **settings: Any) -> Path:
    """The folder, with that prior in it."""
    save_prior(affine(axes, *args, **settings), folder)
    return folder


class _Parted(nn.Module):
    """Styles (N, L, m) -> the image of the code whose number j is that of layer j % L."""

    mine: Tensor

    def __init__(self, layers: int, decode: nn.Module, m: int) -> None:
        super().__init__()
        self.decode = decode
        self.register_buffer("mine", (torch.arange(m) % layers == torch.arange(layers)[:, None]).float())

    def forward(self, styles: Tensor) -> Tensor:
        images: Tensor = self.decode((styles * self.mine).sum(1))
        return images


def gaussian(mean: float, deviation: float) -> Codes:
    """Codes with one mean and one standard deviation in every number."""
    return Codes(torch.ones(1), torch.full((1, M), mean), deviation * torch.eye(M)[None])


def oracle(model: nn.Module, contract: Contract | None = None, max_rows: int = 50) -> ToyOracle:
    return ToyOracle(model, SHAPE, contract, max_rows=max_rows, low=-_WIDE, high=_WIDE)


def regression(seed: int = 0, classes: int = 3, spread: float = 0.5) -> nn.Module:
    """Softmax regression with random weights."""
    return softmax_regression(np.random.default_rng(seed).normal(scale=spread, size=(classes, M)))


class Balls(nn.Module):
    """z_c = gain (r^2 - |x - centre_c|^2), and 0 for one more class, which is all that lies in no ball."""

    def __init__(self, centres: np.ndarray = CENTRES, radius: float = 1.5, gain: float = 1.0) -> None:
        super().__init__()
        self.centres, self.radius, self.gain = torch.from_numpy(centres).float(), radius, gain

    def forward(self, x: Tensor) -> Tensor:
        away = (x.flatten(1)[:, None] - self.centres).square().sum(2)
        return self.gain * nn.functional.pad(self.radius**2 - away, (0, 1))


class Counted(nn.Module):
    """A model that counts the rows it is asked."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.inner, self.rows = model, 0

    def forward(self, x: Tensor) -> Tensor:
        self.rows += len(x)
        answer: Tensor = self.inner(x)
        return answer


class Lobes(nn.Module):
    """z_0 = |x_0| - 0.7, z_1 = 0: class 0 has two parts, whose mean is of class 1."""

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.pad(x.flatten(1)[:, :1].abs() - 0.7, (0, 1))


class Stripes(nn.Module):
    """z_c = sin(40 x_c) for the first three pixels, and 0: classes so thin that a step leaves them."""

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.pad((40 * x.flatten(1)[:, :3]).sin(), (0, 1))


def labels_of(model: nn.Module, codes: np.ndarray) -> np.ndarray:
    """The classes of images or of codes that are images."""
    return np.asarray(model(torch.from_numpy(codes)).argmax(1).numpy())
