"""Images as points: what an evaluation network makes of an image just before it names somebody.

The last linear layer of a classifier tells classes apart by planes, so what enters it is a space in which photos of one
class lie together. Sets of images are compared there: `frechet_distance`, `prdc`, `nearness`.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

__all__ = ["distances", "embed", "points"]


def embed(
    network: nn.Module, images: np.ndarray, *, batch: int = 256, device: str | torch.device = "cpu"
) -> np.ndarray:
    """What enters the last `nn.Linear` of a network, its penultimate activations: (N, F) float64.

    Args:
        network: (B, C, H, W) float32 -> logits; in evaluation mode. The last of `network.modules()` that is linear
            counts. It is as it was afterwards, whatever happens.
        images: (N, C, H, W). One of constant colour is embedded as any other, although it shows nobody: a network that
            standardises its input puts all of them onto one point. One with a value that isn't finite is no point.
        batch: images in one call of the network.
        device: where the network lies.

    Raises:
        ValueError: images that aren't (N, C, H, W) or hold a value that isn't finite, a network in training mode,
            without a linear layer or one that doesn't use it on one row an image, activations that aren't finite.
    """
    images = np.asarray(images, dtype=np.float32)
    if images.ndim != 4 or batch < 1:
        raise ValueError(f"images {images.shape} must be (N, C, H, W), and batch={batch} at least 1")
    if not np.isfinite(images).all():
        raise ValueError("images hold values that are no numbers: leave out the targets for which nothing was found")
    if any(module.training for module in network.modules()):
        raise ValueError("the network is in training mode; call network.eval() first")
    linear = [module for module in network.modules() if isinstance(module, nn.Linear)]
    if not linear:
        raise ValueError("the network has no linear layer, so nothing enters its last one")
    entered: list[Tensor] = []
    hook = linear[-1].register_forward_pre_hook(lambda _module, args: entered.append(args[0]))
    parts = [np.zeros((0, linear[-1].in_features))]
    try:
        with torch.no_grad():
            for part in torch.from_numpy(images).split(batch) if len(images) else ():
                entered.clear()
                network(part.to(device))
                if len(entered) != 1 or entered[0].shape != (len(part), linear[-1].in_features):
                    raise ValueError("the network's last linear layer must be used once, on one row for each image")
                parts.append(entered[0].to("cpu", torch.float64).numpy())
    finally:
        hook.remove()
    return points(np.concatenate(parts), "activations of the network")


def points(features: np.ndarray, name: str, *, least: int = 0) -> np.ndarray:
    """The same as float64 (N, F), checked; `name` is what an error calls them.

    Raises:
        ValueError: another shape, fewer than `least` rows, no columns, or a value that isn't finite.
    """
    features = np.asarray(features, dtype=np.float64)
    if features.ndim != 2 or len(features) < least or not features.shape[1]:
        raise ValueError(f"{name} {features.shape} must be (N, F) with at least {least} rows and a column")
    if not np.isfinite(features).all():
        raise ValueError(f"{name} hold values that are no numbers")
    return features


def distances(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Euclidean distances (N, F), (M, F) -> (N, M) float64, from differences and not from inner products.

    The expansion |a|^2 - 2ab + |b|^2 would cancel between near points: here equal points are 0 apart, and the distance
    of two points is the same number wherever they stand.

    Raises:
        ValueError: points of different width.
    """
    if one.shape[1:] != other.shape[1:]:
        raise ValueError(f"points of {one.shape[1]} and of {other.shape[1]} columns have no distance")
    pair = torch.from_numpy(np.ascontiguousarray(one)), torch.from_numpy(np.ascontiguousarray(other))
    apart: np.ndarray = torch.cdist(*pair, compute_mode="donot_use_mm_for_euclid_dist").numpy()
    return apart
