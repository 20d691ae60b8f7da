"""Which defence to take at which loss of accuracy, read off the figures of a matrix: points, their front, sentences."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from referee.report import Figure

__all__ = ["ATTACKERS", "Point", "advice", "front", "points_of", "said"]

ATTACKERS = {"interface": "whoever has a key for scores or labels", "weights": "whoever has the weights"}
_LOSSES = (1, 2, 5, 10)  # points of accuracy


@dataclass(frozen=True, eq=False)
class Point:
    """A defence with one strength on one task, by its two figures: accuracy, and recognition by the best attack."""

    accuracy: Figure
    recognition: Figure

    @property
    def task(self) -> str:
        return str(self.recognition.extra["task"])

    @property
    def defence(self) -> str:
        return str(self.recognition.extra["defence"])

    @property
    def kind(self) -> str:
        """none, training, response or contract."""
        return str(self.recognition.extra["kind"])

    @property
    def undefended(self) -> bool:
        return self.kind == "none"

    @property
    def name(self) -> str:
        return "undefended" if self.undefended else f"{self.defence} {self.recognition.extra['strength']}"

    @property
    def loss(self) -> float | None:
        """Of accuracy, beside the undefended model."""
        return 0.0 if self.undefended else self.accuracy.extra.get("loss")

    @property
    def unfinished(self) -> bool:
        """Whether an attack is missing, so that a better one than the best may yet come."""
        return bool(self.recognition.extra["missing"])

    def leak(self, attacker: str) -> dict[str, Any] | None:
        """What the best attack of this attacker recognises: attack, share, low, high, and where it is known that of the
        undefended model by the best of the same attacks, and the change.
        """
        found: dict[str, Any] | None = self.recognition.extra.get(attacker)
        return found


def points_of(figures: Sequence[Figure]) -> dict[str, list[Point]]:
    """By task, in the campaign's order."""
    named = {figure.name: figure for figure in figures}
    found: dict[str, list[Point]] = {}
    for figure in figures:
        start, _, last = figure.name.rpartition("/")
        if last == "recognition" and "kind" in figure.extra and f"{start}/accuracy" in named:
            found.setdefault(figure.extra["task"], []).append(Point(named[f"{start}/accuracy"], figure))
    return found


def front(points: Sequence[Point], attacker: str) -> list[Point]:
    """Those that no other point beats: at least as accurate and leaking no more, and better in one."""
    known = [(point, point.accuracy.value, leak["share"]) for point in points if (leak := point.leak(attacker))]
    return [
        point
        for point, accuracy, share in known
        if not any(a >= accuracy and s <= share and (a, s) != (accuracy, share) for _, a, s in known)
    ]


def advice(task: str, points: Sequence[Point], attacker: str) -> str:
    """At each of a few losses of accuracy the defence behind which the best attack recognises least, of those that
    lower it beyond chance: the interval of the change lies below 0.
    """
    baseline = next((leak for point in points if point.undefended and (leak := point.leak(attacker))), None)
    defended = [point for point in points if not point.undefended and point.leak(attacker) is not None]
    if baseline is None or not defended:
        return ""
    chosen: list[tuple[list[int], Point | None]] = []
    for most in _LOSSES:
        take = _least(defended, attacker, most)
        if chosen and chosen[-1][1] is take:
            chosen[-1][0].append(most)
        else:
            chosen.append(([most], take))
    return " ".join(_sentence(task, most, take, attacker) for most, take in chosen)


def said(figures: Sequence[Figure]) -> dict[str, str]:
    """The advice for each task and attacker, and which defences are on the front, by name, for the summary."""
    found = {}
    for task, points in points_of(figures).items():
        for attacker in ATTACKERS:
            if words := advice(task, points, attacker):
                found[f"defences/{task}/{attacker}/advice"] = words
                names = ", ".join(point.name for point in front(points, attacker))
                found[f"defences/{task}/{attacker}/front"] = names
    return found


def _least(points: Sequence[Point], attacker: str, most: int) -> Point | None:
    fit = []
    for point in points:
        leak = point.leak(attacker)
        cheap = point.loss is not None and point.loss <= most / 100 + 1e-9
        if leak is not None and cheap and not point.unfinished and leak.get("change_high", 0.0) < 0:
            fit.append((leak["share"], point.loss or 0.0, point))
    return min(fit, key=lambda one: one[:2])[2] if fit else None


def _sentence(task: str, most: Sequence[int], take: Point | None, attacker: str) -> str:
    words = [str(number) for number in most]
    points = f"{', '.join(words[:-1])} or {words[-1]}" if words[1:] else words[0]
    start = f"At a loss of at most {points} {'point' if words == ['1'] else 'points'} of accuracy on {task}:"
    if take is None:
        return f"{start} nothing measurably helps."
    leak = take.leak(attacker)
    assert leak is not None
    return (
        f"{start} take {take.name}; the best attack ({leak['undefended_attack']}, then {leak['attack']}) falls from"
        f" {leak['undefended']:.3f} to {leak['share']:.3f}, at a loss of {100 * (take.loss or 0):.1f} points."
    )
