"""Results as a page, a terminal table, a Parquet file and a summary; all from the same rows."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from referee.cell import Cell
from referee.report import html, parquet, summary
from referee.report.context import Campaign, Reference, SplitView
from referee.report.sections import Chart, Section, Strip, StripRow, Table
from referee.report.summary import Figure
from referee.report.terminal import print_report

__all__ = [
    "Campaign",
    "Chart",
    "Figure",
    "Reference",
    "Section",
    "SplitView",
    "Strip",
    "StripRow",
    "Table",
    "print_report",
    "write_report",
]


def write_report(
    cells: Sequence[Cell], campaign: Campaign, folder: Path, *, private_images: bool = True, faces: int = 8
) -> Path:
    """Write results.parquet, timings.json, summary.json and report.html into `folder`; return the page's path."""
    parquet.write(cells, folder / "results.parquet", campaign.matrix)
    parquet.write_timings(cells, folder / "timings.json")
    summary.write(campaign.figures, folder / "summary.json", campaign.said)
    html.write(cells, campaign, folder / "report.html", private_images=private_images, faces=faces)
    return folder / "report.html"
