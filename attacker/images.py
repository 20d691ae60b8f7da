"""Images in a .npy file that are handed over with --given."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from attacker.oracle import Oracle

__all__ = ["count_images", "read_images"]


def count_images(path: Path | None) -> int:
    """How many images a file holds; `ValueError` as for `read_images`."""
    return len(_opened(path))


def read_images(path: Path | None, oracle: Oracle) -> np.ndarray:
    """The images (N, *input_shape) float32 of a file, as the oracle takes them.

    Raises `ValueError` with one sentence: no file, not an array of numbers, no image in it, another shape, another type
    than float32, a value that is no number or out of the oracle's range.
    """
    images, shape = _opened(path), tuple(oracle.input_shape)
    if images.shape[1:] != shape:
        raise ValueError(f"{path} holds images of shape {images.shape[1:]}, the model takes {shape}: resize them")
    if images.dtype != np.float32:
        raise ValueError(f"{path} holds {images.dtype}, not float32: convert it with .astype('float32')")
    if not np.isfinite(images).all():
        raise ValueError(f"{path} holds values that are no numbers: replace them")
    low, high = float(images.min()), float(images.max())
    if low < oracle.low or high > oracle.high:
        raise ValueError(
            f"{path} holds values from {low:g} to {high:g}, the model takes {oracle.low:g} to {oracle.high:g}:"
            " scale them"
        )
    return np.array(images)


def _opened(path: Path | None) -> np.ndarray:
    if path is None:
        raise ValueError("no image is given: hand over a .npy file (N, *input_shape) with --given")
    try:
        images = np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError:
        raise ValueError(f"there is no file {path}: name a .npy file of images with --given") from None
    except (ValueError, OSError, EOFError):
        raise ValueError(f"{path} is no .npy file of numbers: write one with numpy.save") from None
    if not isinstance(images, np.ndarray) or images.ndim < 2 or not len(images):
        raise ValueError(f"{path} holds no images: write an array (N, *input_shape) with numpy.save")
    return images
