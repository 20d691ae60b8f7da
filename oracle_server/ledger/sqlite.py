"""The ledger on SQLite: write-ahead log, synchronous=FULL, one writer thread, group commit without a timer.

Whatever was queued while the last commit was on its way to the disk goes into the next one, so that a lone caller
never waits for company and a hundred callers share one flush. A commit is one statement, which is its transaction too:
at each statement the interpreter changes threads, and those that answer would wait for those that write. What a key has
spent stands in its row, which a trigger changes with each line of the log: a restart reads no history, however long the
log is.
"""

from __future__ import annotations

import contextlib
import logging
import queue
import secrets
import sqlite3
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from oracle_server.errors import Reason, Refusal
from oracle_server.ledger.chain import ENTRY, Chain, audit_key_path
from oracle_server.ledger.flags import FLAG_TABLE, FlagTable
from oracle_server.ledger.interface import Charge, Digest, Entry, Key, LedgerError, Reservation, Usage
from oracle_server.ledger.keys import KEY_TABLE, Account, KeyTable
from oracle_server.ledger.place import Place
from oracle_server.ledger.secrets import SECRET_TABLE, SecretTable
from oracle_server.ledger.seen import Pair, Seen
from oracle_server.metrics import UNCOUNTED, Metrics

__all__ = ["SCHEMA", "SqliteLedger"]

SCHEMA = 2
_LOG = logging.getLogger(__name__)

_TABLES = """
CREATE TABLE IF NOT EXISTS log (
    sequence INTEGER PRIMARY KEY AUTOINCREMENT, time REAL NOT NULL, key_id TEXT NOT NULL REFERENCES keys,
    rpc TEXT NOT NULL, model TEXT NOT NULL, request_id BLOB NOT NULL, digest BLOB NOT NULL,
    rows INTEGER NOT NULL CHECK (rows >= 0), link BLOB,
    UNIQUE (key_id, request_id)
);
CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
"""
_MOST_IN_A_COMMIT = 1024
_IN_A_PORTION = 1000  # lines that are read together
_MOST_AT_ONCE = 64  # lines in one statement
_COLUMNS = 9
_LINE = f"({', '.join('?' * _COLUMNS)})"
# Of the connection that writes the log, and of no other: it is not in the file.
_SPEND = """
CREATE TEMP TRIGGER spend AFTER INSERT ON log BEGIN
    UPDATE keys SET spent = spent + NEW.rows, downloads = downloads + (NEW.rpc = 'Download') WHERE key_id = NEW.key_id;
END
"""
_NOT_WRITTEN = "the ledger could not be written, nothing was charged: tell the operator"

_Asked = tuple[Reservation, str, Digest, "Future[Charge]"]
_Pending = tuple[Reservation, str, bytes, "Future[Charge]"]


class SqliteLedger(KeyTable, FlagTable, SecretTable):
    """A `Ledger` in one file. Open it once: a second opener, in this process or another, gets `LedgerLocked`.

    audit_key  the file of the key under which the log is chained, made at first use; beside the ledger by default
    adopt      take over a copy, or a log that its audit key does not fit, as the original
    metrics    is told of charges and commits
    """

    def __init__(
        self, path: Path, audit_key: Path | None = None, adopt: bool = False, metrics: Metrics = UNCOUNTED
    ) -> None:
        with contextlib.ExitStack() as opened:
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                place = opened.enter_context(contextlib.closing(Place(path)))
                self._reader = opened.enter_context(contextlib.closing(self._connect(path)))
                self._prepare(path)
                place.recognise(self._reader, adopt)
                self._writer = opened.enter_context(contextlib.closing(self._connect(path)))
                self._writer.execute(_SPEND)
                meta = dict(self._reader.execute("SELECT name, value FROM meta").fetchall())
            except (sqlite3.Error, OSError) as error:
                raise LedgerError(
                    f"cannot use the ledger {path}: {error}; check the disk and the file's permissions"
                ) from error
            self._opened = opened.pop_all()
        self.server_secret: bytes = meta["server_secret"]
        self._identity: bytes = meta["identity"]
        self._audit_key, self._adopt = audit_key or audit_key_path(path), adopt
        self._metrics = metrics
        self._chain: Chain | None = None  # opened by who charges first: the operator's commands need no key
        self._lock = threading.Lock()  # the reader connection and the reservations
        self._accounts: dict[str, Account] = {}
        self._known_keys: dict[str, Key] = {}
        self._seen = Seen(lambda: self._past(path))
        self._queue: queue.SimpleQueue[_Asked | None] = queue.SimpleQueue()
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
        change = "ALTER TABLE log ADD COLUMN link BLOB;" if version == 1 else ""
        tables = f"{change}{KEY_TABLE}{_TABLES}{FLAG_TABLE}{SECRET_TABLE}"
        self._reader.executescript(f"BEGIN IMMEDIATE; {tables} PRAGMA user_version={SCHEMA}; COMMIT;")
        for name, size in (("server_secret", 32), ("identity", 16)):
            self._reader.execute("INSERT OR IGNORE INTO meta VALUES (?, ?)", (name, secrets.token_bytes(size)))

    # Charges

    def known(self, key_id: str, request_id: bytes) -> Entry | None:
        """The entry of an id that was charged before: the call is a retry, or its id was used for something else."""
        if (key_id, request_id) not in self._seen:
            return None
        with self._lock:
            return _find(self._reader, key_id, request_id)

    @contextlib.contextmanager
    def _past(self, path: Path) -> Iterator[Iterator[list[Pair]]]:
        """The requests in the log so far, in portions; later ones are added by whoever writes them."""
        with contextlib.closing(self._connect(path)) as connection:
            (last,) = connection.execute("SELECT coalesce(max(sequence), 0) FROM log").fetchone()
            portion = "SELECT key_id, request_id FROM log WHERE sequence > ? AND sequence <= ?"
            yield (
                connection.execute(portion, (after, after + _IN_A_PORTION)).fetchall()
                for after in range(0, last, _IN_A_PORTION)
            )

    def charge(self, reservation: Reservation, rpc: str, digest: Digest) -> Future[Charge]:
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
            self._commit([(held, rpc, d if isinstance(d, bytes) else d(), future) for held, rpc, d, future in batch])
            if last:
                return

    def open_chain(self) -> None:
        """Take up the chain of the log now and not at the first charge; `LedgerError` when it does not fit the log."""
        if self._chain is None:
            self._chain = Chain(self._writer, self._audit_key, self._identity, self._adopt)

    def _commit(self, batch: list[_Pending]) -> None:
        outcomes: list[Charge | Refusal] = []
        began = time.perf_counter()
        try:
            self._roll_back()
            self.open_chain()
            assert self._chain is not None
            self._seen.add((held.key_id, held.request_id) for held, *_ in batch)  # before anybody can be told of them
            try:
                outcomes += self._enter_together(self._chain, batch)
            except sqlite3.IntegrityError:  # a retry or a budget is among them: which, is found one by one
                self._roll_back()
                with self._transaction():
                    outcomes += [self._enter(self._chain, *pending) for pending in batch]
            self._chain.keep()
            self._metrics.committed(time.perf_counter() - began)
        except Exception:
            _LOG.exception(_NOT_WRITTEN)
            with contextlib.suppress(sqlite3.Error):
                self._roll_back()
            self._close_chain()  # its end is read from the disk again
            outcomes = [Refusal(Reason.LEDGER_FAILED, _NOT_WRITTEN)] * len(batch)
        with self._lock:
            for (reservation, *_), outcome in zip(batch, outcomes, strict=True):
                account = self._accounts[reservation.key_id]
                account.reserved -= reservation.rows
                if isinstance(outcome, Charge):
                    account.spent += outcome.rows
        for (reservation, *_, future), outcome in zip(batch, outcomes, strict=True):
            if isinstance(outcome, Charge):
                self._metrics.charged(reservation.model, outcome.rows)
                future.set_result(outcome)
            else:
                future.set_exception(outcome)

    def _close_chain(self) -> None:
        if self._chain is not None:
            self._chain.close()
            self._chain = None

    def _roll_back(self) -> None:
        """End a transaction that failed; inside one, what is written is not on disk."""
        if self._writer.in_transaction:
            self._writer.execute("ROLLBACK")

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        self._writer.execute("BEGIN IMMEDIATE")
        yield
        self._writer.execute("COMMIT")

    def _enter_together(self, chain: Chain, batch: list[_Pending]) -> list[Charge]:
        """All charges, durable on return; `sqlite3.IntegrityError` and none of them when there is one that may not be,
        by the rules of the tables: no id twice, no more spent than the budget.
        """
        now, charges, lines = time.time(), list[Charge](), list[Any]()
        spent = {held.key_id: self._accounts[held.key_id].spent for held, *_ in batch}  # this thread alone changes it
        with chain.all_or_none():
            for held, rpc, digest, _ in batch:
                lines += _line(chain, held, rpc, digest, now)
                spent[held.key_id] += held.rows
                charges.append(Charge(held.rows, spent[held.key_id], chain.sequence, chain.link))
            with self._transaction() if len(batch) > _MOST_AT_ONCE else contextlib.nullcontext():
                for start in range(0, len(lines), _MOST_AT_ONCE * _COLUMNS):
                    some = lines[start : start + _MOST_AT_ONCE * _COLUMNS]
                    self._writer.execute(f"INSERT INTO log VALUES {', '.join([_LINE] * (len(some) // _COLUMNS))}", some)
        return charges

    def _enter(self, chain: Chain, reservation: Reservation, rpc: str, digest: bytes, _: object) -> Charge | Refusal:
        """One charge inside the open transaction; the checks of `reserve` once more, now against the disk."""
        key_id, rows = reservation.key_id, reservation.rows
        account = self._writer.execute("SELECT spent, budget FROM keys WHERE key_id = ?", (key_id,))
        spent, budget = account.fetchone()
        before = _find(self._writer, key_id, reservation.request_id)
        if before is not None:
            if (before.model, before.digest) != (reservation.model, digest):
                return Refusal(Reason.ID_REUSED, "this request id was used for other bytes: take a new id")
            return Charge(0, spent, before.sequence, before.link)
        if budget is not None and spent + rows > budget:
            return Refusal(Reason.BUDGET_SPENT, "the budget was spent by another call of this key")
        self._writer.execute(f"INSERT INTO log VALUES {_LINE}", _line(chain, reservation, rpc, digest, time.time()))
        return Charge(rows, spent + rows, chain.sequence, chain.link)

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
                f"{ENTRY} WHERE sequence > ? ORDER BY sequence LIMIT ?", (after, limit)
            ).fetchall()
        return (Entry(*row) for row in rows)

    def close(self) -> None:
        """Write what is queued, then close. The future of every charge is done on return."""
        self._queue.put(None)
        self._thread.join()
        self._seen.close()
        self._close_chain()
        with self._lock:
            self._opened.close()


def _find(connection: sqlite3.Connection, key_id: str, request_id: bytes) -> Entry | None:
    row = connection.execute(f"{ENTRY} WHERE key_id = ? AND request_id = ?", (key_id, request_id)).fetchone()
    return None if row is None else Entry(*row)


def _line(chain: Chain, reservation: Reservation, rpc: str, digest: bytes, now: float) -> tuple[Any, ...]:
    """The columns of the next line of the log, by which the chain is longer then."""
    told = reservation.key_id, rpc, reservation.model, reservation.request_id, digest, reservation.rows
    link = chain.extend(Entry(chain.sequence + 1, now, *told))
    return chain.sequence, now, *told, link
