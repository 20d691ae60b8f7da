"""Queries whose distances to each other are not those of natural inputs.

M. Juuti, S. Szyller, S. Marchal, N. Asokan, "PRADA: Protecting Against DNN Model Stealing Attacks", EuroS&P 2019,
section V. The statistic: S. S. Shapiro, M. B. Wilk, "An analysis of variance test for normality", Biometrika 1965, with
the weights of P. Royston, "Approximating the Shapiro-Wilk W-test for non-normality", Statistics and Computing 1992.

    here          paper     meaning
    rows, G       G_c       the growing set: earlier rows that lay far from all others, at most `memory` of them
    distances, D  D         distance of each row to the nearest one of the set; the last `recent` are looked at
    delta         delta     flagged when the W of the distances is below it
    near          -         root mean square over a row's values, in the input's units: what is nearer is no new input
    width         -         flagged when the standard deviation of the new inputs' distances is less than this share of
                            their mean
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

__all__ = ["DistanceStream", "Distances", "shapiro_wilk"]

_FEWEST = 12  # values from which W's weights are good
_ROUNDING = 1e-6  # relative: rows are float32


@dataclass(frozen=True)
class Distances:
    """Flag a row when the last minimal distances are far from normal, or those of new inputs are all alike.

    Natural inputs lie at distances that vary smoothly and widely; a search asks at distances that it chose itself, and
    what one generator makes up lies about equally far from all else. The tests are made at every `every`-th distance,
    once there are `least`. Distances that are all the same have no W, and count as W = 0.

    Differences from the reference:
    - One set for a key, and not one for each predicted class: a detector sees inputs and no answers.
    - The set and the distances are the last `memory` and `recent`: a key lives long, and memory is bounded.
    - Distances beyond three standard deviations are left out until there are none, and not once: a camera's few jumps
      from scene to scene hide each other. `delta` is far below the paper's 0.9 for the same reason: the frames of a
      film lie at distances that are not normal.
    - `width`: W does not change when distances are shifted or scaled, so that random noise, whose rows are all equally
      far apart, has the W of photos. The frames of a camera that hardly moves are as far apart as its noise is strong,
      and are left out of this test by `near`.
    """

    delta: float = 0.35
    width: float = 0.11
    near: float = 0.05
    memory: int = 256
    recent: int = 200
    least: int = 100
    every: int = 10

    def __post_init__(self) -> None:
        for name in ("delta", "width"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)} must lie in [0, 1)")
        if not 0 <= self.near < np.inf:
            raise ValueError(f"near={self.near} must not be negative")
        for name, low in (("memory", 1), ("recent", 12), ("least", 12), ("every", 1)):
            value = getattr(self, name)
            if not low <= value <= 5000 or value != int(value):
                raise ValueError(f"{name}={value} must be a whole number from {low} to 5000")
            object.__setattr__(self, name, int(value))  # contracts carry floats
        if self.least > self.recent:
            raise ValueError(f"least={self.least} must be at most recent={self.recent}")

    def start(self, input_shape: tuple[int, ...], secret: bytes) -> DistanceStream:
        """The stream of one key; nothing here is secret."""
        return DistanceStream(self, int(np.prod(input_shape)))


class DistanceStream:
    """A key's growing set and its last minimal distances: memory * d * 4 bytes for rows of d values."""

    def __init__(self, method: Distances, size: int) -> None:
        self._method = method
        self._set = np.zeros((method.memory, size), np.float32)
        self._squares = np.full(method.memory, np.inf)  # squared lengths; no row is near a place that is empty
        self._added = 0
        self._all, self._new = _Recent(method.recent), _Recent(method.recent)
        self._near = method.near * size**0.5

    def observe(self, rows: NDArray[np.floating]) -> NDArray[np.bool_]:
        """rows (N, *shape) in the order in which they were asked -> flagged (N,).

        One row after another, since each may enter the set; a row's result is the same in any batch, bit for bit.
        """
        x = np.asarray(rows, np.float32).reshape(-1, self._set.shape[1])
        flagged = np.zeros(len(x), bool)
        for i, row in enumerate(x):
            if not self._added:
                self._add(row)
                continue
            nearest = int(np.argmin(self._squares - 2.0 * (self._set @ row)))
            distance = float(np.linalg.norm(self._set[nearest].astype(np.float64) - row))  # exact, also when tiny
            known = self._all.values
            if not len(known) or distance > known.mean() - known.std():
                self._add(row)
            self._all.add(distance)
            flagged[i] = self._due(self._all) and self._far_from_normal()
            if distance >= self._near:
                self._new.add(distance)
                flagged[i] |= self._due(self._new) and self._all_alike()
        return flagged

    def _add(self, row: NDArray[np.float32]) -> None:
        place = self._added % self._method.memory
        self._set[place] = row
        self._squares[place] = float(np.square(row, dtype=np.float64).sum())
        self._added += 1

    def _due(self, distances: _Recent) -> bool:
        return distances.seen >= self._method.least and distances.seen % self._method.every == 0

    def _far_from_normal(self) -> bool:
        D = _without_outliers(self._all.values)
        return len(D) < _FEWEST or shapiro_wilk(D) < self._method.delta

    def _all_alike(self) -> bool:
        D = _without_outliers(self._new.values)
        return bool(D.std() < self._method.width * D.mean())


class _Recent:
    """The last `most` numbers."""

    def __init__(self, most: int) -> None:
        self._ring = np.zeros(most)
        self.seen = 0

    def add(self, value: float) -> None:
        self._ring[self.seen % len(self._ring)] = value
        self.seen += 1

    @property
    def values(self) -> NDArray[np.float64]:
        return self._ring[: min(self.seen, len(self._ring))]


def _without_outliers(D: NDArray[np.float64]) -> NDArray[np.float64]:
    """D (n,) sorted, less what lies beyond three standard deviations of the rest."""
    D = np.sort(D)
    while len(D) and not (inside := np.abs(D - D.mean()) <= 3 * D.std() + _ROUNDING * D.mean()).all():
        D = D[inside]
    return D


def shapiro_wilk(x: NDArray[np.float64]) -> float:
    """W of x (n,) sorted, 12 <= n: near 1 for a normal sample, lower for others; 0 when all values are the same."""
    centred = x - x.mean()
    total = float(centred @ centred)
    same = total <= len(x) * (_ROUNDING * float(np.abs(x).max())) ** 2  # but for rounding
    return 0.0 if same else float((_weights(len(x)) @ centred) ** 2 / total)


@functools.lru_cache(maxsize=512)
def _weights(n: int) -> NDArray[np.float64]:
    """a (n,), unit length: the normal order statistics' expectations, the outer two as corrected by Royston."""
    normal = NormalDist()
    m = np.array([normal.inv_cdf((i - 0.375) / (n + 0.25)) for i in range(1, n + 1)])
    total, u = float(m @ m), n**-0.5
    last = np.polyval([-2.706056, 4.434685, -2.071190, -0.147981, 0.221157, m[-1] / total**0.5], u)
    second = np.polyval([-3.582633, 5.682633, -1.752461, -0.293762, 0.042981, m[-2] / total**0.5], u)
    phi = (total - 2 * m[-1] ** 2 - 2 * m[-2] ** 2) / (1 - 2 * last**2 - 2 * second**2)
    a: NDArray[np.float64] = m / phi**0.5
    a[[0, 1, -2, -1]] = -last, -second, second, last
    return a
