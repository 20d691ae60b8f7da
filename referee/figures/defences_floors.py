"""Between what a recognition stands: images that ask nothing, the best of random draws, and real photos."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from referee.cell import Cell
from referee.figures.common import rate
from referee.figures.defences_cells import Stand
from referee.report import Figure

if TYPE_CHECKING:
    from referee.campaign import PlannedCell
    from referee.results import Results

__all__ = ["floor_figures", "floor_words"]

_FLOOR, _CEILING = "defences/floor", "defences/ceiling"
_DRAWS = "random_draws"


def floor_figures(
    results: Results, tasks: Mapping[str, Sequence[Stand]], beside: Iterable[tuple[PlannedCell, Cell]]
) -> list[Figure]:
    """For each task what is recognised of images made without a query, of the best of random draws of the prior from
    full scores (cells `beside` the matrix on its victims), and of held-out photos.
    """
    drawn = [
        (planned, cell) for planned, cell in beside if planned.method == _DRAWS and not planned.contract.detections
    ]
    found: list[Figure] = []
    for task, stands in tasks.items():
        victims = {planned.victim.name: planned.victim for planned, _ in stands[0].attacks[0].pairs}
        split = next(iter(victims.values())).split
        for one in results.judge(split).references(None, results.public(split)):
            start = _FLOOR if one.kind == "floor" else _CEILING
            found.append(rate(f"{start}/{task}/{one.name.replace(' ', '_')}", one.top1, one.targets))
        mine = [cell for planned, cell in drawn if planned.victim.name in victims and cell.status == "done"]
        if mine:
            hits, targets = np.concatenate([cell.top1[-1] for cell in mine]), [cell.targets for cell in mine]
            extra = {"rows": sum(cell.rows_ledger for cell in mine), "seeds": len(mine)}
            found.append(rate(f"{_FLOOR}/{task}/random_draws", hits, np.concatenate(targets), extra=extra))
    return found


def floor_words(task: str, figures: Sequence[Figure]) -> str:
    """One sentence that sets the shares of a task between floor and ceiling; empty where they were not measured."""
    floors = [figure for figure in figures if figure.name.startswith(f"{_FLOOR}/{task}/")]
    photos = [figure for figure in figures if figure.name == f"{_CEILING}/{task}/held-out_photos"]
    if not floors or not photos:
        return ""
    told = ", ".join(f"{figure.name.rpartition('/')[2].replace('_', ' ')} {figure.value:.3f}" for figure in floors)
    return f"Recognised without an attack: {told}. Of real held-out photos {photos[0].value:.3f} are."
