"""Rows a second for each key, retries included."""

from __future__ import annotations

import time
from collections.abc import Callable

from oracle_server.errors import Reason, Refusal
from oracle_server.ledger import Key

__all__ = ["Rates"]


class Rates:
    """A bucket a key that holds one second of its rate and may go into debt.

    A request is admitted while the bucket is above zero and is then taken whole, so that a batch larger than a
    second's worth passes once and is paid for by waiting; over any time t a key gets at most rate * (t + 1) rows and
    one batch.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._buckets: dict[str, tuple[float, float]] = {}  # key id -> rows in the bucket, and when

    def take(self, key: Key, rows: int) -> None:
        rate = key.contract.rate
        if rate is None:
            return
        now = self._clock()
        level, then = self._buckets.get(key.key_id, (rate, now))
        level = min(rate, level + (now - then) * rate)
        if level <= 0:
            wait = -level / rate + 1e-3
            raise Refusal(
                Reason.SLOW_DOWN, f"this key may ask for {rate:g} rows a second: wait {wait:.3f} s", retry_after=wait
            )
        self._buckets[key.key_id] = (level - rows, now)
