"""Points of two shares from 0 to 1, a colour for each kind of method, as inline SVG in the page's own colours."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

from referee.report.charts import BOTTOM, COLOURS, HEIGHT, LEFT, RIGHT, TOP, WIDTH

__all__ = ["Dots", "scatter"]

_STEPS = 5  # grid lines along each axis
_LINE = 18.0  # pixels between the names beside the frame


@dataclass(frozen=True)
class Dots:
    """Points (x, y, what a hover title says) of one kind; `joined` draws a line through them in order of x."""

    name: str
    colour: int
    points: tuple[tuple[float, float, str], ...]
    joined: bool = False


def scatter(kinds: Sequence[Dots], across: str, up: str) -> Markup:
    """One chart; axes end at a round number above all points, the upright one begins at 0, the other at the last fifth
    below them. `across` and `up` name them.
    """
    points = [point for kind in kinds for point in kind.points]
    right, top = _end(max((x for x, _, _ in points), default=1.0)), _end(max((y for _, y, _ in points), default=1.0))
    left = min((math.floor(min(x, 0.99) * _STEPS) / _STEPS for x, _, _ in points), default=0.0)
    edge, base = WIDTH - RIGHT, HEIGHT - BOTTOM

    def x(value: float) -> float:
        return round(LEFT + (value - left) / (right - left) * (edge - LEFT), 1)

    def y(value: float) -> float:
        return round(base - value / top * (base - TOP), 1)

    parts = [f'<svg class="chart" viewBox="0 0 {WIDTH:g} {HEIGHT:g}" role="img">']
    parts.append(f"<title>{escape(up)} against {escape(across)}</title>")
    for step in range(_STEPS + 1):
        share = step / _STEPS
        parts.append(f'<path class="grid" d="M{LEFT} {y(top * share)}H{edge}"/>')
        parts.append(f'<text class="tick end" x="{LEFT - 8}" y="{y(top * share) + 4}">{top * share:.3g}</text>')
        at = left + (right - left) * share
        parts.append(f'<path class="axis" d="M{x(at)} {base}v5"/>')
        parts.append(f'<text class="tick mid" x="{x(at)}" y="{base + 18}">{at:.3g}</text>')
    parts.append(f'<path class="axis" d="M{LEFT} {base}H{edge}"/>')
    parts.append(f'<text class="name mid" x="{(LEFT + edge) / 2}" y="{HEIGHT - 6}">{escape(across)}</text>')
    middle = (TOP + base) / 2
    parts.append(f'<text class="name mid" transform="translate(11 {middle}) rotate(-90)">{escape(up)}</text>')
    for place, kind in enumerate(kinds):
        colour = f"s{kind.colour % COLOURS}"
        path = "L".join(f"{x(a)} {y(b)}" for a, b, _ in sorted(kind.points))
        line = f'<path d="M{path}"/>' if kind.joined and len(kind.points) > 1 else ""
        dots = "".join(
            f'<circle cx="{x(a)}" cy="{y(b)}" r="4"><title>{escape(said)}</title></circle>'
            for a, b, said in kind.points
        )
        parts.append(f'<g class="curve {colour}">{line}{dots}</g>')
        line_at = TOP + 10 + place * _LINE
        parts.append(f'<g class="curve {colour}"><circle cx="{edge + 18}" cy="{line_at}" r="4"/></g>')
        parts.append(
            f'<g class="label {colour}"><text x="{edge + 28}" y="{line_at + 4}">{escape(kind.name)}</text></g>'
        )
    parts.append("</svg>")
    return Markup("".join(parts))


def _end(most: float) -> float:
    """The first of a few round numbers that is not below the greatest value."""
    return next((end for end in (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.8) if most <= end), 1.0)
