"""Sections of a report that are not about cells: paragraphs, tables, charts and strips of images, in plain words.

Whoever makes a section decides what it says; the page and the terminal decide how it looks. Every text is escaped.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from markupsafe import Markup

from referee.report.pictures import data_address

__all__ = ["Chart", "Section", "Strip", "StripRow", "Table", "has_images", "shown_strips"]


@dataclass(frozen=True)
class Table:
    """`heads` and `rows` of equally many texts; the first `left` columns are aligned to the left. `weak` rows (their
    places) are references: shown, but not what the table is about.
    """

    heads: Sequence[str]
    rows: Sequence[Sequence[str]]
    title: str = ""
    note: str = ""
    left: int = 1
    weak: frozenset[int] = frozenset()
    narrow: Sequence[int] = ()  # the columns of a narrow terminal; all of them by default

    def __post_init__(self) -> None:
        if bad := next((row for row in self.rows if len(row) != len(self.heads)), None):
            raise ValueError(f"table {self.title!r}: a row of {len(bad)} texts under {len(self.heads)} heads: {bad[0]}")


@dataclass(frozen=True)
class Chart:
    """An inline SVG of `referee.report.bars` or `referee.report.charts`, with its title and what it shows."""

    title: str
    svg: Markup
    note: str = ""


@dataclass(frozen=True, eq=False)
class StripRow:
    """One labelled row of images (C, H, W) in [0, 1], None where there is none; `marks` are the words below them, and
    `good` says which are framed. `stretch`ed ones are shown with more contrast than they have.
    """

    label: str
    images: Sequence[np.ndarray | None]
    marks: Sequence[str] = ()
    good: Sequence[bool] = ()
    stretch: bool = False


@dataclass(frozen=True, eq=False)
class Strip:
    """Rows of images under one title. All of it is left out of a page without private images."""

    title: str
    rows: Sequence[StripRow]
    note: str = ""


@dataclass(frozen=True, eq=False)
class Section:
    """One section, shown in this order: paragraphs, tables, charts, strips."""

    title: str
    paragraphs: Sequence[str] = ()
    tables: Sequence[Table] = ()
    charts: Sequence[Chart] = ()
    strips: Sequence[Strip] = field(default_factory=tuple)


def has_images(sections: Sequence[Section]) -> bool:
    """Whether any section would show a picture."""
    return any(
        image is not None
        for section in sections
        for strip in section.strips
        for row in strip.rows
        for image in row.images
    )


def shown_strips(section: Section) -> list[dict[str, object]]:
    """The strips of a section as the page's template takes them."""
    return [
        {
            "title": strip.title,
            "note": strip.note,
            "rows": [
                {"label": row.label, "faces": [_face(row, place) for place in range(len(row.images))]}
                for row in strip.rows
            ],
        }
        for strip in section.strips
    ]


def _face(row: StripRow, place: int) -> dict[str, object]:
    image = row.images[place]
    return {
        "image": None if image is None else data_address(image, stretch=row.stretch),
        "mark": row.marks[place] if place < len(row.marks) else "",
        "good": bool(place < len(row.good) and row.good[place]),
    }
