"""What the figures of several campaigns are made of."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from referee.cell import Cell
from referee.metrics.intervals import clustered_interval
from referee.report import Figure

__all__ = ["best_white_box", "counts_equal", "model_of", "rate"]


def rate(name: str, values: np.ndarray, targets: np.ndarray, **rest: object) -> Figure:
    """The mean of a figure per target (N,), with its 95% bootstrap interval clustered by target."""
    interval = clustered_interval(values, targets)
    return Figure(name, interval.value, low=interval.low, high=interval.high, **rest)  # type: ignore[arg-type]


def counts_equal(name: str, cells: Sequence[Cell]) -> Figure:
    """1 when the ledger and the attacker counted the same rows in every cell that ran."""
    ran = [cell for cell in cells if cell.status == "done"]
    differ = sorted(cell.name for cell in ran if not cell.counts_equal)
    extra = {"cells": len(ran), "differ": differ, "rows": sum(cell.rows_ledger for cell in ran)}
    return Figure(name, float(not differ), unit="all cells", at_least=1.0, extra=extra)


def model_of(cell: Cell) -> str:
    """The model that was attacked, from the name of a victim that may end with the number of its people."""
    return cell.victim.rstrip("0123456789")


def best_white_box(cells: Sequence[Cell], model: str, split: str = "") -> Cell | None:
    """Of the finished cells that had a model's weights and nothing else, that with most people recognised."""
    fit = [c for c in cells if c.self_reported and c.method != "deblur" and model_of(c) == model]
    fit = [cell for cell in fit if cell.split == split or not split]
    return max(fit, key=lambda cell: float(cell.top1[-1].mean()), default=None)
