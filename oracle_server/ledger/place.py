"""One server for each ledger: a lock that ends with the process, and a mark by which a copy is told from the original.

Two servers on copies of one ledger would each grant the whole budget. A lock cannot see a copy; the ledger therefore
remembers the inode of its file. A copy, or a backup that was put back, has another one and is not opened until the
operator says that the original will never serve again. Moving the folder within its file system changes nothing.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import sqlite3
from pathlib import Path

from oracle_server.ledger.interface import LedgerError, LedgerLocked

__all__ = ["Place"]


class Place:
    """The ledger's file, held by this process under every name that it has; `LedgerLocked` when another holds it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        with contextlib.ExitStack() as opened:
            # The lock file first: to close the ledger's own would drop SQLite's locks in a process that has it open.
            self._hold(opened, path.with_suffix(".lock"))
            self._hold(opened, path)  # hashes and the server's secret inside: nobody else's
            self._opened = opened.pop_all()

    @staticmethod
    def _hold(opened: contextlib.ExitStack, path: Path) -> None:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        opened.callback(os.close, descriptor)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise LedgerLocked(
                f"the ledger beside {path} is in use by another server: stop that one, or choose another --root"
            ) from None

    def recognise(self, connection: sqlite3.Connection, adopt: bool = False) -> None:
        """`LedgerError` for a copy, which `adopt` makes the original."""
        here = str(self._path.stat().st_ino).encode()
        connection.execute("INSERT OR IGNORE INTO meta VALUES ('place', ?)", (here,))
        (place,) = connection.execute("SELECT value FROM meta WHERE name = 'place'").fetchone()
        if place == here:
            return
        if not adopt:
            raise LedgerError(
                f"the ledger {self._path} is a copy, or was put back from one: two servers on copies would each grant"
                " the whole budget. If the original will never serve again, start once with serve --adopt-ledger"
            )
        connection.execute("UPDATE meta SET value = ? WHERE name = 'place'", (here,))

    def close(self) -> None:
        self._opened.close()
