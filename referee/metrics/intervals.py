"""Bootstrap intervals, clustered by target.

The same person attacked with three seeds is not three people. Whole clusters (all values of one target,
over all seeds) are therefore drawn with replacement; the interval says how the mean would move with other
people. Reference: Cameron, Gelbach and Miller, "Bootstrap-based improvements for inference with clustered
errors", 2008.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

__all__ = ["Interval", "clustered_interval"]


@dataclass(frozen=True)
class Interval:
    """A mean and its interval, in the unit of the values."""

    value: float
    low: float
    high: float


def clustered_interval(
    values: np.ndarray, clusters: np.ndarray, *, seed: int = 0, draws: int = 4000, level: float = 0.95
) -> Interval:
    """The mean of `values` and its percentile bootstrap interval, with whole clusters drawn anew.

    Args:
        values: (N,) bool or numbers, all seeds one after the other.
        clusters: (N,) the target of each value; any kind of label.
        seed: of the generator of the draws; the same seed gives the same interval.
        draws: number of bootstrap samples.
        level: of the two-sided interval.

    A proportion (bool) that is all false or all true has no spread to draw from, and a percentile interval
    of width zero would claim certainty: there the exact interval of Clopper and Pearson (1934) for K
    clusters is returned, whose free end is (1 - level)/2 to the power 1/K away. A single cluster of numbers
    has no interval: low = high.

    Raises:
        ValueError: no values, lengths that differ, or a value that isn't finite.

    >>> clustered_interval(np.zeros(40, dtype=bool), np.arange(40)).high.__round__(3)
    0.088
    """
    values, clusters = np.asarray(values), np.asarray(clusters)
    if values.ndim != 1 or values.shape != clusters.shape or not len(values):
        raise ValueError(f"values {values.shape} and clusters {clusters.shape} must be equal, one axis, not empty")
    if not np.isfinite(values).all():
        raise ValueError("values must be finite: score a target for which nothing was found as a failure")
    _, member = np.unique(clusters, return_inverse=True)
    sums = np.bincount(member, weights=values.astype(np.float64))
    sizes = np.bincount(member).astype(np.float64)
    count, value, tail = len(sums), float(sums.sum() / sizes.sum()), (1 - level) / 2
    if values.dtype == np.bool_ and value in (0.0, 1.0):
        free = tail ** (1 / count)
        return Interval(value, 0.0, 1 - free) if value == 0.0 else Interval(value, free, 1.0)
    # How often each cluster is drawn, (draws, K); a mean of a draw is a ratio of two sums over clusters.
    drawn = np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), size=draws)
    low, high = np.quantile((drawn @ sums) / (drawn @ sizes), [tail, 1 - tail])
    return Interval(value, float(low), float(high))
