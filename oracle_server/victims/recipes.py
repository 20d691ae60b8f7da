"""Which architectures there are and how each is trained: values only, all of them part of a model's cache key."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType

from torch import nn

from oracle_server.victims.augmentation import Augmentation
from oracle_server.victims.autoencoder import Pretraining, StackedAutoencoder
from oracle_server.victims.cnn import Cnn
from oracle_server.victims.conv_classifier import ConvClassifier
from oracle_server.victims.mlp import Mlp
from oracle_server.victims.softmax_regression import SoftmaxRegression

__all__ = ["ARCHITECTURES", "RECIPES", "Optimiser", "Pretraining", "Recipe", "Schedule"]


class Optimiser(StrEnum):
    """What turns gradients into steps."""

    SGD = "sgd"
    ADAMW = "adamw"


class Schedule(StrEnum):
    """How the learning rate moves over the epochs."""

    CONSTANT = "constant"
    ONE_CYCLE = "one-cycle"


@dataclass(frozen=True)
class Recipe:
    """Hyper-parameters of one training.

    Attributes:
        epochs: passes over the training rows, at most.
        batch_size: rows in a step; the last batch of an epoch may be smaller.
        learning_rate: of the optimiser; the peak of a one-cycle schedule.
        momentum: of SGD.
        weight_decay: as the optimiser understands it.
        patience: stop this many epochs after the training error last improved; None trains for all epochs.
        augmentation: applied to every batch; None leaves photos as they are.
        pretraining: of each layer, before all else; None for a model that has none.
        max_steps: fewer epochs when there are so many rows that all epochs would take more steps than this; None for
            no bound. One epoch is run in any case.
    """

    epochs: int
    batch_size: int
    learning_rate: float
    optimiser: Optimiser = Optimiser.SGD
    schedule: Schedule = Schedule.CONSTANT
    momentum: float = 0.9
    weight_decay: float = 0.0
    patience: int | None = None
    augmentation: Augmentation | None = None
    pretraining: Pretraining | None = None
    max_steps: int | None = None

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "learning_rate"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be above 0, not {getattr(self, name)}")
        if not 0 <= self.momentum < 1:
            raise ValueError(f"momentum must be in [0, 1), not {self.momentum}")
        if self.weight_decay < 0:
            raise ValueError(f"weight_decay must not be below 0, not {self.weight_decay}")
        if self.patience is not None and self.patience < 1:
            raise ValueError(f"patience must be at least 1, not {self.patience}")
        if self.max_steps is not None and self.max_steps < 1:
            raise ValueError(f"max_steps must be at least 1, not {self.max_steps}")

    def epochs_for(self, rows: int) -> int:
        """Epochs over that many training rows: `epochs`, or as many whole ones as `max_steps` allow, at least one."""
        if rows < 1:
            raise ValueError(f"rows must be at least 1, not {rows}")
        if self.max_steps is None:
            return self.epochs
        return max(1, min(self.epochs, self.max_steps // math.ceil(rows / self.batch_size)))


ARCHITECTURES: Mapping[str, Callable[[int, tuple[int, ...]], nn.Module]] = MappingProxyType(
    {
        "softmax_regression": SoftmaxRegression,
        "mlp": Mlp,
        "autoencoder": StackedAutoencoder,
        "cnn": Cnn,
        "cnn_digits": Cnn,
        "conv_classifier": ConvClassifier,
    }
)

RECIPES: Mapping[str, Recipe] = MappingProxyType(
    {
        # SGD until the training error has not improved for 100 passes, as in the paper. Larger steps
        # give larger weights: an inversion needs fewer steps then, and from a mean face it stalls more often. Weight
        # decay does the reverse, until the gradient is too small for confidence 0.99 within 5,000 steps.
        "softmax_regression": Recipe(epochs=400, batch_size=28, learning_rate=0.012, patience=100),
        "mlp": Recipe(epochs=400, batch_size=28, learning_rate=0.005, patience=30),
        "autoencoder": Recipe(
            epochs=400,
            batch_size=28,
            learning_rate=0.01,
            patience=30,
            pretraining=Pretraining(epochs=20, batch_size=28, learning_rate=3e-3, corruption=0.3),
        ),
        "cnn": Recipe(
            epochs=60,
            batch_size=28,
            learning_rate=3e-3,
            optimiser=Optimiser.ADAMW,
            schedule=Schedule.ONE_CYCLE,
            weight_decay=1e-2,
            augmentation=Augmentation(),
        ),
        # The same network, for digits: a mirrored or half-hidden digit may be another one.
        "cnn_digits": Recipe(
            epochs=60,
            batch_size=64,
            learning_rate=3e-3,
            optimiser=Optimiser.ADAMW,
            schedule=Schedule.ONE_CYCLE,
            weight_decay=1e-2,
            augmentation=Augmentation(mirror=0.0, hidden=0.0),
            max_steps=2000,
        ),
        "conv_classifier": Recipe(
            epochs=100,
            batch_size=64,
            learning_rate=1e-3,
            optimiser=Optimiser.ADAMW,
            schedule=Schedule.ONE_CYCLE,
            max_steps=480,
        ),
    }
)

if ARCHITECTURES.keys() != RECIPES.keys():
    raise RuntimeError(f"architectures without a recipe, or the reverse: {ARCHITECTURES.keys() ^ RECIPES.keys()}")
