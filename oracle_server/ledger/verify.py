"""Whether a ledger's log is what was written: no line edited, removed, moved or cut off.

Reads the file alone, beside a running server or on a copy, and needs the audit key. Each line is held against the link
of the line before it as it stands, so that one edited line is one finding and not all that follow. What is cut off at
the end shows against the head beside the key, and against heads from receipts; what was spent, against the keys'
accounts.
"""

from __future__ import annotations

import contextlib
import hmac
import sqlite3
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from oracle_server.ledger.chain import ENTRY, audit_check, first_link, next_link, read_head, read_key
from oracle_server.ledger.interface import Entry, LedgerError

__all__ = ["Verdict", "verify"]

_TYPES = (int, float, str, str, str, bytes, bytes, int, bytes)  # of an entry's fields
Head = tuple[int, bytes]  # a line's sequence number and its link


@dataclass(frozen=True)
class Verdict:
    """`lines` that the log has, number and link of the last, and a sentence for everything that is wrong with it."""

    lines: int
    head: Head
    findings: tuple[str, ...]


def verify(path: Path, audit_key: Path, heads: Sequence[Head] = ()) -> Verdict:
    """Read the log of the ledger at `path`; `heads` are those of receipts. `LedgerError` when it cannot be judged."""
    key = read_key(audit_key)
    if key is None:
        raise LedgerError(f"there is no audit key {audit_key}: name its file with --audit-key")
    try:
        with contextlib.closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)) as connection:
            connection.text_factory = lambda data: data.decode(errors="replace")  # whatever was written there
            meta = dict(connection.execute("SELECT name, value FROM meta"))
            identity = meta.get("identity", b"")
            if "audit_check" not in meta:
                raise LedgerError(f"the ledger {path} has no chain yet: it gets one when it is served")
            if meta["audit_check"] != audit_check(key, identity):
                raise LedgerError(f"the audit key {audit_key} is not this ledger's: name the right file")
            kept = read_head(audit_key, identity)  # before the log is read, so that it is never ahead of it
            connection.execute("BEGIN")
            known = [*([kept] if kept is not None and kept[0] else []), *heads]
            return _judge(connection, key, identity, known)
    except sqlite3.Error as error:
        raise LedgerError(f"cannot read the ledger {path}: {error}") from error


def _judge(connection: sqlite3.Connection, key: bytes, identity: bytes, heads: Sequence[Head]) -> Verdict:
    findings: list[str] = []
    wanted = {sequence for sequence, _ in heads}
    links: dict[int, bytes] = {}
    rows: Counter[str] = Counter()
    lines, last, link = 0, 0, first_link(key, identity)
    for row in connection.execute(f"{ENTRY} ORDER BY sequence"):
        entry = Entry(*row)
        formed = tuple(map(type, row)) == _TYPES and entry.rows >= 0  # SQLite takes any type in any column
        if entry.sequence != last + 1:
            findings.append(f"{_lines(last + 1, entry.sequence - 1)} missing")
        elif not formed or not hmac.compare_digest(next_link(key, link, entry), entry.link):
            findings.append(f"line {entry.sequence} is not what was written there: edited, or moved from elsewhere")
        lines, last, link = lines + 1, entry.sequence, entry.link
        rows[entry.key_id] += entry.rows if formed else 0
        if entry.sequence in wanted:
            links[entry.sequence] = entry.link
    for sequence in sorted({sequence for sequence in wanted if sequence > last}, reverse=True)[:1]:
        findings.append(f"{_lines(last + 1, sequence)} cut off at the end")
    for sequence, head in heads:
        if sequence <= last and links.get(sequence) != head:
            findings.append(f"line {sequence} is not the one whose head was given out")
    spent = dict(connection.execute("SELECT key_id, spent FROM keys"))
    for key_id in sorted(spent.keys() | rows.keys()):
        if spent.get(key_id, 0) != rows[key_id]:
            findings.append(
                f"key {key_id} has {spent.get(key_id, 0)} rows in its account and {rows[key_id]} in the log"
            )
    return Verdict(lines, (last, link), tuple(findings))


def _lines(first: int, last: int) -> str:
    return f"line {first} is" if first == last else f"lines {first} to {last} are"
