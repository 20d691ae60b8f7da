"""Small charts as inline SVG: no script, no font, no file beside the page. Colours come from the page's CSS.

`success` draws top-1 against rows, a panel for each method and a curve for each contract; `forest` a value with its
interval on the line from 0 to 1.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

from referee.metrics import Interval
from referee.report import labels

__all__ = ["COLOURS", "Panel", "Series", "forest", "success"]

COLOURS = 8  # classes s0 ... s7 of the page
WIDTH, HEIGHT = 600.0, 320.0
LEFT, RIGHT, TOP, BOTTOM = 48.0, 184.0, 14.0, 44.0
LABEL_GAP = 14.0
LABEL_LENGTH = 26  # characters that fit beside the frame; the hover title has the whole name


@dataclass(frozen=True)
class Series:
    """One curve: rows per person (x > 0) and the share recognised, in order of x; `colour` is 0 ... COLOURS - 1."""

    name: str
    colour: int
    rows: tuple[float, ...]
    share: tuple[Interval, ...]


@dataclass(frozen=True)
class Panel:
    """The curves of one method."""

    title: str
    series: tuple[Series, ...]


def success(panels: Sequence[Panel], floor: float, *, noun: str = "people", each: str = "person") -> list[Markup]:
    """One SVG a panel, all with the same axes. `floor` is drawn as a dashed line across. What is recognised is called
    `noun`, one of them `each`.
    """
    rows = [x for panel in panels for series in panel.series for x in series.rows]
    if not rows:
        return []
    low, high = math.floor(math.log10(min(rows))), math.ceil(math.log10(max(rows)))
    top = max(value.value for panel in panels for series in panel.series for value in series.share)
    frame = _Frame(low, max(high, low + 1), _ceiling(max(top, floor)), noun, each)
    return [_panel(panel, frame, floor) for panel in panels]


def forest(value: Interval, floor: float, width: int = 104, height: int = 14) -> Markup:
    """A dot with its interval on the line from 0 to 1, and a tick at the floor."""
    middle, span = height / 2, width - 6

    def x(share: float) -> float:
        return round(3 + span * share, 1)

    return Markup(
        f'<svg class="forest" width="{width}" height="{height}" viewBox="0 0 {width} {height}" role="img">'
        f"<title>{escape(labels.interval(value))}, floor {labels.ratio(floor)}</title>"
        f'<path class="rail" d="M3 {middle}H{width - 3}"/>'
        f'<path class="floor" d="M{x(floor)} 1V{height - 1}"/>'
        f'<path class="span" d="M{x(value.low)} {middle}H{x(value.high)}"/>'
        f'<circle class="dot" cx="{x(value.value)}" cy="{middle}" r="3"/></svg>'
    )


@dataclass(frozen=True)
class _Frame:
    """The axes: decades `low` ... `high` of rows, shares from 0 to `top`; and what they are called."""

    low: int
    high: int
    top: float
    noun: str
    each: str

    def x(self, rows: float) -> float:
        part = (math.log10(rows) - self.low) / (self.high - self.low)
        return round(LEFT + part * (WIDTH - LEFT - RIGHT), 1)

    def y(self, share: float) -> float:
        return round(HEIGHT - BOTTOM - share / self.top * (HEIGHT - TOP - BOTTOM), 1)


def _ceiling(top: float) -> float:
    """The first of a few round numbers above the highest value."""
    return next((round_ for round_ in (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.8) if top * 1.08 <= round_), 1.0)


def _panel(panel: Panel, frame: _Frame, floor: float) -> Markup:
    right, base = WIDTH - RIGHT, HEIGHT - BOTTOM
    parts = [f'<svg class="chart" viewBox="0 0 {WIDTH:g} {HEIGHT:g}" role="img">']
    said = f"{panel.title}: share of {frame.noun} recognised against rows per {frame.each}"
    parts.append(f"<title>{escape(said)}</title>")
    for share in [frame.top * step / 4 for step in range(5)]:
        y = frame.y(share)
        parts.append(f'<path class="grid" d="M{LEFT} {y}H{right}"/>')
        parts.append(f'<text class="tick end" x="{LEFT - 8}" y="{y + 4}">{share:.3g}</text>')
    for decade in range(frame.low, frame.high + 1):
        x = frame.x(10.0**decade)
        parts.append(f'<path class="axis" d="M{x} {base}v5"/>')
        parts.append(f'<text class="tick mid" x="{x}" y="{base + 18}">{labels.short(10.0**decade)}</text>')
        if decade < frame.high:
            parts += [f'<path class="axis" d="M{frame.x(step * 10.0**decade)} {base}v3"/>' for step in range(2, 10)]
    parts.append(f'<path class="axis" d="M{LEFT} {base}H{right}"/>')
    middle = (LEFT + right) / 2
    across, up = f"rows answered per {frame.each} (log scale)", f"{frame.noun} recognised"
    parts.append(f'<text class="name mid" x="{middle}" y="{HEIGHT - 6}">{escape(across)}</text>')
    parts.append(f'<text class="name mid" transform="translate(11 {(TOP + base) / 2}) rotate(-90)">{escape(up)}</text>')
    y = frame.y(floor)
    parts.append(f'<path class="floor" d="M{LEFT} {y}H{right}"><title>floor {labels.ratio(floor)}</title></path>')
    parts += [_curve(series, frame) for series in panel.series]
    parts += _end_labels(panel.series, frame, y)
    parts.append("</svg>")
    return Markup("".join(parts))


def _curve(series: Series, frame: _Frame) -> str:
    """A line through the marks (a single mark is a lone point), and a hover title on each."""
    points = [(frame.x(x), frame.y(value.value)) for x, value in zip(series.rows, series.share, strict=True)]
    path = "L".join(f"{x} {y}" for x, y in points)
    dots = "".join(
        f'<circle cx="{px}" cy="{py}" r="3.5"><title>{escape(series.name)}: {labels.interval(value)} '
        f"after {labels.count(rows)} rows per {frame.each}</title></circle>"
        for (px, py), rows, value in zip(points, series.rows, series.share, strict=True)
    )
    line = f'<path d="M{path}"><title>{escape(series.name)}</title></path>' if len(points) > 1 else ""
    return f'<g class="curve s{series.colour % COLOURS}">{line}{dots}</g>'


def _end_labels(series: Sequence[Series], frame: _Frame, floor_y: float) -> list[str]:
    """The names of the curves at their right-hand side, moved apart so that none covers another."""
    wanted = [
        (frame.y(one.share[-1].value), f"s{one.colour % COLOURS}", one.name, frame.x(one.rows[-1])) for one in series
    ]
    wanted.append((floor_y, "muted", "floor", WIDTH - RIGHT))
    wanted.sort(key=lambda label: label[0])
    places: list[float] = []
    for y, *_ in wanted:
        places.append(max(y, places[-1] + LABEL_GAP) if places else y)
    # If the lowest fell out of the frame, push all of them up from below.
    limit = HEIGHT - BOTTOM
    for i in range(len(places) - 1, -1, -1):
        places[i] = min(places[i], limit)
        limit = places[i] - LABEL_GAP
    x = WIDTH - RIGHT + 16
    return [
        f'<g class="label {colour}"><path d="M{start + 5:.1f} {y}L{x - 4} {place:.1f}"/>'
        f'<text x="{x}" y="{place + 4:.1f}">{escape(_fitted(name))}</text></g>'
        for (y, colour, name, start), place in zip(wanted, places, strict=True)
    ]


def _fitted(name: str) -> str:
    return name if len(name) <= LABEL_LENGTH else name[: LABEL_LENGTH - 1] + "…"
