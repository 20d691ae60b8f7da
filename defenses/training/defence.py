"""What a method may change while a victim is trained; each method is a frozen dataclass of this kind.

The victim's one training loop calls, in this order: `wrap` when the module is made, `start` where the method asks for
weights that were learned from public people, `running` around all steps, then for each epoch `batches` and for each
batch `loss`; `noted` says what the model's card has to say besides. What a method leaves alone is as without a defence.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

__all__ = ["TrainingDefence"]


class TrainingDefence:
    """By itself it changes nothing: what the loop asks of it is what an undefended training does."""

    @property
    def off(self) -> bool:
        """Strength none: the loop then trains the baseline, and finds it under the baseline's name in the cache."""
        return True

    @property
    def runs_to_end(self) -> bool:
        """Must all epochs be run, whatever patience the recipe has? So it is with a schedule over the training."""
        return False

    @property
    def starts_from_public(self) -> bool:
        """Does it start from a model of the same architecture that was trained on public people? See `start`."""
        return False

    def wrap(self, module: nn.Module, classes: int) -> nn.Module:
        """The module that is trained and hosted instead: (N, *input_shape) to logits (N, classes).

        Raises:
            ValueError: an architecture that the method cannot change.
        """
        return module

    def start(self, module: nn.Module, public: nn.Module) -> None:
        """Take weights from `public` into `module`, in place; `ValueError` if they do not fit."""

    @contextlib.contextmanager
    def running(
        self, module: nn.Module, optimiser: torch.optim.Optimizer, rows: int, batch_size: int, seed: int
    ) -> Iterator[tuple[nn.Module, torch.optim.Optimizer]]:
        """The module (in training mode) and the optimiser that take the steps; undone on leaving."""
        yield module, optimiser

    def batches(self, rows: int, batch_size: int, draws: torch.Generator) -> Iterable[Tensor]:
        """Places (B,) int64 among `rows` training rows, for each step of one epoch."""
        order: Tensor = torch.randperm(rows, generator=draws)
        parts: tuple[Tensor, ...] = order.split(batch_size)
        return parts

    def loss(self, module: nn.Module, inputs: Tensor, labels: Tensor, progress: float) -> tuple[Tensor, Tensor]:
        """What a step minimises, a scalar, and the logits (B, C).

        inputs    (B, *input_shape) in [0, 1]; labels (B,) int64
        progress  of the training, 0 at its first step and 1 at its last
        """
        logits = module(inputs)
        return functional.cross_entropy(logits, labels), logits

    def noted(self, rows: int, batch_size: int, epochs: int) -> Mapping[str, Any]:
        """What the card says besides, plain JSON, of a training on so many rows."""
        return {}
