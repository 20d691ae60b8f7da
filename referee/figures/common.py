"""What the figures of several campaigns are made of."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from referee.cell import Cell
from referee.metrics.intervals import clustered_interval
from referee.report import Figure

__all__ = ["counts_equal", "rate"]


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
