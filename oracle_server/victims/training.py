"""The one training loop of all victims, and the models it made, remembered on disk.

A loss sees the module, a batch and its labels, and returns what to minimise; a training defence may change more, see
`defenses.training.defence`. Everything that makes a model (data, rows, recipe, loss, defence, seed, torch, device) is
hashed into the name under which it is kept.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from defenses.training import TrainingDefence
from oracle_server.victims.images import ImageSet
from oracle_server.victims.recipes import ARCHITECTURES, RECIPES, Optimiser, Pretraining, Recipe, Schedule
from oracle_server.victims.splits import class_of, rows_sha256
from oracle_server.victims.trained import Epoch, Progress, Trained, seeded, trained_once

__all__ = [
    "CODE_VERSION",
    "CrossEntropy",
    "Epoch",
    "Loss",
    "Trained",
    "Wrap",
    "error_rate",
    "fit",
    "train_victim",
    "trained_once",
]

CODE_VERSION = 1
"""Raised with every change of this package after which the same key would name another model."""


class Loss(Protocol):
    """What a training minimises: a frozen dataclass, whose ``repr`` names it in the cache."""

    def __call__(self, module: nn.Module, inputs: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """The loss of a batch, a scalar, and the module's logits (N, C), of which the loop counts errors."""


@dataclass(frozen=True)
class CrossEntropy:
    """Mean cross-entropy; `label_smoothing` is the share of probability spread over all classes."""

    label_smoothing: float = 0.0

    def __call__(self, module: nn.Module, inputs: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        logits = module(inputs)
        return functional.cross_entropy(logits, labels, label_smoothing=self.label_smoothing), logits


class Wrap(Protocol):
    """Puts an architecture's module into a larger one that is trained as a whole: a frozen dataclass, see `Loss`."""

    def __call__(self, module: nn.Module, classes: int, input_shape: tuple[int, ...]) -> nn.Module:
        """The whole, whose answer to a batch is still logits (N, classes)."""


@runtime_checkable
class Pretrainable(Protocol):
    """A module that learns from photos without labels before it learns from labels."""

    def pretrain(self, images: Tensor, pretraining: Pretraining, draws: torch.Generator) -> None:
        """Trains in place on images (N, C, H, W); all that is random comes from `draws`."""


def train_victim(
    architecture: str,
    faces: ImageSet,
    rows: Sequence[int],
    people: Sequence[int],
    *,
    recipe: Recipe | None = None,
    loss: Loss | None = None,
    wrap: Wrap | None = None,
    defence: TrainingDefence | None = None,
    start: Trained | None = None,
    seed: int = 0,
    device: str = "cpu",
    cache: Path | None = None,
    progress: Progress | None = None,
) -> Trained:
    """Trains a model on `rows` of a data set, or finds it in the cache.

    Args:
        architecture: a key of ``ARCHITECTURES``.
        faces: the data set.
        rows: the photos to learn from.
        people: who is class 0, 1, ...; everybody on the rows must be among them.
        recipe: hyper-parameters; by default those of the architecture.
        loss: by default cross-entropy; a dataclass, so that its ``repr`` tells it from others.
        wrap: the module is trained inside of what this makes of it; a dataclass too.
        defence: has a loss and a wrap of its own; one that is off is as none.
        start: the model from which a defence takes weights to start from.
        seed: of the start, the order of photos, augmentation and dropout.
        device: ``cpu`` or ``cuda``; the models of the two differ in the last bits and are cached apart.
        cache: root of the cache; by default ``cache.root()``.
        progress: called after each epoch; not called on a cache hit.

    Raises:
        ValueError: an unknown architecture, no rows, a loss or wrap without a name, a defence beside a loss or a wrap
            or one that does not suit the architecture, a training that diverges.
    """
    if architecture not in ARCHITECTURES:
        raise ValueError(f"unknown architecture {architecture!r}: choose one of {', '.join(ARCHITECTURES)}")
    if not rows:
        raise ValueError("nothing to train on: give at least one row")
    loss = CrossEntropy() if loss is None else loss
    if not dataclasses.is_dataclass(loss):
        raise ValueError("the loss must be a frozen dataclass, so that its repr names it in the cache")
    if wrap is not None and not dataclasses.is_dataclass(wrap):
        raise ValueError("the wrap must be a frozen dataclass, so that its repr names it in the cache")
    recipe = recipe or RECIPES[architecture]
    if defence is not None and defence.off:
        defence = None
    if defence is not None:
        if wrap is not None or loss != CrossEntropy():
            raise ValueError(f"{defence} has a loss of its own: train with it or with another loss, not with both")
        if defence.starts_from_public and start is None:
            raise ValueError(f"{defence} needs a model to start from")
        if defence.runs_to_end:
            recipe = dataclasses.replace(recipe, patience=None)
    labels = class_of(faces, rows, people)
    images = faces.images[np.asarray(rows, dtype=np.int64)]
    made_by: dict[str, Any] = {
        "architecture": architecture,
        "classes": len(people),
        "code_version": CODE_VERSION,
        "data": faces.name,
        "data_sha256": faces.sha256(),
        "device": torch.device(device).type,
        "input_shape": list(images.shape[1:]),
        "loss": repr(loss),
        "people": [int(person) for person in people],
        "recipe": dataclasses.asdict(recipe),
        "rows_sha256": rows_sha256(rows),
        "seed": seed,
        "torch": torch.__version__,
    }
    if wrap is not None:  # left out otherwise, so that models which were made without keep their keys
        made_by["wrap"] = repr(wrap)
    noted: dict[str, Any] = {"rows": [int(row) for row in rows]}
    if defence is not None:
        made_by["defence"] = repr(defence)
        noted["defended_by"] = repr(defence)
        noted["defence"] = dict(defence.noted(len(rows), recipe.batch_size, recipe.epochs_for(len(rows))))
    if start is not None:
        made_by["start"] = start.key
        noted["start_rows"] = start.card["rows"]
    shape = tuple(images.shape[1:])

    def make() -> nn.Module:
        module = ARCHITECTURES[architecture](len(people), shape)
        if defence is not None:
            module = defence.wrap(module, len(people))
            if start is not None:
                defence.start(module, start.module)
            return module
        return module if wrap is None else wrap(module, len(people), shape)

    def train(module: nn.Module) -> Epoch:
        options: dict[str, Any] = {"seed": seed, "device": device, "progress": progress}
        return fit(module, images, labels, recipe, loss=loss, defence=defence, **options)

    return trained_once(make, train, made_by, device=device, cache=cache, noted=noted)


def fit(
    module: nn.Module,
    images: NDArray[np.float32],
    labels: NDArray[np.int64],
    recipe: Recipe,
    *,
    loss: Loss,
    seed: int,
    device: str = "cpu",
    progress: Progress | None = None,
    defence: TrainingDefence | None = None,
) -> Epoch:
    """Trains `module` in place on ``(N, C, H, W)`` images and ``(N,)`` labels; returns the last epoch's figures.
    The loss of a `defence` takes the place of `loss`.

    Raises:
        ValueError: the loss is no longer finite; a pre-training for a module that has none.
    """
    if recipe.pretraining is not None and not isinstance(module, Pretrainable):
        raise ValueError(f"{type(module).__name__} has no pre-training: leave `pretraining` out of its recipe")
    inputs, targets = torch.tensor(images, device=device), torch.tensor(labels, device=device)
    draws = torch.Generator().manual_seed(seed)
    epochs = recipe.epochs_for(len(inputs))
    steps, step = epochs * math.ceil(len(inputs) / recipe.batch_size), 0
    plain, schedule = _optimiser(module, recipe, steps)
    hooks = defence or TrainingDefence()
    best, best_epoch, last = math.inf, 0, Epoch(0, epochs, math.inf, 1.0)
    module.train()
    with seeded(seed, device):
        if recipe.pretraining is not None and isinstance(module, Pretrainable):
            module.pretrain(inputs, recipe.pretraining, draws)
        with hooks.running(module, plain, len(inputs), recipe.batch_size, seed) as (taught, optimiser):
            for epoch in range(1, epochs + 1):
                total, wrong = torch.zeros((), device=device), torch.zeros((), dtype=torch.int64, device=device)
                for batch in hooks.batches(len(inputs), recipe.batch_size, draws):
                    batch = batch.to(device)
                    photos = inputs[batch]
                    if recipe.augmentation is not None:
                        photos = recipe.augmentation(photos, draws)
                    if defence is None:
                        value, logits = loss(taught, photos, targets[batch])
                    else:
                        value, logits = defence.loss(taught, photos, targets[batch], step / max(1, steps - 1))
                    optimiser.zero_grad()
                    value.backward()
                    optimiser.step()
                    schedule.step()
                    step += 1
                    total += value.detach() * len(batch)
                    wrong += (logits.argmax(1) != targets[batch]).sum()
                last = Epoch(epoch, epochs, float(total) / len(inputs), int(wrong) / len(inputs))
                if not math.isfinite(last.loss):
                    raise ValueError(f"the training diverged in epoch {epoch}: lower the learning rate of {recipe}")
                if progress is not None:
                    progress(last)
                if last.error < best:
                    best, best_epoch = last.error, epoch
                if recipe.patience is not None and epoch - best_epoch >= recipe.patience:
                    break
    module.eval()
    return last


def error_rate(
    module: nn.Module, images: NDArray[np.float32], labels: NDArray[np.int64], batch_size: int = 100
) -> float:
    """Share of ``(N, C, H, W)`` images to which `module` gives another class than ``(N,)`` labels say."""
    device = next(module.parameters()).device
    with torch.inference_mode():
        guesses = [module(part.to(device)).argmax(1).cpu() for part in torch.tensor(images).split(batch_size)]
    return float((torch.cat(guesses).numpy() != labels).mean())


def _optimiser(
    module: nn.Module, recipe: Recipe, steps: int
) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
    optimiser: torch.optim.Optimizer
    rate, decay = recipe.learning_rate, recipe.weight_decay
    if recipe.optimiser is Optimiser.SGD:
        optimiser = torch.optim.SGD(module.parameters(), rate, recipe.momentum, weight_decay=decay)
    else:
        optimiser = torch.optim.AdamW(module.parameters(), rate, weight_decay=decay)
    if recipe.schedule is Schedule.ONE_CYCLE:
        return optimiser, torch.optim.lr_scheduler.OneCycleLR(optimiser, rate, total_steps=steps)
    return optimiser, torch.optim.lr_scheduler.ConstantLR(optimiser, factor=1.0)
