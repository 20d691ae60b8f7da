"""Is it the right person? An evaluation model of another architecture says, and plain correlation beside it.

| name here | meaning |
| --- | --- |
| rank | 1 + number of other classes whose logit is at least the target's: a tie counts against the attack |
| own | correlation of an image with the mean photo (centroid) of its own class |
| others | the same with the centroids of the other classes: their mean, and the largest of them |

Aligned faces of any two people correlate, so neither SSIM nor `own` alone proves anything: always print
`own` beside `others`. The evaluation model knows the public classes too, so an image of a public person is
a miss.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

__all__ = ["ClassSimilarity", "Recognition", "class_similarity", "recognise", "true_confidence"]


@dataclass(frozen=True, eq=False)
class Recognition:
    """What an evaluation model says of N images: `rank` (N,) int64, 1 = recognised; `confidence` (N,)
    float64.
    """

    rank: np.ndarray
    confidence: np.ndarray

    @property
    def top1(self) -> np.ndarray:
        """(N,) bool: the target is the model's answer."""
        return self.rank <= 1

    @property
    def top5(self) -> np.ndarray:
        """(N,) bool: the target is among the model's first five."""
        return self.rank <= 5


@dataclass(frozen=True, eq=False)
class ClassSimilarity:
    """Correlations of N images with class centroids, each (N,) float64 in [-1, 1]."""

    own: np.ndarray
    others_mean: np.ndarray
    others_max: np.ndarray


def recognise(
    model: Callable[[Tensor], Tensor],
    images: np.ndarray,
    targets: np.ndarray,
    *,
    batch: int = 256,
    device: str | torch.device = "cpu",
) -> Recognition:
    """Rank each image's target among the classes of an evaluation model.

    Args:
        model: (B, C, H, W) float32 -> logits (B, K); a module must be in evaluation mode.
        images: (N, C, H, W). An image of one constant colour shows nobody, and one with a value that isn't finite
            is none: a target for which nothing was found, with rank K + 1. The confidence of the latter is 0.
        targets: (N,) int, class of each image in the model's numbering.
        batch: images in one call of the model.
        device: where the model lies.

    Raises:
        ValueError: shapes that don't fit, a target the model doesn't know, a model in training mode, bad
            logits.
    """
    images, targets = np.asarray(images, dtype=np.float32), np.asarray(targets)
    if images.ndim != 4 or targets.shape != images.shape[:1]:
        raise ValueError(f"images {images.shape} must be (N, C, H, W) and targets {targets.shape} must be (N,)")
    if isinstance(model, torch.nn.Module) and model.training:
        raise ValueError("the evaluation model is in training mode; call model.eval() first")
    if not len(images):
        return Recognition(np.zeros(0, dtype=np.int64), np.zeros(0))
    found = np.isfinite(images).all(axis=(1, 2, 3))
    safe = torch.from_numpy(np.where(found[:, None, None, None], images, np.float32(0)))
    with torch.no_grad():
        parts = [model(part.to(device)).to("cpu", torch.float64) for part in safe.split(batch)]
    logits = torch.cat(parts).numpy()
    own = _own(logits, targets)
    rank = (logits >= own[:, None]).sum(axis=1)  # the target counts itself: best is 1
    nobody = ~found | (images.min(axis=(1, 2, 3)) == images.max(axis=(1, 2, 3)))
    rank = np.where(nobody, logits.shape[1] + 1, rank).astype(np.int64)
    return Recognition(rank, np.where(found, true_confidence(logits, targets), 0.0))


def true_confidence(logits: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Softmax probability of each row's target in float64: logits (N, K), targets (N,) -> (N,).

    "True" since it comes from the logits themselves, before any contract rounds or withholds them.
    """
    logits, targets = np.asarray(logits, dtype=np.float64), np.asarray(targets)
    own = _own(logits, targets)
    total: np.ndarray = np.exp(np.minimum(logits - own[:, None], 700.0)).sum(axis=1)
    return 1.0 / total


def class_similarity(images: np.ndarray, targets: np.ndarray, centroids: np.ndarray) -> ClassSimilarity:
    """Correlate images with the centroid of their own class and with those of all other classes.

    Args:
        images: (N, C, H, W). An image of one constant colour, or with a value that isn't finite, correlates
            0 with everything, by definition.
        targets: (N,) index of each image's class in `centroids`.
        centroids: (K, C, H, W) mean photo of each class, K >= 2.

    Raises:
        ValueError: shapes that don't fit, a target outside the centroids, fewer than two classes.
    """
    targets = np.asarray(targets)
    if images.ndim != 4 or images.shape[1:] != centroids.shape[1:] or targets.shape != images.shape[:1]:
        raise ValueError(f"images {images.shape}, targets {targets.shape} and centroids {centroids.shape} don't fit")
    if len(centroids) < 2:
        raise ValueError("class similarity needs at least two classes: own alone proves nothing")
    table = np.clip(_standardised(images) @ _standardised(centroids).T, -1.0, 1.0)
    own = _own(table, targets)
    columns = np.arange(len(centroids)) == targets[:, None]
    others = np.where(columns, np.nan, table)
    if not len(images):
        return ClassSimilarity(own, own, own)
    return ClassSimilarity(own, np.nanmean(others, axis=1), np.nanmax(others, axis=1))


def _standardised(images: np.ndarray) -> np.ndarray:
    """Each image as a float64 vector of mean 0 and length 1; the zero vector where there is none."""
    flat = np.asarray(images, dtype=np.float64).reshape(len(images), -1)
    found = np.isfinite(flat).all(axis=1, keepdims=True)
    flat = np.where(found, flat, 0.0)
    constant = flat.min(axis=1, keepdims=True) == flat.max(axis=1, keepdims=True)
    centred = np.where(constant, 0.0, flat - flat.mean(axis=1, keepdims=True))
    length = np.linalg.norm(centred, axis=1, keepdims=True)
    unit: np.ndarray = np.divide(centred, length, out=np.zeros_like(centred), where=length > 0)
    return unit


def _own(table: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """`table[i, targets[i]]`, checked: numpy's negative indices would name another class without a word."""
    if not np.isfinite(table).all():
        raise ValueError("the model returned a logit that isn't finite; check the evaluation model")
    if len(targets) and (targets.min() < 0 or targets.max() >= table.shape[1]):
        raise ValueError(f"targets must lie in 0..{table.shape[1] - 1}, got {targets.min()}..{targets.max()}")
    chosen: np.ndarray = table[np.arange(len(table)), targets]
    return chosen
