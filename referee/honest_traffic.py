"""Traffic of users who attack nobody, to see how often a detector of attacks cries wolf.

    photos    independent photos; at one row in twenty a user asks one of the key's earlier photos again, the same
              file or the same view with other noise
    frames    a camera: scenes of 20 to 120 neighbouring frames, each a real photo under smooth motion

A key has one sensor, whose noise is anything from none to 4 of 255 levels. Both are made from real images that the
target has not learned: a split's private held-out ones and its public ones. There are fewer of these than rows, so that
every photo is moved, turned, scaled and lit at random. What they do not show: a camera that stands still for longer
than a scene, and a user who sends one file again and again.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from defenses.detection import Detection
from oracle_server.victims.splits import Split, load

__all__ = ["GENERATORS", "KEY_ROWS", "Generator", "false_alarms", "frames", "honest_images", "photos"]

Images = NDArray[np.float32]
Generator = Callable[[Images, int, int], Images]

KEY_ROWS = 2000
"""Rows that one honest key asks."""

_AT_ONCE = 500  # images in one call of the warp
_NOISE = 4 / 255  # largest standard deviation of a sensor's noise
_REPEATS = 0.05
_SCENE = (20, 120)  # frames of a scene
_PERIOD = (40, 200)  # frames in which a motion comes back

# how far a photo is moved: turn in radians, log of the scale, shift right and down in half images, log of the light
_FAR = np.array([0.15, 0.1, 0.1, 0.1, 0.15])


def honest_images(split: Split) -> Images:
    """Real images (N, C, H, W) that the split's target has not learned: held-out private ones, then public ones."""
    rows = list(split.test) + ([] if split.published_data else list(split.published))
    images: Images = load(split).images[np.array(rows)]
    return images


def photos(images: Images, rows: int, seed: int) -> Images:
    """One key's `rows` photos (rows, C, H, W) in [0, 1], with repeats, drawn from `images` (N, C, H, W)."""
    rng = np.random.default_rng(seed)
    source = np.arange(rows)  # the row whose photo is shown
    again = np.flatnonzero(rng.random(rows) < _REPEATS)
    for row in again[again > 0]:
        source[row] = source[rng.integers(row)]  # a repeat may be repeated
    which = rng.integers(len(images), size=rows)[source]
    motion = rng.uniform(-1, 1, (rows, len(_FAR)))[source] * _FAR
    taken = _taken(images, which, motion, rng)
    for row in again[again > 0]:
        if rng.random() < 0.5:
            taken[row] = taken[source[row]]  # the same file
    return taken


def frames(images: Images, rows: int, seed: int) -> Images:
    """One key's `rows` neighbouring frames (rows, C, H, W) in [0, 1] of scenes from `images` (N, C, H, W).

    A motion is a sine of its own phase, period and amplitude for each of turn, scale, shifts and light, around a place
    drawn for the scene; some amplitudes are near 0, and then a scene hardly moves.
    """
    rng = np.random.default_rng(seed)
    lengths = rng.integers(_SCENE[0], _SCENE[1] + 1, size=rows // _SCENE[0] + 1)
    scene = np.repeat(np.arange(len(lengths)), lengths)[:rows]
    shape = (len(lengths), len(_FAR))
    place, amplitude = rng.uniform(-0.5, 0.5, shape), rng.uniform(0, 0.5, shape) * rng.random((shape[0], 1))
    phase, period = rng.uniform(0, 2 * np.pi, shape), rng.uniform(*_PERIOD, shape)
    turns = 2 * np.pi * np.arange(rows)[:, None] / period[scene] + phase[scene]
    motion = (place[scene] + amplitude[scene] * np.sin(turns)) * _FAR
    return _taken(images, rng.integers(len(images), size=len(lengths))[scene], motion, rng)


GENERATORS: dict[str, Generator] = {"photos": photos, "frames": frames}


def false_alarms(
    detector: Detection,
    generator: Generator,
    rows: int = 100_000,
    *,
    images: Images,
    key_rows: int = KEY_ROWS,
    seed: int = 0,
) -> int:
    """How many of `rows` honest rows are flagged, `key_rows` of them to a key; keys draw with seeds of their own."""
    flagged = 0
    for key, first in enumerate(range(0, rows, key_rows)):
        traffic = generator(images, min(key_rows, rows - first), seed + key)
        stream = detector.start(traffic.shape[1:], (seed + key).to_bytes(8, "little"))
        flagged += int(stream.observe(traffic).sum())
    return flagged


def _taken(images: Images, which: NDArray[np.int64], motion: NDArray[np.float64], rng: np.random.Generator) -> Images:
    """Image `which` (n,) moved by `motion` (n, 5), with a sensor's noise, rounded to bytes: (n, C, H, W)."""
    turn, scale, right, down, light = torch.from_numpy(motion.astype(np.float32)).T
    cos, sin = scale.exp() * turn.cos(), scale.exp() * turn.sin()
    theta = torch.stack((torch.stack((cos, -sin, right), 1), torch.stack((sin, cos, down), 1)), 1)  # (n, 2, 3)
    noise = np.float32(rng.uniform(0, _NOISE))
    taken = np.empty((len(which), *images.shape[1:]), np.float32)
    for first in range(0, len(which), _AT_ONCE):
        part = slice(first, first + _AT_ONCE)
        shown = torch.from_numpy(images[which[part]])
        grid = functional.affine_grid(theta[part], list(shown.shape), align_corners=False)
        moved = functional.grid_sample(shown, grid, padding_mode="border", align_corners=False)
        lit = (moved * light[part].exp()[:, None, None, None]).numpy()
        noisy = lit + noise * rng.standard_normal(lit.shape, np.float32)
        taken[part] = np.rint(noisy.clip(0, 1) * 255) / np.float32(255)
    return taken
