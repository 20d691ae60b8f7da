"""The named figures of each campaign, worked out from its finished cells; one file for each campaign."""

from __future__ import annotations

from typing import TYPE_CHECKING

from referee.cell import Cell
from referee.figures import brep, defences, demo, fredrikson, vmi, yang, yoshimura
from referee.report import Figure
from referee.training import Training

if TYPE_CHECKING:
    from referee.results import Results

__all__ = ["FIGURES", "figures_of", "trainings_of"]

FIGURES = {
    "demo": demo,
    "fredrikson": fredrikson,
    "yang": yang,
    "brep": brep,
    "yoshimura": yoshimura,
    "vmi": vmi,
    "defences": defences,
}


def figures_of(results: Results, cells: list[Cell]) -> list[Figure]:
    """The figures that the campaign's file names; none when it names none."""
    return FIGURES[results.plan.figures].figures(results, cells) if results.plan.figures else []


def trainings_of(name: str) -> list[Training]:
    """The models that only the figures of that name need."""
    return FIGURES[name].trainings() if name else []
