"""Figures of the campaign on BREP-MI (Kahla et al., CVPR 2022): labels alone, and what they are compared with."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from scipy.special import gammaln  # type: ignore[import-untyped]

from attacker.attacks.brep_mi import repulsion
from referee.cell import Cell
from referee.figures.brep_sections import judged_by_its_kind, sections
from referee.figures.common import counts_equal
from referee.figures.latent import (
    Way,
    batched_over_single,
    difference,
    other_network,
    rank_among,
    ways_of,
)
from referee.metrics.intervals import clustered_interval
from referee.report import Figure
from referee.training import Training

if TYPE_CHECKING:
    from referee.campaign import PlannedCell
    from referee.results import Results

__all__ = ["apart", "expected_cosine", "figures", "sections", "trainings"]

ROWS = 3000  # a target, at which faces are compared
_FACES = "att20"
_CASES = [(points, m) for points in (8, 32, 128) for m in (16, 60, 100)]  # points and dimensions of the linear target
_REPEATS = 2000


def apart(planned: PlannedCell) -> bool:
    """All cells stand in the sections, by way and not by victim."""
    return True


def trainings() -> list[Training]:
    """None beside the campaign's own."""
    return []


def figures(results: Results, cells: Sequence[Cell]) -> list[Figure]:
    """All that the finished cells allow."""
    ways = ways_of(cells, judged_by_its_kind(results))
    found = []
    for place in dict.fromkeys(place for place, _, _ in ways):
        mine = {(label, contract): way for (where, label, contract), way in ways.items() if where == place}
        found += _recognition(results, place, mine)
        found += _rivals(place, mine)
        if not any(figure.name.startswith("brep/improved") for figure in found):
            found += _cheaper(mine)  # on the first targets that the authors' setting attacked
    found.append(linear_cosine())
    if timed := [cell for cell in cells if cell.status == "done" and cell.method == "latent_gradient"]:
        found += batched_over_single(results, timed)
    return [*found, counts_equal("brep/counts_equal", cells)]


def _recognition(results: Results, place: str, ways: dict[tuple[str, str], Way]) -> list[Figure]:
    """Every way's share at 3,000 rows a target, by the judge, among the private classes, and by a second network."""
    split = next(iter(ways.values())).split
    judge, found = results.judge(split), []
    second, accuracy = other_network(results, split)
    for (label, contract), way in ways.items():
        if way.label.endswith("_long"):
            found.append(way.rate(f"brep/{place}/{label}/{contract}/top1"))
            continue
        among = rank_among(judge.network, way.images(), way.targets, len(judge.split.private))
        extra = {
            "among_private": float(among.mean()),
            "other_architecture": float(rank_among(second, way.images(), way.targets).mean()),
            "other_architecture_accuracy": accuracy,
            "marks_are": "steps" if way.cells[0].self_reported else "rows",
        }
        name = f"brep/{place}/{label}/{contract}/top1"
        bound = {}
        if (label, contract) == ("brep", "label"):
            name = f"brep/{place}/top1@{ROWS}"
            bound = {"at_least": 0.25} if place == _FACES else {}
        found.append(way.rate(name, ROWS, extra=extra, **bound))
    return found


def _rivals(place: str, ways: dict[tuple[str, str], Way]) -> list[Figure]:
    """BREP-MI less each of the others, target by target."""
    if (ours := ways.get(("brep", "label"))) is None:
        return []
    names = {
        ("draws", "label"): "top1_minus_best_of_n",
        ("draws", "full"): "top1_minus_best_of_n_by_score",
        ("gmi_ce", "weights"): "top1_minus_gmi_ce",
        ("margin", "weights"): "top1_minus_margin",
        ("latent_scores", "full"): "top1_minus_latent_scores",
        ("brep_compatible", "label"): "top1_minus_compatible",
    }
    found = []
    for key, name in names.items():
        if key in ways:
            least = {"top1_minus_best_of_n": 0.0, "top1_minus_gmi_ce": -0.05}.get(name) if place == _FACES else None
            bound = {"at_least": least, "whole": least is not None}
            found.append(difference(f"brep/{place}/{name}", ours, ways[key], ROWS, **bound))
    where = "brep" if place == _FACES else f"brep/{place}"
    for contract, name in (("full", "minus_inversion_network"), ("label", "minus_inversion_network_by_label")):
        if ("network", contract) in ways:
            found.append(difference(f"{where}/{name}", ours, ways["network", contract], ROWS))
    return found


def _cheaper(ways: dict[tuple[str, str], Way]) -> list[Figure]:
    """Rows for what the compatible setting reaches at best: of the improved setting, and of it without each option."""
    theirs, found = ways.get(("brep_compatible", "label")), []
    if theirs is None:
        return []
    for (label, contract), way in ways.items():
        if contract != "label" or not label.startswith("brep") or label.endswith(("_long", "compatible", "untargeted")):
            continue
        victims = {cell.victim for cell in way.cells}
        alike = dataclasses.replace(theirs, cells=tuple(cell for cell in theirs.cells if cell.victim in victims))
        marks = _marks(alike)
        shares = [alike.share(mark).value for mark in marks]
        best = max(shares)
        paid = float(marks[shares.index(best)])
        rows = rows_to(way, best)
        extra = {"recognition": best, "compatible_rows": paid, "rows": rows, "reached": rows is not None}
        extra |= {"victims": len(victims)}
        if label == "brep":
            name, most = "brep/improved_over_compatible/rows", 0.5
        else:
            name, most = f"brep/options/{label.removeprefix('brep_')}/rows", None
        ratio = (rows if rows is not None else float(_marks(way)[-1])) / paid
        found.append(Figure(name, ratio, unit="ratio of rows", at_most=most, extra=extra))
    return found


def rows_to(way: Way, share: float) -> float | None:
    """The first mark at which so large a share is recognised; None where it never is."""
    return next((float(mark) for mark in _marks(way) if way.share(mark).value >= share), None)


def _marks(way: Way) -> np.ndarray:
    """All marks of all cells, in order."""
    return np.unique(np.concatenate([cell.marks for cell in way.cells]))


def linear_cosine() -> Figure:
    """How far the mean cosine between estimated direction and gradient is from the theory, on a linear target: the
    ratio that is furthest from 1 over numbers of points and dimensions.
    """
    random = torch.Generator().manual_seed(0)
    worst, table = 1.0, {}
    for points, m in _CASES:
        unit = torch.randn(_REPEATS, points, m, generator=random)
        unit /= unit.norm(dim=2, keepdim=True)
        found = repulsion(
            unit, unit[..., 0] < 0
        )  # the boundary runs through the centre, and the class lies where z_0 > 0
        cosine = (found[:, 0] / found.norm(dim=1).clamp(min=1e-12)).double().numpy()
        ratio = float(cosine.mean()) / expected_cosine(points, m)
        interval = clustered_interval(cosine, np.arange(len(cosine)), draws=200)
        table[f"N={points}, m={m}"] = [round(interval.value, 4), round(expected_cosine(points, m), 4)]
        worst = max(worst, ratio, key=lambda value: abs(value - 1))
    extra = {"measured_and_theory": table, "repeats": _REPEATS}
    return Figure("brep/linear/cosine", worst, unit="measured / theory", at_least=0.95, at_most=1.05, extra=extra)


def expected_cosine(points: int, m: int) -> float:
    """Cosine of the mean of -u over the unit vectors that lie outside a half-space through the centre with its normal.

    Of N points, uniform on the unit sphere in m dimensions, k ~ Binomial(N, 1/2) lie outside. The sum of their vectors
    has the normal part k c, c = E|u_1| = Gamma(m/2) / (sqrt(pi) Gamma((m+1)/2)), and the squared length
    k + k (k - 1) c^2, both in expectation.
    Their ratio is averaged over k, with cosine 0 where k = 0.
    """
    c = float(np.exp(gammaln(m / 2) - gammaln((m + 1) / 2)) / np.sqrt(np.pi))
    k = np.arange(1, points + 1)
    weight = np.exp(gammaln(points + 1) - gammaln(k + 1) - gammaln(points - k + 1) - points * np.log(2))
    return float((weight * k * c / np.sqrt(k + k * (k - 1) * c**2)).sum())
