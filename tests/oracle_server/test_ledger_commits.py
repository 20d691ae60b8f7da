"""Charges that share a commit: one statement and one flush for all, and each has its own outcome."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from oracle_server.errors import Reason, Refusal
from oracle_server.ledger import Charge, Entry, Key, SqliteLedger
from oracle_server.ledger import sqlite as sqlite_ledger
from tests.ledger_reading import written

MakeKey = Callable[..., Key]


class Waits(SqliteLedger):
    """Commits when it is let go; `sizes` of its commits."""

    def __init__(self, path: Path) -> None:
        self.go, self.sizes = threading.Event(), list[int]()
        super().__init__(path)

    def _commit(self, batch: list[Any]) -> None:
        self.sizes.append(len(batch))
        assert self.go.wait(60)
        super()._commit(batch)

    def charges(self, key: Key, request_ids: list[bytes]) -> list[Charge]:
        """Charges of a row each, the first in a commit of its own, all others in the next."""
        held = [self.reserve(key, request_id, 1) for request_id in request_ids]
        futures = [self.charge(held[0], "Predict", b"d")]
        while not self.sizes:
            time.sleep(0.001)
        futures += [self.charge(reservation, "Predict", b"d") for reservation in held[1:]]
        assert not any(future.done() for future in futures)
        self.go.set()
        return [future.result(timeout=60) for future in futures]


MANY = [b"%d" % n for n in range(151)]  # more than one statement takes


def test_callers_share_a_commit_and_a_lone_one_waits_for_nobody(tmp_path: Path, make_key: MakeKey) -> None:
    key = make_key()
    with closing(Waits(tmp_path / "l.db")) as ledger:
        ledger.add_key(key)
        charges = ledger.charges(key, MANY)
        assert [entry.request_id for entry in ledger.entries()] == MANY
        assert ledger.sizes == [1, 150]
    assert [charge.spent for charge in charges] == list(range(1, 152))
    assert [charge.sequence for charge in charges] == list(range(1, 152))


def test_a_retry_in_a_large_commit_is_free_and_all_others_are_charged(tmp_path: Path, make_key: MakeKey) -> None:
    key = make_key(budget=152)
    with closing(Waits(tmp_path / "l.db")) as ledger:
        ledger.add_key(key)
        charges = ledger.charges(key, [*MANY, MANY[1]])
        assert ledger.sizes == [1, 151]
        assert ledger.usage("k").spent == 151
    assert [charge.rows for charge in charges] == [1] * 151 + [0]
    assert written(tmp_path / "l.db") == dict.fromkeys(MANY, 1)


def test_a_budget_that_turns_out_to_be_spent_is_refused_and_the_others_are_charged(
    tmp_path: Path, make_key: MakeKey
) -> None:
    key, others = make_key(budget=1), make_key("others")
    with closing(SqliteLedger(tmp_path / "l.db")) as ledger:
        ledger.add_key(key)
        ledger.add_key(others)
        ledger._account("k").budget = 2  # the disk says 1
        held = [ledger.reserve(who, b"%d" % n, 1) for n, who in enumerate((key, key, others))]
        futures: list[Future[Charge]] = [Future() for _ in held]
        ledger._commit([(each, "Predict", b"d", future) for each, future in zip(held, futures, strict=True)])
        error = futures[1].exception(timeout=0)
        assert isinstance(error, Refusal)
        assert error.reason is Reason.BUDGET_SPENT
    assert written(tmp_path / "l.db") == {b"0": 1, b"2": 1}


def test_a_commit_that_fails_half_way_leaves_nothing_behind_and_nobody_waiting(
    tmp_path: Path, make_key: MakeKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    key, find = make_key(), sqlite_ledger._find

    def failing(connection: sqlite3.Connection, key_id: str, request_id: bytes) -> Entry | None:
        if request_id == MANY[2]:
            raise sqlite3.OperationalError("disk I/O error")
        return find(connection, key_id, request_id)

    monkeypatch.setattr(sqlite_ledger, "_find", failing)
    with closing(Waits(tmp_path / "l.db")) as ledger:
        ledger.add_key(key)
        with pytest.raises(Refusal) as refused:
            ledger.charges(key, [MANY[0], MANY[1], MANY[1], MANY[2]])
        assert refused.value.reason is Reason.LEDGER_FAILED
        assert written(tmp_path / "l.db") == {MANY[0]: 1}
        ledger._reader.execute("PRAGMA busy_timeout = 0")
        assert ledger.set_budget("k", 10)


def test_a_commit_is_one_statement(tmp_path: Path, make_key: MakeKey) -> None:
    key, statements = make_key(), list[str]()
    with closing(Waits(tmp_path / "l.db")) as ledger:
        ledger.add_key(key)
        ledger.open_chain()
        ledger._writer.set_trace_callback(statements.append)
        ledger.charges(key, MANY[:60])
        ledger._writer.set_trace_callback(None)
    assert len(set(statements)) == 2  # told once more for each line that a trigger sees


def test_a_transaction_that_was_left_open_keeps_no_charge_from_the_disk(tmp_path: Path, make_key: MakeKey) -> None:
    key = make_key()
    with closing(SqliteLedger(tmp_path / "l.db")) as ledger:
        ledger.add_key(key)
        for request_id in (b"one", b"two"):
            ledger._writer.execute("BEGIN IMMEDIATE")  # as when it failed and could not be rolled back
            ledger.charge(ledger.reserve(key, request_id, 1), "Predict", b"d").result(timeout=60)
            assert request_id in written(tmp_path / "l.db")
