"""Figures of the campaign on VMI (Wang et al., NeurIPS 2021), with GMI and KED-MI on the same targets."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from referee.cell import Cell
from referee.figures.common import counts_equal
from referee.report import Figure
from referee.training import Training

if TYPE_CHECKING:
    from referee.campaign import PlannedCell
    from referee.results import Results

__all__ = ["apart", "figures", "trainings"]


def apart(planned: PlannedCell) -> bool:
    """All cells stand in the sections, by way and not by victim."""
    return True


def trainings() -> list[Training]:
    """None beside the campaign's own."""
    return []


def figures(results: Results, cells: Sequence[Cell]) -> list[Figure]:
    """All that the finished cells allow."""
    return [counts_equal("vmi/counts_equal", cells)]
