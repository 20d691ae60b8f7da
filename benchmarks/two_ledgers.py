"""The ledger on disk and one in memory behind the same server, chosen by the key.

Two server processes differ by ten per cent for reasons of their own (where memory lies, how a connection has settled),
which would drown what the ledger costs.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future
from itertools import chain

from oracle_server.ledger import Charge, Digest, Entry, Key, Ledger, Reservation, Usage

__all__ = ["IN_MEMORY", "TwoLedgers"]

IN_MEMORY = "in memory"  # the label of keys that are not charged on disk


class TwoLedgers:
    """An `oracle_server.ledger.Ledger`: keys with the label `IN_MEMORY` live in `memory`, all others in `disk`."""

    def __init__(self, disk: Ledger, memory: Ledger) -> None:
        self._disk = disk
        self._memory = memory
        self._in_memory: set[str] = set()
        self.server_secret = disk.server_secret

    def _of(self, key_id: str) -> Ledger:
        return self._memory if key_id in self._in_memory else self._disk

    def add_key(self, key: Key) -> None:
        if key.label == IN_MEMORY:
            self._in_memory.add(key.key_id)
        self._of(key.key_id).add_key(key)

    def key(self, key_id: str) -> Key | None:
        return self._of(key_id).key(key_id)

    def all_keys(self) -> list[Key]:
        return self._disk.all_keys() + self._memory.all_keys()

    def revoke(self, key_id: str, at: float) -> bool:
        return self._of(key_id).revoke(key_id, at)

    def known(self, key_id: str, request_id: bytes) -> Entry | None:
        return self._of(key_id).known(key_id, request_id)

    def reserve(self, key: Key, request_id: bytes, rows: int) -> Reservation:
        return self._of(key.key_id).reserve(key, request_id, rows)

    def cancel(self, reservation: Reservation) -> None:
        self._of(reservation.key_id).cancel(reservation)

    def charge(self, reservation: Reservation, rpc: str, digest: Digest) -> Future[Charge]:
        return self._of(reservation.key_id).charge(reservation, rpc, digest)

    def usage(self, key_id: str) -> Usage:
        return self._of(key_id).usage(key_id)

    def entries(self, after: int = 0, limit: int = 10_000) -> Iterator[Entry]:
        return chain(self._disk.entries(after, limit), self._memory.entries(after, limit))

    def close(self) -> None:
        self._disk.close()
        self._memory.close()
