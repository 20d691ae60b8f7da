"""Which requests the log may have: a filter in memory, so that a new one, as nearly all are, need not ask the disk.

A read of SQLite takes microseconds, but the interpreter changes threads for it, and the loop that answers everybody
waits its turn behind a forward pass and a commit.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Callable, Iterable, Iterator

__all__ = ["Pair", "Seen"]

_LOG = logging.getLogger(__name__)
_PAUSE = 0.002  # seconds between two portions of the past, which are the callers'

Pair = tuple[str, bytes]  # a key's id, and the id of a request


class Seen:
    """A Bloom filter (B. Bloom, CACM 1970) of two probes: a pair that was added is always in it, another one seldom is.

    past  the pairs that there are already, in portions; read once, beside everything else, from the first question on.
          Until its end, and for good when it fails, every pair is said to be in the filter.
    bits  of a probe: the filter has 2^bits of them, 16 MB for 27, whatever is added; of another million pairs in a log
          of as many, two in ten thousand are said to be there, of ten million in a log of ten million two in a hundred

    Probes are of Python's hash, which is keyed anew for each process: nobody can choose ids that collide.
    """

    def __init__(self, past: Callable[[], contextlib.AbstractContextManager[Iterator[list[Pair]]]], bits: int = 27):
        self._past = past
        self._shift, self._mask = bits, (1 << bits) - 1
        self._bits = bytearray(1 << bits - 3)
        self._lock = threading.Lock()  # of who adds: a byte is read and written
        self._thread: threading.Thread | None = None
        self._whole, self._closing = False, threading.Event()

    def __contains__(self, pair: Pair) -> bool:
        if not self._whole:
            self._begin()
            return True
        first, second = self._places(pair)
        return bool(self._bits[first >> 3] >> (first & 7) & self._bits[second >> 3] >> (second & 7) & 1)

    def add(self, pairs: Iterable[Pair]) -> None:
        with self._lock:
            for pair in pairs:
                for place in self._places(pair):
                    self._bits[place >> 3] |= 1 << (place & 7)

    def _places(self, pair: Pair) -> tuple[int, int]:
        number = hash(pair)
        return number & self._mask, number >> self._shift & self._mask

    def _begin(self) -> None:
        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(target=self._read, name="ledger-seen", daemon=True)
                self._thread.start()

    def _read(self) -> None:
        try:
            with self._past() as portions:
                for pairs in portions:
                    self.add(pairs)
                    if self._closing.wait(_PAUSE):
                        return
        except Exception:  # the disk, which will be asked about every id, will say what is the matter with it
            _LOG.warning("the ids in the ledger could not be read: each request looks for its own", exc_info=True)
        else:
            self._whole = True

    def close(self) -> None:
        """Let go of the past, read or not."""
        self._closing.set()
        if self._thread is not None:
            self._thread.join()
