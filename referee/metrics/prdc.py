"""Are the reconstructions good photos, and all kinds of them? Two sets of points, compared by nearest neighbours.

The ball of a point reaches to its k-th nearest neighbour in its own set, itself not counted, and is open: a point as
far away as that neighbour is outside. Hence the ball of a point with k copies is empty.

| name here | meaning |
| --- | --- |
| precision | share of made points in the ball of some real point: they look real |
| recall | share of real points in the ball of some made point: the made ones vary as much |
| density | mean over made points of the number of real balls they lie in, over k; may exceed 1 |
| coverage | share of real points with a made point in their ball |

One made point far off has a wide ball, so outliers raise recall, as a real outlier raises precision; density and
coverage are less easily misled.

Precision and recall: T. Kynkäänniemi et al., "Improved precision and recall metric for assessing generative models",
NeurIPS 2019. Density and coverage: M. F. Naeem et al., "Reliable fidelity and diversity metrics for generative models",
ICML 2020, whose own code has open balls too.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from referee.metrics.embedding import distances, points

__all__ = ["NEAREST", "Prdc", "prdc", "prdc_by_class"]

NEAREST = 5  # of Naeem et al.


@dataclass(frozen=True)
class Prdc:
    """Precision, recall and coverage in 0..1, density from 0 up, with `k` nearest neighbours."""

    precision: float
    recall: float
    density: float
    coverage: float
    k: int


def prdc(real: np.ndarray, made: np.ndarray, k: int = NEAREST) -> Prdc:
    """Compare made points (M, F) with real ones (N, F).

    Raises:
        ValueError: k below 1, not more than k points of either kind, other widths, values that aren't finite.

    >>> prdc(np.array([[0.0], [1.0], [2.0]]), np.array([[0.5], [1.75], [9.0]]), k=1)
    Prdc(precision=0.6666666666666666, recall=1.0, density=1.3333333333333333, coverage=1.0, k=1)
    """
    real, made = points(real, "real points"), points(made, "made points")
    if not 1 <= k < min(len(real), len(made)):
        raise ValueError(f"k={k} must be at least 1 and below {len(real)} real and {len(made)} made points")
    apart = distances(real, made)
    real_reach, made_reach = _reach(real, k), _reach(made, k)
    inside = apart < real_reach[:, None]
    return Prdc(
        precision=float(inside.any(axis=0).mean()),
        recall=float((apart < made_reach).any(axis=1).mean()),
        density=float(inside.sum() / (k * len(made))),
        coverage=float(inside.any(axis=1).mean()),
        k=k,
    )


def prdc_by_class(
    real: np.ndarray, real_classes: np.ndarray, made: np.ndarray, made_classes: np.ndarray, k: int
) -> Prdc:
    """The plain mean over classes of `prdc` within a class: do the reconstructions of one person vary as photos do?

    Over all classes at once, a set with one image of each person may have full coverage. Classes of which nothing was
    made don't count.

    Args:
        real: (N, F), of the classes real_classes (N,).
        made: (M, F), of the classes made_classes (M,).
        k: nearest neighbours; a class needs more images than that of either kind.

    Raises:
        ValueError: as `prdc`; shapes that don't fit, nothing made, or a class with too few images.
    """
    real, made = points(real, "real points"), points(made, "made points", least=1)
    real_classes, made_classes = np.asarray(real_classes), np.asarray(made_classes)
    if real_classes.shape != real.shape[:1] or made_classes.shape != made.shape[:1]:
        raise ValueError(
            f"classes {real_classes.shape} and {made_classes.shape} must be one for each of {len(real)} real and "
            f"{len(made)} made points"
        )
    marks = []
    for name in np.unique(made_classes):
        ours, theirs = real[real_classes == name], made[made_classes == name]
        if min(len(ours), len(theirs)) <= k:
            raise ValueError(f"class {name} has {len(ours)} real and {len(theirs)} made images: both must exceed k={k}")
        one = prdc(ours, theirs, k)
        marks.append((one.precision, one.recall, one.density, one.coverage))
    precision, recall, density, coverage = np.mean(marks, axis=0).tolist()
    return Prdc(precision, recall, density, coverage, k)


def _reach(cloud: np.ndarray, k: int) -> np.ndarray:
    """(N,) how far each point's k-th nearest neighbour is; its own distance of 0 comes first."""
    reach: np.ndarray = np.partition(distances(cloud, cloud), k, axis=1)[:, k]
    return reach
