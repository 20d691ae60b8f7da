"""How a digit leans and which side a face turns to: subsets of one kind of pose, as auxiliary data for an inversion.

Z. Yang, J. Zhang, E.-C. Chang, Z. Liang, "Neural Network Inversion in Adversarial Setting via Background Knowledge
Alignment", CCS 2019, Figure 7: auxiliary samples of one kind align the reconstructions to that kind. The paper sorts
samples by eye; here two measures of the images themselves sort them, so that nobody needs labels.
"""

from __future__ import annotations

import numpy as np

__all__ = ["POSES", "pose_subset", "slant", "turn"]

POSES = ("left", "upright", "right")
_SMALL = 32  # pixels: images up to this height are taken for digits, higher ones for faces
_FLAT = 1e-9  # a spread below this is rounding


def slant(images: np.ndarray) -> np.ndarray:
    """Shear of the ink of (N, C, H, W), in columns per row, (N,) float64; positive where the top leans to the right.

    With the brightness above an image's darkest pixel as mass, mu11 / mu02 of the central moments is the slope of the
    line through the ink, x over y; rows count downwards, hence the sign. 0 for flat images and for ink in a single row.
    """
    mass, _ = _mass(images)
    total = mass.sum((1, 2))
    y, x = (np.arange(side, dtype=np.float64) for side in mass.shape[1:])
    safe = np.where(total > 0, total, 1.0)[:, None]
    y = y - mass.sum(2) @ y[:, None] / safe  # (N, H)
    x = x - mass.sum(1) @ x[:, None] / safe  # (N, W)
    mu11 = np.einsum("nh,nhw,nw->n", y, mass, x)
    mu02 = np.einsum("nh,nhw->n", y * y, mass)
    spread = mu02 > _FLAT * np.maximum(total, _FLAT)
    found: np.ndarray = np.where(spread, -mu11 / np.where(spread, mu02, 1.0), 0.0)
    return found


def turn(images: np.ndarray) -> np.ndarray:
    """Which side the bright part of (N, C, H, W) lies on, (N,) float64 in [-1, 1]; positive to the right.

    Of the central region (the middle half of the rows and three quarters of the columns), where a face lies, the
    horizontal centre of the brightness above the region's darkest pixel: -1 at its left edge, 1 at its right one. A
    mirrored image has exactly the opposite value, a flat one has 0.
    """
    _, grey = _mass(images)
    rows, columns = grey.shape[1] // 4, grey.shape[2] // 8
    centre = grey[:, rows : grey.shape[1] - rows, columns : grey.shape[2] - columns]
    centre = centre - centre.min((1, 2), keepdims=True)
    profile = centre.sum(1)  # (N, W')
    half = profile.shape[1] // 2
    if not half:
        return np.zeros(len(profile))
    # Pairs of mirrored columns, always the right one less and plus the left one: so the sums of a mirrored image differ
    # in sign alone, to the last bit.
    left, right = profile[:, :half], profile[:, ::-1][:, :half]
    place = np.linspace(-1, 1, profile.shape[1])[::-1][:half]
    moment = ((right - left) * place).sum(1)
    middle = profile[:, half] if profile.shape[1] % 2 else np.zeros(len(profile))
    total = (right + left).sum(1) + middle
    found: np.ndarray = np.where(total > 0, moment / np.where(total > 0, total, 1.0), 0.0)
    return found


def pose_subset(images: np.ndarray, pose: str) -> np.ndarray:
    """Which of (N, C, H, W) have a pose, (N,) bool: the lowest, middle or highest third by `slant` ("left", "upright",
    "right") for images of up to 32 rows, else by `turn`. Every image has one of the three; ties keep their order.

    Raises `ValueError` for a pose that there is not, and for fewer than three images.
    """
    if pose not in POSES:
        raise ValueError(f"there is no pose {pose!r}: choose one of {', '.join(POSES)}")
    values = (slant if np.ndim(images) == 4 and images.shape[2] <= _SMALL else turn)(images)
    if len(values) < len(POSES):
        raise ValueError(f"{len(values)} images have no thirds: give at least {len(POSES)}")
    chosen = np.zeros(len(values), dtype=bool)
    chosen[np.array_split(np.argsort(values, kind="stable"), len(POSES))[POSES.index(pose)]] = True
    return chosen


def _mass(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Brightness above an image's darkest pixel, and brightness itself, both (N, H, W) float64 over all channels."""
    if np.ndim(images) != 4 or min(np.shape(images)[1:]) < 1:
        raise ValueError(f"images must be (N, C, H, W), not {np.shape(images)}")
    if not np.isfinite(images).all():
        raise ValueError("images hold values that are no numbers: replace them")
    grey = np.ascontiguousarray(images, dtype=np.float64).mean(1)
    return grey - grey.min((1, 2), keepdims=True, initial=np.inf), grey
