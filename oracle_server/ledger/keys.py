"""The keys of a ledger, in its file: their contracts, and what changes in them while they live."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

from oracle_server.errors import Reason, Refusal
from oracle_server.ledger.interface import Key, Reservation
from oracle_server.ledger.table import Table
from oracle_server.threat_model import Contract

__all__ = ["KEY_TABLE", "Account", "KeyTable"]

KEY_TABLE = """
CREATE TABLE IF NOT EXISTS keys (
    key_id TEXT PRIMARY KEY, label TEXT NOT NULL, model TEXT NOT NULL, contract TEXT NOT NULL,
    secret_sha256 BLOB NOT NULL, created REAL NOT NULL, revoked REAL,
    budget INTEGER, spent INTEGER NOT NULL DEFAULT 0, downloads INTEGER NOT NULL DEFAULT 0,
    CHECK (budget IS NULL OR spent <= budget)
) WITHOUT ROWID;
"""
_KEY = (
    "SELECT key_id, label, model, contract, secret_sha256, created, revoked, former_sha256, former_until"
    " FROM keys LEFT JOIN former_secrets USING (key_id)"
)
_MOST_KEYS = 4096  # in memory


@dataclass
class Account:
    """Rows of one key, on disk and held for calls in flight; both change under one lock, so none is counted twice."""

    spent: int
    budget: int | None
    reserved: int = 0

    @property
    def left(self) -> int | None:
        return None if self.budget is None else self.budget - self.spent - self.reserved


class KeyTable(Table):
    """The keys of a ledger that has a connection and a lock for it, and their accounts in memory."""

    _accounts: dict[str, Account]

    def add_key(self, key: Key) -> None:
        """Keep a new key; durable on return."""
        with self._changing():
            self._reader.execute(
                "INSERT INTO keys (key_id, label, model, contract, secret_sha256, created, revoked, budget)"
                " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    key.key_id,
                    key.label,
                    key.model,
                    json.dumps(key.contract.as_dict()),
                    key.secret_sha256,
                    key.created,
                    key.revoked,
                    key.contract.budget,
                ),
            )

    def key(self, key_id: str) -> Key | None:
        with self._lock:
            key = self._known_keys.get(key_id)
            if key is None and (key := self._find_key(key_id)) is not None:
                self._known_keys[key_id] = key
                if len(self._known_keys) > _MOST_KEYS:
                    del self._known_keys[next(iter(self._known_keys))]
            return key

    def _find_key(self, key_id: str) -> Key | None:
        row = self._reader.execute(f"{_KEY} WHERE key_id = ?", (key_id,)).fetchone()
        return None if row is None else _key(row)

    def all_keys(self) -> list[Key]:
        with self._lock:
            return [_key(row) for row in self._reader.execute(f"{_KEY} ORDER BY created, key_id")]

    def revoke(self, key_id: str, at: float) -> bool:
        """Refuse the key from now on; False when there is no such key. Revoking twice keeps the first time."""
        with self._changing():
            found = self._reader.execute(
                "UPDATE keys SET revoked = coalesce(revoked, ?) WHERE key_id = ?", (at, key_id)
            )
            return found.rowcount == 1

    def set_budget(self, key_id: str, budget: int | None) -> bool:
        """Change a key's budget, None for no bound; durable on return. False when there is no such key.

        A budget below the rows that are spent or held for calls in flight is refused with BAD_CONTRACT: what was
        promised to a call stays promised.
        """
        with self._changing():
            key = self._find_key(key_id)
            if key is None:
                return False
            account = self._account(key_id)
            taken = account.spent + account.reserved
            if budget is not None and budget < taken:
                raise Refusal(
                    Reason.BAD_CONTRACT, f"{taken} rows are spent or under way: a budget cannot be {budget}, take more"
                )
            contract = replace(key.contract, budget=budget)
            self._reader.execute(
                "UPDATE keys SET budget = ?, contract = ? WHERE key_id = ?",
                (budget, json.dumps(contract.as_dict()), key_id),
            )
            account.budget = budget
            return True

    def reserve(self, key: Key, request_id: bytes, rows: int) -> Reservation:
        """Hold `rows` of the key's budget, or refuse with BUDGET_SPENT; nothing is written."""
        with self._lock:
            account = self._account(key.key_id)
            if account.left is not None and rows > account.left:
                raise Refusal(
                    Reason.BUDGET_SPENT,
                    f"{rows} rows asked and {account.left} of {account.budget} left: ask for fewer, or for a key with"
                    " a larger budget",
                    figures={"asked": rows, "left": account.left, "budget": account.budget or 0},
                )
            account.reserved += rows
        return Reservation(key.key_id, key.model, request_id, rows)

    def cancel(self, reservation: Reservation) -> None:
        """Give a reservation back that will not be charged."""
        with self._lock:
            self._accounts[reservation.key_id].reserved -= reservation.rows

    def _account(self, key_id: str) -> Account:
        """A key's account; at first use since the start, when no charge of it can be on its way, from the disk."""
        account = self._accounts.get(key_id)
        if account is None:
            spent = self._reader.execute("SELECT spent, budget FROM keys WHERE key_id = ?", (key_id,)).fetchone()
            account = self._accounts[key_id] = Account(*spent)
        return account


def _key(row: tuple[Any, ...]) -> Key:
    key_id, label, model, contract, *rest = row
    return Key(key_id, label, model, _contract(contract), *rest)


@lru_cache(_MOST_KEYS)
def _contract(text: str) -> Contract:
    """Most keys of a server have one of a few contracts, and to read one takes as long as to find its key."""
    return Contract.from_dict(json.loads(text))
