"""Soft labels; with a negative share the labels get harder than hard.

L. Struppek, D. Hintersdorf, K. Kersting, "Be careful what you smooth for: label smoothing can be a privacy shield but
also a catalyst for model inversion attacks", ICLR 2024, section 3.

    here      paper        meaning
    alpha     alpha        share of probability spread over all classes; below 0 it is taken from the other classes
    classes   C            number of classes
    soft      y^LS         (1 - alpha) * onehot + alpha / C, (B, C)
    progress  epoch / E    of the training, in [0, 1]

Positive alpha helps an attacker, negative alpha hinders one: both are of interest.

Differences from the reference: with alpha < 0 the share is 0 for two thirds of the steps and then falls in a straight
line to alpha, which it has at the last step; the reference moves it once an epoch.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn import functional

from defenses.training.defence import TrainingDefence

__all__ = ["LabelSmoothing", "soft_cross_entropy"]

_HARD = 2 / 3  # of a training with alpha < 0 has hard labels


@dataclass(frozen=True)
class LabelSmoothing(TrainingDefence):
    """Mean cross-entropy with soft labels; `alpha` below 1, not 0 unless it is off.

    Raises:
        ValueError: alpha from 1 on, or not finite.
    """

    alpha: float

    def __post_init__(self) -> None:
        if not (math.isfinite(self.alpha) and self.alpha < 1):
            raise ValueError(f"alpha={self.alpha} must be a number below 1, for example -0.05")

    @property
    def off(self) -> bool:
        return self.alpha == 0

    @property
    def runs_to_end(self) -> bool:
        return self.alpha < 0

    def share(self, progress: float) -> float:
        """The share that is spread at this point of the training."""
        if self.alpha >= 0:
            return self.alpha
        return self.alpha * max(0.0, (progress - _HARD) / (1 - _HARD))

    def loss(self, module: nn.Module, inputs: Tensor, labels: Tensor, progress: float) -> tuple[Tensor, Tensor]:
        logits = module(inputs)
        return soft_cross_entropy(logits, labels, self.share(progress)), logits


def soft_cross_entropy(logits: Tensor, labels: Tensor, alpha: float) -> Tensor:
    """Mean of -sum_c soft_c log p_c over logits (B, C) and labels (B,); torch's own refuses alpha < 0."""
    log_p = functional.log_softmax(logits, dim=1)
    return (1 - alpha) * functional.nll_loss(log_p, labels) - alpha * log_p.mean()
