"""A multilayer perceptron with one hidden layer: the second target of Fredrikson, Jha and Ristenpart (CCS 2015)."""

from __future__ import annotations

from math import prod

import torch
from torch import Tensor, nn

__all__ = ["Mlp"]


class Mlp(nn.Module):
    r"""$z = V \sigma(W x + b) + c$ with 3,000 sigmoid units in the paper (section 5.1); no softmax at the end.

    Both layers start from normal draws. Those of $W$ are small, standard deviation 0.001: every step adds a combination
    of training photos to a row of $W$, but what the draw put there across all photos is never pulled at and stays as
    noise in the gradient that an inversion follows (ten times larger, the usual $1/\sqrt{\text{pixels}}$, costs it more
    than half of the people that it finds from a black image). Those of $V$ have 0.1, which tells the units apart; that
    is the spread advised for sigmoid units, $4\sqrt{2/(\text{in} + \text{out})}$ by Glorot and Bengio (2010).

    Shapes:
        ``(N, *input_shape)`` in [0, 1] to logits ``(N, classes)``.
    """

    def __init__(self, classes: int, input_shape: tuple[int, ...] = (1, 112, 92), hidden: int = 3000) -> None:
        super().__init__()
        if hidden < 1:
            raise ValueError(f"hidden must be at least 1, not {hidden}")
        self.hidden = nn.Linear(prod(input_shape), hidden)
        self.output = nn.Linear(hidden, classes)
        for layer, spread in ((self.hidden, 1e-3), (self.output, 0.1)):
            nn.init.normal_(layer.weight, std=spread)
            nn.init.zeros_(layer.bias)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.output(torch.sigmoid(self.hidden(torch.flatten(images, 1))))
        return logits
