"""Sets of images with labels: what victims are trained on and evaluation networks know."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["ImageSet", "ImagesUnavailableError"]


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
