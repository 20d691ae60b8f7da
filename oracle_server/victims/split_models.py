"""The models of a split: its target, its evaluation networks, and how often they are wrong on unseen photos."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import torch

from defenses.training import Named, training_defence
from oracle_server.victims.images import ImageSet
from oracle_server.victims.recipes import ARCHITECTURES, RECIPES
from oracle_server.victims.splits import Split, class_of, load, random_split
from oracle_server.victims.trained import Progress, Trained
from oracle_server.victims.training import CrossEntropy, Loss, error_rate, train_victim

__all__ = ["evaluation_accuracy", "random_split_errors", "target_error", "train_evaluation", "train_target"]

_DIGITS = ("digits", "mnist")  # data sets whose images must not be mirrored or half hidden to learn from


def train_target(
    split: Split,
    architecture: str = "softmax_regression",
    *,
    faces: ImageSet | None = None,
    loss: Loss | None = None,
    defence: Named | None = None,
    max_steps: int | None = None,
    seed: int = 0,
    device: str = "cpu",
    cache: Path | None = None,
    progress: Progress | None = None,
) -> Trained:
    """The model that is attacked: it knows the private people only, class i is ``split.private[i]``.

    `max_steps` takes the place of the recipe's own: a model that learns for less time is less sure of itself.
    `defence` is a name of ``TRAINING`` with its parameters. Where it starts from a model of public people, that one is
    trained first, by the same recipe.

    Raises:
        ValueError: as `train_victim` and `training_defence`; a start from public people where there are none.
    """
    recipe = RECIPES.get(architecture)
    if recipe is not None and max_steps is not None:
        recipe = dataclasses.replace(recipe, max_steps=max_steps)
    faces = faces or load(split)
    against = None if defence is None else training_defence(*defence)
    start = None
    if architecture in ARCHITECTURES and against is not None and not against.off and against.starts_from_public:
        people = tuple(person for person in split.public if person not in split.private)
        rows = [row for row in split.published if faces.labels[row] in people] if people else []
        if not rows:
            raise ValueError(f"split {split.name} publishes nobody else to learn from first: defend it otherwise")
        with torch.random.fork_rng(devices=[]):  # a sentence now, not after a training
            against.wrap(ARCHITECTURES[architecture](len(split.private), faces.images.shape[1:]), len(split.private))
        start = train_victim(
            architecture, faces, rows, people, recipe=recipe, seed=seed, device=device, cache=cache, progress=progress
        )
    return train_victim(
        architecture,
        faces,
        split.target,
        split.private,
        recipe=recipe,
        loss=loss,
        defence=against,
        start=start,
        seed=seed,
        device=device,
        cache=cache,
        progress=progress,
    )


def train_evaluation(
    split: Split,
    number: int = 0,
    *,
    faces: ImageSet | None = None,
    architecture: str | None = None,
    seed: int = 0,
    device: str = "cpu",
    cache: Path | None = None,
    progress: Progress | None = None,
) -> Trained:
    """Evaluation network `number` of the split: it knows everybody, class i is ``split.known[i]``.

    Splits that list the same rows for it share one network, trained once. Its `architecture` is by default the one that
    suits the split's data set.
    """
    if not 0 <= number < len(split.evaluations):
        raise ValueError(f"split {split.name} has {len(split.evaluations)} evaluation networks: no number {number}")
    return train_victim(
        architecture or ("cnn_digits" if split.data in _DIGITS else "cnn"),
        faces or load(split),
        split.evaluations[number],
        split.known,
        loss=CrossEntropy(label_smoothing=0.1),
        seed=seed,
        device=device,
        cache=cache,
        progress=progress,
    )


def target_error(target: Trained, split: Split, faces: ImageSet | None = None) -> float:
    """Share of the private people's unseen photos that the target gets wrong."""
    return _error(target, split, faces, split.test, split.private)


def evaluation_accuracy(evaluation: Trained, split: Split, faces: ImageSet | None = None) -> float:
    """Share of everybody's unseen photos that an evaluation network gets right."""
    return 1.0 - _error(evaluation, split, faces, split.evaluation_test, split.known)


def random_split_errors(
    seeds: Iterable[int] = range(10),
    architecture: str = "softmax_regression",
    *,
    faces: ImageSet | None = None,
    cache: Path | None = None,
    progress: Callable[[int, float], None] | None = None,
) -> list[float]:
    """Test errors of an architecture over random splits, one for each seed; progress gets (seed, error)."""
    errors = []
    for seed in seeds:
        split = random_split(seed)
        faces = faces or load(split)
        trained = train_target(split, architecture, faces=faces, seed=seed, cache=cache)
        errors.append(target_error(trained, split, faces))
        if progress is not None:
            progress(seed, errors[-1])
    return errors


def _error(
    trained: Trained, split: Split, faces: ImageSet | None, rows: tuple[int, ...], people: tuple[int, ...]
) -> float:
    faces = faces or load(split)
    return error_rate(trained.module, faces.images[np.asarray(rows)], class_of(faces, rows, people))
