"""Bars and lines with their errors as inline SVG, beside `charts`: no script, no font; colours come from the page."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

from referee.report import labels
from referee.report.charts import COLOURS

__all__ = ["Line", "Value", "bars", "lines"]

WIDTH, HEIGHT = 600.0, 320.0
LEFT, RIGHT, TOP, BOTTOM = 52.0, 12.0, 44.0, 44.0
_LEGEND = 6.4  # width of a letter; two lines of them fit above the frame


@dataclass(frozen=True)
class Value:
    """A height with the error that is drawn on both sides of it, if there is one; None is not measured."""

    value: float | None
    error: float | None = None


@dataclass(frozen=True)
class Line:
    """Named values, one for each place on the x axis."""

    name: str
    values: Sequence[Value]


class _Frame:
    """A scale from `low` to `high`, which holds every value with its error and zero (for bars)."""

    def __init__(self, series: Sequence[Line], low: float | None) -> None:
        known = [(v.value, v.error or 0.0) for line in series for v in line.values if v.value is not None]
        tops = [value + error for value, error in known] or [1.0]
        tops += [0.0] if low is None else []
        bottoms = [value - error for value, error in known] or [0.0]
        lowest = min(0.0, *bottoms) if low is None else min(low, min(bottoms))
        self.step = _step(max(max(tops), lowest + 1e-9) - lowest)
        self.low = math.floor(round(lowest / self.step, 6)) * self.step
        self.high = max(math.ceil(round(max(tops) / self.step, 6)) * self.step, self.low + self.step)

    def y(self, value: float) -> float:
        share = (value - self.low) / (self.high - self.low)
        return round(HEIGHT - BOTTOM - share * (HEIGHT - TOP - BOTTOM), 1)

    def grid(self) -> list[str]:
        parts = []
        for tick in range(round((self.high - self.low) / self.step) + 1):
            value = self.low + tick * self.step
            text = f"{value:.10g}".replace("-", "−") if abs(value) > 1e-9 else "0"
            parts.append(f'<path class="grid" d="M{LEFT} {self.y(value)}H{WIDTH - RIGHT}"/>')
            parts.append(f'<text class="tick end" x="{LEFT - 8}" y="{self.y(value) + 4}">{text}</text>')
        return parts


def bars(title: str, groups: Sequence[str], series: Sequence[Line]) -> Markup:
    """A group of bars for each of `groups`, in it one bar a series, from zero, with its error. At most `COLOURS`."""
    frame = _Frame(series, None)
    width = (WIDTH - LEFT - RIGHT) / max(1, len(groups))
    bar = min(40.0, 0.8 * width / max(1, len(series)))
    parts = frame.grid()
    for place, group in enumerate(groups):
        middle = LEFT + (place + 0.5) * width
        parts.append(f'<text class="tick mid" x="{middle:.1f}" y="{HEIGHT - BOTTOM + 18}">{escape(group)}</text>')
        for number, line in enumerate(series):
            x = middle + (number - len(series) / 2) * bar
            parts.append(_bar(line, number, place, group, x, bar, frame))
    parts.append(f'<path class="axis" d="M{LEFT} {frame.y(0.0)}H{WIDTH - RIGHT}"/>')
    return _svg(title, [*parts, *_legend(series)])


def _bar(line: Line, number: int, place: int, group: str, x: float, width: float, frame: _Frame) -> str:
    one = line.values[place]
    if one.value is None:
        return f'<text class="tick mid" x="{x + width / 2:.1f}" y="{frame.y(0.0) - 4:.1f}">{labels.DASH}</text>'
    top, base = sorted((frame.y(one.value), frame.y(0.0)))
    said = f"{line.name}, {group}: {labels.number(one.value)}"
    error = "" if one.error is None else _whisker(x + width / 2, one.value, one.error, frame)
    return (
        f'<g class="bar s{number % COLOURS}"><rect x="{x + 1:.1f}" y="{top}" width="{width - 2:.1f}"'
        f' height="{base - top:.1f}"><title>{escape(said)}{_plus_minus(one)}</title></rect>{error}</g>'
    )


def lines(
    title: str, places: Sequence[str], series: Sequence[Line], *, x_name: str, low: float | None = None
) -> Markup:
    """A line for each series over the same `places`; the scale begins at `low`, or at zero."""
    frame = _Frame(series, low)
    gap = (WIDTH - LEFT - RIGHT) / max(1, len(places))
    x = [LEFT + (place + 0.5) * gap for place in range(len(places))]
    parts = frame.grid()
    for where, name in zip(x, places, strict=True):
        parts.append(f'<text class="tick mid" x="{where:.1f}" y="{HEIGHT - BOTTOM + 18}">{escape(name)}</text>')
    parts.append(f'<text class="name mid" x="{(LEFT + WIDTH - RIGHT) / 2}" y="{HEIGHT - 6}">{escape(x_name)}</text>')
    for number, line in enumerate(series):
        known = [(where, v) for where, v in zip(x, line.values, strict=True) if v.value is not None]
        path = "L".join(f"{where:.1f} {frame.y(v.value)}" for where, v in known if v.value is not None)
        drawn = f'<path d="M{path}"/>' if len(known) > 1 else ""
        for where, v in known:
            assert v.value is not None
            drawn += _whisker(where, v.value, v.error, frame) if v.error else ""
            said = f"{line.name}: {labels.number(v.value)}{_plus_minus(v)}"
            drawn += f'<circle cx="{where:.1f}" cy="{frame.y(v.value)}" r="3.5"><title>{escape(said)}</title></circle>'
        parts.append(f'<g class="curve s{number % COLOURS}">{drawn}</g>')
    parts.append(f'<path class="axis" d="M{LEFT} {HEIGHT - BOTTOM}H{WIDTH - RIGHT}"/>')
    return _svg(title, [*parts, *_legend(series)])


def _whisker(x: float, value: float, error: float, frame: _Frame) -> str:
    return f'<path class="whisker" d="M{x:.1f} {frame.y(value - error)}V{frame.y(value + error)}"/>'


def _plus_minus(value: Value) -> str:
    return "" if value.error is None else f" ± {value.error:.2g}"


def _legend(series: Sequence[Line]) -> list[str]:
    parts, x = [], LEFT
    y = 1
    for number, line in enumerate(series):
        width = 30 + _LEGEND * len(line.name)
        if x > LEFT and x + width > WIDTH:
            x, y = LEFT, y + 16
        parts.append(
            f'<g class="label s{number % COLOURS}"><rect x="{x:.0f}" y="{y}" width="11" height="11"/>'
            f'<text x="{x + 16:.0f}" y="{y + 10}">{escape(line.name)}</text></g>'
        )
        x += width
    return parts


def _svg(title: str, parts: Sequence[str]) -> Markup:
    head = f'<svg class="chart" viewBox="0 0 {WIDTH:g} {HEIGHT:g}" role="img"><title>{escape(title)}</title>'
    return Markup(head + "".join(parts) + "</svg>")


def _step(span: float) -> float:
    """A round step that divides the span into about five."""
    rough = max(span, 1e-9) / 5
    scale = 10.0 ** math.floor(math.log10(rough))
    return next(scale * factor for factor in (1, 2, 2.5, 5, 10) if scale * factor >= rough * 0.999)
