"""Figures of the deblurring attack: who is recognised after it, against before, and whom it rightly leaves nameless."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from referee.cell import Cell
from referee.figures.common import rate
from referee.metrics.recognition import recognise
from referee.report import Figure

if TYPE_CHECKING:
    from referee.results import Results

__all__ = ["deblurred", "deblurring_figures"]

NOBODY = -1  # the attack's label for somebody whom the model does not know


def deblurring_figures(results: Results, cells: list[Cell]) -> list[Figure]:
    """`recognised` of the photos of people in the model, `nobody` of those of others; clustered by person.

    Cells are called deblur and deblur_outside, or have the name of an option between.
    """
    found = []
    for cell in cells:
        if cell.method != "deblur":
            continue
        judge, given = results.judge(cell.split), results.given(results.planned(cell))
        assert given.images is not None  # photos, as deblurring takes them
        with np.load(results.attacker_arrays(cell)) as arrays:
            label = arrays["extra_label"]
        inside = given.people < len(judge.split.private)
        before = recognise(judge.network, given.images, given.people, device=judge.device).top1
        option = cell.name.partition("/")[0].removeprefix("deblur").removesuffix("_outside")
        place = f"fredrikson/deblur{option.replace('_', '/')}"
        if inside.any():
            extra = {
                "blurred": float(before[inside].mean()),
                "label_right": float((label == given.people)[inside].mean()),
                "wrongly_nobody": float((label == NOBODY)[inside].mean()),
                "photos": int(inside.sum()),
            }
            found.append(rate(f"{place}/recognised", cell.top1[-1][inside], given.people[inside], extra=extra))
        if not inside.all():
            extra = {"photos": int((~inside).sum()), "people": len(np.unique(given.people[~inside]))}
            found.append(rate(f"{place}/nobody", (label == NOBODY)[~inside], given.people[~inside], extra=extra))
    return found


def deblurred(
    results: Results, cells: list[Cell]
) -> list[tuple[str, np.ndarray, np.ndarray, np.ndarray, list[str], list[bool]]]:
    """For each cell of the attack its name, photos as given, made of them, as they were, words, and what is right."""
    shown = []
    for cell in cells:
        if cell.method == "deblur":
            given = results.given(results.planned(cell))
            assert given.images is not None
            with np.load(results.attacker_arrays(cell)) as arrays:
                label = arrays["extra_label"]
            words = ["nobody" if person == NOBODY else f"person {person}" for person in label.tolist()]
            outside = given.people >= len(results.judge(cell.split).split.private)
            right = np.where(outside, label == NOBODY, label == given.people)
            shown.append((cell.name, given.images, cell.images[-1], given.photos, words, right.tolist()))
    return shown
