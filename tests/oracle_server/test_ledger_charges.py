"""Law 5: answered <= charged <= budget, for every key, under any interleaving and any crash."""

from __future__ import annotations

import random
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from oracle_server.errors import Reason, Refusal
from oracle_server.ledger import Charge, Key, LedgerLocked, Reservation, SqliteLedger
from tests.ledger_reading import written

MakeKey = Callable[..., Key]
THREADS = 32
FITS = [1 + n % 3 for n in range(400)]


def check_charges(kind: type[SqliteLedger], key: Key, demands: list[int], *, cancel: int = 0) -> list[Refusal]:
    """Many threads want `demands` rows of one key; each drops every `cancel`-th reservation and takes another.

    What was acknowledged was in the file by then, is charged once, and stays within the budget; what was reserved is
    charged; what fits is never refused. Returns the refusals, which are all for want of budget.
    """
    folder = Path(tempfile.mkdtemp(prefix="ml"))
    jobs = iter([(n.to_bytes(16, "big"), rows) for n, rows in enumerate(demands)])
    taking = threading.Lock()
    acknowledged: dict[bytes, int] = {}
    refusals: list[Refusal] = []

    def work(ledger: SqliteLedger) -> None:
        with closing(sqlite3.connect(folder / "l.db")) as stranger:
            while True:
                with taking:
                    request_id, rows = next(jobs, (b"", 0))
                if not request_id:
                    return
                try:
                    if cancel and request_id[-1] % cancel == 0:
                        ledger.cancel(ledger.reserve(key, request_id, rows))
                    reservation = ledger.reserve(key, request_id, rows)
                except Refusal as refusal:
                    refusals.append(refusal)
                    continue
                charge = ledger.charge(reservation, "Predict", b"d").result(timeout=60)
                found = stranger.execute("SELECT rows FROM log WHERE request_id = ?", (request_id,)).fetchone()
                assert found == (rows,), "acknowledged before it was in the file"
                assert charge.rows == rows
                acknowledged[request_id] = rows

    try:
        with closing(kind(folder / "l.db")) as ledger, ThreadPoolExecutor(THREADS) as threads:
            ledger.add_key(key)
            for done in [threads.submit(work, ledger) for _ in range(THREADS)]:
                done.result()
            spent = ledger.usage(key.key_id).spent
        assert written(folder / "l.db") == acknowledged
        assert spent == sum(acknowledged.values())
        assert {refusal.reason for refusal in refusals} <= {Reason.BUDGET_SPENT}
        budget = sum(demands) if key.contract.budget is None else key.contract.budget
        assert spent <= budget
        if sum(demands) <= budget:
            assert not refusals, "a budget that fits was refused"
        elif max(demands) == 1:
            assert spent == budget, "rows were lost"
    finally:
        shutil.rmtree(folder)
    return refusals


def test_a_budget_is_spent_to_its_last_row_and_no_further(make_key: MakeKey) -> None:
    refusals = check_charges(SqliteLedger, make_key(budget=300), [1] * 800)
    assert len(refusals) == 500
    assert refusals[-1].sentence == "1 rows asked and 0 of 300 left: ask for fewer, or for a key with a larger budget"
    assert refusals[-1].figures == {"asked": 1, "left": 0, "budget": 300}


def test_a_budget_that_fits_is_never_refused(make_key: MakeKey) -> None:
    assert not check_charges(SqliteLedger, make_key(budget=sum(FITS)), FITS)
    assert not check_charges(SqliteLedger, make_key(), FITS, cancel=3)


def test_dropped_reservations_leave_no_trace(make_key: MakeKey) -> None:
    check_charges(SqliteLedger, make_key(budget=150), [1] * 400, cancel=2)


class AnswersEarly(SqliteLedger):
    """Acknowledges what is only queued."""

    def charge(self, reservation: Reservation, rpc: str, digest: bytes) -> Future[Charge]:
        super().charge(reservation, rpc, digest)
        early: Future[Charge] = Future()
        early.set_result(Charge(reservation.rows, 0, 0))
        return early


class ReservesNothing(SqliteLedger):
    """Looks at what is spent and not at what is on its way."""

    def reserve(self, key: Key, request_id: bytes, rows: int) -> Reservation:
        if self.usage(key.key_id).spent + rows > (key.contract.budget or 0):
            raise Refusal(Reason.BUDGET_SPENT, "spent")
        with self._lock:
            self._account(key.key_id).reserved += rows
        return Reservation(key.key_id, key.model, request_id, rows)


class KeepsNoBudget(ReservesNothing):
    """And does not look again when it writes."""

    def add_key(self, key: Key) -> None:
        super().add_key(without_budget(key))


class CountsTwice(SqliteLedger):
    """Counts a charge that is on its way as reserved and as spent."""

    def charge(self, reservation: Reservation, rpc: str, digest: bytes) -> Future[Charge]:
        account = self._accounts[reservation.key_id]
        with self._lock:
            account.spent += reservation.rows
        future = super().charge(reservation, rpc, digest)

        def settle(_: Future[Charge]) -> None:
            with self._lock:
                account.spent -= reservation.rows

        future.add_done_callback(settle)
        return future


class KeepsWhatWasCancelled(SqliteLedger):
    """Never gives a reservation back."""

    def cancel(self, reservation: Reservation) -> None:
        pass


class ChargesTwice(SqliteLedger):
    """Writes a second entry for every charge."""

    def charge(self, reservation: Reservation, rpc: str, digest: bytes) -> Future[Charge]:
        again = Reservation(reservation.key_id, reservation.model, reservation.request_id + b"!", reservation.rows)
        with self._lock:
            self._accounts[reservation.key_id].reserved += reservation.rows
        super().charge(again, rpc, digest)
        return super().charge(reservation, rpc, digest)


def without_budget(key: Key) -> Key:
    return replace(key, contract=replace(key.contract, budget=None))


@pytest.mark.parametrize(
    ("broken", "budget", "demands", "cancel"),
    [
        (AnswersEarly, 900, FITS, 0),
        (ReservesNothing, 300, [1] * 800, 0),
        (KeepsNoBudget, 300, [1] * 800, 0),
        (CountsTwice, sum(FITS), FITS, 0),
        (KeepsWhatWasCancelled, 600, [1] * 500, 2),
        (ChargesTwice, 2000, FITS, 0),
    ],
)
def test_a_broken_ledger_is_caught(
    broken: type[SqliteLedger], budget: int, demands: list[int], cancel: int, make_key: MakeKey
) -> None:
    with pytest.raises((AssertionError, Refusal)):
        check_charges(broken, make_key(budget=budget), demands, cancel=cancel)


CHARGING = r"""
import itertools, os, sys, threading
from pathlib import Path
from oracle_server.errors import Refusal
from oracle_server.ledger import SqliteLedger

ledger = SqliteLedger(Path(sys.argv[1]))
key = ledger.key("k")

def work(thread):
    for n in itertools.count():
        request_id = f"{sys.argv[2]}.{thread}.{n}"
        try:
            charge = ledger.charge(ledger.reserve(key, request_id.encode(), 1 + n % 3), "Predict", b"d").result()
        except Refusal as refusal:
            os.write(1, f"{refusal.reason.name}\n".encode())
            return
        os.write(1, f"{request_id} {charge.rows} {charge.sequence}\n".encode())

for thread in range(8):
    threading.Thread(target=work, args=(thread,)).start()
threading.Event().wait()
"""


def charge_until_killed(path: Path, name: str, seconds: float, folder: Path) -> list[str]:
    """What a process printed that charges as fast as it can, one line an acknowledgement."""
    command = [sys.executable, "-c", CHARGING, str(path), name]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=folder) as child:
        try:
            assert child.stdout is not None
            first = child.stdout.readline()
            with pytest.raises(LedgerLocked, match="in use by another server: stop that one, or choose another --root"):
                SqliteLedger(path)
            time.sleep(seconds)
        finally:
            child.kill()
        return [first, *child.stdout]


def check_books(path: Path, acknowledged: dict[str, tuple[int, int]], budget: int, adopt: bool = False) -> None:
    """After a crash: everything acknowledged is in the log, and the log is what the key has spent."""
    with closing(SqliteLedger(path, adopt=adopt)) as ledger:
        log = {entry.request_id.decode(): (entry.rows, entry.sequence) for entry in ledger.entries()}
        assert acknowledged.items() <= log.items()
        assert ledger.usage("k").spent == sum(rows for rows, _ in log.values()) <= budget


def test_a_killed_ledger_has_every_charge_that_it_acknowledged(
    tmp_path: Path, make_key: MakeKey, repository_root: Path
) -> None:
    path, budget = tmp_path / "l.db", 900
    with closing(SqliteLedger(path)) as ledger:
        ledger.add_key(make_key(budget=budget))
    acknowledged: dict[str, tuple[int, int]] = {}
    for name in "abcd":
        for line in charge_until_killed(path, name, random.uniform(0.02, 0.2), repository_root):
            if line.count(" ") == 2 and line.endswith("\n"):
                request_id, rows, sequence = line.split()
                acknowledged[request_id] = int(rows), int(sequence)
            else:
                assert line == "BUDGET_SPENT\n"
        check_books(path, acknowledged, budget)
    assert len(acknowledged) > 50
    for damage in (
        "DELETE FROM log WHERE sequence = (SELECT max(sequence) FROM log)",
        "UPDATE keys SET spent = spent - 1",
        "UPDATE log SET rows = rows + 1 WHERE sequence = 1",
    ):
        broken = shutil.copy(path, tmp_path / "broken.db")
        with closing(sqlite3.connect(broken)) as connection, connection:
            connection.execute(damage)
        with pytest.raises(AssertionError):
            check_books(broken, acknowledged, budget, adopt=True)
