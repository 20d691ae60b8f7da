"""A ledger that forgets: the same promises as the one on disk, as long as the process lives. What durability costs is
measured against it.
"""

from __future__ import annotations

import secrets
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace

from oracle_server.errors import Reason, Refusal
from oracle_server.ledger import Charge, Digest, Entry, Key, Reservation, Usage

__all__ = ["MemoryLedger"]


class MemoryLedger:
    """An `oracle_server.ledger.Ledger` in dictionaries."""

    def __init__(self) -> None:
        self.server_secret = secrets.token_bytes(32)
        self._lock = threading.Lock()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="memory-ledger")
        self._keys: dict[str, Key] = {}
        self._log: list[Entry] = []
        self._known: dict[tuple[str, bytes], Entry] = {}
        self._spent: Counter[str] = Counter()
        self._reserved: Counter[str] = Counter()
        self._downloads: Counter[str] = Counter()

    def add_key(self, key: Key) -> None:
        with self._lock:
            self._keys[key.key_id] = key

    def key(self, key_id: str) -> Key | None:
        return self._keys.get(key_id)

    def all_keys(self) -> list[Key]:
        with self._lock:
            return list(self._keys.values())

    def revoke(self, key_id: str, at: float) -> bool:
        with self._lock:
            key = self._keys.get(key_id)
            if key is not None and key.revoked is None:
                self._keys[key_id] = replace(key, revoked=at)
            return key is not None

    def rotate(self, key_id: str, secret_sha256: bytes, until: float) -> bool:
        with self._lock:
            key = self._keys.get(key_id)
            if key is not None:
                former = {"former_sha256": key.secret_sha256, "former_until": until}
                self._keys[key_id] = replace(key, secret_sha256=secret_sha256, **former)
            return key is not None

    def known(self, key_id: str, request_id: bytes) -> Entry | None:
        return self._known.get((key_id, request_id))

    def reserve(self, key: Key, request_id: bytes, rows: int) -> Reservation:
        with self._lock:
            budget = key.contract.budget
            if budget is not None and self._spent[key.key_id] + self._reserved[key.key_id] + rows > budget:
                raise Refusal(Reason.BUDGET_SPENT, f"{rows} rows asked, more than what is left of {budget}")
            self._reserved[key.key_id] += rows
        return Reservation(key.key_id, key.model, request_id, rows)

    def cancel(self, reservation: Reservation) -> None:
        with self._lock:
            self._reserved[reservation.key_id] -= reservation.rows

    def charge(self, reservation: Reservation, rpc: str, digest: Digest) -> Future[Charge]:
        """As on disk, the digest is made beside those who wait for answers."""
        return self._thread.submit(self._charge, reservation, rpc, digest)

    def _charge(self, reservation: Reservation, rpc: str, digest: Digest) -> Charge:
        made = digest if isinstance(digest, bytes) else digest()
        with self._lock:
            outcome = self._enter(reservation, rpc, made)
        if isinstance(outcome, Refusal):
            raise outcome
        return outcome

    def _enter(self, reservation: Reservation, rpc: str, digest: bytes) -> Charge | Refusal:
        key_id, rows, pair = reservation.key_id, reservation.rows, (reservation.key_id, reservation.request_id)
        self._reserved[key_id] -= rows
        before = self._known.get(pair)
        if before is not None:
            if (before.model, before.digest) != (reservation.model, digest):
                return Refusal(Reason.ID_REUSED, "this request id was used for other bytes: take a new id")
            return Charge(0, self._spent[key_id], before.sequence)
        entry = Entry(
            len(self._log) + 1, time.time(), key_id, rpc, reservation.model, reservation.request_id, digest, rows
        )
        self._log.append(entry)
        self._known[pair] = entry
        self._spent[key_id] += rows
        self._downloads[key_id] += rpc == "Download"
        return Charge(rows, self._spent[key_id], entry.sequence)

    def usage(self, key_id: str) -> Usage:
        return Usage(self._spent[key_id], self._downloads[key_id])

    def entries(self, after: int = 0, limit: int = 10_000) -> Iterator[Entry]:
        with self._lock:
            return iter(self._log[after : after + limit])

    def close(self) -> None:
        self._thread.shutdown()
