"""Recognition against diversity: which points of other methods VMI dominates, and what a flow adds to a Gaussian."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from referee.figures.sampled import Sampled
from referee.metrics import clustered_interval
from referee.report import Figure

__all__ = ["Point", "family_points", "flow_minus_gaussian", "front", "front_points"]

_OURS = ("vmi", "gan_z")
_RIVALS = ("gmi", "ked_mi")
MEASURES = ("coverage", "recall")


@dataclass(frozen=True)
class Point:
    """A method with one setting: the share of samples recognised, and how much of each class they cover."""

    label: str
    method: str
    top1: float
    diversity: float


def front_points(measured: Mapping[str, Sampled], measure: str) -> list[Point]:
    """All points of all methods, on the victims that each of them attacked."""
    chosen = {label: one for label, one in measured.items() if label.startswith((*_OURS, *_RIVALS)) and one.fit}
    if not chosen:
        return []
    common = set.intersection(*({cell.victim for cell in one.way.cells} for one in chosen.values()))
    points = []
    for label, one in chosen.items():
        where = one.only(common)
        if where.any():
            method = next(method for method in (*_RIVALS, *_OURS) if label.startswith(method))
            values = float(one.top1[where].mean()), float(one.fit[measure][where].mean())
            points.append(Point(label, "vmi" if method in _OURS else method, *values))
    return points


def front(measured: Mapping[str, Sampled]) -> list[Figure]:
    """The share of GMI's and KED-MI's points that a point of VMI dominates: at least as good in both, better in one."""
    found, drawn = {}, {}
    for measure in MEASURES:
        points = front_points(measured, measure)
        kinds: dict[str, list[tuple[str, float, float]]] = {}
        for point in points:
            kinds.setdefault(point.method, []).append((point.label, point.top1, point.diversity))
        drawn[f"points_{measure}"] = kinds
        ours = [point for point in points if point.method == "vmi"]
        others = [point for point in points if point.method != "vmi"]
        if not ours or not others:
            return []
        found[measure] = {other.label: _dominated(other, ours) for other in others}
    by_coverage = found["coverage"]
    extra = {
        "points": len(by_coverage),
        "dominated": sorted(label for label, beaten in by_coverage.items() if beaten),
        "not_dominated": sorted(label for label, beaten in by_coverage.items() if not beaten),
        "by_recall": float(np.mean(list(found["recall"].values()))),
        **drawn,
    }
    return [Figure("vmi/front", float(np.mean(list(by_coverage.values()))), at_least=0.5, extra=extra)]


def _dominated(other: Point, ours: list[Point]) -> bool:
    return any(
        one.top1 >= other.top1
        and one.diversity >= other.diversity
        and (one.top1, one.diversity) != (other.top1, other.diversity)
        for one in ours
    )


def family_points(measured: Mapping[str, Sampled], family: str) -> list[Sampled]:
    """One family with all weights that were run, on the DCGAN's codes."""
    name = f"gan_z_{family}"
    return [one for label, one in measured.items() if label == name or label.startswith(f"{name}_")]


def flow_minus_gaussian(measured: Mapping[str, Sampled]) -> list[Figure]:
    """The share recognised of a flow's samples less that of a Gaussian's at the same divergence from the prior, which
    is read off between the Gaussian's weights, target by target on the victims that all attacked; mean of the flow's
    weights.
    """
    gaussians, flows = (
        [one for one in family_points(measured, family) if one.divergence is not None]
        for family in ("gaussian", "flow")
    )
    if len(gaussians) < 2 or not flows:
        return []
    common = set.intersection(*({cell.victim for cell in one.way.cells} for one in (*gaussians, *flows)))
    if not common:
        return []

    def of(ones: list[Sampled]) -> tuple[np.ndarray, np.ndarray]:
        """Divergence and share recognised, each (weights, N)."""
        pairs = [(one.divergence[one.only(common)], one.top1[one.only(common)]) for one in ones]  # type: ignore[index]
        return np.stack([nats for nats, _ in pairs]), np.stack([share for _, share in pairs])

    divergence, recognised = of(gaussians)
    order = divergence.argsort(0)
    nats, share = (np.take_along_axis(values, order, 0) for values in (divergence, recognised))
    at, of_flows = of(flows)
    read = np.stack([np.interp(at[:, i], nats[:, i], share[:, i]) for i in range(at.shape[1])], 1)
    targets = flows[0].way.targets[flows[0].only(common)]
    interval = clustered_interval((of_flows - read).mean(0), targets)
    extra = {"nats_of_flows": at.mean(1).tolist(), "nats_of_gaussians": divergence.mean(1).tolist()}
    return [
        Figure(
            "vmi/flow_minus_gaussian",
            interval.value,
            low=interval.low,
            high=interval.high,
            unit="difference",
            extra=extra,
        )
    ]
