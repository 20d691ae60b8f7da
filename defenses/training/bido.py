"""Hidden layers that depend little on the input and much on the label.

X. Peng, F. Liu, J. Zhang, L. Lan, J. Ye, T. Liu, B. Han, "Bilateral dependency optimization: defending against
model-inversion attacks", KDD 2022, section 4, with the Hilbert-Schmidt independence criterion.

    here       paper        meaning
    lambda_x   lambda_x     price of a layer's dependence on the input
    lambda_y   lambda_y     reward of a layer's dependence on the label
    K, L       K, L         Gaussian kernel matrices (m, m) of two views of a batch of m
    d          d            dimensions of a view
    sigma      sigma        width of its kernel, 5 sqrt(d): K_ij = exp(-|x_i - x_j|^2 / (2 sigma^2))
    H          H            I - 1/m: centres a kernel matrix
    hsic       HSIC         trace(K H L H) / (m - 1)^2

The loss is the mean cross-entropy + sum over hidden layers Z of lambda_x dep(X, Z) - lambda_y dep(Y, Z); Y is one-hot.
Layers are those of `structure.hidden_layers`.

Differences from the reference: dep(X, Z) = hsic(X, Z) / sqrt(hsic(X, X) hsic(Z, Z)), in [0, 1], so that a weight means
the same for pixels as for features: with such wide kernels the criterion itself shrinks with the square of the views'
spreads. (The reference's code normalises by inverses of the kernel matrices.) A batch of one adds nothing.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from defenses.training.defence import TrainingDefence
from defenses.training.structure import hidden_layers

__all__ = ["Bido", "dependence", "gaussian_kernel", "hsic"]

_WIDTH = 5.0


@dataclass(frozen=True)
class Bido(TrainingDefence):
    """Both weights are at least 0; it is off with both 0.

    Raises:
        ValueError: a weight below 0 or not finite.
    """

    lambda_x: float
    lambda_y: float

    def __post_init__(self) -> None:
        for name in ("lambda_x", "lambda_y"):
            if not (math.isfinite(getattr(self, name)) and getattr(self, name) >= 0):
                raise ValueError(f"{name}={getattr(self, name)} must be a number from 0, for example 0.1")

    @property
    def off(self) -> bool:
        return self.lambda_x == 0 and self.lambda_y == 0

    def wrap(self, module: nn.Module, classes: int) -> nn.Module:
        hidden_layers(module)  # refuses a module without
        return module

    def loss(self, module: nn.Module, inputs: Tensor, labels: Tensor, progress: float) -> tuple[Tensor, Tensor]:
        outputs: list[Tensor] = []
        hooks = [layer.register_forward_hook(lambda *said: outputs.append(said[2])) for layer in hidden_layers(module)]
        try:
            logits = module(inputs)
        finally:
            for hook in hooks:
                hook.remove()
        loss = functional.cross_entropy(logits, labels)
        if len(inputs) < 2:
            return loss, logits
        X, Y = gaussian_kernel(inputs), gaussian_kernel(functional.one_hot(labels, logits.shape[1]).to(inputs))
        for Z in map(gaussian_kernel, outputs):
            loss = loss + self.lambda_x * dependence(X, Z) - self.lambda_y * dependence(Y, Z)
        return loss, logits


def gaussian_kernel(view: Tensor) -> Tensor:
    """Kernel matrix (m, m) of a view (m, ...), less 1 in each place: centring takes a constant away anyway, and what
    is left of numbers close to 1 would be rounded.
    """
    flat = view.flatten(1)
    squares = flat.square().sum(1)
    distances = (squares[:, None] + squares - 2 * flat @ flat.T).clamp_min(0)
    return torch.expm1(-distances / (2 * _WIDTH**2 * flat.shape[1]))


def hsic(K: Tensor, L: Tensor) -> Tensor:
    """trace(K H L H) / (m - 1)^2 of two kernel matrices (m, m), a scalar."""
    return (_centred(K) * _centred(L)).sum() / (len(K) - 1) ** 2


def dependence(K: Tensor, L: Tensor) -> Tensor:
    """`hsic` over the root of each one's with itself: 1 for a view and itself, 0 where one is constant."""
    return hsic(K, L) / (hsic(K, K) * hsic(L, L)).clamp_min(torch.finfo(K.dtype).tiny).sqrt()


def _centred(K: Tensor) -> Tensor:
    return K - K.mean(0) - K.mean(1, keepdim=True) + K.mean()
