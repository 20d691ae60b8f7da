"""Scenario 2 of Yang et al., CCS 2019: an image of each class from the largest score alone (section 5.5, Figure 14)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from referee.cell import Cell
from referee.figures.common import rate
from referee.figures.inverted import label_of, set_of
from referee.report import Figure

if TYPE_CHECKING:
    from referee.results import Results

__all__ = ["class_figures", "class_place"]

OURS, PRIOR, WHITE_BOX = "classes", "classes_prior", "mi_face"  # how the labels of their cells begin


def class_figures(results: Results, cells: Sequence[Cell]) -> list[Figure]:
    """Recognition of each way, ours less the others', and the number of classes that the auxiliary set showed."""
    found: list[Figure] = []
    ways: dict[str, dict[str, list[Cell]]] = {}  # by data set and label
    for cell in cells:
        label = label_of(cell)
        if label in (OURS, PRIOR) or label.startswith(WHITE_BOX):
            ways.setdefault(set_of(results.judge(cell.split)), {}).setdefault(label, []).append(cell)
    for data, mine in ways.items():
        found += _compared(class_place(data), mine)
        if OURS in mine:
            found += _estimated(results, data, mine[OURS])
    return found


def class_place(data: str) -> str:
    """Where the figures of a data set stand: those of the 5,000 digits, which are always here, stand by themselves."""
    return "yang" if data == "digits" else f"yang/{data}"


def _compared(place: str, ways: dict[str, list[Cell]]) -> Iterable[Figure]:
    """Top-1 of each way. What is compared is the share of runs in which a class is recognised, class by class: against
    the best of the runs with weights, and against the network that was trained on full answers.
    """
    for label, cells in ways.items():
        values, targets = (np.concatenate(parts) for parts in ([c.top1[-1] for c in cells], [c.targets for c in cells]))
        yield rate(f"{place}/class_inference/{label}/top1", values, targets, extra={"runs": len(cells)})
    white = [label for label in ways if label.startswith(WHITE_BOX)]
    best = max(white, key=lambda label: float(np.mean([cell.top1[-1].mean() for cell in ways[label]])), default="")
    for name, other in (("top1_minus_mi_face", best), ("top1_minus_prior", PRIOR)):
        if OURS in ways and other in ways:
            difference, classes = _difference(ways[OURS], ways[other])
            extra = {"against": other, "pairs": len(difference)}
            yield rate(
                f"{place}/class_inference/{name}", difference, classes, unit="difference",
                at_least=0.0 if place == "yang" else None, whole=place == "yang", extra=extra,
            )  # fmt: skip


def _difference(ours: Sequence[Cell], others: Sequence[Cell]) -> tuple[np.ndarray, np.ndarray]:
    """For each class of each victim the share of our runs that are recognised less that of others, and the class."""
    differences, classes = [], []
    for victim in dict.fromkeys(cell.victim for cell in ours):
        mine, theirs = ([cell for cell in cells if cell.victim == victim] for cells in (ours, others))
        if theirs:
            share = [np.mean([cell.top1[-1] for cell in cells], axis=0) for cells in (mine, theirs)]
            differences.append(share[0] - share[1])
            classes.append(mine[0].targets)
    return np.concatenate(differences), np.concatenate(classes)


def _estimated(results: Results, data: str, cells: Sequence[Cell]) -> Iterable[Figure]:
    """How many different labels the auxiliary set was given, in the run where that is furthest from the truth."""
    seen = []
    for cell in cells:
        with np.load(results.attacker_arrays(cell), allow_pickle=False) as arrays:
            seen.append((int(arrays["extra_classes_seen"]), len(results.judge(cell.split).split.private)))
    estimate, truth = max(seen, key=lambda pair: abs(pair[0] - pair[1]))
    extra = {"truth": truth, "runs": len(seen), "runs_right": sum(one == other for one, other in seen)}
    bound = float(truth) if data == "digits" else None
    yield Figure(
        f"{class_place(data)}/classes_estimated", float(estimate), unit="classes", at_least=bound, at_most=bound,
        extra=extra,
    )  # fmt: skip
