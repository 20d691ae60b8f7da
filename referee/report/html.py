"""The report as one HTML page: no script, no address of another place; it can be mailed and read offline."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import jinja2
import numpy as np

from referee.atomic import write_atomically
from referee.cell import Cell, contract_hash
from referee.metrics import clustered_interval
from referee.report import charts, labels, tables
from referee.report.context import Campaign, SplitView
from referee.report.headline import best_rows, headline
from referee.report.pictures import data_address
from referee.report.sections import has_images, shown_strips
from referee.report.tables import Row

__all__ = ["render", "write"]


def write(
    cells: Sequence[Cell], campaign: Campaign, path: Path, *, private_images: bool = True, faces: int = 8
) -> None:
    """Write the page, whole or not at all. See `render`."""
    write_atomically(path, render(cells, campaign, private_images=private_images, faces=faces).encode())


def render(cells: Sequence[Cell], campaign: Campaign, *, private_images: bool = True, faces: int = 8) -> str:
    """The page. The same cells and campaign give the same text.

    Args:
        cells: finished, refused and failed cells, in the order in which they are to be shown.
        campaign: everything else on the page.
        private_images: False leaves out the real photos and the reconstructions; the banner says so.
        faces: people shown in the strips.

    Raises:
        KeyError: a cell of a split that `campaign` doesn't describe.
    """
    rows = tables.build(cells, campaign)
    loader = jinja2.FunctionLoader(lambda name: (resources.files(__package__) / name).read_text("utf-8"))
    environment = jinja2.Environment(
        loader=loader, autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    sections = [
        _section(rows, campaign.split(name), private_images, faces) for name in dict.fromkeys(r.split for r in rows)
    ]
    return environment.get_template("template.html").render(
        campaign=campaign,
        sections=sections,
        first=[(one, shown_strips(one) if private_images else []) for one in campaign.first],
        more=[(one, shown_strips(one) if private_images else []) for one in campaign.sections],
        pictures=bool(sections) or has_images([*campaign.first, *campaign.sections]),
        private_images=private_images,
        figures=tables.figure_rows(campaign),
        runs=_runs(cells),
        most_seeds=max((len(row.cells) for row in rows), default=0),
        evaluations=dict.fromkeys(_evaluation(split) for split in campaign.splits),
        credits=dict.fromkeys([*(split.credit for split in campaign.splits), *campaign.credits]),
    )


def _section(rows: Sequence[Row], split: SplitView, private_images: bool, faces: int) -> dict[str, Any]:
    """Everything about one split: headline, people, table, strips, charts."""
    rows = [row for row in rows if row.split == split.name]
    floors = [row.top1.value for row in rows if row.kind == "floor" and row.top1 is not None]
    floor = max([1 / split.classes, *floors])
    panels, left_out, single = _panels(rows)
    return {
        "split": split,
        "headline": headline(rows, split),
        "floor": floor,
        "people": _people(rows),
        "compared": tables.compared(rows),
        "groups": [
            {"contract": contract, "lines": [_line(row, floor) for row in rows if row.contract == contract]}
            for contract in dict.fromkeys(row.contract for row in rows)
        ],
        "strips": _strips(rows, split, faces) if private_images else [],
        "panels": list(zip([panel.title for panel in panels], charts.success(panels, floor), strict=True)),
        "left_out": left_out,
        "single": single,
    }


def _line(row: Row, floor: float) -> dict[str, Any]:
    """A row of the table: its texts, the row itself, and the interval drawn."""
    steps = row.cells[0].marks[-1] if row.self_reported and row.status == "done" else None
    return {
        "row": row,
        "text": tables.texts(row),
        "forest": charts.forest(row.top1, floor) if row.top1 is not None else None,
        "steps": None if steps is None else labels.count(float(steps)),
    }


def _people(rows: Sequence[Row]) -> dict[str, Any]:
    """The people, and for each contract whom its best attack gives away: share of seeds, None where not attacked."""
    best = {contract: row for contract, row in best_rows(rows).items() if row.recognised}
    people = sorted({person for row in best.values() for person in row.recognised})
    lines = []
    for contract, row in best.items():
        given = row.recognised
        text = f"{sum(share > 0 for share in given.values())} of {row.people}"
        shares = [given.get(person) for person in people]
        lines.append({"contract": contract, "method": row.method, "shares": shares, "text": text})
    return {"people": people, "lines": lines}


def _strips(rows: Sequence[Row], split: SplitView, faces: int) -> list[dict[str, Any]]:
    """For each contract the first people, real photos on top, and below them what each method made of them."""
    strips = []
    for contract in dict.fromkeys(row.contract for row in rows if row.contract):
        done = [row for row in rows if row.contract == contract and row.status == "done"]
        if not done:
            continue
        people = done[0].cells[0].targets[:faces].tolist()
        photos = [split.photo(person) for person in people]
        strips.append(
            {
                "contract": contract,
                "people": people,
                "real": [None if photo is None else data_address(photo) for photo in photos],
                "made": [{"row": row, "faces": _faces(row.cells[0], people)} for row in done],
            }
        )
    return strips


def _faces(cell: Cell, people: Sequence[int]) -> list[dict[str, Any] | None]:
    """The last image of each of the people, and whether it was recognised; None for one the cell didn't attack."""
    faces: list[dict[str, Any] | None] = []
    for person in people:
        where = np.flatnonzero(cell.targets == person)
        if not len(where):
            faces.append(None)
            continue
        t = where[0]
        mark = "recognised" if cell.top1[-1, t] else "in top 5" if cell.top5[-1, t] else "missed"
        picture = data_address(cell.images[-1, t], stretch=True)
        faces.append({"image": picture, "mark": mark, "own": labels.ratio(cell.own[-1, t])})
    return faces


def _panels(rows: Sequence[Row]) -> tuple[list[charts.Panel], list[str], list[str]]:
    """A panel for each method that has a curve; rows left out (own steps); methods with single marks only."""
    colours = {name: i for i, name in enumerate(dict.fromkeys(row.contract for row in rows if row.contract))}
    panels: dict[str, list[charts.Series]] = {}
    left_out = []
    for row in rows:
        if row.status != "done" or not row.cells:
            continue
        if row.self_reported:
            left_out.append(f"{row.method} ({row.contract})")
            continue
        series = _series(row, colours[row.contract])
        if series.rows:
            panels.setdefault(row.method, []).append(series)
    drawn = {title: lines for title, lines in panels.items() if any(len(line.rows) > 1 for line in lines)}
    single = [title for title in panels if title not in drawn]
    return [charts.Panel(title, tuple(lines)) for title, lines in drawn.items()], left_out, single


def _series(row: Row, colour: int) -> charts.Series:
    """Top-1 of a row at the marks that all its seeds have."""
    marks = sorted(set.intersection(*(set(cell.marks[cell.marks > 0].tolist()) for cell in row.cells)))
    people = np.concatenate([cell.targets for cell in row.cells])
    shares = [
        clustered_interval(np.concatenate([cell.top1[cell.marks == mark][-1] for cell in row.cells]), people)
        for mark in marks
    ]
    return charts.Series(row.contract, colour, tuple(marks), tuple(shares))


def _evaluation(split: SplitView) -> str:
    return f"{split.evaluation} It tells {split.classes} {split.noun} apart: chance is {1 / split.classes:.3f}."


def _runs(cells: Sequence[Cell]) -> list[dict[str, str]]:
    """What was run, in full: for each cell its seed, parameters, contract, and the rows as both sides counted them."""
    return [
        {
            "name": cell.name,
            "split": cell.split,
            "victim": cell.victim,
            "seed": str(cell.seed),
            "parameters": ", ".join(f"{key} = {value}" for key, value in cell.parameters.items()) or labels.DASH,
            "contract": labels.contract_label(cell.contract),
            "status": cell.status if cell.status != "done" or cell.counts_equal else "void: counts differ",
            "ledger": labels.count(cell.rows_ledger),
            "attacker": labels.count(cell.rows_attacker),
            "bits": labels.short(cell.capacity_bits),
            "hash": contract_hash(cell.contract)[:12],
        }
        for cell in cells
    ]
