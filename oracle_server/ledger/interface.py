"""What a ledger keeps and promises: for every key, answered <= charged <= budget, at any moment and after any crash.

A charge goes through two steps. `reserve` holds rows of the budget in memory before a model is touched, or refuses.
`charge` turns the reservation into a durable entry; its future resolves when the entry would survive a power cut, and
only then may the answer leave. A reservation that is not charged is given back by `cancel`.

The pair (key, request id) stands for one answer. The same pair again, with the same model and digest of the bytes, is
a retry: it costs nothing. With other bytes it is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Protocol

from oracle_server.threat_model import Contract

__all__ = ["Charge", "Digest", "Entry", "Flag", "Key", "Ledger", "LedgerError", "LedgerLocked", "Reservation", "Usage"]


# Of the bytes that were asked, 32 bytes; or what makes it, which the ledger does beside those who wait for answers.
Digest = bytes | Callable[[], bytes]


class LedgerError(RuntimeError):
    """The ledger cannot be used; the sentence says what to do."""


class LedgerLocked(LedgerError):
    """Another process holds the ledger: a running server, as a rule."""


@dataclass(frozen=True)
class Key:
    """An API key as the ledger knows it: no secret, only its SHA-256.

    former_sha256  of the secret before the last rotation, which is accepted before `former_until`, in Unix time
    """

    key_id: str
    label: str
    model: str
    contract: Contract
    secret_sha256: bytes
    created: float
    revoked: float | None = None
    former_sha256: bytes | None = None
    former_until: float | None = None


@dataclass(frozen=True)
class Reservation:
    """Rows of one key's budget held in memory for a request whose id is not in the ledger yet."""

    key_id: str
    model: str
    request_id: bytes
    rows: int


@dataclass(frozen=True)
class Charge:
    """A durable entry: `rows` charged now (0 for a retry), `spent` by the key in all, the sequence number of its line
    in the log, and `head`, that line's link in the chain.
    """

    rows: int
    spent: int
    sequence: int
    head: bytes = b""


@dataclass(frozen=True)
class Usage:
    """What a key has been charged, over all its life."""

    spent: int
    downloads: int


@dataclass(frozen=True)
class Entry:
    """One line of the log; `link` chains it to the one before (empty in a ledger that keeps no chain)."""

    sequence: int
    time: float
    key_id: str
    rpc: str
    model: str
    request_id: bytes
    digest: bytes
    rows: int
    link: bytes = b""


@dataclass(frozen=True)
class Flag:
    """A detector found an attack in a key's queries.

    row     of the rows charged to the key, the first being 1
    lifted  when the operator reinstated the key; None while the flag stands
    """

    key_id: str
    detector: str
    verdict: str
    row: int
    time: float
    lifted: float | None = None


class Ledger(Protocol):
    """The interface; `sqlite.py` keeps it on disk."""

    @property
    def server_secret(self) -> bytes: ...

    def add_key(self, key: Key) -> None: ...
    def key(self, key_id: str) -> Key | None: ...
    def all_keys(self) -> list[Key]: ...
    def revoke(self, key_id: str, at: float) -> bool: ...
    def set_budget(self, key_id: str, budget: int | None) -> bool: ...
    def rotate(self, key_id: str, secret_sha256: bytes, until: float) -> bool: ...

    def known(self, key_id: str, request_id: bytes) -> Entry | None: ...
    def reserve(self, key: Key, request_id: bytes, rows: int) -> Reservation: ...
    def cancel(self, reservation: Reservation) -> None: ...
    def charge(self, reservation: Reservation, rpc: str, digest: Digest) -> Future[Charge]: ...

    def flag(self, flag: Flag) -> bool: ...
    def flags(self, key_id: str) -> list[Flag]: ...
    def reinstate(self, key_id: str, at: float) -> bool: ...

    def usage(self, key_id: str) -> Usage: ...
    def entries(self, after: int = 0, limit: int = 10_000) -> Iterator[Entry]: ...
    def close(self) -> None: ...
