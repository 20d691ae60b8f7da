"""Ledgers that are broken on purpose, for `tests.ledger_machine` to catch."""

from __future__ import annotations

from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path

from hypothesis import Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from oracle_server.ledger import Charge, Key, Reservation, SqliteLedger
from tests.ledger_machine import SETTINGS, ledger_machine

__all__ = ["BROKEN", "is_caught"]

_HUNT = settings(SETTINGS, max_examples=400, phases=[Phase.generate], database=None, derandomize=True)


class ForgetsIds(SqliteLedger):
    """Does not know after a restart what it was asked before."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._reader.execute("UPDATE log SET request_id = randomblob(16)")


class ReservesNothing(SqliteLedger):
    """Looks at what is spent and not at what is on its way."""

    def reserve(self, key: Key, request_id: bytes, rows: int) -> Reservation:
        reservation = super().reserve(key, request_id, rows)
        self._accounts[key.key_id].reserved -= rows
        return reservation


class KeepsOldBudgets(SqliteLedger):
    """Decides by the budget that the key had when it was first used."""

    def set_budget(self, key_id: str, budget: int | None) -> bool:
        before = self._account(key_id).budget
        done = super().set_budget(key_id, budget)
        self._accounts[key_id].budget = before
        return done


class ChargesRetries(SqliteLedger):
    """Charges a retry that comes in beside its first call."""

    def charge(self, reservation: Reservation, rpc: str, digest: bytes) -> Future[Charge]:
        if self.known(reservation.key_id, reservation.request_id) is not None:
            reservation = replace(reservation, request_id=reservation.request_id + b"again")
        return super().charge(reservation, rpc, digest)


class RevivesKeys(SqliteLedger):
    """A new budget makes a revoked key a good one."""

    def set_budget(self, key_id: str, budget: int | None) -> bool:
        self._reader.execute("UPDATE keys SET revoked = NULL WHERE key_id = ?", (key_id,))
        return super().set_budget(key_id, budget)


BROKEN = [ForgetsIds, ReservesNothing, KeepsOldBudgets, ChargesRetries, RevivesKeys]


def is_caught(broken: type[SqliteLedger]) -> bool:
    """Whether the machine finds what is wrong with it."""
    try:
        run_state_machine_as_test(ledger_machine(broken), settings=_HUNT)
    except AssertionError:
        return True
    return False
