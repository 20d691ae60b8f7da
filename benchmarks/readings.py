"""Things measured alternately: the ratio of each pair, so that whatever else the machine does hits both alike."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from math import comb
from statistics import median
from typing import Any, TypeVar

import numpy as np

from attacker.oracle import Oracle
from benchmarks.worker import Run
from referee.report.summary import Figure

__all__ = ["Reading", "added", "alternated", "middle", "over", "paired", "through_server"]

Reading = Callable[[], float]
_Any = TypeVar("_Any")
Pairs = Sequence[tuple[Run, Run]]


def paired(name: str, first: Reading, second: Reading, rounds: int, unit: str, at_least: float | None = None) -> Figure:
    """The figure first / second, measured A B A B ... after one round that only warms up.

    Its value is the median of the rounds' ratios, its interval that of `middle`; extra keys give the medians of both
    readings in `unit`, and the number of rounds.
    """
    return _ratio(name, alternated((first, second), rounds), unit, at_least, {})


def alternated(readings: Sequence[Callable[[], _Any]], rounds: int) -> list[tuple[_Any, ...]]:
    """What each reading gave in each round, measured A B C A B C ... after one round that only warms up."""
    return [tuple(reading() for reading in readings) for _ in range(rounds + 1)][1:]


def over(name: str, pairs: Pairs, at_least: float | None = None, **extra: Any) -> Figure:
    """The figure of rows a second, first over second, of runs that were measured alternately; as `paired`."""
    return _ratio(name, [(a.rows_a_second, b.rows_a_second) for a, b in pairs], "rows/s", at_least, extra)


def added(name: str, pairs: Pairs, at_most: float | None = None, **extra: Any) -> Figure:
    """The figure of milliseconds that the median request takes longer in the first run than in the second."""
    value, low, high = middle([a.median_ms - b.median_ms for a, b in pairs])
    medians = {"first": median(a.median_ms for a, _ in pairs), "second": median(b.median_ms for _, b in pairs)}
    told = medians | {"rounds": len(pairs)} | extra
    return Figure(name, value, "ms", low, high, at_most=at_most, extra=told)


def _ratio(
    name: str, pairs: Sequence[tuple[float, ...]], unit: str, at_least: float | None, extra: dict[str, Any]
) -> Figure:
    value, low, high = middle([a / b for a, b in pairs])
    medians = {"first": median(a for a, _ in pairs), "second": median(b for _, b in pairs)}
    told = medians | {"readings_unit": unit, "rounds": len(pairs)} | extra
    return Figure(name, value, low=low, high=high, at_least=at_least, extra=told)


def middle(values: list[float]) -> tuple[float, float, float]:
    """The median and an interval that covers the true one in at least 95 of 100 runs, whatever the distribution.

    The interval lies between the k-th smallest and the k-th largest value; its coverage is a binomial sum. Fewer than
    six values cannot reach 95: then it is their whole range.

    >>> middle([3.0, 1.0, 2.0])
    (2.0, 1.0, 3.0)
    >>> middle([float(n) for n in range(9)])
    (4.0, 1.0, 7.0)
    """
    n, ordered = len(values), sorted(values)
    missed = [2 * sum(comb(n, i) for i in range(k)) / 2**n for k in range(1, n // 2 + 1)]
    k = max((k for k, outside in enumerate(missed, 1) if outside <= 0.05), default=1)
    return median(ordered), ordered[k - 1], ordered[-k]


def through_server(oracle: Oracle, rows: np.ndarray, seconds: float) -> Reading:
    """Rows a second of requests of `rows`, as many under way as the client keeps, for about `seconds`."""

    def timed(requests: int) -> float:
        start = time.perf_counter()
        for _ in oracle.stream((rows, None) for _ in range(requests)):
            pass
        return time.perf_counter() - start

    timed(4)  # the first calls are slow
    requests = max(4, round(seconds / (timed(8) / 8)))
    return lambda: requests * len(rows) / timed(requests)
