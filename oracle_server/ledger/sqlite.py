"""The ledger on SQLite: write-ahead log, synchronous=FULL, one writer thread, group commit without a timer.

Whatever was queued while the last commit was on its way to the disk goes into the next one, so that a lone caller
never waits for company and a hundred callers share one flush. What a key has spent stands in its row and changes in
the transaction that logs the charge: a restart reads no history, however long the log is.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import queue
import secrets
import sqlite3
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path

from oracle_server.errors import Reason, Refusal
from oracle_server.ledger.flags import FLAG_TABLE, FlagTable
from oracle_server.ledger.interface import Charge, Entry, Reservation, Usage
from oracle_server.ledger.keys import KEY_TABLE, Account, KeyTable
from oracle_server.ledger.secrets import SECRET_TABLE, SecretTable

__all__ = ["SCHEMA", "LedgerError", "LedgerLocked", "SqliteLedger"]

SCHEMA = 1
_LOG = logging.getLogger(__name__)

_TABLES = """
CREATE TABLE IF NOT EXISTS log (
    sequence INTEGER PRIMARY KEY AUTOINCREMENT, time REAL NOT NULL, key_id TEXT NOT NULL REFERENCES keys,
    rpc TEXT NOT NULL, model TEXT NOT NULL, request_id BLOB NOT NULL, digest BLOB NOT NULL,
    rows INTEGER NOT NULL CHECK (rows >= 0),
    UNIQUE (key_id, request_id)
);
CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
"""
_ENTRY = "SELECT sequence, time, key_id, rpc, model, request_id, digest, rows FROM log"
_MOST_IN_A_COMMIT = 1024
_NOT_WRITTEN = "the ledger could not be written, nothing was charged: tell the operator"

_Pending = tuple[Reservation, str, bytes, "Future[Charge]"]


class LedgerError(RuntimeError):
    """The ledger cannot be used; the sentence says what to do."""


class LedgerLocked(LedgerError):
    """Another process holds the ledger: a running server, as a rule."""


class SqliteLedger(KeyTable, FlagTable, SecretTable):
    """A `Ledger` in one file. Open it once: a second opener, in this process or another, gets `LedgerLocked`."""

    def __init__(self, path: Path) -> None:
        with contextlib.ExitStack() as opened:
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                opened.enter_context(contextlib.closing(_LockFile(path.with_suffix(".lock"))))
                os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))  # hashes and the server's secret: nobody else's
                self._reader = opened.enter_context(contextlib.closing(self._connect(path)))
                self._prepare(path)
                self._writer = opened.enter_context(contextlib.closing(self._connect(path)))
                row = self._reader.execute("SELECT value FROM meta WHERE name = 'server_secret'").fetchone()
            except (sqlite3.Error, OSError) as error:
                raise LedgerError(
                    f"cannot use the ledger {path}: {error}; check the disk and the file's permissions"
                ) from error
            self._opened = opened.pop_all()
        self.server_secret: bytes = row[0]
        self._lock = threading.Lock()  # the reader connection and the reservations
        self._accounts: dict[str, Account] = {}
        self._queue: queue.SimpleQueue[_Pending | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._write, name="ledger", daemon=True)
        self._thread.start()

    @staticmethod
    def _connect(path: Path) -> sqlite3.Connection:
        connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=30)
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")
        return connection

    def _prepare(self, path: Path) -> None:
        (version,) = self._reader.execute("PRAGMA user_version").fetchone()
        if version > SCHEMA:
            raise LedgerError(
                f"the ledger {path} has schema {version} and this version reads up to {SCHEMA}:"
                " install the mirage-range that wrote it, or a newer one"
            )
        tables = f"{KEY_TABLE}{_TABLES}{FLAG_TABLE}{SECRET_TABLE}"
        self._reader.executescript(f"BEGIN IMMEDIATE; {tables} PRAGMA user_version={SCHEMA}; COMMIT;")
        self._reader.execute("INSERT OR IGNORE INTO meta VALUES ('server_secret', ?)", (secrets.token_bytes(32),))

    # Charges

    def known(self, key_id: str, request_id: bytes) -> Entry | None:
        """The entry of an id that was charged before: the call is a retry, or its id was used for something else."""
        with self._lock:
            return _find(self._reader, key_id, request_id)

    def charge(self, reservation: Reservation, rpc: str, digest: bytes) -> Future[Charge]:
        """Queue a reservation for the next commit. The future gives the `Charge` once it is on disk, or a `Refusal`."""
        future: Future[Charge] = Future()
        future.set_running_or_notify_cancel()  # nobody takes a charge back half-way
        self._queue.put((reservation, rpc, digest, future))
        return future

    def _write(self) -> None:
        while (first := self._queue.get()) is not None:
            batch = [first]
            last = False
            while len(batch) < _MOST_IN_A_COMMIT and not self._queue.empty():
                item = self._queue.get()
                if item is None:
                    last = True
                    break
                batch.append(item)
            self._commit(batch)
            if last:
                return

    def _commit(self, batch: list[_Pending]) -> None:
        outcomes: list[Charge | Refusal] = []
        try:
            self._writer.execute("BEGIN IMMEDIATE")
            for reservation, rpc, digest, _ in batch:
                outcomes.append(self._enter(reservation, rpc, digest))
            self._writer.execute("COMMIT")
        except Exception:
            _LOG.exception(_NOT_WRITTEN)
            with contextlib.suppress(sqlite3.Error):
                if self._writer.in_transaction:
                    self._writer.execute("ROLLBACK")
            outcomes = [Refusal(Reason.LEDGER_FAILED, _NOT_WRITTEN)] * len(batch)
        with self._lock:
            for (reservation, *_), outcome in zip(batch, outcomes, strict=True):
                account = self._accounts[reservation.key_id]
                account.reserved -= reservation.rows
                if isinstance(outcome, Charge):
                    account.spent += outcome.rows
        for (*_, future), outcome in zip(batch, outcomes, strict=True):
            if isinstance(outcome, Charge):
                future.set_result(outcome)
            else:
                future.set_exception(outcome)

    def _enter(self, reservation: Reservation, rpc: str, digest: bytes) -> Charge | Refusal:
        """One charge inside the open transaction; the checks of `reserve` once more, now against the disk."""
        key_id, rows = reservation.key_id, reservation.rows
        before = _find(self._writer, key_id, reservation.request_id)
        if before is not None:
            if (before.model, before.digest) != (reservation.model, digest):
                return Refusal(Reason.ID_REUSED, "this request id was used for other bytes: take a new id")
            (spent,) = self._writer.execute("SELECT spent FROM keys WHERE key_id = ?", (key_id,)).fetchone()
            return Charge(0, spent, before.sequence)
        row = self._writer.execute(
            "UPDATE keys SET spent = spent + ?, downloads = downloads + ? WHERE key_id = ?"
            " AND (budget IS NULL OR spent + ? <= budget) RETURNING spent",
            (rows, rpc == "Download", key_id, rows),
        ).fetchone()
        if row is None:
            return Refusal(Reason.BUDGET_SPENT, "the budget was spent by another call of this key")
        cursor = self._writer.execute(
            "INSERT INTO log (time, key_id, rpc, model, request_id, digest, rows) VALUES (?, ?, ?, ?, ?, ?, ?)",
            (time.time(), key_id, rpc, reservation.model, reservation.request_id, digest, rows),
        )
        assert cursor.lastrowid is not None
        return Charge(rows, row[0], cursor.lastrowid)

    # Reading

    def usage(self, key_id: str) -> Usage:
        with self._lock:
            row = self._reader.execute("SELECT spent, downloads FROM keys WHERE key_id = ?", (key_id,)).fetchone()
        if row is None:
            raise KeyError(key_id)
        return Usage(*row)

    def entries(self, after: int = 0, limit: int = 10_000) -> Iterator[Entry]:
        """The log by rising sequence number, at most `limit` lines after sequence number `after`."""
        with self._lock:
            rows = self._reader.execute(
                f"{_ENTRY} WHERE sequence > ? ORDER BY sequence LIMIT ?", (after, limit)
            ).fetchall()
        return (Entry(*row) for row in rows)

    def close(self) -> None:
        """Write what is queued, then close. The future of every charge is done on return."""
        self._queue.put(None)
        self._thread.join()
        with self._lock:
            self._opened.close()


class _LockFile:
    """An advisory lock that ends with the process, however it ends."""

    def __init__(self, path: Path) -> None:
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._descriptor)
            raise LedgerLocked(
                f"the ledger beside {path} is in use by another server: stop that one, or choose another --root"
            ) from None

    def close(self) -> None:
        os.close(self._descriptor)


def _find(connection: sqlite3.Connection, key_id: str, request_id: bytes) -> Entry | None:
    row = connection.execute(f"{_ENTRY} WHERE key_id = ? AND request_id = ?", (key_id, request_id)).fetchone()
    return None if row is None else Entry(*row)
