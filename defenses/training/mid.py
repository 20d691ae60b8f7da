"""A bottleneck before the logits that lets little of the input through.

T. Wang, Y. Zhang, R. Jia, "Improving robustness to model inversion attacks via mutual information regularization",
AAAI 2021, section 4 (deep networks: the variational information bottleneck).

    here    paper       meaning
    beta    beta        price of a nat that the bottleneck lets through
    width   k           dimensions of the bottleneck
    mu, s   mu, sigma   mean and standard deviation of z given the input, (B, k)
    z       z           mu + s * e with e ~ N(0, I) while training, mu in evaluation
    rate    KL          KL(N(mu, s^2) || N(0, I)) in nats, summed over the k dimensions, (B,)

The loss is the mean cross-entropy of logits that are linear in z, plus beta times the mean rate: the rate bounds the
mutual information of input and logits from above.

Differences from the reference: the rate is in nats, not bits (its beta is ours times ln 2); k is 64, not half of the
features, so that a bottleneck costs little on networks of any width.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from defenses.training.defence import TrainingDefence
from defenses.training.structure import last_linear

__all__ = ["Bottleneck", "Mid", "rate"]

_QUIET = 5.0  # s starts near softplus(-5), so that the first steps are those of a network without noise
_LEAST = 1e-6


@dataclass(frozen=True)
class Mid(TrainingDefence):
    """The last linear layer becomes a `Bottleneck`; see `structure.last_linear` for which one that is.

    Raises:
        ValueError: beta below 0 or not finite, width below 1.
    """

    beta: float
    width: int = 64

    def __post_init__(self) -> None:
        if not (math.isfinite(self.beta) and self.beta >= 0):
            raise ValueError(f"beta={self.beta} must be a number from 0, for example 0.01")
        if self.width < 1:
            raise ValueError(f"width={self.width} must be at least 1")

    @property
    def off(self) -> bool:
        return self.beta == 0

    def wrap(self, module: nn.Module, classes: int) -> nn.Module:
        parent, name, layer = last_linear(module, classes)
        setattr(parent, name, Bottleneck(layer.in_features, self.width, classes))
        return module

    @contextlib.contextmanager
    def running(
        self, module: nn.Module, optimiser: torch.optim.Optimizer, rows: int, batch_size: int, seed: int
    ) -> Iterator[tuple[nn.Module, torch.optim.Optimizer]]:
        try:
            yield module, optimiser
        finally:
            for part in module.modules():
                if isinstance(part, Bottleneck):
                    part.rate = torch.zeros(0)  # the last batch's graph is no part of the model

    def loss(self, module: nn.Module, inputs: Tensor, labels: Tensor, progress: float) -> tuple[Tensor, Tensor]:
        logits = module(inputs)
        (through,) = [part.rate for part in module.modules() if isinstance(part, Bottleneck)]
        return functional.cross_entropy(logits, labels) + self.beta * through.mean(), logits


class Bottleneck(nn.Module):
    """Features (B, d) to logits (B, C) through z (B, width); in evaluation z is its mean, so the answer is one."""

    def __init__(self, features: int, width: int, classes: int) -> None:
        super().__init__()
        self.mean, self.spread = nn.Linear(features, width), nn.Linear(features, width)
        self.logits = nn.Linear(width, classes)
        self.rate = torch.zeros(0)

    def forward(self, features: Tensor) -> Tensor:
        z = mu = self.mean(features)
        if self.training:
            s = functional.softplus(self.spread(features) - _QUIET).clamp_min(_LEAST)
            self.rate = rate(mu, s)
            z = mu + s * torch.randn_like(s)
        logits: Tensor = self.logits(z)
        return logits


def rate(mu: Tensor, s: Tensor) -> Tensor:
    """KL(N(mu, s^2) || N(0, I)) in nats for means and standard deviations (B, k): (B,)."""
    return 0.5 * (mu.square() + s.square() - 1).sum(1) - s.log().sum(1)
