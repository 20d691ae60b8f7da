"""Figures of the campaign on Yang, Chang and Liang, CCS 2019: inversion networks under truncation.

Cells are found by their labels: same, generic, distinct (Table 2); ours, prior (Figure 8); k (Figure 13); classes,
classes_prior, mi_face... (Figure 14); developer, developer_generic (Table 3); pose_left, ... (Figure 7); features_...
(Table 4); queries_first, each_step. The data set of a cell's split says where a figure belongs: digits, mnist, faces.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from referee.cell import Cell
from referee.figures.common import counts_equal
from referee.figures.inverted import inverted
from referee.figures.yang_classes import class_figures
from referee.figures.yang_developer import developer_figures
from referee.figures.yang_features import feature_figures
from referee.figures.yang_photos import photo_figures
from referee.figures.yang_sections import inversion_sections
from referee.report import Figure, Section
from referee.training import Training

if TYPE_CHECKING:
    from referee.campaign import PlannedCell
    from referee.results import Results

__all__ = ["apart", "figures", "sections", "trainings"]


def figures(results: Results, cells: list[Cell]) -> list[Figure]:
    """All that the finished cells allow."""
    done = _counting(cells)
    photos = inverted(results, done)
    found = [
        *photo_figures(results, photos),
        *class_figures(results, done),
        *developer_figures(results, photos),
        *feature_figures(photos),
    ]
    return [*found, *([counts_equal("yang/counts_equal", cells)] if done else [])]


def trainings() -> list[Training]:
    """None beside what the cells need."""
    return []


def sections(results: Results, cells: list[Cell], found: list[Figure]) -> list[Section]:
    """What the report shows of them."""
    done = _counting(cells)
    return inversion_sections(results, done, inverted(results, done), found)


def apart(cell: PlannedCell) -> bool:
    """Whether the sections show a cell instead of the table of its split: all of them, by what they are about."""
    return True


def _counting(cells: list[Cell]) -> list[Cell]:
    """The finished cells whose rows the ledger and the attacker counted alike: another count voids a cell."""
    return [cell for cell in cells if cell.status == "done" and cell.counts_equal]
