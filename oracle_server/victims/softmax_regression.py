"""Softmax regression on raw pixels: the simplest target of Fredrikson, Jha and Ristenpart (CCS 2015, section 5.1)."""

from __future__ import annotations

from math import prod

import torch
from torch import Tensor, nn

__all__ = ["SoftmaxRegression"]


class SoftmaxRegression(nn.Module):
    r"""$z = W x + b$; the softmax is left to whoever releases the scores.

    Weights start at zero. The loss is convex, so the start does not matter for the classifier, but it does for an
    inversion: from zero every row of $W$ stays a combination of the training photos, and a random start would stay in
    the weights for good, since no photo ever pulls at it.

    Shapes:
        ``(N, *input_shape)`` in [0, 1] to logits ``(N, classes)``.
    """

    def __init__(self, classes: int, input_shape: tuple[int, ...] = (1, 112, 92)) -> None:
        super().__init__()
        self.linear = nn.Linear(prod(input_shape), classes)
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.linear(torch.flatten(images, 1))
        return logits
