"""What a defence promises or costs by its own account: the privacy budget of training with DP-SGD."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

from oracle_server.victims.defended import planned_epsilon
from oracle_server.victims.recipes import RECIPES
from referee.figures.defences_cells import Stand
from referee.report import Figure

if TYPE_CHECKING:
    from referee.campaign import PlannedCell
    from referee.results import Results

__all__ = ["cost_figures"]


def cost_figures(results: Results, stand: Stand) -> list[Figure]:
    """The epsilon of the stand's victims, the greatest of the seeds, where there is one."""
    plans = {planned.victim.name: planned for faced in stand.attacks for planned, _ in faced.pairs}
    found = [epsilon for planned in plans.values() if (epsilon := _epsilon(results, planned)) is not None]
    entry = stand.entry
    name = f"defences/{entry.defence}/{entry.strength}/{entry.task}/epsilon"
    return [Figure(name, max(found), unit="epsilon")] if found else []


def _epsilon(results: Results, planned: PlannedCell) -> float | None:
    """What the training of a cell's victim spends; None where its defence promises nothing, or not finitely much."""
    victim = planned.victim
    if victim.defence is None:
        return None
    rows, recipe = len(results.judge(victim.split).split.target), RECIPES[victim.architecture]
    if victim.max_steps is not None:
        recipe = replace(recipe, max_steps=victim.max_steps)
    try:
        spent = planned_epsilon(victim.defence, recipe, rows)
    except ValueError:  # what accounts for it is not installed where the report is written
        return None
    return spent if spent is not None and math.isfinite(spent) else None
