"""The chain over the log: each line's link is an HMAC of the line and of the link before it, under a key that is kept
in a file. Who changes, takes out, swaps or cuts off lines without that key is found by `verify.py`.

    first link   HMAC-SHA256(key, "first" and the ledger's identity)
    link n       HMAC-SHA256(key, link n - 1, then the line's fields, each with its length)

Beside the key lies the head: number and link of the last line, written after every commit and before its answers leave,
so that a log whose end was cut off, or an old copy of the ledger that was put back, is noticed at the next start. Keep
both files where whoever may write to the ledger cannot (`serve --audit-key`).
"""

from __future__ import annotations

import contextlib
import fcntl
import hmac
import logging
import os
import secrets
import sqlite3
import struct
from collections.abc import Iterator
from pathlib import Path

from oracle_server.ledger.interface import Entry, LedgerError, LedgerLocked

__all__ = ["ENTRY", "Chain", "audit_check", "audit_key_path", "first_link", "next_link", "read_head", "read_key"]

_LOG = logging.getLogger(__name__)
ENTRY = "SELECT sequence, time, key_id, rpc, model, request_id, digest, rows, coalesce(link, x'') FROM log"
_KEY_BYTES = 32
_HEAD = struct.Struct("<16sQ32s")  # identity of the ledger, number and link of its last line


def first_link(key: bytes, identity: bytes) -> bytes:
    """What stands before the first line, 32 bytes."""
    return hmac.digest(key, b"first" + identity, "sha256")


def next_link(key: bytes, before: bytes, entry: Entry) -> bytes:
    """The link of a line, 32 bytes, after the link `before`."""
    texts = entry.key_id.encode(), entry.rpc.encode(), entry.model.encode(), entry.request_id, entry.digest
    fields = [before, struct.pack("<QdQ", entry.sequence, entry.time, entry.rows)]
    for text in texts:
        fields += len(text).to_bytes(4, "little"), text
    return hmac.digest(key, b"".join(fields), "sha256")


def audit_key_path(ledger: Path) -> Path:
    """Where the audit key of a ledger is, unless somebody says otherwise."""
    return ledger.with_name("audit.key")


def audit_check(key: bytes, identity: bytes) -> bytes:
    """What the ledger keeps to tell its audit key from another, 32 bytes."""
    return hmac.digest(key, b"check" + identity, "sha256")


def read_key(path: Path) -> bytes | None:
    """The audit key in a file, 64 hexadecimal digits; None without a file."""
    try:
        key = bytes.fromhex(path.read_text().strip())
    except FileNotFoundError:
        return None
    except (ValueError, OSError) as error:
        raise LedgerError(f"cannot read the audit key {path}: {error}; put the right file back") from error
    if len(key) != _KEY_BYTES:
        raise LedgerError(f"the audit key {path} is not 64 hexadecimal digits: put the right file back")
    return key


def read_head(path: Path, identity: bytes) -> tuple[int, bytes] | None:
    """Number and link of the last line, as the file beside the key says; None without a file."""
    try:
        data = _head_path(path).read_bytes()
    except FileNotFoundError:
        return None
    if not data:
        return None
    if len(data) != _HEAD.size:
        raise LedgerError(f"{_head_path(path)} is not a head of an audit log: put the right file back")
    owner, sequence, link = _HEAD.unpack(data)
    if owner != identity:
        raise LedgerError(
            f"the audit key {path} belongs to another ledger: give each ledger a key of its own, or put"
            " this one's ledger back"
        )
    return sequence, link


def _head_path(key: Path) -> Path:
    return key.with_suffix(".head")


class Chain:
    """The open end of a ledger's chain. `connection` writes the ledger, `path` is the key's file.

    At first use the key is made, and lines from before there was a chain get their links. After that a key that is
    missing or another, or a head that the log does not have, is a `LedgerError`; `adopt` takes the log as it is
    instead, with a new chain over all of it.
    """

    def __init__(self, connection: sqlite3.Connection, path: Path, identity: bytes, adopt: bool = False) -> None:
        self._path, self._identity = path, identity
        key, check = read_key(path), _meta(connection, "audit_check")
        with contextlib.ExitStack() as opened:
            self._file = self._open_head()
            opened.callback(os.close, self._file)
            trouble = self._trouble(connection, key, check)
            if trouble and not adopt:
                raise LedgerError(f"{trouble}; serve --adopt-ledger takes the log as it is now")
            if trouble:
                _LOG.warning("adopted the ledger all the same: %s", trouble)
            self._key = key or self._new_key()
            if trouble or check is None:
                self._begin(connection)
            self.sequence, self.link = self._last(connection)
            self.keep()
            opened.pop_all()

    def _open_head(self) -> int:
        path = _head_path(self._path)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            file = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            raise LedgerError(f"cannot write {path}: {error}; check the disk and the folder's permissions") from error
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(file)
            raise LedgerLocked(f"the audit key {self._path} is in use by another server: stop that one") from None
        return file

    def _trouble(self, connection: sqlite3.Connection, key: bytes | None, check: bytes | None) -> str:
        """Why the log cannot be continued, in words; empty if it can."""
        try:
            head = read_head(self._path, self._identity)
        except LedgerError as error:
            return str(error)
        if check is None and head is None:
            return ""  # never used before
        if key is None:
            return f"the audit key {self._path} of this ledger is missing: put it back"
        if check != audit_check(key, self._identity):
            return f"the audit key {self._path} is not this ledger's: put the right file back"
        if head is None or head[0] == 0:
            return ""
        row = connection.execute("SELECT link FROM log WHERE sequence = ?", head[:1]).fetchone()
        if row is None or row[0] != head[1]:
            return f"the log has lost or changed its line {head[0]}: see oracle-server audit --verify"
        return ""

    def _new_key(self) -> bytes:
        key = secrets.token_bytes(_KEY_BYTES)
        new = self._path.with_suffix(".new")
        new.unlink(missing_ok=True)
        with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(key.hex() + "\n")
            file.flush()
            os.fsync(file.fileno())
        new.replace(self._path)
        return key

    def _begin(self, connection: sqlite3.Connection) -> None:
        """Links for every line that is there, in one transaction."""
        link = first_link(self._key, self._identity)
        connection.execute("BEGIN IMMEDIATE")
        try:
            after = 0
            while rows := connection.execute(f"{ENTRY} WHERE sequence > ? LIMIT 10000", (after,)).fetchall():
                links = []
                for row in rows:
                    link = next_link(self._key, link, Entry(*row))
                    links.append((link, row[0]))
                connection.executemany("UPDATE log SET link = ? WHERE sequence = ?", links)
                after = rows[-1][0]
            check = ("audit_check", audit_check(self._key, self._identity))
            connection.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", check)
            connection.execute("COMMIT")
        except BaseException:
            connection.execute("ROLLBACK")
            raise

    def _last(self, connection: sqlite3.Connection) -> tuple[int, bytes]:
        row = connection.execute("SELECT sequence, link FROM log ORDER BY sequence DESC LIMIT 1").fetchone()
        return row or (0, first_link(self._key, self._identity))

    def extend(self, entry: Entry) -> bytes:
        """The link of the next line, whose number must be the next."""
        assert entry.sequence == self.sequence + 1
        self.sequence, self.link = entry.sequence, next_link(self._key, self.link, entry)
        return self.link

    @contextlib.contextmanager
    def all_or_none(self) -> Iterator[None]:
        """A block whose lines are taken back when it raises."""
        before = self.sequence, self.link
        try:
            yield
        except BaseException:
            self.sequence, self.link = before
            raise

    def keep(self) -> None:
        """Write the head: what was extended is on disk. A head that cannot be written lags behind, and is logged."""
        try:
            os.pwrite(self._file, _HEAD.pack(self._identity, self.sequence, self.link), 0)
        except OSError:
            _LOG.exception("cannot write %s", _head_path(self._path))

    def close(self) -> None:
        os.close(self._file)


def _meta(connection: sqlite3.Connection, name: str) -> bytes | None:
    row = connection.execute("SELECT value FROM meta WHERE name = ?", (name,)).fetchone()
    return None if row is None else row[0]
