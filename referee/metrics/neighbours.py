"""Is a reconstruction as near to the private photos as another photo of the same class would be?

| name here | meaning |
| --- | --- |
| nearest | distance to the nearest private image of the own class |
| centroid | distance to the mean of the private images of the own class |

Both are ratios to what held-out real images of that class have in the mean, so 1 is as near as another photo of the
class, and 0 is a private image itself (or the centroid). Distances alone depend on the network, and on how much the
photos of a class differ. A mean face is nearer to the centroid than any photo, and a network that has learned the
private images holds them closer together than others: below 1 is no proof of a copy.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from referee.metrics.embedding import distances, points

__all__ = ["Nearness", "nearness"]


@dataclass(frozen=True, eq=False)
class Nearness:
    """Of N images, each (N,) float64, at least 0: distances as ratios to those of held-out images of the class."""

    nearest: np.ndarray
    centroid: np.ndarray


def nearness(
    made: np.ndarray,
    classes: np.ndarray,
    private: np.ndarray,
    private_classes: np.ndarray,
    held_out: np.ndarray,
    held_out_classes: np.ndarray,
) -> Nearness:
    """How near made images are to the private images of their class.

    Args:
        made: (N, F) embeddings, meant to be of `classes` (N,).
        private: (P, F) embeddings of the images to be recovered, of `private_classes` (P,).
        held_out: (H, F) embeddings of real images that no model learned, of `held_out_classes` (H,). A class without
            any is measured by the mean over all of them, each to the private images of its own class. Those of classes
            without private images don't count.

    Raises:
        ValueError: shapes that don't fit, values that aren't finite, a class without private images, no held-out
            images of the private classes, or held-out images that equal private ones, so that there is no unit.
    """
    made, classes = _labelled(made, classes, "made images")
    private, private_classes = _labelled(private, private_classes, "private images")
    held_out, held_out_classes = _labelled(held_out, held_out_classes, "held-out images")
    missing = np.setdiff1d(classes, private_classes)
    if len(missing):
        raise ValueError(f"class {missing[0]} has no private images, so nothing can be near to them")
    known = np.isin(held_out_classes, private_classes)
    if not known.any():
        raise ValueError("no held-out image is of a private class, so there is nothing to compare with")
    held_out, held_out_classes = held_out[known], held_out_classes[known]
    real = _apart(held_out, held_out_classes, private, private_classes)
    ours = _apart(made, classes, private, private_classes)
    unit = np.repeat(real.mean(axis=1, keepdims=True), len(classes), axis=1)
    for name in np.intersect1d(classes, held_out_classes):
        unit[:, classes == name] = real[:, held_out_classes == name].mean(axis=1, keepdims=True)
    if not (unit > 0).all():
        raise ValueError("held-out images of a class are all equal to private ones: they must be other photos")
    return Nearness(*(ours / unit))


def _apart(images: np.ndarray, classes: np.ndarray, private: np.ndarray, private_classes: np.ndarray) -> np.ndarray:
    """(2, N): each image's distance to the nearest private image of its class, and to their mean."""
    found = np.zeros((2, len(images)))
    for name in np.unique(classes):
        own, members = private[private_classes == name], classes == name
        found[0, members] = distances(images[members], own).min(axis=1)
        found[1, members] = distances(images[members], own.mean(axis=0, keepdims=True))[:, 0]
    return found


def _labelled(images: np.ndarray, classes: np.ndarray, name: str) -> tuple[np.ndarray, np.ndarray]:
    images, classes = points(images, name), np.asarray(classes)
    if classes.shape != images.shape[:1]:
        raise ValueError(f"classes {classes.shape} of {name} must be one for each of {len(images)}")
    return images, classes
