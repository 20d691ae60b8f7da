"""Sets of images with labels: what victims are trained on and evaluation networks know."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["ImageSet", "ImagesUnavailableError", "resized"]

_AT_ONCE = 10_000  # images in one call of the resize, so that a large set needs little memory beside its own


class ImagesUnavailableError(RuntimeError):
    """The images are missing, incomplete or not the known ones; the message says what to do."""


@dataclass(frozen=True, eq=False)
class ImageSet:
    """Images with what is on them.

    Attributes:
        images: ``(N, C, H, W)`` float32 in [0, 1], byte / 255.
        labels: ``(N,)`` int64, the number of the person, digit or object from 0.
        name: the data set's name, as in ``Split.data``.
        credit: the line that every copy carries.
        terms: the terms of use in a sentence; empty when there are none.
    """

    images: NDArray[np.float32]
    labels: NDArray[np.int64]
    name: str
    credit: str = ""
    terms: str = ""

    def __post_init__(self) -> None:
        if self.images.ndim != 4 or self.labels.shape != self.images.shape[:1]:
            raise ValueError(f"images {self.images.shape} must be (N, C, H, W), labels {self.labels.shape} (N,)")

    def sha256(self) -> str:
        """Hash of images and labels: the identity of the data in cards and cache keys."""
        digest = hashlib.sha256()
        for array in (self.images, self.labels):
            digest.update(f"{array.dtype.str}{array.shape}".encode())
            digest.update(np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()


def resized(images: NDArray[np.float32], height: int, width: int) -> NDArray[np.float32]:
    """``(N, C, H, W)`` in [0, 1] to ``(N, C, height, width)``: bilinear, antialiased, rounded to byte / 255 again.

    Raises:
        ValueError: the images have no four axes, or the new size is below one pixel.
    """
    import torch  # takes seconds, which reading images alone need not wait for
    from torch.nn import functional

    if images.ndim != 4 or min(height, width) < 1:
        raise ValueError(f"cannot resize images {images.shape} to {height}x{width}: give (N, C, H, W), 1x1 or more")
    result = np.empty((*images.shape[:2], height, width), dtype=np.float32)
    for start in range(0, len(images), _AT_ONCE):
        part = torch.tensor(images[start : start + _AT_ONCE])
        scaled = functional.interpolate(part, (height, width), mode="bilinear", antialias=True)
        result[start : start + _AT_ONCE] = (scaled.clamp(0, 1) * 255).round().div(255).numpy()
    return result
