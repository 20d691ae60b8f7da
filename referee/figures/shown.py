"""Figures and images of inverted answers as a report shows them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from referee.figures.inverted import Inverted
from referee.report import Figure, Strip, StripRow, labels
from referee.report.bars import Value

__all__ = ["SHOWN", "interval_text", "strip", "value_text", "with_error"]

SHOWN = 8  # images in a strip


def strip(title: str, rows: Sequence[tuple[str, Inverted, str | None]], kind: str = "unseen") -> Strip:
    """Rows of (label, run, contract): the first photos of a kind, and what each run made of their answers."""
    shown: list[StripRow] = []
    for label, one, contract in rows:
        chosen = np.flatnonzero(one.where(kind, contract))[:SHOWN]
        if not shown:
            shown.append(StripRow("real photo", list(one.given.photos[chosen])))
        errors = one.cell.mse[-1][chosen]
        hits = one.cell.top1[-1][chosen].tolist()
        shown.append(StripRow(label, list(one.cell.images[-1][chosen]), [f"{e:.3f}" for e in errors], hits))
    return Strip(title, shown, "Below each its squared error; framed where the evaluation network names the class.")


def value_text(figure: Figure | None) -> str:
    return labels.DASH if figure is None else labels.number(figure.value)


def interval_text(figure: Figure | None) -> str:
    if figure is None or figure.low is None or figure.high is None:
        return value_text(figure)
    return f"{labels.number(figure.value)} [{figure.low:.3g}, {figure.high:.3g}]".replace("-", "\u2212")


def with_error(figure: Figure) -> Value:
    half = None if figure.low is None or figure.high is None else (figure.high - figure.low) / 2
    return Value(figure.value, half)
