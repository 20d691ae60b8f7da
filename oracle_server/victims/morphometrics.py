"""Measurements of a bright shape on a dark ground: the truth that a feature model of digits is trained to tell.

They stand for what a commercial interface tells of a face: 17 attributes, 3 numbers of the pose, and 60 landmarks, each
scaled to [0, 1] by a fixed constant and clipped. Ink is what is brighter than 0.5. A, H, W: pixels, height and width of
an image; S = min(H, W).

    shape      ink, filled ink and convex hull / A; extent (share of the bounding box), solidity (share of the hull),
               eccentricity; axes of the ellipse of equal moments / sqrt(H^2 + W^2); perimeter / 3 (H + W);
               (Euler number + 3) / 6; bounding box / H and / W; mean and largest distance from ink to ground, times
               8 / S and 4 / S; mean grey times 2; the first two moments of Hu, times 1 and 2
    pose       slant (1 + s) / 2 with s = mu11 / mu02 the shear of columns over rows; centroid's row / (H - 1) and
               column / (W - 1)
    landmarks  in each of 15 bands of rows: left edge of the first ink column and right edge of the last one, / W;
               in each of 15 bands of columns: the same for rows, / H. 0 and 0 in a band without ink

An image without ink has 0 everywhere, but for Euler number (0.5) and pose (0.5, 0.5, 0.5).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage  # type: ignore[import-untyped]
from skimage.measure import regionprops_table

from protos.schema import Output

__all__ = ["MORPHOMETRICS_VERSION", "OUTPUTS", "morphometrics"]

MORPHOMETRICS_VERSION = 1  # raised with every change after which the same image has other measurements

BANDS = 15
THRESHOLD = 0.5
AT_ONCE = 4096  # images in one table, to bound the memory
MEASURED = (
    "area", "area_filled", "area_convex", "extent", "solidity", "eccentricity", "axis_major_length",
    "axis_minor_length", "perimeter", "euler_number", "bbox", "moments_hu",
)  # fmt: skip
SHAPE = (
    "area", "filled_area", "convex_area", "extent", "solidity", "eccentricity", "major_axis", "minor_axis", "perimeter",
    "euler_number", "box_height", "box_width", "mean_thickness", "largest_thickness", "ink_mass", "hu_1", "hu_2",
)  # fmt: skip
POSE = ("slant", "centroid_row", "centroid_column")
LANDMARKS = tuple(f"{end}_{b}" for end in ("left", "right", "top", "bottom") for b in range(BANDS))

OUTPUTS: tuple[Output, ...] = tuple(
    Output(name, group)
    for group, names in (("shape", SHAPE), ("pose", POSE), ("landmarks", LANDMARKS))
    for name in names
)
"""Name and group of each column of `morphometrics`."""


def morphometrics(images: NDArray[Any]) -> NDArray[np.float64]:
    """Measurements (N, 80) in [0, 1] of grey images (N, 1, H, W) in [0, 1], H and W at least 15; see this module's top.

    Raises:
        ValueError: the images have another shape, or values outside [0, 1].
    """
    images = np.asarray(images)
    if images.ndim != 4 or images.shape[1] != 1 or min(images.shape[2:]) < BANDS:
        raise ValueError(f"images {images.shape} must be (N, 1, H, W) with H and W at least {BANDS}")
    if images.size and not (images.min() >= 0 and images.max() <= 1):
        raise ValueError("images must lie in [0, 1]: divide bytes by 255")
    parts = [images[first : first + AT_ONCE, 0] for first in range(0, len(images), AT_ONCE)]
    rows = [_measure(part, part > THRESHOLD) for part in parts]
    return np.concatenate([np.zeros((0, len(OUTPUTS))), *rows]).clip(0.0, 1.0)


def _measure(grey: NDArray[Any], ink: NDArray[np.bool_]) -> NDArray[np.float64]:
    return np.concatenate([_shape(grey, ink), _pose(ink), _landmarks(ink)], axis=1)


def _shape(grey: NDArray[Any], ink: NDArray[np.bool_]) -> NDArray[np.float64]:
    """The 17 attributes (N, 17) of images (N, H, W)."""
    n, height, width = ink.shape
    shorter = min(height, width)
    padded = np.pad(ink, ((0, 0), (1, 1), (1, 1)))  # beyond the image's border is ground
    tall = padded.reshape(n * (height + 2), width + 2)  # one region for each image, apart by two rows of ground
    numbers = np.repeat(np.arange(1, n + 1), height + 2)[:, None]
    table = regionprops_table(  # type: ignore[no-untyped-call]
        np.where(tall, numbers, 0), properties=("label", *MEASURED)
    )
    distance = ndimage.distance_transform_edt(tall).reshape(n, -1) if tall.any() else np.zeros((n, 1))
    pixels = np.maximum(ink.sum(axis=(1, 2)), 1)

    out = np.zeros((n, len(SHAPE)))
    out[:, 9] = 0.5
    there = table["label"] - 1  # images without ink have no region
    diagonal = float(np.hypot(height, width))
    measured = (
        table["area"] / (height * width),
        table["area_filled"] / (height * width),
        table["area_convex"] / (height * width),
        table["extent"],
        table["solidity"],
        table["eccentricity"],
        table["axis_major_length"] / diagonal,
        table["axis_minor_length"] / diagonal,
        table["perimeter"] / (3 * (height + width)),
        (table["euler_number"] + 3) / 6,
        (table["bbox-2"] - table["bbox-0"]) / height,
        (table["bbox-3"] - table["bbox-1"]) / width,
        distance.sum(axis=1)[there] / pixels[there] * 8 / shorter,
        distance.max(axis=1)[there] * 4 / shorter,
        grey.mean(axis=(1, 2), dtype=np.float64)[there] * 2,
        table["moments_hu-0"],
        table["moments_hu-1"] * 2,
    )
    out[there] = np.stack(measured, axis=1)
    return out


def _pose(ink: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Slant and centroid (N, 3) of images (N, H, W)."""
    _, height, width = ink.shape
    row, column = np.arange(height), np.arange(width)
    pixels = ink.sum(axis=(1, 2))
    some = np.maximum(pixels, 1)
    by_row, by_column = ink.sum(axis=2), ink.sum(axis=1)
    mean_row, mean_column = by_row @ row / some, by_column @ column / some
    mu02 = by_row @ row**2 - some * mean_row**2
    mu11 = np.einsum("nhw,h,w->n", ink, row, column, optimize=True) - some * mean_row * mean_column
    upright = mu02 < 1e-9  # all ink in one row, or none
    slant = np.where(upright, 0.0, mu11 / np.where(upright, 1.0, mu02))
    pose = np.stack([(1 + slant) / 2, mean_row / (height - 1), mean_column / (width - 1)], axis=1)
    return np.where(pixels[:, None] > 0, pose, 0.5)


def _landmarks(ink: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Edges (N, 60) of images (N, H, W): left, right of 15 bands of rows; top, bottom of 15 bands of columns."""
    return np.concatenate([*_edges(ink), *_edges(ink.transpose(0, 2, 1))], axis=1)


def _edges(ink: NDArray[np.bool_]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """First and last edge of the ink (N, 15) along the last axis, as shares of it, in bands of the axis before."""
    length, side = ink.shape[1:]
    starts = np.arange(BANDS) * length // BANDS
    bands = np.logical_or.reduceat(ink, starts, axis=1)
    empty = ~bands.any(axis=2)
    first = np.where(empty, 0, bands.argmax(axis=2))
    last = np.where(empty, 0, side - bands[:, :, ::-1].argmax(axis=2))
    return first / side, last / side
