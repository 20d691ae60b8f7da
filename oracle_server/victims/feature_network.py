"""A network that tells morphometrics of digits as a commercial interface tells attributes of faces, and its training.

Reference:
    Z. Yang, J. Zhang, E.-C. Chang, Z. Liang, Neural Network Inversion in Adversarial Setting via Background Knowledge
    Alignment, CCS 2019, section 5.7: there, the interface is one that detects 17 attributes, a pose and 30 landmarks.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from oracle_server.models.card import Card
from oracle_server.models.features import host_features
from oracle_server.models.importing import Draft
from oracle_server.models.neural import choose_device
from oracle_server.models.repository import Repository
from oracle_server.victims.morphometrics import MORPHOMETRICS_VERSION, OUTPUTS, morphometrics
from oracle_server.victims.splits import Split, load, rows_sha256, split_named
from oracle_server.victims.trained import Epoch, Trained, trained_once

__all__ = ["FeatureNetwork", "FeatureRecipe", "train_and_host_features", "train_feature_network"]

CODE_VERSION = 1
"""Raised with every change of this file after which the same key would name another model."""

Progress = Callable[[Epoch], None]


@dataclass(frozen=True)
class FeatureRecipe:
    """Hyper-parameters: AdamW without decay, its rate on one cycle up to `learning_rate`.

    Attributes:
        steps: batches in all; the last epoch is finished.
        batch_size: rows in a step.
        learning_rate: at the peak.
        width: channels of the first convolution.
    """

    steps: int = 1500
    batch_size: int = 64
    learning_rate: float = 2e-3
    width: int = 32

    def __post_init__(self) -> None:
        if min(self.steps, self.batch_size, self.width) < 1 or not 0 < self.learning_rate < math.inf:
            raise ValueError(f"steps, batch_size, width and learning_rate must be positive and finite: {self}")


class FeatureNetwork(nn.Module):
    """Three blocks of 3x3 convolution, batch norm, max pooling and ReLU; one linear layer; a sigmoid.

    Shapes:
        ``(N, C, H, W)`` to outputs ``(N, outputs)`` in [0, 1]; H and W at least 8.
    """

    def __init__(self, outputs: int, input_shape: tuple[int, ...], width: int = 32) -> None:
        super().__init__()
        channels, height, columns = input_shape
        if min(height, columns) < 8:
            raise ValueError(f"input_shape must be at least 8 pixels high and wide, not {input_shape}")
        self.features = nn.Sequential(
            *(
                nn.Sequential(
                    nn.Conv2d(inward, outward, 3, padding=1, bias=False),
                    nn.BatchNorm2d(outward),
                    nn.MaxPool2d(2),
                    nn.ReLU(),
                )
                for inward, outward in pairwise((channels, width, 2 * width, 4 * width))
            )
        )
        self.head = nn.Sequential(
            nn.Flatten(), nn.Linear(4 * width * (height // 8) * (columns // 8), outputs), nn.Sigmoid()
        )

    def forward(self, images: Tensor) -> Tensor:
        out: Tensor = self.head(self.features(images))
        return out


def train_feature_network(
    images: NDArray[np.float32],
    *,
    seed: int = 0,
    device: str = "cpu",
    recipe: FeatureRecipe | None = None,
    cache: Path | None = None,
    progress: Progress | None = None,
) -> Trained:
    """Trains a network to tell the morphometrics of images (N, 1, H, W) in [0, 1], or finds it in the cache.

    Args:
        seed: of the start and of the order of images.
        cache: root of the cache; by default ``cache.root()``.
        progress: called after each epoch; not called on a cache hit. An epoch's error is its mean absolute error.

    Raises:
        ValueError: no images, or none that can be measured; a training that diverges.
    """
    if len(images) < 2:
        raise ValueError(f"{len(images)} images are too few to train on: give at least two")
    recipe = recipe or FeatureRecipe()
    made_by: dict[str, Any] = {
        "architecture": "feature_network",
        "code_version": CODE_VERSION,
        "device": torch.device(device).type,
        "images_sha256": hashlib.sha256(np.ascontiguousarray(images, dtype="<f4").tobytes()).hexdigest(),
        "input_shape": list(images.shape[1:]),
        "morphometrics_version": MORPHOMETRICS_VERSION,
        "outputs": [output.name for output in OUTPUTS],
        "recipe": dataclasses.asdict(recipe),
        "seed": seed,
        "torch": torch.__version__,
    }
    shape, width = tuple(images.shape[1:]), recipe.width

    def train(module: nn.Module) -> Epoch:
        return _fit(module, images, recipe, seed, device, progress)

    return trained_once(lambda: FeatureNetwork(len(OUTPUTS), shape, width), train, made_by, device=device, cache=cache)


def _fit(
    module: nn.Module,
    images: NDArray[np.float32],
    recipe: FeatureRecipe,
    seed: int,
    device: str,
    progress: Progress | None,
) -> Epoch:
    """Mean squared error on the images' own measurements; returns the last epoch's figures."""
    inputs = torch.tensor(images, dtype=torch.float32, device=device)
    truth = torch.tensor(morphometrics(images), dtype=torch.float32, device=device)
    draws = torch.Generator().manual_seed(seed)
    steps = math.ceil(len(inputs) / recipe.batch_size)
    epochs = math.ceil(recipe.steps / steps)
    optimiser = torch.optim.AdamW(module.parameters(), recipe.learning_rate, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, recipe.learning_rate, total_steps=epochs * steps)
    last = Epoch(0, epochs, math.inf, math.inf)
    module.train()
    for epoch in range(1, epochs + 1):
        squared, absolute = torch.zeros((), device=device), torch.zeros((), device=device)
        for batch in torch.randperm(len(inputs), generator=draws).tensor_split(steps):
            batch = batch.to(device)
            out = module(inputs[batch])
            loss = functional.mse_loss(out, truth[batch])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
            squared += loss.detach() * len(batch)
            absolute += (out.detach() - truth[batch]).abs().mean() * len(batch)
        last = Epoch(epoch, epochs, float(squared) / len(inputs), float(absolute) / len(inputs))
        if not math.isfinite(last.loss):
            raise ValueError(f"the training diverged in epoch {epoch}: lower the learning rate of {recipe}")
        if progress is not None:
            progress(last)
    module.eval()
    return last


def train_and_host_features(
    split_name: str,
    repository: Repository,
    *,
    name: str,
    version: str = "1",
    seed: int = 0,
    device: str = "auto",
    deterministic: bool = True,
    rows: Sequence[int] | None = None,
    recipe: FeatureRecipe | None = None,
    progress: Progress | None = None,
) -> Card:
    """Train (or find in the cache) and host a feature model; `split.json`, beside the archive, lists the rows seen.

    Args:
        rows: of the split's data set, to learn from; by default all that are not its test rows, since a commercial
            interface has seen more of the world than one client's private data.

    Raises:
        ValueError: an unknown split, images that cannot be measured, or rows that meet the split's test rows.
        FileExistsError: the version is there already; nothing is trained.
    """
    split = split_named(split_name)
    if (repository.folder / name / version).exists():
        raise FileExistsError(f"model {name}/{version} is there already: choose another --version")
    data = load(split)
    learned = _rows(split, len(data.images), rows)
    trained = train_feature_network(
        data.images[learned], seed=seed, device=str(choose_device(device)), recipe=recipe, progress=progress
    )
    module = trained.module.cpu()
    error = _mean_absolute_error(module, data.images[np.asarray(split.test)])
    draft = Draft(
        name=name,
        version=version,
        input_shape=data.images.shape[1:],
        deterministic=deterministic,
        description=f"morphometrics of {data.name}: mean absolute error {error:.4f}; {data.credit}",
    )
    card = host_features(module, repository, draft, OUTPUTS)
    seen = {
        "split": split.name,
        "sha256": split.sha256(),
        "data_sha256": data.sha256(),
        "rows": learned.tolist(),
        "rows_sha256": rows_sha256(learned.tolist()),
    }
    (repository.archive(card).parent / "split.json").write_text(json.dumps(seen) + "\n")
    return card


def _rows(split: Split, count: int, rows: Sequence[int] | None) -> NDArray[np.int64]:
    chosen = np.setdiff1d(np.arange(count), split.test) if rows is None else np.asarray(rows, dtype=np.int64)
    if chosen.size == 0 or len(np.unique(chosen)) < len(chosen) or chosen.min() < 0 or chosen.max() >= count:
        raise ValueError(f"rows must be different numbers from 0 to {count - 1}, at least one of them")
    if np.isin(chosen, split.test).any():
        raise ValueError(f"rows meet the test rows of {split.name}, which nobody has seen: leave those out")
    return chosen


def _mean_absolute_error(module: nn.Module, images: NDArray[np.float32]) -> float:
    """Mean distance between the module's outputs and the measurements of images (N, 1, H, W)."""
    with torch.inference_mode():
        out = torch.cat([module(part) for part in torch.tensor(images).split(100)]).numpy()
    return float(np.abs(out - morphometrics(images)).mean())
