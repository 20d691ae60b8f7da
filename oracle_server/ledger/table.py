"""What the tables of a ledger share: its connection, the lock on it, and what becomes of a change that fails."""

from __future__ import annotations

import contextlib
import logging
import sqlite3
import threading
from collections.abc import Iterator

from oracle_server.errors import Reason, Refusal
from oracle_server.ledger.interface import Key

__all__ = ["Table"]

_LOG = logging.getLogger(__name__)
_NOT_CHANGED = "the ledger could not be written, nothing was changed: check the disk and the server's log"


class Table:
    """Part of a ledger that has a connection and a lock for it."""

    _reader: sqlite3.Connection
    _lock: threading.Lock
    _known_keys: dict[str, Key]  # read before, and not changed since

    @contextlib.contextmanager
    def _changing(self) -> Iterator[None]:
        """The lock, for a change that the operator makes; LEDGER_FAILED when it cannot be written."""
        with self._lock:
            self._known_keys.clear()
            try:
                yield
            except sqlite3.OperationalError as error:
                _LOG.exception(_NOT_CHANGED)
                raise Refusal(Reason.LEDGER_FAILED, _NOT_CHANGED) from error
