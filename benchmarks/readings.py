"""Two things measured alternately: the ratio of each pair, so that whatever else the machine does hits both alike."""

from __future__ import annotations

import time
from collections.abc import Callable
from math import comb
from pathlib import Path
from statistics import median

import numpy as np
import torch

from attacker.oracle import Oracle
from protos import archive
from referee.report.summary import Figure

__all__ = ["Reading", "in_process", "middle", "paired", "through_server"]

Reading = Callable[[], float]


def paired(name: str, first: Reading, second: Reading, rounds: int, unit: str, at_least: float | None = None) -> Figure:
    """The figure first / second, measured A B A B ... after one round that only warms up.

    Its value is the median of the rounds' ratios, its interval that of `middle`; extra keys give the medians of both
    readings in `unit`, and the number of rounds.
    """
    pairs = [(first(), second()) for _ in range(rounds + 1)][1:]
    value, low, high = middle([a / b for a, b in pairs])
    medians = {"first": median(a for a, _ in pairs), "second": median(b for _, b in pairs)}
    extra = medians | {"readings_unit": unit, "rounds": rounds}
    return Figure(name, value, low=low, high=high, at_least=at_least, extra=extra)


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

    def ask(requests: int) -> None:
        for _ in oracle.stream((rows, None) for _ in range(requests)):
            pass

    return _rate(ask, len(rows), seconds)


def in_process(path: Path, rows: np.ndarray, seconds: float) -> Reading:
    """Rows a second of the archive at `path`, called with `rows` again and again for about `seconds`."""
    model, images = archive.load(path), torch.from_numpy(rows)

    def call(calls: int) -> None:
        with torch.inference_mode():
            for _ in range(calls):
                model(images).numpy()

    return _rate(call, len(rows), seconds)


def _rate(some: Callable[[int], None], rows: int, seconds: float) -> Reading:
    """Readings of a fixed amount of work, chosen now to take about `seconds`."""

    def timed(count: int) -> float:
        start = time.perf_counter()
        some(count)
        return time.perf_counter() - start

    timed(4)  # the first calls are slow
    count = max(4, round(seconds / (timed(8) / 8)))
    return lambda: count * rows / timed(count)
