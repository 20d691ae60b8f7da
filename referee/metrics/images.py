"""Is it the right picture? A reconstruction beside the very image that was to be recovered, pixel by pixel.

| name here | meaning |
| --- | --- |
| mse | mean squared error over all pixels and channels, of values in [0, 1] |
| psnr | 10 log10(1 / mse), in decibels; an exact copy would be infinite and counts as 100 dB |
| ssim | mean structural similarity with windows of 7 pixels and range 1 (Wang et al., 2004), in [-1, 1] |

An image with a value that isn't finite is none: its error is 1, which no image in [0, 1] exceeds, so it has 0 dB, and
its similarity is 0. The mean image of a class has a low error too: print the floors beside these.
"""

from __future__ import annotations

import numpy as np
from skimage.metrics import structural_similarity

__all__ = ["MOST_DECIBELS", "WORST_ERROR", "mse", "psnr", "ssim"]

WORST_ERROR = 1.0
MOST_DECIBELS = 100.0
_WINDOW = 7  # pixels on a side, or the largest odd number that fits into the image


def mse(images: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Mean squared error of each image: (N, C, H, W) and (N, C, H, W) -> (N,) float64.

    Raises `ValueError` for shapes that differ or are no images, and for a truth that isn't finite.
    """
    images, truth, found = _pair(images, truth)
    error: np.ndarray = np.square(images - truth).mean(axis=(1, 2, 3))
    return np.where(found, error, WORST_ERROR)


def psnr(images: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Peak signal-to-noise ratio of each image in decibels, at most 100: shapes and errors as in `mse`."""
    error = np.maximum(mse(images, truth), 10 ** (-MOST_DECIBELS / 10))
    return np.asarray(-10 * np.log10(error))


def ssim(images: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Structural similarity of each image, the mean over its channels: shapes and errors as in `mse`.

    All images are channels of one, and the border where a window does not fit is cut off, so each value is that of a
    call for the image alone. Sides must be at least 3 pixels.
    """
    images, truth, found = _pair(images, truth)
    count, channels, *sides = images.shape
    if min(sides) < 3:
        raise ValueError(f"images of {sides[0]} x {sides[1]} pixels are too small: sides must be at least 3")
    if not count:
        return np.zeros(0)
    window = min(_WINDOW, min(sides) - 1 + min(sides) % 2)
    stacks = [np.moveaxis(stack.reshape(-1, *sides), 0, -1) for stack in (truth, images)]
    _, similar = structural_similarity(  # type: ignore[no-untyped-call]
        *stacks, win_size=window, data_range=1.0, channel_axis=-1, full=True
    )
    border = window // 2
    inner = similar[border : sides[0] - border, border : sides[1] - border]
    return np.where(found, inner.mean(axis=(0, 1)).reshape(count, channels).mean(axis=1), 0.0)


def _pair(images: np.ndarray, truth: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Both as float64, zeros for images that aren't finite, and which are (N,) bool."""
    images, truth = np.asarray(images, dtype=np.float64), np.asarray(truth, dtype=np.float64)
    if images.ndim != 4 or images.shape != truth.shape:
        raise ValueError(f"images {images.shape} and truth {truth.shape} must be equal and (N, C, H, W)")
    if not np.isfinite(truth).all():
        raise ValueError("the true images hold values that are no numbers: check the data set")
    found = np.isfinite(images).all(axis=(1, 2, 3))
    return np.where(found[:, None, None, None], images, 0.0), truth, found
